//! A folder of the user's as a source of media.
//!
//! Names are the paths below the folder, percent-encoded where a URL needs it. Folders that are
//! symbolic links are not entered; a file that is one counts when what it points to lies in the folder.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use geo::CanonicalName;

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
        for entry in entries.flatten() {
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

/// Opens a listed file, if it is still a regular file inside `root`.
pub(super) fn open(root: &Path, path: &Path) -> io::Result<(File, Version)> {
    let target = path.canonicalize()?;
    if !target.starts_with(root) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it points out of the folder"));
    }
    // A fifo would wait for its writer for ever: look before opening.
    if !fs::metadata(&target)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let file = File::open(&target)?;
    let metadata = file.metadata()?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let size = metadata.len();
    let entity_tag = format!("\"{:x}-{size:x}\"", modified.as_nanos());
    Ok((file, Version { size, entity_tag, modified_s: modified.as_secs() }))
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

    #[track_caller]
    fn check_name(path: &str, expected: &str) {
        let name = name_of(Path::new(path)).map_or_else(|| "none".to_owned(), |name| name.to_string());
        assert_eq!(name, expected, "{path}");
    }
}
