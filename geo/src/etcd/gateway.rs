//! Calls to the members of a cluster.
//!
//! Every call has a deadline and every answer a bound.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use daemon::telemetry::causes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, header};
use reqwest::Url;
use serde_json::{Value, json};

use super::Etcd;
use super::connection::{Answered, Connections};
use super::wire::{self, Document, Put, Stored, Told};
use crate::client::base_of;
use crate::topology::DOCUMENT_BYTES_MAX;

/// A cluster that can be asked.
pub struct Gateway {
    etcd: Etcd,
    connections: Connections,
    /// The member that answered last.
    preferred: AtomicUsize,
    /// Of the last authentication.
    token: Mutex<Option<String>>,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// It is made, and has this revision.
    Done(u64),
    /// The document is another one than expected: nothing was changed.
    Conflict,
}

impl Gateway {
    /// Asks nobody yet.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings.
    pub fn new(etcd: &Etcd) -> Result<Self, String> {
        if let Some(problem) = etcd.problems() {
            return Err(problem);
        }
        let members: Vec<Url> = etcd.etcd.iter().filter_map(|url| base_of(url, &["http", "https"])).collect();
        // So that not all daemons ask the member that was written first.
        let preferred = AtomicUsize::new(usize::try_from(std::process::id()).unwrap_or_default() % members.len());
        let connections = Connections::new(etcd, members)?;
        Ok(Self { etcd: etcd.clone(), connections, preferred, token: Mutex::default() })
    }

    /// The key of the document.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.etcd.key
    }

    /// What is under the key, by whichever member answers.
    ///
    /// # Errors
    ///
    /// When none answers, or one refuses.
    pub async fn read(&self) -> Result<Stored, EtcdError> {
        let answer = self.ask("kv/range", &wire::read(&self.etcd.key, false), DOCUMENT_ANSWER_BYTES_MAX).await?;
        wire::stored(&answer).map_err(EtcdError::Unreachable)
    }

    /// Keys with a prefix and their values, the last first, at most `count_max`.
    ///
    /// # Errors
    ///
    /// As [`Gateway::read`].
    pub async fn list(&self, prefix: &str, count_max: usize) -> Result<Vec<Put>, EtcdError> {
        let answer = self.ask("kv/range", &wire::list(prefix, count_max), LIST_BYTES_MAX).await?;
        wire::listed(&answer).map_err(EtcdError::Unreachable)
    }

    /// Puts all of `puts`, and deletes the keys from `delete.0` to before `delete.1`, if the document is still of the
    /// revision `expected` (0: there is none). The last put is of a key that no other change puts with the same value: when
    /// an answer got lost, it tells whether this change was made.
    ///
    /// # Errors
    ///
    /// As [`Gateway::read`]. [`EtcdError::Unreachable`] leaves open whether the change was made.
    pub async fn change(
        &self,
        expected: u64,
        puts: &[Put],
        delete: Option<(&str, &str)>,
    ) -> Result<Written, EtcdError> {
        let answer = self.ask("kv/txn", &wire::change(&self.etcd.key, expected, puts, delete), LIST_BYTES_MAX).await?;
        match wire::changed(&answer).map_err(EtcdError::Unreachable)? {
            Ok(revision) => Ok(Written::Done(revision)),
            Err(Some(Document { revision, bytes })) if puts.last().is_some_and(|put| put.value == bytes) => {
                Ok(Written::Done(revision))
            }
            Err(_) => Ok(Written::Conflict),
        }
    }

    /// How many members there are to ask.
    pub(crate) fn members(&self) -> usize {
        self.connections.members().len()
    }

    /// The place of the member to begin with.
    pub(crate) fn first(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// A member's address, for people.
    pub(crate) fn name(&self, member: usize) -> &str {
        self.connections.members()[member].as_str().trim_end_matches('/')
    }

    /// What one member has under the key; with `revision_only`, the revision alone.
    pub(crate) async fn read_at(&self, member: usize, revision_only: bool) -> Result<Stored, EtcdError> {
        let question = wire::read(&self.etcd.key, revision_only);
        let answer = self.ask_at(member, "kv/range", &question, DOCUMENT_ANSWER_BYTES_MAX).await?;
        wire::stored(&answer).map_err(EtcdError::Unreachable)
    }

    /// Watches the key at one member, from a revision on.
    pub(crate) async fn watch_at(&self, member: usize, from: u64) -> Result<Watching, EtcdError> {
        self.authenticate(member).await?;
        let question = wire::watch(&self.etcd.key, from);
        // Without it a member that is cut off from its cluster watches on and says nothing.
        let mut request = self.request(member, "watch", &question)?;
        request.headers_mut().insert("Grpc-Metadata-hasleader", header::HeaderValue::from_static("true"));
        let answered = tokio::time::timeout(CALL, self.connections.post(member, request)).await;
        let answered = answered.map_err(|_| self.unreachable(member, "it does not answer"))?;
        let answered = answered.map_err(|why| self.unreachable(member, why))?;
        let status = answered.response.status();
        if !status.is_success() {
            let body = tokio::time::timeout(CALL, self.connections.whole(member, answered, ANSWER_BYTES_MAX)).await;
            return Err(self.refusal(member, status, &body.ok().and_then(Result::ok).unwrap_or_default()));
        }
        Ok(Watching { answered, buffer: Vec::new(), searched: 0, name: self.name(member).to_owned() })
    }

    /// Forgets the token: the next call gets another.
    pub(crate) fn forget_token(&self) {
        *self.token() = None;
    }

    /// Asks the member that answered last, then the others, and again while an election may go on.
    async fn ask(&self, call: &str, question: &Value, bytes_max: usize) -> Result<Value, EtcdError> {
        let begun = Instant::now();
        loop {
            match self.ask_all(call, question, bytes_max).await {
                Err(EtcdError::Unreachable(_)) if begun.elapsed() < PATIENCE => tokio::time::sleep(AGAIN).await,
                answered => return answered,
            }
        }
    }

    async fn ask_all(&self, call: &str, question: &Value, bytes_max: usize) -> Result<Value, EtcdError> {
        let first = self.first();
        let mut failed = Vec::new();
        for offset in 0..self.members() {
            let member = (first + offset) % self.members();
            match self.ask_at(member, call, question, bytes_max).await {
                Ok(answer) => {
                    self.preferred.store(member, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(EtcdError::Unreachable(why)) => failed.push(why),
                Err(refused) => return Err(refused),
            }
        }
        Err(EtcdError::Unreachable(failed.join("; ")))
    }

    async fn ask_at(&self, member: usize, call: &str, question: &Value, bytes_max: usize) -> Result<Value, EtcdError> {
        self.authenticate(member).await?;
        match self.ask_once(member, call, question, bytes_max).await {
            // Tokens are forgotten after a while without a call, and by a member that restarts.
            Err(EtcdError::Unauthenticated(_)) if self.etcd.user.is_some() => {
                self.forget_token();
                self.authenticate(member).await?;
                self.ask_once(member, call, question, bytes_max).await
            }
            answered => answered,
        }
    }

    async fn ask_once(
        &self,
        member: usize,
        call: &str,
        question: &Value,
        bytes_max: usize,
    ) -> Result<Value, EtcdError> {
        let request = self.request(member, call, question)?;
        let answered = async {
            let answered = self.connections.post(member, request).await?;
            let status = answered.response.status();
            Ok::<_, String>((status, self.connections.whole(member, answered, bytes_max).await?))
        };
        let answered = tokio::time::timeout(CALL, answered).await;
        let answered =
            answered.map_err(|_| self.unreachable(member, format!("no answer within {} s", CALL.as_secs())))?;
        let (status, body) = answered.map_err(|why| self.unreachable(member, why))?;
        if !status.is_success() {
            return Err(self.refusal(member, status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| self.unreachable(member, format!("its answer: {error}")))
    }

    /// Gets a token, where there is a user and no token yet.
    async fn authenticate(&self, member: usize) -> Result<(), EtcdError> {
        let Some(user) = &self.etcd.user else { return Ok(()) };
        if self.token().is_some() {
            return Ok(());
        }
        let file = self.etcd.password_file.as_deref();
        let file = file.ok_or_else(|| EtcdError::Refused(format!("etcd user {user}: password_file is missing")))?;
        // Read anew each time, so that a changed password needs no restart.
        let password = daemon::config::read_private(file).map_err(|error| EtcdError::Refused(error.to_string()))?;
        let question = json!({ "name": user, "password": password.trim_end_matches(['\n', '\r']) });
        let answer = self.ask_once(member, "auth/authenticate", &question, ANSWER_BYTES_MAX).await?;
        *self.token() = answer["token"].as_str().map(str::to_owned);
        Ok(())
    }

    fn request(&self, member: usize, call: &str, question: &Value) -> Result<Request<Full<Bytes>>, EtcdError> {
        let url = &self.connections.members()[member];
        let mut request = Request::post(format!("/v3/{call}"))
            .header(header::HOST, url.authority())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &*self.token() {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(Full::from(question.to_string()));
        request.map_err(|error| self.unreachable(member, error))
    }

    fn refusal(&self, member: usize, status: StatusCode, body: &[u8]) -> EtcdError {
        let (code, why) = wire::refusal(body);
        let hint = HINTS.iter().find(|(said, _)| why.contains(said)).map_or("", |(_, hint)| hint);
        let told = format!("{}: {why}{hint}", self.name(member));
        match code {
            UNAUTHENTICATED => EtcdError::Unauthenticated(told),
            // Users were changed since the token was made; it comes with the code of a bad argument.
            _ if told.contains("revision of auth store is old") => EtcdError::Unauthenticated(told),
            _ if status.is_client_error() => EtcdError::Refused(told),
            _ => EtcdError::Unreachable(told),
        }
    }

    fn unreachable(&self, member: usize, why: impl std::fmt::Display) -> EtcdError {
        EtcdError::Unreachable(format!("{}: {why}", self.name(member)))
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the token.
impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("etcd", &self.etcd).finish_non_exhaustive()
    }
}

/// A watch that goes on: a line of JSON for every message.
pub(crate) struct Watching {
    answered: Answered,
    buffer: Vec<u8>,
    /// How many bytes of the buffer have no end of a line.
    searched: usize,
    name: String,
}

impl Watching {
    /// The next message, however long it takes. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Told, EtcdError> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
                self.searched = 0;
                return wire::told(&line).map_err(|why| self.broken(why));
            }
            if self.buffer.len() > DOCUMENT_ANSWER_BYTES_MAX {
                return Err(self.broken(format!("a message is longer than {DOCUMENT_ANSWER_BYTES_MAX} bytes")));
            }
            self.searched = self.buffer.len();
            match self.answered.response.body_mut().frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |chunk| chunk)),
                None => return Err(self.broken("it ended the watch")),
                Some(Err(error)) => return Err(self.broken(causes(&error))),
            }
        }
    }

    fn broken(&self, why: impl std::fmt::Display) -> EtcdError {
        EtcdError::Unreachable(format!("{}: {why}", self.name))
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EtcdError {
    /// Nobody answered in time so that it can be read, or the cluster is in trouble; worth another try.
    #[error("{0}")]
    Unreachable(String),
    /// A member refused; it will refuse again.
    #[error("{0}")]
    Refused(String),
    /// The token is none, or no longer.
    #[error("{0}")]
    Unauthenticated(String),
}

/// What etcd says, and what that means here.
const HINTS: [(&str, &str); 1] =
    [("CommonName of client", ": a cluster with users takes certificates of clients without a CommonName only")];
/// gRPC's code.
const UNAUTHENTICATED: u64 = 16;
/// A document in base64, and what is around it.
const DOCUMENT_ANSWER_BYTES_MAX: usize = DOCUMENT_BYTES_MAX / 3 * 4 + (64 << 10);
/// Many documents of a history, packed and in base64.
const LIST_BYTES_MAX: usize = 64 << 20;
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Deadline of a call: longer than an election takes by default (1 s) and shorter than a person waits.
pub(crate) const CALL: Duration = Duration::from_secs(2);
/// How long somebody who waits is kept waiting for a cluster without a leader.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(200);
