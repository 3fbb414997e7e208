//! What the machine hears and says.

use std::fmt;

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

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Init => "Init",
            Self::Rising => "Rising",
            Self::Up => "Up",
            Self::Falling => "Falling",
            Self::Down => "Down",
            Self::Draining => "Draining",
            Self::Disabled => "Disabled",
            Self::Held => "Held",
        })
    }
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

impl fmt::Display for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unchanged => "what was announced before",
            Self::Nothing => "nothing",
            Self::Best => "as best",
            Self::Drain => "with a lower preference",
        })
    }
}

/// How a probe ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Everything is well.
    Good,
    /// What is wrong is what has counted already: nothing new is known.
    Again,
    /// Something is not.
    Bad {
        /// What, for people.
        reason: String,
        /// Nobody listens: no second look is needed.
        certain: bool,
        /// It serves, and has too much to do.
        slow: bool,
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
    /// Of those that are Up, who said so to a question that was asked since [`Machine::looks`] is what it is.
    pub confirmed: usize,
    /// All were asked since then; who has not answered will not.
    pub looked: bool,
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
    /// The operator wants the sun out if others stand ([`Machine::may_leave`]), or not any more.
    Leaving(bool),
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
    /// Look at the others at once, after they can see what this sun is now.
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
