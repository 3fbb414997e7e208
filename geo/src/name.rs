//! What a file is called, and the id everything else keys it by.
//!
//! A request path becomes a [`CanonicalName`] or is refused; there is no third way, so two spellings
//! of one file cannot have two copies, and no spelling reaches a content server that was not looked at.
//!
//! ```text
//!   /c100500/a/%62.jpg  --canonical-->  c100500/a/b.jpg  --blake3, first 16 bytes-->  ContentId
//!    |      |
//!    |      path on that server: upstream sees "/a/b.jpg"
//!    content server
//! ```
//!
//! # Invariants
//!
//! - Canonicalising is idempotent: the canonical name's own URL path gives the same name.
//! - **Frozen.** The id of a name never changes: every cache of every region is keyed by it.
//!   `content_ids_never_change` pins it.

use std::fmt;

/// A file as the whole system names it: `c100500/path/to/a.jpg`.
///
/// Percent-encodings of unreserved characters are decoded, the hexadecimal digits of all others are in
/// upper case (RFC 3986, sections 6.2.2.1 and 6.2.2.2); no segment is empty, `.` or `..`; at most
/// [`NAME_BYTES_MAX`] bytes.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CanonicalName {
    text: String,
    content_server: u32,
}

impl CanonicalName {
    /// Reads the path of a request, `/c100500/path/to/a.jpg`, without its query.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the path names no file; the client sees 400, or 404 when it does not begin
    /// with `/c` and a number ([`NameError::NotAFile`]).
    pub fn from_url_path(path: &str) -> Result<Self, NameError> {
        let name = path.strip_prefix('/').ok_or(NameError::NotAFile)?;
        Self::parse(name)
    }

    /// Reads a name without its leading slash, `c100500/path/to/a.jpg`.
    ///
    /// # Errors
    ///
    /// As [`CanonicalName::from_url_path`].
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let (server, path) = name.split_once('/').ok_or(NameError::NotAFile)?;
        let content_server = content_server_number(server)?;
        if name.len() > 3 * NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let mut text = String::with_capacity(name.len());
        text.push_str(server);
        text.push('/');
        normalize(path, &mut text)?;
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        for segment in text[server.len() + 1..].split('/') {
            match segment {
                "" => return Err(NameError::EmptySegment),
                "." | ".." => return Err(NameError::DotSegment),
                _ => {}
            }
        }
        Ok(Self { text, content_server })
    }

    /// The name, `c100500/path/to/a.jpg`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The number of the content server that owns the file, 100500.
    #[must_use]
    pub const fn content_server(&self) -> u32 {
        self.content_server
    }

    /// The path on the content server, `/path/to/a.jpg`.
    #[must_use]
    pub fn path(&self) -> &str {
        let slash = self.text.find('/').expect("a canonical name has a slash");
        &self.text[slash..]
    }

    /// The id that placement and caches key the file by.
    #[must_use]
    pub fn content_id(&self) -> ContentId {
        ContentId::of(&self.text)
    }
}

impl fmt::Display for CanonicalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The first 16 bytes of blake3 of a canonical name, never of the file's bytes.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ContentId([u8; 16]);

impl ContentId {
    fn of(name: &str) -> Self {
        let digest = blake3::hash(name.as_bytes());
        let (id, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        Self(*id)
    }

    /// The id's 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first eight bytes as a big-endian number: what placement mixes, and what a cache's holdings
    /// are told by (two of a million files share it with probability 3e-8).
    #[must_use]
    pub const fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a path names no file. All but [`NameError::NotAFile`] are a 400.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// It is not of the form `/c{number}/path`: 404.
    #[error("a file is asked for as /c{{number}}/path")]
    NotAFile,
    /// Two slashes in a row, or one at the end.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// A segment that is `.` or `..`, encoded or not.
    #[error("the path has a segment that is . or ..")]
    DotSegment,
    /// An encoded slash, backslash or control character.
    #[error("the path has an encoded slash, backslash or control character")]
    EncodedDelimiter,
    /// A percent sign that is not followed by two hexadecimal digits.
    #[error("the path has a % that is not followed by two hexadecimal digits")]
    BadEncoding,
    /// A character that RFC 3986 does not allow in a path.
    #[error("the path has a character that must be percent-encoded")]
    BadCharacter,
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("the name is longer than {NAME_BYTES_MAX} bytes")]
    TooLong,
}

/// Longest canonical name, in bytes.
pub const NAME_BYTES_MAX: usize = 1024;

/// `c100500` to 100500: decimal, no sign, no leading zero, at most `u32::MAX`.
fn content_server_number(segment: &str) -> Result<u32, NameError> {
    let digits = segment.strip_prefix('c').ok_or(NameError::NotAFile)?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (digits.len() > 1 && digits.starts_with('0')) {
        return Err(NameError::NotAFile);
    }
    digits.parse().map_err(|_| NameError::NotAFile)
}

/// Appends `path` to `text` with its percent-encodings normalised.
fn normalize(path: &str, text: &mut String) -> Result<(), NameError> {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            if !is_path_character(byte) {
                return Err(NameError::BadCharacter);
            }
            text.push(char::from(byte));
            continue;
        }
        let high = bytes.next().and_then(hex_digit).ok_or(NameError::BadEncoding)?;
        let low = bytes.next().and_then(hex_digit).ok_or(NameError::BadEncoding)?;
        let decoded = high * 16 + low;
        if is_unreserved(decoded) {
            text.push(char::from(decoded));
        } else if matches!(decoded, b'/' | b'\\' | 0..=0x1f | 0x7f) {
            return Err(NameError::EncodedDelimiter);
        } else {
            text.push('%');
            text.push(char::from(HEX[usize::from(high)]));
            text.push(char::from(HEX[usize::from(low)]));
        }
    }
    Ok(())
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// RFC 3986, section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar` of RFC 3986, section 3.3, or the slash between segments.
const fn is_path_character(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        )
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";
