//! `sunctl purge`: takes something out of all suns and caches, and names those that did not answer.
//!
//! ```text
//!   popularity API answers --> its log --> acknowledgements, until all are there or the wait is over
//!        |
//!        is away --> GET /v1/purge of every server: the greatest number of a direct purge
//!                    POST that + 1 to every server; who does not answer is asked again until the wait is over
//!                        409: somebody else purged meanwhile, once more with a greater number
//!                    and the API is asked again too: once it has the purge, the log does the rest
//! ```
//!
//! Both ways may be taken for one purge: what comes twice is in force twice, and costs the files that were fetched in
//! between. A server that was down during a direct purge does not hear of it when it comes back: it is named here,
//! and the purge is to be repeated.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use geo::answer::{Answer, Table};
use geo::{RegionId, Topology};
use popularity_api::purge::Target;
use popularity_api::wire::{DirectPurge, PurgeMark, PurgeMode, PurgeRequest, PurgeState};
use popularity_api::{Client, ClientError};
use rand::RngExt;
use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

/// A purge that an operator wants.
#[derive(Clone, Debug)]
pub struct Order {
    /// See [`id`].
    pub id: String,
    /// What.
    pub target: Target,
    /// How.
    pub mode: PurgeMode,
    /// Where; none: the fleet.
    pub region: Option<RegionId>,
    /// How long servers may take.
    pub wait: Duration,
}

/// An id of its own for a purge.
pub fn id(random: &mut impl rand::Rng) -> String {
    format!("sunctl-{:016x}", random.random::<u64>())
}

/// Purges through the log of `api`, or directly at the servers of `topology` when there is no API or it is away.
///
/// # Errors
///
/// When the API refuses, or is away and there is no topology.
pub async fn purge(
    order: &Order,
    api: Option<&Client>,
    topology: Option<&Topology>,
    token: &str,
) -> anyhow::Result<Answer> {
    let until = Instant::now() + order.wait;
    let away = match api {
        None => None,
        Some(api) => match api.purge(&order.request()).await {
            Ok(ack) => {
                if let Some(note) = ack.note {
                    eprintln!("sunctl: {note}");
                }
                return follow(api, ack.sequence, until).await;
            }
            Err(error @ ClientError::Unreachable { .. }) => Some(error),
            Err(error) => return Err(error.into()),
        },
    };
    let topology = match (topology, away) {
        (Some(topology), away) => {
            if let Some(error) = away {
                eprintln!("sunctl: {error}; going to every server directly");
            }
            topology
        }
        (None, Some(error)) => {
            return Err(error).context("not purged; with --topology every server is asked directly");
        }
        (None, None) => anyhow::bail!("which topology? Say --topology FILE or set SUN_TOPOLOGY"),
    };
    let mut direct = Direct::new(order, topology, token)?;
    loop {
        direct.round().await;
        if direct.done() || Instant::now() >= until {
            return Ok(direct.answer());
        }
        if let Some(api) = api
            && let Ok(ack) = api.purge(&order.request()).await
        {
            return follow(api, ack.sequence, until).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits for the acknowledgements of an entry of the log.
async fn follow(api: &Client, sequence: u64, until: Instant) -> anyhow::Result<Answer> {
    let mut told = 0;
    loop {
        let acknowledgements = api.acknowledgements(sequence).await.context("the purge is in the log")?;
        let state = |state| match state {
            PurgeState::Applied => Outcome::Done,
            PurgeState::Waiting => Outcome::Open("not yet".to_owned()),
            PurgeState::Silent => Outcome::Open("silent".to_owned()),
        };
        let servers = acknowledgements.servers.into_iter();
        let report = Report {
            place: json!({ "sequence": sequence }),
            said: format!("purge {sequence} of the log"),
            later: "they will hear of it when they are back",
            servers: servers.map(|server| (server.server, state(server.state))).collect(),
        };
        let done = report.done();
        if done > told {
            eprintln!("{done} of {} servers", report.servers.len());
            told = done;
        }
        if report.open() == 0 || Instant::now() >= until {
            return Ok(report.answer());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Order {
    fn request(&self) -> PurgeRequest {
        let (what, value) = (self.target.what(), self.target.value().to_owned());
        PurgeRequest { id: self.id.clone(), what, value, mode: self.mode, region: self.region }
    }
}

/// A purge on its way to every server by itself.
struct Direct {
    http: reqwest::Client,
    token: String,
    purge: DirectPurge,
    servers: BTreeMap<String, SocketAddr>,
    outcomes: BTreeMap<String, Outcome>,
}

/// How far one server is.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Outcome {
    Done,
    /// And why.
    Open(String),
}

/// What one call of a server gave.
enum Said {
    Mark(PurgeMark),
    /// 409.
    Behind(PurgeMark),
    Nothing(String),
}

impl Direct {
    fn new(order: &Order, topology: &Topology, token: &str) -> anyhow::Result<Self> {
        let regions: Vec<_> =
            topology.regions.iter().filter(|region| order.region.is_none_or(|meant| meant == region.id)).collect();
        anyhow::ensure!(!regions.is_empty(), "the topology has no such region");
        let servers = regions.iter().flat_map(|region| {
            let suns = region.suns.iter().map(|sun| &sun.server);
            suns.chain(region.caches.iter().map(|cache| &cache.server))
        });
        let http = reqwest::Client::builder()
            .no_proxy()
            // Plain HTTP only: the platform's authorities, which a machine may lack, are not asked for.
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .timeout(CALL)
            .build()
            .context("HTTP client")?;
        let (what, value) = (order.target.what(), order.target.value().to_owned());
        Ok(Self {
            http,
            token: token.to_owned(),
            purge: DirectPurge { id: order.id.clone(), number: 0, what, value, mode: order.mode },
            servers: servers.map(|server| (server.name.clone(), server.internal)).collect(),
            outcomes: BTreeMap::new(),
        })
    }

    /// Asks everybody who has not answered yet.
    async fn round(&mut self) {
        for _ in 0..NUMBERS_MAX {
            let marks = self.each(None).await;
            let known = marks.values().filter_map(|said| match said {
                Said::Mark(mark) | Said::Behind(mark) => Some(mark.direct),
                Said::Nothing(_) => None,
            });
            let greatest = known.max().unwrap_or(0);
            if greatest >= self.purge.number && !(self.purge.number > 0 && greatest == self.purge.number) {
                // The first round, or somebody else's purge came in between: the same number must mean the same everywhere.
                self.purge.number = greatest + 1;
                self.outcomes.clear();
            }
            let answers = self.each(Some(&self.purge)).await;
            let mut behind = None;
            for (server, said) in answers {
                let outcome = match said {
                    Said::Mark(_) => Outcome::Done,
                    Said::Behind(mark) => {
                        behind = behind.max(Some(mark.direct));
                        Outcome::Open("another purge came first".to_owned())
                    }
                    Said::Nothing(why) => Outcome::Open(why),
                };
                self.outcomes.insert(server, outcome);
            }
            let Some(behind) = behind else { return };
            self.purge.number = behind + 1;
            self.outcomes.clear();
        }
    }

    /// One call to each server that is not done.
    async fn each(&self, purge: Option<&DirectPurge>) -> BTreeMap<String, Said> {
        let mut calls = JoinSet::new();
        let open = self.servers.iter().filter(|(name, _)| self.outcomes.get(*name) != Some(&Outcome::Done));
        for (name, address) in open {
            let url = format!("http://{address}{}", sun::purge::direct::PATH);
            let request = match purge {
                None => self.http.get(url),
                Some(purge) => self.http.post(url).json(purge),
            };
            let (name, call) = (name.clone(), call(request.bearer_auth(&self.token)));
            calls.spawn(async move { (name, call.await) });
        }
        calls.join_all().await.into_iter().collect()
    }

    fn done(&self) -> bool {
        self.servers.keys().all(|name| self.outcomes.get(name) == Some(&Outcome::Done))
    }

    fn answer(&self) -> Answer {
        Report {
            place: json!({ "direct": self.purge.number }),
            said: format!("direct purge {}", self.purge.number),
            later: "it is not in the log: they serve what they hold until it is repeated",
            servers: self.outcomes.clone(),
        }
        .answer()
    }
}

async fn call(request: reqwest::RequestBuilder) -> Said {
    let answer = async {
        let response = request.send().await?;
        let status = response.status();
        Ok::<_, reqwest::Error>((status, response.bytes().await?))
    };
    match answer.await {
        Err(error) if error.is_timeout() => Said::Nothing("no answer in time".to_owned()),
        Err(_) => Said::Nothing("no answer".to_owned()),
        Ok((status, body)) => match (status, serde_json::from_slice(&body)) {
            (StatusCode::OK, Ok(mark)) => Said::Mark(mark),
            (StatusCode::CONFLICT, Ok(mark)) => Said::Behind(mark),
            _ => Said::Nothing(format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)]).trim())),
        },
    }
}

/// How a purge went, for people and programs.
struct Report {
    /// Its number, as JSON.
    place: serde_json::Value,
    /// Its number, for people.
    said: String,
    /// What becomes of servers that did not answer.
    later: &'static str,
    servers: BTreeMap<String, Outcome>,
}

impl Report {
    fn done(&self) -> usize {
        self.servers.len() - self.open()
    }

    fn open(&self) -> usize {
        self.servers.values().filter(|outcome| **outcome != Outcome::Done).count()
    }

    fn answer(&self) -> Answer {
        let mut table = Table::new(&["SERVER", "PURGED"]);
        let mut servers = Vec::new();
        for (server, outcome) in &self.servers {
            let said = match outcome {
                Outcome::Done => "yes",
                Outcome::Open(why) => why,
            };
            table.row([server.clone(), said.to_owned()]);
            servers.push(json!({ "server": server, "purged": *outcome == Outcome::Done, "state": said }));
        }
        let end = match self.open() {
            0 => format!("{}: all {} servers\n", self.said, self.servers.len()),
            open => format!("{}: {open} of {} servers did not answer; {}\n", self.said, self.servers.len(), self.later),
        };
        let mut json = self.place.clone();
        json["servers"] = json!(servers);
        Answer { text: format!("{}{end}", table.text()), json, good: self.open() == 0 }
    }
}

/// Between two questions to those who have not answered.
const PAUSE: Duration = Duration::from_millis(100);

/// Deadline of a call to one server.
const CALL: Duration = Duration::from_secs(2);

/// Tries to be the one whose number is the next, in one round.
const NUMBERS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_answer_is_named_and_makes_it_a_failure() {
        let open = |why: &str| Outcome::Open(why.to_owned());
        let mut report = Report {
            place: json!({ "sequence": 7 }),
            said: "purge 7 of the log".to_owned(),
            later: "later",
            servers: [("sun4-1-1".to_owned(), Outcome::Done), ("sun4-1-2".to_owned(), open("silent"))].into(),
        };
        let answer = report.answer();
        assert!(!answer.good);
        assert_eq!(
            answer.text,
            "SERVER    PURGED\nsun4-1-1  yes\nsun4-1-2  silent\n\
             purge 7 of the log: 1 of 2 servers did not answer; later\n"
        );
        assert_eq!(answer.json["servers"][1], json!({ "server": "sun4-1-2", "purged": false, "state": "silent" }));
        report.servers.insert("sun4-1-2".to_owned(), Outcome::Done);
        let answer = report.answer();
        assert!(answer.good && answer.text.ends_with("purge 7 of the log: all 2 servers\n"), "{}", answer.text);
    }

    #[test]
    fn an_id_is_one() {
        assert!(popularity_api::purge::target::check_id(&id(&mut rand::rng())).is_ok());
    }
}
