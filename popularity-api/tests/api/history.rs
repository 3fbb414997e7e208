//! What is counted, on its way to a database that takes it, refuses it, or is away. The database is a stand-in that
//! keeps what it was sent; a real one is in the end-to-end tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use popularity_api::history::buffer::Row;
use popularity_api::history::spool;
use popularity_api::server::Config;
use popularity_api::{Client, ClientConfig};
use tokio::sync::mpsc;

use crate::fixture::{secret, until};
use crate::world::{World, batch, check_rating};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_is_sent_once_with_its_bytes() {
    let mut database = Database::start(true).await;
    let (world, url) = (World::start_with(database.settings()).await, database.url.clone());
    let sun = world.client("sun4-1-1");
    // One of a content server and one of a region that are not the topology's, and one that nothing arrived of.
    let mut report = batch(1, &[("c1/a", 2.0), ("c77/a", 1.0), ("c1/none", 0.0), ("c1/b", 1.0)]);
    report.downloads[3].region = geo::RegionId(77);
    assert!(sun.report_downloads(&report).await.unwrap().counted);
    assert!(!sun.report_downloads(&report).await.unwrap().counted, "sent again, not counted again");
    assert!(sun.report_downloads(&batch(2, &[("c1/a", 0.5)])).await.unwrap().counted);
    let mut found = Vec::new();
    while found.iter().map(|row: &Row| row.downloads).sum::<f64>() < 2.5 {
        let insert = database.next().await;
        assert_eq!(insert.query, "query=INSERT+INTO+sun.downloads+FORMAT+JSONEachRow", "{url}");
        assert_eq!((insert.user.as_str(), insert.password.as_str()), ("default", "a-password"));
        found.extend(insert.rows);
    }
    assert!(found.iter().all(|row| (row.region, row.file.as_str(), row.source.as_str()) == (4, "c1/a", "sun4-1-1")));
    assert_eq!(found.iter().map(|row| row.bytes).sum::<u64>(), report.downloads[0].bytes * 2);
    let metrics = until_metric(&world, "popularity_history_spool_batches 0").await;
    assert!(metrics.contains(&format!("popularity_history_rows_sent_total {}", found.len())), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_after_its_sender_went_away_is_sent_as_well() {
    let mut database = Database::start(true).await;
    let settings = database.settings();
    let world = World::start_with(|config| {
        settings(config);
        config.commit_ms = 1000;
    })
    .await;
    let (report, url) = (batch(1, &[("c1/a", 2.0)]), format!("http://{}", world.running.listen));
    let hasty = ClientConfig { url, token_file: world.folder.path().join("sun4-1-1"), timeout_ms: 200 };
    Client::new(&hasty).unwrap().report_downloads(&report).await.unwrap_err();
    // Again, as a sun does: what was counted already is none of the history's business.
    world.client("sun4-1-1").report_downloads(&report).await.unwrap();
    assert_eq!(database.next().await.rows.iter().map(|row| row.downloads).sum::<f64>(), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_waits_on_disk_and_is_sent_in_order_also_after_a_restart() {
    let mut database = Database::start(false).await;
    let mut world = World::start_with(database.settings()).await;
    world.client("sun4-1-1").report_downloads(&batch(1, &[("c1/a", 1.0)])).await.unwrap();
    let refused = database.next().await;
    // The end of the API seals what it has.
    world.client("sun4-1-1").report_downloads(&batch(2, &[("c1/b", 1.0)])).await.unwrap();
    world.restart_with(database.settings()).await;
    let kept = spool::kept(&world.folder.path().join("data/history")).unwrap();
    assert!(kept.len() == 2, "{kept:?}");
    database.takes.store(true, Ordering::SeqCst);
    let mut taken = vec![refused];
    while taken.last().unwrap().rows[0].file != "c1/b" {
        taken.push(database.next().await);
    }
    let again = &taken[taken.len() - 2];
    assert_eq!(again.rows, taken[0].rows, "the same rows with the same number");
    assert!(taken.last().unwrap().rows[0].batch > again.rows[0].batch);
    until_metric(&world, "popularity_history_spool_batches 0").await;
    assert_eq!(spool::kept(&world.folder.path().join("data/history/sent")).unwrap_or_default().len(), 2, "for `fill`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_no_good_is_put_aside_and_the_next_ones_are_sent() {
    let mut database = Database::start(true).await;
    let world = World::start_with(database.settings()).await;
    let sun = world.client("sun4-1-1");
    sun.report_downloads(&batch(1, &[(NO_GOOD, 1.0)])).await.unwrap();
    assert_eq!(database.next().await.rows[0].file, NO_GOOD);
    sun.report_downloads(&batch(2, &[("c1/a", 1.0)])).await.unwrap();
    while database.next().await.rows[0].file == NO_GOOD {}
    let metrics = until_metric(&world, "popularity_history_spool_batches 0").await;
    assert!(metrics.contains("popularity_history_rows_dropped_total{why=\"refused\"} 1\n"), "{metrics}");
    assert!(metrics.contains("popularity_history_rows_sent_total 1\n"), "{metrics}");
    assert_eq!(spool::kept(&world.folder.path().join("data/history")).unwrap().len(), 2, "for `fill`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_never_answers_holds_nothing_up() {
    // The kernel takes the connection, nobody answers.
    let hung = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", hung.local_addr().unwrap());
    let change = move |config: &mut Config| {
        config.history.url = Some(url.clone());
        config.history.flush_s = 1;
        config.history.timeout_ms = 600_000;
    };
    let mut world = World::start_with(change.clone()).await;
    for sequence in 1..20 {
        let ack = world.client("sun4-1-1").report_downloads(&batch(sequence, &[("c1/a", 1.0)])).await.unwrap();
        assert!(ack.counted);
    }
    world.restart_with(change).await;
    check_rating(&world, 19.0).await;
    let kept = spool::kept(&world.folder.path().join("data/history")).unwrap();
    let rows = kept.iter().flat_map(|(path, batch)| rows(&spool::unpack(&spool::read(path, batch).unwrap()).unwrap()));
    assert_eq!(rows.map(|row| row.downloads).sum::<f64>(), 19.0);
}

/// Waits until the admin port says so; all it says.
async fn until_metric(world: &World, line: &str) -> String {
    until(line, async || {
        let metrics = world.metrics().await;
        metrics.lines().any(|other| other == line).then_some(metrics)
    })
    .await
}

/// Takes or refuses inserts as ClickHouse does.
struct Database {
    url: String,
    takes: Arc<AtomicBool>,
    inserts: mpsc::UnboundedReceiver<Insert>,
}

struct Insert {
    query: String,
    user: String,
    password: String,
    rows: Vec<Row>,
}

impl Database {
    async fn start(takes: bool) -> Self {
        let takes = Arc::new(AtomicBool::new(takes));
        let (heard, inserts) = mpsc::unbounded_channel();
        let state = (Arc::clone(&takes), heard);
        let app = axum::Router::new().route("/", axum::routing::post(insert)).with_state(state);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(daemon::http::serve(listener, app, daemon::http::Limits::default(), std::future::pending()));
        Self { url, takes, inserts }
    }

    /// A config with this database.
    fn settings(&self) -> impl FnOnce(&mut Config) + use<> {
        let url = self.url.clone();
        move |config| {
            let password = config.tokens.with_file_name("clickhouse");
            secret(&password, "a-password\n");
            config.history.url = Some(url);
            config.history.password_file = Some(password);
            config.history.flush_s = 1;
        }
    }

    async fn next(&mut self) -> Insert {
        tokio::time::timeout(Duration::from_secs(60), self.inserts.recv()).await.expect("an insert").unwrap()
    }
}

type Heard = (Arc<AtomicBool>, mpsc::UnboundedSender<Insert>);

async fn insert(
    State((takes, heard)): State<Heard>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> (StatusCode, &'static str) {
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    assert_eq!(header("content-encoding"), "gzip");
    let insert = Insert {
        query: query.unwrap_or_default(),
        user: header("x-clickhouse-user"),
        password: header("x-clickhouse-key"),
        rows: rows(&spool::unpack(&body).unwrap()),
    };
    let no_good = insert.rows.iter().any(|row| row.file == NO_GOOD);
    heard.send(insert).ok();
    if no_good {
        (StatusCode::BAD_REQUEST, "Code: 27, e.displayText() = DB::Exception: Cannot parse input.\n")
    } else if takes.load(Ordering::SeqCst) {
        (StatusCode::OK, "")
    } else {
        (StatusCode::NOT_FOUND, "Code: 60, e.displayText() = DB::Exception: Table sun.downloads doesn't exist.\n")
    }
}

/// A file that the stand-in takes no rows of.
const NO_GOOD: &str = "c1/no-good";

fn rows(lines: &[u8]) -> Vec<Row> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}
