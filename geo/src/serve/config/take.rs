//! What the engine goes by, and what of a changed config counts while the server runs.

use std::time::Duration;

use super::{Config, Mrt, Peer, Publish, Router, WantedView};
use crate::engine::{Dump, Inputs};
use crate::feed::View;
use crate::rib::{Feed, FeedKind, Fits, Limits as RibLimits, PeerClass};

impl Config {
    /// What the engine goes by.
    #[must_use]
    pub fn inputs(&self) -> Inputs {
        let dump = |mrt: &Mrt| Dump { file: mrt.file.clone(), region: mrt.region, class: mrt.class };
        Inputs {
            lists: self.list.clone(),
            lists_agree: false,
            dumps: self.mrt.iter().map(dump).collect(),
            rules: self.rule.clone(),
            origins: self.origin.clone(),
            geoip: self.geoip.files.clone(),
            countries: self.geoip.countries.clone(),
            feeds: self.router.iter().map(Router::feed).collect(),
            limits: RibLimits {
                routes_max: self.bmp.routes_max,
                stale: Duration::from_secs(self.bmp.stale_s),
                quiet: Duration::from_secs(self.bmp.quiet_s),
                gate: Duration::from_secs(self.bmp.gate_s),
                ..RibLimits::default()
            },
            choice: self.choice,
            damping: self.damping,
            changes_max: self.publish.changes_max,
        }
    }

    /// This config, as far as it counts at once, with the rest of `running`; and the keys of that rest that differ.
    #[must_use]
    pub fn taken_over(self, running: &Self) -> (Self, Vec<String>) {
        let new = self.clone();
        let taken = Self {
            listen: running.listen,
            admin: running.admin,
            topology: running.topology.clone(),
            data: running.data.clone(),
            tokens: running.tokens.clone(),
            drain_s: running.drain_s,
            bmp: running.bmp.clone(),
            publish: Publish { changes_max: self.publish.changes_max, ..running.publish },
            limits: running.limits.clone(),
            log: running.log.clone(),
            ..self
        };
        let (mut keys, value) = (Vec::new(), |config| serde_json::to_value(config).unwrap_or_default());
        differences("", &value(&taken), &value(&new), &mut keys);
        (taken, keys)
    }
}

impl Router {
    fn feed(&self) -> Feed {
        let class = |peer: &Peer| {
            let class = peer.class.filter(|_| !peer.ignore);
            let by_address = peer.address.map(|address| Fits::Address(address.to_canonical()));
            Some(PeerClass { fits: by_address.or(peer.peer_as.map(Fits::As))?, class })
        };
        Feed {
            name: self.name.clone(),
            region: self.region,
            class: self.class,
            peers: self.peer.iter().filter_map(class).collect(),
            view: match self.view {
                WantedView::PrePolicy => View::PrePolicy,
                WantedView::PostPolicy => View::PostPolicy,
                WantedView::LocRib => View::LocRib,
            },
            prefixes_max: Some(self.prefixes_max),
            kind: FeedKind::Live,
        }
    }
}

/// The keys whose values differ, "bmp.listen".
fn differences(key: &str, ours: &serde_json::Value, theirs: &serde_json::Value, keys: &mut Vec<String>) {
    let (Some(our), Some(their)) = (ours.as_object(), theirs.as_object()) else {
        if ours != theirs {
            keys.push(key.to_owned());
        }
        return;
    };
    let names: std::collections::BTreeSet<&String> = our.keys().chain(their.keys()).collect();
    for name in names {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        let value = |of: &serde_json::Map<String, serde_json::Value>| of.get(name).cloned().unwrap_or_default();
        differences(&key, &value(our), &value(their), keys);
    }
}
