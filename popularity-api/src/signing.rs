//! Signed links: what is signed, how it is written into a URL, and whether what a client presents is good. Pure.
//!
//! ```text
//!   a file      https://sun4-2-1.example.org/c7/a.mp4?e=1893456000&k=2026b&s=SIGNATURE
//!   a folder    https://sun4-2-1.example.org/s.1893456000.3.2026b.SIGNATURE/c7/films/1/master.m3u8
//!                                              |          | |     |
//!                                 good until, seconds     | |     HMAC-SHA256, base64url without padding, 43 characters
//!                                 since 1970              | id of the key
//!                                                         folder: the first 3 segments of the name, c7/films/1/
//!
//!   what is signed      file:    "file\n1893456000\n2026b\n/c7/a.mp4"           the canonical name behind a slash
//!                       folder:  "folder\n1893456000\n2026b\n/c7/films/1/"      and all below it
//! ```
//!
//! A folder's signature stands in the path, so that the relative URLs of a playlist (HLS, DASH) inherit it: the segment
//! `720p/1.ts` of the playlist above is asked for as `/s.1893456000.3.2026b.SIGNATURE/c7/films/1/720p/1.ts`. A `../` that
//! leaves the folder meets a signature that does not fit.
//!
//! # Invariants
//!
//! - The signature is no part of a file's name: it is cut off before the name is read, and with it nothing is fetched, kept,
//!   purged or counted. Servers ask each other without.
//! - The form is frozen (`the_form_never_changes`): back ends in other languages make such links themselves.
//! - The two kinds of signature and the numbers in them are signed along, each on its own line, and no part can hold a
//!   line break: nothing that is signed can be read in two ways.
//!
//! Why not the whole URL: the host is chosen anew for each client, and a sun may pass a client on to its sibling. Why an
//! expiry in steps ([`expiry`]): the links to a file are the same one for a while, so browsers find it in their caches.

mod keys;

use aws_lc_rs::hmac;
use geo::topology::{Covers, SignedLinks, Signing, is_key_id};

pub use keys::{Keys, follow, problems};

/// Makes signatures with one key.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    id: &'a str,
    key: &'a hmac::Key,
}

impl<'a> Signer<'a> {
    /// Id of its key.
    #[must_use]
    pub const fn key_id(&self) -> &'a str {
        self.id
    }

    /// Appends the path of a link to a file, signature and all: `/c7/a.mp4?e=...` or `/s.../c7/films/1/a.m3u8`. `name` is
    /// canonical, `expires_s` in seconds since 1970.
    pub fn write_path(&self, path: &mut Vec<u8>, name: &str, covers: Covers, expires_s: u64) {
        match folder(name).filter(|_| covers == Covers::Folder) {
            Some((folder, depth)) => {
                path.extend_from_slice(IN_FRONT.as_bytes());
                write_number(path, expires_s);
                path.push(b'.');
                write_number(path, depth as u64);
                path.push(b'.');
                path.extend_from_slice(self.id.as_bytes());
                path.push(b'.');
                path.extend_from_slice(&self.sign(Signed { what: "folder", expires_s, key: self.id, path: folder }));
                path.push(b'/');
                path.extend_from_slice(name.as_bytes());
            }
            None => {
                path.push(b'/');
                path.extend_from_slice(name.as_bytes());
                path.extend_from_slice(b"?e=");
                write_number(path, expires_s);
                path.extend_from_slice(b"&k=");
                path.extend_from_slice(self.id.as_bytes());
                path.extend_from_slice(b"&s=");
                path.extend_from_slice(&self.sign(Signed { what: "file", expires_s, key: self.id, path: name }));
            }
        }
    }

    fn sign(&self, signed: Signed<'_>) -> [u8; SIGNATURE_CHARS] {
        let tag = signed.with(|message| hmac::sign(self.key, message));
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        encode(&bytes)
    }
}

impl std::fmt::Debug for Signer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("id", &self.id).finish_non_exhaustive()
    }
}

/// When a link that is made now expires, seconds since 1970: after the time of its class at least, and at the end of a
/// quarter of that, the same for all.
#[must_use]
pub const fn expiry(links: SignedLinks, now_s: u64) -> u64 {
    let step = if links.ttl_s < 4 { 1 } else { links.ttl_s / 4 };
    now_s.saturating_add(links.ttl_s).div_ceil(step).saturating_mul(step)
}

/// What a signature covers, for people: `file` or `folder /c7/films/1/`.
#[must_use]
pub fn covered(name: &str, covers: Covers) -> String {
    match folder(name).filter(|_| covers == Covers::Folder) {
        Some((folder, _)) => format!("folder /{folder}"),
        None => "file".to_owned(),
    }
}

/// The path of a request without the signature in front of it, and that signature, as it stood there:
/// `/s.../c7/a` is (`s...`, `/c7/a`).
#[must_use]
pub fn split(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix(IN_FRONT) else { return (None, path) };
    let end = rest.find('/').map_or(path.len(), |slash| IN_FRONT.len() + slash);
    let (front, path) = path.split_at(end);
    (front.strip_prefix('/'), path)
}

/// Whether a client may have the file `name` (canonical) at `now_s`, by the signature in front of its path as [`split`] gives
/// it, or else the one in its query. `links`: how links to the files of its class are made; a folder's signature opens those
/// of classes that say so, and no file that is to have a link of its own.
///
/// # Errors
///
/// [`Denied`]; a signature that is wrong is found to be so in constant time.
pub fn check(
    name: &str,
    in_front: Option<&str>,
    query: Option<&str>,
    links: SignedLinks,
    signing: &Signing,
    keys: &Keys,
    now_s: u64,
) -> Result<(), Denied> {
    let presented = match in_front {
        Some(_) if links.covers != Covers::Folder => return Err(Denied::Wrong),
        Some(front) => Presented::in_front(front, name)?,
        None => Presented::in_query(query.unwrap_or_default(), name)?,
    };
    let signed = presented.signed;
    if !signing.accepts(signed.key) {
        return Err(Denied::UnknownKey);
    }
    let key = keys.find(signed.key).ok_or(Denied::NoSecret)?;
    let signature = decode(presented.signature).ok_or(Denied::Malformed)?;
    signed.with(|message| hmac::verify(key, message, &signature)).map_err(|_| Denied::Wrong)?;
    if now_s > signed.expires_s.saturating_add(signing.skew_s) {
        return Err(Denied::Expired);
    }
    Ok(())
}

/// Why a client does not get a file: 403, but for [`Denied::NoSecret`], which is 503.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Denied {
    /// There is no signature.
    #[error("this file is served with signed links only: ask for a link to it")]
    Missing,
    /// Parts of it are missing, twice there or no such thing.
    #[error("the link's signature is damaged: it is e (expiry), k (key) and s (signature), each once")]
    Malformed,
    /// It was good.
    #[error("the link has expired: ask for a new one")]
    Expired,
    /// The topology has no such key, or no longer.
    #[error("the link is signed with a key that is not accepted, or no longer: ask for a new one")]
    UnknownKey,
    /// It is not this file's, not this folder's, or not this key's.
    #[error("the link's signature does not fit this file: a signed link is good as it is, unchanged")]
    Wrong,
    /// The topology accepts the key, and this server's key file does not have it: the operator's mistake.
    #[error("this server does not have the key that the link is signed with")]
    NoSecret,
}

impl Denied {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Missing, Self::Malformed, Self::Expired, Self::UnknownKey, Self::Wrong, Self::NoSecret];

    /// As a metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Expired => "expired",
            Self::UnknownKey => "unknown_key",
            Self::Wrong => "wrong",
            Self::NoSecret => "no_secret",
        }
    }
}

/// What is signed, part by part.
#[derive(Clone, Copy, Debug)]
struct Signed<'a> {
    what: &'a str,
    expires_s: u64,
    key: &'a str,
    /// Without the slash in front.
    path: &'a str,
}

impl Signed<'_> {
    /// Hands the message over; nothing is allocated for it unless it is unusually long.
    fn with<T>(&self, hand: impl FnOnce(&[u8]) -> T) -> T {
        let mut digits = [0; NUMBER_CHARS_MAX];
        let parts = [self.what, "\n", number(self.expires_s, &mut digits), "\n", self.key, "\n/", self.path];
        let mut short = [0; 256];
        let mut length = 0;
        for part in parts {
            let Some(place) = short.get_mut(length..length + part.len()) else {
                return hand(parts.concat().as_bytes());
            };
            place.copy_from_slice(part.as_bytes());
            length += part.len();
        }
        hand(&short[..length])
    }
}

/// A signature as it was presented for a file.
struct Presented<'a> {
    signed: Signed<'a>,
    signature: &'a str,
}

impl<'a> Presented<'a> {
    /// `s.1893456000.3.2026b.SIGNATURE`
    fn in_front(front: &'a str, name: &'a str) -> Result<Self, Denied> {
        let mut parts = front.split('.');
        let mut next = || parts.next().ok_or(Denied::Malformed);
        let (_, expires, depth, key, signature) = (next()?, next()?, next()?, next()?, next()?);
        if next().is_ok() || !is_key_id(key) {
            return Err(Denied::Malformed);
        }
        let expires_s = parse_number(expires).ok_or(Denied::Malformed)?;
        let depth = parse_number(depth).and_then(|depth| usize::try_from(depth).ok()).filter(|depth| *depth > 0);
        let end = name.match_indices('/').nth(depth.ok_or(Denied::Malformed)? - 1);
        // A folder deeper than the file itself is not one that it is in; a whole content server is none that is signed.
        let (slash, _) = end.filter(|_| depth != Some(1)).ok_or(Denied::Wrong)?;
        let folder = &name[..=slash];
        Ok(Self { signed: Signed { what: "folder", expires_s, key, path: folder }, signature })
    }

    /// `e=1893456000&k=2026b&s=SIGNATURE`, in any order, among parameters that mean nothing here.
    fn in_query(query: &'a str, name: &'a str) -> Result<Self, Denied> {
        let mut found: [Option<&str>; 3] = [None; 3];
        for (parameter, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let place = match parameter {
                "e" => &mut found[0],
                "k" => &mut found[1],
                "s" => &mut found[2],
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(Denied::Malformed);
            }
        }
        match found {
            [None, None, None] => Err(Denied::Missing),
            [Some(expires), Some(key), Some(signature)] if is_key_id(key) => {
                let expires_s = parse_number(expires).ok_or(Denied::Malformed)?;
                Ok(Self { signed: Signed { what: "file", expires_s, key, path: name }, signature })
            }
            _ => Err(Denied::Malformed),
        }
    }
}

/// The folder of a file with the slash behind it, and of how many segments it is. None: it lies in none, right below its
/// content server, whose other files one signature is not to open.
fn folder(name: &str) -> Option<(&str, usize)> {
    let slash = name.rfind('/')?;
    let folder = &name[..=slash];
    let depth = folder.bytes().filter(|byte| *byte == b'/').count();
    (depth > 1).then_some((folder, depth))
}

fn write_number(path: &mut Vec<u8>, value: u64) {
    let mut digits = [0; NUMBER_CHARS_MAX];
    path.extend_from_slice(number(value, &mut digits).as_bytes());
}

/// Decimal digits.
fn number(mut value: u64, digits: &mut [u8; NUMBER_CHARS_MAX]) -> &str {
    let mut start = NUMBER_CHARS_MAX;
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
        if value == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[start..]).unwrap_or_default()
}

/// A number in its one spelling.
fn parse_number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// base64url without padding (RFC 4648, section 5).
fn encode(bytes: &[u8; SIGNATURE_BYTES]) -> [u8; SIGNATURE_CHARS] {
    let mut text = [0; SIGNATURE_CHARS];
    for (four, three) in text.chunks_mut(4).zip(bytes.chunks(3)) {
        let word = three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for (place, shift) in four.iter_mut().zip([18, 12, 6, 0]) {
            *place = ALPHABET[(word >> shift & 63) as usize];
        }
    }
    text
}

/// The bytes, when it is exactly what [`encode`] gives for them.
fn decode(text: &str) -> Option<[u8; SIGNATURE_BYTES]> {
    let text: &[u8; SIGNATURE_CHARS] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; SIGNATURE_BYTES];
    for (three, four) in bytes.chunks_mut(3).zip(text.chunks(4)) {
        let mut word = 0_u32;
        for character in four {
            word = word << 6 | value(*character)?;
        }
        word <<= 6 * (4 - four.len());
        for (place, shift) in three.iter_mut().zip([16, 8, 0]) {
            *place = u8::try_from(word >> shift & 255).ok()?;
        }
    }
    // Two bits of the last character mean nothing: one spelling is enough.
    (encode(&bytes) == *text).then_some(bytes)
}

fn value(character: u8) -> Option<u32> {
    let value = match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

/// What a path begins with that has a signature in front: no name of a file does.
const IN_FRONT: &str = "/s.";
const SIGNATURE_BYTES: usize = 32;
const SIGNATURE_CHARS: usize = 43;
const NUMBER_CHARS_MAX: usize = 20;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[cfg(test)]
mod tests;
