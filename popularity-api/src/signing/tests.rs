//! Signatures: their frozen form, and every way to be denied.

use geo::Topology;

use super::*;

const NAME: &str = "c7/films/1/master.m3u8";
const NOW: u64 = 1_893_456_000;

/// Do not update these: back ends make such links by themselves, as the README's example does.
#[test]
fn the_form_never_changes() {
    assert_eq!(
        link("c7/a.mp4", Covers::File, "a", NOW),
        "/c7/a.mp4?e=1893456000&k=a&s=rKcR6UI0YrYFbcCCxs0WelHnj3-AWhPOe4laUMaUKFI"
    );
    assert_eq!(
        link(NAME, Covers::Folder, "b", NOW),
        "/s.1893456000.3.b.4tM-vlkNRDDJodDUvPYH2ew0cQSuf6XSNWq_b42jWAM/c7/films/1/master.m3u8"
    );
}

#[test]
fn what_is_made_is_good_until_it_expires_and_the_clocks_difference_after() {
    for covers in [Covers::File, Covers::Folder] {
        let link = link(NAME, covers, "a", NOW);
        check(&link, NOW - 1_000_000, "good");
        check(&link, NOW, "good");
        check(&link, NOW + 30, "good");
        check(&link, NOW + 31, "expired");
    }
}

#[test]
fn a_signature_fits_one_file_or_one_folder() {
    let (file, folder) = (link(NAME, Covers::File, "a", NOW), link(NAME, Covers::Folder, "a", NOW));
    check(&file.replace("master", "other"), NOW, "wrong");
    check(&folder.replace("master", "other"), NOW, "good");
    check(&folder.replace("master.m3u8", "720p/1.ts"), NOW, "good");
    check(&folder.replace("films/1", "films/2"), NOW, "wrong");
    check(&folder.replace("films/1/master.m3u8", "films/10"), NOW, "wrong");
    // The folder itself is no file in it, and a wider one is not what was signed.
    check(&folder.replace("1/master.m3u8", "1"), NOW, "wrong");
    check(&folder.replace(".3.a.", ".2.a."), NOW, "wrong");
    // Whoever signs a whole content server.
    let keys = keys();
    let whole = Signed { what: "folder", expires_s: NOW, key: "a", path: "c7/" };
    let signature = String::from_utf8(keys.signer_of("a").unwrap().sign(whole).to_vec()).unwrap();
    check(&format!("/s.{NOW}.1.a.{signature}/{NAME}"), NOW, "wrong");
    // A file's signature is no folder's, and the other way round.
    let signature = file.rsplit('=').next().unwrap();
    check(&format!("/s.{NOW}.3.a.{signature}/{NAME}"), NOW, "wrong");
    let signature = folder.split(['.', '/']).nth(5).unwrap();
    check(&format!("/{NAME}?e={NOW}&k=a&s={signature}"), NOW, "wrong");
}

#[test]
fn a_folders_signature_opens_no_file_that_is_to_have_its_own() {
    let (file, folder) = (link(NAME, Covers::File, "a", NOW), link(NAME, Covers::Folder, "a", NOW));
    let verdict = |link: &str, covers: &str| verdict_of_class(link, links(covers), &signing("a", ""), NOW);
    assert_eq!((verdict(&file, "file"), verdict(&file, "folder")), ("good", "good"));
    assert_eq!((verdict(&folder, "file"), verdict(&folder, "folder")), ("wrong", "good"));
}

#[test]
fn a_file_in_no_folder_is_signed_alone() {
    assert_eq!(link("c7/a", Covers::Folder, "a", NOW), link("c7/a", Covers::File, "a", NOW));
    assert_eq!(covered("c7/a", Covers::Folder), "file");
    assert_eq!(covered("c7/b/a", Covers::Folder), "folder /c7/b/");
    assert_eq!(covered("c7/b/a", Covers::File), "file");
}

#[test]
fn what_is_changed_is_denied() {
    let good = link("c7/a.mp4", Covers::File, "a", NOW);
    check(&good.replace(&NOW.to_string(), &(NOW + 1).to_string()), NOW, "wrong");
    check(&good.replace("k=a", "k=b"), NOW, "wrong");
    check(&good.replace("k=a", "k=c"), NOW, "no_secret");
    check(&good.replace("k=a", "k=z"), NOW, "unknown_key");
    check(&good.replace("k=a", "k=old"), NOW, "unknown_key");
    check("/c7/a.mp4", NOW, "missing");
    check("/c7/a.mp4?", NOW, "missing");
    check("/c7/a.mp4?v=1&x", NOW, "missing");
    check(&format!("{good}&v=1"), NOW, "good");
    check(&good.replace('?', "?x=y&"), NOW, "good");
    let (path, query) = good.split_once('?').unwrap();
    let mut parameters: Vec<&str> = query.split('&').collect();
    parameters.reverse();
    check(&format!("{path}?{}", parameters.join("&")), NOW, "good");
}

#[test]
fn what_is_damaged_is_denied() {
    let good = link("c7/a.mp4", Covers::File, "a", NOW);
    for (from, to) in [
        ("&k=a", ""),
        ("k=a", "k="),
        ("k=a", "k=%61"),
        ("k=a", "k=abcdefghijklmnopq"),
        ("k=a", "k=a&k=a"),
        ("e=1", "e=01"),
        ("e=1", "e=+1"),
        ("e=1", "e=-1"),
        ("e=1", "e=11111111111111"),
        ("e=1893456000", "e="),
        ("&s=", "&s=A"),
        ("&s=", "&s="),
    ] {
        let damaged = good.replacen(from, to, 1);
        check(&damaged, NOW, if damaged == good { "good" } else { "malformed" });
    }
    check(&good[..good.len() - 1], NOW, "malformed");
    check(&format!("{good}="), NOW, "malformed");
    let front = link(NAME, Covers::Folder, "a", NOW);
    for (from, to) in [(".3.", ".0."), (".3.", ".03."), (".3.", ".x."), (".3.", "."), (".3.", ".3.3."), (".a.", "..")] {
        check(&front.replacen(from, to, 1), NOW, "malformed");
    }
    check(&front.replacen(".3.", ".9.", 1), NOW, "wrong");
    check(&front.replacen(".3.", ".18446744073709551615.", 1), NOW, "wrong");
    check(&format!("/s./{NAME}"), NOW, "malformed");
}

#[test]
fn every_signature_has_one_spelling() {
    let good = link("c7/a.mp4", Covers::File, "a", NOW);
    let (rest, last) = good.split_at(good.len() - 1);
    let spellings = ALPHABET.iter().filter(|&&character| {
        let other = format!("{rest}{}", char::from(character));
        verdict(&other, NOW) == "good"
    });
    assert_eq!(spellings.count(), 1, "{last}");
}

#[test]
fn a_signature_in_front_is_cut_off_and_nothing_else() {
    assert_eq!(split("/s.1.2.a.b/c7/a"), (Some("s.1.2.a.b"), "/c7/a"));
    assert_eq!(split("/s.1.2.a.b"), (Some("s.1.2.a.b"), ""));
    assert_eq!(split("/s./"), (Some("s."), "/"));
    assert_eq!(split("/c7/s.1/a"), (None, "/c7/s.1/a"));
    assert_eq!(split("/s/c7/a"), (None, "/s/c7/a"));
    assert_eq!(split(""), (None, ""));
}

#[test]
fn keys_change_and_no_link_breaks() {
    let signing = |key: &str, accepted: &str| signing(key, accepted);
    let keys = keys();
    let steps = [signing("a", ""), signing("a", "\"b\""), signing("b", "\"a\""), signing("b", "")];
    // What was made a step ago is still good, and what another maker makes that is a step ahead already is, too.
    for (made_by, checked_by) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3)] {
        let signer = keys.signer(&steps[made_by]).unwrap();
        let link = path(&signer, NAME, Covers::File, NOW);
        assert_eq!(verdict_by(&link, &steps[checked_by], NOW), "good", "made at {made_by}, checked at {checked_by}");
    }
    let old = path(&keys.signer(&steps[1]).unwrap(), NAME, Covers::File, NOW);
    assert_eq!(verdict_by(&old, &steps[3], NOW), "unknown_key", "when it is not accepted any more");
}

#[test]
fn a_maker_without_the_newest_key_signs_with_another_accepted_one() {
    let signing = signing("c", "\"b\"");
    let keys = keys();
    assert_eq!(keys.signer(&signing).unwrap().key_id(), "b");
    let of_class = "signed = true";
    assert_eq!(keys.lacking(&topology("key = \"c\"\naccepted = [\"b\"]", of_class)), ["c"]);
    // Keys that nothing is signed with yet are not missed, here as in `--check`.
    assert_eq!(keys.lacking(&topology("key = \"c\"", "spread = \"all\"")), [] as [&str; 0]);
    assert!(Keys::default().signer(&signing).is_none());
}

#[test]
fn links_of_one_time_expire_together() {
    let links = links("file");
    for now_s in [NOW, NOW + 1, NOW + 899, NOW + 900, NOW + 901, 0, 1] {
        let left = expiry(links, now_s) - now_s;
        assert!((3600..4500).contains(&left), "{left} at {now_s}");
    }
    assert_eq!(expiry(links, NOW + 1), expiry(links, NOW + 900));
    assert_eq!(expiry(links, u64::MAX), u64::MAX);
}

#[test]
fn a_key_file_says_what_is_wrong_and_shows_no_secret() {
    let refused = |text: &str| Keys::parse(text).unwrap_err();
    let why = "a: a key is 64 hexadecimal digits; make it with `sunctl keys new a`";
    assert_eq!(refused("[keys]\na = \"5ec2e7\""), why);
    assert_eq!(refused(&format!("[keys]\na = \"{}\"", "\u{e9}".repeat(32))), why);
    assert_eq!(refused("[keys]\n\"a.b\" = \"\""), "\"a.b\" is no id of a key: 1..=16 of letters, digits, - and _");
    assert!(refused("").contains("missing field `keys`"));
    assert!(refused("[keys]\na = 5").contains("keys.a: invalid type"));
    assert_eq!(format!("{:?}", keys()), "[\"a\", \"b\", \"old\"]");
}

#[test]
fn keys_in_use_stay_until_there_are_others() {
    let running = arc_swap::ArcSwap::from_pointee(keys());
    let take = |text: &str| super::keys::take(&running, Keys::parse(text).map_err(daemon::config::ConfigError));
    let ids = || format!("{:?}", running.load());
    for text in ["", "[keys]", "[keys]\na = \"5ec2e7\""] {
        take(text);
        assert_eq!(ids(), "[\"a\", \"b\", \"old\"]", "{text:?}");
    }
    take(&format!("[keys]\nc = \"{}\"", "c".repeat(64)));
    assert_eq!(ids(), "[\"c\"]");
}

#[test]
fn base64url_is_that_of_the_standard() {
    let mut bytes = [0; SIGNATURE_BYTES];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(index * 8 + 3).unwrap();
    }
    let text = "AwsTGyMrMztDS1NbY2tze4OLk5ujq7O7w8vT2-Pr8_s";
    assert_eq!(encode(&bytes), text.as_bytes());
    assert_eq!(decode(text), Some(bytes));
}

fn keys() -> Keys {
    let secret = |digit: &str| digit.repeat(64);
    Keys::parse(&format!("[keys]\na = \"{}\"\nb = \"{}\"\nold = \"{}\"", secret("a"), secret("b"), secret("0")))
        .unwrap()
}

fn signing(key: &str, accepted: &str) -> Signing {
    topology(&format!("key = \"{key}\"\naccepted = [{accepted}]"), "").signing.unwrap()
}

/// How links of a class that covers "file" or "folder" are made.
fn links(covers: &str) -> SignedLinks {
    let class = format!("signed = true\nlink_ttl_s = 3600\nlink_covers = \"{covers}\"");
    topology("key = \"a\"", &class).classes[0].signed.unwrap()
}

fn topology(signing: &str, class: &str) -> Topology {
    let text = crate::testing::TOPOLOGY.replace("spread = \"all\"", class);
    Topology::parse(&text.replace("[content_servers]", &format!("[signing]\n{signing}\n[content_servers]"))).unwrap()
}

fn link(name: &str, covers: Covers, key: &str, expires_s: u64) -> String {
    path(&keys().signer_of(key).unwrap(), name, covers, expires_s)
}

fn path(signer: &Signer<'_>, name: &str, covers: Covers, expires_s: u64) -> String {
    let mut path = Vec::new();
    signer.write_path(&mut path, name, covers, expires_s);
    String::from_utf8(path).unwrap()
}

fn verdict(link: &str, now_s: u64) -> &'static str {
    verdict_by(link, &signing("a", "\"b\", \"c\""), now_s)
}

fn verdict_by(link: &str, signing: &Signing, now_s: u64) -> &'static str {
    verdict_of_class(link, links("folder"), signing, now_s)
}

fn verdict_of_class(link: &str, links: SignedLinks, signing: &Signing, now_s: u64) -> &'static str {
    let (path, query) = link.split_once('?').map_or((link, None), |(path, query)| (path, Some(query)));
    let (front, path) = split(path);
    match super::check(path.strip_prefix('/').unwrap(), front, query, links, signing, &keys(), now_s) {
        Ok(()) => "good",
        Err(denied) => denied.label(),
    }
}

#[track_caller]
fn check(link: &str, now_s: u64, expected: &str) {
    assert_eq!(verdict(link, now_s), expected, "{link} at {now_s}");
}
