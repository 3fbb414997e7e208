//! The RIB against a model that keeps a map for each peer and does everything at once.

use proptest::prelude::*;

use super::*;

/// What the model knows of a peer.
#[derive(Clone, Debug, Default)]
struct Known {
    up: bool,
    since: u64,
    heard_at: Option<u64>,
    sides: [KnownSide; 2],
}

#[derive(Clone, Debug, Default)]
struct KnownSide {
    open: bool,
    stale_since: Option<u64>,
    routes: BTreeMap<&'static str, KnownRoute>,
}

#[derive(Clone, Debug)]
struct KnownRoute {
    first: u32,
    held: bool,
    fresh: bool,
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    peers: BTreeMap<(FeedId, u8), Known>,
}

impl Model {
    fn act(&mut self, act: &Act, prefixes_max: usize) {
        let now = self.now;
        match *act {
            Up(feed, number) => {
                let known = self.peers.entry((feed, number)).or_default();
                if known.up {
                    *known = Known::default();
                }
                (known.up, known.since, known.heard_at) = (true, now, None);
                for side in &mut known.sides {
                    side.open = false;
                    side.routes.values_mut().for_each(|route| route.fresh = false);
                }
            }
            Down(feed, number) => {
                self.peers.insert((feed, number), Known::default());
            }
            Announce(feed, number, prefix, first) => {
                let Some(known) = self.up(feed, number) else { return };
                known.heard_at = Some(now);
                let count: usize = known.sides.iter().map(|side| side.routes.len()).sum();
                let side = known.side(prefix);
                let had = side.routes.get(prefix).map(|route| route.held);
                if had.is_some() || count < prefixes_max {
                    let held = had.unwrap_or(!side.open);
                    side.routes.insert(prefix, KnownRoute { first, held, fresh: true });
                }
            }
            Withdraw(feed, number, prefix) => {
                let Some(known) = self.up(feed, number) else { return };
                known.heard_at = Some(now);
                known.side(prefix).routes.remove(prefix);
            }
            End(feed, number, family) => {
                let Some(known) = self.up(feed, number) else { return };
                known.heard_at = Some(now);
                let side = &mut known.sides[family as usize];
                side.routes.retain(|_, route| route.fresh);
                side.stale_since = None;
                side.let_in();
            }
            Connect(_) => {}
            Lost(feed) => {
                self.peers.iter_mut().filter(|((of, _), _)| *of == feed).for_each(|(_, known)| known.lose(now));
            }
            Tick(at) => {
                self.now = at;
                self.peers.values_mut().for_each(|known| known.tick(at));
            }
        }
    }

    fn up(&mut self, feed: FeedId, number: u8) -> Option<&mut Known> {
        self.peers.get_mut(&(feed, number)).filter(|known| known.up)
    }

    /// As [`heard`] of the RIB, sorted.
    fn heard(&self) -> Vec<String> {
        let mut all = Vec::new();
        for ((feed, _), known) in &self.peers {
            for (prefix, route) in known.sides.iter().flat_map(|side| &side.routes).filter(|(_, route)| !route.held) {
                let stale = if known.up && route.fresh { "" } else { "~" };
                all.push(format!("{prefix} {}/{}{stale}", feed.0 + 1, route.first));
            }
        }
        all.sort();
        all
    }
}

impl Known {
    fn side(&mut self, prefix: &str) -> &mut KnownSide {
        &mut self.sides[usize::from(prefix.contains(':'))]
    }

    fn lose(&mut self, now: u64) {
        if !std::mem::take(&mut self.up) {
            return;
        }
        for side in &mut self.sides {
            if side.open {
                side.routes.retain(|_, route| route.fresh);
                side.stale_since = None;
            } else {
                side.routes.retain(|_, route| !route.held);
            }
            side.stale_since = (!side.routes.is_empty()).then(|| side.stale_since.unwrap_or(now));
        }
    }

    fn tick(&mut self, now: u64) {
        for side in &mut self.sides {
            if side.stale_since.is_some_and(|since| now >= since + 900) {
                side.routes.retain(|_, route| self.up && route.fresh);
                side.stale_since = None;
            }
            let paused = self.heard_at.is_some_and(|at| now >= at + 10);
            if self.up && (paused || now >= self.since + 120) {
                side.let_in();
            }
        }
    }
}

impl KnownSide {
    fn let_in(&mut self) {
        self.open = true;
        self.routes.values_mut().for_each(|route| route.held = false);
    }
}

const PREFIXES: [&str; 7] =
    ["10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "192.0.2.0/24", "192.0.2.1/32", "2001:db8::/32", "2001:db8:1::/48"];

/// What the test does between two events.
#[derive(Clone, Debug)]
enum Step {
    Act(Act),
    /// Seconds pass.
    Wait(u64),
    /// Takes up to so many.
    Take(usize),
    Everything,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let feed = || prop_oneof![Just(ROUTER), Just(OTHER)];
    let prefix = || proptest::sample::select(&PREFIXES[..]);
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let step = prop_oneof![
        4 => (feed(), 1..3_u8).prop_map(|(feed, number)| Step::Act(Up(feed, number))),
        1 => (feed(), 1..3_u8).prop_map(|(feed, number)| Step::Act(Down(feed, number))),
        16 => (feed(), 1..3_u8, prefix(), 1..4_u32).prop_map(|(feed, number, prefix, first)| {
            Step::Act(Announce(feed, number, prefix, first))
        }),
        5 => (feed(), 1..3_u8, prefix()).prop_map(|(feed, number, prefix)| Step::Act(Withdraw(feed, number, prefix))),
        3 => (feed(), 1..3_u8, family).prop_map(|(feed, number, family)| Step::Act(End(feed, number, family))),
        3 => feed().prop_map(|feed| Step::Act(Lost(feed))),
        2 => (1..400_u64).prop_map(Step::Wait),
        3 => (1..12_u64).prop_map(Step::Wait),
        8 => (0..4_usize).prop_map(Step::Take),
        1 => Just(Step::Everything),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What a reader knows that looks only at what is dirty. Staleness is not told.
#[derive(Debug, Default)]
struct Reader {
    known: BTreeMap<IpNet, Vec<(RegionId, u32)>>,
}

impl Reader {
    fn look(&mut self, rib: &Rib, prefix: IpNet) {
        let mut heard = Vec::new();
        rib.heard(&prefix, &mut heard);
        let routes: Vec<_> = heard.iter().map(|route| (route.region, route.attributes.as_path[0])).collect();
        if routes.is_empty() {
            self.known.remove(&prefix);
        } else {
            self.known.insert(prefix, routes);
        }
    }

    fn everything(rib: &Rib) -> Self {
        let mut reader = Self::default();
        rib.prefixes().for_each(|prefix| reader.look(rib, prefix));
        reader
    }
}

fn run(steps: &[Step], slice: usize, prefixes_max: usize) {
    let limits = Limits { prefixes_max: u32::try_from(prefixes_max).unwrap(), ..Limits::default() };
    let (mut rib, mut model, mut now) = (two_routers(limits), Model::default(), Duration::ZERO);
    rib.slice = slice;
    let mut reader = Reader::default();
    for step in steps {
        match step {
            Step::Act(one) => {
                act(&mut rib, one, &mut now);
                model.act(one, prefixes_max);
            }
            Step::Wait(seconds) => {
                let tick = Tick(now.as_secs() + seconds);
                act(&mut rib, &tick, &mut now);
                model.act(&tick, prefixes_max);
            }
            Step::Take(max) => rib.take_dirty(*max).into_iter().for_each(|prefix| reader.look(&rib, prefix)),
            Step::Everything => {
                rib.take_everything();
                reader = Reader::everything(&rib);
            }
        }
        let mut heard = heard(&rib);
        heard.sort();
        assert_eq!(heard, model.heard(), "after {step:?}");
        check_counts(&rib, &model, now);
    }
    while rib.pending() {
        rib.take_dirty(1).into_iter().for_each(|prefix| reader.look(&rib, prefix));
    }
    assert_eq!(reader.known, Reader::everything(&rib).known, "everything that changed was told");
    let live: usize = model.peers.values().flat_map(|known| &known.sides).map(|side| side.routes.len()).sum();
    assert_eq!(rib.counts().routes, live as u64, "nothing dead is left");
    let attributes: BTreeSet<_> = model
        .peers
        .values()
        .flat_map(|known| &known.sides)
        .flat_map(|side| side.routes.values())
        .map(|r| r.first)
        .collect();
    assert_eq!(rib.counts().attributes, attributes.len() as u64);
}

/// The counters that are kept against counting.
fn check_counts(rib: &Rib, model: &Model, now: Duration) {
    for (feed, state) in [ROUTER, OTHER].into_iter().zip(rib.states(now)) {
        for shown in &state.peers {
            let std::net::IpAddr::V4(address) = shown.address else { panic!("{}", shown.address) };
            let known = &model.peers[&(feed, address.octets()[3])];
            for (side, known_side) in [&shown.v4, &shown.v6].into_iter().zip(&known.sides) {
                let count =
                    |counts: &dyn Fn(&KnownRoute) -> bool| known_side.routes.values().filter(|r| counts(r)).count();
                let expected = (count(&|_| true), count(&|r| !known.up || !r.fresh), count(&|r| r.held));
                assert_eq!((side.routes as usize, side.stale as usize, side.held as usize), expected);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn it_hears_what_a_model_hears(steps in steps(), slice in 1..4_usize, prefixes_max in 2..9_usize) {
        run(&steps, slice, prefixes_max);
    }
}
