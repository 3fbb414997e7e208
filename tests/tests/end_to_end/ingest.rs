//! Downloads on their way to the ratings: an API that is away, suns that are killed meanwhile, and floods of names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use popularity_api::wire::Top;
use serde_json::json;
use tests::origin::Script;
use tests::poll;
use tests::process::Daemon;
use tests::settings::token;
use tests::world::{API, World};

const SIZE: u64 = 20_000;
const SUNS: [&str; 2] = ["sun1-1-1", "sun1-1-2"];

#[tokio::test(flavor = "multi_thread")]
async fn downloads_of_an_outage_count_once_although_suns_and_api_were_killed() {
    let world = World::with_api(&SUNS);
    let mut api = world.start(API).await;
    let mut suns = Vec::new();
    for name in SUNS {
        suns.push(world.start(name).await);
    }
    let mut expected = BTreeMap::new();
    let mut fetch = async |name: &str, file: &str| {
        world.put(file, Script::file(SIZE));
        let answer = world.client_in(1).get(&world.https(name, file)).await.unwrap();
        world.check_whole(file, SIZE, &answer);
        *expected.entry(file.to_owned()).or_insert(0.0) += 1.0;
    };
    fetch(SUNS[0], "c1/before.jpg").await;
    until_rated(&world, &[("c1/before.jpg", 1.0)]).await;

    api.kill();
    let mut waiting = [0.0; 2];
    for round in 0..3 {
        for at in 0..2 {
            for file in ["c1/a.jpg", "c1/b.jpg", "c1/a.jpg"] {
                fetch(SUNS[at], file).await;
                waiting[at] += 1.0;
                until_backlog(&suns[at], waiting[at]).await;
            }
        }
        // The first is killed, the second ends in order; both find what they left.
        if round == 1 {
            suns[0].kill();
            suns[0].restart().await;
            suns[1].terminate();
            assert!(suns[1].until_ended().await.success());
            suns[1].restart().await;
            for (sun, waiting) in suns.iter().zip(waiting) {
                until_backlog(sun, waiting).await;
                assert_eq!(value(sun, "edge_report_spool_bytes").await, 4096.0 * waiting);
            }
        }
    }
    let spool = world.path(&format!("{}.data/spool", SUNS[0]));
    let kept = copy(&spool, &world.path("kept"));
    assert_eq!(kept, 9);
    suns[0].kill();

    api.restart().await;
    suns[0].restart().await;
    let rated: Vec<(&str, f64)> = expected.iter().map(|(file, downloads)| (file.as_str(), *downloads)).collect();
    assert_eq!(rated, [("c1/a.jpg", 12.0), ("c1/b.jpg", 6.0), ("c1/before.jpg", 1.0)]);
    until_rated(&world, &rated).await;
    for sun in &suns {
        until_backlog(sun, 0.0).await;
        assert_eq!(value(sun, "edge_report_dropped_total").await, 0.0);
    }

    // Acknowledgements that were lost, as it were: all of it is sent again after both were killed. What the API counted
    // of the last life it knows by its mark, what is older is refused; nothing counts twice.
    let counted = value(&api, "popularity_batches_counted_total").await;
    assert_eq!(counted, 18.0);
    suns[0].kill();
    copy(&world.path("kept"), &spool);
    api.kill();
    api.restart().await;
    suns[0].restart().await;
    // Not the backlog: it is 0 as well before the sun has looked at its spool.
    let answered = async || value(&api, "popularity_batches_duplicate_total").await + refused(&suns[0]).await;
    poll::until_true("9 batches are answered", || async { answered().await >= 9.0 }).await;
    until_backlog(&suns[0], 0.0).await;
    assert_eq!(answered().await, 9.0);
    assert_eq!(value(&api, "popularity_batches_counted_total").await, 0.0);
    assert!(value(&api, "popularity_batches_duplicate_total").await >= 3.0);
    until_rated(&world, &rated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_names_evicts_nothing_rated_and_fills_no_memory() {
    const RATED: usize = 1000;
    const FLOOD: usize = 20;
    let world = World::with_api(&SUNS);
    let api = world.start_with(API, |settings| settings.more = format!("limits.pairs_max = {RATED}")).await;
    let sun = world.client().with("authorization", &format!("Bearer {}", token(SUNS[0])));
    let url = format!("http://{}/v1/downloads", world.api());
    let report = async |sequence: usize, files: Vec<(String, f64)>| {
        let entry =
            |(file, downloads)| json!({ "region": 1, "file": file, "size": 9, "downloads": downloads, "bytes": 9 });
        let downloads: Vec<serde_json::Value> = files.into_iter().map(entry).collect();
        let batch = json!({ "source": SUNS[0], "boot": 1, "sequence": sequence, "downloads": downloads });
        let ack = sun.post(&url, &batch).await.unwrap();
        assert_eq!((ack.status, ack.json()["counted"].as_bool()), (200, Some(true)), "{}", ack.text());
    };
    report(1, (0..RATED).map(|n| (format!("c1/rated/{n}.jpg"), 2.0 + n as f64)).collect()).await;
    assert_eq!(value(&api, "popularity_pairs").await, RATED as f64);
    let rated = names(&top(&world, RATED).await);
    assert_eq!(rated.len(), RATED);

    let flood = |round: usize| (0..10_000).map(|n| (format!("c1/flood/{round}/{n}.jpg"), 1.0)).collect();
    report(2, flood(0)).await;
    let (bytes, files) = (value(&api, "popularity_table_bytes").await, value(&api, "popularity_files").await);
    for round in 1..FLOOD {
        report(2 + round, flood(round)).await;
    }
    assert_eq!(names(&top(&world, RATED).await), rated, "in the same order");
    assert_eq!(value(&api, "popularity_pairs_evicted_total").await, 0.0);
    assert_eq!(value(&api, "popularity_pairs_turned_away_total").await, 10_000.0 * FLOOD as f64);
    assert_eq!(value(&api, "popularity_table_bytes").await, bytes);
    assert_eq!(value(&api, "popularity_files").await, files);
}

async fn until_rated(world: &World, expected: &[(&str, f64)]) {
    let expected: BTreeMap<String, f64> = expected.iter().map(|(file, rated)| ((*file).to_owned(), *rated)).collect();
    let rated = async || {
        let top = top(world, 100).await;
        top.files.into_iter().map(|one| (one.file, (one.rating_days * 10.0).round() / 10.0)).collect::<BTreeMap<_, _>>()
    };
    let wanted = &expected;
    poll::until_true(&format!("{expected:?}"), || async { rated().await == *wanted }).await;
}

async fn top(world: &World, limit: usize) -> Top {
    let operator = world.client().with("authorization", &format!("Bearer {}", token("operator")));
    let url = format!("http://{}/v1/regions/1/top?limit={limit}", world.api());
    serde_json::from_slice(&operator.get(&url).await.unwrap().body).unwrap()
}

fn names(top: &Top) -> Vec<String> {
    top.files.iter().map(|one| one.file.clone()).collect()
}

async fn until_backlog(sun: &Daemon, batches: f64) {
    poll::until_true(&format!("{batches} batches wait"), || async {
        value(sun, "edge_report_backlog").await == batches
    })
    .await;
}

/// Batches of one entry each.
async fn refused(sun: &Daemon) -> f64 {
    value(sun, "edge_report_refused_total").await
}

async fn value(daemon: &Daemon, name: &str) -> f64 {
    daemon.metrics().await.sum(name, &[]).unwrap_or_else(|| panic!("there is no {name}"))
}

/// Copies the batches of a spool; how many.
fn copy(from: &Path, to: &Path) -> usize {
    std::fs::create_dir_all(to).unwrap();
    let files = std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path());
    let batches: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|suffix| suffix == "batch")).collect();
    for batch in &batches {
        std::fs::copy(batch, to.join(batch.file_name().unwrap())).unwrap();
    }
    batches.len()
}
