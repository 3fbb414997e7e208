//! The operator's orders: one after the other, each decided when the others of the group were asked, and carried out when it is
//! on the disk, for which a thread waits.

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
}

/// An order that is under way.
#[derive(Debug)]
pub(super) struct Pending {
    order: Order,
    answer: oneshot::Sender<Result<String, Refused>>,
    /// It may be carried out, and is being written to the disk.
    keeping: bool,
}

impl Driver {
    /// An order is decided when the others were asked, and carried out when it is on the disk: one after the other.
    pub(super) fn ordered(&mut self, order: Order, answer: oneshot::Sender<Result<String, Refused>>) {
        if self.pending.is_some() {
            // Who does not wait for the answer any more sees in the status what became of it.
            let _ = answer.send(Err(Refused::Busy));
            return;
        }
        let asks = matches!(order, Order::Disable { force: false, .. });
        self.pending = Some(Pending { order, answer, keeping: false });
        if asks {
            self.event(Event::Leaving(true));
        } else {
            self.keep();
        }
    }

    /// What becomes of an order for which others were asked.
    pub(super) fn decide(&mut self) {
        if self.pending.as_ref().is_none_or(|pending| pending.keeping) {
            return;
        }
        match self.machine.may_leave(self.now_ms()) {
            None => {}
            Some(true) => self.keep(),
            Some(false) => {
                let why = "too few others of its group are known to be Up; with force it is withdrawn all the same";
                self.refuse(Refused::Needed(why.to_owned()));
            }
        }
    }

    /// Has the order written by somebody who may wait.
    fn keep(&mut self) {
        let Some(pending) = &mut self.pending else { return };
        pending.keeping = true;
        let order = match &pending.order {
            Order::Disable { reason, .. } => Some(Disabled { since_ms: unix_ms(), reason: reason.clone() }),
            Order::Enable { .. } => None,
        };
        let (folder, heard) = (self.config.data.clone(), self.links.heard.clone());
        tokio::task::spawn_blocking(move || {
            let written = history::keep_order(&folder, order.as_ref());
            // Nobody hears it when this daemon ends.
            let _ = heard.blocking_send(Heard::Kept(written));
        });
    }

    pub(super) fn kept(&mut self, written: std::io::Result<()>) {
        if let Err(error) = written {
            return self.refuse(Refused::Disk(format!("the order cannot be kept: {error}")));
        }
        let Some(Pending { order, answer, .. }) = self.pending.take() else { return };
        match order {
            Order::Disable { reason, .. } => {
                self.status().order = Some(Disabled { since_ms: unix_ms(), reason: reason.clone() });
                self.event(Event::Disable(reason));
            }
            Order::Enable { reason } => {
                self.status().order = None;
                self.event(Event::Enable(reason));
            }
        }
        let _ = answer.send(Ok(format!("{} is {:?} now", self.config.name, self.machine.state())));
    }

    fn refuse(&mut self, why: Refused) {
        let Some(pending) = self.pending.take() else { return };
        if self.machine.is_leaving() {
            self.event(Event::Leaving(false));
        }
        let _ = pending.answer.send(Err(why));
    }
}
