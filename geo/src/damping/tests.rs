//! Damping by a simulated clock.

use proptest::prelude::*;

use super::*;
use crate::table::{Candidate, Source};

#[test]
fn another_region_waits_and_everything_else_is_published_at_once() {
    // published, wanted, seconds to wait
    check("", "4", 60); // New: what covers it serves it meanwhile.
    check("4", "5", 60);
    check("4 5", "5 4", 60);
    check("4 5", "5", 60);
    check("4", "4=5", 60); // Half of the clients would move.
    check("4=5", "4", 60);
    check("4", "4", 0);
    check("4 5", "4 6 7", 0);
    check("4=5", "4=5 6", 0);
    check("4", "", 0);
    check("4", "-5", 0); // Nobody is left, and region 5 is denied.
    check("-5", "4", 60);
    check("", "", 0);
    check("4 5", "5 -4", 0); // The operator's word.
    check("4 5", "5 -6", 60);
}

#[test]
fn a_wish_that_stays_the_same_is_due_after_a_minute() {
    let mut damping = Damping::new(Options::default());
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    assert_eq!(decide(&mut damping, 1, "4", "5", at(0)), Decision::At(at(60)));
    assert_eq!(damping.next_due(), Some(at(60)));
    // What is behind the first may change.
    assert_eq!(decide(&mut damping, 1, "4", "5 6", at(30)), Decision::At(at(60)));
    assert_eq!(decide(&mut damping, 2, "4", "5", at(40)), Decision::At(at(100)));
    assert_eq!(damping.due(at(59), 10), []);
    assert_eq!(damping.due(at(60), 10), [net(1)]);
    assert_eq!(damping.due(at(60), 10), []);
    // Whoever asks late is told at once.
    assert_eq!(decide(&mut damping, 2, "4", "5", at(100)), Decision::Now);
    assert_eq!((damping.pending(), damping.next_due()), (0, None));
}

#[test]
fn a_route_that_comes_and_goes_moves_nobody() {
    let mut damping = Damping::new(Options::default());
    let start = Instant::now();
    for s in (0..3600).step_by(20) {
        let now = start + Duration::from_secs(s);
        assert!(matches!(decide(&mut damping, 1, "4", "5", now), Decision::At(_)), "after {s} s");
        assert_eq!(damping.due(now, 10), []);
        let now = now + Duration::from_secs(10);
        assert_eq!(decide(&mut damping, 1, "4", "4", now), Decision::Now);
        assert_eq!(damping.pending(), 0);
    }
    // So does one that points elsewhere each time.
    for (s, wanted) in (0..3600).step_by(50).zip(["5", "6"].iter().cycle()) {
        let now = start + Duration::from_secs(7200 + s);
        assert!(matches!(decide(&mut damping, 1, "4", wanted, now), Decision::At(_)), "after {s} s");
        assert_eq!(damping.due(now, 10), []);
    }
}

#[test]
fn of_too_many_the_oldest_goes_early_and_memory_stays_bounded() {
    let mut damping = Damping::new(Options { pending_max: 3, ..Options::default() });
    let start = Instant::now();
    let at = |s: u8| start + Duration::from_secs(s.into());
    for index in 0..4 {
        assert_eq!(decide(&mut damping, index, "4", "5", at(index)), Decision::At(at(index + 60)));
    }
    assert_eq!((damping.pending(), damping.early_total()), (4, 1));
    assert_eq!(damping.next_due(), Some(at(3)));
    assert_eq!(decide(&mut damping, 0, "4", "5", at(4)), Decision::At(at(4)));
    assert_eq!(damping.due(at(4), 10), [net(0)]);
    // Nobody takes what is due: the newest is not damped.
    for index in 4..7 {
        assert_eq!(decide(&mut damping, index, "4", "5", at(5)), Decision::At(at(65)));
    }
    assert_eq!(decide(&mut damping, 7, "4", "5", at(5)), Decision::Now);
    assert_eq!((damping.pending(), damping.early_total()), (6, 5));
    assert_eq!(damping.due(at(5), 2), [net(1), net(2)]);
    assert_eq!(damping.due(at(5), 2), [net(3)]);
    damping.clear();
    assert_eq!((damping.pending(), damping.next_due()), (0, None));
}

#[test]
fn zero_seconds_switch_it_off() {
    let mut damping = Damping::new(Options { stable_s: 0, ..Options::default() });
    assert_eq!(decide(&mut damping, 1, "4", "5", Instant::now()), Decision::Now);
    assert_eq!(damping.pending(), 0);
}

proptest! {
    /// Against the rule itself: a region may only follow another one if it was wished for all the time before.
    #[test]
    fn no_prefix_moves_twice_within_a_minute(wishes in prop::collection::vec((0_u64..40, 1_u16..4), 1..60)) {
        let mut damping = Damping::new(Options::default());
        let (mut now, mut published, mut moved, mut wanted_since) = (Instant::now(), String::from("1"), None, None);
        let mut before = 1;
        for (after_s, wanted) in wishes {
            now += Duration::from_secs(after_s);
            if wanted != before {
                wanted_since = Some(now);
            }
            before = wanted;
            let wanted = wanted.to_string();
            let decided = decide(&mut damping, 1, &published, &wanted, now) == Decision::Now;
            if decided && wanted != published {
                prop_assert!(wanted_since.is_some_and(|since| now - since >= Duration::from_secs(60)));
                prop_assert!(moved.is_none_or(|moved| now - moved >= Duration::from_secs(60)));
                moved = Some(now);
                published = wanted;
            }
            prop_assert!(damping.pending() <= 1);
        }
    }
}

#[track_caller]
fn check(published: &str, wanted: &str, wait_s: u64) {
    let mut damping = Damping::new(Options::default());
    let now = Instant::now();
    let expected = if wait_s == 0 { Decision::Now } else { Decision::At(now + Duration::from_secs(wait_s)) };
    assert_eq!(decide(&mut damping, 1, published, wanted, now), expected, "{published:?} to {wanted:?}");
}

fn decide(damping: &mut Damping, index: u8, published: &str, wanted: &str, now: Instant) -> Decision {
    damping.decide(net(index), leaf(published).as_ref(), leaf(wanted).as_ref(), now)
}

fn net(index: u8) -> IpNet {
    format!("192.0.{index}.0/24").parse().unwrap()
}

/// `4=5 6 -7`: regions 4 and 5 are as good as each other, 6 is next, 7 is denied.
fn leaf(text: &str) -> Option<Leaf> {
    let mut leaf = Leaf { source: Source::Bgp, ..Leaf::default() };
    let mut rank = 0;
    for group in text.split_whitespace() {
        if let Some(denied) = group.strip_prefix('-') {
            leaf.denied.push(RegionId(denied.parse().unwrap()));
            continue;
        }
        let regions = group.split('=').map(|region| Candidate { region: RegionId(region.parse().unwrap()), rank });
        leaf.candidates.extend(regions);
        rank += 1;
    }
    (!text.is_empty()).then_some(leaf)
}
