//! A folder of the user's as a source of media.
//!
//! Names are the paths below the folder, percent-encoded where a URL needs it. Folders that are
//! symbolic links are not entered; a file that is one counts when what it points to lies in the folder.
//! Whatever has a name that begins with a dot, or lies below one, is neither listed nor opened.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use geo::CanonicalName;
use rustix::fs::OFlags;

use super::{CONTENT_SERVER, FOLDER_FILES_MAX, MediaFile, MediaKind, Source, Version};

/// Every servable file below `root`, in order of name; what cannot be named or read is left out.
pub(super) fn list(root: &Path) -> io::Result<Vec<MediaFile>> {
    let root = root.canonicalize()?;
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if folder == root => return Err(error),
            Err(_) => continue,
        };
        for entry in entries.flatten().filter(|entry| !is_hidden(&root, &entry.path())) {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => files.extend(listed(&root, &entry.path())),
                Err(_) => {}
            }
            if files.len() >= FOLDER_FILES_MAX {
                folders.clear();
                break;
            }
        }
    }
    files.sort_by(|a: &MediaFile, b: &MediaFile| a.name.cmp(&b.name));
    files.dedup_by(|a, b| a.name == b.name);
    Ok(files)
}

/// Opens a listed file, if it is still a regular file inside `root` and nothing on its way is hidden.
pub(super) fn open(root: &Path, path: &Path) -> io::Result<(File, Version)> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if is_hidden(root, path) {
        return refused("it is hidden");
    }
    // What is found is held first and judged then, so nobody can swap it in between. O_PATH only finds: a fifo
    // does not wait for its writer, a device does nothing.
    let found = OpenOptions::new().read(true).custom_flags(FIND_ONLY).open(path)?;
    let held = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let target = fs::read_link(&held)?;
    if !target.starts_with(root) {
        return refused("it points out of the folder");
    }
    if is_hidden(root, &target) {
        return refused("it points to what is hidden");
    }
    if !found.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let file = File::open(&held)?;
    let metadata = file.metadata()?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let size = metadata.len();
    let entity_tag = format!("\"{:x}-{size:x}\"", modified.as_nanos());
    Ok((file, Version { size, entity_tag, modified_s: modified.as_secs() }))
}

/// Whether a segment of the path below `root` begins with a dot: people keep keys and settings there.
fn is_hidden(root: &Path, path: &Path) -> bool {
    path.strip_prefix(root).is_ok_and(|below| below.iter().any(|segment| segment.as_bytes().starts_with(b".")))
}

fn listed(root: &Path, path: &Path) -> Option<MediaFile> {
    let (_, version) = open(root, path).ok()?;
    let name = name_of(path.strip_prefix(root).ok()?)?;
    let (kind, content_type) = type_of(path);
    let source = Source::Disk { root: root.to_owned(), path: path.to_owned() };
    Some(MediaFile { name, size: version.size, kind, content_type, source })
}

/// The canonical name of a path below the folder; none when it has none (a control character, too long).
fn name_of(path: &Path) -> Option<CanonicalName> {
    let mut name = format!("c{CONTENT_SERVER}");
    for segment in path {
        name.push('/');
        for &byte in segment.as_bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
                name.push(char::from(byte));
            } else {
                name.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    CanonicalName::parse(&name).ok()
}

fn type_of(path: &Path) -> (MediaKind, &'static str) {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let known = TYPES.iter().find(|(known, _, _)| *known == extension);
    known.map_or((MediaKind::Other, "application/octet-stream"), |&(_, kind, content_type)| (kind, content_type))
}

const FIND_ONLY: i32 = OFlags::PATH.bits().cast_signed();

const TYPES: [(&str, MediaKind, &str); 19] = [
    ("avif", MediaKind::Picture, "image/avif"),
    ("gif", MediaKind::Picture, "image/gif"),
    ("jpeg", MediaKind::Picture, "image/jpeg"),
    ("jpg", MediaKind::Picture, "image/jpeg"),
    ("png", MediaKind::Picture, "image/png"),
    ("svg", MediaKind::Picture, "image/svg+xml"),
    ("webp", MediaKind::Picture, "image/webp"),
    ("aac", MediaKind::Sound, "audio/aac"),
    ("flac", MediaKind::Sound, "audio/flac"),
    ("m4a", MediaKind::Sound, "audio/mp4"),
    ("mp3", MediaKind::Sound, "audio/mpeg"),
    ("oga", MediaKind::Sound, "audio/ogg"),
    ("ogg", MediaKind::Sound, "audio/ogg"),
    ("opus", MediaKind::Sound, "audio/ogg"),
    ("wav", MediaKind::Sound, "audio/wav"),
    ("mp4", MediaKind::Other, "video/mp4"),
    ("webm", MediaKind::Other, "video/webm"),
    ("pdf", MediaKind::Other, "application/pdf"),
    ("txt", MediaKind::Other, "text/plain; charset=utf-8"),
];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_becomes_a_canonical_name() {
        check_name("a.jpg", "c100500/a.jpg");
        check_name("a/b c.jpg", "c100500/a/b%20c.jpg");
        check_name("100%.jpg", "c100500/100%25.jpg");
        check_name("why?#.jpg", "c100500/why%3F%23.jpg");
        check_name("\u{444}.jpg", "c100500/%D1%84.jpg");
        check_name("tab\t.jpg", "none");
        check_name("back\\slash.jpg", "none");
    }

    #[test]
    fn only_what_lies_in_the_folder_is_listed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.txt"), "secret").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("below")).unwrap();
        fs::write(root.join("below/a.jpg"), "picture").unwrap();
        symlink(root.join("below/a.jpg"), root.join("same.jpg")).unwrap();
        symlink(outside.path().join("secret.txt"), root.join("escape.txt")).unwrap();
        symlink(outside.path(), root.join("escape")).unwrap();
        symlink(root, root.join("below/loop")).unwrap();
        let names: Vec<String> = list(root).unwrap().iter().map(|file| file.name.to_string()).collect();
        assert_eq!(names, ["c100500/below/a.jpg", "c100500/same.jpg"]);
    }

    #[test]
    fn a_file_that_was_replaced_by_a_way_out_is_not_opened() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.txt"), "secret").unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.txt"), "text").unwrap();
        let files = list(folder.path()).unwrap();
        assert!(files[0].open().is_ok());
        fs::remove_file(folder.path().join("a.txt")).unwrap();
        symlink(outside.path().join("secret.txt"), folder.path().join("a.txt")).unwrap();
        assert_eq!(files[0].open().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn what_is_hidden_is_neither_listed_nor_opened() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join(".ssh/deep")).unwrap();
        fs::create_dir_all(root.join("below/.git")).unwrap();
        let hidden = [".netrc", ".ssh/id", ".ssh/deep/id", "below/.git/config", "below/.a.jpg"];
        for file in hidden.iter().chain(&["a.jpg", "below/b..jpg"]) {
            fs::write(root.join(file), "text").unwrap();
        }
        symlink(root.join(".ssh/id"), root.join("id.txt")).unwrap();
        let names: Vec<String> = list(&root).unwrap().iter().map(|file| file.name.to_string()).collect();
        assert_eq!(names, ["c100500/a.jpg", "c100500/below/b..jpg"]);
        for file in hidden.iter().chain(&["id.txt"]) {
            let refused = open(&root, &root.join(file)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{file}: {refused}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), fifo, 0o600.into(), 0).unwrap();
        for name in ["folder", "fifo"] {
            let refused = open(&root, &root.join(name)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name}: {refused}");
        }
    }

    #[track_caller]
    fn check_name(path: &str, expected: &str) {
        let name = name_of(Path::new(path)).map_or_else(|| "none".to_owned(), |name| name.to_string());
        assert_eq!(name, expected, "{path}");
    }
}
