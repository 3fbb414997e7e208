//! What goes to the content server uncached: uploads under `/c...`, and any method on a site.

use std::time::Duration;

use hyper::Method;
use tests::client::{Answer, Client};
use tests::intake::{self, End, Intake};
use tests::poll;
use tests::process::Daemon;
use tests::raw::Raw;
use tests::world::World;

use crate::CacheStatus;

const SUN: &str = "sun1-1-1";
const SITE: &str = "www.site.test";
const MIB: u64 = 1 << 20;

/// 200 MB pass through a sun that grows by a fraction of that.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_never_held_whole() {
    let (world, intake, sun) = world().await;
    upload(&world, "/c1/up/warm", 8 * MIB, 201).await;
    let before = resident_bytes(&sun, "VmRSS");
    upload(&world, "/c1/up/big?hash=1", 200 * MIB, 201).await;
    let grown = resident_bytes(&sun, "VmHWM").saturating_sub(before);
    assert!(grown < 48 * MIB, "the sun grew by {grown} bytes");
    let taken = intake.only("/up/big");
    assert_eq!((taken.bytes, taken.end, taken.method.as_str()), (200 * MIB, Some(End::Whole), "PUT"));
    assert_eq!(
        (taken.target.as_str(), taken.headers["content-length"].to_str().unwrap()),
        ("/cs1/up/big?hash=1", "209715200")
    );
    assert!(!taken.headers.contains_key("cookie") && !taken.headers.contains_key("authorization"));
    assert_eq!(taken.headers["via"], format!("1.1 {SUN}"));
}

/// A refusal comes instead of `100 Continue`, and reaches a client that has sent its body all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_refused_before_its_body() {
    let (world, intake, _sun) = world().await;
    for (target, length, expected) in [
        ("/c1/small/a", 1001, "HTTP/1.1 413"),
        ("/c1/none/a", 5, "HTTP/1.1 405"),
        ("/c99/up/a", 5, "HTTP/1.1 404"),
        ("/c1/up/../a", 5, "HTTP/1.1 400"),
        ("/c1/small/a", 1000, "HTTP/1.1 100"),
    ] {
        let mut raw = Raw::plain(world.server(SUN).http()).await;
        raw.write(head("PUT", target, &format!("Content-Length: {length}\r\nExpect: 100-continue\r\n")).as_bytes())
            .await;
        let (answer, _) = raw.read(expected.len(), poll::DEADLINE).await;
        assert_eq!(String::from_utf8_lossy(&answer[..expected.len()]), expected, "{target} of {length}");
    }
    upload(&world, "/c1/small/sent", 2 * MIB, 413).await;
    let chunked = "3e9\r\n".to_owned() + &"x".repeat(1001) + "\r\n0\r\n\r\n";
    let request = head("POST", "/c1/small/chunked", "Transfer-Encoding: chunked\r\n") + &chunked;
    assert_eq!(Raw::plain(world.server(SUN).http()).await.status(request.as_bytes()).await, Some(413));
    let whole: Vec<_> = intake.taken().into_iter().filter(|taken| taken.end == Some(End::Whole)).collect();
    assert!(whole.is_empty(), "{whole:?}");
}

/// One who stops in the middle is given up; until then it costs the others nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_uploader_is_nobody_elses_matter() {
    let (world, intake, _sun) = world_with("limits.stall_s = 3").await;
    let mut slow = Vec::new();
    for number in 0..20 {
        let mut raw = Raw::plain(world.server(SUN).http()).await;
        raw.write(head("PUT", &format!("/c1/up/slow{number}"), "Content-Length: 1000000\r\n").as_bytes()).await;
        raw.write(&intake::bytes(0, 1000)).await;
        slow.push(raw);
    }
    for number in 0..20 {
        upload(&world, &format!("/c1/up/quick{number}"), MIB, 201).await;
    }
    for mut raw in slow {
        assert_eq!(raw.status(b"").await, Some(408));
    }
    let broken = || intake.taken().iter().filter(|taken| taken.end == Some(End::Broken)).count() == 20;
    poll::until_true("twenty bodies that broke off", || async { broken() }).await;
}

/// The content server need not wait for the end of a body to refuse it.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_reaches_a_client_that_still_sends() {
    let (world, intake, _sun) = world().await;
    let mut raw = Raw::plain(world.server(SUN).http()).await;
    raw.write(head("PUT", "/c1/up/refuse", &format!("Content-Length: {}\r\n", 100 * MIB)).as_bytes()).await;
    assert_eq!(raw.status(&intake::bytes(0, 100_000)).await, Some(401));
    // And one that sends to the end before it listens.
    upload(&world, "/c1/up/refuse-whole", 4 * MIB, 401).await;
    poll::until_true("all of it", || async { intake.only("refuse-whole").bytes == 4 * MIB }).await;
}

/// A client that leaves takes its request with it, and nothing is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_breaks_its_upload_off() {
    let (world, intake, _sun) = world().await;
    let mut raw = Raw::plain(world.server(SUN).http()).await;
    raw.write(head("PUT", "/c1/up/left", "Content-Length: 1000000\r\n").as_bytes()).await;
    raw.write(&intake::bytes(0, 300_000)).await;
    let arrived = || intake.taken().first().is_some_and(|taken| taken.bytes == 300_000);
    poll::until_true("what was sent", || async { arrived() }).await;
    drop(raw);
    poll::until_true("its end", || async { intake.only("left").end.is_some() }).await;
    assert_eq!(intake.only("left").end, Some(End::Broken));
}

/// A body goes no faster than the content server takes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_content_server_that_takes_nothing_is_given_up() {
    let (world, _intake, sun) = world_with("upstream.idle_ms = 1000\nupstream.first_byte_ms = 1000").await;
    let before = resident_bytes(&sun, "VmRSS");
    let mut raw = Raw::plain(world.server(SUN).http()).await;
    raw.write(head("PUT", "/c1/up/held", &format!("Content-Length: {}\r\n", 100 * MIB)).as_bytes()).await;
    let (mut sent, piece) = (0, intake::bytes(0, MIB as usize));
    // Until nothing is taken any more, or the answer is there: the kernel's buffers on both sides take some.
    while sent < 100 && matches!(tokio::time::timeout(Duration::from_secs(2), raw.write(&piece)).await, Ok(true)) {
        sent += 1;
    }
    assert!(sent < 64, "{sent} MiB were taken for a content server that takes nothing");
    assert_eq!(raw.status(b"").await, Some(504));
    assert!(resident_bytes(&sun, "VmHWM").saturating_sub(before) < 32 * MIB);
}

/// What was cached of a file ends with an upload of it; resumable uploads find their way.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_seen_at_once_and_can_be_resumed() {
    let (world, intake, _sun) = world().await;
    let client = world.client();
    let url = world.https(SUN, "c1/up/a.txt");
    assert_eq!(body_until_hit(&client, &url).await, "0");
    let answer = send(&client.clone().http2(), Method::PUT, &url, "").await;
    assert_eq!((answer.status, answer.text().as_str()), (201, "taken"));
    assert!(CacheStatus::of(&answer).says(SUN, "fwd=method"), "{:?}", answer.headers);
    assert_eq!(client.get(&url).await.unwrap().text(), "1");

    let upload = world.https(SUN, "c1/up/resumable?hash=1");
    let created =
        send(&client.clone().with("upload-length", "10").with("tus-resumable", "1.0.0"), Method::POST, &upload, "")
            .await;
    assert_eq!((created.status, created.header("location").as_str()), (201, "/c1/up/resumable/1"));
    assert_eq!((created.header("tus-resumable").as_str(), created.header("set-cookie").as_str()), ("1.0.0", ""));
    let upload = world.https(SUN, "c1/up/resumable/1");
    for _ in 0..2 {
        let at = client.clone().with("tus-resumable", "1.0.0").head(&upload).await.unwrap();
        assert_eq!((at.status, at.header("upload-offset").as_str()), (200, "5"));
    }
    let more = client.clone().with("upload-offset", "5").with("authorization", "secret");
    assert_eq!(send(&more, Method::PATCH, &upload, "\0\u{1}\u{2}").await.header("upload-offset"), "10");
    let patched = intake.taken().pop().unwrap();
    assert_eq!((patched.headers["upload-offset"].to_str().unwrap(), patched.bytes), ("5", 3));
    assert!(!patched.headers.contains_key("authorization"));

    let page = client.with("origin", "https://page.test").with("access-control-request-method", "PATCH");
    let preflight = send(&page, Method::OPTIONS, &upload, "").await;
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-methods").contains("PATCH"), "{:?}", preflight.headers);
    assert!(preflight.header("access-control-allow-headers").contains("Upload-Offset"));
}

/// A site's URLs are the content server's own: any method, any path, any query, its headers.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_its_content_server() {
    let (world, intake, _sun) = world().await;
    let address = world.server(SUN).address.into();
    let client = world.client().name(SITE, address).with("cookie", "a=b").with("x-any", "c");
    let url = |rest: &str| format!("https://{SITE}:8443{rest}");
    let answer = send(&client, Method::from_bytes(b"ODD").unwrap(), &url("//a%2Fb/?q=/x&%zz"), "").await;
    assert_eq!(answer.status, 201);
    let taken = intake.only("a%2Fb");
    assert_eq!((taken.method.as_str(), taken.target.as_str()), ("ODD", "/cs1//a%2Fb/?q=/x&%zz"));
    assert_eq!((taken.headers["cookie"].to_str().unwrap(), taken.headers["x-any"].to_str().unwrap()), ("a=b", "c"));
    assert_eq!(taken.headers["x-forwarded-host"], SITE);
    assert_eq!(taken.headers["host"], SITE);

    // A file is one whether the site's URL or /c... asks for it, and the query makes it another.
    assert_eq!(body_until_hit(&client, &url("/kept/a")).await, "1");
    assert_eq!(client.get(&world.https(SUN, "c1/kept/a")).await.unwrap().text(), "1");
    assert_eq!(send(&client, Method::DELETE, &url("/kept/a"), "").await.status, 201);
    assert_eq!(client.get(&url("/kept/a")).await.unwrap().text(), "2");
    assert_eq!(client.get(&url("/kept/a?b")).await.unwrap().text(), "2");
    let asked = intake.taken().into_iter().filter(|taken| taken.method == "GET").map(|taken| taken.target);
    assert_eq!(asked.collect::<Vec<_>>(), ["/cs1/kept/a", "/cs1/kept/a", "/cs1/kept/a?b"]);
    // Behind this template all content servers share a host: nobody climbs from one to another.
    let mut raw = Raw::plain(world.server(SUN).http()).await;
    let request = format!("GET /../cs2/secret HTTP/1.1\r\nHost: {SITE}\r\nConnection: close\r\n\r\n");
    assert_eq!(raw.status(request.as_bytes()).await, Some(404));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_server_that_is_away_is_a_502() {
    let (world, intake, _sun) = world().await;
    drop(intake);
    upload(&world, "/c1/up/a", 1000, 502).await;
}

/// A world whose content server takes uploads.
async fn world() -> (World, Intake, Daemon) {
    world_with("").await
}

async fn world_with(more: &str) -> (World, Intake, Daemon) {
    let mut world = World::new(&[SUN]);
    world.topology.classes = format!(
        "[[class]]\nname = \"up\"\npaths = [\"c*/up/*\"]\nuploads = {{ bytes_max = {} }}\ncors = {{ origins = [\"*\"] }}\n\
         [[class]]\nname = \"small\"\npaths = [\"c*/small/*\"]\nuploads = {{ bytes_max = 1000, bytes_per_second = 1000000 }}\n\
         [[site]]\nhost = \"{SITE}\"\ncontent_server = 1\n\
         [[site.class]]\nname = \"kept\"\npaths = [\"/kept/*\"]\npolicy = \"immutable\"\n",
        1u64 << 30
    );
    world.write_topology(&world.topology);
    world.origin.stop();
    let intake = Intake::start(world.origin.address()).await;
    let certificate = world.authority.issue(world.folder(), "site", &[SITE]);
    let sun = world
        .start_with(SUN, |settings| {
            settings.certificates.push(certificate);
            settings.more = more.to_owned();
        })
        .await;
    (world, intake, sun)
}

fn head(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {SUN}.cdn.test\r\nCookie: a=b\r\nAuthorization: secret\r\n{more}\r\n")
}

/// Sends a whole body, then reads the status.
#[track_caller]
fn upload(world: &World, target: &str, length: u64, expected: u16) -> impl Future<Output = ()> {
    let (address, target) = (world.server(SUN).http(), target.to_owned());
    async move {
        let mut raw = Raw::plain(address).await;
        raw.write(head("PUT", &target, &format!("Content-Length: {length}\r\n")).as_bytes()).await;
        let mut sent = 0;
        while sent < length {
            let piece = intake::bytes(sent, usize::try_from((length - sent).min(MIB)).unwrap());
            sent += piece.len() as u64;
            if !raw.write(&piece).await {
                break;
            }
        }
        assert_eq!(raw.status(b"").await, Some(expected), "{target}");
    }
}

async fn send(client: &Client, method: Method, url: &str, body: &str) -> Answer {
    let mut connection = client.connect(url).await.unwrap();
    let request = client.request(method, url, body.to_owned()).unwrap();
    poll::within(url, async { connection.send(request).await.unwrap().finish().await.unwrap() }).await
}

async fn body_until_hit(client: &Client, url: &str) -> String {
    let hit = poll::until(&format!("a hit of {url}"), || async {
        let answer = client.get(url).await.unwrap();
        assert_eq!(answer.status, 200);
        CacheStatus::of(&answer).is_hit().then(|| answer.text())
    });
    hit.await.0
}

/// `VmRSS` or its peak, `VmHWM`, bytes.
fn resident_bytes(sun: &Daemon, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sun.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap() * 1024
}
