//! Servers that rest: the topology as it counts while some of them take less than their weight.
//!
//! ```text
//!   topology, as the operator wrote it ---+
//!                                         +--> topology in effect --> placement, links
//!   who rests, as the servers report it --+
//! ```
//!
//! The document is what is wished for and stays as it is; who rests is state. Whoever hears the same of the same servers
//! comes to the same topology.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::placement::Weight;
use crate::topology::{Topology, Watched};

/// The share of its weight that a server takes, by name, above 0 and below 1; who is not in it takes all.
pub type Rests = BTreeMap<String, f64>;

/// The topology in effect, as both change. The task ends when every receiver is gone.
#[must_use]
pub fn follow(mut written: Watched, mut rests: watch::Receiver<Rests>) -> Watched {
    let (sender, receiver) = watch::channel(in_effect(&written.borrow_and_update(), &rests.borrow_and_update()));
    tokio::spawn(async move {
        let mut told = true;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                changed = written.changed() => if changed.is_err() { return },
                changed = rests.changed(), if told => told = changed.is_ok(),
            }
            let now = in_effect(&written.borrow_and_update(), &rests.borrow_and_update());
            sender.send_replace(now);
        }
    });
    receiver
}

fn in_effect(written: &Arc<Topology>, rests: &Rests) -> Arc<Topology> {
    if rests.is_empty() { Arc::clone(written) } else { Arc::new(written.rested(rests)) }
}

/// A weight of which a share is taken: never 0, since a server that rests still serves.
pub(crate) fn rested(weight: Weight, share: f64) -> Weight {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 };
    let taken = (f64::from(weight.get()) * share).round().max(1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the weight itself")]
    let taken = (taken as u16).min(weight.get());
    Weight::new(taken).unwrap_or(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RegionId;

    #[test]
    fn a_server_that_rests_keeps_a_share_of_its_weight_and_never_none() {
        for (weight, share, expected) in [
            (100, 0.5, 50),
            (100, 1.0, 100),
            (1, 0.5, 1),
            (3, 0.5, 2),
            (0, 0.5, 0),
            (100, f64::NAN, 100),
            (100, 7.0, 100),
            (100, -1.0, 1),
        ] {
            assert_eq!(rested(Weight::new(weight).unwrap(), share).get(), expected, "{weight} {share}");
        }
    }

    #[tokio::test]
    async fn who_rests_and_what_is_written_both_count_as_they_change() {
        let (written, watched) = watch::channel(Arc::new(topology(1, 100)));
        let rests = watch::Sender::new(Rests::new());
        let mut effect = follow(watched, rests.subscribe());
        let weights = |effect: &Watched| {
            let region = effect.borrow().region(RegionId(1)).unwrap().clone();
            region.suns.iter().map(|sun| sun.server.weight.get()).collect::<Vec<_>>()
        };
        assert_eq!(weights(&effect), [100, 100]);
        assert!(Arc::ptr_eq(&effect.borrow(), &written.borrow()), "while nobody rests it is the document's own");
        rests.send_replace(Rests::from([("sun1-1-1".to_owned(), 0.5), ("nobody".to_owned(), 0.5)]));
        effect.changed().await.unwrap();
        assert_eq!(weights(&effect), [50, 100]);
        let moved =
            written.borrow().region(RegionId(1)).unwrap().suns_moved(effect.borrow().region(RegionId(1)).unwrap());
        assert!((moved - 1.0 / 6.0).abs() < 1e-9, "placement goes by it: {moved}");
        written.send_replace(Arc::new(topology(2, 200)));
        effect.changed().await.unwrap();
        assert_eq!((weights(&effect), effect.borrow().version), (vec![100, 200], 2));
        rests.send_replace(Rests::new());
        effect.changed().await.unwrap();
        assert_eq!(weights(&effect), [200, 200]);
    }

    fn topology(version: u64, weight: u16) -> Topology {
        let sun = |number: u8| {
            format!(
                "{{ name = \"sun1-1-{number}\", addresses = [\"192.0.2.{number}\"], internal = \"10.0.0.{number}:81\", weight = {weight} }}"
            )
        };
        Topology::parse(&format!(
            r#"
version = {version}
domain = "example.org"
default_region = 1
content_servers = {{ url = "http://cs{{number}}", numbers = ["1"] }}
region = [{{ id = 1, name = "one", latitude = 0, longitude = 0 }}]
group = [{{ name = "sun1-1", subnet = "192.0.2.0/24" }}]
sun = [{}, {}]
"#,
            sun(1),
            sun(2)
        ))
        .unwrap()
    }
}
