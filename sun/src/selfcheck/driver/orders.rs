//! The operator's orders, each carried out when it is on the disk, for which a thread waits.
//!
//! One that is not forced is decided when the others of the group were asked, and once more when it is on the disk, which may take
//! long: whom the others could spare then they may need now. An order that is forced, and one that lets the sun back in,
//! takes the place of one that waits, for the others or for the disk.
//!
//! The file says what is in force: what was written for an order that is not carried out is taken back.

#[cfg(test)]
mod tests;

use daemon::clock::unix_ms;
use tokio::sync::oneshot;

use super::{Driver, Heard};
use crate::selfcheck::history::{self, Disabled};
use crate::selfcheck::machine::Event;

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
    /// Another one is under way.
    Busy,
    /// Another one took its place.
    Superseded,
}

/// An order that is under way.
#[derive(Debug)]
pub(super) struct Pending {
    order: Order,
    answer: oneshot::Sender<Result<String, Refused>>,
    /// It may be carried out, and is being written to the disk.
    keeping: bool,
}

impl Pending {
    /// The others are asked first.
    const fn asks(&self) -> bool {
        matches!(self.order, Order::Disable { force: false, .. })
    }
}

/// What is in the file of the order. One at a time writes it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Disk {
    /// What is in force.
    #[default]
    Settled,
    /// Perhaps an order that is not in force.
    Stale,
    /// It is being written: the order that is under way, or one whose place was taken.
    Writing,
    /// It is being written: what is in force.
    Restoring,
}

impl Driver {
    /// Takes an order in.
    pub(super) fn ordered(&mut self, order: Order, answer: oneshot::Sender<Result<String, Refused>>) {
        let pending = Pending { order, answer, keeping: false };
        let asks = pending.asks();
        if asks && self.pending.is_some() {
            // Who does not wait for the answer any more sees in the status what became of it.
            let _ = pending.answer.send(Err(Refused::Busy));
            return;
        }
        if let Some(before) = self.pending.take() {
            self.refuse(before, Refused::Superseded);
        }
        self.pending = Some(pending);
        if asks {
            self.event(Event::Leaving(true));
        } else {
            self.keep();
        }
    }

    /// What becomes of an order for which others were asked.
    pub(super) fn decide(&mut self) {
        let Some(pending) = self.pending.take_if(|pending| pending.asks() && !pending.keeping) else { return };
        let may_leave = self.machine.may_leave(self.now_ms());
        if may_leave == Some(false) {
            return self.refuse(pending, Refused::Needed(NEEDED.to_owned()));
        }
        self.pending = Some(pending);
        if may_leave == Some(true) {
            self.keep();
        }
    }

    /// Has the order written, when nothing else is being written.
    fn keep(&mut self) {
        if matches!(self.disk, Disk::Writing | Disk::Restoring) {
            return;
        }
        let Some(pending) = &mut self.pending else { return };
        pending.keeping = true;
        let order = match &pending.order {
            Order::Disable { reason, .. } => Some(Disabled { since_ms: unix_ms(), reason: reason.clone() }),
            Order::Enable { .. } => None,
        };
        self.disk = Disk::Writing;
        self.write(order);
    }

    /// Has the file written by somebody who may wait.
    fn write(&self, order: Option<Disabled>) {
        let (folder, heard) = (self.config.data.clone(), self.links.heard.clone());
        tokio::task::spawn_blocking(move || {
            let written = history::keep_order(&folder, order.as_ref());
            // Nobody hears it when this daemon ends.
            let _ = heard.blocking_send(Heard::Kept(written));
        });
    }

    /// The file was written, or cannot be.
    pub(super) fn kept(&mut self, written: std::io::Result<()>) {
        let restored = self.disk == Disk::Restoring;
        self.disk = Disk::Stale;
        if let Some(pending) = self.pending.take_if(|pending| pending.keeping) {
            self.kept_order(pending, written);
        } else if restored {
            self.disk = Disk::Settled;
            if let Err(error) = written {
                tracing::error!(%error, "the operator's order on the disk may not be the one in force");
            }
        }
        match &self.pending {
            Some(pending) if pending.asks() => self.decide(),
            Some(_) => self.keep(),
            None if self.disk == Disk::Stale => {
                self.disk = Disk::Restoring;
                let in_force = self.status().order.clone();
                self.write(in_force);
            }
            None => {}
        }
    }

    /// Carries out an order that is on the disk, if it still may be.
    fn kept_order(&mut self, pending: Pending, written: std::io::Result<()>) {
        if let Err(error) = written {
            return self.refuse(pending, Refused::Disk(format!("the order cannot be kept: {error}")));
        }
        self.look_around();
        if pending.asks() && self.machine.may_leave(self.now_ms()) != Some(true) {
            return self.refuse(pending, Refused::Needed(NEEDED.to_owned()));
        }
        self.disk = Disk::Settled;
        match pending.order {
            Order::Disable { reason, .. } => {
                self.status().order = Some(Disabled { since_ms: unix_ms(), reason: reason.clone() });
                self.event(Event::Disable(reason));
            }
            Order::Enable { reason } => {
                self.status().order = None;
                self.event(Event::Enable(reason));
            }
        }
        let _ = pending.answer.send(Ok(format!("{} is {:?} now", self.config.name, self.machine.state())));
    }

    fn refuse(&mut self, pending: Pending, why: Refused) {
        if self.machine.is_leaving() {
            self.event(Event::Leaving(false));
        }
        let _ = pending.answer.send(Err(why));
    }
}

/// For people.
const NEEDED: &str = "too few others of its group are known to be Up; with force it is withdrawn all the same";
