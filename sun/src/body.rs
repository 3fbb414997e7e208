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

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use geo::{CanonicalName, ContentId};
use http_body::{Frame, SizeHint};

use crate::edge::Edge;
use crate::extent;
use crate::fill::plan::Plan;
use crate::fill::registry::{Joined, Need};
use crate::fill::window::slice;
use crate::fill::{FillError, Read, Reader, task};
use crate::held::HeldFile;
use crate::meta::Meta;
use crate::report::Tally;
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
    Idle(Box<FileReader>),
    Reading(Pin<Box<dyn Future<Output = (Box<FileReader>, Piece)> + Send>>),
    Over,
}

type Piece = Option<Result<Bytes, FillError>>;

impl ResponseBody {
    /// Bytes that are there.
    #[must_use]
    pub const fn whole(bytes: Bytes) -> Self {
        Self { kind: Kind::Whole(Some(bytes)), tally: None }
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
            Kind::Idle(reader) => Box::pin(reader.step()),
            Kind::Reading(reading) => reading,
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
        matches!(self.kind, Kind::Over | Kind::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Over | Kind::Whole(None) => SizeHint::with_exact(0),
            Kind::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Idle(reader) if reader.end != u64::MAX => SizeHint::with_exact(reader.end - reader.position),
            Kind::Idle(_) | Kind::Reading(_) => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::Idle(_) => "Idle",
            Self::Reading(_) => "Reading",
            Self::Over => "Over",
        })
    }
}

/// Reads one version of a file from wherever its bytes are.
#[derive(Debug)]
pub struct FileReader {
    /// The edge.
    pub edge: Arc<Edge>,
    /// The file.
    pub name: CanonicalName,
    /// Its id.
    pub content: ContentId,
    /// The version.
    pub meta: Arc<Meta>,
    /// Next byte.
    pub position: u64,
    /// One past the last byte; `u64::MAX` when the size is not known.
    pub end: u64,
    /// For a server: fills ask no sun.
    pub direct: bool,
    /// For a server that wants only what is held: there are no fills.
    pub held_only: bool,
    /// The vault's copy.
    pub held: Option<Arc<HeldFile>>,
    /// The fill that it reads.
    pub fill: Option<Reader>,
    /// Fills joined in a row that did not bring a byte.
    pub fruitless: u32,
}

impl FileReader {
    async fn step(mut self: Box<Self>) -> (Box<Self>, Piece) {
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
            if let Err(error) = self.join() {
                return Some(Err(error));
            }
        }
        None
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
                tracing::warn!(file = %self.name, %error, "a held file is dropped");
                self.edge.distrust(self.content);
                self.held = None;
                // A held file is fresh until it is dropped, and it is dropped now.
                self.meta = Arc::new(Meta { fresh_until: crate::unix_now(), ..(*self.meta).clone() });
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
                    self.fill = None;
                    return None;
                }
            }
        }
    }

    fn read_ram(&self) -> Option<Bytes> {
        let index = extent::index_of(self.position);
        let bytes = self.edge.ram.extent(self.content, self.meta.generation, index)?;
        let first = extent::start_of(index);
        Some(slice(&bytes, self.position - first, self.end - first)).filter(|bytes| !bytes.is_empty())
    }

    fn join(&mut self) -> Result<(), FillError> {
        self.fruitless += 1;
        if self.held_only {
            return Err(FillError::Broken { at: self.position, why: "it is no longer held".into() });
        }
        if self.fruitless > FRUITLESS_MAX {
            return Err(FillError::Broken { at: self.position, why: "fills end without bringing it".into() });
        }
        let (generation, position) = (self.meta.generation, self.position);
        let ram = &self.edge.ram;
        let held = || ram.extent(self.content, generation, extent::index_of(position)).map(drop);
        let plan = || Plan::missing(Arc::clone(&self.meta), position, self.end);
        let begin = || (plan(), self.edge.asks_no_sun(&self.name, self.content));
        match self.edge.fills.join(self.content, Need::Byte { generation, position }, self.direct, held, begin) {
            Joined::Held(()) => {}
            Joined::Joined(reader) => self.fill = Some(reader),
            Joined::Started(reader) => {
                tokio::spawn(task::run(Arc::clone(&self.edge), Arc::clone(reader.fill()), self.name.clone()));
                self.fill = Some(reader);
            }
        }
        Ok(())
    }
}

/// Fills that may end without a byte for a reader before it gives up: moka may decline an extent, and another
/// fill may have been cut off, but not again and again.
const FRUITLESS_MAX: u32 = 4;
