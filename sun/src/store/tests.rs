//! The store as its callers see it, on files and on simulated devices.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use geo::ContentId;
use prometheus::Registry;

use crate::store::device::Device;
use crate::store::format::{CHUNK_BYTES, Entry, Header, Key, Kind, Opening, Sealed, SegmentPage, Superblock};
use crate::store::index::Index;
use crate::store::log::{self, Parts, Shared};
use crate::store::pending::Item;
use crate::store::policy::{Admission, Policy, Queue, Settings};
use crate::store::recover::{self, OpenError};
use crate::store::simulated::Simulated;
use crate::store::slot::{Opener, Slot, State};
use crate::store::{Offered, Store, StoreConfig, StoredHead};

#[tokio::test]
async fn a_record_is_found_at_once_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (small, large) = (id(1), id(2));
    let blocks: Vec<Bytes> = (0..3).map(|at| pattern(at, 300_000)).collect();
    let check = async |store: Store| {
        let head = StoredHead { generation: 7, meta: Bytes::from_static(b"meta"), body: pattern(9, 5000) };
        assert_eq!(store.head(small).wait().await, Some(head));
        for (index, block) in (0..).zip(&blocks) {
            assert_eq!(store.block(large, 8, index, 0..u64::MAX).wait().await.as_ref(), Some(block));
            let part = store.block(large, 8, index, 16_380..70_001).wait().await.unwrap();
            assert_eq!(part, block[16_380..70_001]);
            assert_eq!(store.block(large, 9, index, 0..10).wait().await, None, "another version");
        }
        assert_eq!(store.block(large, 8, 3, 0..10).wait().await, None);
    };
    let store = open(directory.path(), Admission::Always);
    assert_eq!(store.offer_head(small, 7, Bytes::from_static(b"meta"), pattern(9, 5000)), Offered::Stored);
    for (index, block) in (0..).zip(&blocks) {
        assert_eq!(store.offer_block(large, 8, index, block.clone()), Offered::Stored);
        assert_eq!(store.offer_block(large, 8, index, block.clone()), Offered::Held);
    }
    check(store.clone()).await;
    store.close();
    check(ready(open(directory.path(), Admission::Always)).await).await;
}

#[tokio::test]
async fn a_file_is_written_when_it_is_offered_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), Admission::SecondOffer);
    let offer = |generation| store.offer_head(id(1), generation, Bytes::new(), pattern(1, 100));
    assert_eq!(offer(1), Offered::FirstOffer);
    assert!(store.head(id(1)).wait().await.is_none());
    assert_eq!(offer(1), Offered::Stored);
    assert_eq!(offer(2), Offered::Stored, "a newer version of what is stored replaces it");
    assert_eq!(store.head(id(1)).wait().await.map(|head| head.generation), Some(2));
}

#[tokio::test]
async fn what_was_forgotten_stays_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let gone = async |store: &Store| {
        assert_eq!(store.head(id(1)).wait().await, None);
        assert_eq!(store.block(id(1), 5, 0, 0..10).wait().await, None);
    };
    let store = open(directory.path(), Admission::Always);
    store.offer_head(id(1), 5, Bytes::new(), Bytes::new());
    store.offer_block(id(1), 5, 0, pattern(1, 100_000));
    store.forget(id(1));
    gone(&store).await;
    store.close();
    let store = ready(open(directory.path(), Admission::Always)).await;
    gone(&store).await;
    // The same version may come back, and is found again.
    store.offer_head(id(1), 5, Bytes::new(), Bytes::new());
    store.offer_block(id(1), 5, 0, pattern(2, 100_000));
    store.close();
    let store = ready(open(directory.path(), Admission::Always)).await;
    assert_eq!(store.block(id(1), 5, 0, 0..50).wait().await, Some(pattern(2, 50)));
    store.forget(id(1));
    store.close();
    gone(&ready(open(directory.path(), Admission::Always)).await).await;
}

#[tokio::test]
async fn a_file_that_is_cut_or_flipped_under_the_store_gives_nothing_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), Admission::Always);
    for at in 0..20 {
        store.offer_head(id(at), 1, Bytes::from_static(b"m"), pattern(at.into(), 50_000));
    }
    store.close();
    let store = ready(open(directory.path(), Admission::Always)).await;
    let path = directory.path().join(crate::store::device::FILE_NAME);
    // The store's 1 MiB of front matter, the segment's page, and then the records.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rotten", (1 << 20) + 4096 + 3 * 50_240 + 30_000).unwrap();
    let mut missing = 0;
    for at in 0..20 {
        match store.head(id(at)).wait().await {
            Some(head) => assert_eq!(head.body, pattern(at.into(), 50_000)),
            None => missing += 1,
        }
    }
    assert_eq!(missing, 1);
    file.set_len((1 << 20) + 300_000).unwrap();
    for at in 0..20 {
        if let Some(head) = store.head(id(at)).wait().await {
            assert_eq!(head.body, pattern(at.into(), 50_000));
            missing += 1;
        }
    }
    assert!((4..8).contains(&missing), "what is left of the file is still served: {missing}");
    assert_eq!(store.offer_head(id(50), 1, Bytes::new(), pattern(50, 10)), Offered::Stored, "and it goes on");
}

#[tokio::test]
async fn a_device_that_cannot_be_opened_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), Admission::Always);
    let second = open(directory.path(), Admission::Always);
    assert_eq!(second.0.slots[0].state(), State::Aside, "two processes on one device");
    assert_eq!(second.offer_head(id(1), 1, Bytes::new(), Bytes::new()), Offered::Nowhere);
    assert!(matches!(second.head(id(1)), crate::store::Lookup::Absent));
    assert_eq!(store.offer_head(id(1), 1, Bytes::new(), Bytes::new()), Offered::Stored);

    let foreign = tempfile::tempdir().unwrap();
    let path = foreign.path().join("notes.txt");
    std::fs::write(&path, vec![b'x'; 100]).unwrap();
    let store = open(&path, Admission::Always);
    assert_eq!(store.0.slots[0].state(), State::Aside);
    assert_eq!(std::fs::read(&path).unwrap(), [b'x'; 100], "it is as it was");
}

/// What begins behind a first page of zeros: (where, its magic).
#[test]
fn a_device_with_anything_in_its_first_mib_is_not_blank() {
    let others: [(usize, &[u8]); 5] = [
        (0x1_0040, b"_BHRfS_M"),                     // btrfs
        (128 << 10, &0x00ba_b10c_u64.to_le_bytes()), // an uberblock of ZFS
        (4096, &0xa92b_4efc_u32.to_le_bytes()),      // mdraid 1.2
        (256 << 10, b"\0\0\0\0ZFS"),
        ((1 << 20) - 1, b"x"),
    ];
    for (at, magic) in others {
        let mut bytes = vec![0; 4 << 20];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        assert_eq!(Opening::decode(&bytes[..1 << 20]), Opening::Foreign, "{at}");

        let device = Arc::new(Simulated::new(bytes.len()));
        device.overwrite(0, &bytes);
        let opened = recover::open(0, Arc::clone(&device) as _, 64 << 10, parts());
        assert!(matches!(opened, Err(OpenError::Foreign)), "{at}");
        let mut now = vec![0; bytes.len()];
        device.read(0, &mut now).unwrap();
        assert!(now == bytes, "{at}: it is as it was");

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(open(&path, Admission::Always).0.slots[0].state(), State::Aside, "{at}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{at}: it is as it was");
    }
    assert_eq!(Opening::decode(&[0; 1 << 20]), Opening::Blank);
}

/// Numbers that no sun writes, with the right checksums: none of them panics, overflows or is believed.
#[test]
fn a_hostile_store_is_refused_or_scanned() {
    for segment_bytes in [0, 1, 64, 4096, (64 << 10) - 1, (64 << 10) + 1, 1 << 31, u32::MAX] {
        let page = Superblock { device: 5, segment_bytes }.encode();
        assert_eq!(Opening::decode(&page), Opening::Foreign, "segments of {segment_bytes}");
    }
    let segment = 64 << 10;
    let sealed = Sealed { table_offset: segment - 4096 - 48, entries: 1, table_crc: 0, last_sequence: 9 };
    assert!(sealed.fits(segment.into()));
    let hostile = [
        Sealed { entries: u32::MAX, ..sealed },
        Sealed { entries: 0, ..sealed },
        Sealed { table_offset: 0, entries: (segment - 4096) / 48, ..sealed },
        Sealed { table_offset: u32::MAX, entries: u32::MAX, ..sealed },
        Sealed { last_sequence: u64::MAX, ..sealed },
        Sealed { last_sequence: (1 << 48) - 1, ..sealed },
    ];
    for (sealed, sequence) in hostile.map(|sealed| (sealed, 3)).into_iter().chain([(sealed, u64::MAX)]) {
        let page = SegmentPage { device: 5, incarnation: 6, sequence, queue: Queue::Main, sealed: Some(sealed) };
        let device = Arc::new(Simulated::new((1 << 20) + 12 * segment as usize));
        device.overwrite(0, &Superblock { device: 5, segment_bytes: segment }.encode());
        device.overwrite(1 << 20, &SegmentPage { sealed: None, ..page }.encode());
        device.overwrite((1 << 20) + segment as usize - 4096, &page.encode());
        let parts = parts();
        let (mut log, recovery) = recover::open(0, device, segment, parts.clone()).unwrap();
        while recovery.step(&log) {}
        let key = Key { kind: Kind::Head, content: id(1), generation: 0, index: 0 };
        let record = log::Record { key, meta: &[], body: b"x" };
        let next = parts.shared.sequence.load(Ordering::Relaxed);
        assert!(next < 1 << 32, "{page:?}: {next}");
        log.append(record, next, Queue::Probation).unwrap();
        log.sync().unwrap();
        assert_eq!(parts.shared.index.entries(), 1, "{page:?}");
    }
}

/// Segments that recovery has not read yet hold what the index does not know: no room is made of them.
#[test]
fn a_stop_while_the_index_is_read_writes_nothing() {
    let segment = 64 << 10;
    let device = Arc::new(Simulated::new((1 << 20) + 12 * segment as usize));
    let parts = parts();
    let (mut log, _) = recover::open(0, Arc::clone(&device) as _, segment, parts.clone()).unwrap();
    for at in 0..20 {
        let key = Key { kind: Kind::Head, content: id(at), generation: 0, index: 0 };
        let record = log::Record { key, meta: &[], body: &pattern(1, 20_000) };
        log.append(record, u64::from(at) + 1, Queue::Probation).unwrap();
    }
    log.close().unwrap();
    let bytes = || {
        let mut bytes = vec![0; usize::try_from(device.bytes()).unwrap()];
        device.read(0, &mut bytes).unwrap();
        bytes
    };
    let before = bytes();
    let opened = Arc::clone(&device);
    let opener: Opener = Box::new(move || Ok(Arc::clone(&opened) as Arc<dyn Device>));
    let slot =
        Slot::new(0, "simulated".to_owned(), device.bytes(), segment, Policy::new(Settings::default(), 0), opener);
    let shared = self::parts().shared;
    let begun = slot.open(&shared);
    let key = Key { kind: Kind::Head, content: id(99), generation: 0, index: 0 };
    let (hash, body) = (shared.index.hash(&key), pattern(2, 20_000));
    let item = Item { key, hash, meta: Bytes::new(), body, queue: Queue::Probation, sequence: 0 };
    assert!(slot.pending.offer(item, &shared.sequence));
    slot.pending.stop();
    slot.run(&shared, begun);
    assert!(slot.recovery_left.load(Ordering::Relaxed) > 0);
    assert!(bytes() == before);
}

#[tokio::test]
async fn another_process_writes_a_store_when_this_one_has_sealed_it() {
    let directory = tempfile::tempdir().unwrap();
    let before = open(directory.path(), Admission::Always);
    let body = |number| Some(pattern(number, 5000));
    let found = async |store: &Store, number| store.head(id(number)).wait().await.map(|head| head.body);
    assert_eq!(before.offer_head(id(1), 7, Bytes::new(), pattern(1, 5000)), Offered::Stored);
    let after = open(directory.path(), Admission::Always);
    assert_eq!(found(&after, 1).await, None, "it is locked");
    assert_eq!(after.offer_head(id(2), 7, Bytes::new(), pattern(2, 5000)), Offered::Nowhere);
    assert_eq!(before.offer_head(id(3), 7, Bytes::new(), pattern(3, 5000)), Offered::Stored);
    before.hand_over();
    while !after.knows_all() {
        tokio::task::yield_now().await;
    }
    assert_eq!((found(&after, 1).await, found(&after, 3).await), (body(1), body(3)));
    assert_eq!(after.offer_head(id(2), 7, Bytes::new(), pattern(2, 5000)), Offered::Stored);
    // The one before reads on, and writes no more.
    assert_eq!((found(&before, 1).await, found(&before, 3).await), (body(1), body(3)));
    assert_eq!(before.offer_head(id(4), 7, Bytes::new(), pattern(4, 5000)), Offered::Nowhere);
    after.close();
    drop(before);
    let last = ready(open(directory.path(), Admission::Always)).await;
    assert_eq!((found(&last, 2).await, found(&last, 4).await), (body(2), None));
}

#[test]
fn a_store_without_devices_has_nothing() {
    let store = Store::open(&[], Settings::default(), &Registry::new()).unwrap();
    assert!(matches!(store.head(id(1)), crate::store::Lookup::Absent));
    assert_eq!(store.offer_head(id(1), 1, Bytes::new(), Bytes::new()), Offered::Nowhere);
    assert_eq!((store.fullness(), store.ready()), ((0, 0), true));
}

/// The format on disk. A change here is a new [`crate::store::format::VERSION`]: stores of this one are refused.
#[test]
fn the_format_is_what_it_was() {
    let superblock = Superblock { device: 0x0102_0304_0506_0708, segment_bytes: 8 << 20 };
    let page = superblock.encode();
    assert_eq!(hex(&page[..28]), "53554e53544f524501000000000080000807060504030201d0f08239");
    assert_eq!(page[..28], page[2048..2076]);
    assert_eq!(Opening::decode(&page), Opening::Store(superblock));

    let page = SegmentPage {
        device: superblock.device,
        incarnation: 0x1112_1314_1516_1718,
        sequence: 3,
        queue: Queue::Main,
        sealed: None,
    };
    let header = page.encode();
    let fields = "080706050403020118171615141312110300000000000000";
    assert_eq!(hex(&header[..44]), format!("53554e5345474d54{fields}01000000000000008b674a91"));
    assert_eq!(SegmentPage::decode_header(&header, superblock.device), Some(page));
    assert_eq!(SegmentPage::decode_header(&header, 9), None, "of another device");

    let key = Key { kind: Kind::Block, content: id(0xab), generation: 5, index: 2 };
    let body = pattern(1, CHUNK_BYTES + 1);
    let record = Header::encode(key, 9, page.incarnation, b"meta", &body);
    assert_eq!(
        hex(&record),
        "5352454302000000abababababababababababababababab05000000000000000900000000000000181716151413121102000000\
         04000000014000009510071b2ede3fe93e9b5fe86186a082"
    );
    let decoded = Header::decode(&record).unwrap();
    assert_eq!((decoded.key, decoded.sequence, decoded.body_at()), (key, 9, 80));

    let mut table = Vec::new();
    Entry { key, sequence: 9, offset: 4096, bytes: 16_512 }.encode(&mut table);
    assert_eq!(
        hex(&table),
        "abababababababababababababababab0500000000000000090000000000000002000000001000008040000002000000"
    );
    let (sealed, tail) = log::sealed(page, &table, 9, 8 << 20);
    assert_eq!(tail[..48], table[..]);
    assert_eq!(
        hex(&tail[48..48 + 64]),
        format!("53554e5345414c44{fields}0100000000000000d0ef7f000100000009000000000000005dd085db089b228d")
    );
    assert_eq!(SegmentPage::decode_footer(&tail[48..], superblock.device), Some(sealed));
}

fn open(path: &Path, admission: Admission) -> Store {
    let config = StoreConfig { path: path.to_owned(), bytes: 40 << 20 };
    let settings = Settings { admission, ..Settings::default() };
    Store::open(&[config], settings, &Registry::new()).unwrap()
}

fn parts() -> Parts {
    let shared =
        Shared { index: Arc::new(Index::new(7)), forgotten: Arc::default(), sequence: Arc::new(AtomicU64::new(1)) };
    let policy = Arc::new(Mutex::new(Policy::new(Settings::default(), 0)));
    Parts { shared, policy, counts: Arc::default(), random: || 5 }
}

/// Waits for the recovery, which runs on a thread of its own.
async fn ready(store: Store) -> Store {
    while !store.ready() {
        tokio::task::yield_now().await;
    }
    store
}

fn id(at: u8) -> ContentId {
    ContentId::from_bytes([at; 16])
}

fn pattern(seed: u64, bytes: usize) -> Bytes {
    (0..bytes as u64)
        .map(|at| (at.wrapping_mul(7) ^ seed.wrapping_mul(131) ^ (at >> 8)) as u8)
        .collect::<Vec<u8>>()
        .into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
