//! Storage that readers share with one writer: it only grows, and nothing in it moves or is used twice.
//!
//! ```text
//!   index   0 ............ n | n .......... n+s | n+s ........ n+2s | ...
//!           first: of the    | a segment, made  | made when the writer
//!           build, exact     | when needed      | comes to it
//! ```
//!
//! So a reader needs no lock and no reference count: what an index once meant it means as long as the storage
//! lives. What the writer no longer refers to is garbage until the table is built anew.

use std::sync::OnceLock;

/// Items by index.
#[derive(Debug)]
pub(super) struct Arena<T> {
    first: Box<[T]>,
    more: Box<[OnceLock<Box<[T]>>]>,
    /// Items of a segment, as a power of two.
    segment_bits: u32,
}

impl<T: Default> Arena<T> {
    /// `first`, and room for `segments` of `1 << segment_bits` items each.
    pub(super) fn new(first: Box<[T]>, segment_bits: u32, segments: usize) -> Self {
        Self { first, more: (0..segments).map(|_| OnceLock::new()).collect(), segment_bits }
    }

    /// Nothing where there is no such item.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        match self.first.get(index) {
            Some(item) => Some(item),
            None => self.grown(index).first(),
        }
    }

    /// The item and those behind it in its segment; empty where there is none.
    #[inline]
    pub(super) fn from(&self, index: usize) -> &[T] {
        match self.first.get(index..) {
            Some(items) if !items.is_empty() => items,
            _ => self.grown(index),
        }
    }

    fn grown(&self, index: usize) -> &[T] {
        let Some(behind) = index.checked_sub(self.first.len()) else { return &[] };
        let segment = self.more.get(behind >> self.segment_bits).and_then(OnceLock::get);
        segment.and_then(|items| items.get(behind & (self.segment_items() - 1)..)).unwrap_or(&[])
    }

    /// For the writer: where `count` items in a row fit at or behind `next`; their segment is made. None when the storage is
    /// full or a segment is too small for them.
    pub(super) fn reserve(&self, next: usize, count: usize) -> Option<usize> {
        let behind = next.checked_sub(self.first.len())?;
        let items = self.segment_items();
        let left = items - behind % items;
        let behind = if count <= left { behind } else { behind + left };
        let segment = self.more.get(behind >> self.segment_bits).filter(|_| count <= items)?;
        segment.get_or_init(|| (0..items).map(|_| T::default()).collect());
        Some(self.first.len() + behind)
    }

    /// Whether `count` more items fit at `next`, wherever segments begin.
    pub(super) fn has_room(&self, next: usize, count: usize) -> bool {
        let items = self.segment_items();
        next + count + items <= self.first.len() + items * self.more.len()
    }

    /// Items of the build.
    pub(super) fn first_len(&self) -> usize {
        self.first.len()
    }

    /// Bytes of RAM.
    pub(super) fn bytes(&self) -> usize {
        let segments = self.more.iter().filter(|segment| segment.get().is_some()).count();
        size_of_val(&*self.first) + segments * self.segment_items() * size_of::<T>() + size_of_val(&*self.more)
    }

    fn segment_items(&self) -> usize {
        1 << self.segment_bits
    }
}
