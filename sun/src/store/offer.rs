//! Offering a record: which device is its own, and whether its policy takes it.

use std::sync::Arc;

use bytes::Bytes;
use geo::ContentId;

use super::Store;
use super::format::{BODY_BYTES_MAX, Key, META_BYTES_MAX, record_bytes};
use super::metrics::Offered;
use super::pending::Item;
use super::policy::Verdict;
use super::slot::{Slot, State};

/// What is known of a record that is offered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    /// Nothing.
    New,
    /// It is asked for often.
    Asked,
    /// It replaces one that is here.
    Replaces,
}

impl Store {
    pub(super) fn offer(&self, key: Key, meta: Bytes, body: Bytes, standing: Standing) -> Offered {
        let offered = self.decide(key, meta, body, standing);
        self.0.metrics.offered(offered);
        offered
    }

    fn decide(&self, key: Key, meta: Bytes, body: Bytes, standing: Standing) -> Offered {
        if meta.len() > META_BYTES_MAX || body.len() > BODY_BYTES_MAX {
            return Offered::Nowhere;
        }
        let Some(slot) = self.slot_for(key.content) else { return Offered::Nowhere };
        let hash = self.0.shared.index.hash(&key);
        let bytes = record_bytes(meta.len(), body.len());
        let now_ms = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let verdict = {
            let mut policy = slot.policy.lock().expect("no code that holds this lock panics");
            match standing {
                Standing::New => policy.offered(hash, bytes, now_ms),
                Standing::Asked => policy.offered_again(hash, bytes, now_ms),
                Standing::Replaces => policy.replaced(bytes, now_ms),
            }
        };
        match verdict {
            Verdict::FirstOffer => Offered::FirstOffer,
            Verdict::OverBudget => Offered::OverBudget,
            Verdict::Store(queue) => {
                let item = Item { key, hash, meta, body, queue, sequence: 0 };
                let queued = slot.pending.offer(item, &self.0.shared.sequence);
                if queued { Offered::Stored } else { Offered::QueueFull }
            }
        }
    }

    /// The device for a file: by its id, in proportion to the bytes of the devices that work.
    fn slot_for(&self, content: ContentId) -> Option<&Arc<Slot>> {
        let up = || self.0.slots.iter().filter(|slot| slot.state() != State::Aside);
        let all: u64 = up().map(|slot| slot.bytes).sum();
        // Placement among suns uses the same 64 bits, high ones first; a multiplication brings the low ones up.
        let spread = content.prefix().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut at = u64::try_from((u128::from(spread) * u128::from(all)) >> 64).unwrap_or(0);
        up().find(|slot| match at.checked_sub(slot.bytes) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        })
    }
}
