//! The values of 24-bit units, a slot each.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::huge;

/// Units to values. Memory is there for those pages only that something was stored to.
#[derive(Debug)]
pub(super) struct Slots {
    slots: huge::Slots,
    /// Pages that have something: what goes through all of them leaves out the others.
    used: [AtomicBool; PAGES],
}

impl Slots {
    pub(super) fn new() -> Self {
        Self { slots: huge::Slots::zeros(SLOTS), used: Default::default() }
    }

    /// The value of a unit.
    #[inline]
    pub(super) fn get(&self, unit: usize) -> u32 {
        self.slots.get(unit).map_or(0, |slot| slot.load(Acquire))
    }

    /// The value of a unit, and the last one behind it that have the same without a gap.
    pub(super) fn run(&self, first: usize) -> (u32, usize) {
        let value = self.get(first);
        let mut unit = first;
        for (page, used) in self.used.iter().enumerate().skip(first / PAGE) {
            let end = (page + 1) * PAGE;
            if used.load(Acquire) {
                let slots = self.slots.get(unit..end).unwrap_or(&[]);
                let equal = slots.iter().take_while(|slot| slot.load(Acquire) == value).count();
                unit += equal;
            } else if value == 0 {
                unit = end;
            }
            if unit < end {
                break;
            }
        }
        (value, unit.saturating_sub(1).max(first))
    }

    /// Gives each value of these units the one that `map` makes of it; equal neighbours are asked for once.
    pub(super) fn paint(&self, first: usize, last: usize, map: &mut dyn FnMut(u32) -> u32) {
        self.used.iter().take(last / PAGE + 1).skip(first / PAGE).for_each(|used| used.store(true, Release));
        let mut memory = None;
        for slot in self.slots.get(first..=last).unwrap_or(&[]) {
            let value = slot.load(Relaxed);
            let new = match memory {
                Some((before, after)) if before == value => after,
                _ => map(value),
            };
            memory = Some((value, new));
            if new != value {
                slot.store(new, Release);
            }
        }
    }

    /// Before anybody reads.
    pub(super) fn fill(&self, first: usize, last: usize, value: u32) {
        if value != 0 {
            self.used.iter().take(last / PAGE + 1).skip(first / PAGE).for_each(|used| used.store(true, Relaxed));
            let slots = self.slots.get(first..=last).unwrap_or(&[]);
            slots.iter().for_each(|slot| slot.store(value, Relaxed));
        }
    }

    /// Bytes of RAM.
    pub(super) fn bytes(&self) -> usize {
        self.used.iter().filter(|used| used.load(Relaxed)).count() * PAGE * size_of::<u32>()
    }
}

pub(super) const BITS: u32 = 24;
const SLOTS: usize = 1 << BITS;
/// Of a size with eight huge pages.
const PAGES: usize = 8;
const PAGE: usize = SLOTS / PAGES;
