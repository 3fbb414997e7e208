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
//! A site (a hostname that is mapped whole to one content server, see [`crate::topology::Site`]) has URLs that
//! are somebody else's: they are not made canonical but kept byte for byte, with their query, as
//! [`CanonicalName::for_site`] says. What servers tell each other is read by [`CanonicalName::from_written`],
//! which takes both kinds; what a client says of `/c...` is read strictly.
//!
//! # Invariants
//!
//! - Canonicalising is idempotent: the canonical name's own URL path gives the same name.
//! - A site's URL whose path is canonical and which has no query is the same file as `/c{number}/path`.
//! - A name is visible ASCII, so it can stand in a request line and in a header as it is.
//! - **Frozen.** The id of a name never changes: every cache of every region is keyed by it.
//!   `content_ids_never_change` pins it.

use std::fmt;

/// A file as the whole system names it: `c100500/path/to/a.jpg`; a site's may have a query, `c7/list?page=2`.
///
/// Made of the path of a request for `/c...`:
/// Percent-encodings of unreserved characters are decoded, the hexadecimal digits of all others are in
/// upper case (RFC 3986, sections 6.2.2.1 and 6.2.2.2); what is encoded is UTF-8; no segment is empty, `.`
/// or `..`; at most [`NAME_BYTES_MAX`] bytes.
///
/// Bytes that are no UTF-8 are refused because a lenient decoder reads some of them as another
/// character: `%C0%AF`, an overlong slash. Dot segments with parameters, `..;x`, are refused because some
/// servers take the parameters off before they look for dots.
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
        // Most are canonical as they are.
        if name.len() <= NAME_BYTES_MAX && is_plain(path) {
            return Ok(Self { text: name.to_owned(), content_server });
        }
        let mut text = String::with_capacity(name.len());
        text.push_str(server);
        text.push('/');
        normalize(path, &mut text)?;
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        text[server.len() + 1..].split('/').try_for_each(check_segment)?;
        Ok(Self { text, content_server })
    }

    /// The name of what a site's URL means: path and query as the client sent them, byte for byte, so that the
    /// content server sees what it would see without a CDN before it. Whatever HTTP allows is allowed: empty and
    /// dot segments, `%2F`, any query. Without `query` the file has none, which is another file than one with an
    /// empty query.
    ///
    /// # Errors
    ///
    /// [`NameError::NotAFile`] for what does not begin with a slash, [`NameError::BadCharacter`] (400) for what can
    /// stand in no request line, [`NameError::SiteTooLong`] (414) above [`SITE_NAME_BYTES_MAX`].
    pub fn for_site(content_server: u32, path: &str, query: Option<&str>) -> Result<Self, NameError> {
        if path.len() + query.map_or(0, str::len) > SITE_NAME_BYTES_MAX {
            return Err(NameError::SiteTooLong);
        }
        if !path.starts_with('/') {
            return Err(NameError::NotAFile);
        }
        if path.contains('?') {
            return Err(NameError::BadCharacter);
        }
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        Self::from_written(&format!("c{content_server}{path}{query}"))
    }

    /// Reads a name that a server wrote: as it is or not at all. It takes what [`CanonicalName::parse`] and
    /// [`CanonicalName::for_site`] give, and so more than a client may ask for under `/c...`.
    ///
    /// # Errors
    ///
    /// As [`CanonicalName::for_site`]; [`NameError::NotAFile`] when it does not begin with `c`, a number and a slash.
    pub fn from_written(name: &str) -> Result<Self, NameError> {
        if name.len() > SITE_NAME_BYTES_MAX {
            return Err(NameError::SiteTooLong);
        }
        let (server, _) = name.split_once('/').ok_or(NameError::NotAFile)?;
        let content_server = content_server_number(server)?;
        let (path, query) = name.split_once('?').unwrap_or((name, ""));
        if !path.bytes().all(is_site_path_byte) || !query.bytes().all(is_site_query_byte) {
            return Err(NameError::BadCharacter);
        }
        Ok(Self { text: name.to_owned(), content_server })
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

    /// The path on the content server, `/path/to/a.jpg`, without a query.
    #[must_use]
    pub fn path(&self) -> &str {
        let path = self.path_and_query();
        path.split_once('?').map_or(path, |(path, _)| path)
    }

    /// The path on the content server and the query of a site's file, `/list?page=2`.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        let slash = self.text.find('/').expect("a canonical name has a slash");
        &self.text[slash..]
    }

    /// The name without the query of a site's file: what the patterns of content classes are matched against.
    #[must_use]
    pub fn without_query(&self) -> &str {
        self.text.split_once('?').map_or(&self.text, |(name, _)| name)
    }

    /// Whether a decoded segment of the path is `.` or `..`: only a site's can be.
    #[must_use]
    pub(crate) fn has_dot_segment(&self) -> bool {
        // Nothing is made for the many that have neither.
        if !self.text.contains("/.") && !self.text.contains('%') && !self.text.contains('\\') {
            return false;
        }
        let decoded = self.path().replace("%2e", ".").replace("%2E", ".");
        let decoded = decoded.replace("%2f", "/").replace("%2F", "/").replace("%5c", "/").replace("%5C", "/");
        decoded.split(['/', '\\']).any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
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

    /// An id that was written down before, as the name of a file on disk or in an index.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
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
    /// A segment that is `.` or `..`, encoded or not, with parameters behind a `;` or not.
    #[error("the path has a segment that is . or ..")]
    DotSegment,
    /// An encoded slash, backslash or control character.
    #[error("the path has an encoded slash, backslash or control character")]
    EncodedDelimiter,
    /// A percent sign that is not followed by two hexadecimal digits.
    #[error("the path has a % that is not followed by two hexadecimal digits")]
    BadEncoding,
    /// Encoded bytes that are no UTF-8.
    #[error("the path has percent-encoded bytes that are not UTF-8")]
    NotUtf8,
    /// A character that RFC 3986 does not allow in a path.
    #[error("the path has a character that must be percent-encoded")]
    BadCharacter,
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("the name is longer than {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// A site's URL of more than [`SITE_NAME_BYTES_MAX`] bytes: 414.
    #[error("the path and query are longer than {SITE_NAME_BYTES_MAX} bytes")]
    SiteTooLong,
}

/// Longest canonical name under `/c...`, in bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// Longest name of a site's file, its query included, in bytes. Half of the 8,000 that RFC 9110, section 4.1 would
/// have every server take: a name is kept in RAM for each file that is rated, and nobody caches by longer ones.
pub const SITE_NAME_BYTES_MAX: usize = 4096;

/// `c100500` to 100500: decimal, no sign, no leading zero, at most `u32::MAX`.
fn content_server_number(segment: &str) -> Result<u32, NameError> {
    let digits = segment.strip_prefix('c').ok_or(NameError::NotAFile)?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (digits.len() > 1 && digits.starts_with('0')) {
        return Err(NameError::NotAFile);
    }
    digits.parse().map_err(|_| NameError::NotAFile)
}

/// Whether a path is canonical as it is, told in one look: nothing is encoded, no segment is empty, begins with a dot or has
/// parameters. Others may be canonical, too.
fn is_plain(path: &str) -> bool {
    let mut before = b'/';
    for byte in path.bytes() {
        let first = before == b'/';
        if !PLAIN[usize::from(byte)] || (first && matches!(byte, b'/' | b'.')) {
            return false;
        }
        before = byte;
    }
    before != b'/'
}

/// Appends `path` to `text` with its percent-encodings normalised.
fn normalize(path: &str, text: &mut String) -> Result<(), NameError> {
    let mut bytes = path.bytes();
    // Encoded bytes above ASCII in a row. Unencoded ones are refused, so a character is whole in it.
    let mut beyond_ascii = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            if !is_path_character(byte) {
                return Err(NameError::BadCharacter);
            }
            check_utf8(&mut beyond_ascii)?;
            text.push(char::from(byte));
            continue;
        }
        let digits = bytes.next().zip(bytes.next()).ok_or(NameError::BadEncoding)?;
        let decoded = decode_hex(digits.into()).ok_or(NameError::BadEncoding)?;
        if decoded.is_ascii() {
            check_utf8(&mut beyond_ascii)?;
        } else {
            beyond_ascii.push(decoded);
        }
        if is_unreserved(decoded) {
            text.push(char::from(decoded));
        } else if matches!(decoded, b'/' | b'\\' | 0..=0x1f | 0x7f) {
            return Err(NameError::EncodedDelimiter);
        } else {
            push_encoded(decoded, text);
        }
    }
    check_utf8(&mut beyond_ascii)
}

/// Empties `bytes` when they are whole characters.
fn check_utf8(bytes: &mut Vec<u8>) -> Result<(), NameError> {
    std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?;
    bytes.clear();
    Ok(())
}

/// Looks at one segment of a normalised path.
fn check_segment(segment: &str) -> Result<(), NameError> {
    let plain = segment.split(';').next().unwrap_or_default();
    let plain = plain.split("%3B").next().unwrap_or_default();
    match plain {
        _ if segment.is_empty() => Err(NameError::EmptySegment),
        "." | ".." => Err(NameError::DotSegment),
        _ => Ok(()),
    }
}

/// The byte that two hexadecimal digits are.
pub(crate) fn decode_hex([high, low]: [u8; 2]) -> Option<u8> {
    Some(hex_digit(high)? * 16 + hex_digit(low)?)
}

/// Appends a byte as `%XX`, in upper case.
pub(crate) fn push_encoded(byte: u8, text: &mut String) {
    text.push('%');
    text.push(char::from(HEX[usize::from(byte >> 4)]));
    text.push(char::from(HEX[usize::from(byte & 15)]));
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// RFC 3986, section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar` of RFC 3986, section 3.3, or the slash between segments.
pub(crate) const fn is_path_character(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        )
}

/// What can stand in the path of a request line: visible ASCII but the delimiters of a URI's other parts, and the
/// few that HTTP implementations agree to refuse.
const fn is_site_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?' | b'<' | b'>' | b'`')
}

/// As [`is_site_path_byte`], behind the first question mark.
const fn is_site_query_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>')
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Bytes that mean nothing but themselves.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        plain[byte as usize] = is_path_character(byte) && byte != b';';
        byte += 1;
    }
    plain
};

#[cfg(test)]
mod tests;
