//! The writer of a fill: asks the sources in turn, moves the body into window and tiers, resumes what breaks.
//!
//! ```text
//!   ask sources in turn --answer--> open --> chunk, chunk, ... --end--> tiers complete --> Ended
//!         |                           ^          |
//!         none usable                 |          breaks off
//!         v                           |          v
//!       Failed <---- no validator, --resume: If-Range at the byte reached, next source
//!                    or twice in vain
//! ```

mod keeping;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::breaker::Leave;
use crate::caching::freshness;
use crate::edge::Edge;
use crate::errand::Errand;
use crate::extent::{self, EXTENT_BYTES};
use crate::fill::answer::{self, Answer};
use crate::fill::ask::{Asker, NoneAnswered, Reply};
use crate::fill::plan::Plan;
use crate::fill::rfc::Understood;
use crate::fill::slots::Slot;
use crate::fill::window::Window;
use crate::fill::{Fill, FillError, LEAD_BYTES_MAX, Opened, Phase, WINDOW_BYTES_MAX};
use crate::headers;
use crate::meta::Meta;
use crate::metrics::Outcome;
use crate::ram::Note;
use crate::sources::Source;
use crate::stored::Keep;
use crate::upstream::{Asked, range_header};

/// Runs a fill to its end, whoever still reads it.
pub async fn run(edge: Arc<Edge>, fill: Arc<Fill>, errand: Errand) {
    let mut end = End { edge: Arc::clone(&edge), fill: Arc::clone(&fill), error: None };
    let epoch = edge.epochs.of(errand.content);
    fill.begin(edge.purges.mark());
    let sources = fill.sources.clone().into();
    let asker = Asker { edge: &edge, errand: &errand, fill: &fill, sources };
    let keep = edge.keep(&errand.name, errand.content, errand.site.as_deref());
    let mut writer = Writer {
        edge: &edge,
        fill: &fill,
        errand: &errand,
        asker,
        began_at: 0,
        declined: false,
        piece: None,
        keep,
        epoch,
    };
    let outcome = writer.run().await;
    if let Err(error) = &outcome {
        edge.metrics.fill_failed(error);
        match (error, fill.plan.version()) {
            // Only the version that was to be continued: another request may have brought the new one by now.
            (FillError::Changed, Some(version)) => edge.forget_version(fill.content, version.generation),
            (FillError::Missing(status), _) if epoch == edge.epochs.of(errand.content) => {
                remember_refusal(&edge, &fill, &errand, *status);
            }
            _ => {}
        }
        tracing::debug!(file = %errand.name, %error, "fill failed");
    }
    end.error = Some(outcome.err());
}

/// Negative caching: what is gone is forgotten, and not asked for again for as long as its class says.
fn remember_refusal(edge: &Edge, fill: &Fill, errand: &Errand, status: StatusCode) {
    edge.forget(fill.content);
    let topology = edge.topology();
    let lifetimes = &errand.class(&topology).negative_ttl;
    if let Some((_, ttl_s)) = lifetimes.iter().find(|(of, ttl_s)| *of == status.as_u16() && *ttl_s > 0) {
        let until = daemon::clock::unix_s().saturating_add(*ttl_s);
        let mark = fill.began().unwrap_or_default();
        edge.ram.note(fill.content, Note::Refused { status, until, mark });
    }
}

/// Whatever becomes of the task, its readers hear of the end and the registry forgets it.
struct End {
    edge: Arc<Edge>,
    fill: Arc<Fill>,
    /// None while it runs.
    error: Option<Option<FillError>>,
}

impl Drop for End {
    fn drop(&mut self) {
        let cut = || FillError::Broken { at: self.fill.lock().window.received(), why: "the server is stopping".into() };
        let error = self.error.take().unwrap_or_else(|| Some(cut()));
        self.fill.stand_still(self.edge.now_ms());
        self.fill.end(error);
        self.edge.fills.leave(&self.fill);
    }
}

struct Writer<'a> {
    edge: &'a Arc<Edge>,
    fill: &'a Arc<Fill>,
    errand: &'a Errand,
    asker: Asker<'a>,
    /// Where the body began.
    began_at: u64,
    /// The RAM tier did not keep an extent: readers that fall behind would have it fetched again.
    declined: bool,
    /// What is being fetched is a part of this version, from this position on, to be kept here.
    piece: Option<(u64, Arc<Meta>)>,
    /// Where this sun keeps the file.
    keep: Keep,
    /// Of its file, when it began; see [`crate::epochs`].
    epoch: u64,
}

/// How a body was moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Poured {
    /// To its end.
    All,
    /// Up to a byte from which on nobody needs it from this fill.
    Enough,
}

/// A body that is being read.
struct Body {
    frames: Incoming,
    source: Source,
    /// The place at the content server.
    _slot: Option<Slot>,
}

impl Writer<'_> {
    async fn run(&mut self) -> Result<(), FillError> {
        let (mut body, opened) = self.open().await?;
        if !opened.flows {
            return Ok(());
        }
        let mut resumes = 0;
        loop {
            let why = match self.pour(&mut body, &opened).await {
                Ok(Poured::All) => {
                    self.complete(&opened);
                    return Ok(());
                }
                Ok(Poured::Enough) => return Ok(()),
                Err(why) => why,
            };
            self.edge.faltered(&body.source, &Leave::ORDINARY);
            // Its connection and its place are free before the rest is asked for.
            drop(body);
            if resumes == RESUMES_MAX || !self.resumable(&opened) {
                return Err(self.broken(why));
            }
            resumes += 1;
            body = self.resume(&opened.meta, opened.end, &why).await?;
        }
    }

    /// Asks the sources in turn until one gives a usable answer, and lets the readers know of it.
    async fn open(&mut self) -> Result<(Body, Opened), FillError> {
        let mut asked = Asked::for_plan(&self.fill.plan);
        match (&self.fill.plan, &self.errand.said) {
            (Plan::Part, Some(said)) => asked = asked.with_range(said.range.as_ref()),
            (Plan::Conditional, Some(said)) => asked = asked.with_conditions(said),
            _ => {}
        }
        let mut why = NoneAnswered::default();
        let mut asked_ms = self.edge.now_ms();
        while let Some(Reply { response, source, leave, slot }) = self.asker.next(&asked, &mut why).await {
            // In whole seconds a moment that spans the turn of one would count as one.
            let waited_s = self.edge.now_ms().saturating_sub(asked_ms) / 1000;
            let understood = self.understand(&response, &source, waited_s);
            let understood = self.stamped(understood, response.headers(), source.server().is_some());
            asked_ms = self.edge.now_ms();
            match understood.answer {
                Answer::Useless(text) => {
                    why.note(&source, text);
                    if response.status().is_server_error() {
                        self.edge.faltered(&source, &leave);
                        self.asker.skip_suns_after(&source);
                    }
                    if source.is_sun() && response.status() == StatusCode::GATEWAY_TIMEOUT {
                        // It has waited for the content server: waiting once more helps nobody.
                        why.timed_out = true;
                        return Err(why.into());
                    }
                }
                Answer::Refused(error) => return Err(error),
                _ => {
                    self.edge.metrics.fill_opened(&source);
                    return self.opened(understood, Reply { response, source, leave, slot }).await;
                }
            }
        }
        Err(why.into())
    }

    async fn opened(&mut self, understood: Understood, reply: Reply) -> Result<(Body, Opened), FillError> {
        let Reply { response, source, slot: place, .. } = reply;
        let (slot, varying) = self.place(&understood, response.headers());
        let Understood { answer, stored, shared, original, piece, prefix, .. } = understood;
        let (meta, range) = match answer {
            Answer::Bytes { meta, range } => (meta, Some(range)),
            Answer::Sized(meta) => (meta, None),
            Answer::Unchanged(meta) => {
                self.edge.refresh(self.fill.content, Arc::clone(&meta));
                self.edge.confirmed(self.fill.content, meta.mark);
                (meta, None)
            }
            Answer::Refused(_) | Answer::Useless(_) => unreachable!("both were handled where they arose"),
        };
        let opened = Opened {
            flows: range.is_some(),
            end: range.as_ref().map_or(0, |range| range.end),
            outcome: Outcome::of(&source),
            stored: stored && self.is_current(&meta),
            shared,
            slot,
            varying,
            original,
            status: response.status(),
            asked: self.why_asked(),
            age: freshness::told_age(response.headers()),
            passed_on: source.server().and(headers::text(response.headers(), &CACHE_STATUS)).map(Arc::from),
            meta,
        };
        self.piece = piece;
        if opened.flows && self.errand.said.is_none() && matches!(self.fill.plan, Plan::Revalidate { .. }) {
            self.edge.outdated(self.errand.content);
        }
        if opened.flows {
            self.began_at = range.as_ref().map_or(0, |range| range.start);
            self.reserve(self.began_at..opened.end).await?;
        }
        if opened.stored && opened.meta.size.is_some_and(|size| size > EXTENT_BYTES) {
            self.keep_head(&opened);
        }
        self.note_alone(&opened);
        self.fill.open(opened.clone(), range.map_or(0, |range| range.start));
        if !prefix.is_empty() {
            self.keep_extents(prefix, &opened);
        }
        Ok((Body { frames: response.into_body(), source, _slot: place }, opened))
    }

    /// Keeps the metadata of a large file, unless this fill continues a version that has been replaced meanwhile.
    fn keep_head(&self, opened: &Opened) {
        let (ram, content, meta) = (&self.edge.ram, opened.slot, &opened.meta);
        let continued = self.fill.plan.version().is_some();
        let replaced = || ram.head(content).is_some_and(|head| head.meta().generation != meta.generation);
        if continued && replaced() {
            return;
        }
        if continued && self.edge.store.has_head(content) {
            // What is stored of it is this version: another would have been forgotten.
            ram.keep_large(content, Arc::clone(meta));
        } else {
            self.edge.keep_large(content, Arc::clone(meta), self.keep(opened));
        }
    }

    /// Moves the body to the end that was announced; more than that is an error, as is less.
    async fn pour(&mut self, body: &mut Body, opened: &Opened) -> Result<Poured, String> {
        let idle = Duration::from_millis(self.edge.config.upstream.idle_ms);
        loop {
            let frame = match tokio::time::timeout(idle, body.frames.frame()).await {
                Err(_) => return Err(format!("nothing arrived for {idle:?}")),
                Ok(None) => break,
                Ok(Some(Err(error))) => return Err(error.to_string()),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            let received = self.fill.lock().window.received();
            if opened.end - received < data.len() as u64 {
                return Err(format!("it sends more than the {} bytes announced", opened.end));
            }
            let reached = received + data.len() as u64;
            let enough = self.take(data, opened);
            if reached == opened.end {
                return Ok(Poured::All);
            }
            if enough || !self.readers_follow(opened).await {
                return Ok(Poured::Enough);
            }
            if self.endless(opened) {
                return Err("it announced no size and does not end, and nobody reads it".to_owned());
            }
        }
        let received = self.fill.lock().window.received();
        if opened.end != u64::MAX && received < opened.end {
            return Err(format!("the body ended {} bytes early", opened.end - received));
        }
        Ok(Poured::All)
    }

    /// Takes a chunk in; true when the fill has nothing more to do although the body goes on.
    fn take(&mut self, data: Bytes, opened: &Opened) -> bool {
        self.edge.metrics.upstream_bytes(data.len());
        self.keep_extents(data, opened)
    }

    fn file_bytes_max(&self) -> u64 {
        self.errand.class(&self.edge.topology()).file_bytes_max
    }

    fn keep_extents(&mut self, data: Bytes, opened: &Opened) -> bool {
        let whole = self.fill.push(data);
        if whole.is_empty() || opened.meta.size.is_some_and(|size| size <= EXTENT_BYTES) {
            return false;
        }
        let mut next = 0;
        for (index, bytes) in whole {
            next = index + 1;
            if opened.stored && extent::start_of(index) < self.file_bytes_max() {
                let (content, generation) = (opened.slot, opened.meta.generation);
                self.edge.keep_extent(content, generation, index, bytes, self.keep(opened));
                self.declined |= !self.edge.has_extent(content, generation, index);
            }
        }
        let next_start = extent::start_of(next);
        if next_start >= opened.end || opened.meta.size.is_none() {
            return false;
        }
        // A source that ignores ranges begins before what this fill is for: what is here until there is no end.
        let generation = opened.meta.generation;
        let held = || self.edge.has_extent(opened.slot, generation, next);
        let brought = || self.edge.fills.yields(self.fill, generation, next_start);
        self.unwanted(opened) || (opened.stored && next_start > self.fill.plan.start() && (held() || brought()))
    }

    /// A fill of more than the tier has room for, or that is not kept, goes on only while somebody reads it.
    fn unwanted(&self, opened: &Opened) -> bool {
        self.paced(opened) && self.fill.lock().readers == 0
    }

    fn paced(&self, opened: &Opened) -> bool {
        let large = opened.end - self.began_at > self.large();
        !opened.stored || self.declined || opened.meta.size.is_none() || large
    }

    /// A body without an announced size must reach its end to be of use, but not at any price.
    fn endless(&self, opened: &Opened) -> bool {
        let state = self.fill.lock();
        opened.meta.size.is_none() && state.readers == 0 && state.window.received() > self.large()
    }

    /// From here on a body is too large to be fetched for nobody, bytes.
    fn large(&self) -> u64 {
        self.edge.config.ram_bytes / 8
    }

    /// Such a fill also runs ahead of its fastest reader by no more than the window. False when no reader moved
    /// for as long as a client may stall, or for less while others needed room: what they still need is another
    /// fill's.
    async fn readers_follow(&self, opened: &Opened) -> bool {
        let stall = Duration::from_secs(self.edge.config.limits.stall_s);
        while self.paced(opened) && self.fill.ahead() {
            self.fill.stand_still(self.edge.now_ms());
            if tokio::time::timeout(stall, self.fill.consumed.notified()).await.is_err() {
                return false;
            }
            if self.fill.gave_back() {
                return false;
            }
        }
        let mut state = self.fill.lock();
        state.waits_since = None;
        !state.gave_back
    }

    /// All bytes are here: what is small is kept whole, what had no size has one now.
    fn complete(&mut self, opened: &Opened) {
        let (received, last) = self.fill.finish(opened);
        if let Some((start, meta)) = self.piece.take() {
            if !self.is_current(&meta) {
                return;
            }
            let body = last.map_or_else(|| self.fill.whole_extent(received), |(_, body)| body);
            self.edge.ram.keep_piece(opened.slot, meta, start, body, daemon::clock::unix_s());
            return;
        }
        let too_large = received > self.file_bytes_max();
        if !opened.stored || too_large || !self.is_current(&opened.meta) {
            return;
        }
        let mut meta = Arc::clone(&opened.meta);
        if meta.size.is_none() {
            meta = Arc::new(Meta { size: Some(received), ..(*meta).clone() });
        }
        let content = opened.slot;
        if meta.size.is_some_and(|size| size <= EXTENT_BYTES) {
            let body = match last {
                Some((_, body)) => body,
                None => self.fill.whole_extent(received),
            };
            self.edge.keep_small(content, meta, body, self.keep(opened));
            return;
        }
        if let Some((index, bytes)) = last {
            self.edge.keep_extent(content, meta.generation, index, bytes, self.keep(opened));
        }
        if opened.meta.size.is_none() {
            self.edge.keep_large(content, meta, self.keep(opened));
        }
    }

    /// Variants are told apart by what RAM alone knows.
    fn keep(&self, opened: &Opened) -> Keep {
        if opened.varying.is_some() { Keep::Ram } else { self.keep }
    }

    /// The rest of the same version from the byte reached, from the same source or the next ones.
    async fn resume(&mut self, meta: &Arc<Meta>, end: u64, broke: &str) -> Result<Body, FillError> {
        let at = self.fill.lock().window.received();
        let Some(validator) = meta.resume_validator() else {
            return Err(self.broken(format!("{broke}; without a validator it cannot be resumed")));
        };
        let asked =
            Asked { range: Some(range_header(at, end)), if_range: Some(validator.to_owned()), ..Asked::default() };
        self.edge.metrics.fill_resumed();
        let mut why = NoneAnswered::default();
        // The content server, last in the list, may be asked once more: it is the one that surely has it.
        self.asker.sources.extend(self.edge.sources_of(self.errand, true).pop());
        while let Some(Reply { response, source, slot, .. }) = self.asker.next(&asked, &mut why).await {
            if answer::resumes(meta, at, end, response.status(), response.headers()) {
                return Ok(Body { frames: response.into_body(), source, _slot: slot });
            }
            why.note(&source, format!("it did not continue at byte {at} ({})", response.status()));
        }
        Err(self.broken(format!("{broke}; {}", why.text)))
    }

    /// This fill's share of the bytes in flight: what its window can hold.
    async fn reserve(&self, range: Range<u64>) -> Result<(), FillError> {
        let bytes = (range.end - range.start).min(WINDOW_BYTES_MAX);
        let patience = Duration::from_millis(self.edge.config.upstream.first_byte_ms);
        let share = self.edge.share(self.errand.site.as_deref(), &self.errand.name);
        self.edge.in_flight.reserve(self.fill, bytes, &share, patience, || self.edge.now_ms()).await
    }

    fn broken(&self, why: String) -> FillError {
        FillError::Broken { at: self.fill.lock().window.received(), why: why.into() }
    }
}

/// The writer's side of the shared state.
impl Fill {
    pub(super) fn open(&self, opened: Opened, start: u64) {
        let mut state = self.lock();
        if state.window.received() != start {
            state.window = Window::starting_at(start);
        }
        state.phase = Phase::Open(opened);
        drop(state);
        self.news.send_replace(());
    }

    pub(super) fn push(&self, data: Bytes) -> Vec<(u32, Bytes)> {
        let whole = self.lock().window.push(data);
        self.news.send_replace(());
        whole
    }

    /// Closes the last extent if the file ends here; returns the position reached.
    fn finish(&self, opened: &Opened) -> (u64, Option<(u32, Bytes)>) {
        let mut state = self.lock();
        let received = state.window.received();
        let at_end = opened.meta.size.is_none_or(|size| size == received);
        let last = if at_end { state.window.finish() } else { None };
        (received, last)
    }

    /// A small file that is exactly one extent, or empty.
    fn whole_extent(&self, size: u64) -> Bytes {
        if size == 0 {
            return Bytes::new();
        }
        match self.lock().window.read(0, size) {
            super::window::Found::Bytes(bytes) => bytes,
            _ => unreachable!("a file of one extent is in the window until the fill ends"),
        }
    }

    fn end(&self, error: Option<FillError>) {
        let mut state = self.lock();
        state.phase = match (error, &state.phase) {
            (None, Phase::Open(opened)) => {
                Phase::Ended(Opened { end: opened.end.min(state.window.received()), ..opened.clone() })
            }
            (None, _) => Phase::Failed(FillError::Unreachable("the fill ended before it began".into())),
            (Some(error), _) => Phase::Failed(error),
        };
        drop(state);
        self.news.send_replace(());
    }

    /// Whether the fastest reader is far behind; a fill without readers waits for nobody.
    pub(super) fn ahead(&self) -> bool {
        let state = self.lock();
        let ahead = state.window.received().saturating_sub(state.furthest);
        state.readers > 0 && ahead >= LEAD_BYTES_MAX
    }
}

const CACHE_STATUS: header::HeaderName = header::HeaderName::from_static("cache-status");

/// How often a fill that breaks off is resumed.
const RESUMES_MAX: u32 = 2;
