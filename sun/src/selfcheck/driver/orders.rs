//! The operator's orders: carried out first, then kept over a restart and seen at the speaker, for which their answers wait.
//!
//! ```text
//!   disable ----> others are asked --needed--> refused
//!                      | spared
//!   disable --force    v
//!   enable ------> carried out --> the file is written, the speaker is looked at --> answered
//! ```
//!
//! Why the disk comes second: a disk that is full or dead is a reason to take a sun out, and nothing to wait for. What could not be
//! written is tried again until it is; until then the answer, the status and a metric say that a restart of this daemon
//! forgets it. One that is not forced is decided by what the others say at the moment that it is carried out.
//!
//! An order that is forced, and one that lets the sun back in, takes the place of one that waits. One at a time writes the file.

#[cfg(test)]
mod tests;

use daemon::clock::unix_ms;
use tokio::sync::oneshot;

use super::{Driver, Heard};
use crate::selfcheck::config::SpeakerKind;
use crate::selfcheck::history::{self, Disabled};
use crate::selfcheck::machine::{Announce, Event, State};
use crate::selfcheck::speaker::Speaking;

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

/// What became of an order that was carried out; the body of its answer.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Done {
    /// What is so now, for people.
    pub said: String,
    /// Why a restart of this daemon forgets it; null: it does not.
    pub unkept: Option<String>,
    /// Why it is not known that the speaker announces what it should; null: it does.
    pub unconfirmed: Option<String>,
}

/// Why an order is not carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// It would leave the group with too few.
    Needed(String),
    /// Another one is under way.
    Busy,
    /// Another one took its place.
    Superseded,
}

/// Where an order is answered.
pub type Answer = oneshot::Sender<Result<Done, Refused>>;

/// An order for which the others are asked.
#[derive(Debug)]
pub(super) struct Pending {
    order: Order,
    answer: Answer,
    since_ms: u64,
}

/// An order that is carried out and not answered yet.
#[derive(Debug)]
pub(super) struct Carried {
    answer: Answer,
    since_ms: u64,
    /// Rounds of the speaker until then.
    rounds: u64,
}

/// Whether the file of the order says what is in force. One at a time writes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) enum Disk {
    /// It does.
    #[default]
    Settled,
    /// It is being written. `stale`: what is in force has changed since.
    Writing { stale: bool },
    /// Perhaps not, and why; it is tried again then.
    Failed { why: String, again_ms: u64 },
}

impl Driver {
    /// Takes an order in.
    pub(super) fn ordered(&mut self, order: Order, answer: Answer) {
        let since_ms = self.now_ms();
        let asks = matches!(order, Order::Disable { force: false, .. });
        if asks && self.pending.is_some() {
            // Who does not wait for the answer any more sees in the status what became of it.
            let _ = answer.send(Err(Refused::Busy));
            return;
        }
        if let Some(before) = self.pending.take() {
            self.refuse(before, Refused::Superseded);
        }
        let pending = Pending { order, answer, since_ms };
        if asks {
            self.pending = Some(pending);
            self.event(Event::Leaving(true));
        } else {
            self.carry_out(pending);
        }
    }

    /// What becomes of an order for which others were asked.
    pub(super) fn decide(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        match self.machine.may_leave(self.now_ms()) {
            None => self.pending = Some(pending),
            Some(true) => self.carry_out(pending),
            Some(false) => self.refuse(pending, Refused::Needed(NEEDED.to_owned())),
        }
    }

    fn carry_out(&mut self, Pending { order, answer, since_ms }: Pending) {
        if let Some(before) = self.carried.take() {
            let _ = before.answer.send(Err(Refused::Superseded));
        }
        let rounds = self.speaking().rounds;
        let (before, reason) = (self.machine.state(), order.reason().to_owned());
        self.status().order = match &order {
            Order::Disable { reason, .. } => Some(Disabled { since_ms: unix_ms(), reason: reason.clone() }),
            Order::Enable { .. } => None,
        };
        self.event(match order {
            Order::Disable { reason, .. } => Event::Disable(reason),
            Order::Enable { reason } => Event::Enable(reason),
        });
        if self.machine.state() == before {
            // The state says why it is so, and does not change.
            self.note("operator", reason);
        }
        self.carried = Some(Carried { answer, since_ms, rounds });
        self.keep();
    }

    /// Has the file written as it is to be.
    fn keep(&mut self) {
        if matches!(self.disk, Disk::Writing { .. }) {
            self.disk = Disk::Writing { stale: true };
            return;
        }
        self.disk = Disk::Writing { stale: false };
        let order = self.status().order.clone();
        let (folder, heard) = (self.config.data.clone(), self.links.heard.clone());
        tokio::task::spawn_blocking(move || {
            let written = history::keep_order(&folder, order.as_ref());
            // Nobody hears it when this daemon ends.
            let _ = heard.blocking_send(Heard::Kept(written));
        });
    }

    /// The file was written, or cannot be.
    pub(super) fn kept(&mut self, written: std::io::Result<()>) {
        let stale = self.disk == Disk::Writing { stale: true };
        let failed_before = self.status().unkept.is_some();
        self.disk = match written {
            Ok(()) => Disk::Settled,
            Err(error) => {
                let why = error.to_string();
                if !failed_before {
                    tracing::error!(why, "the operator's order is in force, and a restart of this daemon forgets it");
                }
                Disk::Failed { why, again_ms: self.now_ms().saturating_add(AGAIN_MS) }
            }
        };
        if stale {
            return self.keep();
        }
        if self.disk == Disk::Settled && failed_before {
            tracing::info!("the operator's order is written now, and outlives a restart");
        }
        self.follow_up();
        self.show();
    }

    /// Tries the disk again, and answers the order that is carried out when all is known of it, or it was waited for long enough.
    pub(super) fn follow_up(&mut self) {
        let now_ms = self.now_ms();
        if matches!(&self.disk, Disk::Failed { again_ms, .. } if *again_ms <= now_ms) {
            self.keep();
        }
        let unkept = match &self.disk {
            Disk::Settled => None,
            Disk::Failed { why, .. } => Some(why.clone()),
            Disk::Writing { .. } => self.status().unkept.clone(),
        };
        self.status().unkept = unkept;
        let Some(carried) = self.carried.take() else { return };
        let (speaking, announce) = (self.speaking(), self.machine.announced());
        let waited = now_ms.saturating_sub(carried.since_ms) >= ANSWER_MS_MAX;
        let confirmed = speaking.has_done(announce, carried.rounds);
        let writes = matches!(self.disk, Disk::Writing { .. });
        if (writes || !confirmed) && !waited {
            self.carried = Some(carried);
            return;
        }
        if writes && self.status().unkept.is_none() {
            self.status().unkept = Some("the disk does not answer".to_owned());
            tracing::error!("the disk does not answer: a restart of this daemon forgets the operator's order");
        }
        let unkept = self.status().unkept.clone();
        let unconfirmed = (!confirmed).then(|| unconfirmed(&speaking, announce));
        let said = said(&self.config.name, self.machine.state(), &speaking, announce, unconfirmed.as_deref());
        let _ = carried.answer.send(Ok(Done { said, unkept, unconfirmed }));
    }

    fn refuse(&mut self, pending: Pending, why: Refused) {
        if self.machine.is_leaving() {
            self.event(Event::Leaving(false));
        }
        let _ = pending.answer.send(Err(why));
    }
}

impl Order {
    fn reason(&self) -> &str {
        match self {
            Self::Disable { reason, .. } | Self::Enable { reason } => reason,
        }
    }
}

/// What is so now, in one sentence.
fn said(name: &str, state: State, speaking: &Speaking, announce: Announce, unconfirmed: Option<&str>) -> String {
    let what = match (unconfirmed, announce) {
        (Some(why), _) => why.to_owned(),
        (None, _) if speaking.kind == SpeakerKind::None => format!("its addresses are announced by {}", speaking.kind),
        (None, Announce::Nothing) => format!("{} announces nothing of it", speaking.kind),
        (None, Announce::Unchanged) => "what is announced of it stays until it is known how it is".to_owned(),
        (None, Announce::Best | Announce::Drain) if speaking.carried == Some(true) || speaking.sessions.is_none() => {
            format!("{} announces it {announce}", speaking.kind)
        }
        (None, Announce::Best | Announce::Drain) => {
            format!(
                "{} has it {announce}, and no session to a router carries all of its routes: routers do not hear all of it",
                speaking.kind
            )
        }
    };
    format!("{name} is {state} now; {what}")
}

/// What is not known of a speaker that was asked.
fn unconfirmed(speaking: &Speaking, announce: Announce) -> String {
    let (kind, asked) = match announce {
        Announce::Nothing => (speaking.kind, "to withdraw its addresses"),
        _ => (speaking.kind, "to announce its addresses"),
    };
    let meanwhile = match announce {
        Announce::Nothing => "they may still be announced",
        _ => "they may not be announced yet",
    };
    let why = speaking.problem.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    format!("{kind} was asked {asked} and has not confirmed it: {meanwhile}{why}")
}

/// An order is answered after so long, below what [`super::super::routes`] waits: a round with a speaker that hangs, and another one.
const ANSWER_MS_MAX: u64 = 3500;

/// The file that could not be written is tried again after so long.
const AGAIN_MS: u64 = 5000;

/// For people.
const NEEDED: &str = "too few others of its group are known to be Up; with force it is withdrawn all the same";
