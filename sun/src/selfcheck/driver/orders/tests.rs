//! The operator's orders, with a disk that is done when the test says so.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daemon::admin::Readiness;
use tokio::sync::{Notify, mpsc, watch};

use super::*;
use crate::selfcheck::config::{Config, GuardConfig, SpeakerKind};
use crate::selfcheck::driver::{Links, Others};
use crate::selfcheck::history::{Entry, History};
use crate::selfcheck::machine::{Announce, Machine, Rules, State, Verdict};
use crate::selfcheck::metrics::Metrics;
use crate::selfcheck::peers::{Asked, Peer};
use crate::selfcheck::pulse::Pulse;
use crate::selfcheck::speaker::{Count, Sessions, Speaker, Speaking};
use crate::selfcheck::status::Status;

#[tokio::test]
async fn an_order_is_carried_out_when_the_others_are_asked_and_answered_when_it_is_kept() {
    let mut run = Run::up();
    let mut answer = run.disable(false);
    assert!(answer.try_recv().is_err(), "the others are asked");
    assert_eq!(run.driver.machine.state(), State::Up);
    run.other_is(State::Up);
    assert_eq!(run.driver.machine.state(), State::Disabled);
    assert!(answer.try_recv().is_err(), "it is being written");
    run.written().await;
    let done = answer.try_recv().unwrap().unwrap();
    assert_eq!((done.unkept, done.unconfirmed, run.in_file()), (None, None, true));
}

#[tokio::test]
async fn whom_the_others_need_stays() {
    let mut run = Run::up();
    let mut answer = run.disable(false);
    run.other_is(State::Down);
    assert_eq!(answer.try_recv(), Ok(Err(Refused::Needed(NEEDED.to_owned()))));
    assert_eq!((run.driver.machine.state(), run.in_file(), run.driver.disk.clone()), (State::Up, false, Disk::Settled));
}

#[tokio::test]
async fn an_order_that_cannot_be_written_is_in_force_and_tried_again() {
    let mut run = Run::up();
    let blocked = run.folder.path().join("disabled.new");
    std::fs::create_dir(&blocked).unwrap();
    let mut answer = run.disable(true);
    assert_eq!(run.driver.machine.state(), State::Disabled);
    run.told().await;
    let done = answer.try_recv().unwrap().unwrap();
    assert!(done.unkept.is_some_and(|why| why.contains("directory")));
    assert_eq!((run.driver.machine.state(), run.in_file()), (State::Disabled, false));
    assert!(run.driver.status().text(0).contains("a restart of sun-check forgets what was ordered last"));

    std::fs::remove_dir(&blocked).unwrap();
    run.driver.event(Event::Tick);
    assert!(run.heard.try_recv().is_err(), "not at once");
    run.later(AGAIN_MS);
    run.driver.event(Event::Tick);
    run.written().await;
    assert_eq!((run.driver.status().unkept.clone(), run.in_file()), (None, true));
}

#[tokio::test]
async fn a_disk_that_hangs_is_not_waited_for() {
    let mut run = Run::up();
    let mut answer = run.disable(true);
    run.later(ANSWER_MS_MAX - 1000);
    run.driver.event(Event::Tick);
    assert!(answer.try_recv().is_err());
    run.later(1000);
    run.driver.event(Event::Tick);
    let done = answer.try_recv().unwrap().unwrap();
    assert_eq!(
        (done.unkept.as_deref(), run.driver.machine.state()),
        (Some("the disk does not answer"), State::Disabled)
    );
    run.written().await;
    assert_eq!(run.driver.status().unkept, None);
}

#[tokio::test]
async fn what_a_speaker_has_not_confirmed_is_said() {
    for answers in [true, false] {
        let mut run = Run::up();
        let known = Speaking { answered: Some(true), ..Speaking::new(SpeakerKind::Bird) };
        let speaking = |announced, rounds| Speaking { announced, rounds, ..known.clone() };
        *run.driver.links.speaking.lock().unwrap() = speaking(Some(Announce::Best), 7);
        let mut answer = run.disable(true);
        run.written().await;
        assert!(answer.try_recv().is_err(), "BIRD is asked");
        if answers {
            let withdrawn = Speaking { wanted: Announce::Nothing, ..speaking(Some(Announce::Nothing), 8) };
            *run.driver.links.speaking.lock().unwrap() = withdrawn;
        } else {
            run.later(ANSWER_MS_MAX);
        }
        run.driver.event(Event::Tick);
        let done = answer.try_recv().unwrap().unwrap();
        let expected = match answers {
            true => "sun1-1-1 is Disabled now; BIRD announces nothing of it",
            false => {
                "sun1-1-1 is Disabled now; BIRD was asked to withdraw its addresses and has not confirmed it: they may still be announced"
            }
        };
        assert_eq!((done.said.as_str(), done.unconfirmed.is_none()), (expected, answers));
    }
}

#[test]
fn who_is_let_back_in_while_no_session_is_up_is_told_so() {
    let check = |up, carried, expected: &str| {
        let sessions = Some(Sessions { ipv4: Count { up, all: up.max(1) }, ..Sessions::default() });
        let speaking = Speaking { sessions, carried, ..Speaking::new(SpeakerKind::Bird) };
        let told = said("sun1-1-1", State::Up, &speaking, Announce::Best, None);
        assert_eq!(told, format!("sun1-1-1 is Up now; BIRD {expected}"));
    };
    check(1, Some(true), "announces it as best");
    let unheard = "has it as best, and no session to a router carries all of its routes: routers do not hear all of it";
    check(0, Some(false), unheard);
    check(0, None, unheard);
}

#[tokio::test]
async fn a_sun_that_the_topology_has_lost_is_noted_until_it_is_back() {
    let mut run = Run::up();
    for (draining, lost) in [(None, true), (Some(false), false)] {
        run.driver.hear(Heard::Topology(draining));
        let told = run.driver.status().text(0).contains("the topology has no such sun any more");
        assert_eq!((told, run.driver.readiness.notes().len()), (lost, usize::from(lost)));
        assert_eq!(run.driver.machine.state(), State::Up);
    }
}

#[tokio::test]
async fn force_takes_the_place_of_an_order_that_waits() {
    let mut run = Run::up();
    let mut waiting = run.disable(false);
    let mut forced = run.disable(true);
    assert_eq!(waiting.try_recv(), Ok(Err(Refused::Superseded)));
    run.written().await;
    assert!(matches!(forced.try_recv(), Ok(Ok(_))));
    assert_eq!((run.driver.machine.state(), run.in_file()), (State::Disabled, true));
}

#[tokio::test]
async fn an_order_to_let_it_back_in_takes_the_place_of_one_before() {
    let mut run = Run::up();
    let mut waiting = run.disable(false);
    let mut again = run.disable(false);
    assert_eq!(again.try_recv(), Ok(Err(Refused::Busy)));
    run.other_is(State::Up);
    let mut enabled = run.enable();
    assert_eq!(waiting.try_recv(), Ok(Err(Refused::Superseded)));
    run.written().await;
    assert!(enabled.try_recv().is_err(), "the file is the other one's");
    run.written().await;
    assert!(matches!(enabled.try_recv(), Ok(Ok(_))));
    assert_eq!((run.driver.machine.state(), run.in_file()), (State::Up, false));
}

#[tokio::test]
async fn the_history_has_the_reason_of_a_second_order() {
    let mut run = Run::up();
    let _first = run.disable(true);
    let (sender, _second) = oneshot::channel();
    run.driver.ordered(Order::Disable { reason: "a second disk".into(), force: true }, sender);
    let told: Vec<String> = run.driver.history.last(2).iter().map(Entry::text).collect();
    assert_eq!(told, ["Up -> Disabled (operator): maintenance", "Disabled (operator): a second disk"]);
}

/// A driver whose disk is done when the test says so.
struct Run {
    driver: Driver,
    heard: mpsc::Receiver<Heard>,
    folder: tempfile::TempDir,
}

impl Run {
    /// It is Up, and has one other member.
    fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Nothing gets old in a test.
        let guard = GuardConfig { timeout_ms: HOUR_MS, age_ms_max: HOUR_MS, ..GuardConfig::default() };
        let config = Config { name: "sun1-1-1".into(), data: folder.path().into(), guard, ..Config::default() };
        let machine = Machine::new(Rules::of(&config), false, 0.0, 0);
        let speaker = Speaker::new(&config.speaker, None);
        let speaking = speaker.shared();
        let status = Status::new(&config.name, machine.state(), speaking.lock().unwrap().clone(), 0);
        let (sender, heard) = mpsc::channel(8);
        let links = Links {
            wanted: watch::channel(machine.announced()).0,
            speaking,
            pid: watch::channel(0).0,
            probe: Arc::new(Notify::new()),
            look: watch::channel(0).0,
            heard: sender,
        };
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let history = History::open(folder.path(), 3).unwrap();
        let mut driver = Driver::new(
            config,
            machine,
            Arc::new(Mutex::new(status)),
            (metrics, Readiness::default()),
            (links, Pulse::new(Instant::now()), history),
        );
        for _ in 0..3 {
            driver.event(Event::Probe(Verdict::Good));
        }
        Self { driver, heard, folder }
    }

    fn disable(&mut self, force: bool) -> oneshot::Receiver<Result<Done, Refused>> {
        let (sender, answer) = oneshot::channel();
        self.driver.ordered(Order::Disable { reason: "maintenance".into(), force }, sender);
        answer
    }

    fn enable(&mut self) -> oneshot::Receiver<Result<Done, Refused>> {
        let (sender, answer) = oneshot::channel();
        self.driver.ordered(Order::Enable { reason: String::new() }, sender);
        answer
    }

    /// Time passes.
    fn later(&mut self, ms: u64) {
        self.driver.clock -= Duration::from_millis(ms);
    }

    /// The other one says so to a question that was asked just now.
    fn other_is(&mut self, state: State) {
        let look = self.driver.machine.looks();
        let peer = Peer {
            name: "sun1-1-2".into(),
            state,
            reachable: true,
            last: false,
            leaving: false,
            round_age_ms: 0,
            every_ms: 500,
        };
        let group = Arc::from(vec![(peer.name.clone(), ([127, 0, 0, 1], 1).into())]);
        let asked = Asked { at_ms: self.driver.now_ms(), look };
        let answers = vec![(peer.name.clone(), Ok(peer), asked)];
        self.driver.hear(Heard::Others(Box::new(Others { group, answers, whole: Some(look) })));
    }

    /// The disk is done once more.
    async fn written(&mut self) {
        assert!(self.told().await, "it cannot be written");
    }

    /// The disk says what became of it.
    async fn told(&mut self) -> bool {
        let heard = tokio::time::timeout(Duration::from_secs(30), self.heard.recv()).await;
        let heard = heard.expect("the disk is asked").unwrap();
        let Heard::Kept(written) = &heard else { panic!("{heard:?}") };
        let written = written.is_ok();
        self.driver.hear(heard);
        written
    }

    /// Whether the file says that it is disabled.
    fn in_file(&self) -> bool {
        history::order(self.folder.path()).unwrap().is_some()
    }
}

const HOUR_MS: u64 = 3_600_000;
