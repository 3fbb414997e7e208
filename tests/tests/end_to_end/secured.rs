//! A content server behind TLS: fills, uploads and a cache's downloads, and certificates that are not its own.

use std::net::SocketAddr;

use tests::certificates::Files;
use tests::intake::Intake;
use tests::origin::{Script, Secured};
use tests::process::Daemon;
use tests::raw::Raw;
use tests::settings::Settings;
use tests::world::{API, World};

use crate::carrying::{SIZE, download, until_linked};
use crate::until_whole;

const SUN: &str = "sun1-1-1";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_downloads_comes_over_tls() {
    let (mut world, file) = (World::with_api(&[SUN, "cache1-1"]), "c1/a.jpg");
    let _secured = secure(&mut world).await;
    let _api = world.start(API).await;
    let (_sun, _cache) = (trusting(&world, SUN).await, trusting(&world, "cache1-1").await);
    world.put(file, Script::file(SIZE));
    until_linked(&world, 1, file, SUN).await;
    download(&world, &world.client_in(1), 1, file, 20).await;
    // The cache asks by a client of its own.
    until_linked(&world, 1, file, "cache1-1").await;
    assert_eq!(world.fetches(file), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_over_tls() {
    let mut world = World::new(&[SUN]);
    world.topology.classes = "[[class]]\nname = \"up\"\npaths = [\"*\"]\nuploads = { bytes_max = 1000 }\n".to_owned();
    world.origin.stop();
    let intake = Intake::start(world.origin.address()).await;
    let _secured = secure(&mut world).await;
    let _sun = trusting(&world, SUN).await;
    let mut raw = Raw::plain(world.server(SUN).http()).await;
    let head = format!("PUT /c1/a HTTP/1.1\r\nHost: {SUN}.cdn.test\r\nContent-Length: 4\r\n\r\nfour");
    assert_eq!(raw.status(head.as_bytes()).await, Some(201));
    assert_eq!((intake.only("/a").bytes, intake.only("/a").target.as_str()), (4, "/cs1/a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_taken_for_a_content_server() {
    let mut world = World::new(&[SUN]);
    let secured = secure(&mut world).await;
    let own = storage(&world);
    let _sun = trusting(&world, SUN).await;
    let other = world.authority.issue(world.folder(), "other", &["other.test"]);
    let expired = world.authority.issue_expired(world.folder(), "expired", &[&at(&world).ip().to_string()]);
    let stranger = tests::certificates::Authority::new();
    let strangers = stranger.issue(world.folder(), "stranger", &[&at(&world).ip().to_string()]);
    for (number, certificate) in [other, expired, strangers].iter().enumerate() {
        // Another content server each: one that fails is left alone for a moment.
        let file = format!("c{}/a.jpg", number + 1);
        world.put(&file, Script::file(SIZE));
        secured.show(certificate);
        let answer = world.client().get(&world.https(SUN, &file)).await.unwrap();
        assert_eq!(answer.status, 502, "{certificate:?}: {}", answer.text());
        assert_eq!(world.origin.requests().len(), 0, "{certificate:?}");
    }
    secured.show(&own);
    let file = "c1/a.jpg";
    until_whole(&world, &world.client(), &world.https(SUN, file), file, SIZE).await;
}

/// Puts TLS before the world's content server, and has the topology ask there.
async fn secure(world: &mut World) -> Secured {
    let address = at(world);
    world.topology.content_url = format!("https://{address}/cs{{number}}");
    world.write_topology(&world.topology);
    std::fs::write(world.path("ca.pem"), world.authority.root_pem()).unwrap();
    Secured::start(address, world.origin.address(), &storage(world)).await
}

fn at(world: &World) -> SocketAddr {
    (world.address(3), 9443).into()
}

/// The content server's own certificate.
fn storage(world: &World) -> Files {
    world.authority.issue(world.folder(), "storage", &[&at(world).ip().to_string()])
}

async fn trusting(world: &World, name: &str) -> Daemon {
    let authorities = world.path("ca.pem");
    world.start_with(name, |settings: &mut Settings| settings.more = format!("upstream.ca = {authorities:?}")).await
}
