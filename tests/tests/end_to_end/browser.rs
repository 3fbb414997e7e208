//! The demo's gallery in a real browser: Debian's Chromium, headless, with no flag that makes it trust anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::poll;
use tests::process::target_folder;

use crate::demo::Demo;

/// What the page says of one picture.
#[derive(Clone, Debug)]
struct Figure {
    linked: String,
    server: String,
    outcome: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gallery_shows_who_gave_each_picture() {
    let mut demo = Demo::start(&[]).await;
    let gallery = demo.address("Gallery:").await;
    let artefacts = target_folder().join("artefacts");
    std::fs::create_dir_all(&artefacts).expect("a folder for screenshots");

    let first = view(&gallery, &artefacts.join("gallery-first.png")).await;
    assert!(first.len() >= 10, "{} pictures", first.len());
    for figure in &first {
        assert!(["miss", "hit", "via"].contains(&figure.outcome.as_str()), "{figure:?}");
        assert_eq!(figure.server, figure.linked, "the server that was linked is the one that answered");
    }
    let servers: BTreeSet<&str> = first.iter().map(|figure| figure.server.as_str()).collect();
    assert!(servers.len() > 1, "several servers share the pictures: {servers:?}");
    poll::until_true("a view of hits alone", || async {
        let figures = view(&gallery, &artefacts.join("gallery.png")).await;
        assert_eq!(figures.len(), first.len());
        figures.iter().all(|figure| figure.outcome == "hit")
    })
    .await;
}

/// Opens the page until its script has seen every picture, keeps a screenshot, and returns what it says.
async fn view(url: &str, screenshot: &Path) -> Vec<Figure> {
    let (url, screenshot) = (url.to_owned(), screenshot.to_owned());
    let open = move || {
        let profile = tempfile::Builder::new().prefix("sun-test-chromium-").tempdir().expect("a temporary folder");
        let _ = std::fs::remove_file(&screenshot);
        let output = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--disable-background-networking", "--disable-component-update", "--no-first-run"])
            .args(["--window-size=1200,1600", "--virtual-time-budget=20000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--screenshot={}", screenshot.display()))
            .arg(&url)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("chromium: {error}. tests/setup installs it"));
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "chromium: {}\n{errors}", output.status);
        (page, errors, std::fs::metadata(&screenshot).map_or(0, |file| file.len()))
    };
    let (page, errors, screenshot_bytes) =
        poll::within("a page view", tokio::task::spawn_blocking(open)).await.expect("no panic");
    assert!(attribute(&page, "data-done") == Some("true"), "the page did not finish:\n{page}\n{errors}");
    assert!(screenshot_bytes > 10_000, "a screenshot of {screenshot_bytes} bytes");
    page.split("<figure ")
        .skip(1)
        .map(|rest| rest.split('>').next().unwrap_or_default())
        .filter(|tag| tag.contains("data-url"))
        .map(|tag| {
            let read = |name: &str| attribute(tag, name).unwrap_or_default().to_owned();
            Figure { linked: read("data-linked"), server: read("data-server"), outcome: read("data-outcome") }
        })
        .collect()
}

/// The value of the first attribute with this name.
fn attribute<'a>(html: &'a str, name: &str) -> Option<&'a str> {
    html.split_once(&format!("{name}=\""))?.1.split('"').next()
}
