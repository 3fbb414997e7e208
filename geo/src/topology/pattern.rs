//! Patterns of canonical names, `c*/avatars/*.jpg`, and of the paths of a site's URLs, `/avatars/*.jpg`: `*` is any
//! run of characters, slashes too.
//!
//! ```text
//!   c*/avatars/*.jpg     head "c"   middle "/avatars/"   tail ".jpg"
//!   c7/avatars/1/b.jpg        c  7  /avatars/  1/b  .jpg
//! ```
//!
//! Head and tail are cut off both ends, then each middle part is looked for from left to right, leftmost
//! first. Taking the leftmost is never wrong, since what follows a `*` may start anywhere, so nothing is
//! ever tried twice: matching is linear in the name whatever the pattern.
//!
//! Names and patterns are compared in one form, [`form`], in which all spellings of a character are the same one:
//! nearly every content server takes `/films(1)/a` and `/films%281%29/a` for one file, so a class has both or neither.
//! That is only how classes are found. The two are still two names, each kept for itself.

use std::borrow::Cow;

use memchr::memmem::Finder;

use crate::name;

/// A pattern, taken apart at its stars.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Pattern {
    head: String,
    middle: Vec<Part>,
    /// None: there is no star, and the head is the whole name.
    tail: Option<String>,
}

/// What has to be somewhere between two stars. What makes the search quick is made once, with the pattern: a class is looked
/// for with every request and every link.
#[derive(Clone, Debug)]
struct Part(Finder<'static>);

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.0.needle() == other.0.needle()
    }
}

impl Eq for Part {}

impl Pattern {
    /// Reads a pattern of canonical names; what is allowed when it is refused.
    pub(super) fn of_names(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err("a pattern has 1..=1024 bytes");
        }
        if !text.starts_with(['c', '*']) {
            return Err("a pattern begins with c or *, since names are c100500/path, without a leading slash");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#<>?[\\]^`{|}".contains(&byte)) {
            return Err("a pattern has the characters of names: letters, digits, -._~!$&'()*+,;=:@/ and %XX");
        }
        if !text.split('%').skip(1).all(begins_with_upper_hex) {
            return Err("a % in a pattern is followed by two hexadecimal digits in upper case, as in names");
        }
        Ok(Self::take_apart(text))
    }

    /// Reads a pattern of the paths of a site's URLs.
    pub(super) fn of_paths(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err("a pattern has 1..=1024 bytes");
        }
        if !text.starts_with(['/', '*']) {
            return Err("a site's pattern begins with / or *, since it is about the path of a URL");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"#<>?`".contains(&byte)) {
            return Err("a site's pattern has the characters of a URL's path: no query, no blank, nothing above ASCII");
        }
        Ok(Self::take_apart(text))
    }

    fn take_apart(text: &str) -> Self {
        let mut parts = text.split('*').map(|part| form(part).into_owned());
        let head = parts.next().unwrap_or_default();
        let mut middle: Vec<String> = parts.collect();
        let tail = middle.pop();
        let middle = middle.iter().filter(|part| !part.is_empty()).map(|part| Part(Finder::new(part).into_owned()));
        let middle = middle.collect();
        Self { head, middle, tail }
    }

    /// Whether there are names it matches that begin so; `prefix` as [`form`] gives it.
    pub(super) fn reaches(&self, prefix: &str) -> bool {
        // A star behind the head takes whatever the prefix has more.
        self.head.starts_with(prefix) || (self.tail.is_some() && prefix.starts_with(&self.head))
    }

    /// Whether the whole name is matched, which is as [`form`] gives it.
    pub(super) fn matches(&self, name: &str) -> bool {
        let Some(tail) = &self.tail else {
            return name == self.head;
        };
        // Most patterns differ in their tails, *.jpg and *.mp4, so those are compared first.
        let bytes = name.as_bytes();
        if !bytes.ends_with(tail.as_bytes()) || !bytes.starts_with(self.head.as_bytes()) {
            return false;
        }
        // Nothing where head and tail overlap.
        let Some(mut rest) = bytes.get(self.head.len()..bytes.len() - tail.len()) else {
            return false;
        };
        for Part(part) in &self.middle {
            let Some(start) = part.find(rest) else {
                return false;
            };
            rest = &rest[start + part.needle().len()..];
        }
        true
    }
}

/// A path or name as patterns are compared with it, without a query: what may stand in a path unencoded does so, all else
/// is `%XX` in upper case (RFC 3986, section 6.2.2). A star that is meant is `%2A`, since in a pattern `*` means another
/// thing; an encoded slash stays encoded, since it separates nothing. A `%` that encodes nothing stays as it is.
pub(super) fn form(path: &str) -> Cow<'_, str> {
    if path.bytes().all(is_itself) {
        return Cow::Borrowed(path);
    }
    let mut form = String::with_capacity(path.len() + 16);
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let decoded = behind.first_chunk().filter(|_| byte == b'%').and_then(|digits| name::decode_hex(*digits));
        rest = decoded.map_or(behind, |_| &behind[2..]);
        match decoded.unwrap_or(byte) {
            b'%' if decoded.is_none() => form.push('%'),
            b'/' if decoded.is_some() => form.push_str("%2F"),
            plain if is_itself(plain) => form.push(char::from(plain)),
            other => name::push_encoded(other, &mut form),
        }
    }
    Cow::Owned(form)
}

/// The form of a name without the parameters of its segments (`;` and what follows), if there are any: some content
/// servers take them off before they look for the file.
pub(super) fn without_parameters(form: &str) -> Option<String> {
    let plain = |segment: &str| segment.split(';').next().unwrap_or_default().to_owned();
    form.contains(';').then(|| form.split('/').map(plain).collect::<Vec<_>>().join("/"))
}

/// Whether a byte stands for itself in a form.
const fn is_itself(byte: u8) -> bool {
    ITSELF[byte as usize]
}

/// By byte: every byte of every name is asked about, with every request and every link.
const ITSELF: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < u8::MAX {
        table[byte as usize] = name::is_path_character(byte) && byte != b'*';
        byte += 1;
    }
    table
};

const PATTERN_BYTES_MAX: usize = 1024;

fn begins_with_upper_hex(text: &str) -> bool {
    text.len() >= 2 && text.bytes().take(2).all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_any_run_of_characters() {
        check("*", "c1/a", true);
        check("*.jpg", "c1/a/b.jpg", true);
        check("*.jpg", "c1/.jpg", true);
        check("*.jpg", "c1/a.jpeg", false);
        check("*.jpg", "c1/a.jpg.exe", false);
        check("c1/*", "c1/a", true);
        check("c1/*", "c11/a", false);
        check("c*/avatars/*.jpg", "c7/avatars/1/b.jpg", true);
        check("c*/avatars/*.jpg", "c7/avatars.jpg", false);
        check("*a*a*", "c1/a", false);
        check("*a*a*", "c1/aa", true);
        check("**", "c1/a", true);
        check("c1/**.jpg", "c1/a.jpg", true);
    }

    #[test]
    fn without_a_star_the_whole_name_is_meant() {
        check("c1/a", "c1/a", true);
        check("c1/a", "c1/ab", false);
        check("c1/ab", "c1/a", false);
    }

    #[test]
    fn head_and_tail_do_not_share_characters() {
        check("c1/aba*ba", "c1/aba", false);
        check("c1/aba*ba", "c1/ababa", true);
    }

    #[test]
    fn a_pattern_that_no_name_can_match_is_refused() {
        for pattern in ["", "/c1/a", "a*", "jpg", "C1/*", "*.jpg ", "*\u{444}", "*?x=1", "*\\*", "*%", "*%2", "*%d1"] {
            assert!(Pattern::of_names(pattern).is_err(), "{pattern}");
        }
        assert!(Pattern::of_names(&"*".repeat(1025)).is_err());
        assert!(Pattern::of_names("*%D1%84.jpg").is_ok());
        assert!(Pattern::of_names("*%D1").is_ok());
    }

    #[test]
    fn a_sites_pattern_is_about_the_path_of_a_url() {
        let matches = |pattern: &str, path: &str| Pattern::of_paths(pattern).unwrap().matches(&form(path));
        assert!(matches("/", "/") && matches("/images/*", "/images/") && matches("*.jpg", "//a/../b.jpg"));
        assert!(!matches("/images/*", "/image") && !matches("/a/b", "/a%2fb"));
        for pattern in ["", "c7/*", "a*", "/a?b", "/a b", "/\u{444}", "/a#b"] {
            assert!(Pattern::of_paths(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn every_spelling_of_a_path_has_one_form() {
        // Each of RFC 3986's characters of a path, however it is written; a star is no star.
        for byte in 0x21..0x7f_u8 {
            let encoded = [format!("a%{byte:02X}b"), format!("a%{byte:02x}b")];
            let expected = match char::from(byte) {
                other if other.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@".contains(other) => format!("a{other}b"),
                _ => format!("a%{byte:02X}b"),
            };
            encoded.iter().for_each(|path| check_form(path, &expected));
            if !"/%".contains(char::from(byte)) {
                check_form(&format!("a{}b", char::from(byte)), &expected);
            }
        }
        check_form("/a/b", "/a/b");
        check_form("c1/%d1%84%20", "c1/%D1%84%20");
        check_form("c1/%2561%252F", "c1/%2561%252F");
        check_form("/%zz%2%", "/%zz%2%");
        check_form("/%%41", "/%A");
    }

    #[test]
    fn a_pattern_matches_every_spelling_of_what_it_says() {
        let spellings = ["c7/films(1)/a", "c7/films%281%29/a", "c7/films(1%29/a", "c7/%66ilms%281)/a"];
        for pattern in ["c7/films(1)/*", "c7/films%281%29/*", "c7/films(1%29/*", "*ms(1*", "*%281%29/a"] {
            spellings.iter().for_each(|name| check(pattern, name, true));
        }
        check("c7/films(1)/*", "c7/films%25281%2529/a", false);
        check("c7/a%2Ab", "c7/a*b", true);
        check("c7/a%2Ab", "c7/a%2ab", true);
        check("c7/a%2Ab", "c7/axb", false);
        check("c7/a%2Fb", "c7/a/b", false);
    }

    #[test]
    fn a_pattern_reaches_a_folder_or_does_not() {
        let reaches = |pattern: &str, prefix: &str| Pattern::of_names(pattern).unwrap().reaches(prefix);
        for pattern in ["*", "*.mp4", "c*", "c*/films/*", "c7*", "c7/*", "c7/films/*", "c7/a"] {
            assert!(reaches(pattern, "c7/"), "{pattern}");
        }
        for pattern in ["c8/*", "c77/*", "c8*", "c", "c7", "c70*"] {
            assert!(!reaches(pattern, "c7/"), "{pattern}");
        }
    }

    #[test]
    fn parameters_are_taken_off_each_segment() {
        assert_eq!(without_parameters("c7/a.mp4"), None);
        assert_eq!(without_parameters("c7/b;v=1/a.mp4;x;y").as_deref(), Some("c7/b/a.mp4"));
    }

    #[track_caller]
    fn check_form(path: &str, expected: &str) {
        assert_eq!(form(path), expected, "{path}");
        assert_eq!(form(expected), expected, "the form of a form");
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_the_name() {
        let pattern = "*a".repeat(500) + "*b";
        check(&pattern, &"a".repeat(1024), false);
        check(&pattern, &("a".repeat(1023) + "b"), true);
    }

    proptest! {
        #[test]
        fn it_matches_what_trying_everything_matches(pattern in "[c*][ab*]{0,7}", name in "c?[ab]{0,9}") {
            let expected = matches_slowly(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(Pattern::of_names(&pattern).unwrap().matches(&name), expected);
        }
    }

    /// What a star means, without thought of its cost.
    fn matches_slowly(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|start| matches_slowly(rest, &name[start..])),
            Some((first, rest)) => name.split_first().is_some_and(|(n, tail)| n == first && matches_slowly(rest, tail)),
        }
    }

    #[track_caller]
    fn check(pattern: &str, name: &str, expected: bool) {
        assert_eq!(Pattern::of_names(pattern).unwrap().matches(&form(name)), expected, "{pattern} {name}");
    }
}
