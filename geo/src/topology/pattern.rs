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

/// A pattern, taken apart at its stars.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Pattern {
    head: String,
    middle: Vec<String>,
    /// None: there is no star, and the head is the whole name.
    tail: Option<String>,
}

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

    /// Reads a pattern of the paths of a site's URLs, which are matched as clients send them.
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
        let mut parts = text.split('*').map(str::to_owned);
        let head = parts.next().unwrap_or_default();
        let mut middle: Vec<String> = parts.collect();
        let tail = middle.pop();
        middle.retain(|part| !part.is_empty());
        Self { head, middle, tail }
    }

    /// Whether the whole name is matched.
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
        let Some(mut rest) = name.get(self.head.len()..name.len() - tail.len()) else {
            return false;
        };
        for part in &self.middle {
            let Some(start) = rest.find(part.as_str()) else {
                return false;
            };
            rest = &rest[start + part.len()..];
        }
        true
    }
}

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
        let matches = |pattern: &str, path: &str| Pattern::of_paths(pattern).unwrap().matches(path);
        assert!(matches("/", "/") && matches("/images/*", "/images/") && matches("*.jpg", "//a/../b.jpg"));
        assert!(!matches("/images/*", "/image") && !matches("/a%2Fb", "/a%2fb"));
        for pattern in ["", "c7/*", "a*", "/a?b", "/a b", "/\u{444}", "/a#b"] {
            assert!(Pattern::of_paths(pattern).is_err(), "{pattern}");
        }
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
        assert_eq!(Pattern::of_names(pattern).unwrap().matches(name), expected, "{pattern} {name}");
    }
}
