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

/// More files than fit into RAM, parts of them asked for at random by many at once, whole files between: every
/// byte is right whatever is evicted meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn parts_at_random_of_more_files_than_fit_are_right() {
    const LONG: u64 = 3_000_000;
    const FILES: u64 = 8;
    let world = World::new(&["sun1-1-1", "sun1-1-2"]);
    let _first = world.start_with("sun1-1-1", |settings| settings.ram_bytes = 8 << 20).await;
    let _second = world.start_with("sun1-1-2", |settings| settings.ram_bytes = 8 << 20).await;
    for number in 0..FILES {
        let script = Script::file(LONG);
        world.put(&format!("c1/{number}.mp4"), if number % 4 == 3 { script.ignoring_ranges() } else { script });
    }
    let mut clients = JoinSet::new();
    for number in 0..16_u64 {
        let client = if number % 2 == 0 { world.client() } else { world.client().http2() };
        let bases = ["sun1-1-1", "sun1-1-2"].map(|sun| world.https(sun, ""));
        clients.spawn(async move {
            // SplitMix64 again: the same parts in every run.
            let mut random = Pattern::of("parts", u32::try_from(number).expect("few")).bytes(0, 20 * 32).into_iter();
            let mut draw = |below: u64| {
                let drawn = random.by_ref().take(8).fold(0_u64, |all, byte| all << 8 | u64::from(byte));
                drawn % below
            };
            for _ in 0..20 {
                let (file, sun, start) = (draw(FILES), draw(2), draw(LONG));
                let end = start + 1 + draw(LONG - start);
                let url = format!("{}c1/{file}.mp4", bases[usize::try_from(sun).expect("two")]);
                let answer = client.clone().with("range", &format!("bytes={start}-{}", end - 1)).get(&url).await;
                let answer = answer.unwrap_or_else(|error| panic!("{url} {start}..{end}: {error:#}"));
                assert_eq!((answer.status, answer.body.len() as u64), (206, end - start), "{url} {start}..{end}");
                Pattern::of(&format!("/cs1/{file}.mp4"), 0).check(start, &answer.body);
            }
        });
    }
    for number in 0..FILES {
        let file = format!("c1/{number}.mp4");
        let whole = world.client().get(&world.https("sun1-1-1", &file)).await.unwrap();
        world.check_whole(&file, LONG, &whole);
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}
