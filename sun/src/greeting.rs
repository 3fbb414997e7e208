//! A connection that speaks HTTP/2 must say so in time.
//!
//! hyper waits for the connection preface (RFC 9113, section 3.4) without a deadline: a client that finishes its
//! TLS handshake and then is silent would hold its connection for ever. [`Greeting`] wraps the stream above TLS.
//! Once the preface is there, pings find out who is gone. Its end is a [`Farewell`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::farewell::Farewell;

/// See the module's doc.
#[derive(Debug)]
pub struct Greeting<T> {
    inner: T,
    /// Bytes of the preface that have not come.
    missing: usize,
    deadline: Pin<Box<Sleep>>,
    farewell: Farewell,
}

impl<T> Greeting<T> {
    /// Reads fail once `limit` has passed and the preface is not there.
    pub fn new(inner: T, limit: Duration) -> Self {
        Self {
            inner,
            missing: PREFACE_BYTES,
            deadline: Box::pin(tokio::time::sleep(limit)),
            farewell: Farewell::default(),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Greeting<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        if read.is_pending() && self.missing > 0 && self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Greeting<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.farewell.poll(&mut this.inner, cx)
    }
}

/// `PRI * HTTP/2.0`, two empty lines around `SM`.
const PREFACE_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn silence_is_borne_after_the_preface_and_not_before() {
        for (said, expected) in [(0, "timed out"), (23, "timed out"), (24, "silence"), (100, "silence")] {
            let (near, mut far) = tokio::io::duplex(1000);
            let mut near = Greeting::new(near, Duration::from_secs(30));
            far.write_all(&vec![0; said]).await.unwrap();
            near.read_exact(&mut vec![0; said]).await.unwrap();
            let next = tokio::time::timeout(Duration::from_secs(300), near.read_u8()).await;
            let end = match next {
                Err(_) => "silence".to_owned(),
                Ok(read) => read.unwrap_err().to_string(),
            };
            assert_eq!(end, expected, "after {said} bytes");
        }
    }
}
