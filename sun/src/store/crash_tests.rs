//! The log on a device that crashes at any point, tears what was not synced, flips bits and refuses, beside a
//! trivial model: a read gives the exact bytes or nothing, and what was synced is found.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use geo::ContentId;
use proptest::prelude::*;

use crate::store::format::{Key, Kind, SEGMENTS_START};
use crate::store::index::Index;
use crate::store::log::{Log, Parts, Record, Shared};
use crate::store::pending::{Item, Pending};
use crate::store::policy::{Admission, Policy, Queue, Settings};
use crate::store::read::{self, Wait};
use crate::store::recover;
use crate::store::simulated::Simulated;

#[derive(Clone, Debug)]
enum Step {
    /// A new version of the head of a content, or a block of it.
    Offer {
        content: u8,
        block: Option<u8>,
        bytes: usize,
    },
    Forget {
        content: u8,
    },
    Read {
        content: u8,
        block: Option<u8>,
        from: u64,
        length: u64,
    },
    WriteOut,
    Sync,
    Close,
    Crash {
        fate: u64,
    },
    Flip {
        bit: usize,
    },
    RefuseWrites {
        count: u32,
    },
    RefuseReads {
        count: u32,
    },
}

/// Versions of one record that a read may give. Forgetting counts as a version that is nowhere.
#[derive(Clone, Copy, Debug, Default)]
struct Allowed {
    /// The latest that is certainly on the device.
    synced: u64,
    /// The latest.
    latest: u64,
    /// When it was forgotten last in this run.
    forgotten: u64,
}

struct Harness {
    device: Arc<Simulated>,
    log: Option<Log>,
    shared: Shared,
    model: HashMap<(u8, Option<u8>), Allowed>,
    lengths: HashMap<(u8, Option<u8>, u64), usize>,
    version: u64,
    /// Nothing was flipped, refused or reclaimed: what was synced must be found.
    faithful: bool,
}

const SEGMENT_BYTES: u32 = 64 << 10;
const SEGMENTS: usize = 12;

impl Harness {
    fn new(faithful: bool) -> Self {
        let device =
            Arc::new(Simulated::new(usize::try_from(SEGMENTS_START).unwrap() + SEGMENTS * SEGMENT_BYTES as usize));
        let shared = shared();
        let mut harness =
            Self { device, log: None, shared, model: HashMap::new(), lengths: HashMap::new(), version: 0, faithful };
        harness.restart();
        harness
    }

    /// What a start does; a device that lies about its superblock is made anew, as an operator would.
    fn restart(&mut self) {
        self.shared = shared();
        let open = || recover::open(0, Arc::clone(&self.device) as _, SEGMENT_BYTES, parts(&self.shared));
        let (log, recovery) = match open() {
            Ok(opened) => opened,
            Err(_) => {
                self.device.overwrite(0, &vec![0; usize::try_from(SEGMENTS_START).unwrap()]);
                open().unwrap()
            }
        };
        while recovery.step(&log) {}
        self.log = Some(log);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Offer { content, block, bytes } => self.offer(content, block, bytes),
            Step::Forget { content } => self.forget(content),
            Step::Read { content, block, from, length } => {
                let _ = self.check(content, block, from..from + length);
            }
            Step::WriteOut => {
                let _ = self.log().write_out();
            }
            Step::Sync => {
                if self.log().sync().is_ok() {
                    self.synced();
                }
            }
            Step::Close => {
                if self.log().close().is_ok() {
                    self.synced();
                }
            }
            Step::Crash { fate } => {
                self.log = None;
                self.device.crash(fate);
                self.restart();
                self.adopt();
            }
            Step::Flip { bit } => self.device.flip(bit),
            Step::RefuseWrites { count } => self.device.refuse_writes(count),
            Step::RefuseReads { count } => self.device.refuse_reads(count),
        }
    }

    fn offer(&mut self, content: u8, block: Option<u8>, bytes: usize) {
        self.offer_to(content, block, bytes, Queue::Probation);
    }

    fn offer_to(&mut self, content: u8, block: Option<u8>, bytes: usize, queue: Queue) {
        self.version += 1;
        // A block of a version never changes: its generation is the version here.
        let version = self.version;
        let body = body(version, bytes);
        let meta = version.to_le_bytes();
        let record = Record { key: key(content, block, 0), meta: &meta, body: &body };
        let sequence = self.shared.sequence.fetch_add(1, Ordering::Relaxed);
        if self.log().append(record, sequence, queue).is_err() {
            // As the writer does: an older one must not be found.
            let _ = self.log().write_out();
            self.shared.index.forget(self.shared.index.hash(&record.key));
        }
        self.lengths.insert((content, block, version), bytes);
        self.model.entry((content, block)).or_default().latest = version;
    }

    fn forget(&mut self, content: u8) {
        self.version += 1;
        let sequence = self.shared.sequence.fetch_add(1, Ordering::Relaxed);
        self.shared.forgotten.forget(id(content), sequence, 1);
        self.shared.index.forget(self.shared.index.hash(&key(content, None, 0)));
        let tombstone = Key { kind: Kind::Tombstone, content: id(content), generation: 0, index: 0 };
        let _ = self.log().append_tombstone(tombstone, sequence);
        for ((of, _), allowed) in &mut self.model {
            if *of == content {
                (allowed.latest, allowed.forgotten) = (self.version, self.version);
            }
        }
    }

    fn synced(&mut self) {
        self.model.values_mut().for_each(|allowed| allowed.synced = allowed.latest);
    }

    /// After a crash: what is there is what was synced, or something later; from now on it is certain.
    fn adopt(&mut self) {
        self.version += 1;
        // A tombstone that was not synced may be lost, as anything else of the last second.
        self.model.values_mut().for_each(|allowed| allowed.forgotten = 0);
        for (content, block) in self.model.keys().copied().collect::<Vec<_>>() {
            let found = self.check(content, block, 0..u64::MAX);
            let allowed = self.model.get_mut(&(content, block)).unwrap();
            let version = found.unwrap_or(self.version);
            *allowed = Allowed { synced: version, latest: version, forgotten: 0 };
        }
    }

    fn check_all(&self) {
        for (content, block) in self.model.keys() {
            let _ = self.check(*content, *block, 0..u64::MAX);
        }
    }

    fn check(&self, content: u8, block: Option<u8>, range: std::ops::Range<u64>) -> Option<u64> {
        let allowed = self.model.get(&(content, block)).copied().unwrap_or_default();
        let Some((version, body)) = self.read(content, block, range.clone()) else {
            let stored = self.lengths.contains_key(&(content, block, allowed.latest));
            let must = self.faithful && allowed.synced == allowed.latest && stored;
            assert!(!must, "{content} {block:?}: {allowed:?} is not found");
            return None;
        };
        let bytes = self.lengths[&(content, block, version)];
        let whole = self::body(version, bytes);
        let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes);
        assert!(body == whole[clamp(range.start)..clamp(range.end)], "not the bytes of version {version}");
        if self.faithful {
            assert!(version >= allowed.synced.max(allowed.forgotten), "version {version} came back after {allowed:?}");
        }
        Some(version)
    }

    /// As the store does: index, record, and whether it was forgotten.
    fn read(&self, content: u8, block: Option<u8>, range: std::ops::Range<u64>) -> Option<(u64, Vec<u8>)> {
        let (key, shared) = (key(content, block, 0), &self.shared);
        let place = shared.index.hit(shared.index.hash(&key))?;
        let loaded = read::read(&*self.device, place, &key, range, Wait::Yes).ok()?;
        let dead = shared.forgotten.sequence(key.content).is_some_and(|at| loaded.header.sequence < at);
        // Ranges come without metadata: the version is in the first bytes of the whole.
        let whole = read::read(&*self.device, place, &key, 0..u64::MAX, Wait::Yes).ok()?;
        let version = u64::from_le_bytes(whole.meta[..].try_into().unwrap());
        (!dead).then(|| (version, loaded.body.to_vec()))
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }
}

fn shared() -> Shared {
    Shared { index: Arc::new(Index::new(7)), forgotten: Arc::default(), sequence: Arc::new(AtomicU64::new(1)) }
}

fn parts(shared: &Shared) -> Parts {
    let policy = Policy::new(Settings { admission: Admission::Always, ..Settings::default() }, 0);
    Parts { shared: shared.clone(), policy: Arc::new(Mutex::new(policy)), counts: Arc::default(), random: rand::random }
}

fn key(content: u8, block: Option<u8>, generation: u64) -> Key {
    let kind = if block.is_some() { Kind::Block } else { Kind::Head };
    Key { kind, content: id(content), generation, index: block.unwrap_or(0).into() }
}

fn id(content: u8) -> ContentId {
    ContentId::from_bytes([content; 16])
}

fn body(version: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at.wrapping_mul(31) ^ version.wrapping_mul(97) ^ (at >> 8)) as u8).collect()
}

fn block() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![Just(None), (0..3_u8).prop_map(Some)]
}

fn offer(contents: u8, bytes_max: usize) -> impl Strategy<Value = Step> {
    (0..contents, block(), 0..bytes_max).prop_map(|(content, block, bytes)| Step::Offer { content, block, bytes })
}

fn calm(contents: u8) -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..contents, block(), 0..40_000_u64, 0..40_000_u64)
            .prop_map(|(content, block, from, length)| Step::Read { content, block, from, length }),
        1 => (0..contents).prop_map(|content| Step::Forget { content }),
        2 => Just(Step::Sync),
        1 => Just(Step::WriteOut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Nothing is reclaimed here (what is offered fits): whatever a crash tears, what was synced is found, and an
    /// older version or a forgotten file does not come back.
    #[test]
    fn what_was_synced_is_found_after_any_crash(
        steps in prop::collection::vec(
            prop_oneof![
                6 => offer(6, 6000),
                6 => calm(6),
                1 => any::<u64>().prop_map(|fate| Step::Crash { fate }),
            ],
            1..60,
        )
    ) {
        let mut harness = Harness::new(true);
        // Each crash may leave two segments half used: no more of them than there are segments.
        let mut crashes = 0;
        for step in &steps {
            crashes += u32::from(matches!(step, Step::Crash { .. }));
            if crashes < 3 {
                harness.step(step);
            }
        }
        harness.step(&Step::Crash { fate: 0 });
    }

    /// The log turns over many times, and the device flips, refuses and crashes: every read is exact or nothing.
    #[test]
    fn no_read_ever_gives_a_wrong_byte(
        steps in prop::collection::vec(
            prop_oneof![
                20 => offer(40, 40_000),
                12 => calm(40),
                1 => Just(Step::Close),
                1 => any::<u64>().prop_map(|fate| Step::Crash { fate }),
                2 => any::<usize>().prop_map(|bit| Step::Flip { bit }),
                1 => (1..4_u32).prop_map(|count| Step::RefuseWrites { count }),
                1 => (1..4_u32).prop_map(|count| Step::RefuseReads { count }),
            ],
            1..250,
        )
    ) {
        let mut harness = Harness::new(false);
        steps.iter().for_each(|step| harness.step(step));
        harness.check_all();
    }
}

/// A log that turns over keeps taking offers for ever, and the latest are found.
#[test]
fn a_log_that_turns_over_keeps_what_was_hit() {
    let mut harness = Harness::new(false);
    harness.offer(200, None, 5000);
    for round in 0..400_u32 {
        harness.offer((round % 100) as u8, Some(1), 9000);
        if round % 10 == 0 {
            harness.step(&Step::Sync);
            assert!(harness.read(200, None, 0..10).is_some(), "it was hit each time: round {round}");
        }
    }
    harness.step(&Step::Sync);
    assert!(harness.read(99, Some(1), 0..10).is_some());
    assert!(harness.read(0, Some(1), 0..10).is_none(), "400 x 9000 bytes do not fit");
    assert!(harness.shared.index.bytes(0) <= SEGMENTS as u64 * u64::from(SEGMENT_BYTES));
    harness.step(&Step::Crash { fate: 1 });
    assert!(harness.read(200, None, 0..10).is_some());
}

/// A block in the main queue is older than its tombstones; the one in probation is given up long before main is.
#[test]
fn what_was_forgotten_stays_so_until_both_queues_gave_it_up() {
    for crash in [false, true] {
        let mut harness = Harness::new(false);
        // The first segment of all is one of probation: nothing is older when its turn comes.
        harness.offer(1, None, 1000);
        harness.offer_to(7, Some(1), 9000, Queue::Main);
        harness.step(&Step::Sync);
        assert!(harness.read(7, Some(1), 0..10).is_some());
        harness.forget(7);
        for round in 0..200_u32 {
            harness.offer_to((20 + round % 100) as u8, Some(1), 9000, Queue::Probation);
            if crash && round == 100 {
                harness.step(&Step::Sync);
                harness.log = None;
                harness.device.crash(0);
                // Nothing is read meanwhile: what was hit would move to main and have it reclaimed.
                harness.restart();
            }
            assert!(harness.read(7, Some(1), 0..10).is_none(), "it came back in round {round}");
        }
        assert!(harness.shared.forgotten.sequence(id(7)).is_some(), "main was never reclaimed");
        // Main turns over: nothing of it is left, and nothing is remembered of it.
        for round in 0..200_u32 {
            harness.offer_to((20 + round % 100) as u8, Some(2), 9000, Queue::Main);
            assert!(harness.read(7, Some(1), 0..10).is_none(), "it came back in round {round} of main");
        }
        assert_eq!(harness.shared.forgotten.sequence(id(7)), None);
        harness.step(&Step::Sync);
        harness.step(&Step::Crash { fate: 0 });
        assert!(harness.read(7, Some(1), 0..10).is_none());
    }
}

/// The writer asks whether a head is wanted, makes room for it for as long as that takes, and meanwhile it is forgotten.
#[test]
fn a_head_that_is_forgotten_while_it_is_written_stays_forgotten() {
    let mut harness = Harness::new(false);
    let (pending, shared) = (Pending::default(), harness.shared.clone());
    let (key, meta) = (key(1, None, 0), 1_u64.to_le_bytes());
    let hash = shared.index.hash(&key);
    let item = Item { key, hash, meta: meta.to_vec().into(), body: vec![1; 9].into(), queue: Queue::Main, sequence: 0 };
    assert!(pending.offer(item, &shared.sequence));
    let item = pending.find(&key, hash).unwrap();
    assert!(pending.wants(&item));
    // As the store forgets; its tombstone waits behind the head.
    let sequence = shared.sequence.fetch_add(1, Ordering::Relaxed);
    shared.forgotten.forget(id(1), sequence, 1);
    shared.index.forget(hash);
    assert!(pending.forget(id(1), sequence));
    let record = Record { key, meta: &item.meta, body: &item.body };
    harness.log().append(record, item.sequence, item.queue).unwrap();
    harness.log().write_out().unwrap();
    assert!(harness.read(1, None, 0..10).is_none(), "the head is older than the forget");
    let tombstone = Key { kind: Kind::Tombstone, content: id(1), generation: 0, index: 0 };
    harness.log().append_tombstone(tombstone, sequence).unwrap();
    harness.step(&Step::Sync);
    harness.step(&Step::Crash { fate: 0 });
    assert!(harness.read(1, None, 0..10).is_none(), "nor after a restart");
    // What is offered after that is new.
    harness.version = 1;
    harness.offer(1, None, 9);
    harness.step(&Step::Sync);
    assert!(harness.read(1, None, 0..10).is_some());
}
