//! What follows from a second's counts: what to report, what this sun spreads itself, what it passes on. Pure.
//!
//! ```text
//!   count(counts, load) --> rates --> report            then, when the API has answered or not:
//!                             |
//!   pass(region, ...)  -------+--> own spread (API away) --> passing
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;

use geo::topology::{Server, Spread, Sun};
use geo::{CanonicalName, Scheme, Topology};
use popularity_api::hot::{self, HotFiles, Rule, Suns};
use popularity_api::wire::Load;

use super::detector::Counted;
use super::passing::{Passing, Shared, Sibling};
use super::rates::{Rate, Rates};
use crate::config::HotConfig;
use crate::region::RegionView;
use crate::sources::Belief;

/// What is remembered from turn to turn.
#[derive(Debug, Default)]
pub struct Turns {
    rates: Rates,
    hottest: Vec<Rate>,
    /// What this sun spreads by what it sees itself.
    own: HotFiles,
    /// Served to clients, as of the last count.
    load: Load,
    /// Requests per second that were passed on, by file.
    passed: HashMap<u64, f64>,
}

/// Where and when.
#[derive(Debug)]
pub struct Place<'a, B> {
    /// This sun's name.
    pub me: &'a str,
    /// The running topology.
    pub topology: &'a Topology,
    /// Those before it, of the last ten minutes.
    pub earlier: &'a [std::sync::Arc<Topology>],
    /// What the API says of the region.
    pub view: &'a RegionView,
    /// Who is worth naming.
    pub belief: &'a B,
    /// Milliseconds on the clock of `view`.
    pub now_ms: u64,
}

impl Turns {
    /// Takes in what was served and passed on within the last `seconds`; returns the hottest files for the report.
    /// What was passed on is not among them: a sibling serves it, and reports it.
    #[expect(clippy::cast_precision_loss, reason = "rates need no more than 53 bits")]
    pub fn count(&mut self, counted: &[Counted], load: Load, passed: HashMap<u64, u64>, seconds: f64) -> &[Rate] {
        self.hottest = self.rates.take_in(counted, seconds);
        self.load = load;
        let per_second = |(prefix, passed): (u64, u64)| (prefix, passed as f64 / seconds.max(0.001));
        self.passed = passed.into_iter().map(per_second).collect();
        &self.hottest
    }

    /// Files that this sun would spread by what it sees itself, and over how many suns.
    pub fn own<B>(&mut self, place: &Place<'_, B>) -> HashMap<String, usize> {
        let Some(region) = place.topology.sun(place.me).and_then(|sun| place.topology.region(sun.server.region)) else {
            return HashMap::new();
        };
        let count = region.suns.iter().filter(|sun| sun.server.weight.get() > 0).count();
        let owned = |rate: &&Rate| {
            let content = CanonicalName::parse(&rate.file).ok().map(|name| name.content_id());
            content.and_then(|content| region.owner(content)).is_some_and(|owner| owner.server.name == place.me)
        };
        let owned = self.hottest.iter().filter(owned).map(|rate| self.offered(rate).requests).collect();
        let asked = self.load.requests_per_second + self.passed.values().sum::<f64>();
        let rule = Rule { request_share: OWN_REQUEST_SHARE, ..Rule::default() };
        let suns = Suns {
            count,
            mean_requests: mean_guessed(&rule, asked, owned, count),
            nic_bits: region.suns.iter().map(|sun| sun.server.nic_gbps * 1e9).fold(f64::INFINITY, f64::min),
        };
        let rates: BTreeMap<&str, hot::Rate> =
            self.hottest.iter().map(|rate| (&*rate.file, self.offered(rate))).collect();
        self.own.update(&rule, suns, &rates, place.now_ms);
        self.own.iter(suns.count).map(|(file, spread)| (file.to_owned(), spread)).collect()
    }

    /// What to pass on until the next turn.
    #[must_use]
    pub fn pass<B: Belief>(&self, config: &HotConfig, place: &Place<'_, B>) -> Passing {
        let Some(sun) = place.topology.sun(place.me).filter(|_| config.redirect) else {
            return Passing::default();
        };
        let mut files: Vec<(&Rate, Vec<&Server>)> = self
            .hottest
            .iter()
            .filter_map(|rate| Some((rate, siblings(place, &rate.file)?)))
            .filter(|(_, siblings)| !siblings.is_empty())
            .collect();
        let known = place.view.mean(place.topology, &sun.server, place.now_ms);
        let share = known.map(|mean| self.share(config, mean, files.iter().map(|&(rate, _)| rate)));
        if share == Some(0.0) {
            files.clear();
        }
        let shared = files.into_iter().map(|(rate, siblings)| {
            #[expect(clippy::cast_precision_loss, reason = "suns of a region are few")]
            let share = share.unwrap_or(1.0 - 1.0 / (siblings.len() + 1) as f64);
            (rate.prefix, shared(share, &rate.file, &siblings, place.view, place.now_ms))
        });
        Passing::new(shared.collect())
    }

    /// The share of the files' requests that are too many for this sun, when `mean` is what it should carry.
    fn share<'a>(&self, config: &HotConfig, mean: Load, files: impl Iterator<Item = &'a Rate>) -> f64 {
        let (mut requests, mut bits, mut passed_requests, mut passed_bits) = (0.0, 0.0, 0.0, 0.0);
        for rate in files {
            let offered = self.offered(rate);
            (requests, bits) = (requests + offered.requests, bits + offered.bits);
            passed_requests += self.passed.get(&rate.prefix).copied().unwrap_or(0.0);
            passed_bits += (offered.bits - rate.bits).max(0.0);
        }
        let excess = |all: f64, mean: f64, hot: f64| {
            if mean > 0.0 && hot > 0.0 && all > config.redirect_above * mean { (all - mean) / hot } else { 0.0 }
        };
        let by_requests = excess(self.load.requests_per_second + passed_requests, mean.requests_per_second, requests);
        let by_bits = excess(self.load.bits_per_second + passed_bits, mean.bits_per_second, bits);
        by_requests.max(by_bits).min(SHARE_MAX)
    }

    /// What of a file was asked for here, served or passed on.
    fn offered(&self, rate: &Rate) -> hot::Rate {
        let passed = self.passed.get(&rate.prefix).copied().unwrap_or(0.0);
        let bits_a_request = if rate.requests > 0.0 { rate.bits / rate.requests } else { 0.0 };
        hot::Rate { requests: rate.requests + passed, bits: rate.bits + passed * bits_a_request }
    }
}

/// What the others carry, while nobody says it: as much as this sun would if those of its `owned` files that are hot were
/// shared by all `suns`. `asked` is all it is asked for, served or passed on; all are requests per second.
///
/// Why not simply what it is asked for: the sun that owns the hottest file is asked for several times the mean, and
/// would take the file for less hot than it is. What it serves of other owners' hot files stays in: others do as well.
fn mean_guessed(rule: &Rule, asked: f64, mut owned: Vec<f64>, suns: usize) -> f64 {
    owned.sort_by(|a, b| b.total_cmp(a));
    #[expect(clippy::cast_precision_loss, reason = "suns of a region are few")]
    let away = 1.0 - 1.0 / suns.max(1) as f64;
    owned.into_iter().fold(asked, |mean, file| {
        let hot = file >= rule.requests_min && file > rule.request_share * mean;
        if hot { mean - away * file } else { mean }
    })
}

/// The living suns that keep the file beside this one, if it is this one's to pass on; see [`super::passing`].
fn siblings<'a, B: Belief>(place: &Place<'a, B>, file: &str) -> Option<Vec<&'a Server>> {
    let name = CanonicalName::parse(file).ok()?;
    let content = name.content_id();
    let region = |topology: &'a Topology| topology.region(topology.sun(place.me)?.server.region);
    let first = |topology: &'a Topology| Some(region(topology)?.owner(content)?.server.name == place.me);
    if !std::iter::once(place.topology)
        .chain(place.earlier.iter().map(AsRef::as_ref))
        .all(|one| first(one) == Some(true))
    {
        return None;
    }
    let order: Vec<&Sun> = region(place.topology)?.sun_order(content);
    let keepers = match place.topology.class_of(&name).spread {
        Spread::All => order.len(),
        Spread::Auto => place.view.spread(file, place.now_ms),
    };
    let servers = order.into_iter().map(|sun| &sun.server);
    let living = servers.filter(|server| server.name == place.me || place.belief.alive(&server.name));
    Some(living.take(keepers).filter(|server| server.name != place.me).collect())
}

fn shared(share: f64, file: &str, siblings: &[&Server], view: &RegionView, now_ms: u64) -> Shared {
    let name = CanonicalName::parse(file).ok();
    let link = |server: &Server, scheme| name.as_ref().and_then(|name| server.link(scheme, name));
    Shared {
        share,
        busy: siblings.iter().map(|server| view.busy(&server.name, now_ms)).collect(),
        siblings: siblings
            .iter()
            .map(|server| Sibling {
                server: server.name.clone(),
                https: link(server, Scheme::Https),
                http: link(server, Scheme::Http),
            })
            .collect(),
        passed: AtomicU64::new(0),
    }
}

/// Share of the mean that one sun takes of one file while the API is away: a quarter of what it takes otherwise. Without
/// gauges nobody evens out how unequally files fall to suns, so more of them are shared. Busiest / mean in
/// `tests/bench/spread "API away, 307" --seeds 3`: 1.25 to 1.30 with 0.05 (of two seeds), 1.14 to 1.15 with 0.025, 1.10 to
/// 1.11 with this.
const OWN_REQUEST_SHARE: f64 = 0.0125;
/// Some of a hot file is always served here: what it weighs is measured on that.
const SHARE_MAX: f64 = 0.98;

#[cfg(test)]
mod tests;
