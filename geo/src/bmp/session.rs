//! One connection of a router, from its turn to its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::codec::Decoder as _;
use tokio_util::sync::CancellationToken;

use crate::feed::{Decoder, Event, FeedError, FeedErrorKind, Framing};
use crate::rib::FeedId;

use super::notices::Notices;
use super::{Metrics, Options, Router, Routers, SessionEvent};

/// A connection.
pub(super) struct Session {
    pub(super) address: IpAddr,
    pub(super) router: Router,
    pub(super) routers: watch::Receiver<Arc<Routers>>,
    pub(super) sink: mpsc::Sender<(FeedId, SessionEvent)>,
    pub(super) options: Options,
    pub(super) metrics: Metrics,
    pub(super) replaced: CancellationToken,
}

/// Why a connection ended.
enum End {
    Closed,
    Replaced,
    Unconfigured,
    Idle,
    Read(std::io::Error),
    OutOfStep(FeedError),
    /// What a message changed is unknown; the router is to tell everything anew.
    Unreadable(FeedError),
    /// Nobody listens any more.
    Deaf,
}

impl Session {
    /// Waits until the router's connection before is over, then reads this one to its end.
    pub(super) async fn run(mut self, stream: TcpStream, turn: &Mutex<Resynced>) {
        let mut turn = tokio::select! {
            () = self.replaced.cancelled() => return,
            turn = turn.lock() => turn,
        };
        if self.tell(SessionEvent::Connected).await.is_err() {
            return;
        }
        let router = &self.router.name;
        tracing::info!(%router, address = %self.address, "a router connected");
        self.metrics.connected(&self.router.name);
        let end = self.read(stream, &mut turn).await;
        self.metrics.lost(&self.router.name);
        let router = &self.router.name;
        match end {
            End::Closed => tracing::info!(%router, "a router closed its connection"),
            End::Replaced => tracing::info!(%router, "a router connected anew; the connection before is closed"),
            End::Unconfigured => tracing::info!(%router, "a router is configured no more; its connection is closed"),
            End::Idle => {
                tracing::warn!(%router, idle_s = self.options.idle.as_secs(), "a silent router is disconnected");
            }
            End::Read(error) => tracing::warn!(%router, %error, "a router's connection broke"),
            End::OutOfStep(error) => {
                tracing::warn!(%router, %error, "a router's stream is not BMP; it is disconnected");
            }
            End::Unreadable(error) => {
                tracing::warn!(
                    %router,
                    %error,
                    "which routes a message changes cannot be read; the router is disconnected, to tell everything anew"
                );
            }
            End::Deaf => return,
        }
        // Whoever comes next must wait until this was said.
        let _ = self.tell(SessionEvent::Lost).await;
    }

    async fn read(&mut self, mut stream: TcpStream, resynced: &mut Resynced) -> End {
        if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE) {
            return End::Read(error);
        }
        let mut messages = Messages::new(self.options.message_bytes_max);
        loop {
            messages.bytes.reserve(READ_BYTES);
            let read = tokio::select! {
                end = self.told_to_end() => return end,
                read = tokio::time::timeout(self.options.idle, stream.read_buf(&mut messages.bytes)) => read,
            };
            match read {
                Err(_) => return End::Idle,
                Ok(Err(error)) => return End::Read(error),
                Ok(Ok(0)) => return End::Closed,
                Ok(Ok(bytes)) => self.metrics.read(&self.router.name, bytes),
            }
            let (events, end) = messages.events(&self.router.name, &self.metrics);
            let unreadable = messages.unreadable.take().filter(|_| resynced.is_due(Instant::now()));
            if !events.is_empty() {
                tokio::select! {
                    end = self.told_to_end() => return end,
                    told = self.tell(SessionEvent::Events(events)) => if told.is_err() { return End::Deaf },
                }
            }
            if let Some(error) = end {
                return End::OutOfStep(error);
            }
            if let Some(error) = unreadable {
                return End::Unreadable(error);
            }
        }
    }

    /// Resolves when somebody else decides that this connection is over.
    async fn told_to_end(&self) -> End {
        tokio::select! {
            () = self.replaced.cancelled() => End::Replaced,
            () = self.unconfigured() => End::Unconfigured,
        }
    }

    /// Resolves when this router is none any more.
    async fn unconfigured(&self) {
        let (mut routers, feed) = (self.routers.clone(), self.router.feed);
        let is_other = |routers: &Arc<Routers>| routers.get(&self.address).is_none_or(|router| router.feed != feed);
        if routers.wait_for(is_other).await.is_err() {
            // The config cannot change any more.
            std::future::pending::<()>().await;
        }
    }

    async fn tell(&self, event: SessionEvent) -> Result<(), mpsc::error::SendError<(FeedId, SessionEvent)>> {
        self.sink.send((self.router.feed, event)).await
    }
}

/// When a router was last disconnected because of a message whose routes could not be read.
#[derive(Debug, Default)]
pub(super) struct Resynced(Option<Instant>);

impl Resynced {
    /// Whether it may be again; then it is. A router that says the same wrong thing each time must not be kept from telling the
    /// rest: its further unreadable messages are only counted.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.0.is_none_or(|at| now.saturating_duration_since(at) >= RESYNC_EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// A router is disconnected at most so often because of what cannot be read.
pub const RESYNC_EVERY: Duration = Duration::from_secs(3600);

/// Bytes that arrived, and what is known from those before.
struct Messages {
    bytes: BytesMut,
    framing: Framing,
    decoder: Decoder,
    notices: Notices,
    /// A message whose routes could not be read.
    unreadable: Option<FeedError>,
}

impl Messages {
    fn new(message_bytes_max: usize) -> Self {
        let (framing, decoder) = (Framing::new(message_bytes_max), Decoder::default());
        let (bytes, notices) = (BytesMut::with_capacity(READ_BYTES), Notices::default());
        Self { bytes, framing, decoder, notices, unreadable: None }
    }

    /// What the messages that are there in full say; with the error, if the rest cannot be cut into messages.
    fn events(&mut self, router: &str, metrics: &Metrics) -> (Vec<Event>, Option<FeedError>) {
        let mut events = Vec::new();
        loop {
            let message = match self.framing.decode(&mut self.bytes) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    self.notices.look(router, &events, metrics);
                    return (needed(events), Some(error));
                }
            };
            metrics.message(router);
            if let Err(error) = self.decoder.decode(&message, &mut events) {
                self.notices.malformed(router, &error, metrics);
                self.unreadable =
                    Some(error).filter(|error| error.kind == FeedErrorKind::Routes).or(self.unreadable.take());
            }
        }
        self.notices.look(router, &events, metrics);
        (needed(events), None)
    }
}

/// Without what nobody acts on.
fn needed(mut events: Vec<Event>) -> Vec<Event> {
    events.retain(|event| !matches!(event, Event::Ignored(_) | Event::Malformed { .. }));
    events
}

/// Bytes that are read at once.
pub const READ_BYTES: usize = 64 * 1024;

/// A connection without a byte for so long is probed.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);

const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(Duration::from_secs(5)).with_retries(3);
