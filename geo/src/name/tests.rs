//! What is a name and what is not; ids that never change.

use proptest::prelude::*;

use super::*;

#[test]
fn a_canonical_path_is_its_own_name() {
    check("/c100500/path/to/a.jpg", "c100500/path/to/a.jpg");
    check("/c0/a", "c0/a");
    check("/c4294967295/a", "c4294967295/a");
    check("/c1/.hidden/...", "c1/.hidden/...");
    check("/c1/a:@!$&'()*+,;=-._~", "c1/a:@!$&'()*+,;=-._~");
    check("/c1/c2/a", "c1/c2/a");
    check("/c1/%D1%84.jpg", "c1/%D1%84.jpg");
}

#[test]
fn spellings_of_one_file_have_one_name() {
    check("/c1/%61%2E%6a%70%67", "c1/a.jpg");
    check("/c1/%7euser/%2Dx%5F", "c1/~user/-x_");
    check("/c1/%d1%84.jpg", "c1/%D1%84.jpg");
    check("/c1/a%3fb%23c%20d", "c1/a%3Fb%23c%20d");
    check("/c1/a%3bb", "c1/a%3Bb");
}

#[test]
fn an_encoded_percent_sign_is_not_decoded_twice() {
    check("/c1/%2561", "c1/%2561");
    check("/c1/%252e%252e/a", "c1/%252e%252e/a");
    check("/c1/%252F", "c1/%252F");
}

#[test]
fn a_path_that_is_no_files_is_not_found() {
    for path in ["", "/", "c1/a", "//c1/a", "/c1", "/c/a", "/C1/a", "/x1/a", "/favicon.ico", "/metrics"] {
        check_refused(path, NameError::NotAFile);
    }
    for path in ["/c01/a", "/c+1/a", "/c-1/a", "/c1x/a", "/c4294967296/a", "/c\u{661}/a", "/%631/a", "/c%31/a"] {
        check_refused(path, NameError::NotAFile);
    }
    check_refused(&format!("/c{}/a", "9".repeat(100_000)), NameError::NotAFile);
    check_refused("http://evil.example/c1/a", NameError::NotAFile);
    check_refused("/../c1/a", NameError::NotAFile);
}

#[test]
fn a_path_that_leaves_its_folder_is_refused() {
    for path in ["/c1/..", "/c1/.", "/c1/../c2/a", "/c1/a/./b", "/c1/a/%2e%2E", "/c1/.%2e/a", "/c1/%2e/a"] {
        check_refused(path, NameError::DotSegment);
    }
    for path in ["/c1/..;/a", "/c1/..;x=y/a", "/c1/.;/a", "/c1/%2e%2e%3b/a", "/c1/..%3Bx;y/a"] {
        check_refused(path, NameError::DotSegment);
    }
    for path in ["/c1/", "/c1//", "/c1//a", "/c1/a/", "/c1/a//b"] {
        check_refused(path, NameError::EmptySegment);
    }
}

#[test]
fn characters_that_upstreams_disagree_about_are_refused() {
    for path in ["/c1/a%2fb", "/c1/..%2F..%2Fetc", "/c1/a%5cb", "/c1/a%00", "/c1/a%0d%0aX:y", "/c1/a%7f"] {
        check_refused(path, NameError::EncodedDelimiter);
    }
    for path in ["/c1/a\\b", "/c1/a b", "/c1/a\tb", "/c1/a\0", "/c1/a\r\n", "/c1/a?b", "/c1/a#b", "/c1/a\"b"] {
        check_refused(path, NameError::BadCharacter);
    }
    for path in ["/c1/\u{444}", "/c1/a\u{2215}b", "/c1/<a>", "/c1/{a}", "/c1/a|b", "/c1/^", "/c1/`", "/c1/[1]"] {
        check_refused(path, NameError::BadCharacter);
    }
    for path in ["/c1/%", "/c1/a%2", "/c1/%zz", "/c1/%u002f", "/c1/%%32%66", "/c1/%+1", "/c1/%2\u{444}"] {
        check_refused(path, NameError::BadEncoding);
    }
    for path in ["/c1/..%c0%af..", "/c1/%C0%AE%C0%AE/a", "/c1/%e0%80%af", "/c1/%ff", "/c1/%D1a%84", "/c1/%D1"] {
        check_refused(path, NameError::NotUtf8);
    }
}

#[test]
fn a_name_is_as_long_as_it_may_be_and_no_longer() {
    let longest = "a".repeat(NAME_BYTES_MAX - "c1/".len());
    check(&format!("/c1/{longest}"), &format!("c1/{longest}"));
    check(&format!("/c1/{}", "%61".repeat(longest.len())), &format!("c1/{longest}"));
    check_refused(&format!("/c1/{longest}a"), NameError::TooLong);
    check_refused(&format!("/c1/{}", "%61".repeat(longest.len() + 1)), NameError::TooLong);
    check_refused(&format!("/c1/{}", "a".repeat(10_000_000)), NameError::TooLong);
}

#[test]
fn a_name_falls_into_its_parts() {
    let name = CanonicalName::parse("c100500/path/to/a.jpg").unwrap();
    assert_eq!(name.content_server(), 100_500);
    assert_eq!(name.path(), "/path/to/a.jpg");
    assert_eq!(name.to_string(), "c100500/path/to/a.jpg");
}

#[test]
fn a_sites_url_is_kept_byte_for_byte() {
    for path in ["/", "//a", "/a/../b", "/a/", "/a%2Fb", "/%61", "/a%2", "/a|b", "/[1]", "/a:b@c", "/%ff%00"] {
        check_site(path, None, Ok(&format!("c7{path}")));
        check_site(path, Some("b=/../?&c"), Ok(&format!("c7{path}?b=/../?&c")));
    }
    check_site("/a", Some(""), Ok("c7/a?"));
    for wrong in ["/a b", "/a#b", "/a?b", "/\u{444}", "/a\r\n", "/a\0", "/<a>", "/a\u{7f}"] {
        check_site(wrong, None, Err(NameError::BadCharacter));
    }
    check_site("/a", Some("b c"), Err(NameError::BadCharacter));
    check_site("/a", Some("b#c"), Err(NameError::BadCharacter));
    check_site("a", None, Err(NameError::NotAFile));
    check_site("*", None, Err(NameError::NotAFile));
    check_site("", None, Err(NameError::NotAFile));
    check_site("1/a", None, Err(NameError::NotAFile));
}

#[test]
fn a_sites_canonical_path_is_the_same_file() {
    let site = CanonicalName::for_site(7, "/path/%D1%84.jpg", None).unwrap();
    assert_eq!(site, CanonicalName::from_url_path("/c7/path/%D1%84.jpg").unwrap());
    let other = CanonicalName::for_site(7, "/path/%D1%84.jpg", Some("")).unwrap();
    assert_ne!(site.content_id(), other.content_id());
}

#[test]
fn a_sites_name_falls_into_its_parts() {
    let name = CanonicalName::for_site(7, "//a/b", Some("c?d/e")).unwrap();
    assert_eq!((name.content_server(), name.path(), name.path_and_query()), (7, "//a/b", "//a/b?c?d/e"));
    assert_eq!(name.without_query(), "c7//a/b");
    for dotted in ["/.", "/a/..", "/a/../b", "/%2e%2E/b", "/..;x/b", "/a/..%2fb", "/..\\b", "/..%5cb"] {
        assert!(CanonicalName::for_site(7, dotted, None).unwrap().has_dot_segment(), "{dotted}");
    }
    for plain in ["/", "/a..", "/...", "/.hidden", "/a.b/c;.."] {
        assert!(!CanonicalName::for_site(7, plain, Some("/../")).unwrap().has_dot_segment(), "{plain}");
    }
}

#[test]
fn a_sites_name_has_its_own_bound() {
    let longest = format!("/{}", "a".repeat(SITE_NAME_BYTES_MAX - "c7/".len()));
    check_site(&longest, None, Ok(&format!("c7{longest}")));
    check_site(&longest, Some(""), Err(NameError::SiteTooLong));
    check_site(&"/".repeat(10_000_000), None, Err(NameError::SiteTooLong));
    assert_eq!(CanonicalName::from_written(&format!("c7{longest}a")), Err(NameError::SiteTooLong));
}

#[test]
fn what_was_written_is_read_as_it_is_or_not_at_all() {
    for name in ["c1/a", "c1/%D1%84.jpg", "c1/%61", "c1//", "c1/../c2/a?b"] {
        assert_eq!(CanonicalName::from_written(name).map(|name| name.to_string()), Ok(name.to_owned()));
    }
    for name in ["", "c1", "/c1/a", "c01/a", "C1/a", "x/a", "c1?/a", "c/a"] {
        assert_eq!(CanonicalName::from_written(name), Err(NameError::NotAFile), "{name}");
    }
}

/// Do not update these ids: a change here empties every cache of every region at once.
#[test]
fn content_ids_never_change() {
    check_id("c100500/path/to/a.jpg", "602d416f1e5264a5bb92a1904057279b");
    check_id("c1/a", "66c83d7329dedf7078a6197016da3170");
    check_id("c4294967295/%D1%84.mp4", "4b284927ba1542a6e238e8e85f83d44e");
    check_id("c7//a/../%61?b=c", "25edb5012a877c7f488b4ff144e91452");
}

#[test]
fn an_id_survives_being_written_down() {
    let id = CanonicalName::parse("c1/a").unwrap().content_id();
    assert_eq!(ContentId::from_bytes(*id.as_bytes()), id);
    assert_eq!(format!("{:016x}", id.prefix()), id.to_string()[..16]);
}

proptest! {
    #[test]
    fn canonicalising_is_idempotent(path in hostile_path()) {
        if let Ok(name) = CanonicalName::from_url_path(&path) {
            prop_assert_eq!(CanonicalName::from_url_path(&format!("/{name}")).unwrap(), name.clone());
            prop_assert_eq!(CanonicalName::from_written(name.as_str()).unwrap(), name.clone());
            prop_assert_eq!(CanonicalName::for_site(7, name.path(), None).unwrap(), name.clone());
            prop_assert_eq!(CanonicalName::parse(name.as_str()).unwrap().content_id(), name.content_id());
        }
    }

    #[test]
    fn what_is_plain_at_a_look_is_so_by_the_rules(path in hostile_path()) {
        if let Some(rest) = path.strip_prefix("/c7/").filter(|rest| is_plain(rest)) {
            let mut text = String::new();
            normalize(rest, &mut text).unwrap();
            prop_assert_eq!(&text, rest);
            prop_assert!(rest.split('/').all(|segment| check_segment(segment).is_ok()));
        }
    }

    #[test]
    fn no_upstream_path_ever_leaves_its_folder(path in hostile_path()) {
        if let Ok(name) = CanonicalName::from_url_path(&path) {
            let decoded = decode(name.path());
            prop_assert!(!decoded[1..].split('/').any(|segment| matches!(segment, "" | "." | "..")));
            prop_assert!(!decoded.contains(['\\', '\0', '\r', '\n']));
            prop_assert!(name.as_str().len() <= NAME_BYTES_MAX);
            prop_assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }

    #[test]
    fn encoding_every_unreserved_character_changes_nothing(path in "[a-zA-Z0-9_~-]{1,20}(/[a-z.]{3,9}){0,3}x") {
        let encoded: String =
            path.bytes().map(|b| if b == b'/' { "/".to_owned() } else { format!("%{b:02x}") }).collect();
        let name = CanonicalName::parse(&format!("c1/{encoded}")).unwrap();
        prop_assert_eq!(name.as_str(), format!("c1/{path}"));
    }

    #[test]
    fn nothing_makes_it_panic(path in "\\PC*") {
        let _ = CanonicalName::from_url_path(&path);
        let _ = CanonicalName::parse(&path);
        let _ = CanonicalName::from_written(&path);
        let _ = CanonicalName::for_site(7, &path, Some(&path));
    }
}

/// Paths of the pieces that traversals are made of.
fn hostile_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a", ".", "..", "/", "//", ";", "%2e", "%2E", "%2f", "%5c", "%25", "%", "%61", "%7E", "%3b", "%d1%84", "%D1",
        "%84", "%c0%af", "%00", "\\", "b.jpg", "*", "=", "~", "%20", "?", " ",
    ]);
    prop::collection::vec(piece, 1..12).prop_map(|pieces| format!("/c7/{}", pieces.concat()))
}

/// Percent-decodes once, as a content server does.
fn decode(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(u8::from_str_radix(&after[..2], 16).unwrap());
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
fn check(path: &str, expected: &str) {
    assert_eq!(CanonicalName::from_url_path(path).map(|name| name.to_string()), Ok(expected.to_owned()), "{path}");
}

#[track_caller]
fn check_refused(path: &str, expected: NameError) {
    assert_eq!(CanonicalName::from_url_path(path), Err(expected), "{path:.80}");
}

#[track_caller]
fn check_id(name: &str, expected: &str) {
    assert_eq!(CanonicalName::from_written(name).unwrap().content_id().to_string(), expected, "{name}");
}

#[track_caller]
fn check_site(path: &str, query: Option<&str>, expected: Result<&str, NameError>) {
    let name = CanonicalName::for_site(7, path, query);
    assert_eq!(name.as_ref().map(CanonicalName::as_str), expected.as_ref().copied(), "{path:.80} {query:?}");
    if let Ok(name) = name {
        assert_eq!(CanonicalName::from_written(name.as_str()), Ok(name));
    }
}
