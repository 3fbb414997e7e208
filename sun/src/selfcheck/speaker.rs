//! Has announced what the machine says, and says what is.
//!
//! A speaker is told again every round, not only when something changes: one that was restarted, or that an operator changed by
//! hand, is set right within a second. One that is away is a reason that is shown, and none to do anything else.
//!
//! What a speaker announces is known as long as it answers. One round in which it is slow is tolerated; where its control socket
//! is gone, or after a second one, nothing is known: not what it announced before, either.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::bird::{self, BirdError, Channel, Seen};
use super::config::{SpeakerConfig, SpeakerKind};
use super::exabgp::Exabgp;
use super::exabgp::answers::Heard;
use super::machine::Announce;

/// What is known of the speaker.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Speaking {
    /// Which.
    pub kind: SpeakerKind,
    /// What was last asked of it.
    pub wanted: Announce,
    /// What it announces; null: it is not known.
    pub announced: Option<Announce>,
    /// Prefixes that it announces as best or backup, and with a lower preference; null: it is not known.
    pub routes: Option<(usize, usize)>,
    /// BGP sessions to routers; null: it does not tell.
    pub sessions: Option<Sessions>,
    /// It has confirmed all that it was told; null: it never confirmed anything.
    #[serde(default)]
    pub answered: Option<bool>,
    /// Every family of addresses that has routes has a session that is up; null: it is not known, or there are no sessions.
    pub carried: Option<bool>,
    /// Rounds so far, and those in a row at the end in which it did not do what it was told.
    #[serde(default)]
    pub rounds: u64,
    /// See `rounds`.
    pub missed: u32,
    /// What is wrong; null: nothing.
    pub problem: Option<String>,
}

/// BGP sessions to routers, by the family that they carry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Sessions {
    /// IPv4.
    pub ipv4: Count,
    /// IPv6.
    pub ipv6: Count,
}

/// Sessions of one family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Count {
    /// That are up.
    pub up: usize,
    /// That there are.
    pub all: usize,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} up", self.up, self.all)
    }
}

/// Shared with whoever shows it.
pub type Shared = Arc<Mutex<Speaking>>;

/// One speaker.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    exabgp: Option<Exabgp>,
    shared: Shared,
    /// What was wanted last was not handed to it.
    untold: bool,
}

impl Speaking {
    /// Nothing was looked at yet.
    #[must_use]
    pub const fn new(kind: SpeakerKind) -> Self {
        let wanted = Announce::Unchanged;
        let (announced, routes, sessions, answered, carried) = (None, None, None, None, None);
        Self { kind, wanted, announced, routes, sessions, answered, carried, rounds: 0, missed: 0, problem: None }
    }

    /// Whether a round that ended after `rounds` of them saw that it does as it is told.
    #[must_use]
    pub fn has_done(&self, wanted: Announce, rounds: u64) -> bool {
        let told = self.rounds > rounds && self.wanted == wanted && self.problem.is_none();
        let does = wanted == Announce::Unchanged || (self.announced == Some(wanted) && self.answered == Some(true));
        self.kind == SpeakerKind::None || (told && does)
    }

    /// Whether clients are sent here by it: the routes are there, and as far as it is known sessions carry them. Without a
    /// speaker nobody knows better than the state.
    #[must_use]
    pub fn reaches_clients(&self) -> bool {
        let announces = matches!(self.announced, Some(Announce::Best | Announce::Drain));
        self.kind == SpeakerKind::None || (announces && self.carried != Some(false))
    }

    fn of_bird(wanted: Announce, seen: &Seen) -> Self {
        let Seen { protocols, channels } = seen;
        let ((up, _), (drain, _)) = (bird::count(protocols, bird::UP), bird::count(protocols, bird::DRAIN));
        let announced = match (up, drain) {
            (0, 0) => Announce::Nothing,
            (0, _) => Announce::Drain,
            _ => Announce::Best,
        };
        let has_routes = |table: &str| {
            let announces = |name: &str| name.starts_with(bird::UP) || name.starts_with(bird::DRAIN);
            protocols.iter().any(|protocol| protocol.table == table && protocol.is_up() && announces(&protocol.name))
        };
        let (announced, routes, answered) = (Some(announced), Some((up, drain)), Some(true));
        let speaking = Self { wanted, announced, routes, answered, ..Self::new(SpeakerKind::Bird) };
        speaking.with_sessions(channels, (has_routes("master4"), has_routes("master6")))
    }

    /// ExaBGP was told this.
    fn of_exabgp(wanted: Announce, exabgp: &Exabgp, heard: &Heard) -> Self {
        let (announced, routes) = exabgp.said().unzip();
        let speaking = Self { wanted, announced, routes, answered: heard.answered, ..Self::new(SpeakerKind::Exabgp) };
        match &heard.channels {
            Some(channels) if routes == Some((0, 0)) => speaking.with_sessions(channels, (false, false)),
            Some(channels) => speaking.with_sessions(channels, exabgp.families()),
            None => speaking,
        }
    }

    /// With the sessions that there are; `has` is whether there are routes of IPv4 and of IPv6.
    fn with_sessions(self, channels: &[Channel], has: (bool, bool)) -> Self {
        let count = |family: &str| {
            let of = || channels.iter().filter(|channel| channel.family == family);
            Count { up: of().filter(|channel| channel.up).count(), all: of().count() }
        };
        let sessions = Sessions { ipv4: count("ipv4"), ipv6: count("ipv6") };
        let carries = |has_routes: bool, count: Count| count.up > 0 || !has_routes;
        let carried = (!channels.is_empty()).then(|| carries(has.0, sessions.ipv4) && carries(has.1, sessions.ipv6));
        Self { sessions: Some(sessions), carried, ..self }
    }

    /// It did not do what it was told. `gone`: it cannot have been slow only.
    fn failed(&self, wanted: Announce, problem: String, gone: bool) -> Self {
        let (missed, problem) = (self.missed.saturating_add(1), Some(problem));
        if gone || missed > MISSED_MAX {
            return Self { wanted, missed, problem, ..Self::new(self.kind) };
        }
        Self { wanted, missed, problem, ..self.clone() }
    }
}

impl Speaker {
    /// Nothing is said yet. `exabgp` is there if it is the one.
    #[must_use]
    pub fn new(config: &SpeakerConfig, exabgp: Option<Exabgp>) -> Self {
        let shared = Arc::new(Mutex::new(Speaking::new(config.kind)));
        Self { config: config.clone(), exabgp, shared, untold: false }
    }

    /// What is known of it.
    #[must_use]
    pub fn shared(&self) -> Shared {
        Arc::clone(&self.shared)
    }

    /// Has announced what `wanted` says until its sender is gone, and what it said last then.
    pub async fn run(mut self, mut wanted: watch::Receiver<Announce>) {
        let mut silence = Silence::default();
        loop {
            let announce = *wanted.borrow_and_update();
            self.round(announce).await;
            silence.saw(self.known().routes, Instant::now());
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        let announce = *wanted.borrow();
        self.end(announce, &mut silence).await;
        // Whoever stops this daemon stops the sun next: routers are to have heard before.
        if announce == Announce::Nothing && self.config.kind != SpeakerKind::None {
            tokio::time::sleep(silence.rest(Instant::now())).await;
        }
    }

    /// Has carried out what was ordered last. What a hung speaker does not do by then it does not do.
    async fn end(&mut self, announce: Announce, silence: &mut Silence) {
        let until = tokio::time::Instant::now() + END_MAX;
        // One that was told and refuses, or does not confirm it, is not told again: the rest of the time is for what it has to read.
        let _ = tokio::time::timeout_at(until, self.tell(announce, silence)).await;
        if let Some(exabgp) = self.exabgp.take() {
            let begun = Instant::now();
            let _ = tokio::time::timeout_at(until, exabgp.close()).await;
            silence.waited(begun.elapsed());
        }
    }

    /// Tells it until it is told.
    async fn tell(&mut self, announce: Announce, silence: &mut Silence) {
        while self.untold {
            tokio::time::sleep(AGAIN).await;
            self.round(announce).await;
            silence.saw(self.known().routes, Instant::now());
        }
    }

    async fn round(&mut self, announce: Announce) {
        let before = self.known();
        let mut untold = false;
        let now = match (self.config.kind, &mut self.exabgp) {
            (SpeakerKind::Bird, _) => {
                let timeout = Duration::from_millis(self.config.timeout_ms);
                match bird::round(&self.config.socket, announce, timeout).await {
                    Ok(seen) => Speaking::of_bird(announce, &seen),
                    Err(error) => {
                        untold = true;
                        before.failed(announce, error.to_string(), matches!(error, BirdError::Away { .. }))
                    }
                }
            }
            (SpeakerKind::Exabgp, Some(exabgp)) => match (exabgp.say(announce), exabgp.heard()) {
                (Ok(()), heard) => match &heard.problem {
                    None => Speaking::of_exabgp(announce, exabgp, &heard),
                    Some(problem) => before.failed(announce, problem.clone(), false),
                },
                (Err(problem), _) => {
                    untold = true;
                    before.failed(announce, problem, true)
                }
            },
            (SpeakerKind::None | SpeakerKind::Exabgp, _) => {
                Speaking { wanted: announce, announced: Some(announce), routes: Some((0, 0)), ..before.clone() }
            }
        };
        self.untold = untold;
        let now = Speaking { rounds: before.rounds + 1, ..now };
        say(&before, &now);
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn known(&self) -> Speaking {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Since when a speaker is known to announce nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    since: Option<Instant>,
}

impl Silence {
    /// A round saw so many routes; what is not known may be announced.
    fn saw(&mut self, routes: Option<(usize, usize)>, now: Instant) {
        self.since = if routes == Some((0, 0)) { self.since.or(Some(now)) } else { None };
    }

    /// It was told so much later than it was seen.
    fn waited(&mut self, time: Duration) {
        self.since = self.since.map(|since| since + time);
    }

    /// How long routers may still take to hear of it.
    fn rest(&self, now: Instant) -> Duration {
        let silent = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        HEARD.saturating_sub(silent)
    }
}

/// Logs what changed.
fn say(before: &Speaking, now: &Speaking) {
    match (&before.problem, &now.problem) {
        (None, Some(why)) => tracing::warn!(%why, "the speaker does not announce what it should"),
        (Some(_), None) => tracing::info!("the speaker is there again"),
        _ => {}
    }
    if now.problem.is_none() && before.announced != now.announced {
        let routes = now.routes.map_or(0, |(best, drain)| best + drain);
        match now.announced {
            Some(announced) => tracing::info!(%announced, routes, "announced"),
            None => tracing::info!("what is announced is not known"),
        }
    }
    if let (Some(before), Some(Sessions { ipv4, ipv6 })) = (before.sessions, now.sessions)
        && before != (Sessions { ipv4, ipv6 })
    {
        tracing::info!(%ipv4, %ipv6, "BGP sessions");
    }
}

/// A router has a withdrawal within 30 ms (BIRD) to 70 ms (FRR).
const HEARD: Duration = Duration::from_millis(300);

/// An order that failed is repeated for so long at the end.
const END_MAX: Duration = Duration::from_millis(1300);

/// From one try to the next, at the end.
const AGAIN: Duration = Duration::from_millis(50);

/// Rounds in a row in which a speaker may be slow.
const MISSED_MAX: u32 = 1;

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::super::bird::Protocol;
    use super::*;

    #[test]
    fn routes_are_carried_when_every_family_of_theirs_has_a_session() {
        check("4", "4+", Some(true));
        check("4", "4-", Some(false));
        check("4", "4- 4+", Some(true));
        check("4 6", "4+", Some(false));
        check("4 6", "4+ 6-", Some(false));
        check("4 6", "4+ 6+", Some(true));
        check("6", "4- 6+", Some(true));
        check("4", "6+", Some(false));
        check("", "4-", Some(true));
        check("4 6", "", None);
    }

    #[test]
    fn routers_have_time_to_hear_from_when_nothing_is_known_to_be_announced() {
        let (begin, ms) = (Instant::now(), Duration::from_millis);
        let mut silence = Silence::default();
        assert_eq!(silence.rest(begin), HEARD, "nothing is known");
        silence.saw(Some((0, 0)), begin);
        silence.saw(Some((0, 0)), begin + ms(100));
        assert_eq!([100, 300, 900].map(|after| silence.rest(begin + ms(after))), [ms(200), ms(0), ms(0)]);
        silence.waited(ms(50));
        assert_eq!(silence.rest(begin + ms(100)), ms(250));
        for routes in [Some((2, 0)), Some((0, 1)), None] {
            silence.saw(routes, begin);
            assert_eq!(silence.rest(begin + ms(1000)), HEARD, "{routes:?}");
            silence.saw(Some((0, 0)), begin);
        }
    }

    #[test]
    fn a_stop_has_time_for_all_that_a_hung_speaker_may_take() {
        use super::super::{config::SPEAKER_TIMEOUT_MS_MAX, start::DRAIN_S};
        // The round that is under way, and the one that withdraws.
        let rounds = Duration::from_millis(2 * SPEAKER_TIMEOUT_MS_MAX);
        assert!(rounds + END_MAX + HEARD < Duration::from_secs(DRAIN_S));
    }

    #[tokio::test]
    async fn when_it_has_ended_exabgp_was_told_everything() {
        for refuses in [false, true] {
            let (told, heard) = std::sync::mpsc::channel();
            let topology = geo::Topology::parse(TOPOLOGY).unwrap();
            let (_sender, topology) = watch::channel(Arc::new(topology));
            let config = SpeakerConfig { kind: SpeakerKind::Exabgp, ..SpeakerConfig::default() };
            let exabgp = Exabgp::new(&config, "sun4-2-1", topology, Box::new(Slow(told))).unwrap();
            assert_eq!(exabgp.said(), None, "what a process before this one said is not known");
            let mut speaker = Speaker::new(&config, Some(exabgp));
            if refuses {
                speaker.round(Announce::Best).await;
                assert!(heard.recv().unwrap().starts_with("announce route 192.0.2."));
                speaker.exabgp.as_ref().unwrap().answers().read(b"error\nerror\ndone\n", Instant::now());
            }
            speaker.round(Announce::Nothing).await;
            assert_eq!(speaker.known().problem.is_some(), refuses);
            speaker.end(Announce::Nothing, &mut Silence::default()).await;
            assert!(heard.try_recv().unwrap().starts_with("withdraw route 192.0.2."));
        }
    }

    /// An ExaBGP that reads slowly.
    struct Slow(std::sync::mpsc::Sender<String>);

    impl std::io::Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            std::thread::sleep(AGAIN);
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const TOPOLOGY: &str = "version = 1\ndomain = \"example.net\"\ndefault_region = 4\n\
        [content_servers]\nurl = \"http://127.0.0.1:9100/cs{number}\"\nnumbers = [\"1-9\"]\n\
        [[region]]\nid = 4\nname = \"R\"\nlatitude = 1.0\nlongitude = 1.0\n\
        [[group]]\nname = \"sun4-2\"\nsubnet = \"192.0.2.0/24\"\n\
        [[sun]]\nname = \"sun4-2-1\"\naddresses = [\"192.0.2.1\"]\n\
        internal = \"10.0.0.1:8081\"\nweight = 100\n";

    #[test]
    fn an_order_is_confirmed_by_a_round_after_it() {
        let nothing =
            Speaking { wanted: Announce::Nothing, rounds: 7, ..Speaking::of_bird(Announce::Nothing, &Seen::default()) };
        assert!(nothing.has_done(Announce::Nothing, 6));
        assert!(!nothing.has_done(Announce::Nothing, 7), "it was seen before the order");
        assert!(!nothing.has_done(Announce::Best, 6));
        assert!(!nothing.failed(Announce::Nothing, "slow".into(), false).has_done(Announce::Nothing, 6));
        let best = Speaking { rounds: 7, ..of("4", "4+") };
        assert!(best.has_done(Announce::Best, 6) && !best.has_done(Announce::Nothing, 6));
        let told = Speaking { answered: Some(false), ..nothing.clone() };
        assert!(!told.has_done(Announce::Nothing, 6), "ExaBGP was told, and has not answered");
        assert!(Speaking::new(SpeakerKind::None).has_done(Announce::Nothing, 0), "nobody is to do anything");
    }

    #[test]
    fn one_slow_round_is_tolerated_and_after_that_nothing_is_known() {
        let known = of("4", "4+");
        let slow = known.failed(Announce::Nothing, "slow".into(), false);
        assert_eq!((slow.announced, slow.wanted, slow.missed), (known.announced, Announce::Nothing, 1));
        assert!(slow.reaches_clients() && slow.problem.is_some());
        for lost in
            [slow.failed(Announce::Nothing, "slow".into(), false), known.failed(Announce::Best, "gone".into(), true)]
        {
            assert_eq!((lost.announced, lost.routes, lost.sessions, lost.carried), (None, None, None, None));
            assert!(!lost.reaches_clients());
        }
    }

    /// `4` is a route of IPv4, `4+` a session of it that is up.
    #[track_caller]
    fn check(routes: &str, sessions: &str, expected: Option<bool>) {
        let speaking = of(routes, sessions);
        assert_eq!(speaking.carried, expected);
        assert_eq!(speaking.reaches_clients(), expected != Some(false) && !routes.is_empty());
    }

    fn of(routes: &str, sessions: &str) -> Speaking {
        let route = |family: &str| {
            let [name, kind, state] = ["sun_up_1", "Static", "up"].map(str::to_owned);
            Protocol { name, kind, table: format!("master{family}"), state, info: String::new() }
        };
        let session = |of: &str| Channel { family: format!("ipv{}", &of[..1]), up: of.ends_with('+') };
        let protocols = routes.split_whitespace().map(route).collect();
        let channels = sessions.split_whitespace().map(session).collect();
        Speaking::of_bird(Announce::Best, &Seen { protocols, channels })
    }
}
