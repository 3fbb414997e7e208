//! From what is seen of a sun to what is announced of it. Pure: time comes in as milliseconds that only rise.
//!
//! ```text
//!          good                rise good in a row            bad
//!   Init -------> Rising ------------------------------> Up <----> Falling
//!     |  bad        |  ^  \                               ^  good     |  fall bad in a row,
//!     |  (fall)     |   \  `-- penalty too high --> Held -'           |  or nobody listens
//!     |         bad |    `------ good ------- Down <------------------+
//!     `-------------+------------------------> ^
//!
//!   over all of them: Disabled (the operator's word), and Draining over Up and Falling (the topology's)
//! ```
//!
//! What follows from a state:
//!
//! | state | announced |
//! |---|---|
//! | Up, Falling | as best |
//! | Draining | as best for `drain_wait`, then with a lower preference |
//! | Rising, Down, Held | nothing; with a lower preference while too few others are well ("the last of its group") |
//! | Init, Rising before the first verdict; ill from the start while too few others are well | what a self-check before this one left |
//! | Disabled, stopping | nothing |
//!
//! # Invariants
//!
//! - Nothing is announced while Disabled or stopping.
//! - **Guard**: an announced sun is withdrawn only while `up_min` others are known to be Up, each by a view that is not
//!   too old; and an ill one that is withdrawn is announced again when fewer than that many others stand. What is not known is
//!   not well.
//! - **An ill sun is never announced as best**: the view may be wrong (a broken internal network, an old answer), and whoever
//!   is well is to win wherever routers hear both.
//! - "Stand" is wider than "Up": it counts Falling and Draining members, which serve. Else one lost probe of a
//!   healthy member would bring a dead one's addresses back.
//! - A state changes only by an event that is a cause, and says which.

mod flaps;

#[cfg(test)]
mod tests;

pub use flaps::Flaps;

use super::config::{Config, Thresholds};

/// What the self-check says of its sun.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing is known yet.
    Init,
    /// Well, but not for long enough.
    Rising,
    /// Well.
    Up,
    /// Ill, but not for long enough.
    Falling,
    /// Ill.
    Down,
    /// Well, and to be left alone: the topology says so.
    Draining,
    /// The operator says so.
    Disabled,
    /// Well, and was ill too often lately.
    Held,
}

/// What is to be announced of its addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Announce {
    /// What is announced stays so, be it something or nothing.
    Unchanged,
    /// Nothing.
    Nothing,
    /// Its own as best, the others' as backups.
    Best,
    /// The same with a lower preference (RFC 8326).
    Drain,
}

/// How a probe ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Everything is well.
    Good,
    /// Something is not.
    Bad {
        /// What, for people.
        reason: String,
        /// Nobody listens: no second look is needed.
        certain: bool,
    },
}

/// What is known of the other members of the group.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct View {
    /// There are so many.
    pub others: usize,
    /// Known to be Up.
    pub up: usize,
    /// Known to serve: Up, Falling or Draining.
    pub standing: usize,
}

/// What happens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A probe ended.
    Probe(Verdict),
    /// The sun's process ended.
    Ended,
    /// The others were looked at.
    View(View),
    /// The operator takes the sun out.
    Disable(String),
    /// The operator lets it back in, and forgives its falls.
    Enable(String),
    /// Whether the topology drains the sun.
    Draining(bool),
    /// This daemon ends, and withdraws first.
    Stop,
    /// Time passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Probe at once.
    Probe,
    /// Look at the others at once.
    Look,
    /// The state changed.
    Moved(Transition),
    /// The sun is ill and announced all the same, or no longer so.
    Last(bool),
    /// From now on this is announced.
    Announce(Announce),
}

/// A change of state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transition {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// The cause, for people.
    pub reason: String,
    /// The cause, for counting: one of a few words.
    pub cause: &'static str,
}

/// When the machine does what.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Counts and penalties.
    pub thresholds: Thresholds,
    /// Others that must be Up.
    pub up_min: usize,
    /// A view counts for so long, milliseconds.
    pub view_ms_max: u64,
    /// See [`super::config::GuardConfig::start_wait_s`], milliseconds.
    pub start_wait_ms: u64,
    /// See [`super::config::SpeakerConfig::drain_wait_s`], milliseconds.
    pub drain_wait_ms: u64,
}

impl Rules {
    /// As configured.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            thresholds: config.thresholds.clone(),
            up_min: config.guard.up_min,
            view_ms_max: config.guard.age_ms_max,
            start_wait_ms: config.guard.start_wait_s.saturating_mul(1000),
            drain_wait_ms: config.speaker.drain_wait_s.saturating_mul(1000),
        }
    }
}

/// What is seen of the sun, whatever the operator and the topology say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Health {
    Init { bad: u32 },
    Rising { good: u32 },
    Up,
    Falling { bad: u32 },
    Down,
    Held,
}

/// See the module's doc.
#[derive(Clone, Debug)]
pub struct Machine {
    rules: Rules,
    health: Health,
    disabled: bool,
    /// Since when, milliseconds.
    draining: Option<u64>,
    stopping: bool,
    flaps: Flaps,
    view: Option<(View, u64)>,
    /// It is ill, and announced because too few others are well.
    last: bool,
    /// It was found well or ill since the start.
    judged: bool,
    /// It was Up since the start.
    was_up: bool,
    started_ms: u64,
    announced: Announce,
}

impl Machine {
    /// Nothing is known yet. An operator's order outlives a restart.
    #[must_use]
    pub fn new(rules: Rules, disabled: bool, now_ms: u64) -> Self {
        let announced = if disabled { Announce::Nothing } else { Announce::Unchanged };
        let flaps = Flaps::new(&rules.thresholds, now_ms);
        Self {
            rules,
            health: Health::Init { bad: 0 },
            disabled,
            draining: None,
            stopping: false,
            flaps,
            view: None,
            last: false,
            judged: false,
            was_up: false,
            started_ms: now_ms,
            announced,
        }
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> State {
        if self.disabled {
            return State::Disabled;
        }
        match self.health {
            Health::Up | Health::Falling { .. } if self.draining.is_some() => State::Draining,
            Health::Init { .. } => State::Init,
            Health::Rising { .. } => State::Rising,
            Health::Up => State::Up,
            Health::Falling { .. } => State::Falling,
            Health::Down => State::Down,
            Health::Held => State::Held,
        }
    }

    /// What is to be announced.
    #[must_use]
    pub const fn announced(&self) -> Announce {
        self.announced
    }

    /// Whether it is ill and announced as the last of its group.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.last
    }

    /// The penalty for falls.
    #[must_use]
    pub fn penalty(&self, now_ms: u64) -> f64 {
        self.flaps.penalty(now_ms)
    }

    /// What is known of the others, if it is not too old.
    #[must_use]
    pub fn view(&self, now_ms: u64) -> Option<View> {
        let (view, at_ms) = self.view?;
        (now_ms.saturating_sub(at_ms) <= self.rules.view_ms_max).then_some(view)
    }

    /// Whether a sun that is announced now would be missed: too few others are known to be Up.
    #[must_use]
    pub fn is_needed(&self, now_ms: u64) -> bool {
        self.view(now_ms).unwrap_or_default().up < self.rules.up_min
    }

    /// Takes an event in.
    pub fn on(&mut self, event: Event, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let before = self.state();
        let (cause, reason) = match event {
            Event::Probe(verdict) => self.probed(verdict, now_ms),
            Event::Ended => {
                actions.push(Action::Probe);
                ("process", "the sun's process ended".to_owned())
            }
            Event::View(view) => {
                self.view = Some((view, now_ms));
                ("view", String::new())
            }
            Event::Disable(why) => {
                self.disabled = true;
                ("operator", why)
            }
            Event::Enable(why) => {
                self.enable(now_ms);
                ("operator", why)
            }
            Event::Draining(draining) => self.drained(draining, now_ms),
            Event::Stop => {
                self.stopping = true;
                ("stop", String::new())
            }
            Event::Tick => self.passed(now_ms),
        };
        let to = self.state();
        if before != to {
            if to == State::Falling {
                actions.push(Action::Look);
            }
            actions.push(Action::Moved(Transition { from: before, to, reason, cause }));
        }
        self.settle(now_ms, &mut actions);
        actions
    }

    fn probed(&mut self, verdict: Verdict, now_ms: u64) -> (&'static str, String) {
        let Verdict::Bad { reason, certain } = verdict else { return ("probe", self.good(now_ms)) };
        let fall = self.rules.thresholds.fall;
        let enough = |bad: u32| certain || bad >= fall;
        self.health = match self.health {
            Health::Init { bad } if enough(bad + 1) => Health::Down,
            Health::Init { bad } => Health::Init { bad: bad + 1 },
            Health::Up if enough(1) => self.fall(now_ms),
            Health::Up => Health::Falling { bad: 1 },
            Health::Falling { bad } if enough(bad + 1) => self.fall(now_ms),
            Health::Falling { bad } => Health::Falling { bad: bad + 1 },
            Health::Rising { .. } | Health::Down | Health::Held => Health::Down,
        };
        self.judged |= self.health == Health::Down;
        ("probe", reason)
    }

    fn fall(&mut self, now_ms: u64) -> Health {
        self.flaps.fell(now_ms);
        Health::Down
    }

    fn good(&mut self, now_ms: u64) -> String {
        let rise = self.rules.thresholds.rise;
        let good = match self.health {
            Health::Up => return String::new(),
            Health::Falling { .. } => {
                self.health = Health::Up;
                return "a probe was good again".to_owned();
            }
            Health::Held => return self.released(now_ms),
            Health::Init { .. } | Health::Down => 1,
            Health::Rising { good } => good + 1,
        };
        if good < rise {
            self.health = Health::Rising { good };
            return "a probe was good".to_owned();
        }
        self.judged = true;
        if self.flaps.holds(now_ms) {
            self.health = Health::Held;
            return format!("it is well, and fell too often lately (penalty {:.0})", self.flaps.penalty(now_ms));
        }
        self.rise();
        format!("{good} good probes in a row")
    }

    fn released(&mut self, now_ms: u64) -> String {
        if !self.flaps.releases(now_ms) {
            return String::new();
        }
        self.rise();
        "it was well for long enough".to_owned()
    }

    const fn rise(&mut self) {
        (self.health, self.was_up) = (Health::Up, true);
    }

    fn enable(&mut self, now_ms: u64) {
        self.disabled = false;
        self.flaps.forgive(now_ms);
        if self.health == Health::Held {
            self.rise();
        }
    }

    fn drained(&mut self, draining: bool, now_ms: u64) -> (&'static str, String) {
        let since = self.draining.unwrap_or(now_ms);
        self.draining = draining.then_some(since);
        let what = if draining { "the topology says that it drains" } else { "the topology drains it no longer" };
        ("topology", what.to_owned())
    }

    /// Only a hold ends by time alone, and only while probes are good, which [`Machine::good`] sees to.
    const fn passed(&self, _now_ms: u64) -> (&'static str, String) {
        ("time", String::new())
    }

    /// What follows from state and view.
    fn settle(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let last = self.must_stay(now_ms);
        if last != self.last {
            self.last = last;
            actions.push(Action::Last(last));
        }
        let announce = self.choose(now_ms);
        if announce != self.announced {
            self.announced = announce;
            actions.push(Action::Announce(announce));
        }
    }

    /// The guard: whether an ill sun is announced all the same.
    fn must_stay(&self, now_ms: u64) -> bool {
        let ill = matches!(self.health, Health::Rising { .. } | Health::Down | Health::Held);
        if !ill || self.disabled || self.stopping || !self.judged {
            return false;
        }
        let view = self.view(now_ms).unwrap_or_default();
        let up_min = self.rules.up_min;
        // What is announced stays until enough are Up; what is not comes back when not even that many stand.
        if self.last || self.announced == Announce::Best || self.announced == Announce::Drain {
            return view.up < up_min;
        }
        let waited = self.was_up || now_ms.saturating_sub(self.started_ms) >= self.rules.start_wait_ms;
        waited && view.standing < up_min
    }

    fn choose(&self, now_ms: u64) -> Announce {
        if self.disabled || self.stopping {
            return Announce::Nothing;
        }
        match self.health {
            Health::Up | Health::Falling { .. } => match self.draining {
                Some(since) if now_ms.saturating_sub(since) >= self.rules.drain_wait_ms => Announce::Drain,
                _ => Announce::Best,
            },
            // Whoever is well wins, be it that only this sun cannot see it.
            _ if self.last => Announce::Drain,
            Health::Init { .. } | Health::Rising { .. } if !self.judged => Announce::Unchanged,
            // Perhaps a self-check before this one left it announced as the last of its group.
            _ if self.announced == Announce::Unchanged && self.is_needed(now_ms) => Announce::Unchanged,
            _ => Announce::Nothing,
        }
    }
}
