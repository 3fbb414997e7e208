//! Every rated file's name, once, however many regions rate it.
//!
//! ```text
//!   by_name: "c1/a.jpg" --> 0 --> slots[0]: name, content id, size, pairs = 2   (two regions rate it)
//!                                 slots[1]: free, reused by the next new name
//! ```
//!
//! A file stays as long as one (region, file) pair names it.
//!
//! The map's hash is the standard library's keyed one: paths come from clients, and whoever can choose names
//! must not be able to choose collisions.

use std::collections::HashMap;
use std::sync::Arc;

use geo::{CanonicalName, ContentId};

/// Where a file's name is kept.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileIndex(pub(crate) u32);

/// What is known of a file besides its ratings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RatedFile {
    /// Canonical name.
    pub name: Arc<str>,
    /// What placement and holdings go by.
    pub content: ContentId,
    /// Bytes, as last reported.
    pub size: u64,
    pairs: u32,
}

/// The names.
#[derive(Debug, Default)]
pub struct Files {
    by_name: HashMap<Arc<str>, FileIndex>,
    slots: Vec<Option<RatedFile>>,
    free: Vec<FileIndex>,
}

impl Files {
    /// The file with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<FileIndex> {
        self.by_name.get(name).copied()
    }

    /// A file that [`Files::find`] or [`Files::add`] named and that still has a pair.
    #[must_use]
    pub fn file(&self, index: FileIndex) -> &RatedFile {
        self.slots[index.0 as usize].as_ref().expect("an index is kept only beside a pair that holds the file")
    }

    /// The file with this name, made when it is new; its size becomes `size`.
    ///
    /// A new file has no pairs: follow with [`Files::hold`]. Nothing when it is no file's name.
    pub fn add(&mut self, name: &str, size: u64) -> Option<FileIndex> {
        if let Some(index) = self.find(name) {
            self.slots[index.0 as usize].as_mut().expect("a name in the map has its slot").size = size;
            return Some(index);
        }
        let canonical = CanonicalName::from_written(name).ok()?;
        let name: Arc<str> = name.into();
        let file = RatedFile { name: Arc::clone(&name), content: canonical.content_id(), size, pairs: 0 };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            FileIndex(u32::try_from(self.slots.len() - 1).expect("pairs are bounded far below 2^32"))
        });
        self.slots[index.0 as usize] = Some(file);
        self.by_name.insert(name, index);
        Some(index)
    }

    /// One more pair names the file.
    pub fn hold(&mut self, index: FileIndex) {
        self.slots[index.0 as usize].as_mut().expect("an index that was just added").pairs += 1;
    }

    /// One pair less names the file; the last one takes it away.
    pub fn release(&mut self, index: FileIndex) {
        let slot = &mut self.slots[index.0 as usize];
        let file = slot.as_mut().expect("a pair holds its file");
        file.pairs -= 1;
        if file.pairs == 0 {
            self.by_name.remove(&file.name);
            *slot = None;
            self.free.push(index);
        }
    }

    /// How many files there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether nothing is rated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// All files, in order of index.
    pub fn iter(&self) -> impl Iterator<Item = (FileIndex, &RatedFile)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| Some((FileIndex(index), slot.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_until_its_last_pair() {
        let mut files = Files::default();
        let a = files.add("c1/a", 10).unwrap();
        files.hold(a);
        assert_eq!(files.add("c1/a", 12), Some(a));
        files.hold(a);
        assert_eq!((files.len(), files.file(a).size), (1, 12));
        files.release(a);
        assert_eq!(files.find("c1/a"), Some(a));
        files.release(a);
        assert_eq!((files.find("c1/a"), files.is_empty()), (None, true));
        assert_eq!(files.add("c1/b", 1), Some(a), "the slot is used again");
    }

    #[test]
    fn only_names_of_files_are_kept() {
        for name in ["", "a", "c1", "c1/a b", "c1/a#b", "c1/\u{444}", "/c1/a", "c01/a"] {
            assert_eq!(Files::default().add(name, 1), None, "{name}");
        }
    }
}
