//! A fill: getting bytes of one file from upstream, once, for everybody who waits for them.
//!
//! ```text
//!                    task (writer)                      readers, any number
//!   upstream ------> window ----------- bytes --------> responses under way
//!                      |
//!                      +--- whole extents --> RAM tier  <-- readers that are slower than the window
//! ```
//!
//! - [`plan`]: what to ask for. - [`ask`]: whom, and whom twice ([`hedge`]), within limits ([`slots`]).
//! - [`answer`]: what an upstream's response means. - [`window`]: the bytes that
//!   are held. - [`in_flight`]: how many they may all hold. - [`registry`]: which fills are under way. - [`ahead`]: those that nobody asked for yet.
//! - [`task`]: the writer.
//!
//! # Invariants
//!
//! - The writer is nobody's request: it ends when the bytes end, not when a reader leaves.
//! - A reader learns of the end from [`Read::Ended`] or [`Read::Failed`], never from silence; a fill that is
//!   dropped before it ended counts as failed.
//! - A fill that may ask another sun is never joined by a request from a sun ([`Fill::direct`]), so fills
//!   cannot wait for each other in a ring.

pub mod ahead;
pub mod answer;
pub mod ask;
pub mod hedge;
pub mod in_flight;
pub mod plan;
pub mod registry;
pub mod rfc;
pub mod slots;
pub mod task;
pub mod window;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use geo::ContentId;
use http::StatusCode;
use tokio::sync::watch;

use crate::caching::vary::Varying;
use crate::fill::in_flight::Reserved;
use crate::fill::plan::Plan;
use crate::fill::window::{Found, Window};
use crate::meta::Meta;
use crate::purge::Mark;
use crate::sources::Source;

/// One fill; shared by its task and its readers.
#[derive(Debug)]
pub struct Fill {
    /// The file.
    pub content: ContentId,
    /// It asks no sun: requests of servers may join it.
    pub direct: bool,
    /// What it was begun for.
    pub plan: Plan,
    /// It is one request's: nobody else reads it.
    pub alone: bool,
    /// Whom it asks, in order.
    pub sources: Vec<Source>,
    /// The last purge that was gone by when it began to ask.
    began: OnceLock<Mark>,
    state: Mutex<State>,
    /// Ticks when there is something new for readers.
    news: watch::Sender<()>,
    /// Ticks when readers got further or left, for a writer that waits for them.
    consumed: tokio::sync::Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    window: Window,
    readers: usize,
    /// The furthest position that a reader has reached.
    furthest: u64,
    /// 1xx responses that came before the answer.
    interim: Vec<Interim>,
    /// What the window may hold; see [`in_flight`].
    permit: Option<Reserved>,
    /// Since when the writer has waited for readers, or has been done, milliseconds.
    waits_since: Option<u64>,
    /// A reader got further since anybody looked.
    moved: bool,
    /// Others needed the bytes more.
    gave_back: bool,
}

/// A 1xx response: its status and its end-to-end fields.
pub type Interim = (StatusCode, http::HeaderMap);

#[derive(Clone, Debug)]
enum Phase {
    /// Upstream has not answered.
    Asking,
    /// It has; bytes may be arriving.
    Open(Opened),
    /// All bytes that this fill was to bring are here.
    Ended(Opened),
    /// It ended before that.
    Failed(FillError),
}

/// What upstream answered.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The file's metadata.
    pub meta: Arc<Meta>,
    /// Whether bytes follow: not after a 304 or a question for the size.
    pub flows: bool,
    /// One past the last byte it will bring; `u64::MAX` while unknown.
    pub end: u64,
    /// Whether the bytes are kept.
    pub stored: bool,
    /// Whether others than the one who asked get it.
    pub shared: bool,
    /// Where it is kept.
    pub slot: ContentId,
    /// What it is a variant of.
    pub varying: Option<Arc<Varying>>,
    /// As the one who asked gets it, if some of its fields are not kept.
    pub original: Option<Arc<Meta>>,
    /// The status that the source gave.
    pub status: StatusCode,
    /// What it was asked, for `Cache-Status`.
    pub asked: Asked,
    /// How old the answer was when it came, seconds.
    pub age: u64,
    /// Who gave it.
    pub outcome: crate::metrics::Outcome,
    /// The `Cache-Status` of the server that gave it, if that was one of ours.
    pub passed_on: Option<Arc<str>>,
}

#[cfg(test)]
impl Opened {
    /// A medium that is on its way from the content server.
    pub(crate) fn of_medium(meta: Arc<Meta>) -> Self {
        Self {
            flows: true,
            end: meta.size.unwrap_or(u64::MAX),
            stored: true,
            shared: true,
            slot: ContentId::from_bytes([0; 16]),
            varying: None,
            original: None,
            status: StatusCode::OK,
            asked: Asked::Nothing,
            age: 0,
            outcome: crate::metrics::Outcome::Origin,
            passed_on: None,
            meta,
        }
    }
}

/// Why a source was asked (RFC 9211, section 2.2); for media it is not told apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asked {
    /// A medium.
    Nothing,
    /// Nothing that could be used was held.
    Url,
    /// What was held was past its time.
    Stale,
    /// Some of it was held.
    Part,
}

/// Why a fill failed. Before a response began, the client sees the status named here; after that, its body
/// ends with an error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FillError {
    /// The content server has no such file or does not hand it out: its 403, 404, 410 or 451.
    #[error("the content server answered {0}")]
    Missing(StatusCode),
    /// The range begins past the end of the file: 416.
    #[error("the range lies past the end of a file of {size} bytes")]
    Unsatisfiable {
        /// Length of the file, bytes.
        size: u64,
    },
    /// No source could be reached or gave a usable answer: 502.
    #[error("no source answered: {0}")]
    Unreachable(Arc<str>),
    /// No source answered in time: 504.
    #[error("no source answered in time: {0}")]
    TimedOut(Arc<str>),
    /// Too many bytes are in flight: 503.
    #[error("too many fills are under way")]
    Busy,
    /// The file changed upstream while it was being fetched.
    #[error("the file changed while it was being fetched")]
    Changed,
    /// What came is for the one who asked alone: everybody else asks for themselves.
    #[error("the answer was for another client alone")]
    NotShared,
    /// Upstream ended in the middle and could not be resumed.
    #[error("the source broke off at byte {at}: {why}")]
    Broken {
        /// Position of the first byte that is missing.
        at: u64,
        /// What happened.
        why: Arc<str>,
    },
}

/// What a reader finds at its position.
#[derive(Debug)]
pub enum Read {
    /// At least one byte.
    Bytes(bytes::Bytes),
    /// Wait for news.
    Later,
    /// Not here (any more): look in the tiers, else start another fill.
    Gone,
    /// The fill brought all it was to bring, and the position is past it.
    Ended,
    /// The fill failed.
    Failed(FillError),
}

impl Fill {
    /// A fill that nobody works on yet.
    #[must_use]
    pub fn new(content: ContentId, plan: Plan, sources: Vec<Source>) -> Self {
        let state = State {
            phase: Phase::Asking,
            window: Window::starting_at(plan.start()),
            readers: 0,
            furthest: plan.start(),
            interim: Vec::new(),
            permit: None,
            waits_since: None,
            moved: false,
            gave_back: false,
        };
        Self {
            content,
            direct: !sources.iter().any(Source::is_sun),
            plan,
            alone: false,
            sources,
            began: OnceLock::new(),
            state: Mutex::new(state),
            news: watch::Sender::new(()),
            consumed: tokio::sync::Notify::new(),
        }
    }

    /// It begins to ask.
    pub fn begin(&self, mark: Mark) {
        // Begun once; a second beginning would be no earlier.
        let _ = self.began.set(mark);
    }

    /// The last purge that was gone by when it began to ask; none: it has not.
    #[must_use]
    pub fn began(&self) -> Option<Mark> {
        self.began.get().copied()
    }

    /// What the file is, once upstream has answered.
    #[must_use]
    pub fn meta(&self) -> Option<Arc<Meta>> {
        match &self.lock().phase {
            Phase::Open(opened) | Phase::Ended(opened) => Some(Arc::clone(&opened.meta)),
            Phase::Asking | Phase::Failed(_) => None,
        }
    }

    /// The same, for one request.
    #[must_use]
    pub fn for_one(self) -> Self {
        Self { alone: true, ..self }
    }

    /// A 1xx response came; beyond [`INTERIM_MAX`] they are dropped.
    pub fn heard(&self, status: StatusCode, headers: http::HeaderMap) {
        let mut state = self.lock();
        if state.interim.len() < INTERIM_MAX {
            state.interim.push((status, headers));
            drop(state);
            self.news.send_replace(());
        }
    }

    /// Whether a request that needs the byte at `position` of version `generation` is served by this fill
    /// soon: it must not wait for [`REACH_BYTES`] that it does not want.
    #[must_use]
    pub fn brings(&self, generation: u64, position: u64) -> bool {
        let state = self.lock();
        let oldest = state.window.oldest();
        let reached = (oldest..state.window.received() + REACH_BYTES).contains(&position);
        match &state.phase {
            // Which version an open question will be answered with is not known.
            Phase::Asking => {
                self.plan.version().is_some_and(|version| version.generation == generation)
                    && self.plan.covers(position)
                    && reached
            }
            Phase::Open(opened) => {
                opened.flows && opened.meta.generation == generation && position < opened.end && reached
            }
            Phase::Ended(opened) => {
                opened.flows
                    && opened.meta.generation == generation
                    && (oldest..state.window.received()).contains(&position)
            }
            Phase::Failed(_) => false,
        }
    }

    /// Whether upstream has answered usably.
    #[must_use]
    pub fn answered(&self) -> bool {
        matches!(self.lock().phase, Phase::Open(_) | Phase::Ended(_))
    }

    /// Whether it can tell a newcomer what the file is. One that continues a known version cannot: it asks for
    /// that version, not for the current one.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.plan.version().is_none() && !matches!(self.lock().phase, Phase::Failed(_))
    }

    /// The position after the last byte, if all bytes that this fill was to bring are here.
    #[must_use]
    pub fn ended_at(&self) -> Option<u64> {
        match &self.lock().phase {
            Phase::Ended(opened) => Some(opened.end),
            _ => None,
        }
    }

    /// Whether this content server is among its sources.
    fn asks(&self, content_server: u32) -> bool {
        self.sources
            .iter()
            .any(|source| matches!(source, Source::ContentServer { number, .. } if *number == content_server))
    }

    /// Keeps what is reserved for the window, as long as there is a window.
    fn hold(&self, permit: Reserved) {
        self.lock().permit = Some(permit);
    }

    /// From `now_ms` on the writer waits for readers, or is done.
    fn stand_still(&self, now_ms: u64) {
        let mut state = self.lock();
        state.waits_since = Some(now_ms);
        state.moved = false;
    }

    /// Since when readers have not moved while everything waits for them, milliseconds; that somebody moved
    /// lately is found out by asking. None: they have, or the window cannot be had back, because what it holds
    /// could not be fetched again.
    fn idle_since(&self, now_ms: u64) -> Option<u64> {
        let mut state = self.lock();
        if std::mem::take(&mut state.moved) && state.waits_since.is_some() {
            state.waits_since = Some(now_ms);
        }
        let again = match &state.phase {
            Phase::Open(opened) | Phase::Ended(opened) => {
                opened.meta.size.is_some() && (opened.stored || opened.meta.resume_validator().is_some())
            }
            Phase::Asking | Phase::Failed(_) => false,
        };
        state.waits_since.filter(|_| again && state.permit.is_some())
    }

    /// Gives window and reservation back, unless a reader has moved just now. What its readers still need is
    /// another fill's.
    fn give_back(&self) {
        let mut state = self.lock();
        if state.moved || state.waits_since.is_none() {
            return;
        }
        state.window.empty();
        state.permit = None;
        state.gave_back = true;
        drop(state);
        self.news.send_replace(());
        self.consumed.notify_one();
    }

    /// Whether readers found the window gone because they had stood still while others needed room.
    #[must_use]
    pub fn gave_back(&self) -> bool {
        self.lock().gave_back
    }

    #[cfg(test)]
    fn window_bytes(&self) -> u64 {
        let state = self.lock();
        state.window.received() - state.window.oldest()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds this lock panics")
    }
}

/// One response's way into a fill.
#[derive(Debug)]
pub struct Reader {
    fill: Arc<Fill>,
    news: watch::Receiver<()>,
}

impl Reader {
    /// Joins a fill.
    #[must_use]
    pub fn new(fill: Arc<Fill>) -> Self {
        fill.lock().readers += 1;
        let news = fill.news.subscribe();
        Self { fill, news }
    }

    /// The fill.
    #[must_use]
    pub const fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// Resolves when upstream has answered.
    ///
    /// # Errors
    ///
    /// Why there is no usable answer.
    pub async fn opened(&mut self) -> Result<Opened, FillError> {
        self.opened_with(|_, _| ()).await
    }

    /// The same; `interim` is given the 1xx responses that come before.
    ///
    /// # Errors
    ///
    /// Why there is no usable answer.
    pub async fn opened_with(
        &mut self,
        mut interim: impl FnMut(StatusCode, &http::HeaderMap),
    ) -> Result<Opened, FillError> {
        let mut passed = 0;
        loop {
            self.news.mark_unchanged();
            let before = passed;
            if let Some(answered) = self.glance(&mut passed, &mut interim) {
                return answered;
            }
            if passed > before {
                // Lets the connection write them before the answer follows.
                tokio::task::yield_now().await;
            } else {
                self.changed().await;
            }
        }
    }

    /// The answer, if it is there and all 1xx responses were passed on before.
    fn glance(
        &self,
        passed: &mut usize,
        interim: &mut impl FnMut(StatusCode, &http::HeaderMap),
    ) -> Option<Result<Opened, FillError>> {
        let state = self.fill.lock();
        if *passed < state.interim.len() {
            for (status, headers) in &state.interim[*passed..] {
                interim(*status, headers);
            }
            *passed = state.interim.len();
            return None;
        }
        match &state.phase {
            Phase::Asking => None,
            Phase::Open(opened) | Phase::Ended(opened) => Some(Ok(opened.clone())),
            Phase::Failed(error) => Some(Err(error.clone())),
        }
    }

    /// The bytes at `position`, at most up to `end`.
    pub fn read(&mut self, position: u64, end: u64) -> Read {
        self.news.mark_unchanged();
        let mut state = self.fill.lock();
        let found = match state.window.read(position, end) {
            Found::Bytes(bytes) => Read::Bytes(bytes),
            Found::Gone => Read::Gone,
            Found::Later => match &state.phase {
                Phase::Asking => Read::Later,
                Phase::Open(opened) if opened.flows && position < opened.end => Read::Later,
                Phase::Open(_) | Phase::Ended(_) => Read::Ended,
                Phase::Failed(error) => Read::Failed(error.clone()),
            },
        };
        let reached = match &found {
            Read::Bytes(bytes) => position + bytes.len() as u64,
            // It has come here by the tiers: a writer that waited for it to read would wait for ever.
            Read::Later => position,
            Read::Gone | Read::Ended | Read::Failed(_) => return found,
        };
        state.moved |= matches!(found, Read::Bytes(_));
        if reached > state.furthest {
            state.furthest = reached;
            drop(state);
            self.fill.consumed.notify_one();
        }
        found
    }

    /// Resolves when there may be something new since the last [`Reader::read`] or [`Reader::opened`].
    pub async fn changed(&mut self) {
        // The sender lives in the fill, which this reader holds: it cannot be gone.
        let _ = self.news.changed().await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.lock().readers -= 1;
        self.fill.consumed.notify_one();
    }
}

/// How far a writer that is paced runs ahead of its fastest reader, bytes: an extent less than the window keeps,
/// so that this reader never falls out of it when an extent becomes whole.
pub const LEAD_BYTES_MAX: u64 = (window::WINDOW_EXTENTS as u64 - 1) * crate::extent::EXTENT_BYTES;

/// What the window of one fill may hold, bytes.
pub const WINDOW_BYTES_MAX: u64 = (window::WINDOW_EXTENTS as u64 + 1) * crate::extent::EXTENT_BYTES;

/// How far ahead of the bytes that arrive a reader may be and still wait for them, rather than have its part
/// fetched by a fill of its own.
pub const REACH_BYTES: u64 = 2 * crate::extent::EXTENT_BYTES;
/// 1xx responses of one question that are passed on.
const INTERIM_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::EXTENT_BYTES as MIB;

    #[test]
    fn a_reader_that_caught_up_by_the_tiers_is_not_waited_for() {
        let content = geo::CanonicalName::parse("c1/a").unwrap().content_id();
        let fill = Arc::new(Fill::new(content, Plan::Whole, Vec::new()));
        let meta = Arc::new(Meta::new(&http::HeaderMap::new(), Some(100 * MIB), 0, 0, 2));
        fill.open(Opened::of_medium(meta), 0);
        let mut reader = Reader::new(Arc::clone(&fill));
        for _ in 0..4 {
            fill.push(vec![7; MIB as usize].into());
        }
        assert!(fill.ahead(), "the reader has read nothing");
        assert!(matches!(reader.read(4 * MIB, 100 * MIB), Read::Later));
        assert!(!fill.ahead(), "it waits where the writer is");
    }

    #[test]
    fn the_fastest_reader_of_a_paced_writer_stays_within_the_window() {
        let content = geo::CanonicalName::parse("c1/a").unwrap().content_id();
        let fill = Arc::new(Fill::new(content, Plan::Whole, Vec::new()));
        let mut reader = Reader::new(Arc::clone(&fill));
        let mut position = 0;
        for _ in 0..200 {
            while !fill.ahead() {
                fill.push(vec![7; 300_000].into());
            }
            match reader.read(position, position + 70_001) {
                Read::Bytes(bytes) => position += bytes.len() as u64,
                other => panic!("{other:?} at {position}"),
            }
        }
    }
}
