//! Messages out of a TCP stream, by BMP's common header (RFC 7854 4.1).
//!
//! A length that cannot be ends the stream before anything is kept for it: at most [`MESSAGE_BYTES_MAX`] or what the config says.
//! Room is made as bytes arrive and not as a length promises.

use std::borrow::Cow;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;

use super::bmp::{HEADER_BYTES, VERSION};
use super::{FeedError, FeedErrorKind};

/// Bytes of one message, by default. The longest a router has to send is 65,535 bytes of BGP message in 54 of headers; mirrored messages and
/// those with many counters may be longer. Too small: a router whose message is longer is cut off. Too large: so many bytes per router.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1_024;

/// Room that is made at once for a message that is under way.
const STEP_BYTES: usize = 16 * 1_024;

/// Cuts a stream into messages, headers included.
#[derive(Debug)]
pub struct Framing {
    message_bytes_max: usize,
    /// Of the next message's first byte in the stream.
    offset: u64,
}

impl Framing {
    /// Refuses messages above `message_bytes_max` bytes.
    #[must_use]
    pub const fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, offset: 0 }
    }

    fn error(&self, kind: FeedErrorKind, what: impl Into<Cow<'static, str>>) -> FeedError {
        FeedError { kind, what: what.into(), offset: self.offset, peer: None }
    }

    /// The length of the message that `stream` starts with, once it is there.
    fn length(&self, stream: &[u8]) -> Result<Option<usize>, FeedError> {
        match stream.first() {
            None | Some(&VERSION) => {}
            Some(version) => {
                return Err(self.error(FeedErrorKind::Framing, format!("BMP version {version}, not 3")));
            }
        }
        let Some([_, length @ .., _]) = stream.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        match usize::try_from(length) {
            Ok(length) if (HEADER_BYTES..=self.message_bytes_max).contains(&length) => Ok(Some(length)),
            _ => {
                let what =
                    format!("a BMP message of {length} bytes; {HEADER_BYTES} to {} can be", self.message_bytes_max);
                Err(self.error(FeedErrorKind::Framing, what))
            }
        }
    }
}

impl Default for Framing {
    fn default() -> Self {
        Self::new(MESSAGE_BYTES_MAX)
    }
}

impl Decoder for Framing {
    type Item = Bytes;
    type Error = FeedError;

    fn decode(&mut self, stream: &mut BytesMut) -> Result<Option<Bytes>, FeedError> {
        let Some(length) = self.length(stream)? else { return Ok(None) };
        if stream.len() < length {
            stream.reserve((length - stream.len()).min(STEP_BYTES));
            return Ok(None);
        }
        self.offset += length as u64;
        Ok(Some(stream.split_to(length).freeze()))
    }

    fn decode_eof(&mut self, stream: &mut BytesMut) -> Result<Option<Bytes>, FeedError> {
        match self.decode(stream)? {
            None if !stream.is_empty() => Err(self.error(FeedErrorKind::Cut, "the stream ends within a message")),
            message => Ok(message),
        }
    }
}

/// What [`tokio_util::codec::FramedRead`] makes of a socket's errors. The offset is not known to it and is 0.
impl From<io::Error> for FeedError {
    fn from(error: io::Error) -> Self {
        Self { kind: FeedErrorKind::Read, what: Cow::Owned(error.to_string()), offset: 0, peer: None }
    }
}
