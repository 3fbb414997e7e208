//! What the other members of the group are: their self-checks say so, asked directly. [`Book`] is pure.
//!
//! What the popularity API hears of a sun is shown and counts for nothing: it knows that a process runs, not whether anything is
//! announced of it. Who is counted on must be known to have its routes out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use daemon::telemetry::causes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::config::GuardConfig;
use super::machine::{State, View};

/// Where a self-check answers the others.
pub const PATH: &str = "/v1/selfcheck";

/// What a self-check says of its sun to the others.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Peer {
    /// The sun.
    pub name: String,
    /// Its state.
    pub state: State,
    /// Its routes are announced, as far as it is known: a speaker runs and has a session.
    pub reachable: bool,
    /// It is ill, and announced because too few others are well.
    pub last: bool,
    /// Its operator wants it out, and it asks whether others stand: nobody is to count on it.
    #[serde(default)]
    pub leaving: bool,
    /// How long ago it last had an answer of its sun, or none in time, milliseconds.
    #[serde(default)]
    pub round_age_ms: u64,
    /// How often it asks its sun, milliseconds. 0: it does not say.
    #[serde(default)]
    pub every_ms: u64,
}

impl Peer {
    /// It answers, and has not looked at its sun for long: nobody knows what its state is worth.
    #[must_use]
    pub const fn is_stuck(&self) -> bool {
        self.round_age_ms > self.every_ms.saturating_mul(ROUNDS_MISSED_MAX) && self.every_ms > 0
    }
}

/// A member of the group as it is shown.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Member {
    /// The sun.
    pub name: String,
    /// Where its self-check is asked.
    pub address: SocketAddr,
    /// What it said last.
    pub said: Option<Peer>,
    /// How long ago, milliseconds.
    pub age_ms: Option<u64>,
    /// Why it does not answer.
    pub problem: Option<String>,
    /// The popularity API hears from its sun. For people: it counts for nothing.
    pub witnessed: bool,
}

/// The other members of a group: who, and where its self-check is.
pub type Group = [(String, SocketAddr)];

/// What was heard of the members. Time is milliseconds that only rise; a look is the number of
/// [`super::machine::Machine::looks`] when a question was asked.
#[derive(Clone, Debug, Default)]
pub struct Book {
    heard: BTreeMap<String, (Peer, Asked)>,
    problems: BTreeMap<String, String>,
    /// When the popularity API said so, milliseconds.
    witnessed: BTreeMap<String, u64>,
    /// The look with which all were last asked; none: never yet.
    whole: Option<u64>,
}

/// When somebody answered, and with which look they were asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Asked {
    /// When the answer came, milliseconds.
    pub at_ms: u64,
    /// See [`Book`].
    pub look: u64,
}

impl Book {
    /// A member answered, or did not.
    pub fn hear(&mut self, name: &str, answer: Result<Peer, String>, asked: Asked) {
        match answer {
            Ok(peer) if peer.name == name => {
                self.problems.remove(name);
                self.heard.insert(name.to_owned(), (peer, asked));
            }
            Ok(peer) => {
                self.problems.insert(name.to_owned(), format!("it is {}: is its address right?", peer.name));
            }
            Err(why) => {
                self.problems.insert(name.to_owned(), why);
            }
        }
    }

    /// All were asked.
    pub const fn whole(&mut self, look: u64) {
        self.whole = Some(look);
    }

    /// The popularity API hears from these.
    pub fn witness(&mut self, names: impl IntoIterator<Item = String>, now_ms: u64) {
        self.witnessed = names.into_iter().map(|name| (name, now_ms)).collect();
    }

    /// What counts of them: an answer of theirs up to `age_ms_max` old.
    #[must_use]
    pub fn view(&self, group: &Group, age_ms_max: u64, look: u64, now_ms: u64) -> View {
        let age_ms = |asked: &Asked| now_ms.saturating_sub(asked.at_ms);
        let mut view = View { others: group.len(), looked: self.whole == Some(look), ..View::default() };
        for (name, _) in group {
            let heard = self.heard.get(name).filter(|(_, asked)| age_ms(asked) <= age_ms_max);
            let Some((peer, asked)) = heard else { continue };
            let counts = peer.reachable && !peer.is_stuck();
            let up = counts && peer.state == State::Up && !peer.leaving;
            let stands = matches!(peer.state, State::Up | State::Falling | State::Draining);
            view.up += usize::from(up);
            view.standing += usize::from(counts && stands);
            view.confirmed += usize::from(up && asked.look == look);
        }
        view
    }

    /// The members, as they are known now.
    #[must_use]
    pub fn members(&self, group: &Group, now_ms: u64) -> Vec<Member> {
        let member = |(name, address): &(String, SocketAddr)| {
            let age_ms = |at_ms: u64| now_ms.saturating_sub(at_ms);
            let heard = self.heard.get(name);
            Member {
                name: name.clone(),
                address: *address,
                said: heard.map(|(peer, _)| peer.clone()),
                age_ms: heard.map(|(_, asked)| age_ms(asked.at_ms)),
                problem: self.problems.get(name).cloned(),
                witnessed: self.witnessed.get(name).is_some_and(|at_ms| age_ms(*at_ms) <= WITNESS_MS_MAX),
            }
        };
        group.iter().map(member).collect()
    }
}

/// The other members of a sun's group, by name, and where their self-checks are.
#[must_use]
pub fn group(topology: &geo::Topology, me: &str, config: &GuardConfig) -> Vec<(String, SocketAddr)> {
    let Some(sun) = topology.sun(me) else { return Vec::new() };
    let region = topology.region(sun.server.region);
    let suns = region.into_iter().flat_map(|region| &region.suns);
    let mut others: Vec<(String, SocketAddr)> = suns
        .filter(|other| other.group == sun.group && other.server.name != me)
        .map(|other| {
            let name = other.server.name.clone();
            let usual = SocketAddr::new(other.server.internal.ip(), config.port);
            let address = config.peers.get(&name).copied().unwrap_or(usual);
            (name, address)
        })
        .collect();
    others.sort();
    others
}

/// Asks others; connections are kept.
#[derive(Clone, Debug)]
pub struct Asker {
    client: Client<HttpConnector, Empty<Bytes>>,
    authorization: HeaderValue,
    timeout: Duration,
}

impl Asker {
    /// `token` is the sun's own.
    ///
    /// # Errors
    ///
    /// When the token cannot stand in a header.
    pub fn new(token: &str, timeout: Duration) -> Result<Self, header::InvalidHeaderValue> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(1)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(connector);
        let mut authorization = HeaderValue::from_str(&format!("Bearer {token}"))?;
        authorization.set_sensitive(true);
        Ok(Self { client, authorization, timeout })
    }

    /// Asks one.
    ///
    /// # Errors
    ///
    /// Why it does not answer, for people.
    pub async fn ask(&self, address: SocketAddr) -> Result<Peer, String> {
        match tokio::time::timeout(self.timeout, self.converse(address)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
        }
    }

    async fn converse(&self, address: SocketAddr) -> Result<Peer, String> {
        let request = Request::get(format!("http://{address}{PATH}"))
            .header(header::AUTHORIZATION, &self.authorization)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| causes(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("its answer breaks off: {error}"))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| format!("its answer is unreadable: {error}"))
    }
}

/// Rounds without which a self-check is stuck: a round and its answer may take two, one more is slack.
pub const ROUNDS_MISSED_MAX: u64 = 3;

/// The popularity API's word is shown for so long.
const WITNESS_MS_MAX: u64 = 3000;

/// An answer is some hundred bytes.
const ANSWER_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_known_to_be_well_counts() {
        check("", (0, 0));
        check("up", (1, 1));
        check("up falling draining down held rising init disabled", (1, 3));
        check("up~ falling~ draining~", (0, 0));
    }

    #[test]
    fn a_self_check_that_answers_and_does_not_look_at_its_sun_counts_for_nothing() {
        let told = |round_age_ms, every_ms| {
            let mut book = Book::default();
            book.hear("a", Ok(Peer { round_age_ms, every_ms, ..peer("a", State::Up, true) }), NOW);
            counted(&book, 0)
        };
        assert_eq!((told(1500, 500), told(1501, 500)), ((1, 1), (0, 0)));
        assert_eq!(told(5000, 0), (1, 1), "one that does not say");
    }

    #[test]
    fn who_leaves_stands_and_is_not_counted_on() {
        let mut book = Book::default();
        book.hear("a", Ok(Peer { leaving: true, ..peer("a", State::Up, true) }), NOW);
        assert_eq!(counted(&book, 0), (0, 1));
    }

    #[test]
    fn only_who_is_asked_after_the_last_look_confirms() {
        let mut book = Book::default();
        let told = |book: &Book, look| {
            let view = book.view(&group(), 1000, look, 0);
            (view.up, view.confirmed, view.looked)
        };
        book.hear("a", Ok(peer("a", State::Up, true)), NOW);
        assert_eq!((told(&book, 0), told(&book, 1)), ((1, 1, false), (1, 0, false)));
        book.hear("a", Ok(peer("a", State::Up, true)), Asked { at_ms: 0, look: 1 });
        book.whole(1);
        assert_eq!((told(&book, 1), told(&book, 2)), ((1, 1, true), (1, 0, false)));
        book.hear("a", Err("silent".into()), Asked { at_ms: 0, look: 2 });
        book.whole(2);
        assert_eq!(told(&book, 2), (1, 0, true), "what it said before is no answer to this");
    }

    #[test]
    fn answers_get_old_and_the_word_of_the_api_counts_for_nothing() {
        let mut book = Book::default();
        let at = |at_ms| Asked { at_ms, look: 0 };
        assert_eq!(counted(&book, 0), (0, 0));
        book.hear("a", Ok(peer("a", State::Up, true)), at(0));
        assert_eq!((counted(&book, 1000), counted(&book, 1001)), ((1, 1), (0, 0)));
        book.witness(["a".to_owned()], 1001);
        assert_eq!(counted(&book, 1001), (0, 0), "its process runs, and perhaps nothing is announced of it");
        let witnessed = |now_ms| book.members(&group(), now_ms)[0].witnessed;
        assert_eq!((witnessed(4001), witnessed(4002)), (true, false), "people are shown it");
        book.hear("a", Err("silent".into()), at(3200));
        assert_eq!(book.members(&group(), 3200)[0].problem.as_deref(), Some("silent"));
        book.hear("a", Ok(peer("b", State::Up, true)), at(3300));
        assert_eq!(counted(&book, 3300), (0, 0), "another one answers there");
    }

    const NOW: Asked = Asked { at_ms: 0, look: 0 };

    fn group() -> [(String, SocketAddr); 1] {
        [("a".to_owned(), ([127, 0, 0, 1], 1).into())]
    }

    /// How many are Up and stand.
    fn counted(book: &Book, now_ms: u64) -> (usize, usize) {
        let view = book.view(&group(), 1000, 0, now_ms);
        (view.up, view.standing)
    }

    #[track_caller]
    fn check(states: &str, expected: (usize, usize)) {
        let (mut book, mut group) = (Book::default(), Vec::new());
        for (at, state) in states.split_whitespace().enumerate() {
            let name = format!("sun{at}");
            let state_name = serde_json::Value::from(state.trim_end_matches('~'));
            let state_of: State = serde_json::from_value(state_name).unwrap();
            book.hear(&name, Ok(peer(&name, state_of, !state.ends_with('~'))), NOW);
            group.push((name, ([127, 0, 0, 1], 1).into()));
        }
        let view = book.view(&group, 1000, 0, 0);
        assert_eq!((view.up, view.standing), expected, "{states}");
    }

    fn peer(name: &str, state: State, reachable: bool) -> Peer {
        Peer { name: name.to_owned(), state, reachable, last: false, leaving: false, round_age_ms: 0, every_ms: 500 }
    }
}
