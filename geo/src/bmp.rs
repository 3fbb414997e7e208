//! Routers connect here and tell their routes by BMP (RFC 7854). Waiting only: what is told is decoded by
//! [`crate::feed`] and judged by [`crate::rib`].
//!
//! ```text
//!   router --TCP--> accept --known address?--> its turn --> read, cut, decode --batch--> bounded channel --> engine
//!                      | no: closed, counted      ^ the one before is ended first          | full: the router waits
//! ```
//!
//! # Invariants
//!
//! - One connection of a router at a time, the newest wins: a router that comes back has noticed the end of the old
//!   one before this side did. The engine hears [`SessionEvent::Lost`] of the old one before [`SessionEvent::Connected`] of the new one.
//! - What a router sends waits in TCP when the engine is slower. Kept are at most one read ([`READ_BYTES`]) or one message under way and
//!   one batch of a connection, and what is in the channel.
//! - A message whose content is malformed is left out, said once and counted; a stream that is out of step is closed.
//! - A router that is gone without a word is noticed by TCP keepalive within [`KEEPALIVE_IDLE`] and a few probes.
//!
//! Not here: asking routers to connect, and authentication beyond the address. BMP has none: listen where only routers reach, or
//! use TCP-AO, IPsec or an access list in front.

mod metrics;
mod notices;
mod session;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::drain::Drain;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::feed::Event;
use crate::feed::framing::MESSAGE_BYTES_MAX;
use crate::rib::FeedId;

pub use metrics::Metrics;
pub use session::{KEEPALIVE_IDLE, READ_BYTES, RESYNC_EVERY};

/// Which routers may connect, by the address they connect from.
pub type Routers = HashMap<IpAddr, Router>;

/// A configured router.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Router {
    /// The feed that its routes are of.
    pub feed: FeedId,
    /// Its name in logs and metrics.
    pub name: String,
}

/// What a router's connection leads to. For each feed: connected, then any number of batches, then lost.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SessionEvent {
    /// The router connected.
    Connected,
    /// What it said, in order; never empty, and without what nobody needs ([`Event::Ignored`]).
    Events(Vec<Event>),
    /// The connection is no more.
    Lost,
}

/// Bounds of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// A router that says nothing for so long is disconnected, and connects again if it lives. Too small: quiet routers that send no statistics
    /// tell their whole tables again and again. Too large: a router that hangs is believed for so long.
    pub idle: Duration,
    /// Bytes of one message; a longer one ends the connection.
    pub message_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { idle: Duration::from_secs(3600), message_bytes_max: MESSAGE_BYTES_MAX }
    }
}

/// Takes connections of `routers` until the drain, and hands what they say to `sink`. A router that is taken out of
/// `routers`, or becomes another feed, is disconnected. After the drain nothing more is told, also no end of a connection: routes of a
/// daemon that ends are not stale.
pub async fn listen(
    listener: TcpListener,
    routers: watch::Receiver<Arc<Routers>>,
    sink: mpsc::Sender<(FeedId, SessionEvent)>,
    options: Options,
    metrics: Metrics,
    drain: Drain,
) {
    let mut listening = Listening { routers, sink, options, metrics, drain, turns: HashMap::new(), warned: None };
    loop {
        let accepted = tokio::select! {
            () = listening.drain.wait() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => listening.accept(stream, from),
            Err(error) => {
                // Descriptors may have run out; accepting again at once would only spin.
                tracing::warn!(%error, "a router's connection cannot be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// What all connections share.
#[derive(Debug)]
struct Listening {
    routers: watch::Receiver<Arc<Routers>>,
    sink: mpsc::Sender<(FeedId, SessionEvent)>,
    options: Options,
    metrics: Metrics,
    drain: Drain,
    turns: HashMap<FeedId, Turn>,
    /// When a stranger was complained of.
    warned: Option<Instant>,
}

/// Whose turn it is among the connections of a router: who holds the lock. The one that waits or runs ends when cancelled.
#[derive(Debug, Default)]
struct Turn {
    lock: Arc<Mutex<session::Resynced>>,
    newest: CancellationToken,
}

impl Listening {
    fn accept(&mut self, stream: TcpStream, from: SocketAddr) {
        let address = from.ip().to_canonical();
        let Some(router) = self.routers.borrow().get(&address).cloned() else {
            return self.refuse(address);
        };
        let routers = self.routers.borrow().clone();
        self.turns.retain(|feed, turn| Arc::strong_count(&turn.lock) > 1 || routers.values().any(|r| r.feed == *feed));
        let turn = self.turns.entry(router.feed).or_default();
        turn.newest.cancel();
        turn.newest = CancellationToken::new();
        let session = session::Session {
            address,
            router,
            routers: self.routers.clone(),
            sink: self.sink.clone(),
            options: self.options,
            metrics: self.metrics.clone(),
            replaced: turn.newest.clone(),
        };
        let (lock, drain) = (turn.lock.clone(), self.drain.clone());
        self.drain.spawn(async move {
            tokio::select! {
                () = drain.wait() => {}
                () = session.run(stream, &lock) => {}
            }
        });
    }

    /// A connection from elsewhere is closed: one line now and then, so that a router with a wrong address is found.
    fn refuse(&mut self, address: IpAddr) {
        self.metrics.refused();
        let now = Instant::now();
        if self.warned.is_none_or(|at| now.duration_since(at) >= WARN_EVERY) {
            self.warned = Some(now);
            tracing::warn!(%address, "a BMP connection is refused: no configured router has this address");
        }
    }
}

const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Strangers are complained of at most so often; all are counted.
const WARN_EVERY: Duration = Duration::from_secs(60);
