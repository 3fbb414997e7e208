//! Downloads in ClickHouse: a real server (Debian's 18.16), tables of `sunctl history`, queries of `deploy/clickhouse`.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use geo::RegionId;
use popularity_api::history::clickhouse::{Access, statements};
use popularity_api::wire::{Download, DownloadsBatch};
use popularity_api::{Client, ClientConfig};
use tests::poll;
use tests::process::{Daemon, run};
use tests::settings::token_file;
use tests::world::{API, World};

use crate::{check_done, text};

#[tokio::test(flavor = "multi_thread")]
async fn downloads_are_in_clickhouse_once_whatever_happens_to_it() {
    let world = World::with_api(&["sun1-1-1", "cache1-1"]);
    let (mut clickhouse, access) = (ClickHouse::start(&world).await, access(&world));
    let (mut api, sun) = (start(&world).await, client(&world));
    let config = world.path("popularity-api.toml");
    let history = |arguments: &[&str]| {
        let with_config = [&["history"], arguments, &["--config", text(&config)]].concat();
        run("sunctl", &with_config)
    };

    // Without tables batches wait.
    sun.report_downloads(&batch(1, &[("c1/a.jpg", 2.0), ("c1/b.jpg", 1.0)])).await.unwrap();
    poll::until_true("an insert is refused", || async { metric(&api, "failures_total").await > 0.0 }).await;
    check_done(&history(&["init"]), 0, &["history_of_test.downloads is there", "this server cannot let rows go"]);
    until_sums(&access, "c1/a.jpg\t2\t200\nc1/b.jpg\t1\t100\n").await;
    check_done(&history(&["init"]), 0, &["is there"]);

    // While it is away they wait, also when the API is killed.
    clickhouse.kill();
    sun.report_downloads(&batch(2, &[("c1/a.jpg", 3.0)])).await.unwrap();
    poll::until_true("a batch waits", || async { metric(&api, "spool_batches").await > 0.0 }).await;
    api.kill();
    clickhouse = ClickHouse::start(&world).await;
    let api = start(&world).await;
    let expected = "c1/a.jpg\t5\t500\nc1/b.jpg\t1\t100\n";
    until_sums(&access, expected).await;
    poll::until_true("nothing waits", || async { metric(&api, "spool_batches").await == 0.0 }).await;

    // Filled again over what is there, and from nothing.
    check_done(&history(&["fill"]), 0, &["3 rows in 2 batches were inserted"]);
    assert_eq!(sums(&access).await, expected, "nothing is doubled");
    check_done(&history(&["delete", "--all"]), 1, &["history_of_test.downloads goes", "say --yes"]);
    check_done(&history(&["delete", "--all", "--yes"]), 0, &["is gone"]);
    check_done(&history(&["init", "--days", "0"]), 0, &["is there"]);
    check_done(&history(&["fill"]), 0, &["3 rows in 2 batches were inserted"]);
    assert_eq!(sums(&access).await, expected);
    check_queries(&access).await;

    check_done(&history(&["delete", "--before", "2020-01-01", "--yes"]), 0, &["no such day"]);
    check_done(&history(&["delete", "--before", "2999-01-01", "--yes"]), 0, &["days gone: "]);
    assert_eq!(sums(&access).await, "");
    drop(clickhouse);
}

#[test]
#[ignore = "fetches 300 MB: tests/history/run"]
fn the_sql_is_that_of_a_current_engine_too() {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/history/run")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with("9 checks passed\n"), "{said}");
}

/// Every query of `deploy/clickhouse/queries.sql`, its parameters written in: this server knows none.
async fn check_queries(access: &Access) {
    let day = access.ask("SELECT max(toDate(at)) FROM history_of_test.downloads").await.unwrap();
    let queries = statements(include_str!("../../../deploy/clickhouse/queries.sql"));
    // Where hours and days are told: what all rows together have in the columns from this one on.
    let totals = [None, Some((2, "600 6")), Some((2, "5 500")), None, None, Some((1, "3 3 600"))];
    let first = ["c1/a.jpg\t5\t500\t1", "1\t", "2", "sun1-1-1\t600\t6\t2", "1\t600\t2", "2"];
    assert_eq!([queries.len(), totals.len()], [first.len(); 2]);
    for ((query, first), totals) in queries.iter().zip(first).zip(totals) {
        let query = query
            .replace("sun.", "history_of_test.")
            .replace("{day:Date}", &format!("toDate('{}')", day.trim()))
            .replace("{file:String}", "'c1/a.jpg'");
        let said = access.ask(&query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
        assert!(said.starts_with(first) && said.lines().count() > 0, "{query}: {said}");
        if let Some((from, expected)) = totals {
            let columns = expected.split(' ').count();
            let sums: Vec<String> = (from..from + columns).map(|column| total(&said, column).to_string()).collect();
            assert_eq!(sums.join(" "), expected, "{query}: {said}");
        }
    }
}

/// Of one column of an answer.
fn total(said: &str, column: usize) -> f64 {
    said.lines().map(|line| line.split('\t').nth(column).unwrap().parse::<f64>().unwrap()).sum()
}

/// Name, downloads and bytes of every file.
async fn sums(access: &Access) -> String {
    let query =
        "SELECT file, sum(downloads), sum(bytes) FROM history_of_test.downloads FINAL GROUP BY file ORDER BY file";
    access.ask(query).await.unwrap_or_else(|error| error.to_string())
}

async fn until_sums(access: &Access, expected: &str) {
    poll::until_true(expected, || async { sums(access).await == expected }).await;
}

async fn metric(api: &Daemon, name: &str) -> f64 {
    api.metrics().await.sum(&format!("popularity_history_{name}"), &[]).unwrap_or_default()
}

async fn start(world: &World) -> Daemon {
    let url = address(world);
    let more = format!("[history]\nurl = \"http://{url}\"\ndatabase = \"history_of_test\"\nflush_s = 1\n");
    world.start_with(API, |settings| settings.more = more).await
}

fn client(world: &World) -> Client {
    let (url, token_file) = (format!("http://{}", world.api()), token_file(world.folder(), "sun1-1-1"));
    Client::new(&ClientConfig { url, token_file, timeout_ms: 30_000 }).unwrap()
}

fn access(world: &World) -> Access {
    Access::new(&format!("http://{}", address(world)), "history_of_test", "default", None, 30_000).unwrap()
}

fn address(world: &World) -> SocketAddr {
    (world.address(14), 8123).into()
}

fn batch(sequence: u64, files: &[(&str, f64)]) -> DownloadsBatch {
    let download = |&(file, downloads): &(&str, f64)| Download {
        region: RegionId(1),
        file: file.to_owned(),
        size: 100,
        downloads,
        bytes: (downloads * 100.0) as u64,
    };
    let downloads = files.iter().map(download).collect();
    DownloadsBatch { source: "sun1-1-1".to_owned(), boot: 1, sequence, age_ms: 0, downloads }
}

/// A server of its own folder and address; killed when dropped.
struct ClickHouse(Child);

impl ClickHouse {
    async fn start(world: &World) -> Self {
        let folder = world.path("clickhouse");
        std::fs::create_dir_all(folder.join("tmp")).unwrap();
        let config = folder.join("config.xml");
        let at = address(world);
        let text = format!(
            "<yandex><logger><level>warning</level><console>1</console></logger><http_port>{}</http_port>\
             <listen_host>{}</listen_host><path>{folder}/</path><tmp_path>{folder}/tmp/</tmp_path>\
             <mark_cache_size>5000000</mark_cache_size><users_config>users.xml</users_config>\
             <default_profile>default</default_profile><default_database>default</default_database></yandex>",
            at.port(),
            at.ip(),
            folder = folder.display()
        );
        std::fs::write(&config, text).unwrap();
        let users = "<yandex><profiles><default><max_memory_usage>500000000</max_memory_usage></default></profiles>\
                     <users><default><password></password><networks><ip>127.0.0.0/8</ip></networks>\
                     <profile>default</profile><quota>default</quota></default></users>\
                     <quotas><default></default></quotas></yandex>";
        std::fs::write(folder.join("users.xml"), users).unwrap();
        let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Command::new("clickhouse-server");
        command.arg(format!("--config-file={}", config.display())).current_dir(&folder).stdin(Stdio::null());
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let server = Self(command.spawn().expect("clickhouse-server of Debian; see tests/setup"));
        let access = access(world);
        poll::until_true("ClickHouse answers", || async { access.ask("SELECT 1").await.is_ok() }).await;
        server
    }

    fn kill(&mut self) {
        self.0.kill().expect("it can be killed");
        let _ = self.0.wait();
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
