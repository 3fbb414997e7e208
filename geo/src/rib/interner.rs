//! Attributes, each different one kept once: a full table of half a million routes has some ten thousand.

use std::collections::HashMap;
use std::sync::Arc;

use crate::route::{Attributes, Community};

/// Names one of the kept attributes. Used again after its last route is gone.
pub(super) type AttributesId = u32;

/// The kept attributes, each with the number of its holders.
#[derive(Debug, Default)]
pub(super) struct Interner {
    ids: HashMap<Arc<Attributes>, AttributesId>,
    slots: Vec<Option<Slot>>,
    free: Vec<AttributesId>,
    bytes: u64,
}

#[derive(Debug)]
struct Slot {
    attributes: Arc<Attributes>,
    holders: u32,
}

impl Interner {
    /// Keeps the attributes for one holder more. None when they are new and would make the kept ones more than `bytes_max`.
    pub(super) fn hold(&mut self, attributes: &Attributes, bytes_max: u64) -> Option<AttributesId> {
        if let Some(&id) = self.ids.get(attributes) {
            self.hold_again(id);
            return Some(id);
        }
        let bytes = self.bytes + bytes_of(attributes);
        if bytes > bytes_max {
            return None;
        }
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = AttributesId::try_from(self.slots.len()).ok()?;
                self.slots.push(None);
                id
            }
        };
        let attributes = Arc::new(attributes.clone());
        self.ids.insert(attributes.clone(), id);
        self.slots[id as usize] = Some(Slot { attributes, holders: 1 });
        self.bytes = bytes;
        Some(id)
    }

    /// One holder more of kept attributes.
    pub(super) fn hold_again(&mut self, id: AttributesId) {
        self.slot(id).holders += 1;
    }

    /// One holder less; without any the attributes go.
    pub(super) fn release(&mut self, id: AttributesId) {
        let slot = self.slot(id);
        slot.holders -= 1;
        if slot.holders == 0 {
            let gone = self.slots[id as usize].take().expect("it was just looked at").attributes;
            self.bytes -= bytes_of(&gone);
            self.ids.remove(&*gone);
            self.free.push(id);
        }
    }

    /// What the id names.
    pub(super) fn get(&self, id: AttributesId) -> &Attributes {
        &self.slots[id as usize].as_ref().expect("a route holds it").attributes
    }

    /// How many different ones are kept.
    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    /// Their bytes, as [`bytes_of`] counts.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn slot(&mut self, id: AttributesId) -> &mut Slot {
        self.slots[id as usize].as_mut().expect("a route holds it")
    }
}

/// RAM of one kept set of attributes, with its share of the tables here.
pub(super) fn bytes_of(attributes: &Attributes) -> u64 {
    let path = size_of_val(&*attributes.as_path);
    let communities = attributes.communities.len() * size_of::<Community>();
    (KEPT_BYTES + path + communities) as u64
}

/// The struct behind its two counters, its slot, and its entry in a map that is two thirds full.
const KEPT_BYTES: usize = size_of::<Attributes>() + 16 + size_of::<Option<Slot>>() + 24 + 2 * ALLOCATION_BYTES;

/// What an allocator rounds up and keeps beside a small block.
const ALLOCATION_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &[u32]) -> Attributes {
        Attributes { as_path: path.into(), ..Attributes::default() }
    }

    #[test]
    fn equal_attributes_are_kept_once_until_the_last_holder_lets_go() {
        let mut interner = Interner::default();
        let one = interner.hold(&path(&[1, 2]), u64::MAX).unwrap();
        assert_eq!(interner.hold(&path(&[1, 2]), 0), Some(one), "kept ones need no room");
        let two = interner.hold(&path(&[3]), u64::MAX).unwrap();
        assert_eq!((interner.count(), interner.bytes()), (2, bytes_of(&path(&[1, 2])) + bytes_of(&path(&[3]))));
        interner.release(one);
        assert_eq!(interner.get(one), &path(&[1, 2]));
        interner.release(one);
        assert_eq!((interner.count(), interner.bytes()), (1, bytes_of(&path(&[3]))));
        assert_eq!(interner.hold(&path(&[4]), u64::MAX), Some(one), "its place is used again");
        assert_eq!(interner.get(two), &path(&[3]));
    }

    #[test]
    fn what_would_be_too_much_is_refused() {
        let mut interner = Interner::default();
        let room = bytes_of(&path(&[1]));
        assert!(interner.hold(&path(&[1]), room).is_some());
        assert_eq!(interner.hold(&path(&[2]), room), None);
        assert_eq!((interner.count(), interner.bytes()), (1, room));
    }
}
