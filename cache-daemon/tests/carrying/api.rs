//! A popularity API that ranks what a test rates, and keeps what caches tell it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use popularity_api::wire;
use serde_json::json;
use tokio::sync::watch;

use crate::scripted::{Answer, Request, Scripted};

/// The API; it answers until the test ends.
#[derive(Clone)]
pub(crate) struct Api {
    pub address: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

/// What it knows.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// What the cache told it holds.
    pub held: BTreeMap<String, u64>,
    pub generation: u64,
    /// Every report that it took: "all +c1/a", "+c1/b -c1/a".
    pub reports: Vec<String>,
    /// The cache that fetches everything from content servers, as far as the API knows.
    pub fetching: Option<String>,
    /// Fetches that were told: "begins c1/a".
    pub fetches: Vec<String>,
    /// How often it was asked what to carry.
    pub asked: usize,
    /// Calls that found it away.
    pub missed: usize,
    ratings: Vec<(String, u64, f64, Vec<String>)>,
    away: bool,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(watch::Sender::new(State::default()));
        let of_script = Arc::clone(&state);
        let server = Scripted::start(move |request| {
            let mut answer = Answer::Silence;
            of_script.send_modify(|state| answer = state.answer(request));
            answer
        })
        .await;
        Self { address: server.address, state }
    }

    /// The file's rating changes; a file has no other sources than its content server.
    pub(crate) fn rate(&self, file: &str, size: u64, score: f64) {
        self.rate_with(file, size, score, &[]);
    }

    /// As [`Api::rate`], with caches that hold it.
    pub(crate) fn rate_with(&self, file: &str, size: u64, score: f64, holders: &[&str]) {
        let holders = holders.iter().map(|&holder| holder.to_owned()).collect();
        self.state.send_modify(|state| {
            state.ratings.retain(|(rated, ..)| rated != file);
            state.ratings.push((file.to_owned(), size, score, holders));
            state.ratings.sort_by(|a, b| b.2.total_cmp(&a.2));
        });
    }

    /// It loses what it was told, as after a restart without its disk.
    pub(crate) fn forget(&self) {
        self.state.send_modify(|state| {
            state.held.clear();
            state.generation = 0;
        });
    }

    /// Another cache fetches everything from content servers, or nobody does.
    pub(crate) fn fetching(&self, cache: Option<&str>) {
        self.state.send_modify(|state| state.fetching = cache.map(str::to_owned));
    }

    /// It can or cannot be reached.
    pub(crate) fn away(&self, away: bool) {
        self.state.send_modify(|state| state.away = away);
    }

    /// Resolves when the state is so.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&State) -> bool) -> State {
        let mut state = self.state.subscribe();
        let waiting = state.wait_for(|state| so(state));
        let state = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        state.unwrap_or_else(|_| panic!("never: {what}")).unwrap().clone()
    }

    /// Resolves when exactly these files are held, as far as the API knows.
    pub(crate) async fn until_held(&self, files: &[&str]) -> State {
        self.until(&format!("{files:?} held"), |state| state.held.keys().eq(files)).await
    }

    /// Resolves when it has been asked what to carry `times` more.
    pub(crate) async fn until_asked(&self, times: usize) {
        let asked = self.state.borrow().asked;
        self.until("asked", |state| state.asked >= asked + times).await;
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        if self.away {
            self.missed += 1;
            return Answer::Raw(Vec::new());
        }
        let body = match request.line.as_str() {
            "POST /v1/status" => json!({ "servers": [], "hot": [], "holdings": [], "topology_version": 1 }),
            "POST /v1/downloads" => json!({ "counted": true, "refused": 0 }),
            "POST /v1/regions/4/caches/cache4-1/wanted" => json!(self.wanted()),
            "POST /v1/regions/4/caches/cache4-1/holdings" => {
                json!(self.take(serde_json::from_slice(&request.body).unwrap()))
            }
            "POST /v1/regions/4/caches/cache4-1/fetches" => {
                json!(self.note(serde_json::from_slice(&request.body).unwrap()))
            }
            other => panic!("the API is not asked for {other}"),
        };
        assert!(request.head.contains("authorization: bearer cache-token-0123456789"), "{}", request.head);
        Answer::Whole(200, "content-type: application/json\r\n".to_owned(), body.to_string().into_bytes())
    }

    fn wanted(&mut self) -> wire::Wanted {
        self.asked += 1;
        let (held, candidates): (Vec<_>, Vec<_>) =
            self.ratings.iter().cloned().partition(|(file, ..)| self.held.contains_key(file));
        wire::Wanted {
            candidates: candidates
                .into_iter()
                .map(|(file, size, score, sources)| wire::Candidate { file, size, score, sources })
                .collect(),
            held: held.into_iter().map(|(file, _, score, _)| wire::HeldScore { file, score }).collect(),
            holdings_generation: self.generation,
        }
    }

    fn note(&mut self, note: wire::FetchNote) -> wire::FetchAnswer {
        let state = if note.state == wire::FetchState::Begins { "begins" } else { "failed" };
        self.fetches.push(format!("{state} {}", note.file));
        wire::FetchAnswer { fetching: self.fetching.clone() }
    }

    fn take(&mut self, report: wire::HoldingsReport) -> wire::HoldingsAck {
        if report.since.is_none() {
            self.held.clear();
        }
        if report.since.is_none_or(|since| since == self.generation) {
            let mut text = if report.since.is_none() { "all".to_owned() } else { String::new() };
            for file in &report.removed {
                assert!(self.held.remove(file).is_some(), "{file} was not held: {:?}", self.reports);
                text += &format!(" -{file}");
            }
            for held in report.added {
                text += &format!(" +{}", held.file);
                self.held.insert(held.file, held.size);
            }
            self.generation = report.generation;
            self.reports.push(text.trim().to_owned());
        }
        wire::HoldingsAck { generation: self.generation }
    }
}
