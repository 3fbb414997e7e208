//! Names of rated files, each once, however many regions rate it. A table has many of these, one a shard.
//!
//! ```text
//!   index: | tag, record | empty | tag, record | ...        open addressing; a tag is 32 bits of the name's keyed hash
//!                    |
//!   names: ...| name bytes u16 | pairs u16 | size, 6 bytes | c1/a.jpg |...          one vector, in units of 4 bytes
//! ```
//!
//! A [`FileIndex`] is where the record begins, in units: finding a name reads one line of the index and the record.
//! A record stays where it is as long as a (region, file) pair names it; then its room goes to the next name of its
//! length, or, cut, of a shorter one.
//!
//! Beside the name a file takes 10 bytes and 1.5 for the unit in `names`, and 8 in the index, of which 68 to 82 % are
//! in use: it grows by a little at a time, so that neither much is empty nor growing takes long.
//!
//! The hash has a random key of this process, as paths come from clients, and whoever can choose names must not be able to choose
//! collisions. It is foldhash's, a sixth of the time of the standard library's SipHash for such names: nobody sees a tag, or how long a search
//! took, so nobody learns the key.

use std::collections::BTreeMap;

use geo::{CanonicalName, ContentId};

/// Where a file's name is kept.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileIndex(pub(crate) u32);

/// What is known of a file besides its ratings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RatedFile<'a> {
    /// Canonical name.
    pub name: &'a str,
    /// What placement and holdings go by.
    pub content: ContentId,
    /// Bytes, as last reported.
    pub size: u64,
}

/// The names of one shard.
#[derive(Debug, Default)]
pub(super) struct Files {
    names: Vec<u8>,
    index: Vec<Slot>,
    count: usize,
    /// Records that are free, by their units; no list is empty.
    free: BTreeMap<usize, Vec<FileIndex>>,
}

/// 32 bits of the keyed hash of a name: the same name has the same tag as long as the process runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Tag(pub(super) u32);

/// A place of the index.
#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: Tag,
    file: FileIndex,
}

impl Files {
    /// The file with this name.
    pub(super) fn find(&self, name: &str, tag: Tag) -> Option<FileIndex> {
        self.place(tag, |file| self.name_bytes(file) == name.as_bytes()).map(|place| self.index[place].file)
    }

    /// Reads where the index has this tag, or has it near by; a search begins there.
    pub(super) fn touch(&self, tag: Tag) -> u32 {
        let place = home(tag, self.index.len());
        let (at, behind) = (self.index.get(place), self.index.get(place + 3));
        at.map_or(0, |slot| slot.tag.0) ^ behind.map_or(0, |slot| slot.tag.0)
    }

    /// Reads the lines of a record whose name has so many bytes.
    pub(super) fn touch_record(&self, file: FileIndex, name_bytes: usize) -> u32 {
        let at = offset(file);
        let (first, last) = (self.names.get(at), self.names.get(at + HEADER_BYTES + name_bytes - 1));
        u32::from(first.copied().unwrap_or(0)) ^ u32::from(last.copied().unwrap_or(0))
    }

    /// The first file with this tag, which is most likely the one. It reads no record.
    pub(super) fn likely(&self, tag: Tag) -> Option<FileIndex> {
        self.place(tag, |_| true).map(|place| self.index[place].file)
    }

    /// A new file, which [`Files::find`] does not find. It has no pairs: follow with [`Files::hold`]. Nothing when it is
    /// no file's name, or when there is no room for its number.
    pub(super) fn add(&mut self, name: &str, tag: Tag, size: u64) -> Option<FileIndex> {
        CanonicalName::from_written(name).ok()?;
        let bytes = u16::try_from(name.len()).ok()?;
        let file = self.allocate(units(name.len()), tag)?;
        let at = offset(file);
        let record = &mut self.names[at..at + HEADER_BYTES + name.len()];
        record[..2].copy_from_slice(&bytes.to_le_bytes());
        record[2..4].fill(0);
        record[HEADER_BYTES..].copy_from_slice(name.as_bytes());
        self.resize(file, size);
        self.enter(Slot { tag, file });
        self.count += 1;
        Some(file)
    }

    /// The file has this many bytes, as somebody says now; above 2^48 they are kept as that.
    pub(super) fn resize(&mut self, file: FileIndex, size: u64) {
        let (at, size) = (offset(file) + 4, size.min(SIZE_MAX).to_le_bytes());
        let kept = &mut self.names[at..at + 6];
        // A line that is only read need not be written back to memory; most reports say what is known.
        if *kept != size[..6] {
            kept.copy_from_slice(&size[..6]);
        }
    }

    /// One more pair names the file.
    pub(super) fn hold(&mut self, file: FileIndex) {
        self.set_pairs(file, self.pairs(file) + 1);
    }

    /// One pair less names the file; the last one takes it away. `tag` tells the tag of its name.
    pub(super) fn release(&mut self, file: FileIndex, tag: impl FnOnce(&str) -> Tag) {
        let pairs = self.pairs(file) - 1;
        self.set_pairs(file, pairs);
        if pairs > 0 {
            return;
        }
        let name = self.name(file);
        let (units, tag) = (units(name.len()), tag(name));
        let place = self.place(tag, |other| other == file).expect("a file is in the index until it is released");
        self.leave(place);
        self.free.entry(units).or_default().push(file);
        self.count -= 1;
    }

    /// The canonical name of a file that has a pair.
    pub(super) fn name(&self, file: FileIndex) -> &str {
        std::str::from_utf8(self.name_bytes(file)).expect("names are visible ASCII")
    }

    /// Bytes of the file.
    pub(super) fn size(&self, file: FileIndex) -> u64 {
        let at = offset(file) + 4;
        let mut size = [0; 8];
        size[..6].copy_from_slice(&self.names[at..at + 6]);
        u64::from_le_bytes(size)
    }

    /// All that is known of it; the content id is computed.
    pub(super) fn file(&self, file: FileIndex) -> RatedFile<'_> {
        let name = self.name(file);
        let content = CanonicalName::from_written(name).expect("names are checked when they are added").content_id();
        RatedFile { name, content, size: self.size(file) }
    }

    /// How many files there are.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// All files, in order of index.
    pub(super) fn sorted(&self) -> Vec<FileIndex> {
        let mut files: Vec<_> = self.index.iter().filter(|slot| !slot.is_empty()).map(|slot| slot.file).collect();
        files.sort_unstable();
        files
    }

    /// Bytes of RAM: (names with what stands beside them, index).
    pub(super) fn bytes(&self) -> (usize, usize) {
        let free: usize = self.free.values().map(|files| files.capacity() * size_of::<FileIndex>()).sum();
        (self.names.capacity() + free, self.index.capacity() * size_of::<Slot>())
    }

    fn name_bytes(&self, file: FileIndex) -> &[u8] {
        let at = offset(file);
        let bytes = usize::from(u16::from_le_bytes([self.names[at], self.names[at + 1]]));
        &self.names[at + HEADER_BYTES..at + HEADER_BYTES + bytes]
    }

    fn pairs(&self, file: FileIndex) -> u16 {
        let at = offset(file) + 2;
        u16::from_le_bytes([self.names[at], self.names[at + 1]])
    }

    fn set_pairs(&mut self, file: FileIndex, pairs: u16) {
        let at = offset(file) + 2;
        self.names[at..at + 2].copy_from_slice(&pairs.to_le_bytes());
    }

    /// Room for a record: one that is free and as long, a longer one that is cut, or new.
    fn allocate(&mut self, units: usize, tag: Tag) -> Option<FileIndex> {
        let fits = |&free: &usize| free == units || free >= units + RECORD_UNITS_MIN;
        let found = self.free.range(units..).map(|(&free, _)| free).find(fits);
        if let Some(free) = found
            && let Some(files) = self.free.get_mut(&free)
            && let Some(file) = files.pop()
        {
            if files.is_empty() {
                self.free.remove(&free);
            }
            if free > units {
                let rest = FileIndex(file.0 + units as u32);
                self.free.entry(free - units).or_default().push(rest);
            }
            return Some(file);
        }
        let (at, end) = (self.names.len(), self.names.len() + units * UNIT_BYTES);
        let file = FileIndex(u32::try_from(at / UNIT_BYTES).ok().filter(|&index| index < NO_FILE.0)?);
        if end > self.names.capacity() {
            self.names.reserve_exact(units * UNIT_BYTES + grown(at, tag.0) - at);
        }
        self.names.resize(end, 0);
        Some(file)
    }

    /// Where in the index the first slot of this tag is whose file `is` the one.
    fn place(&self, tag: Tag, is: impl Fn(FileIndex) -> bool) -> Option<usize> {
        let mut place = home(tag, self.index.len());
        loop {
            let slot = self.index.get(place)?;
            if slot.is_empty() {
                return None;
            }
            if slot.tag == tag && is(slot.file) {
                return Some(place);
            }
            place = after(place, self.index.len());
        }
    }

    fn enter(&mut self, slot: Slot) {
        if (self.count + 1) * 100 > self.index.len() * FULL_PERCENT {
            let larger = grown(self.index.len(), slot.tag.0) + 8;
            let old = std::mem::replace(&mut self.index, vec![EMPTY; larger]);
            old.into_iter().filter(|slot| !slot.is_empty()).for_each(|slot| self.put(slot));
        }
        self.put(slot);
    }

    fn put(&mut self, slot: Slot) {
        let mut place = home(slot.tag, self.index.len());
        while !self.index[place].is_empty() {
            place = after(place, self.index.len());
        }
        self.index[place] = slot;
    }

    /// Empties a place of the index and moves up what would no longer be found behind it.
    fn leave(&mut self, mut gap: usize) {
        let places = self.index.len();
        let mut next = after(gap, places);
        while !self.index[next].is_empty() {
            let home = home(self.index[next].tag, places);
            if !between(gap, home, next) {
                self.index[gap] = self.index[next];
                gap = next;
            }
            next = after(next, places);
        }
        self.index[gap] = EMPTY;
    }
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.file == NO_FILE
    }
}

/// No file's index.
pub(super) const NO_FILE: FileIndex = FileIndex(u32::MAX);

const EMPTY: Slot = Slot { tag: Tag(0), file: NO_FILE };
/// A table of open addressing that is fuller than this grows.
pub(super) const FULL_PERCENT: usize = 82;
const UNIT_BYTES: usize = 4;
const HEADER_BYTES: usize = 10;
/// The shortest name has four bytes: `c1/a`.
const RECORD_UNITS_MIN: usize = 4;
const SIZE_MAX: u64 = (1 << 48) - 1;

const fn units(name_bytes: usize) -> usize {
    (HEADER_BYTES + name_bytes).div_ceil(UNIT_BYTES)
}

const fn offset(file: FileIndex) -> usize {
    file.0 as usize * UNIT_BYTES
}

/// The next size of something that is full: 10 to 20 % more, drawn by any number that differs from shard to shard, for
/// else all shards would grow in the same moment.
pub(super) const fn grown(size: usize, draw: u32) -> usize {
    let draw = draw.wrapping_mul(0x9e37_79b9) >> 24;
    size + size / 10 + size * draw as usize / 2560
}

/// The first place of a hash of 32 bits among so many, evenly.
const fn home(tag: Tag, places: usize) -> usize {
    ((tag.0 as u64 * places as u64) >> 32) as usize
}

/// The place after this one, round the end.
pub(super) const fn after(place: usize, places: usize) -> usize {
    if place + 1 == places { 0 } else { place + 1 }
}

/// Whether `home` is after `gap` and not after `at`, going round: what has its home there stays where it is.
pub(super) const fn between(gap: usize, home: usize, at: usize) -> bool {
    if gap < at { gap < home && home <= at } else { gap < home || home <= at }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_kept_once_and_until_its_last_pair() {
        let mut files = Files::default();
        let a = add(&mut files, "c1/a", 10);
        assert_eq!(files.find("c1/a", tag("c1/a")), Some(a));
        files.resize(a, 12);
        files.hold(a);
        assert_eq!((files.len(), files.file(a).size, files.file(a).name), (1, 12, "c1/a"));
        files.release(a, tag);
        assert_eq!(files.find("c1/a", tag("c1/a")), Some(a));
        files.release(a, tag);
        assert_eq!((files.find("c1/a", tag("c1/a")), files.len()), (None, 0));
        assert_eq!(add(&mut files, "c1/b", 1), a, "the room is used again");
    }

    #[test]
    fn only_names_of_files_are_kept() {
        for name in ["", "a", "c1", "c1/a b", "c1/a#b", "c1/\u{444}", "/c1/a", "c01/a"] {
            assert_eq!(Files::default().add(name, Tag(7), 1), None, "{name}");
        }
    }

    #[test]
    fn sizes_are_kept_up_to_six_bytes() {
        let mut files = Files::default();
        let file = add(&mut files, "c1/a", 0);
        for (size, kept) in [(0, 0), (1, 1), (1 << 40, 1 << 40), (u64::MAX, (1 << 48) - 1)] {
            files.resize(file, size);
            assert_eq!(files.size(file), kept);
        }
    }

    proptest! {
        #[test]
        fn names_that_come_and_go_are_those_of_a_map(
            steps in prop::collection::vec((0..60_u32, 1..40_usize, any::<bool>()), 1..400)
        ) {
            let (mut files, mut model) = (Files::default(), HashMap::new());
            for (n, bytes, come) in steps {
                let name = format!("c1/{n}{}", "x".repeat(bytes));
                match (come, model.get(&name).copied()) {
                    (true, None) => { model.insert(name.clone(), add(&mut files, &name, u64::from(n))); }
                    (false, Some(file)) => { files.release(file, tag); model.remove(&name); }
                    _ => {}
                }
                prop_assert_eq!(files.len(), model.len());
                for (name, &file) in &model {
                    prop_assert_eq!(files.find(name, tag(name)), Some(file));
                    prop_assert_eq!(files.name(file), name);
                }
            }
            let mut expected: Vec<FileIndex> = model.into_values().collect();
            expected.sort();
            prop_assert_eq!(files.sorted(), expected);
        }
    }

    fn add(files: &mut Files, name: &str, size: u64) -> FileIndex {
        let file = files.add(name, tag(name), size).unwrap();
        files.hold(file);
        file
    }

    /// Few tags, so that they collide.
    fn tag(name: &str) -> Tag {
        Tag(crc32c::crc32c(name.as_bytes()) & 0xf000_0003)
    }
}
