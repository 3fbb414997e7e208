//! Fills that compete: for a slow content server, for its places, for the bytes in flight; and what is fetched
//! ahead.

use hyper::Method;
use tests::origin::{Gate, Script};
use tests::poll;
use tests::process::Daemon;
use tests::world::World;
use tokio::task::JoinSet;

const SUN: &str = "sun1-1-1";
const SIZE: u64 = 300_000;
const MIB: u64 = 1 << 20;

/// A counter or gauge of the sun.
async fn metric(sun: &Daemon, name: &str, labels: &[&str]) -> f64 {
    sun.metrics().await.sum(name, labels).unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_first_byte_is_asked_for_once_more() {
    let world = World::new(&[SUN]);
    let sun = world.start(SUN).await;
    // These earn the budget, and make it known that answers take milliseconds.
    for number in 0..25 {
        let file = format!("c1/usual{number}.jpg");
        world.put(&file, Script::file(SIZE));
        let answer = world.client().get(&world.https(SUN, &file)).await.unwrap();
        world.check_whole(&file, SIZE, &answer);
        assert_eq!(world.fetches(&file), 1);
    }
    let never = Gate::closed();
    world.put("c1/stalled.jpg", Script::file(SIZE).head_held_for(&never, 1));
    let answer = world.client().get(&world.https(SUN, "c1/stalled.jpg")).await.unwrap();
    world.check_whole("c1/stalled.jpg", SIZE, &answer);
    assert_eq!(world.fetches("c1/stalled.jpg"), 2);
    assert_eq!(metric(&sun, "edge_hedges_total", &["result=\"won\""]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_content_server_keeps_its_queue_and_nobody_elses() {
    let world = World::new(&[SUN]);
    let limits = "upstream.requests_max = 2\nupstream.queued_max = 1\nupstream.queued_ms = 30000\n\
                  upstream.first_byte_ms = 30000\nupstream.hedge_percent_max = 0";
    let sun = world.start_with(SUN, |settings| limits.clone_into(&mut settings.more)).await;
    let gate = Gate::closed();
    let mut slow = JoinSet::new();
    let ask = |file: &str| {
        world.put(file, Script::file(SIZE).head_held(&gate));
        let (client, url) = (world.client(), world.https(SUN, file));
        async move { client.get(&url).await.unwrap() }
    };
    for number in 0..3 {
        slow.spawn(ask(&format!("c1/slow{number}.jpg")));
    }
    poll::until_true("two asked and one queued", || async {
        let requests = metric(&sun, "edge_upstream_requests", &[]).await;
        requests == 2.0 && metric(&sun, "edge_upstream_queued", &[]).await == 1.0
    })
    .await;
    let refused = ask("c1/too-many.jpg").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1".to_owned()));
    assert_eq!(world.fetches("c1/too-many.jpg"), 0);
    world.put("c2/other.jpg", Script::file(SIZE));
    let other = world.client().get(&world.https(SUN, "c2/other.jpg")).await.unwrap();
    world.check_whole("c2/other.jpg", SIZE, &other);
    gate.open();
    while let Some(answer) = slow.join_next().await {
        assert_eq!((answer.as_ref().unwrap().status, answer.unwrap().body.len() as u64), (200, SIZE));
    }
    poll::until_true("nothing is left", || async { metric(&sun, "edge_upstream_requests", &[]).await == 0.0 }).await;
}

/// A hundred clients ask for a large file each and read nothing. Their windows alone are twice what fills may hold.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_starve_nobody() {
    const LONG: u64 = 20 * MIB;
    const CLIENTS: usize = 100;
    let world = World::new(&[SUN]);
    // An eighth of the tier: larger files are fetched only as fast as they are read.
    let sun = world.start_with(SUN, |settings| {
        settings.ram_bytes = 64 << 20;
        // Half a gigabyte is made on the way, by a machine that does other things as well.
        "upstream.first_byte_ms = 30000".clone_into(&mut settings.more);
    });
    let sun = sun.await;
    let mut lazy = Vec::new();
    let mut asking = JoinSet::new();
    for number in 0..CLIENTS {
        let file = format!("c1/long{number}.mp4");
        world.put(&file, Script::file(LONG));
        let (client, url) = (world.client().receiving(64 * 1024), world.https(SUN, &file));
        asking.spawn(async move { (number, client.start(Method::GET, &url).await.unwrap()) });
    }
    poll::within("the heads of a hundred", async {
        while let Some(started) = asking.join_next().await {
            let (number, response) = started.unwrap();
            assert_eq!(response.status(), 200, "client {number}");
            lazy.push((number, response));
        }
    })
    .await;
    world.put("c1/wanted.mp4", Script::file(LONG));
    let wanted = world.client().get(&world.https(SUN, "c1/wanted.mp4")).await.unwrap();
    world.check_whole("c1/wanted.mp4", LONG, &wanted);

    let resident = resident_bytes(sun.id());
    println!("{CLIENTS} clients that do not read: the sun holds {} MiB", resident / MIB);
    // The tier, the fills, and for each client an extent that its connection is about to send.
    assert!(resident < (64 + 256 + CLIENTS as u64 + 200) * MIB, "{} MiB", resident / MIB);

    // Those who move on after all get the right bytes, though their windows are gone.
    for (number, response) in lazy.into_iter().take(3) {
        let answer = poll::within("a client that moves on", response.finish()).await.unwrap();
        world.check_whole(&format!("c1/long{number}.mp4"), LONG, &answer);
    }
}

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// A player asks for half an extent after the other, each in a request of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_on_has_the_next_extents_fetched_ahead() {
    const LONG: u64 = 20 * MIB;
    const STEP: u64 = MIB / 2;
    let world = World::new(&[SUN]);
    // Far larger than an eighth of the tier: only what is fetched ahead counts, not the file.
    let sun = world.start_with(SUN, |settings| settings.ram_bytes = 32 << 20).await;
    let part = async |file: &str, step: u64| {
        let (start, end) = (step * STEP, (step + 1) * STEP);
        let client = world.client().with("range", &format!("bytes={start}-{}", end - 1));
        let answer = client.get(&world.https(SUN, file)).await.unwrap();
        assert_eq!((answer.status, answer.body.len() as u64), (206, STEP));
        world.origin.pattern(&World::upstream(file)).check(start, &answer.body);
    };
    let asked_from = |file: &str| {
        let first = |seen: tests::origin::Seen| {
            let range = seen.headers.get("range").unwrap().to_str().unwrap().to_owned();
            range.strip_prefix("bytes=").unwrap().split('-').next().unwrap().parse::<u64>().unwrap() / MIB
        };
        world.origin.requests_for(&World::upstream(file)).into_iter().map(first).collect::<Vec<u64>>()
    };

    world.put("c1/played.mp4", Script::file(LONG));
    part("c1/played.mp4", 0).await;
    assert_eq!(metric(&sun, "edge_read_ahead_bytes_total", &[]).await, 0.0);
    for (step, asked) in [(1, vec![0, 1]), (2, vec![0, 1, 2]), (3, vec![0, 1, 2, 3]), (4, vec![0, 1, 2, 3, 4])] {
        part("c1/played.mp4", step).await;
        poll::until_true("what comes next was asked for", || async { asked_from("c1/played.mp4") == asked }).await;
    }
    let ahead = metric(&sun, "edge_read_ahead_bytes_total", &[]).await / MIB as f64;
    assert_eq!(ahead, 4.0, "extents 1 to 4");
    assert_eq!(metric(&sun, "edge_read_ahead_used_bytes_total", &[]).await, 3.0 * STEP as f64);
    for step in 5..2 * 11 {
        part("c1/played.mp4", step).await;
    }
    let mut asked = asked_from("c1/played.mp4");
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), asked_from("c1/played.mp4").len(), "no extent twice: {asked:?}");

    // Whoever jumps has nothing fetched ahead.
    let before = metric(&sun, "edge_read_ahead_bytes_total", &[]).await;
    world.put("c1/jumped.mp4", Script::file(LONG));
    for step in [7, 30, 2, 31, 15, 22, 0] {
        part("c1/jumped.mp4", step).await;
    }
    assert_eq!(metric(&sun, "edge_read_ahead_bytes_total", &[]).await, before);
}
