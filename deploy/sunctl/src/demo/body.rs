//! Response bodies: bytes in RAM, noise made as it is sent, or a file read by a thread that waits for
//! its reader.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use super::media::{Noise, Opened};

/// A body of known length. Ends with an error when a file turns out shorter, so that it never looks complete.
#[derive(Debug)]
pub struct Body {
    left: u64,
    from: From,
}

#[derive(Debug)]
enum From {
    Ram(Bytes),
    Noise(Noise, u64),
    Disk(mpsc::Receiver<io::Result<Bytes>>),
}

impl Body {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self { left: 0, from: From::Ram(Bytes::new()) }
    }

    /// Bytes in RAM.
    #[must_use]
    pub fn ram(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { left: bytes.len() as u64, from: From::Ram(bytes) }
    }

    /// A part of an opened file, which must lie within it. Makes a small file at once (not for an
    /// async task), reads disk on a thread of the runtime's.
    #[must_use]
    pub fn part(opened: Opened, part: &Range<u64>) -> Self {
        let left = part.end - part.start;
        let from = match opened {
            Opened::Made(made) => {
                let bytes = made.bytes();
                let within = |position: u64| usize::try_from(position).map_or(bytes.len(), |at| at.min(bytes.len()));
                From::Ram(bytes.slice(within(part.start)..within(part.end)))
            }
            Opened::Noise(noise) => From::Noise(noise, part.start),
            Opened::Disk(file) => {
                let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
                let part = part.clone();
                tokio::task::spawn_blocking(move || read_pieces(&file, part, &sender));
                From::Disk(receiver)
            }
        };
        Self { left, from }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let wanted = usize::try_from(self.left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let piece = match &mut self.from {
            From::Ram(bytes) => Ok(bytes.split_to(wanted.min(bytes.len()))),
            From::Noise(noise, position) => {
                let piece = noise.read(*position, wanted);
                *position += piece.len() as u64;
                Ok(piece)
            }
            From::Disk(receiver) => match receiver.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(piece) => piece.unwrap_or_else(|| Ok(Bytes::new())),
            },
        };
        let piece = piece.and_then(|piece| match piece.len() {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than announced")),
            _ => Ok(piece),
        });
        self.left = piece.as_ref().map_or(0, |piece| self.left.saturating_sub(piece.len() as u64));
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Reads until the part's end, an error, or the body being dropped.
fn read_pieces(file: &File, part: Range<u64>, sender: &mpsc::Sender<io::Result<Bytes>>) {
    let mut position = part.start;
    while position < part.end {
        let wanted = usize::try_from(part.end - position).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let mut piece = BytesMut::zeroed(wanted);
        let read = file.read_at(&mut piece, position).map(|count| {
            piece.truncate(count);
            piece.freeze()
        });
        let advanced = read.as_ref().map_or(0, Bytes::len);
        if sender.blocking_send(read).is_err() || advanced == 0 {
            return;
        }
        position += advanced as u64;
    }
}

/// Bytes of a piece; large enough that making one costs more than handing it on.
const PIECE_BYTES: usize = 128 * 1024;
/// Pieces that are read before the reader asks.
const PIECES_AHEAD: usize = 2;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::super::media::Made;
    use super::*;

    #[tokio::test]
    async fn a_part_is_sent_whole_from_every_source() {
        let noise = Noise::new(3);
        let bytes = noise.read(0, 400_000);
        let disk = || {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &bytes).unwrap();
            file
        };
        for part in [0..400_000, 0..1, 399_999..400_000, 100_000..300_001, 7..7] {
            check(Opened::Noise(noise), &part, &bytes).await;
            check(Opened::Disk(disk()), &part, &bytes).await;
        }
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_ends_in_an_error() {
        let body = Body::part(Opened::Disk(tempfile::tempfile().unwrap()), &(0..10));
        let error = body.collect().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_part_of_a_picture_is_what_the_picture_has_there() {
        let made = Made::Picture { index: 1, width: 320, height: 200 };
        let whole = made.bytes();
        check(Opened::Made(made), &(0..whole.len() as u64), &whole).await;
        check(Opened::Made(made), &(1000..150_000), &whole).await;
    }

    async fn check(opened: Opened, part: &Range<u64>, whole: &Bytes) {
        let body = Body::part(opened, part);
        assert_eq!(body.size_hint().exact(), Some(part.end - part.start));
        let sent = body.collect().await.unwrap().to_bytes();
        let (from, to) = (usize::try_from(part.start).unwrap(), usize::try_from(part.end).unwrap());
        assert_eq!(sent, whole[from..to], "{part:?}");
    }
}
