//! One file from its sources into the vault.

use std::sync::Arc;

use cache_daemon::config::PrefillConfig;
use cache_daemon::prefill::{FetchError, Fetched, Order, Prefill, Source};
use cache_daemon::vault::Vault;
use popularity_api::wire::{DirectPurge, PurgeMode, PurgeWhat};
use sun::purge::{Mark, Purges};

use crate::scripted::{Answer, Scripted, found, missing};
use crate::{body, held, name, vault};

const TOKEN: &str = "cache-token-0123456789";

#[tokio::test]
async fn a_file_comes_from_the_first_source_that_gives_it() {
    let has = Scripted::start(|_| found(&body(700_000))).await;
    let has_not = Scripted::start(|_| missing()).await;
    let (_folder, vault) = vault();
    let sources = vec![Source::Cache(has_not.address), Source::Cache(has.address), content_server(&has)];
    let fetched = fetch(&vault, sources).await.unwrap();
    assert_eq!(fetched, Fetched { size: 700_000, from_cache: true });
    assert_eq!(held(&vault, "c1/a.png"), Some(body(700_000)));
    assert_eq!((has_not.lines().len(), has.lines()), (1, vec!["GET /c1/a.png".to_owned()]));
}

#[tokio::test]
async fn only_caches_are_shown_the_token() {
    let cache = Scripted::start(|_| missing()).await;
    let origin = Scripted::start(|_| found(b"12345")).await;
    let (_folder, vault) = vault();
    fetch(&vault, vec![Source::Cache(cache.address), content_server(&origin)]).await.unwrap();
    let head = |server: &Scripted| server.asked()[0].head.clone();
    assert!(head(&cache).contains(&format!("authorization: bearer {TOKEN}")), "{}", head(&cache));
    assert!(!head(&origin).contains("authorization"), "{}", head(&origin));
    assert!(head(&origin).contains("accept-encoding: identity"), "{}", head(&origin));
    assert_eq!(origin.lines(), ["GET /a.png"]);
}

#[tokio::test]
async fn kept_headers_are_stored_and_others_are_not() {
    let origin = Scripted::start(|_| found(b"12345")).await;
    let (_folder, vault) = vault();
    fetch(&vault, vec![content_server(&origin)]).await.unwrap();
    let file = sun::HeldFiles::open(&*vault, name("c1/a.png").content_id()).unwrap();
    let mut names: Vec<&str> = file.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "etag"]);
}

#[tokio::test]
async fn anything_but_a_whole_file_is_a_failure_that_leaves_nothing() {
    let whole = |status, fields: &str, bytes| Answer::Whole(status, fields.to_owned(), body(bytes));
    check("lasting", missing).await;
    check("lasting", move || whole(200, "", 1_000_001)).await;
    check("lasting", move || whole(200, "content-encoding: gzip\r\n", 5)).await;
    check("lasting", move || whole(200, "cache-control: no-store\r\n", 5)).await;
    check("lasting", || Answer::Raw(b"HTTP/1.1 200 x\r\n\r\nno length".to_vec())).await;
    check("passing", move || whole(503, "", 5)).await;
    check("passing", move || whole(206, "content-range: bytes 0-4/9\r\n", 5)).await;
    check("passing", || Answer::Raw(b"HTTP/1.1 200 x\r\ncontent-length: 500000\r\n\r\ncut".to_vec())).await;
    check("passing", || Answer::Raw(Vec::new())).await;
    check("passing", || Answer::Raw(b"no protocol of ours\r\n\r\n".to_vec())).await;
    check("passing", || Answer::Silence).await;
}

#[tokio::test]
async fn a_download_that_a_purge_overtakes_is_not_kept() {
    let place = tempfile::tempdir().unwrap();
    let purges = purges(&place);
    let overtaking = Arc::clone(&purges);
    // The purge comes while the content server answers.
    let origin = Scripted::start(move |_| {
        purge(&overtaking, 1);
        found(b"12345")
    })
    .await;
    let (_folder, vault) = vault();
    let error = fetch_by(&purges, &vault, vec![content_server(&origin)]).await.unwrap_err();
    assert_eq!(error.to_string(), "c1/a.png: it is from before a purge");
    assert_eq!(vault.files(), 0);
    // The next one begins after it.
    let origin = Scripted::start(|_| found(b"12345")).await;
    fetch_by(&purges, &vault, vec![content_server(&origin)]).await.unwrap();
    let held = sun::HeldFiles::open(&*vault, name("c1/a.png").content_id()).unwrap();
    assert_eq!(held.mark, Mark { log: 0, direct: 1 });
}

#[tokio::test]
async fn a_cache_that_missed_a_purge_is_no_source_and_a_content_server_is() {
    let place = tempfile::tempdir().unwrap();
    let purges = purges(&place);
    purge(&purges, 5);
    let told = |mark: &str, bytes: &[u8]| {
        let fields = format!("sun-purge-mark: {mark}\r\nsun-purge-tags: 0000000000000007\r\ncache-tag: x\r\n");
        Answer::Whole(200, fields, bytes.to_vec())
    };
    let old = Scripted::start(move |_| told("9 4", b"old")).await;
    let origin = Scripted::start(|_| found(b"12345")).await;
    let (_folder, vault) = vault();
    let fetched = fetch_by(&purges, &vault, vec![Source::Cache(old.address), content_server(&origin)]).await.unwrap();
    assert_eq!(fetched, Fetched { size: 5, from_cache: false });
    let new = Scripted::start(move |_| told("9 5", b"new")).await;
    let fetched = fetch_by(&purges, &vault, vec![Source::Cache(new.address)]).await.unwrap();
    assert_eq!(fetched, Fetched { size: 3, from_cache: true });
    let held = sun::HeldFiles::open(&*vault, name("c1/a.png").content_id()).unwrap();
    assert_eq!((held.mark, &*held.tags), (Mark { log: 0, direct: 5 }, &[7][..]));
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let elsewhere = Scripted::start(|_| found(b"12345")).await;
    let location = format!("location: http://{}/a.png\r\n", elsewhere.address);
    let origin = Scripted::start(move |_| Answer::Whole(302, location.clone(), Vec::new())).await;
    let (_folder, vault) = vault();
    let error = fetch(&vault, vec![content_server(&origin)]).await.unwrap_err();
    assert_eq!(error.to_string(), "c1/a.png: it answers 302 Found");
    assert_eq!(elsewhere.lines().len(), 0);
}

#[tokio::test]
async fn a_disk_that_fails_is_not_blamed_on_the_source() {
    let origin = Scripted::start(|_| found(b"12345")).await;
    let (folder, vault) = vault();
    std::fs::remove_dir(folder.path().join("tmp")).unwrap();
    let error = fetch(&vault, vec![content_server(&origin), content_server(&origin)]).await.unwrap_err();
    assert!(matches!(error, FetchError::Disk(_)), "{error}");
    assert_eq!(origin.lines().len(), 1, "another source would not help");
    std::fs::create_dir(folder.path().join("tmp")).unwrap();
    fetch(&vault, vec![content_server(&origin)]).await.unwrap();
}

#[tokio::test]
async fn without_sources_there_is_no_file() {
    let (_folder, vault) = vault();
    let error = fetch(&vault, vec![]).await.unwrap_err();
    assert_eq!(error.to_string(), "c1/a.png: no source has it");
}

async fn check(expected: &str, answer: impl Fn() -> Answer + Send + Sync + 'static) {
    let origin = Scripted::start(move |_| answer()).await;
    let (folder, vault) = vault();
    let error = fetch(&vault, vec![content_server(&origin)]).await.unwrap_err();
    let kind = match &error {
        FetchError::Lasting(_) => "lasting",
        FetchError::Passing(_) => "passing",
        FetchError::Disk(_) => "disk",
        FetchError::Waiting { .. } => "waiting",
    };
    assert_eq!(kind, expected, "{error}");
    assert!(error.to_string().starts_with("c1/a.png: "), "{error}");
    assert_eq!(vault.files(), 0, "{error}");
    assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0, "{error}");
}

async fn fetch(vault: &Arc<Vault>, sources: Vec<Source>) -> Result<Fetched, FetchError> {
    let place = tempfile::tempdir().unwrap();
    fetch_by(&purges(&place), vault, sources).await
}

/// Purges of region 4, none yet.
fn purges(place: &tempfile::TempDir) -> Arc<Purges> {
    Arc::new(Purges::open(place.path(), geo::RegionId(4)).unwrap())
}

/// Purges `c1/a.png`, hard.
fn purge(purges: &Purges, number: u64) {
    let (what, value, mode) = (PurgeWhat::File, "c1/a.png".to_owned(), PurgeMode::Hard);
    purges.directly(DirectPurge { id: "a".to_owned(), number, what, value, mode }).unwrap();
}

async fn fetch_by(purges: &Arc<Purges>, vault: &Arc<Vault>, sources: Vec<Source>) -> Result<Fetched, FetchError> {
    let config = PrefillConfig { idle_ms: 1000, ..PrefillConfig::default() };
    let tls = sun::origin_tls::client(&sun::config::UpstreamConfig::default()).unwrap();
    let prefill = Prefill::new(&config, tls, TOKEN.to_owned(), Arc::clone(vault), Arc::clone(purges)).unwrap();
    prefill.fetch(&Order { name: name("c1/a.png"), size_max: 1_000_000, sources }).await
}

fn content_server(server: &Scripted) -> Source {
    Source::ContentServer { url: format!("http://{}/a.png", server.address), host: None }
}
