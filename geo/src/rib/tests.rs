//! Tables of what happened and what is heard then; and the same against a model that does everything at once.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::feed::PeerId;
use crate::route::{Attributes, SessionClass};
use crate::topology::RegionId;

mod model;

const ROUTER: FeedId = FeedId(0);
const OTHER: FeedId = FeedId(1);
const A: &str = "10.0.0.0/8";
const B: &str = "10.1.0.0/16";
const SIX: &str = "2001:db8::/32";

/// Something that happens to a RIB with two routers.
#[derive(Clone, Debug)]
enum Act {
    Up(FeedId, u8),
    Down(FeedId, u8),
    /// With this path.
    Announce(FeedId, u8, &'static str, u32),
    Withdraw(FeedId, u8, &'static str),
    End(FeedId, u8, Family),
    Connect(FeedId),
    Lost(FeedId),
    /// Seconds since the start.
    Tick(u64),
}
use Act::*;

fn feed(name: &str, region: u16) -> Feed {
    let (region, class) = (RegionId(region), SessionClass::Transit);
    let (view, kind) = (View::PrePolicy, FeedKind::Live);
    Feed { name: name.to_owned(), region, class, peers: Vec::new(), view, prefixes_max: None, kind }
}

fn two_routers(limits: Limits) -> Rib {
    let mut rib = Rib::new(limits);
    let ids = rib.set_feeds(&[feed("r1", 1), feed("r2", 2)], Duration::ZERO);
    assert_eq!(ids, [Some(ROUTER), Some(OTHER)]);
    rib
}

fn peer(number: u8) -> PeerId {
    PeerId { address: [192, 0, 2, number].into(), distinguisher: 0, asn: 64_500 + u32::from(number) }
}

fn net(prefix: &str) -> IpNet {
    prefix.parse().unwrap()
}

fn path(first: u32) -> Attributes {
    Attributes { as_path: [first].into(), path_length: 1, ..Attributes::default() }
}

fn routes(number: u8, announced: &[&str], withdrawn: &[&str], attributes: Option<Attributes>) -> Event {
    let nets = |prefixes: &[&str]| prefixes.iter().map(|prefix| net(prefix)).collect();
    let (announced, withdrawn) = (nets(announced), nets(withdrawn));
    Event::Routes { peer: peer(number), view: View::PrePolicy, announced, withdrawn, attributes }
}

fn up(number: u8, view: View) -> Event {
    Event::Up { peer: peer(number), view, bgp_id: std::net::Ipv4Addr::UNSPECIFIED, add_path: Vec::new() }
}

fn act(rib: &mut Rib, act: &Act, now: &mut Duration) {
    let view = View::PrePolicy;
    let (feed, event) = match *act {
        Up(feed, number) => (feed, up(number, view)),
        Down(feed, number) => (feed, Event::Down { peer: peer(number), view, reason: "" }),
        Announce(feed, number, prefix, first) => (feed, routes(number, &[prefix], &[], Some(path(first)))),
        Withdraw(feed, number, prefix) => (feed, routes(number, &[], &[prefix], None)),
        End(feed, number, family) => (feed, Event::EndOfRib { peer: peer(number), view, family }),
        Connect(feed) => return rib.connected(feed, *now),
        Lost(feed) => return rib.lost(feed, *now),
        Tick(at) => {
            *now = Duration::from_secs(at);
            return rib.tick(*now);
        }
    };
    rib.apply(feed, &event, *now);
}

/// `prefix region/first AS`, with `~` when stale; by prefix, then peer.
fn heard(rib: &Rib) -> Vec<String> {
    let mut all = Vec::new();
    for prefix in rib.prefixes() {
        let mut heard = Vec::new();
        rib.heard(&prefix, &mut heard);
        all.extend(heard.iter().map(|route| {
            let stale = if route.stale { "~" } else { "" };
            format!("{prefix} {}/{}{stale}", route.region, route.attributes.as_path[0])
        }));
    }
    all
}

#[track_caller]
fn check(acts: &[Act], expected: &[&str]) {
    let (mut rib, mut now) = (two_routers(Limits::default()), Duration::ZERO);
    for one in acts {
        act(&mut rib, one, &mut now);
    }
    assert_eq!(heard(&rib), expected, "{acts:?}");
    rib.finish_walks();
    assert_eq!(heard(&rib), expected, "after clearing up: {acts:?}");
}

#[test]
fn a_table_counts_when_it_is_told_to_the_end() {
    let told = [Up(ROUTER, 1), Announce(ROUTER, 1, A, 7), Announce(ROUTER, 1, SIX, 7)];
    let then = |more: &[Act]| [&told[..], more].concat();
    check(&told, &[]);
    check(&then(&[End(ROUTER, 1, Family::V4)]), &["10.0.0.0/8 1/7"]);
    check(&then(&[End(ROUTER, 1, Family::V6)]), &["2001:db8::/32 1/7"]);
    // Or when the peer paused, or had time enough.
    check(&then(&[Tick(9)]), &[]);
    check(&then(&[Tick(10)]), &["10.0.0.0/8 1/7", "2001:db8::/32 1/7"]);
    let goes_on = |until: u64| (1..=until / 9).flat_map(|step| [Tick(step * 9), Announce(ROUTER, 1, B, 7)]);
    let slow = |until: u64| then(&goes_on(until).collect::<Vec<_>>());
    check(&slow(117), &[]);
    check(&slow(126), &["10.0.0.0/8 1/7", "10.1.0.0/16 1/7", "2001:db8::/32 1/7"]);
    check(&[Up(ROUTER, 1), Tick(100), Announce(ROUTER, 1, A, 7), Tick(109)], &[]);
    check(&then(&[End(ROUTER, 1, Family::V4), Announce(ROUTER, 1, B, 8)]), &["10.0.0.0/8 1/7", "10.1.0.0/16 1/8"]);
    check(&then(&[Withdraw(ROUTER, 1, A), End(ROUTER, 1, Family::V4)]), &[]);
}

#[test]
fn each_peer_has_a_route_of_its_own() {
    let both = [
        Up(ROUTER, 1),
        Up(OTHER, 1),
        Announce(ROUTER, 1, A, 7),
        Announce(OTHER, 1, A, 8),
        End(ROUTER, 1, Family::V4),
        End(OTHER, 1, Family::V4),
    ];
    let then = |more: &[Act]| [&both[..], more].concat();
    check(&both, &["10.0.0.0/8 1/7", "10.0.0.0/8 2/8"]);
    check(&then(&[Announce(ROUTER, 1, A, 9)]), &["10.0.0.0/8 1/9", "10.0.0.0/8 2/8"]);
    check(&then(&[Withdraw(ROUTER, 1, A)]), &["10.0.0.0/8 2/8"]);
    check(&then(&[Down(ROUTER, 1)]), &["10.0.0.0/8 2/8"]);
    check(&then(&[Lost(OTHER)]), &["10.0.0.0/8 1/7", "10.0.0.0/8 2/8~"]);
}

#[test]
fn a_lost_feed_leaves_stale_routes_for_a_while() {
    let lost = [
        Up(ROUTER, 1),
        Announce(ROUTER, 1, A, 7),
        Announce(ROUTER, 1, B, 7),
        End(ROUTER, 1, Family::V4),
        Tick(1000),
        Lost(ROUTER),
    ];
    let then = |more: &[Act]| [&lost[..], more].concat();
    let stale = ["10.0.0.0/8 1/7~", "10.1.0.0/16 1/7~"];
    check(&lost, &stale);
    check(&then(&[Tick(1899)]), &stale);
    check(&then(&[Tick(1900)]), &[]);
    check(&then(&[Down(ROUTER, 1)]), &[]);
    // Back: what is said again counts at once, the rest until the end-of-RIB; what is new waits for it.
    let back = then(&[Tick(1500), Up(ROUTER, 1), Announce(ROUTER, 1, B, 8), Announce(ROUTER, 1, "10.2.0.0/16", 8)]);
    let and = |more: &[Act]| [&back[..], more].concat();
    check(&back, &["10.0.0.0/8 1/7~", "10.1.0.0/16 1/8"]);
    check(&and(&[End(ROUTER, 1, Family::V4)]), &["10.1.0.0/16 1/8", "10.2.0.0/16 1/8"]);
    check(&and(&[End(ROUTER, 1, Family::V6)]), &["10.0.0.0/8 1/7~", "10.1.0.0/16 1/8"]);
    // A pause lets the new one in; what was not said again keeps its own time.
    check(&and(&[Tick(1509)]), &["10.0.0.0/8 1/7~", "10.1.0.0/16 1/8"]);
    check(&and(&[Tick(1510)]), &["10.0.0.0/8 1/7~", "10.1.0.0/16 1/8", "10.2.0.0/16 1/8"]);
    check(&and(&[Tick(1510), Tick(1900)]), &["10.1.0.0/16 1/8", "10.2.0.0/16 1/8"]);
    // Lost again before it was told to the end: what never counted does not begin to.
    check(&and(&[Lost(ROUTER)]), &["10.0.0.0/8 1/7~", "10.1.0.0/16 1/8~"]);
    check(&and(&[Lost(ROUTER), Tick(1900)]), &[]);
    check(&and(&[Lost(ROUTER), Up(ROUTER, 1), Lost(ROUTER)]), &["10.0.0.0/8 1/7~", "10.1.0.0/16 1/8~"]);
    // Lost after such a pause: now the stale ones of before had theirs.
    check(&and(&[Tick(1510), Lost(ROUTER)]), &["10.1.0.0/16 1/8~", "10.2.0.0/16 1/8~"]);
    // An Up without an end before it is an end, too.
    check(&then(&[Up(ROUTER, 1), Announce(ROUTER, 1, A, 9), Up(ROUTER, 1)]), &[]);
}

#[test]
fn routes_of_peers_that_are_not_up_are_left_out() {
    check(&[Announce(ROUTER, 1, A, 7), End(ROUTER, 1, Family::V4)], &[]);
    check(&[Up(ROUTER, 1), Down(ROUTER, 1), Announce(ROUTER, 1, A, 7), Tick(200)], &[]);
    check(&[Up(FeedId(9), 1), Announce(FeedId(9), 1, A, 7), Tick(200)], &[]);
}

#[test]
fn only_the_wanted_view_counts() {
    let cases = [
        (View::PrePolicy, View::PrePolicy, View::PrePolicy, 1),
        (View::PrePolicy, View::PrePolicy, View::PostPolicy, 0),
        (View::PostPolicy, View::PrePolicy, View::PostPolicy, 1),
        (View::LocRib, View::LocRib, View::LocRib, 1),
        (View::LocRib, View::PrePolicy, View::LocRib, 0),
        (View::PrePolicy, View::LocRib, View::PrePolicy, 0),
    ];
    for (wanted, session, told, expected) in cases {
        let mut rib = Rib::new(Limits::default());
        rib.set_feeds(&[Feed { view: wanted, ..feed("r1", 1) }], Duration::ZERO);
        rib.apply(ROUTER, &up(1, session), Duration::ZERO);
        let (announced, attributes) = (vec![net(A)], Some(path(7)));
        let routes = Event::Routes { peer: peer(1), view: told, announced, withdrawn: Vec::new(), attributes };
        rib.apply(ROUTER, &routes, Duration::ZERO);
        rib.tick(Duration::from_secs(120));
        assert_eq!(rib.prefixes().count(), expected, "wanted {wanted:?}, up in {session:?}, told in {told:?}");
        assert_eq!(rib.states(Duration::ZERO)[0].skipped > 0, expected == 0);
    }
}

#[test]
fn a_prefix_withdrawn_and_announced_in_one_message_is_announced() {
    let (mut rib, mut now) = (two_routers(Limits::default()), Duration::ZERO);
    act(&mut rib, &Up(ROUTER, 1), &mut now);
    rib.apply(ROUTER, &routes(1, &["10.1.2.3/8"], &[A], Some(path(7))), now);
    act(&mut rib, &End(ROUTER, 1, Family::V4), &mut now);
    assert_eq!(heard(&rib), ["10.0.0.0/8 1/7"], "and host bits are none of a prefix");
    rib.apply(ROUTER, &routes(1, &[A], &[], None), now);
    assert_eq!(heard(&rib), [""; 0], "announced without attributes: treated as withdrawn");
}

#[test]
fn what_is_too_much_is_refused_and_counted() {
    let few = |limits: Limits| {
        let (mut rib, mut now) = (two_routers(limits), Duration::ZERO);
        for prefix in [A, B, SIX] {
            for number in [1, 2] {
                if prefix == A {
                    act(&mut rib, &Up(ROUTER, number), &mut now);
                }
                act(&mut rib, &Announce(ROUTER, number, prefix, number.into()), &mut now);
            }
        }
        act(&mut rib, &Tick(120), &mut now);
        let refused = rib.states(now)[0].peers.iter().map(|peer| peer.refused).sum::<u64>();
        (heard(&rib), refused, rib)
    };
    let all = Limits::default();
    let six = ["10.0.0.0/8 1/1", "10.0.0.0/8 1/2", "10.1.0.0/16 1/1", "10.1.0.0/16 1/2"];
    assert_eq!(few(Limits { prefixes_max: 2, ..all }).0, six);
    assert_eq!(few(Limits { prefixes_max: 2, ..all }).1, 2);
    assert_eq!(few(Limits { routes_max: 5, ..all }).1, 1);
    assert_eq!(few(Limits { peers_max: 1, ..all }).0, ["10.0.0.0/8 1/1", "10.1.0.0/16 1/1", "2001:db8::/32 1/1"]);
    let room = interner::bytes_of(&path(1));
    assert_eq!(few(Limits { peer_attribute_bytes_max: 2 * room, ..all }).0, six);
    assert_eq!(few(Limits { attribute_bytes_max: room, ..all }).1, 3, "the first peer's are kept once");
    // A refused word replaces the one before: that is no longer so.
    let (.., mut rib) = few(Limits { peer_attribute_bytes_max: 3 * room, ..all });
    let mut now = Duration::from_secs(200);
    let long = Attributes { as_path: [5, 6, 7].into(), ..Attributes::default() };
    rib.apply(ROUTER, &routes(1, &[A], &[], Some(long)), now);
    act(&mut rib, &Down(ROUTER, 2), &mut now);
    assert_eq!(heard(&rib), ["10.1.0.0/16 1/1", "2001:db8::/32 1/1"]);
}

#[test]
fn a_peer_that_was_down_makes_room_at_once() {
    let (mut rib, mut now) =
        (two_routers(Limits { routes_max: 1, prefixes_max: 1, ..Limits::default() }), Duration::ZERO);
    for number in 1..5 {
        act(&mut rib, &Up(ROUTER, 1), &mut now);
        act(&mut rib, &Announce(ROUTER, 1, B, number), &mut now);
        act(&mut rib, &Down(ROUTER, 1), &mut now);
    }
    act(&mut rib, &Up(ROUTER, 1), &mut now);
    act(&mut rib, &Announce(ROUTER, 1, A, 9), &mut now);
    act(&mut rib, &End(ROUTER, 1, Family::V4), &mut now);
    assert_eq!(heard(&rib), ["10.0.0.0/8 1/9"]);
}

#[test]
fn dirty_is_what_changed_and_nothing_else() {
    let (mut rib, mut now) = (two_routers(Limits::default()), Duration::ZERO);
    rib.take_everything();
    let mut step = |acts: &[Act], expected: &[&str]| {
        for one in acts {
            act(&mut rib, one, &mut now);
        }
        let mut dirty = Vec::new();
        while rib.pending() {
            dirty.extend(rib.take_dirty(2).iter().map(IpNet::to_string));
        }
        assert_eq!(dirty, expected, "{acts:?}");
    };
    step(&[Up(ROUTER, 1), Announce(ROUTER, 1, A, 7), Announce(ROUTER, 1, B, 7)], &[]);
    step(&[End(ROUTER, 1, Family::V4)], &[A, B]);
    step(&[End(ROUTER, 1, Family::V4)], &[]);
    step(&[Announce(ROUTER, 1, A, 7)], &[]);
    step(&[Announce(ROUTER, 1, A, 8)], &[A]);
    step(&[Withdraw(ROUTER, 1, B), Withdraw(ROUTER, 1, B)], &[B]);
    step(&[Withdraw(ROUTER, 1, B)], &[]);
    step(&[Lost(ROUTER)], &[]);
    step(&[Up(ROUTER, 1), Announce(ROUTER, 1, A, 8)], &[]);
    step(&[Announce(ROUTER, 1, B, 8)], &[]);
    step(&[Lost(ROUTER), Tick(900)], &[A, B]);
}

#[test]
fn who_takes_everything_is_told_only_what_comes_after() {
    let (mut rib, mut now) = (two_routers(Limits::default()), Duration::ZERO);
    let acts = [Up(ROUTER, 1), Announce(ROUTER, 1, A, 7), Announce(ROUTER, 1, B, 7), End(ROUTER, 1, Family::V4)];
    for one in acts {
        act(&mut rib, &one, &mut now);
    }
    rib.take_everything();
    act(&mut rib, &Announce(ROUTER, 1, A, 8), &mut now);
    assert_eq!(rib.take_dirty(10), [net(A)]);
    assert!(!rib.pending());
    act(&mut rib, &Down(ROUTER, 1), &mut now);
    assert_eq!(rib.take_dirty(10), [net(A), net(B)]);
    assert_eq!((rib.counts().routes, rib.counts().attributes), (0, 0));
}

#[test]
fn it_is_settled_when_every_feed_was_heard_or_waited_for() {
    const V4: Family = Family::V4;
    const V6: Family = Family::V6;
    let cases: &[(&[Act], bool)] = &[
        (&[], false),
        // Who never connects is waited for as long as stale routes count: what was saved is better than nothing.
        (&[Tick(120)], false),
        (&[Tick(899)], false),
        (&[Tick(900)], true),
        (&[Connect(ROUTER), Connect(OTHER), Tick(119)], false),
        (&[Connect(ROUTER), Connect(OTHER), Tick(120)], true),
        (&[Connect(ROUTER), Tick(120)], false),
        (&[Tick(850), Connect(ROUTER), Tick(900)], false),
        // Both families, or a pause after one of them.
        (&[Up(ROUTER, 1), End(ROUTER, 1, V4), End(ROUTER, 1, V6)], false),
        (&[Up(ROUTER, 1), End(ROUTER, 1, V4), End(ROUTER, 1, V6), Up(OTHER, 1), End(OTHER, 1, V6)], false),
        (&[Up(ROUTER, 1), End(ROUTER, 1, V4), Up(OTHER, 1), End(OTHER, 1, V6), Tick(9)], false),
        (&[Up(ROUTER, 1), End(ROUTER, 1, V4), Up(OTHER, 1), End(OTHER, 1, V6), Tick(10)], true),
        (
            &[
                Up(ROUTER, 1),
                End(ROUTER, 1, V4),
                End(ROUTER, 1, V6),
                Up(OTHER, 1),
                End(OTHER, 1, V6),
                End(OTHER, 1, V4),
            ],
            true,
        ),
        (&[Tick(800), Up(ROUTER, 1), Tick(900)], false),
        (&[Tick(890), Up(ROUTER, 1), End(ROUTER, 1, V4), Tick(899), Announce(ROUTER, 1, SIX, 7), Tick(900)], false),
        (&[Tick(800), Up(ROUTER, 1), Tick(900), End(ROUTER, 1, V4), End(ROUTER, 1, V6)], true),
        (&[Tick(800), Up(ROUTER, 1), Tick(920)], true),
        // A second session before the first one told its table has told nothing, either; a third after it needs not.
        (&[Tick(800), Up(ROUTER, 1), Lost(ROUTER), Up(ROUTER, 1), Tick(900)], false),
        (&[Tick(800), Up(ROUTER, 1), Tick(890), Lost(ROUTER), Up(ROUTER, 1), Tick(1009)], false),
        (&[Tick(800), Up(ROUTER, 1), Tick(890), Lost(ROUTER), Up(ROUTER, 1), Tick(1010)], true),
        (
            &[
                Tick(800),
                Up(ROUTER, 1),
                End(ROUTER, 1, V4),
                Tick(810),
                Lost(ROUTER),
                Tick(850),
                Up(ROUTER, 1),
                Tick(900),
            ],
            true,
        ),
        (&[Tick(900), Up(ROUTER, 1)], true),
    ];
    // A saved table stands as long as one start without it would wait, at least.
    let hasty = Limits { stale: Duration::ZERO, ..Limits::default() };
    let early = (&[Tick(119)][..], false, hasty);
    let in_time = (&[Tick(120)][..], true, hasty);
    let cases = cases.iter().map(|&(acts, expected)| (acts, expected, Limits::default()));
    for (acts, expected, limits) in cases.chain([early, in_time]) {
        let (mut rib, mut now) = (two_routers(limits), Duration::ZERO);
        for one in acts {
            act(&mut rib, one, &mut now);
        }
        assert_eq!(rib.settled(), expected, "{acts:?}");
        assert_eq!(rib.waits_for(now).is_empty(), expected, "{acts:?}");
    }
    let mut rib = Rib::new(Limits::default());
    rib.set_feeds(&[], Duration::ZERO);
    assert!(rib.settled(), "nothing to wait for");
}

#[test]
fn who_is_waited_for_is_told_with_what_and_how_long() {
    let (mut rib, mut now) = (two_routers(Limits::default()), Duration::ZERO);
    let mut told = |one: Act| -> Vec<String> {
        act(&mut rib, &one, &mut now);
        rib.waits_for(now).iter().map(ToString::to_string).collect()
    };
    let [router, other] = ["r1", "r2"].map(|name| format!("{name} to connect, 800 s at most"));
    assert_eq!(told(Tick(100)), [router, other]);
    let whole = |what: &str, left_s: u64| format!("r1 {what}, {left_s} s at most");
    assert_eq!(told(Connect(ROUTER))[0], whole("to tell of a peer", 120));
    let peer = told(Up(ROUTER, 1)).remove(0);
    assert!(peer.starts_with("r1 to tell all routes of its peer ") && peer.ends_with(", 900 s at most"), "{peer}");
    told(End(ROUTER, 1, Family::V4));
    assert_eq!(told(End(ROUTER, 1, Family::V6)), ["r2 to connect, 800 s at most"]);
    assert_eq!(told(Tick(900)), [""; 0]);
}

#[test]
fn a_peer_that_never_tells_its_table_is_not_waited_for_without_end() {
    let (mut rib, mut now) = (two_routers(Limits::default()), Duration::ZERO);
    let settled = |at: &u64| {
        for one in [Tick(*at), Lost(ROUTER), Up(ROUTER, 1), Announce(ROUTER, 1, A, 7)] {
            act(&mut rib, &one, &mut now);
        }
        rib.settled()
    };
    assert_eq!((0..2000).step_by(9).find(settled), Some(900));
}

#[test]
fn feeds_keep_their_routes_when_the_config_changes() {
    let (mut rib, mut now) = (two_routers(Limits::default()), Duration::ZERO);
    for feed in [ROUTER, OTHER] {
        for one in [Up(feed, 1), Announce(feed, 1, A, 7), End(feed, 1, Family::V4)] {
            act(&mut rib, &one, &mut now);
        }
    }
    rib.take_everything();
    let classes = vec![PeerClass { fits: Fits::As(64_501), class: Some(SessionClass::Embedded) }];
    let moved = Feed { peers: classes, ..feed("r2", 5) };
    assert_eq!(rib.set_feeds(&[moved.clone(), feed("r3", 3)], now), [Some(OTHER), Some(FeedId(2))]);
    assert_eq!(heard(&rib), ["10.0.0.0/8 5/7"]);
    assert_eq!(rib.take_dirty(10), [net(A)]);
    let states = rib.states(now);
    assert_eq!(states.iter().map(|feed| feed.name.as_str()).collect::<Vec<_>>(), ["r2", "r3"]);
    assert_eq!((states[0].peers[0].class, states[0].peers[0].v4.routes), (SessionClass::Embedded, 1));
    // Another view cannot be compared with what was told.
    let ids = rib.set_feeds(&[Feed { view: View::PostPolicy, ..moved }], now);
    assert_eq!(ids, [Some(FeedId(3))]);
    assert_eq!(heard(&rib), [""; 0]);
}

#[test]
fn classes_go_by_address_then_by_as() {
    let by = |fits, class| PeerClass { fits, class: Some(class) };
    let peers = vec![
        by(Fits::As(64_501), SessionClass::Exchange),
        by(Fits::Address(peer(1).address), SessionClass::Private),
        by(Fits::As(64_502), SessionClass::Embedded),
    ];
    let feed = Feed { peers, ..feed("r1", 1) };
    let classes = [1, 2, 3].map(|number| feed.class_of(&peer(number)));
    assert_eq!(classes, [SessionClass::Private, SessionClass::Embedded, SessionClass::Transit].map(Some));
}

#[test]
fn a_peer_can_be_left_out() {
    let (mut rib, mut now) = (two_routers(Limits::default()), Duration::ZERO);
    let both =
        |number| [Up(ROUTER, number), Announce(ROUTER, number, A, number.into()), End(ROUTER, number, Family::V4)];
    let mut tell = |rib: &mut Rib| both(1).iter().chain(&both(2)).for_each(|one| act(rib, one, &mut now));
    let without = |fits| Feed { peers: vec![PeerClass { fits, class: None }], ..feed("r1", 1) };
    tell(&mut rib);
    assert_eq!(heard(&rib), ["10.0.0.0/8 1/1", "10.0.0.0/8 1/2"]);
    rib.take_everything();
    // Those that are there go at once, and do not come back with their next session.
    rib.set_feeds(&[without(Fits::As(64_501)), feed("r2", 2)], Duration::ZERO);
    assert_eq!(heard(&rib), ["10.0.0.0/8 1/2"]);
    assert_eq!(rib.take_dirty(10), [net(A)]);
    tell(&mut rib);
    assert_eq!(heard(&rib), ["10.0.0.0/8 1/2"]);
    assert_eq!(rib.states(Duration::ZERO)[0].skipped, 3);
    rib.set_feeds(&[without(Fits::Address(peer(2).address)), feed("r2", 2)], Duration::ZERO);
    assert_eq!(heard(&rib), [""; 0]);
    tell(&mut rib);
    assert_eq!(heard(&rib), ["10.0.0.0/8 1/1"]);
}

#[test]
fn dumps_count_at_once_and_go_when_forgotten() {
    let mut rib = Rib::new(Limits::default());
    rib.set_feeds(&[Feed { kind: FeedKind::Dump, ..feed("rib.mrt", 1) }], Duration::ZERO);
    assert!(rib.settled());
    rib.apply(ROUTER, &routes(1, &[A], &[], Some(path(7))), Duration::ZERO);
    assert_eq!(heard(&rib), ["10.0.0.0/8 1/7"]);
    rib.forget(ROUTER, Duration::ZERO);
    rib.apply(ROUTER, &routes(1, &[B], &[], Some(path(7))), Duration::ZERO);
    assert_eq!(heard(&rib), ["10.1.0.0/16 1/7"]);
}

/// A dump of what a router heard since (BGP4MP) tells sessions, and no ends-of-RIB.
#[test]
fn a_session_that_a_dump_tells_counts_at_once_too() {
    let mut rib = Rib::new(Limits::default());
    rib.set_feeds(&[Feed { kind: FeedKind::Dump, ..feed("updates.mrt", 1) }], Duration::ZERO);
    rib.apply(ROUTER, &routes(1, &[A], &[], Some(path(7))), Duration::ZERO);
    rib.apply(ROUTER, &up(1, View::PrePolicy), Duration::ZERO);
    assert_eq!(heard(&rib), [""; 0], "a new session begins with nothing");
    rib.apply(ROUTER, &routes(1, &[B], &[], Some(path(7))), Duration::ZERO);
    assert_eq!(heard(&rib), ["10.1.0.0/16 1/7"]);
}

#[test]
fn thousands_of_broken_sessions_confuse_nothing() {
    let (mut rib, mut now) = (two_routers(Limits::default()), Duration::ZERO);
    for one in [Up(ROUTER, 1), Announce(ROUTER, 1, A, 7), Announce(ROUTER, 1, B, 7), End(ROUTER, 1, Family::V4)] {
        act(&mut rib, &one, &mut now);
    }
    for _ in 0..40_000 {
        act(&mut rib, &Lost(ROUTER), &mut now);
        act(&mut rib, &Up(ROUTER, 1), &mut now);
        act(&mut rib, &Announce(ROUTER, 1, B, 8), &mut now);
    }
    assert_eq!(heard(&rib), [""; 0], "the stale ones were given up, and the last session is held");
    act(&mut rib, &End(ROUTER, 1, Family::V4), &mut now);
    assert_eq!(heard(&rib), ["10.1.0.0/16 1/8"]);
}

/// The routes of a session that broke with its gate shut stay dead without a walk that clears them up: a router that
/// flaps must not make each loss cost a look at the whole table.
#[test]
fn what_never_counted_does_not_begin_to_however_many_sessions_break() {
    let (mut rib, mut now) = (two_routers(Limits::default()), Duration::ZERO);
    let first = [Up(ROUTER, 1), Announce(ROUTER, 1, A, 7), Tick(10)];
    first.iter().for_each(|one| act(&mut rib, one, &mut now));
    for (number, prefix) in [B, SIX, "10.2.0.0/16", "10.3.0.0/16"].into_iter().enumerate() {
        for one in [Lost(ROUTER), Up(ROUTER, 1), Announce(ROUTER, 1, prefix, 8)] {
            act(&mut rib, &one, &mut now);
        }
        assert_eq!(heard(&rib), ["10.0.0.0/8 1/7~"]);
        assert_eq!(rib.counts().routes, number as u64 + 2, "nothing was cleared up");
    }
    act(&mut rib, &Tick(20), &mut now);
    assert_eq!(heard(&rib), ["10.0.0.0/8 1/7~", "10.3.0.0/16 1/8"]);
    rib.finish_walks();
    assert_eq!((heard(&rib).len(), rib.counts().routes), (2, 2));
}

#[test]
fn prefixes_that_come_and_go_do_not_pile_up() {
    let (mut rib, mut now) = (two_routers(Limits::default()), Duration::ZERO);
    rib.dirty_max = 2;
    [Up(ROUTER, 1), End(ROUTER, 1, Family::V4)].iter().for_each(|one| act(&mut rib, one, &mut now));
    let mut flap = |rib: &mut Rib, prefixes: &[&'static str]| {
        for prefix in prefixes {
            act(rib, &Announce(ROUTER, 1, prefix, 7), &mut now);
            act(rib, &Withdraw(ROUTER, 1, prefix), &mut now);
        }
    };
    flap(&mut rib, &[A]);
    assert!(rib.overflowed() && rib.take_dirty(10).is_empty(), "nobody looked yet: nothing is collected");
    rib.take_everything();
    flap(&mut rib, &[A, B]);
    assert!(!rib.overflowed() && rib.counts().dirty == 2);
    flap(&mut rib, &["10.2.0.0/16"]);
    assert!(rib.overflowed() && rib.counts().dirty == 0);
    rib.take_everything();
    flap(&mut rib, &[B]);
    assert_eq!((rib.overflowed(), rib.take_dirty(10)), (false, vec![net(B)]));
}
