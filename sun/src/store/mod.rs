//! The NVMe tier of a sun: files and blocks of files in a log of large segments, on one or several devices.
//!
//! ```text
//!   offer_head, offer_block --> policy: admit? --> pending (bounded) --> slot: one thread a device
//!        never waits            second offer,       read from here         log: append, seal, reclaim
//!                               write budget        until written            |            ^ keep or drop: policy
//!                                                                            v            |
//!   head, block  ---> index ---> read: preadv2(RWF_NOWAIT) in place ---> device <-- recover: tables, newest first
//!                     RAM              else on the blocking pool
//! ```
//!
//! In reading order: [`policy`] (what is kept), [`format`] (bytes), [`index`], [`log`], [`recover`], [`read`],
//! [`device`]; around them `opening`, `lookup`, `offer`, [`pending`], [`slot`], [`forgotten`], [`metrics`], [`canary`].
//!
//! # What is on a device
//!
//! All numbers are little endian; every structure carries a crc32c of its own; offsets are decimal bytes.
//!
//! ```text
//!   0              4096         1 MiB                1 MiB + S            1 MiB + 2 S
//!   | superblock | zeros ...  | segment 0            | segment 1          | ...              S = segment_bytes
//!
//!   superblock, 4096       twice: at 0 and at 2048
//!     0 "SUNSTORE"   8 version u32 = 1   12 segment_bytes u32   16 device u64, random   24 crc32c of 0..24
//!
//!   segment
//!     | page 4096 | record | record | ... |  free  | entry | entry | ... | footer 4096 |
//!
//!   page that begins a segment           twice: at 0 and at 2048
//!     0 "SUNSEGMT"   8 device u64   16 incarnation u64, random   24 sequence u64   32 queue u64 (0 probation, 1 main)
//!    40 crc32c of 0..40
//!
//!   footer, once the segment is sealed   twice: at 0 and at 2048
//!     0 "SUNSEALD"   8..40 as above   40 table_offset u32   44 entries u32   48 last_sequence u64
//!    56 crc32c of the table   60 crc32c of 0..60
//!
//!   record, at multiples of 64, padded with zeros
//!     0 "SREC"   4 kind u8 (1 head, 2 block, 3 tombstone), 3 zeros   8 content 16   24 generation u64
//!    32 sequence u64   40 incarnation u64   48 index u32   52 meta_bytes u32   56 body_bytes u32
//!    60 crc32c of the metadata   64 crc32c of 0..64 and 68..68 + 4 n
//!    68 n checksums u32, crc32c of each 16 KiB of the body   68 + 4 n metadata, then the body
//!
//!   entry, 48
//!     0 content 16   16 generation u64   24 sequence u64   32 index u32   36 offset in the segment u32
//!    40 bytes of the record u32   44 kind u8, 3 zeros
//! ```
//!
//! # Why no wrong byte is ever read
//!
//! - A read checks the header's crc, then that it is the record that the index named (its sequence is given once
//!   in the life of a store) and the one that was asked for (kind, content, generation, index), then the checksum
//!   of every 16 KiB that it hands out. A flipped bit, a torn write, a lost write or a segment used for something
//!   else fails one of the three.
//! - Where there is no table, records are looked for in the segment's bytes. Bytes of a body that look like a
//!   record do not carry the segment's incarnation, 64 random bits that never leave the machine.
//! - The record that was offered last wins, by its sequence, wherever it lies; a record that is moved keeps its
//!   sequence. A tombstone stays in each queue as long as that queue holds anything older of its content.
//!
//! # What a crash costs
//!
//! A record is written within 100 ms and synced within half a second of its offer; what came after the last sync
//! may be lost in any part. A start reads two pages a segment and walks over the two that were open; from then on
//! offers are taken and lookups find what the tables read so far tell, newest first. Nothing is written before all
//! are read: a stop before that loses what was offered and forgotten meanwhile, as a crash does.
//!
//! # How a new process takes over
//!
//! A file or device is locked by the process that writes it. A new one that takes over from this one ([`daemon::upgrade`])
//! finds it locked, serves without it, and tries again five times a second; this one seals its log as soon as the new one
//! serves, unlocks it, and goes on reading for the requests that it has still to answer. So there are never two that write,
//! and what a reader's index says of segments that the other one has reclaimed fails one of the three checks above. A block
//! device cannot be opened by two: there the new one waits for the old one's end.
//!
//! # What an error costs
//!
//! A failed read: that record (it is forgotten). A failed write: the records in the buffer; the segment is
//! abandoned and another begun. 16 errors in a minute: the device steps aside, which a WARN and
//! `edge_store_up` say, and is opened anew every 30 s. A file or device that holds something else, or a store of
//! another version, is refused and left as it is.
//!
//! # Why blocks of 1 MiB, read with `preadv2(RWF_NOWAIT)`
//!
//! `cargo bench -p sun --bench device`, two busy cores of a virtual machine, one read at a time; CPU us (median us):
//!
//! ```text
//!                          64 KiB        256 KiB         1 MiB           4 MiB
//!   warm  NOWAIT           4 (3)         48 (45)         166 (152)       602 (588)
//!         pool             56 (37)       62 (60)         238 (202)       722 (635)
//!         io_uring         12 (12)       44 (43)         197 (190)       642 (634)
//!         O_DIRECT, pool   101 (184)     120 (413)       277 (1445)      742 (4637)
//!   cold  NOWAIT + pool    119 (186)     307 (543)       686 (1690)      2177 (4402)
//!         io_uring         67 (177)      149 (389)       472 (1536)      1960 (5763)
//!         O_DIRECT, pool   100 (183)     138 (458)       283 (1467)      876 (4935)
//!   checksums on top       4             13              46              195
//! ```
//!
//! A byte costs the same in blocks from 256 KiB on, and a quarter of that in 64 KiB (they stay in the CPU's cache): so
//! blocks are as large as the extents that RAM keeps and fills bring, and a range reads its 16 KiB chunks only. In the
//! page cache nothing is cheaper than reading in place. What is not there costs twice the CPU of a direct read (the
//! kernel makes a page cache page of each 4 KiB) and the same time; it is worth it where the page cache is the tier
//! between RAM and the device, as here. io_uring saves a quarter of that and is not taken: a ring a worker, and reads
//! that outlive their request, for that.
//!
//! # How long a start takes
//!
//! `tests/bench/restart`: 10 million records (13.8 GB), kill -9 while it is written, page cache dropped, on the same
//! machine with others at work: offers taken after 0.05 to 0.5 s, first hit after 0.1 to 0.7 s, whole index after 3.4 to
//! 4.7 s; 42 bytes of RAM a record; of what was offered in the last 66 ms, 209 records were lost at most. Those are starts
//! after the first, which also walks over the open segments; the first took longer when it was last measured.
//!
//! # RAM
//!
//! 29 to 57 bytes a record in the index ([`index`]), 64 MiB a device for records on their way, a table's worth
//! (48 bytes a record) for each of two open segments, 256 KiB to 64 MiB for the ghost of each device; 47 to 94 bytes for each file
//! that was forgotten and is still somewhere in the log.

pub mod canary;
pub mod device;
pub mod forgotten;
pub mod format;
pub mod index;
pub mod log;
mod lookup;
pub mod meta_codec;
pub mod metrics;
mod offer;
mod opening;
pub mod pending;
pub mod policy;
pub mod read;
pub mod recover;
pub mod slot;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use daemon::metrics::level;
use geo::ContentId;

use crate::store::format::{Key, Kind};
use crate::store::index::Place;
use crate::store::log::Shared;
pub use crate::store::lookup::Lookup;
use crate::store::metrics::Metrics;
pub use crate::store::metrics::Offered;
use crate::store::offer::Standing;
pub use crate::store::opening::{BYTES_MIN, DeviceConfig, StoreConfig};
use crate::store::slot::{Slot, State};

/// See the module's doc. Cheap to clone; without devices everything is absent.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Shared,
    slots: Vec<Arc<Slot>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    metrics: Metrics,
    started: Instant,
}

/// What is known of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredHead {
    /// The version of the file.
    pub generation: u64,
    /// The caller's metadata, as they were offered.
    pub meta: Bytes,
    /// The body of a small file.
    pub body: Bytes,
}

impl Store {
    /// Whether any device is configured.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        !self.0.slots.is_empty()
    }

    /// What is known of a file, and all of it if it is small. Counted as a hit of it. The caller checks the
    /// metadata (freshness, purges) before anything is served; blocks are asked for only with a head in hand.
    #[must_use]
    pub fn head(&self, content: ContentId) -> Lookup<StoredHead> {
        let key = Key { kind: Kind::Head, content, generation: 0, index: 0 };
        self.look(key, 0..u64::MAX, |loaded| StoredHead {
            generation: loaded.header.key.generation,
            meta: loaded.meta,
            body: loaded.body,
        })
    }

    /// A range of a block, cut at its end. Counted as a hit of it.
    #[must_use]
    pub fn block(&self, content: ContentId, generation: u64, index: u32, range: Range<u64>) -> Lookup<Bytes> {
        self.look(Key { kind: Kind::Block, content, generation, index }, range, |loaded| loaded.body)
    }

    /// Whether the store knows of a head; it may still turn out to be gone.
    #[must_use]
    pub fn has_head(&self, content: ContentId) -> bool {
        self.knows(&Key { kind: Kind::Head, content, generation: 0, index: 0 })
    }

    /// Whether the store knows of a block; it may still turn out to be gone.
    #[must_use]
    pub fn has_block(&self, content: ContentId, generation: u64, index: u32) -> bool {
        self.knows(&Key { kind: Kind::Block, content, generation, index })
    }

    /// Hits of a block since it was written, saturating at 7.
    #[must_use]
    pub fn hits(&self, content: ContentId, generation: u64, index: u32) -> u8 {
        let key = Key { kind: Kind::Block, content, generation, index };
        self.0.shared.index.find(self.0.shared.index.hash(&key)).map_or(0, Place::hits)
    }

    /// Counts a hit of a file that another tier answered, so that it is kept here. False: it is not here, and may be
    /// offered ([`Store::offer_head_again`]).
    #[must_use]
    pub fn touch_head(&self, content: ContentId) -> bool {
        self.touch(&Key { kind: Kind::Head, content, generation: 0, index: 0 })
    }

    /// The same of a block.
    #[must_use]
    pub fn touch_block(&self, content: ContentId, generation: u64, index: u32) -> bool {
        self.touch(&Key { kind: Kind::Block, content, generation, index })
    }

    /// Offers a file that another tier answers with again and again: as [`Store::offer_head`], and it counts as offered
    /// before.
    pub fn offer_head_again(&self, content: ContentId, generation: u64, meta: Bytes, body: Bytes) -> Offered {
        self.offer(Key { kind: Kind::Head, content, generation, index: 0 }, meta, body, Standing::Asked)
    }

    /// The same of a block.
    pub fn offer_block_again(&self, content: ContentId, generation: u64, index: u32, body: Bytes) -> Offered {
        self.offer(Key { kind: Kind::Block, content, generation, index }, Bytes::new(), body, Standing::Asked)
    }

    /// Offers what is known of a file, with its body if it is small; at most 256 KiB and 4 MiB. Replaces what
    /// was known; if it cannot be written, what was known is forgotten, so that an older version never comes back.
    pub fn offer_head(&self, content: ContentId, generation: u64, meta: Bytes, body: Bytes) -> Offered {
        let key = Key { kind: Kind::Head, content, generation, index: 0 };
        let known = self.knows(&key);
        let offered = self.offer(key, meta, body, if known { Standing::Replaces } else { Standing::New });
        if known && offered != Offered::Stored {
            self.forget(content);
        }
        offered
    }

    /// Offers a block of a large file, at most 4 MiB.
    pub fn offer_block(&self, content: ContentId, generation: u64, index: u32, body: Bytes) -> Offered {
        let key = Key { kind: Kind::Block, content, generation, index };
        if self.knows(&key) {
            self.0.metrics.offered(Offered::Held);
            return Offered::Held;
        }
        self.offer(key, Bytes::new(), body, Standing::New)
    }

    /// Forgets a file, all versions and blocks of it, now and after a restart; what is offered afterwards counts
    /// as new. O(1) and two records of 128 bytes; durable within a second. A device that is aside hears of it
    /// only if it comes back during this run: the caller's purge log decides about what it brings.
    pub fn forget(&self, content: ContentId) {
        let shared = &self.0.shared;
        let sequence = shared.sequence.fetch_add(1, Ordering::Relaxed);
        let devices = u64::MAX >> (64 - self.0.slots.len().max(1));
        shared.forgotten.forget(content, sequence, devices);
        let key = Key { kind: Kind::Head, content, generation: 0, index: 0 };
        shared.index.forget(shared.index.hash(&key));
        for slot in &self.0.slots {
            if !slot.pending.forget(content, sequence) {
                tracing::warn!(store = %slot.name, "too many are forgotten at once: one would come back with a restart");
            }
        }
    }

    /// Bytes of what is found and bytes that may be held.
    #[must_use]
    pub fn fullness(&self) -> (u64, u64) {
        let held = (0..self.0.slots.len()).map(|at| self.0.shared.index.bytes(at)).sum();
        (held, self.0.slots.iter().map(|slot| slot.bytes).sum())
    }

    /// Whether every device that works has read its whole index.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.0.slots.iter().all(|slot| slot.state() != State::Recovering)
    }

    /// Whether what is not found is not there: every device has been read, and none stands aside.
    #[must_use]
    pub fn knows_all(&self) -> bool {
        self.0.slots.iter().all(|slot| slot.state() == State::Ready)
    }

    /// Heads and blocks that are found.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.0.shared.index.entries()
    }

    /// RAM of the index, bytes.
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        self.0.shared.index.ram_bytes()
    }

    /// Sets the gauges of `edge_store_*`; called before they are looked at.
    pub fn publish(&self) {
        let (metrics, index) = (&self.0.metrics, &self.0.shared.index);
        metrics.entries.set(level(index.entries()));
        metrics.index_bytes.set(level(index.ram_bytes()));
        for (at, slot) in self.0.slots.iter().enumerate() {
            let name = [slot.name.as_str()];
            let count = |value: &AtomicU64| level(value.load(Ordering::Relaxed));
            metrics.bytes.with_label_values(&name).set(level(index.bytes(at)));
            metrics.capacity.with_label_values(&name).set(level(slot.bytes));
            metrics.written.with_label_values(&name).set(count(&slot.counts.written_bytes));
            metrics.kept.with_label_values(&name).set(count(&slot.counts.kept_bytes));
            metrics.errors.with_label_values(&name).set(count(&slot.counts.errors));
            metrics.up.with_label_values(&name).set(i64::from(slot.state() != State::Aside));
            metrics.recovering.with_label_values(&name).set(count(&slot.recovery_left));
        }
    }

    /// Writes what waits, seals the logs and lets another process write the devices. Blocks; afterwards what this one knew
    /// of is read still, unless the other has overwritten it, which every read finds out.
    pub fn hand_over(&self) {
        self.0.slots.iter().for_each(|slot| slot.hand_over());
        self.close();
    }

    /// Writes what waits, seals the logs and gives the devices back. Blocks; afterwards everything is absent.
    pub fn close(&self) {
        self.0.slots.iter().for_each(|slot| slot.pending.stop());
        let threads = std::mem::take(&mut *self.0.threads.lock().expect("no code that holds this lock panics"));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.slots.iter().for_each(|slot| slot.pending.stop());
    }
}
