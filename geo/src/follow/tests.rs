//! A follower and a server that says what the tests want.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use super::*;
use crate::table::{Candidate, Leaf, Source};
use crate::topology::RegionId;
use crate::wire::Changes;

const PREFIX: &str = "192.0.2.0/24";

#[tokio::test]
async fn a_table_is_followed_and_changed_in_place() {
    let (server, place) = (Fake::start().await, Place::new());
    server.publish(7, 0, &[(PREFIX, 4)]);
    let mut table = follow(&server.at, Some(place.copy()), metrics()).await.unwrap();
    assert_eq!(region(&table), Some(4), "a start has the table");
    let before = Arc::clone(&table.borrow_and_update());
    server.change(&[(PREFIX, Some(5))]);
    until(|| region(&table) == Some(5)).await;
    server.change(&[(PREFIX, None)]);
    until(|| region(&table).is_none()).await;
    assert!(!table.has_changed().unwrap() && Arc::ptr_eq(&before, &table.borrow()), "it is the same table");
    assert_eq!(server.tables(), 1);

    // The server begins a new life: the table is swapped.
    server.publish(8, 0, &[(PREFIX, 6)]);
    table.changed().await.unwrap();
    assert_eq!((region(&table), server.tables()), (Some(6), 2));
}

#[tokio::test]
async fn a_server_that_is_away_leaves_the_last_good_table_on_restart_too() {
    let (server, place) = (Fake::start().await, Place::new());
    server.publish(7, 0, &[(PREFIX, 4)]);
    let table = follow(&server.at, Some(place.copy()), metrics()).await.unwrap();
    server.change(&[(PREFIX, Some(5))]);
    until(|| region(&table) == Some(5)).await;
    until(|| saved(&place.copy()) == Some(1)).await;
    server.away(true);
    until(|| server.refused() > 1).await;
    assert_eq!(region(&table), Some(5));
    drop(table);

    let table = follow(&server.at, Some(place.copy()), metrics()).await.unwrap();
    assert_eq!(region(&table), Some(5), "before the server was asked");
    server.change(&[(PREFIX, Some(6))]);
    server.away(false);
    until(|| region(&table) == Some(6)).await;
    assert_eq!(server.tables(), 1, "what it missed were changes");
}

#[tokio::test]
async fn without_server_and_copy_nothing_is_known_until_it_comes() {
    let (server, place) = (Fake::start().await, Place::new());
    server.away(true);
    let table = follow(&server.at, Some(place.copy()), metrics()).await.unwrap();
    assert_eq!(region(&table), None);
    server.publish(7, 0, &[(PREFIX, 4)]);
    server.away(false);
    until(|| region(&table) == Some(4)).await;
}

#[tokio::test]
async fn a_table_that_does_not_decode_changes_nothing() {
    let (server, place) = (Fake::start().await, Place::new());
    server.publish(7, 0, &[(PREFIX, 4)]);
    let table = follow(&server.at, Some(place.copy()), metrics()).await.unwrap();
    server.break_table(8);
    until(|| server.tables() > 2).await;
    assert_eq!((region(&table), saved(&place.copy())), (Some(4), Some(0)));
    server.publish(8, 0, &[(PREFIX, 5)]);
    until(|| region(&table) == Some(5)).await;
}

#[tokio::test]
async fn a_copy_that_does_not_decode_is_as_good_as_none() {
    let (server, place) = (Fake::start().await, Place::new());
    std::fs::write(place.copy(), b"no table").unwrap();
    server.publish(7, 0, &[(PREFIX, 4)]);
    let table = follow(&server.at, Some(place.copy()), metrics()).await.unwrap();
    assert_eq!(region(&table), Some(4));
    until(|| saved(&place.copy()) == Some(0)).await;
}

#[tokio::test]
async fn a_token_or_address_that_cannot_be_used_is_an_error_of_the_start() {
    let server = Fake::start().await;
    for bad in [
        Server { url: "https://127.0.0.1".to_owned(), ..server.at.clone() },
        Server { token_file: "/nonexistent/token".into(), ..server.at.clone() },
    ] {
        assert!(matches!(follow(&bad, None, metrics()).await, Err(ClientError::Config(_))), "{bad:?}");
    }
}

#[tokio::test]
async fn a_disk_that_hangs_stops_nothing() {
    let (server, place) = (Fake::start().await, Place::new());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let disk: Disk = Arc::new(move |_, _| {
        // Until the test lets go of it.
        let _ = released.lock().unwrap().recv();
        Ok(())
    });
    server.publish(7, 0, &[(PREFIX, 4)]);
    let mut table = follow_onto(&server.at, Some(place.copy()), disk, metrics()).await.unwrap();
    assert_eq!(region(&table), Some(4));
    server.change(&[(PREFIX, Some(5))]);
    until(|| region(&table) == Some(5)).await;
    server.publish(8, 0, &[(PREFIX, 6)]);
    until(|| region(&table) == Some(6)).await;
    table.borrow_and_update();
    server.publish(9, 0, &[(PREFIX, 7)]);
    until(|| region(&table) == Some(7)).await;
    drop(release);
}

#[tokio::test]
async fn a_leaf_beyond_its_bounds_is_not_applied() {
    let (server, place) = (Fake::start().await, Place::new());
    server.publish(7, 0, &[(PREFIX, 4)]);
    let table = follow(&server.at, Some(place.copy()), metrics()).await.unwrap();
    let large = Leaf { denied: (0..65).map(RegionId).collect(), ..leaf(5) };
    lock(&server.state).changes.push(Change { prefix: PREFIX.parse().unwrap(), leaf: Some(large) });
    until(|| lock(&server.state).asked > 2).await;
    assert_eq!(region(&table), Some(4));
    until(|| saved(&place.copy()) == Some(0)).await;
}

#[tokio::test]
async fn what_a_killed_process_left_beside_the_copy_is_removed() {
    let (server, place) = (Fake::start().await, Place::new());
    server.publish(7, 0, &[(PREFIX, 4)]);
    let left = place.0.path().join(".geo.table.1-0.tmp");
    std::fs::write(&left, b"half").unwrap();
    let _table = follow(&server.at, Some(place.copy()), metrics()).await.unwrap();
    assert!(!left.exists());
}

/// The region of the prefix's first address.
fn region(table: &watch::Receiver<Arc<Table>>) -> Option<u16> {
    let table = Arc::clone(&table.borrow());
    let found = table.lookup([192, 0, 2, 1].into())?;
    table.leaf(found).candidates.first().map(|candidate| candidate.region.0)
}

/// The sequence of a copy.
fn saved(copy: &Path) -> Option<u64> {
    read(copy).ok().flatten().map(|(_, stamp)| stamp.sequence)
}

async fn until(so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it becomes so");
}

fn leaf(region: u16) -> Leaf {
    let candidates = vec![Candidate { region: RegionId(region), rank: 0 }];
    Leaf { candidates, denied: vec![], source: Source::List }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn copy(&self) -> PathBuf {
        self.0.path().join("geo.table")
    }
}

/// A server that answers as it is told.
struct Fake {
    at: Server,
    state: Arc<Mutex<Script>>,
    _token: tempfile::NamedTempFile,
}

#[derive(Default)]
struct Script {
    epoch: u64,
    first: u64,
    changes: Vec<Change>,
    table: Vec<u8>,
    away: bool,
    tables: usize,
    asked: usize,
    refused: usize,
}

impl Fake {
    async fn start() -> Self {
        let state = Arc::<Mutex<Script>>::default();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = axum::Router::new().fallback(answer).with_state(Arc::clone(&state));
        tokio::spawn(daemon::http::serve(listener, routes, daemon::http::Limits::default(), std::future::pending()));
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), "sun-token-0123456789").unwrap();
        std::fs::set_permissions(token.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        Self { at: Server { url, token_file: token.path().into() }, state, _token: token }
    }

    fn publish(&self, epoch: u64, sequence: u64, prefixes: &[(&str, u16)]) {
        let mut writer = Writer::build(Content::default());
        for (prefix, region) in prefixes {
            writer.set(prefix.parse().unwrap(), &leaf(*region));
        }
        let stamp = Stamp { epoch, sequence, ..Stamp::default() };
        let mut state = lock(&self.state);
        (state.epoch, state.first, state.table) = (epoch, sequence, writer.encode(&stamp));
        state.changes.clear();
    }

    fn break_table(&self, epoch: u64) {
        let mut state = lock(&self.state);
        state.epoch = epoch;
        state.table.truncate(10);
    }

    fn change(&self, changes: &[(&str, Option<u16>)]) {
        let change = |&(prefix, region): &(&str, Option<u16>)| Change {
            prefix: prefix.parse::<ipnet::IpNet>().unwrap(),
            leaf: region.map(leaf),
        };
        lock(&self.state).changes.extend(changes.iter().map(change));
    }

    fn away(&self, away: bool) {
        lock(&self.state).away = away;
    }

    fn tables(&self) -> usize {
        lock(&self.state).tables
    }

    fn refused(&self) -> usize {
        lock(&self.state).refused
    }
}

fn lock(state: &Mutex<Script>) -> std::sync::MutexGuard<'_, Script> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes after a sequence, each sequence being one; the table for all else.
async fn answer(State(state): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let number = |key: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(key));
        pair.map(|number| number.parse::<u64>().unwrap())
    };
    let asked = number("epoch=").zip(number("after="));
    // Long enough that a follower does not take it for hurry.
    for _ in 0..800 {
        if let Some(response) = answer_now(&mut lock(&state), asked) {
            return response;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (epoch, sequence) = asked.unwrap_or_default();
    axum::Json(Changes { epoch, sequence, changes: vec![] }).into_response()
}

/// None while there is nothing to tell.
fn answer_now(state: &mut Script, asked: Option<(u64, u64)>) -> Option<Response> {
    if state.away {
        state.refused += 1;
        return Some(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    let Some((epoch, after)) = asked else {
        state.tables += 1;
        return Some(state.table.clone().into_response());
    };
    state.asked += 1;
    let Some(known) = after.checked_sub(state.first).filter(|_| epoch == state.epoch) else {
        return Some(StatusCode::GONE.into_response());
    };
    let changes = state.changes[usize::try_from(known).unwrap()..].to_vec();
    let sequence = after + changes.len() as u64;
    (!changes.is_empty()).then(|| axum::Json(Changes { epoch, sequence, changes }).into_response())
}

/// That nobody sees.
fn metrics() -> Metrics {
    Metrics::register(&prometheus::Registry::new()).unwrap()
}
