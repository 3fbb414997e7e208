//! Many clients, one fill.

use hyper::Method;
use tests::client::Client;
use tests::origin::{Gate, Script};
use tests::pattern::Pattern;
use tests::world::World;
use tokio::task::JoinSet;

use crate::until_hit;

const SUN: &str = "sun1-1-1";
const SIZE: u64 = 300_000;
/// Bytes the content server sends before it is held.
const BEFORE: u64 = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_of_one_cold_file_are_one_fetch() {
    let world = World::new(&[SUN]);
    let gate = Gate::closed();
    world.put("c1/a.jpg", Script::file(SIZE).held_at(BEFORE, &gate));
    let _sun = world.start(SUN).await;
    let url = world.https(SUN, "c1/a.jpg");

    // All are connected and have the first bytes before the content server sends another: nobody can be late.
    let (began, mut begun) = tokio::sync::mpsc::channel(1000);
    let mut clients = JoinSet::new();
    for number in 0..1000 {
        let client = if number % 2 == 0 { world.client() } else { world.client().http2() };
        clients.spawn(download(client, url.clone(), began.clone()));
    }
    for _ in 0..1000 {
        tests::poll::within("the first bytes of all thousand", begun.recv()).await.expect("they live");
    }
    assert_eq!(world.fetches("c1/a.jpg"), 1);
    gate.open();
    tests::poll::within("the end of all thousand", async {
        while let Some(length) = clients.join_next().await {
            assert_eq!(length.unwrap(), SIZE);
        }
    })
    .await;
    assert_eq!(world.fetches("c1/a.jpg"), 1);
}

/// Reads the first bytes, says so, reads the rest; every byte is compared. Returns how many there were.
async fn download(client: Client, url: String, began: tokio::sync::mpsc::Sender<()>) -> u64 {
    let pattern = Pattern::of("/cs1/a.jpg", 0);
    let mut response = client.start(Method::GET, &url).await.unwrap();
    assert_eq!(response.status(), 200);
    let first = response.read(BEFORE as usize).await.unwrap();
    pattern.check(0, &first);
    began.send(()).await.unwrap();
    let rest = response.finish().await.unwrap();
    pattern.check(first.len() as u64, &rest.body);
    (first.len() + rest.body.len()) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_client_gets_bytes_before_the_content_server_has_sent_them_all() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    for (number, second) in [world.client(), world.client().http2()].into_iter().enumerate() {
        let file = format!("c1/{number}.jpg");
        let gate = Gate::closed();
        world.put(&file, Script::file(SIZE).held_at(BEFORE, &gate));
        let url = world.https(SUN, &file);
        let mut first = world.client().start(Method::GET, &url).await.unwrap();
        gate.reached().await;
        let mut second = second.start(Method::GET, &url).await.unwrap();
        let pattern = world.origin.pattern(&World::upstream(&file));
        for response in [&mut first, &mut second] {
            pattern.check(0, &response.read(BEFORE as usize).await.unwrap());
        }
        gate.open();
        for response in [first, second] {
            let rest = response.finish().await.unwrap();
            pattern.check(BEFORE, &rest.body);
            assert_eq!(rest.body.len() as u64, SIZE - BEFORE);
        }
        assert_eq!(world.fetches(&file), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_outlives_the_client_that_began_it() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    for (number, client) in [world.client(), world.client().http2()].into_iter().enumerate() {
        let file = format!("c1/{number}.jpg");
        let gate = Gate::closed();
        world.put(&file, Script::file(SIZE).held_at(BEFORE, &gate));
        let url = world.https(SUN, &file);
        let mut response = client.start(Method::GET, &url).await.unwrap();
        response.read(BEFORE as usize).await.unwrap();
        drop(response);
        gate.open();
        until_hit(&world, &world.client(), &url, &file, SIZE).await;
        assert_eq!(world.fetches(&file), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_up_nobody() {
    const LONG: u64 = 20_000_000;
    let world = World::new(&[SUN]);
    world.put("c1/long.mp4", Script::file(LONG));
    let _sun = world.start(SUN).await;
    let url = world.https(SUN, "c1/long.mp4");
    // It has the head and then reads nothing: far more than all buffers between stays unsent.
    let mut lazy = world.client().start(Method::GET, &url).await.unwrap();
    lazy.read(1).await.unwrap();
    let eager = world.client().get(&url).await.unwrap();
    world.check_whole("c1/long.mp4", LONG, &eager);
    drop(lazy);
    assert_eq!(world.fetches("c1/long.mp4"), 1);
}
