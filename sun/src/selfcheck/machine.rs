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
//! - **Guard**: an announced sun is withdrawn only while `up_min` others are known to be Up; and an ill one that is withdrawn
//!   is announced again when fewer than that many others stand. What is not known is not well.
//! - **Look before leaving**: for a withdrawal only those count who said that they are Up when they were asked after this sun was
//!   shown as Up for the last time ([`View::confirmed`]). Of two members that leave at once, at least one asks after the other
//!   is seen to leave: they never go by the word of each other. What was announced stays while they are asked, for
//!   `look_ms_max` at most.
//! - **An ill sun is announced as best only for that long**: the view may be wrong (a broken internal network, an old
//!   answer), and whoever is well is to win wherever routers hear both.
//! - "Stand" is wider than "Up": it counts Falling and Draining members, which serve. Else one lost probe of a
//!   healthy member would bring a dead one's addresses back.
//! - **Too much to do is no reason to give it to others who have as much**: a sun that is only slow goes Down while most of its
//!   group is Up ([`Rules::slow_percent_max`]), and is Falling, announced as before, while not. A group that is slow as a whole
//!   stays as it is, and what one that recovers gets is its own share. Slow probes do not count towards a fall for another reason.
//! - A state changes only by an event that is a cause, and says which.

mod flaps;
mod words;

#[cfg(test)]
mod group;
#[cfg(test)]
mod tests;

pub use flaps::Flaps;
pub use words::{Action, Announce, Event, State, Transition, Verdict, View};

use super::config::{Config, Thresholds};

/// When the machine does what.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Counts and penalties.
    pub thresholds: Thresholds,
    /// Others that must be Up.
    pub up_min: usize,
    /// See [`super::config::GuardConfig::slow_percent_max`].
    pub slow_percent_max: usize,
    /// The others are waited for this long before a withdrawal, milliseconds.
    pub look_ms_max: u64,
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
            slow_percent_max: config.guard.slow_percent_max,
            look_ms_max: config.guard.timeout_ms.saturating_mul(2),
            start_wait_ms: config.guard.start_wait_s.saturating_mul(1000),
            drain_wait_ms: config.speaker.drain_wait_s.saturating_mul(1000),
        }
    }
}

/// What is seen of the sun, whatever the operator and the topology say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Health {
    Init {
        bad: u32,
    },
    Rising {
        good: u32,
    },
    Up,
    /// Bad probes in a row, and the last of them in a row that were anything else than slow.
    Falling {
        bad: u32,
        other: u32,
    },
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
    /// The operator wants it out, and the others are asked.
    leaving: bool,
    flaps: Flaps,
    view: View,
    /// How often it was shown as Up and then no longer, and when it was so last, milliseconds.
    looks: u64,
    look_ms: u64,
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
    /// Nothing is known yet. An operator's order and the penalty for falls outlive a restart.
    #[must_use]
    pub fn new(rules: Rules, disabled: bool, penalty: f64, now_ms: u64) -> Self {
        let announced = if disabled { Announce::Nothing } else { Announce::Unchanged };
        let flaps = Flaps::new(&rules.thresholds, penalty, now_ms);
        Self {
            rules,
            health: Health::Init { bad: 0 },
            disabled,
            draining: None,
            stopping: false,
            leaving: false,
            flaps,
            view: View::default(),
            looks: 0,
            look_ms: now_ms,
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

    /// The penalty, as it was when it last changed.
    #[must_use]
    pub const fn flaps(&self) -> &Flaps {
        &self.flaps
    }

    /// Whether it is slow for long enough to go Down, and stays because most of its group is.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        matches!(self.health, Health::Falling { bad, .. } if bad >= self.rules.thresholds.fall)
    }

    /// What is known of the others.
    #[must_use]
    pub const fn view(&self) -> View {
        self.view
    }

    /// How often it was shown as Up and then no longer: whoever is asked from then on counts for a withdrawal.
    #[must_use]
    pub const fn looks(&self) -> u64 {
        self.looks
    }

    /// The operator wants it out, and it is not decided yet: the others are not to count on it.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether a sun that is announced now would be missed: too few others are known to be Up.
    #[must_use]
    pub const fn is_needed(&self) -> bool {
        self.view.up < self.rules.up_min
    }

    /// Whether the operator may take it out; none: the others are being asked.
    #[must_use]
    pub fn may_leave(&self, now_ms: u64) -> Option<bool> {
        if self.announced == Announce::Nothing {
            return Some(true);
        }
        match self.guard(now_ms) {
            Guard::Spared => Some(true),
            Guard::Asking => None,
            Guard::Needed => Some(false),
        }
    }

    /// Takes an event in.
    pub fn on(&mut self, event: Event, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let (before, shown) = (self.state(), self.is_shown_up());
        let (cause, reason) = match event {
            Event::Probe(verdict) => self.probed(verdict, now_ms),
            Event::Ended => {
                actions.push(Action::Probe);
                ("process", "the sun's process ended".to_owned())
            }
            Event::View(view) => {
                self.view = view;
                ("view", String::new())
            }
            Event::Leaving(leaving) => {
                self.leaving = leaving;
                ("operator", String::new())
            }
            Event::Disable(why) => {
                (self.disabled, self.leaving) = (true, false);
                ("operator", why)
            }
            Event::Enable(why) => {
                self.leaving = false;
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
        if shown && !self.is_shown_up() {
            self.look(now_ms);
            actions.push(Action::Look);
        }
        let to = self.state();
        if before != to {
            actions.push(Action::Moved(Transition { from: before, to, reason, cause }));
        }
        self.settle(now_ms, &mut actions);
        actions
    }

    /// Whether others may count on it.
    fn is_shown_up(&self) -> bool {
        self.state() == State::Up && !self.leaving
    }

    /// Whoever counted on it is to be asked again.
    const fn look(&mut self, now_ms: u64) {
        (self.looks, self.look_ms) = (self.looks + 1, now_ms);
        (self.view.confirmed, self.view.looked) = (0, false);
    }

    fn probed(&mut self, verdict: Verdict, now_ms: u64) -> (&'static str, String) {
        let (reason, certain, slow) = match verdict {
            Verdict::Good => return ("probe", self.good(now_ms)),
            Verdict::Again => return ("probe", String::new()),
            Verdict::Bad { reason, certain, slow } => (reason, certain, slow),
        };
        self.health = match self.health {
            Health::Init { bad } if certain || bad + 1 >= self.rules.thresholds.fall => Health::Down,
            Health::Init { bad } => Health::Init { bad: bad + 1 },
            Health::Up => self.failed((0, 0), certain, slow, now_ms),
            Health::Falling { bad, other } => self.failed((bad, other), certain, slow, now_ms),
            Health::Rising { .. } | Health::Down | Health::Held => Health::Down,
        };
        self.judged |= self.health == Health::Down;
        ("probe", reason)
    }

    /// A sun that was well until so many bad probes ago: `other` of them in a row were not slow.
    fn failed(&mut self, (bad, other): (u32, u32), certain: bool, slow: bool, now_ms: u64) -> Health {
        let fall = self.rules.thresholds.fall;
        // A sun that was kept although it was slow for long has failed in another way only when it did so often enough.
        let (bad, other) = (bad.saturating_add(1), if slow { 0 } else { other.saturating_add(1) });
        // Those who count on an Up sun are not asked yet.
        let spared = self.health != Health::Up && self.most_are_up();
        if certain || other >= fall || (bad >= fall && spared) {
            return self.fall(now_ms);
        }
        Health::Falling { bad, other }
    }

    /// Whether so many of the others are Up that a slow one may leave.
    const fn most_are_up(&self) -> bool {
        let group = self.view.others + 1;
        let out = group.saturating_mul(self.rules.slow_percent_max) / 100;
        // One may always be spared, unless none may.
        let out = if out == 0 && self.rules.slow_percent_max > 0 { 1 } else { out };
        let confirmed = self.view.confirmed;
        confirmed + out >= group && confirmed >= self.rules.up_min
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
        // What is announced stays until enough are Up; what is not comes back when not even that many stand.
        if self.last || self.announced == Announce::Best || self.announced == Announce::Drain {
            return match self.guard(now_ms) {
                Guard::Spared => false,
                Guard::Asking => self.last,
                Guard::Needed => true,
            };
        }
        let waited = self.was_up || now_ms.saturating_sub(self.started_ms) >= self.rules.start_wait_ms;
        waited && self.view.standing < self.rules.up_min
    }

    /// Whether the others can spare it.
    const fn guard(&self, now_ms: u64) -> Guard {
        if self.view.confirmed >= self.rules.up_min {
            return Guard::Spared;
        }
        let waited = now_ms.saturating_sub(self.look_ms) >= self.rules.look_ms_max;
        if self.view.looked || waited { Guard::Needed } else { Guard::Asking }
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
            _ => match (self.announced, self.guard(now_ms)) {
                // Perhaps a self-check before this one left it announced as the last of its group.
                (Announce::Unchanged, Guard::Asking | Guard::Needed) => Announce::Unchanged,
                (announced, Guard::Asking) => announced,
                _ => Announce::Nothing,
            },
        }
    }
}

/// What the others say to a withdrawal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Guard {
    /// Enough of them are Up.
    Spared,
    /// They are being asked.
    Asking,
    /// Too few are.
    Needed,
}
