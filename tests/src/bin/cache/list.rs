//! Queues of keys with sizes: what LRU, FIFO, SLRU and S3-FIFO are made of.
//!
//! A doubly linked list in a vector of nodes, so that a key in the middle leaves in constant time.

use std::collections::HashMap;

/// A queue, newest first, that knows its bytes.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    nodes: Vec<Node>,
    free: Vec<u32>,
    at: HashMap<u32, u32>,
    /// Newest and oldest.
    ends: Option<(u32, u32)>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    key: u32,
    size: u64,
    newer: Option<u32>,
    older: Option<u32>,
}

impl Queue {
    /// Bytes of all entries.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    /// Whether a key is in it.
    pub(crate) fn contains(&self, key: u32) -> bool {
        self.at.contains_key(&key)
    }

    /// Adds a key that is not in it as the newest.
    pub(crate) fn push(&mut self, key: u32, size: u64) {
        let node = Node { key, size, newer: None, older: self.ends.map(|(newest, _)| newest) };
        let index = if let Some(index) = self.free.pop() {
            self.nodes[index as usize] = node;
            index
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).expect("keys are u32")
        };
        self.ends = Some(match self.ends {
            Some((newest, oldest)) => {
                self.nodes[newest as usize].newer = Some(index);
                (index, oldest)
            }
            None => (index, index),
        });
        let before = self.at.insert(key, index);
        debug_assert!(before.is_none(), "key {key} is in the queue already");
        self.bytes += size;
    }

    /// Takes a key out; its size.
    pub(crate) fn remove(&mut self, key: u32) -> Option<u64> {
        let index = self.at.remove(&key)?;
        let node = self.nodes[index as usize];
        if let Some(newer) = node.newer {
            self.nodes[newer as usize].older = node.older;
        }
        if let Some(older) = node.older {
            self.nodes[older as usize].newer = node.newer;
        }
        let (newest, oldest) = self.ends.expect("a node is in it");
        let newest = if newest == index { node.older } else { Some(newest) };
        let oldest = if oldest == index { node.newer } else { Some(oldest) };
        self.ends = newest.zip(oldest);
        self.free.push(index);
        self.bytes -= node.size;
        Some(node.size)
    }

    /// Takes the oldest out: key and size.
    pub(crate) fn pop(&mut self) -> Option<(u32, u64)> {
        let (_, oldest) = self.ends?;
        let key = self.nodes[oldest as usize].key;
        self.remove(key).map(|size| (key, size))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_queue_is_a_vector(steps in proptest::collection::vec((0_u8..3, 0_u32..12), 0..200)) {
            let (mut queue, mut model) = (Queue::default(), Vec::<(u32, u64)>::new());
            for (step, (what, key)) in steps.into_iter().enumerate() {
                match what {
                    0 if !queue.contains(key) => {
                        queue.push(key, step as u64);
                        model.push((key, step as u64));
                    }
                    1 => {
                        let at = model.iter().position(|entry| entry.0 == key);
                        prop_assert_eq!(queue.remove(key), at.map(|at| model.remove(at).1));
                    }
                    2 => prop_assert_eq!(queue.pop(), (!model.is_empty()).then(|| model.remove(0))),
                    _ => {}
                }
                prop_assert_eq!(queue.bytes(), model.iter().map(|entry| entry.1).sum::<u64>());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
            }
        }
    }
}
