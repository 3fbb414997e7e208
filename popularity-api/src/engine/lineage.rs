//! Which binlog a folder's frames are part of: an id that copies share and that nobody else has.
//!
//! ```text
//!   file "lineage":   own 0123456789abcdef0123456789abcdef 5f1c0a77
//!                     |   |                                crc32c of what is before, hexadecimal
//!                     |   128 random bits
//!                     own: batches are counted here; copy: frames of another API's binlog are
//! ```
//!
//! An offset means the same bytes wherever the id is the same. So the id changes whenever that could cease to be true:
//!
//! - a folder that is emptied or restored from a backup has no such file, and gets a new id at its next start;
//! - one whose start found acknowledged frames lost, or a torn end, gets a new one: frames of other content may follow at an
//!   offset that a replica has been past. (A torn end was never handed out, but a bit that flips in the last frame looks
//!   the same.)
//! - a copy that is started as a primary gets one of its own: the API it was copied from may come back.
//!
//! A replica that finds another id than its own starts again from a snapshot.
//!
//! On a full disk the new id is in RAM alone, and answers go on. It is written before the first frame or snapshot is: until
//! then the next start finds the same loss, and makes an id again.

use std::fmt;
use std::io;

use super::folder::Folder;

/// See the module's doc.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lineage {
    id: String,
    copy: bool,
}

impl Lineage {
    /// What the folder's file says; nothing when there is none or it is damaged.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn read(folder: &dyn Folder) -> io::Result<Option<Self>> {
        match folder.read(FILE) {
            Ok(bytes) => Ok(Self::from_bytes(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The lineage of a folder in which batches are counted from now on. `sound`: its start found nothing lost. False when
    /// the folder does not say so yet, as on a full disk: nothing else is written before [`Lineage::keep`] succeeded.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn own(folder: &dyn Folder, sound: bool) -> io::Result<(Self, bool)> {
        if let Some(known) = Self::read(folder)?.filter(|known| sound && !known.copy) {
            return Ok((known, true));
        }
        let new = Self { id: format!("{:032x}", rand::random::<u128>()), copy: false };
        tracing::info!(lineage = new.id, "the binlog has a new lineage: replicas start again from a snapshot");
        let kept = new.keep(folder);
        if let Err(error) = &kept {
            tracing::warn!(%error, "the new lineage cannot be written; nothing is counted until it can be");
        }
        Ok((new, kept.is_ok()))
    }

    /// Writes it down.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(super) fn keep(&self, folder: &dyn Folder) -> io::Result<()> {
        folder.replace(FILE, self.text().as_bytes())
    }

    /// Says that the folder has frames of the binlog with this id.
    ///
    /// # Errors
    ///
    /// When `id` is no id, and what the operating system says.
    pub fn follow(folder: &dyn Folder, id: &str) -> io::Result<Self> {
        if !is_id(id) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{id:?} is no lineage")));
        }
        let copy = Self { id: id.to_owned(), copy: true };
        folder.replace(FILE, copy.text().as_bytes())?;
        Ok(copy)
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether its batches are counted elsewhere.
    #[must_use]
    pub const fn is_copy(&self) -> bool {
        self.copy
    }

    /// What a file says; nothing when it is damaged.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().and_then(Self::parse)
    }

    fn parse(text: &str) -> Option<Self> {
        let (said, sum) = text.trim_end().rsplit_once(' ')?;
        if u32::from_str_radix(sum, 16).ok()? != crc32c::crc32c(said.as_bytes()) {
            return None;
        }
        let (kind, id) = said.split_once(' ')?;
        let copy = match kind {
            "own" => false,
            "copy" => true,
            _ => return None,
        };
        is_id(id).then(|| Self { id: id.to_owned(), copy })
    }

    fn text(&self) -> String {
        let said = format!("{} {}", if self.copy { "copy" } else { "own" }, self.id);
        format!("{said} {:08x}\n", crc32c::crc32c(said.as_bytes()))
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.id)
    }
}

/// 32 hexadecimal digits, in small letters.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The file in the folder.
pub const FILE: &str = "lineage";

#[cfg(test)]
mod tests {
    use super::super::folder::simulated::Simulated;
    use super::*;

    #[test]
    fn an_id_stays_until_offsets_may_mean_something_else() {
        let folder = Simulated::default();
        assert_eq!(Lineage::read(&folder).unwrap(), None);
        let (first, kept) = Lineage::own(&folder, true).unwrap();
        assert!(kept);
        assert_eq!(Lineage::own(&folder, true).unwrap(), (first.clone(), true));
        assert_eq!(Lineage::read(&folder).unwrap(), Some(first.clone()));
        let second = Lineage::own(&folder, false).unwrap().0;
        assert_ne!(second, first, "something was lost");
        let copy = Lineage::follow(&folder, first.id()).unwrap();
        assert!(copy.is_copy() && copy.id() == first.id());
        assert_eq!(Lineage::read(&folder).unwrap(), Some(copy));
        let promoted = Lineage::own(&folder, true).unwrap().0;
        assert!(promoted.id() != first.id() && !promoted.is_copy());
    }

    #[test]
    fn no_damage_is_taken_for_an_id() {
        let text = Lineage { id: "0123456789abcdef0123456789abcdef".to_owned(), copy: false }.text();
        assert_eq!(text, "own 0123456789abcdef0123456789abcdef a08f0b7e\n");
        for at in 0..text.len() - 1 {
            let mut flipped = text.clone().into_bytes();
            flipped[at] ^= 1;
            assert_eq!(String::from_utf8(flipped).ok().and_then(|text| Lineage::parse(&text)), None, "byte {at}");
        }
        assert!(Lineage::follow(&Simulated::default(), "../x").is_err());
    }
}
