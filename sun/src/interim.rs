//! Passing 1xx responses on (RFC 9110, section 15.2) over HTTP/1.1.
//!
//! ```text
//!   serve --Interim::send--> lines that wait --+
//!                                              v
//!   hyper --------- poll_write, poll_flush --> Passing --> socket
//! ```
//!
//! hyper 1.12 hands 1xx responses of upstream to a callback, but a server of it can send none but 100. It does
//! flush its connection after every turn of a request's future, when nothing of its own is waiting to be written
//! (`Buffered::poll_flush`), and begins to write a response only after that future has ended: so what is sent while
//! it runs can be written in a flush, between two messages. Not over HTTP/2, where frames are hyper's own.
//!
//! # Invariants
//!
//! - Nothing is begun but in a flush: a write may be the rest of the response before. What was begun is finished
//!   before anything else is written.
//! - A request lets one turn pass after [`Interim::send`] and calls [`Interim::close`] before it ends: what no flush
//!   has taken up by then (the client reads too slowly) is dropped rather than written behind the response.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The way from a request to its connection. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Interim {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Some of them are written.
    begun: bool,
}

impl Interim {
    /// Sends a 1xx response ahead of the one that is being made. Called while the request's future is polled, and
    /// at no other time.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let waiting = &mut self.lock().bytes;
        if waiting.len() > WAITING_BYTES_MAX {
            return;
        }
        let reason = status.canonical_reason().unwrap_or("Informational");
        waiting.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
        for (name, value) in headers {
            waiting.extend_from_slice(name.as_str().as_bytes());
            waiting.extend_from_slice(b": ");
            waiting.extend_from_slice(value.as_bytes());
            waiting.extend_from_slice(b"\r\n");
        }
        waiting.extend_from_slice(b"\r\n");
    }

    /// The response comes next: drops what was not begun.
    pub fn close(&self) {
        let mut waiting = self.lock();
        if !waiting.begun {
            waiting.bytes.clear();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code that holds this lock panics")
    }
}

/// A connection that also writes what [`Interim::send`] was given.
#[derive(Debug)]
pub struct Passing<S> {
    stream: S,
    interim: Interim,
}

impl<S> Passing<S> {
    /// Wraps a connection.
    pub const fn new(stream: S, interim: Interim) -> Self {
        Self { stream, interim }
    }
}

impl<S: AsyncWrite + Unpin> Passing<S> {
    fn poll_interim(&mut self, cx: &mut Context<'_>, may_begin: bool) -> Poll<io::Result<()>> {
        let mut waiting = self.interim.lock();
        waiting.begun |= may_begin && !waiting.bytes.is_empty();
        while waiting.begun {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &waiting.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            waiting.bytes.drain(..written);
            waiting.begun = !waiting.bytes.is_empty();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Passing<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Passing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx, false))?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx, true))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx, false))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Bytes of 1xx responses that may wait to be written.
const WAITING_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_was_sent_comes_between_two_responses() {
        let (mut client, server) = tokio::io::duplex(1024);
        let interim = Interim::default();
        let mut stream = Passing::new(server, interim.clone());
        let link = HeaderMap::from_iter([(http::header::LINK, "</a>".parse().unwrap())]);
        interim.send(StatusCode::EARLY_HINTS, &link);
        interim.send(StatusCode::OK, &link);
        stream.write_all(b"rest of the one before;").await.unwrap();
        stream.flush().await.unwrap();
        interim.send(StatusCode::PROCESSING, &link);
        interim.close();
        stream.write_all(b"HTTP/1.1 200 OK").await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "rest of the one before;HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK");
    }

    #[tokio::test]
    async fn what_was_begun_is_finished_first() {
        let (mut client, server) = tokio::io::duplex(10);
        let interim = Interim::default();
        let mut stream = Passing::new(server, interim.clone());
        interim.send(StatusCode::PROCESSING, &HeaderMap::new());
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut stream).poll_flush(&mut context).is_pending());
        interim.close();
        let reading = async {
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            text
        };
        let writing = async move {
            stream.write_all(b"HTTP/1.1 200 OK").await.unwrap();
        };
        let (text, ()) = tokio::join!(reading, writing);
        assert_eq!(text, "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK");
    }
}
