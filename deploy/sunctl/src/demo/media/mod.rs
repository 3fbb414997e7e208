//! The media that the demo's content server owns: made by the demo, or a folder of the user's.
//!
//! ```text
//!   generated:  pictures/000.png ...   painted when asked for        2 KB .. 1.7 MB
//!               videos/clip-00.bin ... noise, made as it is sent     1 MB .. 50 MB
//!               sounds/chime.wav       two seconds
//!   folder:     what was in it at the start, by its path
//! ```
//!
//! # Invariants
//!
//! - The length of every file is known without making it, and its bytes are the same each time.
//! - Nothing is kept in RAM but names; a file of any size is sent in pieces.
//! - **Only what is listed is served.** A path is looked up among the names found at the start, so no
//!   spelling of a path leads out of the folder. A listed file is opened only while it still is one
//!   inside the folder, symbolic links followed, and nothing hidden: no name of its path begins with a dot.

mod folder;
mod noise;
mod painting;
mod png;
mod wav;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use geo::CanonicalName;

pub use noise::Noise;
pub use painting::Painting;

/// Everything a content server owns.
#[derive(Debug)]
pub struct Library {
    files: Vec<MediaFile>,
    by_name: HashMap<String, usize>,
}

/// One file.
#[derive(Clone, Debug)]
pub struct MediaFile {
    /// As the whole system names it, `c100500/pictures/000.png`.
    pub name: CanonicalName,
    /// Bytes; of a folder's file, when it was listed.
    pub size: u64,
    /// What a page can do with it.
    pub kind: MediaKind,
    /// The `Content-Type`.
    pub content_type: &'static str,
    source: Source,
}

/// What a page can do with a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MediaKind {
    /// Show it.
    Picture,
    /// Play it.
    Sound,
    /// Link to it.
    Other,
}

/// A file's bytes, about to be sent.
#[derive(Debug)]
pub enum Opened {
    /// Made whole when the first byte is needed.
    Made(Made),
    /// Made piece by piece.
    Noise(Noise),
    /// On disk, to be read at positions.
    Disk(File),
}

/// A small generated file, not made yet.
#[derive(Clone, Copy, Debug)]
pub enum Made {
    /// The painting with this index, in this size.
    Picture {
        /// Which painting.
        index: u32,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The sound.
    Chime,
}

#[derive(Clone, Debug)]
enum Source {
    Made(Made),
    Clip(Noise),
    Disk { root: PathBuf, path: PathBuf },
}

impl Library {
    /// Hundreds of pictures, two dozen large files and a sound.
    #[must_use]
    pub fn generated() -> Self {
        let pictures = (0..PICTURES).map(picture);
        let clips = (0..CLIPS).map(clip);
        let chime = MediaFile {
            name: own_name("sounds/chime.wav"),
            size: wav::chime_bytes(),
            kind: MediaKind::Sound,
            content_type: "audio/wav",
            source: Source::Made(Made::Chime),
        };
        Self::of(pictures.chain(clips).chain([chime]).collect())
    }

    /// The files of a folder and its folders without what is hidden, at most [`FOLDER_FILES_MAX`], in order of name.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed or has no file that can be named.
    pub fn folder(root: &Path) -> io::Result<Self> {
        let files = folder::list(root)?;
        if files.is_empty() {
            return Err(io::Error::other("no file in it can be served"));
        }
        Ok(Self::of(files))
    }

    /// All files, always in the same order.
    #[must_use]
    pub fn files(&self) -> &[MediaFile] {
        &self.files
    }

    /// The file with this name.
    #[must_use]
    pub fn find(&self, name: &CanonicalName) -> Option<&MediaFile> {
        self.by_name.get(name.as_str()).map(|&index| &self.files[index])
    }

    fn of(files: Vec<MediaFile>) -> Self {
        let by_name = files.iter().enumerate().map(|(index, file)| (file.name.to_string(), index)).collect();
        Self { files, by_name }
    }
}

impl MediaFile {
    /// Opens the file, with its length and validators as of now. May wait for a disk: not for an async task.
    ///
    /// # Errors
    ///
    /// When a folder's file is gone, unreadable or no longer inside the folder.
    pub fn open(&self) -> io::Result<(Opened, Version)> {
        let version = || Version { size: self.size, entity_tag: self.own_tag(), modified_s: MADE_S };
        match &self.source {
            Source::Made(made) => Ok((Opened::Made(*made), version())),
            Source::Clip(noise) => Ok((Opened::Noise(*noise), version())),
            Source::Disk { root, path } => {
                folder::open(root, path).map(|(file, version)| (Opened::Disk(file), version))
            }
        }
    }

    /// Generated files never change, so their tag is their name.
    fn own_tag(&self) -> String {
        format!("\"{}\"", self.name.content_id())
    }
}

impl Made {
    /// The whole file; milliseconds of work.
    #[must_use]
    pub fn bytes(self) -> Bytes {
        match self {
            Self::Chime => wav::chime().into(),
            Self::Picture { index, width, height } => {
                let painting = Painting::new(index);
                let (step_x, step_y) = (1.0 / width as f32, 1.0 / height as f32);
                // Small pictures are shown enlarged, so their pixels have the mean colour of what they cover.
                let side: u16 = if width < 320 { 3 } else { 1 };
                let within = |step: u16| (f32::from(step) + 0.5) / f32::from(side);
                let pixel = |x, y| {
                    let mut sum = [0; 3];
                    for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
                        let seen = painting.at((x as f32 + within(column)) * step_x, (y as f32 + within(row)) * step_y);
                        sum = std::array::from_fn(|part| sum[part] + u16::from(seen[part]));
                    }
                    sum.map(|part| u8::try_from(part / (side * side)).unwrap_or(u8::MAX))
                };
                png::encode(width, height, pixel).into()
            }
        }
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Version {
    /// Bytes.
    pub size: u64,
    /// The `ETag`, strong, with its quotes.
    pub entity_tag: String,
    /// The `Last-Modified`, seconds since 1970.
    pub modified_s: u64,
}

/// Number of the content server that owns the media.
pub const CONTENT_SERVER: u32 = 100_500;

/// Files of a folder beyond these are left out.
pub const FOLDER_FILES_MAX: usize = 100_000;

/// Spreads a 64-bit key evenly: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
const fn scatter(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

fn picture(index: u32) -> MediaFile {
    let (width, height) = PICTURE_SIZES[index as usize % PICTURE_SIZES.len()];
    MediaFile {
        name: own_name(&format!("pictures/{index:03}.png")),
        size: png::file_bytes(width, height),
        kind: MediaKind::Picture,
        content_type: "image/png",
        source: Source::Made(Made::Picture { index, width, height }),
    }
}

/// Sizes rise by a constant factor from the smallest to the largest.
fn clip(index: u32) -> MediaFile {
    let exponent = f64::from(index) / f64::from(CLIPS - 1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 50 million")]
    let size = (CLIP_BYTES_MIN * (CLIP_BYTES_MAX / CLIP_BYTES_MIN).powf(exponent)).round() as u64;
    MediaFile {
        name: own_name(&format!("videos/clip-{index:02}.bin")),
        size,
        kind: MediaKind::Other,
        content_type: "application/octet-stream",
        source: Source::Clip(Noise::new(u64::from(index))),
    }
}

fn own_name(path: &str) -> CanonicalName {
    CanonicalName::parse(&format!("c{CONTENT_SERVER}/{path}")).expect("the demo's own names are canonical")
}

const PICTURES: u32 = 360;
const CLIPS: u32 = 24;
const CLIP_BYTES_MIN: f64 = 1e6;
const CLIP_BYTES_MAX: f64 = 50e6;

/// Eight by five each; from 2 KB to 1.7 MB as files.
const PICTURE_SIZES: [(u32, u32); 12] = [
    (320, 200),
    (480, 300),
    (160, 100),
    (320, 200),
    (640, 400),
    (64, 40),
    (320, 200),
    (240, 150),
    (32, 20),
    (320, 200),
    (160, 100),
    (960, 600),
];

/// 2025-11-01, when generated files were last changed.
const MADE_S: u64 = 1_761_955_200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundreds_of_files_from_two_kilobytes_to_fifty_megabytes() {
        let library = Library::generated();
        let sizes: Vec<u64> = library.files().iter().map(|file| file.size).collect();
        assert_eq!(sizes.len(), 385);
        assert_eq!(sizes.iter().min(), Some(&2_008));
        assert_eq!(sizes.iter().max(), Some(&50_000_000));
    }

    #[test]
    fn a_file_is_as_long_as_it_was_said_to_be() {
        let library = Library::generated();
        for file in library.files().iter().filter(|file| file.size < 200_000) {
            let (opened, version) = file.open().unwrap();
            let Opened::Made(made) = opened else { panic!("{} is small", file.name) };
            assert_eq!(made.bytes().len() as u64, file.size, "{}", file.name);
            assert_eq!(version.size, file.size);
        }
    }

    #[test]
    fn every_file_is_found_by_its_name() {
        let library = Library::generated();
        for file in library.files() {
            assert_eq!(library.find(&file.name).map(|found| &found.name), Some(&file.name));
        }
        assert!(library.find(&CanonicalName::parse("c100500/pictures/999.png").unwrap()).is_none());
    }
}
