//! A connection that speaks HTTP/2 is not closed in the client's face.
//!
//! When a server has said which requests it answers still (GOAWAY, RFC 9113, section 6.8), a client may have sent one more
//! before it heard. Closing then makes the kernel reset the connection, which takes the GOAWAY away from a client that has not
//! read it yet: it cannot know that its request was not processed. So the sending side is closed, and what still comes
//! is read and dropped until the client closes its side, for a bounded time.
//!
//! With 10,000 connections on a machine that has far too much to do, an upgrade failed a thousand requests without this
//! (`tests/bench/upgrade`); the ten that were shown were resets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The end of one connection: until when, and how many bytes, once the sending side is closed.
#[derive(Debug, Default)]
pub(crate) struct Farewell(Option<(Pin<Box<Sleep>>, usize)>);

impl Farewell {
    /// Closes the sending side of `stream`, then reads and drops.
    pub(crate) fn poll<T>(&mut self, stream: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        if self.0.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
        }
        let (deadline, bytes) =
            self.0.get_or_insert_with(|| (Box::pin(tokio::time::sleep(PATIENCE)), DROPPED_BYTES_MAX));
        let mut space = [0; 4096];
        while *bytes > 0 && deadline.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut space);
            // A client that is gone, in whatever way, has nothing left to read.
            if ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)).is_err() || buffer.filled().is_empty() {
                break;
            }
            *bytes = bytes.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}

/// How long a client may take to close its side.
const PATIENCE: Duration = Duration::from_secs(10);

/// What it may send meanwhile, bytes.
const DROPPED_BYTES_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::greeting::Greeting;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Of the greeting, which is none of these tests' matter.
    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn what_comes_late_is_dropped_until_the_client_closes() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut near = Greeting::new(near, LIMIT);
        near.write_all(b"last words").await.unwrap();
        let began = tokio::time::Instant::now();
        let closing = tokio::spawn(async move {
            near.shutdown().await.unwrap();
            near
        });
        // Said before the last words were read.
        far.write_all(&[0; 5000]).await.unwrap();
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
        assert!(!closing.is_finished(), "the client may say more");
        drop(far);
        drop(closing.await.unwrap());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn neither_silence_nor_a_flood_is_borne_for_long() {
        let (near, far) = tokio::io::duplex(1000);
        let began = tokio::time::Instant::now();
        Greeting::new(near, LIMIT).shutdown().await.unwrap();
        assert_eq!(began.elapsed(), PATIENCE);
        drop(far);

        let (near, mut far) = tokio::io::duplex(1000);
        let flood = tokio::spawn(async move {
            let mut sent = 0;
            while far.write_all(&[0; 1000]).await.is_ok() {
                sent += 1000;
            }
            sent
        });
        let mut near = Greeting::new(near, LIMIT);
        near.shutdown().await.unwrap();
        drop(near);
        assert!(flood.await.unwrap() <= DROPPED_BYTES_MAX + 3000);
    }
}
