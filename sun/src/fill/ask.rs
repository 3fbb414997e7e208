//! Asking the sources of a file in turn until one answers; one that is unusually slow is not waited for alone.
//!
//! ```text
//!   next source --- breaker open, no place in time ---> the one after it
//!      | asked
//!      +--- head in the usual time -------------------> Reply
//!      +--- not in the usual time: second question ---> first good head of the two: Reply
//!      +--- error -----------------------------------> the one after it
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::breaker::Leave;
use crate::edge::Edge;
use crate::errand::Errand;
use crate::fill::hedge;
use crate::fill::slots::Slot;
use crate::fill::{Fill, FillError};
use crate::sources::Source;
use crate::upstream::{AskError, Asked};

/// Asks for one fill.
pub(super) struct Asker<'a> {
    pub(super) edge: &'a Arc<Edge>,
    pub(super) errand: &'a Errand,
    pub(super) fill: &'a Arc<Fill>,
    /// Those not tried yet.
    pub(super) sources: VecDeque<Source>,
}

/// An answer's head, with its body still to come.
pub(super) struct Reply {
    pub(super) response: Response<Incoming>,
    pub(super) source: Source,
    pub(super) leave: Leave,
    /// Held until the body has ended; servers of ours have none.
    pub(super) slot: Option<Slot>,
}

/// Leave to ask a source once.
struct Question {
    source: Source,
    leave: Leave,
    slot: Option<Slot>,
    began_ms: u64,
}

/// What came of it.
struct Answered {
    question: Question,
    result: Result<Response<Incoming>, AskError>,
}

/// Why no source gave a usable answer, source by source.
#[derive(Debug, Default)]
pub(super) struct NoneAnswered {
    pub(super) timed_out: bool,
    busy: bool,
    pub(super) text: String,
}

impl Asker<'_> {
    /// The answer of the next source that gives one; none when all have been asked.
    pub(super) async fn next(&mut self, asked: &Asked, why: &mut NoneAnswered) -> Option<Reply> {
        while let Some(source) = self.sources.pop_front() {
            let Some(question) = self.question(source, why).await else { continue };
            let answered = self.put(question, asked, why).await;
            if let Some(reply) = self.judge(answered, why) {
                return Some(reply);
            }
        }
        None
    }

    /// A sun that answers 5xx has asked the content server in vain: the next sun would only ask it again.
    pub(super) fn skip_suns_after(&mut self, source: &Source) {
        if source.is_sun() {
            self.sources.retain(|source| !source.is_sun());
        }
    }

    /// Leave to ask, from the source's breaker and its queue.
    async fn question(&self, source: Source, why: &mut NoneAnswered) -> Option<Question> {
        let edge = self.edge;
        let share = self.edge.share(self.errand.site.as_deref(), &self.errand.name);
        let slot = match &source {
            // Nobody queues for a content server that does not answer.
            Source::ContentServer { number, .. } if !edge.trusts(*number) => edge.slots.try_enter(*number, &share),
            Source::ContentServer { number, .. } => {
                let slot = edge.slots.enter(*number, &share, &edge.in_flight, || edge.now_ms()).await;
                why.busy |= slot.is_none();
                slot
            }
            Source::Sun { .. } | Source::Former { .. } | Source::Cache { .. } => None,
        };
        if slot.is_none() && source.server().is_none() {
            why.note(&source, "too many questions are waiting for it".to_owned());
            return None;
        }
        let Some(leave) = edge.admits(&source) else {
            why.note(&source, "it failed just now and is left alone for a moment".to_owned());
            return None;
        };
        Some(Question { source, leave, slot, began_ms: edge.now_ms() })
    }

    /// Asks, and asks once more elsewhere when that takes unusually long and may be done.
    async fn put(&mut self, question: Question, asked: &Asked, why: &mut NoneAnswered) -> Answered {
        let patience = self.edge.hedging.asked(&question.source, question.began_ms);
        let (source, began_ms) = (question.source.clone(), question.began_ms);
        let first = exchange(self.edge, self.errand, self.fill, asked, question);
        if self.errand.said.is_some() {
            // What a client says may take its time, and be wanted once.
            return first.await;
        }
        tokio::pin!(first);
        if let Ok(answered) = tokio::time::timeout(patience, &mut first).await {
            return answered;
        }
        let Some(second) = self.second(&source) else { return first.await };
        let (second_source, second_began_ms) = (second.source.clone(), second.began_ms);
        let second = exchange(self.edge, self.errand, self.fill, asked, second);
        let (won, lost) = hedge::race(first, second, Answered::good).await;
        let second_won = won.question.began_ms == second_began_ms && won.question.source == second_source;
        self.edge.metrics.hedged(second_won);
        let heard_of_both = lost.is_some();
        if let Some(lost) = lost {
            // It answered first, but not well: the verdict counts, the answer does not.
            let reply = self.judge(lost, why);
            if let Some(Reply { response, source, leave, .. }) = reply {
                why.note(&source, format!("it answered {}", response.status()));
                if response.status().is_server_error() {
                    self.edge.faltered(&source, &leave);
                }
            }
        } else {
            let (loser, began_ms) = if second_won { (&source, began_ms) } else { (&second_source, second_began_ms) };
            let now_ms = self.edge.now_ms();
            self.edge.hedging.answered(loser, now_ms.saturating_sub(began_ms), now_ms);
        }
        if second_won || heard_of_both {
            self.sources.retain(|source| *source != second_source);
        }
        won
    }

    /// Leave for a second question: to the next source, or once more to the content server. Never while its
    /// breaker is open, beyond the budget or by queueing.
    fn second(&self, slow: &Source) -> Option<Question> {
        let edge = self.edge;
        let source = self.sources.front().unwrap_or(slow);
        if source.server().is_some() && source == slow || !edge.trusts(self.errand.name.content_server()) {
            return None;
        }
        let share = edge.share(self.errand.site.as_deref(), &self.errand.name);
        let slot = match source {
            Source::ContentServer { number, .. } => Some(edge.slots.try_enter(*number, &share)?),
            Source::Sun { .. } | Source::Former { .. } | Source::Cache { .. } => None,
        };
        if !edge.hedging.take() {
            return None;
        }
        Some(Question { source: source.clone(), leave: edge.admits(source)?, slot, began_ms: edge.now_ms() })
    }

    /// Remembers how the source did; a reply if it answered.
    fn judge(&mut self, answered: Answered, why: &mut NoneAnswered) -> Option<Reply> {
        let Answered { question: Question { source, leave, slot, began_ms }, result } = answered;
        let now_ms = self.edge.now_ms();
        if !matches!(result, Err(AskError::Unreachable(_))) {
            self.edge.hedging.answered(&source, now_ms.saturating_sub(began_ms), now_ms);
        }
        match result {
            Ok(response) => {
                // Under the policy "rfc" an error is an answer.
                if !response.status().is_server_error() || self.errand.said.is_some() {
                    self.edge.succeeded(&source);
                }
                Some(Reply { response, source, leave, slot })
            }
            Err(error) => {
                self.edge.failed(&source, &leave, &error.to_string());
                if matches!(error, AskError::TimedOut(_)) {
                    // A sun is given longer than the content server (Upstream::ask): one that still says nothing
                    // hangs, and the client has waited enough to be spared the next.
                    self.skip_suns_after(&source);
                    why.timed_out = true;
                }
                why.note(&source, error.to_string());
                None
            }
        }
    }
}

async fn exchange(edge: &Edge, errand: &Errand, fill: &Arc<Fill>, asked: &Asked, question: Question) -> Answered {
    let result = edge.upstream.ask(&question.source, errand, asked, fill).await;
    Answered { question, result }
}

impl Answered {
    /// Whether it is worth dropping the other question for.
    fn good(&self) -> bool {
        self.result.as_ref().is_ok_and(|response| {
            let absent = response.status() == StatusCode::NOT_FOUND && !self.question.source.authority();
            !response.status().is_server_error() && !absent
        })
    }
}

impl NoneAnswered {
    pub(super) fn note(&mut self, source: &Source, why: String) {
        let separator = if self.text.is_empty() { "" } else { "; " };
        let who = source.server().unwrap_or("content server");
        self.text.push_str(&format!("{separator}{who}: {why}"));
    }
}

impl From<NoneAnswered> for FillError {
    fn from(why: NoneAnswered) -> Self {
        match why {
            NoneAnswered { timed_out: true, text, .. } => Self::TimedOut(text.into()),
            NoneAnswered { busy: true, .. } => Self::Busy,
            NoneAnswered { text, .. } => Self::Unreachable(text.into()),
        }
    }
}
