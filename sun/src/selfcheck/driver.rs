//! Between the machine and the world: events come in one by one, actions go out. It waits for nothing but the next event, not
//! for a disk either; and what is to be announced goes out first.

mod orders;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemon::admin::Readiness;
use daemon::clock::unix_ms;
use daemon::drain::Drain;
use tokio::sync::{Notify, mpsc, watch};

pub use orders::{Answer as OrderAnswer, Done, Order, Refused};
use orders::{Carried, Disk, Pending};

use super::config::{Config, OnStop};
use super::history::{self, Entry, History, Penalty};
use super::judge::{Judged, descriptors_percent};
use super::machine::{Action, Announce, Event, Machine, State, Transition};
use super::metrics::Metrics;
use super::peers::{self, Asked, Book, Peer};
use super::pressure::Pressure;
use super::probe::Answer;
use super::pulse::{Pulse, elapsed_ms};
use super::speaker::{self, Speaking};
use super::status::{AS_BEFORE, Probed, Status};

/// What the tasks around the driver tell it.
#[derive(Debug)]
pub enum Heard {
    /// A round of probes ended.
    Probed(Box<Round>),
    /// The sun's process ended.
    Ended,
    /// Some of the others were asked.
    Others(Box<Others>),
    /// The popularity API hears from these.
    Witnessed(Vec<String>),
    /// The file of the operator's order is written, or cannot be.
    Kept(std::io::Result<()>),
    /// Whether the topology drains the sun; none: it has no such sun any more.
    Topology(Option<bool>),
    /// The operator orders something.
    Order(Order, OrderAnswer),
}

/// A round of probes.
#[derive(Debug)]
pub struct Round {
    /// What every address answered.
    pub answers: Vec<Answer>,
    /// What that is worth.
    pub judged: Judged,
    /// How much is lost waiting.
    pub pressure: Pressure,
}

/// What the others answered.
#[derive(Debug)]
pub struct Others {
    /// Who they are.
    pub group: Arc<peers::Group>,
    /// Who answered, what, and when they were asked.
    pub answers: Vec<(String, Result<Peer, String>, Asked)>,
    /// With these, all were asked with this look.
    pub whole: Option<u64>,
}

/// See the module's doc.
#[derive(Debug)]
pub struct Driver {
    config: Config,
    machine: Machine,
    history: History,
    status: Arc<Mutex<Status>>,
    metrics: Metrics,
    readiness: Readiness,
    links: Links,
    clock: Instant,
    book: Book,
    group: Arc<peers::Group>,
    pending: Option<Pending>,
    carried: Option<Carried>,
    disk: Disk,
    pulse: Pulse,
}

/// To the tasks around it.
#[derive(Debug)]
pub struct Links {
    /// What the speaker is to announce.
    pub wanted: watch::Sender<Announce>,
    /// What it says of itself.
    pub speaking: speaker::Shared,
    /// The process to be watched.
    pub pid: watch::Sender<u32>,
    /// Probe at once.
    pub probe: Arc<Notify>,
    /// Ask the others at once: the number of the look.
    pub look: watch::Sender<u64>,
    /// Its own ears.
    pub heard: mpsc::Sender<Heard>,
}

impl Driver {
    /// `status` is what others read.
    #[must_use]
    pub fn new(
        config: Config,
        machine: Machine,
        status: Arc<Mutex<Status>>,
        (metrics, readiness): (Metrics, Readiness),
        (links, pulse, history): (Links, Pulse, History),
    ) -> Self {
        let (clock, book, group) = (pulse.clock(), Book::default(), Arc::from(Vec::new()));
        let (pending, carried, disk) = (None, None, Disk::default());
        Self {
            config,
            machine,
            history,
            status,
            metrics,
            readiness,
            links,
            clock,
            book,
            group,
            pending,
            carried,
            disk,
            pulse,
        }
    }

    /// Runs until the drain.
    pub async fn run(mut self, mut heard: mpsc::Receiver<Heard>, drain: Drain) {
        let rounds_ms_max = self.config.probe.every_ms.saturating_mul(peers::ROUNDS_MISSED_MAX);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.note(history::START, history::began(self.history.last(1).last()));
        self.show();
        loop {
            tokio::select! {
                biased;
                () = drain.wait() => break,
                Some(heard) = heard.recv() => self.hear(heard),
                _ = tick.tick() => {
                    self.event(Event::Tick);
                    // Whoever watches this daemon is told that it lives while it hears of its sun.
                    if self.pulse.age_ms() <= rounds_ms_max {
                        daemon::upgrade::alive();
                    }
                }
            }
        }
        if self.config.on_stop == OnStop::Withdraw {
            self.event(Event::Stop);
        }
        self.note(history::STOP, format!("sun-check was told to end: {}", self.config.on_stop));
        // The speaker ends when its orders do, after it has carried out the last one.
        drop(self.links);
        if let Some(thread) = self.history.close() {
            let written = tokio::task::spawn_blocking(move || thread.join());
            // A disk that hangs is not waited for.
            let _ = tokio::time::timeout(HISTORY_MAX, written).await;
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Probed(round) => self.probed(*round),
            Heard::Ended => self.event(Event::Ended),
            Heard::Topology(draining) => self.listed(draining),
            Heard::Others(others) => self.answered(*others),
            Heard::Witnessed(names) => self.book.witness(names, self.now_ms()),
            Heard::Order(order, answer) => self.ordered(order, answer),
            Heard::Kept(written) => self.kept(written),
        }
    }

    /// What the topology says of the sun: whether it drains; none: it has no such sun.
    fn listed(&mut self, draining: Option<bool>) {
        let Some(draining) = draining else {
            tracing::warn!(name = self.config.name, UNLISTED);
            self.status().unlisted = true;
            self.readiness.note(LISTED, Some(UNLISTED.to_owned()));
            return;
        };
        self.readiness.note(LISTED, None);
        {
            let mut status = self.status();
            (status.unlisted, status.draining) = (false, draining);
        }
        self.event(Event::Draining(draining));
    }

    fn answered(&mut self, others: Others) {
        let Others { group, answers, whole } = others;
        self.group = group;
        for (name, answer, asked) in answers {
            self.book.hear(&name, answer, asked);
        }
        if let Some(look) = whole {
            self.book.whole(look);
        }
        self.look_around();
        self.show();
        self.decide();
        self.follow_up();
    }

    fn probed(&mut self, round: Round) {
        let Round { answers, judged, pressure } = round;
        let took = answers.iter().map(|answer| answer.took).max().unwrap_or_default();
        self.metrics.probe_seconds.observe(took.as_secs_f64());
        self.metrics.probed(judged.cause);
        let report = answers.iter().find_map(|answer| answer.result.as_ref().ok());
        let problem = match &judged.verdict {
            super::machine::Verdict::Good => None,
            super::machine::Verdict::Again => Some(AS_BEFORE.to_owned()),
            super::machine::Verdict::Bad { reason, .. } => Some(reason.clone()),
        };
        let probed = Probed {
            at_ms: unix_ms(),
            took_ms: took.as_secs_f64() * 1000.0,
            problem,
            pid: report.map(|report| report.pid),
            certificate_expires: answers.iter().filter_map(|answer| answer.expires).min(),
            descriptors_percent: report.and_then(descriptors_percent),
        };
        tracing::debug!(?probed, "probe");
        if let Some(report) = report {
            let pid = report.pid;
            self.links.pid.send_if_modified(|known| std::mem::replace(known, pid) != pid);
        }
        {
            let mut status = self.status();
            for warning in judged.warnings.iter().filter(|warning| is_new(warning, &status.warnings)) {
                tracing::warn!(warning, "the sun is well so far");
            }
            (status.probe, status.pressure, status.warnings) = (Some(probed), pressure, judged.warnings);
        }
        self.readiness.hold(FIRST_PROBE);
        self.event(Event::Probe(judged.verdict));
        self.pulse.beat();
    }

    fn event(&mut self, event: Event) {
        self.look_around();
        self.act(event);
        self.decide();
        self.follow_up();
    }

    /// What is known of the others gets old by itself.
    fn look_around(&mut self) {
        let age_ms_max = self.config.guard.age_ms_max;
        let view = self.book.view(&self.group, age_ms_max, self.machine.looks(), self.now_ms());
        if view != self.machine.view() {
            self.act(Event::View(view));
        }
    }

    fn act(&mut self, event: Event) {
        let (now_ms, flaps, kept) = (self.now_ms(), self.machine.flaps().clone(), self.machine.is_kept());
        let actions = self.machine.on(event, now_ms);
        for action in &actions {
            if let Action::Announce(announce) = action {
                self.links.wanted.send_replace(*announce);
            }
        }
        // Whoever is asked from here on can see it.
        self.show();
        for action in actions {
            match action {
                Action::Probe => self.links.probe.notify_one(),
                Action::Look => drop(self.links.look.send_replace(self.machine.looks())),
                Action::Moved(transition) => self.moved(transition),
                Action::Last(last) => self.stays(last),
                Action::Announce(announce) => tracing::info!(%announce, "to be announced"),
            }
        }
        if *self.machine.flaps() != flaps {
            let penalty = Penalty { points: self.machine.penalty(now_ms), at_ms: unix_ms() };
            if !self.history.keep_penalty(penalty) {
                tracing::warn!("the penalty for falls does not outlive a restart: the disk hangs");
            }
        }
        if self.machine.is_kept() && !kept {
            tracing::warn!("the sun is slow and is announced as before: too few others of its group are Up");
        }
    }

    fn moved(&mut self, transition: Transition) {
        self.metrics.moved(&transition);
        let Transition { from, to, reason, cause } = transition;
        if matches!(to, State::Falling | State::Down | State::Held) {
            tracing::warn!(%from, %to, cause, reason, "state");
        } else {
            tracing::info!(%from, %to, cause, reason, "state");
        }
        let entry = Entry { at_ms: unix_ms(), from, to, cause: cause.to_owned(), reason };
        let mut status = self.status();
        (status.since_ms, status.reason) = (entry.at_ms, entry.reason.clone());
        drop(status);
        self.remember(entry);
    }

    /// What happened and changed no state.
    fn note(&mut self, cause: &str, reason: String) {
        let state = self.machine.state();
        self.remember(Entry { at_ms: unix_ms(), from: state, to: state, cause: cause.to_owned(), reason });
    }

    fn remember(&mut self, entry: Entry) {
        if !self.history.add(entry) {
            self.metrics.history_dropped.inc();
        }
        self.status().history = self.history.last(HISTORY_SHOWN);
    }

    fn stays(&self, last: bool) {
        if last {
            self.metrics.guard_holds.inc();
            tracing::error!("the sun is ill and is announced all the same: too few others of its group are well");
        } else {
            tracing::info!("enough others of the group are well again, or this one is");
        }
    }

    /// Everything that others read.
    fn show(&self) {
        let now_ms = self.now_ms();
        let mut status = self.status();
        status.state = self.machine.state();
        status.announce = self.machine.announced();
        status.last = self.machine.is_last();
        status.kept = self.machine.is_kept();
        status.leaving = self.machine.is_leaving();
        status.needed = self.machine.is_needed();
        status.penalty = self.machine.penalty(now_ms);
        status.view = self.machine.view();
        status.members = self.book.members(&self.group, now_ms);
        status.speaker = self.speaking();
        self.metrics.show(&status);
    }

    /// What is known of the speaker.
    fn speaking(&self) -> Speaking {
        self.links.speaking.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        elapsed_ms(self.clock)
    }
}

/// Whether a warning differs from those before by more than its figures.
fn is_new(warning: &str, before: &[String]) -> bool {
    let words =
        |text: &str| text.chars().filter(|letter| !letter.is_ascii_digit() && *letter != '.').collect::<String>();
    !before.iter().any(|other| words(other) == words(warning))
}

/// Where the history is, for people.
#[must_use]
pub fn history_file(config: &Config) -> PathBuf {
    config.data.join("history.jsonl")
}

/// What the note is about.
const LISTED: &str = "sun-check: the sun in the topology";

/// For people.
pub const UNLISTED: &str =
    "the topology has no such sun any more: what is announced stays; `sun-check disable` withdraws it";

/// Readiness waits for the first probe, whatever it says.
pub const FIRST_PROBE: &str = "no probe has ended yet";

/// Time passes for the machine so often.
const TICK: Duration = Duration::from_millis(250);

/// The end waits for the disk for so long.
const HISTORY_MAX: Duration = Duration::from_secs(1);

/// Changes in `GET /status`.
const HISTORY_SHOWN: usize = 50;
