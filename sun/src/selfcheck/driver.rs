//! Between the machine and the world: events come in one by one, actions go out. It waits for nothing but the next event.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemon::admin::Readiness;
use daemon::clock::unix_ms;
use daemon::drain::Drain;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::config::{Config, OnStop};
use super::history::{self, Disabled, Entry, History};
use super::judge::{Judged, descriptors_percent};
use super::machine::{Action, Announce, Event, Machine, State, Transition};
use super::metrics::Metrics;
use super::peers::{self, Member};
use super::pressure::Pressure;
use super::probe::Answer;
use super::speaker;
use super::status::{Probed, Status};

/// What the tasks around the driver tell it.
#[derive(Debug)]
pub enum Heard {
    /// A round of probes ended.
    Probed(Box<Round>),
    /// The sun's process ended.
    Ended,
    /// The others were asked.
    Members(Vec<Member>),
    /// Whether the topology drains the sun.
    Draining(bool),
    /// The operator orders something.
    Order(Order, oneshot::Sender<Result<String, Refused>>),
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

/// What an operator may order.
#[derive(Clone, Debug)]
pub enum Order {
    /// Take the sun out, also if it is the last when `force` says so.
    Disable {
        /// Why, and who says so.
        reason: String,
        /// Also if the group has too few others.
        force: bool,
    },
    /// Let it back in.
    Enable {
        /// Why, and who says so.
        reason: String,
    },
}

/// Why an order is not carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// It would leave the group with too few.
    Needed(String),
    /// It cannot be kept over a restart.
    Disk(String),
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
    /// Ask the others at once.
    pub look: Arc<Notify>,
}

impl Driver {
    /// `status` is what others read.
    #[must_use]
    pub fn new(
        config: Config,
        machine: Machine,
        status: Arc<Mutex<Status>>,
        (metrics, readiness): (Metrics, Readiness),
        (links, clock): (Links, Instant),
    ) -> Self {
        let history = History::open(&config.data, config.history_entries_max);
        Self { config, machine, history, status, metrics, readiness, links, clock }
    }

    /// Runs until the drain.
    pub async fn run(mut self, mut heard: mpsc::Receiver<Heard>, drain: Drain) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.show();
        loop {
            tokio::select! {
                biased;
                () = drain.wait() => break,
                Some(heard) = heard.recv() => self.hear(heard),
                _ = tick.tick() => self.event(Event::Tick),
            }
        }
        if self.config.on_stop == OnStop::Withdraw {
            self.event(Event::Stop);
        }
        // The speaker ends when its orders do, after it has carried out the last one.
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Probed(round) => self.probed(*round),
            Heard::Ended => self.event(Event::Ended),
            Heard::Draining(draining) => {
                self.status().draining = draining;
                self.event(Event::Draining(draining));
            }
            Heard::Members(members) => {
                let view = peers::view(&members, self.config.guard.age_ms_max);
                self.status().members = members;
                self.event(Event::View(view));
            }
            Heard::Order(order, answer) => {
                let result = self.ordered(order);
                // Who does not wait for the answer any more sees it in the status.
                let _ = answer.send(result);
            }
        }
    }

    fn probed(&mut self, round: Round) {
        let Round { answers, judged, pressure } = round;
        let took = answers.iter().map(|answer| answer.took).max().unwrap_or_default();
        self.metrics.probe_seconds.observe(took.as_secs_f64());
        self.metrics.probed(judged.cause);
        let report = answers.iter().find_map(|answer| answer.result.as_ref().ok());
        let problem = match &judged.verdict {
            super::machine::Verdict::Good => None,
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
    }

    fn ordered(&mut self, order: Order) -> Result<String, Refused> {
        let now_ms = self.now_ms();
        let disk = |error: std::io::Error| Refused::Disk(format!("the order cannot be kept: {error}"));
        match order {
            Order::Disable { reason, force } => {
                let announced = matches!(self.machine.announced(), Announce::Best | Announce::Drain);
                if !force && announced && self.machine.is_needed(now_ms) {
                    let why = "too few others of its group are known to be Up; with force it is withdrawn all the same";
                    return Err(Refused::Needed(why.to_owned()));
                }
                let order = Disabled { since_ms: unix_ms(), reason: reason.clone() };
                history::keep_order(&self.config.data, Some(&order)).map_err(disk)?;
                self.status().order = Some(order);
                self.event(Event::Disable(reason));
            }
            Order::Enable { reason } => {
                history::keep_order(&self.config.data, None).map_err(disk)?;
                self.status().order = None;
                self.event(Event::Enable(reason));
            }
        }
        Ok(format!("{} is {:?} now", self.config.name, self.machine.state()))
    }

    fn event(&mut self, event: Event) {
        let now_ms = self.now_ms();
        for action in self.machine.on(event, now_ms) {
            match action {
                Action::Probe => self.links.probe.notify_one(),
                Action::Look => self.links.look.notify_one(),
                Action::Moved(transition) => self.moved(transition),
                Action::Last(last) => self.stays(last),
                Action::Announce(announce) => {
                    tracing::info!(?announce, "to be announced");
                    self.links.wanted.send_replace(announce);
                }
            }
        }
        self.show();
    }

    fn moved(&mut self, transition: Transition) {
        self.metrics.moved(&transition);
        let Transition { from, to, reason, cause } = transition;
        if matches!(to, State::Falling | State::Down | State::Held) {
            tracing::warn!(?from, ?to, cause, reason, "state");
        } else {
            tracing::info!(?from, ?to, cause, reason, "state");
        }
        let entry = Entry { at_ms: unix_ms(), from, to, cause: cause.to_owned(), reason };
        let mut status = self.status();
        (status.since_ms, status.reason) = (entry.at_ms, entry.reason.clone());
        drop(status);
        self.history.add(entry);
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
        status.needed = self.machine.is_needed(now_ms);
        status.penalty = self.machine.penalty(now_ms);
        status.view = self.machine.view(now_ms);
        status.speaker = self.links.speaking.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.history = self.history.last(HISTORY_SHOWN);
        self.metrics.show(&status);
    }

    fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
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

/// Readiness waits for the first probe, whatever it says.
pub const FIRST_PROBE: &str = "no probe has ended yet";

/// Time passes for the machine so often.
const TICK: Duration = Duration::from_millis(250);

/// Changes in `GET /status`.
const HISTORY_SHOWN: usize = 50;
