//! The vault on a real filesystem: what is committed, what a crash leaves, what a broken disk does.

use std::os::unix::fs::FileExt;

use http::{HeaderMap, HeaderValue};
use sun::held::HELD_BLOCK_BYTES;

use super::*;

#[test]
fn a_file_can_be_opened_once_it_is_committed() {
    let (_folder, vault) = vault();
    for size in [0, 1, HELD_BLOCK_BYTES - 1, HELD_BLOCK_BYTES, HELD_BLOCK_BYTES + 1, 5 * HELD_BLOCK_BYTES / 2] {
        let name = name(&size.to_string());
        let body = body(size);
        let mut writer = vault.begin(&name, size).unwrap();
        for piece in body.chunks(100_000) {
            writer.write(piece).unwrap();
            assert!(HeldFiles::open(&*vault, name.content_id()).is_none());
        }
        writer.commit(&headers(), 1_700_000_000).unwrap();
        check_body(&vault, &name, &body);
    }
    assert_eq!(vault.files(), 6);
    assert_eq!(temporaries(&vault), 0);
}

#[test]
fn a_sweep_drops_what_was_purged_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let before = open(folder.path());
    for (file, log, tag) in [("a", 1, 7), ("b", 2, 7), ("c", 1, 8)] {
        let writer = before.begin(&name(file), 0).unwrap().marked(Mark { log, direct: 0 }, [tag].into());
        writer.commit(&headers(), 1).unwrap();
    }
    before.release();
    let vault = open(folder.path());
    assert_eq!(vault.scan().files, 3);
    vault.confirmed(name("c").content_id(), Mark { log: 5, direct: 0 });
    assert_eq!(vault.sweep(|_, mark, tags| mark.log < 2 && tags == [7]), 1);
    assert_eq!(vault.sweep(|name, mark, _| mark.log < 2 || name.as_str() == "c1/b"), 1);
    assert_eq!(vault.list(), [(name("c"), 0)], "it was confirmed since");
}

#[test]
fn a_body_of_another_length_than_announced_is_refused() {
    let (_folder, vault) = vault();
    let mut writer = vault.begin(&name("long"), 5).unwrap();
    writer.write(b"123").unwrap();
    let error = writer.write(b"456").unwrap_err().to_string();
    assert_eq!(error, "the body has 6 bytes and not 5 as announced");
    let mut writer = vault.begin(&name("short"), 5).unwrap();
    writer.write(b"1234").unwrap();
    let error = writer.commit(&HeaderMap::new(), 0).unwrap_err().to_string();
    assert_eq!(error, "the body has 4 bytes and not 5 as announced");
    assert!(vault.begin(&name("huge"), FILE_BYTES_MAX + 1).is_err());
    assert_eq!((vault.files(), temporaries(&vault)), (0, 1), "the first writer is still there");
}

#[test]
fn a_restart_finds_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let before = open(folder.path());
    for file in ["a", "b", "c"] {
        store(&before, file, file.as_bytes());
    }
    before.remove(name("b").content_id());
    let mut torn = before.begin(&name("d"), 100).unwrap();
    torn.write(b"half").unwrap();
    std::mem::forget(torn);
    let fullness = before.fullness().0;
    before.release();
    let after = open(folder.path());
    assert_eq!(after.scan(), Scanned { files: 2, dropped: 0, unreadable: 0 });
    assert_eq!(after.fullness().0, fullness);
    check_body(&after, &name("a"), b"a");
    check_body(&after, &name("c"), b"c");
    assert_eq!(temporaries(&after), 0);
}

#[test]
fn a_restart_drops_what_is_not_whole() {
    check_damage("cut by a byte", |path| truncate(path, |length| length - 1));
    check_damage("cut in the body", |path| truncate(path, |_| 2));
    check_damage("empty", |path| truncate(path, |_| 0));
    check_damage("longer", |path| truncate(path, |length| length + 1));
    check_damage("zeroes in the record", |path| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0; 8], 7).unwrap();
    });
    check_damage("in the place of another", |path| {
        let other = name("other").content_id().to_string();
        std::fs::rename(path, path.with_file_name(other)).unwrap();
    });
}

#[test]
fn a_dropped_file_stays_readable_where_it_is_open() {
    let (_folder, vault) = vault();
    store(&vault, "a", b"body");
    let held = HeldFiles::open(&*vault, name("a").content_id()).unwrap();
    assert!(vault.remove(name("a").content_id()));
    assert!(!vault.remove(name("a").content_id()));
    assert!(HeldFiles::open(&*vault, name("a").content_id()).is_none());
    let mut body = [0; 4];
    held.file.read_exact_at(&mut body, held.offset).unwrap();
    assert_eq!(&body, b"body");
    assert_eq!(vault.fullness().0, 0);
}

#[test]
fn a_file_that_is_stored_again_replaces_the_first() {
    let (_folder, vault) = vault();
    store(&vault, "a", b"first");
    store(&vault, "a", &body(10_000));
    check_body(&vault, &name("a"), &body(10_000));
    assert_eq!((vault.files(), vault.fullness().0), (1, footprint(10_000)));
}

#[test]
fn distrust_drops_the_file_and_is_counted() {
    let (_folder, vault) = vault();
    store(&vault, "a", b"a");
    store(&vault, "b", b"b");
    vault.distrust(name("a").content_id());
    vault.distrust(name("a").content_id());
    std::fs::remove_file(vault.path(name("b").content_id())).unwrap();
    assert!(HeldFiles::open(&*vault, name("b").content_id()).is_none(), "somebody removed it");
    assert_eq!((vault.files(), vault.distrusted()), (0, 2));
}

#[test]
fn changes_are_told_once_and_in_order() {
    let (_folder, vault) = vault();
    store(&vault, "a", b"12345");
    store(&vault, "b", b"1");
    vault.remove(name("a").content_id());
    let expected = vec![(name("a"), Some(5)), (name("b"), Some(1)), (name("a"), None)];
    assert_eq!(vault.changes(), Changes::Since(expected));
    assert_eq!(vault.changes(), Changes::Since(vec![]));
    store(&vault, "c", b"1");
    let mut list = vault.list();
    list.sort();
    assert_eq!(list, vec![(name("b"), 1), (name("c"), 1)]);
    assert_eq!(vault.changes(), Changes::Since(vec![]));
    assert_eq!(vault.scan().files, 2);
    assert_eq!(vault.changes(), Changes::All);
}

#[test]
fn more_changes_than_are_remembered_ask_for_the_whole_list() {
    let mut index = Index::default();
    for _ in 0..=CHANGES_MAX {
        index.remember(name("a"), None);
    }
    assert_eq!(index.changes, None);
    index.remember(name("a"), None);
    assert_eq!(index.changes, None);
}

#[test]
fn a_full_disk_fails_the_file_and_nothing_else() {
    let (_folder, vault) = vault();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut writer = Writer::onto(Arc::clone(&vault), name("a"), 5, full);
    let error = writer.write(b"12345").unwrap_err();
    assert!(
        matches!(&error, VaultError::Disk { source, .. } if source.kind() == io::ErrorKind::StorageFull),
        "{error}"
    );
    drop(writer);
    store(&vault, "b", b"b");
    assert_eq!(vault.files(), 1);
}

#[test]
fn a_folder_that_vanished_fails_the_file_and_nothing_else() {
    let (folder, vault) = vault();
    let id = name("a").content_id().to_string();
    std::fs::remove_dir_all(folder.path().join(&id[..2])).unwrap();
    let mut writer = vault.begin(&name("a"), 1).unwrap();
    writer.write(b"a").unwrap();
    assert!(matches!(writer.commit(&HeaderMap::new(), 0), Err(VaultError::Disk { .. })));
    assert_eq!((vault.files(), temporaries(&vault)), (0, 0));
    std::fs::remove_dir_all(folder.path().join(TEMPORARY)).unwrap();
    assert!(matches!(vault.begin(&name("b"), 1), Err(VaultError::Disk { .. })));
}

#[test]
fn a_vault_has_one_user() {
    let (folder, _vault) = vault();
    let error = Vault::open(folder.path()).unwrap_err();
    assert!(matches!(error, VaultError::Locked { .. }), "{error}");
}

#[track_caller]
fn check_damage(what: &str, damage: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path());
    store(&vault, "good", b"good");
    store(&vault, "bad", b"bad");
    let path = vault.path(name("bad").content_id());
    drop(vault);
    damage(&path);
    let vault = open(folder.path());
    assert_eq!(vault.scan(), Scanned { files: 1, dropped: 1, unreadable: 0 }, "{what}");
    check_body(&vault, &name("good"), b"good");
    assert!(HeldFiles::open(&*vault, name("bad").content_id()).is_none(), "{what}");
    let others = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(others, 0, "{what}: what was damaged is removed");
}

/// Reads a file as the edge does: block by block, with checksums.
#[track_caller]
fn check_body(vault: &Vault, name: &CanonicalName, expected: &[u8]) {
    let held = HeldFiles::open(vault, name.content_id()).expect("is held");
    let mut body = vec![0; usize::try_from(held.size).unwrap()];
    held.file.read_exact_at(&mut body, held.offset).unwrap();
    assert!(body == expected, "{name}: other bytes");
    let block_bytes = usize::try_from(HELD_BLOCK_BYTES).unwrap();
    let checksums: Vec<u32> = body.chunks(block_bytes).map(crc32c::crc32c).collect();
    assert_eq!(*held.checksums, *checksums);
    assert_eq!((held.headers, held.stored_at), (headers(), 1_700_000_000));
}

fn vault() -> (tempfile::TempDir, Arc<Vault>) {
    let folder = tempfile::tempdir().unwrap();
    let vault = open(folder.path());
    (folder, vault)
}

fn open(folder: &Path) -> Arc<Vault> {
    Arc::new(Vault::open(folder).unwrap())
}

fn store(vault: &Arc<Vault>, file: &str, body: &[u8]) {
    let mut writer = vault.begin(&name(file), body.len() as u64).unwrap();
    writer.write(body).unwrap();
    writer.commit(&headers(), 1_700_000_000).unwrap();
}

fn headers() -> HeaderMap {
    HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"1\""))])
}

fn name(file: &str) -> CanonicalName {
    CanonicalName::parse(&format!("c1/{file}")).unwrap()
}

fn body(size: u64) -> Vec<u8> {
    (0..size).map(|at| (at * 31 % 251) as u8).collect()
}

fn temporaries(vault: &Vault) -> usize {
    std::fs::read_dir(vault.folder.join(TEMPORARY)).unwrap().count()
}

fn truncate(path: &Path, length: impl FnOnce(u64) -> u64) {
    let file = File::options().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().len();
    file.set_len(length(before)).unwrap();
}
