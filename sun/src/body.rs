//! The body of a response: bytes that are there at once, or a file that is read piece by piece.
//!
//! ```text
//!   FileReader::next, at its position:
//!     vault block, checked?  --->  the fill that this response reads?  --->  extent in RAM?  --->  join a fill
//!        bad: distrust, go on         ended or gone: leave it, go on                               and read it
//! ```
//!
//! A body that cannot be brought to its end ends with an error: HTTP/1.1 closes the connection, HTTP/2 resets
//! the stream. It never looks complete.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use geo::ContentId;
use http_body::{Frame, SizeHint};

use crate::edge::Edge;
use crate::errand::Errand;
use crate::extent;
use crate::fill::plan::Plan;
use crate::fill::registry::{Joined, Need, UnderWay};
use crate::fill::window::slice;
use crate::fill::{FillError, Read, Reader, WINDOW_BYTES_MAX, task};
use crate::held::HeldFile;
use crate::meta::Meta;
use crate::multipart::Multipart;
use crate::pass::body::Passed;
use crate::report::Tally;
use crate::stored::Extent;
use crate::vault_read;

/// See the module's doc.
#[derive(Debug)]
pub struct ResponseBody {
    kind: Kind,
    /// Counts what is sent, and reports it when the response ends.
    tally: Option<Tally>,
}

enum Kind {
    Whole(Option<Bytes>),
    Pieces(VecDeque<Bytes>),
    Idle(Box<FileReader>),
    Reading(Pin<Box<dyn Future<Output = (Box<FileReader>, Piece)> + Send>>),
    Passed(Box<Passed>),
    Over,
}

type Piece = Option<Result<Bytes, FillError>>;

impl ResponseBody {
    /// Bytes that are there.
    #[must_use]
    pub const fn whole(bytes: Bytes) -> Self {
        Self { kind: Kind::Whole(Some(bytes)), tally: None }
    }

    /// Bytes that are there, one after the other.
    #[must_use]
    pub const fn pieces(pieces: VecDeque<Bytes>) -> Self {
        Self { kind: Kind::Pieces(pieces), tally: None }
    }

    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self { kind: Kind::Over, tally: None }
    }

    /// A part of a file.
    #[must_use]
    pub fn file(reader: FileReader) -> Self {
        Self { kind: Kind::Idle(Box::new(reader)), tally: None }
    }

    /// What a content server sends to this client alone.
    #[must_use]
    pub fn passed(body: Passed) -> Self {
        Self { kind: Kind::Passed(Box::new(body)), tally: None }
    }

    /// The same, reported to the popularity API when it ends.
    #[must_use]
    pub fn counted(self, tally: Tally) -> Self {
        Self { tally: Some(tally), ..self }
    }

    fn give(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, FillError>>> {
        if let Some(tally) = &mut self.tally {
            tally.sent(bytes.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = FillError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, FillError>>> {
        let mut reading = match std::mem::replace(&mut self.kind, Kind::Over) {
            Kind::Over | Kind::Whole(None) => return Poll::Ready(None),
            Kind::Whole(Some(bytes)) => return self.give(bytes),
            Kind::Pieces(mut pieces) => {
                let Some(bytes) = pieces.pop_front() else { return Poll::Ready(None) };
                self.kind = Kind::Pieces(pieces);
                return self.give(bytes);
            }
            Kind::Idle(reader) => Box::pin(reader.step()),
            Kind::Reading(reading) => reading,
            Kind::Passed(mut body) => {
                let polled = body.poll_piece(cx);
                if !matches!(polled, Poll::Ready(None | Some(Err(_)))) {
                    self.kind = Kind::Passed(body);
                }
                return polled.map(|piece| piece.map(|piece| piece.map(Frame::data)));
            }
        };
        match reading.as_mut().poll(cx) {
            Poll::Pending => {
                self.kind = Kind::Reading(reading);
                Poll::Pending
            }
            Poll::Ready((reader, Some(Ok(bytes)))) => {
                self.kind = Kind::Idle(reader);
                self.give(bytes)
            }
            Poll::Ready((_, Some(Err(error)))) => Poll::Ready(Some(Err(error))),
            Poll::Ready((_, None)) => {
                if let Some(tally) = &mut self.tally {
                    tally.complete();
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Over | Kind::Whole(None) => true,
            Kind::Pieces(pieces) => pieces.is_empty(),
            Kind::Passed(body) => body.is_over(),
            Kind::Whole(Some(_)) | Kind::Idle(_) | Kind::Reading(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Over | Kind::Whole(None) => SizeHint::with_exact(0),
            Kind::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Pieces(pieces) => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Kind::Idle(reader) if reader.end != u64::MAX => {
                let several = reader.several.as_ref().map_or(0, Multipart::length);
                SizeHint::with_exact(several + reader.end - reader.position)
            }
            Kind::Passed(body) => body.size_hint(),
            Kind::Idle(_) | Kind::Reading(_) => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::Pieces(_) => "Pieces",
            Self::Idle(_) => "Idle",
            Self::Reading(_) => "Reading",
            Self::Passed(_) => "Passed",
            Self::Over => "Over",
        })
    }
}

/// Reads one version of a file from wherever its bytes are.
#[derive(Debug)]
pub struct FileReader {
    /// The edge.
    pub edge: Arc<Edge>,
    /// What is read.
    pub errand: Errand,
    /// Where it is kept.
    pub content: ContentId,
    /// The version.
    pub meta: Arc<Meta>,
    /// Next byte.
    pub position: u64,
    /// One past the last byte; `u64::MAX` when the size is not known.
    pub end: u64,
    /// Parts that come after this one.
    pub several: Option<Multipart>,
    /// For a server: fills ask no sun.
    pub direct: bool,
    /// For a server that wants only what is held: there are no fills.
    pub held_only: bool,
    /// The vault's copy.
    pub held: Option<Arc<HeldFile>>,
    /// The fill that it reads.
    pub fill: Option<Reader>,
    /// The fill is all there is: what comes is kept nowhere, and is for this client only.
    pub alone: bool,
    /// Fills joined in a row that did not bring a byte.
    pub fruitless: u32,
    /// It lost its fill's window to others, because nothing of the response could be sent for a while.
    pub stood_still: bool,
}

impl FileReader {
    async fn step(mut self: Box<Self>) -> (Box<Self>, Piece) {
        if let Some(head) = self.next_part() {
            return (self, Some(Ok(head)));
        }
        let piece = self.next().await;
        if let Some(Ok(bytes)) = &piece {
            self.position += bytes.len() as u64;
            self.fruitless = 0;
        }
        (self, piece)
    }

    async fn next(&mut self) -> Piece {
        while self.position < self.learned_end() {
            if let Some(bytes) = self.read_vault().await {
                return Some(Ok(bytes));
            }
            if let Some(piece) = self.read_fill().await {
                return piece.transpose();
            }
            if let Some(bytes) = self.read_ram() {
                return Some(Ok(bytes));
            }
            if let Some(bytes) = self.read_store().await {
                return Some(Ok(bytes));
            }
            if let Err(error) = self.join() {
                return Some(Err(error));
            }
        }
        None
    }

    /// At the end of a part: what stands before the next one, to which it goes on.
    fn next_part(&mut self) -> Option<Bytes> {
        if self.position != self.end {
            return None;
        }
        let (head, part) = self.several.as_mut()?.next_part()?;
        (self.position, self.end) = (part.start, part.end);
        let generation = self.meta.generation;
        self.fill = self.fill.take().filter(|reader| reader.fill().brings(generation, part.start));
        Some(head)
    }

    /// The end of a file whose size was not known is known once its fill has left it in RAM.
    fn learned_end(&mut self) -> u64 {
        if self.end == u64::MAX && self.fill.is_none() {
            let head = self.edge.ram.head(self.content);
            let same = head.filter(|head| head.meta().generation == self.meta.generation);
            self.end = same.and_then(|head| head.meta().size).unwrap_or(u64::MAX);
        }
        self.end
    }

    async fn read_vault(&mut self) -> Option<Bytes> {
        let held = self.held.as_ref()?;
        match vault_read::read(held, self.position, self.end).await {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                // The rest comes from elsewhere: the version is the same, or the body ends with an error.
                tracing::warn!(file = %self.errand.name, %error, "a held file is dropped");
                self.edge.distrust(self.errand.content);
                self.held = None;
                // A held file is fresh until it is dropped, and it is dropped now.
                self.meta = Arc::new(Meta { fresh_until: daemon::clock::unix_s(), ..(*self.meta).clone() });
                None
            }
        }
    }

    /// None: no fill, or it has nothing (more) for this position. `Ok(None)` is the end of a file whose size
    /// was not known.
    async fn read_fill(&mut self) -> Option<Result<Option<Bytes>, FillError>> {
        let reader = self.fill.as_mut()?;
        loop {
            match reader.read(self.position, self.end) {
                Read::Bytes(bytes) => return Some(Ok(Some(bytes))),
                Read::Later => reader.changed().await,
                Read::Failed(error) => return Some(Err(error)),
                Read::Ended if self.end == u64::MAX => return Some(Ok(None)),
                Read::Ended | Read::Gone => {
                    let ended_at = reader.fill().ended_at().filter(|_| self.end == u64::MAX);
                    self.end = ended_at.unwrap_or(self.end);
                    self.stood_still = reader.fill().gave_back();
                    self.fill = None;
                    return None;
                }
            }
        }
    }

    fn read_ram(&self) -> Option<Bytes> {
        let index = extent::index_of(self.position);
        let generation = self.meta.generation;
        let bytes = self.edge.ram.extent(self.content, generation, index)?;
        let extent = Extent { generation, index, bytes: &bytes };
        let errand = &self.errand;
        self.edge.hit_in_ram((&errand.name, errand.content, errand.site.as_deref()), self.content, Some(extent));
        let first = extent::start_of(index);
        Some(slice(&bytes, self.position - first, self.end - first)).filter(|bytes| !bytes.is_empty())
    }

    async fn read_store(&self) -> Option<Bytes> {
        if !self.edge.store.is_configured() {
            return None;
        }
        self.edge.read_store(self.content, self.meta.generation, self.position, self.end).await
    }

    fn join(&mut self) -> Result<(), FillError> {
        self.fruitless += 1;
        if self.held_only {
            return Err(FillError::Broken { at: self.position, why: "it is no longer held".into() });
        }
        if self.fruitless > FRUITLESS_MAX || self.alone {
            return Err(FillError::Broken { at: self.position, why: "fills end without bringing it".into() });
        }
        let (generation, position) = (self.meta.generation, self.position);
        let ram = &self.edge.ram;
        let held = || ram.extent(self.content, generation, extent::index_of(position)).map(drop);
        let begin = |under_way: UnderWay<'_>| {
            let brought = |index| under_way.brings(generation, extent::start_of(index));
            let here = |index| self.edge.has_extent(self.content, generation, index) || brought(index);
            // Whoever stood still while others waited for room has an extent at a time fetched while they do.
            let cautious = self.stood_still && !self.edge.in_flight.has_room(WINDOW_BYTES_MAX);
            let end = if cautious { self.end.min(position + 1) } else { self.end };
            let plan = Plan::missing(Arc::clone(&self.meta), position, end, here);
            (plan, self.edge.sources_of(&self.errand, self.direct))
        };
        match self.edge.fills.join(self.content, Need::Byte { generation, position }, self.direct, held, begin) {
            Joined::Held(()) => {}
            Joined::Joined(reader) => self.fill = Some(reader),
            Joined::Started(reader) => {
                tokio::spawn(task::run(Arc::clone(&self.edge), Arc::clone(reader.fill()), self.errand.clone()));
                self.fill = Some(reader);
            }
        }
        Ok(())
    }
}

/// Fills that may end without a byte for a reader before it gives up: moka may decline an extent, and another
/// fill may have been cut off, but not again and again.
const FRUITLESS_MAX: u32 = 4;
