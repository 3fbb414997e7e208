//! The operator's orders, with a disk that is done when the test says so.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use daemon::admin::Readiness;
use tokio::sync::{Notify, mpsc, watch};

use super::*;
use crate::selfcheck::config::{Config, GuardConfig};
use crate::selfcheck::driver::{Links, Others};
use crate::selfcheck::history::History;
use crate::selfcheck::machine::{Machine, Rules, State, Verdict};
use crate::selfcheck::metrics::Metrics;
use crate::selfcheck::peers::{Asked, Peer};
use crate::selfcheck::pulse::Pulse;
use crate::selfcheck::speaker::Speaker;
use crate::selfcheck::status::Status;

#[tokio::test]
async fn an_order_is_carried_out_when_it_is_on_the_disk() {
    let mut run = Run::up();
    let mut answer = run.disable(false);
    assert!(answer.try_recv().is_err(), "the others are asked");
    run.other_is(State::Up);
    assert_eq!(run.driver.machine.state(), State::Up, "it is being written");
    run.written().await;
    assert!(matches!(answer.try_recv(), Ok(Ok(_))));
    assert_eq!((run.driver.machine.state(), run.in_file()), (State::Disabled, true));
}

#[tokio::test]
async fn whom_the_others_need_by_the_time_that_the_disk_is_done_stays() {
    let mut run = Run::up();
    let mut answer = run.disable(false);
    run.other_is(State::Up);
    run.other_is(State::Down);
    run.written().await;
    assert_eq!(answer.try_recv(), Ok(Err(Refused::Needed(NEEDED.to_owned()))));
    assert_eq!(run.driver.machine.state(), State::Up);
    run.written().await;
    assert!(!run.in_file(), "it is taken back");
    assert_eq!(run.driver.disk, Disk::Settled);
}

#[tokio::test]
async fn force_takes_the_place_of_an_order_that_waits() {
    for waits_for_disk in [false, true] {
        let mut run = Run::up();
        let mut waiting = run.disable(false);
        if waits_for_disk {
            run.other_is(State::Up);
        }
        let mut forced = run.disable(true);
        assert_eq!(waiting.try_recv(), Ok(Err(Refused::Superseded)));
        run.written().await;
        if waits_for_disk {
            assert!(forced.try_recv().is_err(), "the file is the other one's");
            run.written().await;
        }
        assert!(matches!(forced.try_recv(), Ok(Ok(_))));
        assert_eq!((run.driver.machine.state(), run.in_file()), (State::Disabled, true));
    }
}

#[tokio::test]
async fn an_order_to_let_it_back_in_takes_the_place_of_one_that_waits() {
    let mut run = Run::up();
    let mut waiting = run.disable(false);
    run.other_is(State::Up);
    let mut again = run.disable(false);
    assert_eq!(again.try_recv(), Ok(Err(Refused::Busy)));
    let (sender, mut enabled) = oneshot::channel();
    run.driver.ordered(Order::Enable { reason: String::new() }, sender);
    assert_eq!(waiting.try_recv(), Ok(Err(Refused::Superseded)));
    run.written().await;
    run.written().await;
    assert!(matches!(enabled.try_recv(), Ok(Ok(_))));
    assert_eq!((run.driver.machine.state(), run.in_file()), (State::Up, false));
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

    fn disable(&mut self, force: bool) -> oneshot::Receiver<Result<String, Refused>> {
        let (sender, answer) = oneshot::channel();
        self.driver.ordered(Order::Disable { reason: "maintenance".into(), force }, sender);
        answer
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
        let heard = self.heard.recv().await.unwrap();
        assert!(matches!(heard, Heard::Kept(Ok(()))), "{heard:?}");
        self.driver.hear(heard);
    }

    /// Whether the file says that it is disabled.
    fn in_file(&self) -> bool {
        history::order(self.folder.path()).unwrap().is_some()
    }
}

const HOUR_MS: u64 = 3_600_000;
