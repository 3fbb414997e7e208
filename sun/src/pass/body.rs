//! The bodies of what is passed: a client's on its way up, a content server's on its way down. Neither is ever held:
//! a piece is asked for when the piece before it was taken.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::pace::Pace;
use crate::fill::FillError;
use crate::pass::Place;
use crate::pass::keep::Keep;

/// A client's body. It fails when it gets longer than it may be and when the client is silent for too long; trailers
/// stay here.
#[derive(Debug)]
pub struct Upload {
    /// None once it is handed to [`linger`].
    inner: Option<Incoming>,
    limits: UploadLimits,
    bytes: u64,
    pace: Pace,
    began: Instant,
    timer: Pin<Box<Sleep>>,
    timer_is: Timer,
    /// Since when the client is waited for, and for how long it was before.
    waits_since: Option<Instant>,
    waited: Duration,
    progress: Arc<Progress>,
}

/// Bounds of one client's body.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// Longest body, bytes.
    pub bytes_max: u64,
    /// How fast it is taken, bytes per second; 0: no limit.
    pub bytes_per_second: u64,
    /// Longest silence of the client.
    pub silence: Duration,
    /// What is left of it is read and dropped when nobody wants it any more; see [`linger`].
    pub lingers: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Timer {
    Off,
    /// The pace has the next piece wait.
    Pause,
    /// The client is waited for.
    Silence,
}

/// Why a client's body ended before its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// It is longer than it may be: 413.
    #[error("the body is longer than it may be")]
    TooLong,
    /// Nothing came for too long, or next to nothing: 408.
    #[error("the client sends nothing")]
    Silent,
    /// The connection broke, or the body is malformed.
    #[error("the client broke off")]
    Broken,
}

/// How far a client's body is; shared with who waits for the answer to it.
#[derive(Debug)]
pub struct Progress(Mutex<State>);

#[derive(Clone, Copy, Debug)]
struct State {
    turn: Turn,
    fault: Option<Fault>,
}

/// Who has to do something next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// The client sends; [`Upload`] itself minds its silence.
    Client,
    /// The content server takes a piece, since then.
    Taking(Instant),
    /// The content server answers, the whole body being there since then.
    Answering(Instant),
}

impl Progress {
    fn turn_to(&self, turn: Turn) {
        self.lock().turn = turn;
    }

    /// Who has to do something next.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.lock().turn
    }

    /// What is wrong with the body.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.lock().fault
    }

    fn fail(&self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.lock().fault = Some(fault);
        Poll::Ready(Some(Err(fault)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no code that holds this lock panics")
    }
}

impl Upload {
    /// The body, and how far it is.
    #[must_use]
    pub fn new(inner: Incoming, limits: UploadLimits) -> (Self, Arc<Progress>) {
        let now = Instant::now();
        let progress = Arc::new(Progress(Mutex::new(State { turn: Turn::Taking(now), fault: None })));
        let upload = Self {
            inner: Some(inner),
            limits,
            bytes: 0,
            pace: Pace::new(limits.bytes_per_second),
            began: now,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_is: Timer::Off,
            waits_since: None,
            waited: Duration::ZERO,
            progress: Arc::clone(&progress),
        };
        (upload, progress)
    }

    /// One piece has come.
    fn took(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.timer_is = Timer::Off;
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > self.limits.bytes_max {
            return self.progress.fail(Fault::TooLong);
        }
        let now = Instant::now();
        self.waited += self.waits_since.take().map_or(Duration::ZERO, |since| now - since);
        if too_slow(self.bytes, self.waited) {
            return self.progress.fail(Fault::Silent);
        }
        let wait = self.pace.taken(bytes.len() as u64, now - self.began);
        if !wait.is_zero() {
            self.set_timer(Timer::Pause, now + wait);
        }
        self.progress.turn_to(Turn::Taking(now));
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// Nothing has come yet.
    fn waits(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.waits_since.get_or_insert_with(Instant::now);
        if self.timer_is == Timer::Off {
            self.set_timer(Timer::Silence, Instant::now() + self.limits.silence);
        }
        ready!(self.timer.as_mut().poll(cx));
        self.progress.fail(Fault::Silent)
    }

    fn set_timer(&mut self, timer: Timer, at: Instant) {
        self.timer.as_mut().reset(at);
        self.timer_is = timer;
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.progress.turn_to(Turn::Client);
        if self.timer_is == Timer::Pause {
            ready!(self.timer.as_mut().poll(cx));
            self.timer_is = Timer::Off;
        }
        loop {
            let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
            match Pin::new(inner).poll_frame(cx) {
                Poll::Pending => return self.waits(cx),
                Poll::Ready(None) => {
                    self.inner = None;
                    self.progress.turn_to(Turn::Answering(Instant::now()));
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(_))) => {
                    self.inner = None;
                    return self.progress.fail(Fault::Broken);
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => return self.took(bytes),
                    Err(_trailers) => {}
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The content server has answered without it, or is gone.
impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take().filter(|_| self.limits.lingers) {
            linger(inner);
        }
    }
}

/// Whether a client that was waited for so long, all pieces together, has sent too little: it would hold its place for
/// ever. Time in which the content server or the pace has others wait is not the client's.
fn too_slow(bytes: u64, waited: Duration) -> bool {
    waited > SLOW_GRACE && bytes < SLOWEST_BYTES_PER_SECOND * waited.as_secs()
}

/// Slowest body, on average, bytes per second: far below any line, far above what somebody sends to hold a place.
const SLOWEST_BYTES_PER_SECOND: u64 = 100;
/// How long a body may be slower at first.
const SLOW_GRACE: Duration = Duration::from_secs(60);

/// Reads what is left of a body and drops it, for a while. An HTTP/1.1 connection that is closed while the client
/// still sends is reset, and with the reset the client loses the answer that was on its way (RFC 9112, section 9.6).
pub fn linger(mut body: Incoming) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    if body.is_end_stream() {
        return;
    }
    runtime.spawn(tokio::time::timeout(LINGER, async move {
        while let Ok(Some(Ok(_))) = tokio::time::timeout(LINGER_SILENCE, body.frame()).await {}
    }));
}

/// Longest reading of a body that nobody wants: an upload of some hundred megabytes that was refused at its start
/// hears so on a fast line; a slower one is reset.
const LINGER: Duration = Duration::from_secs(30);
/// Longest silence while doing so.
const LINGER_SILENCE: Duration = Duration::from_secs(5);

/// A content server's body on its way to the client. Trailers stay here.
#[derive(Debug)]
pub struct Passed {
    inner: Incoming,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    position: u64,
    /// Keeps it as it passes.
    keep: Option<Keep>,
    /// Counts this request among those that are passed.
    _permit: Place,
}

impl Passed {
    /// A body that fails when nothing of it comes for `idle`.
    #[must_use]
    pub const fn new(inner: Incoming, idle: Duration, permit: Place) -> Self {
        Self { inner, idle, timer: None, position: 0, keep: None, _permit: permit }
    }

    /// The same, kept when it has come whole.
    #[must_use]
    pub fn keeping(self, keep: Option<Keep>) -> Self {
        Self { keep, ..self }
    }

    /// The next piece.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FillError>>> {
        loop {
            let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => {
                    let until = || Box::pin(tokio::time::sleep(self.idle));
                    ready!(self.timer.get_or_insert_with(until).as_mut().poll(cx));
                    return Poll::Ready(Some(Err(self.broken("nothing came in time"))));
                }
                Poll::Ready(frame) => frame,
            };
            self.timer = None;
            return Poll::Ready(match frame {
                None => {
                    self.has_ended();
                    None
                }
                Some(Err(error)) => Some(Err(self.broken(&error.to_string()))),
                Some(Ok(frame)) => match frame.into_data() {
                    Err(_trailers) => continue,
                    Ok(bytes) => {
                        self.position += bytes.len() as u64;
                        self.kept(&bytes);
                        Some(Ok(bytes))
                    }
                },
            });
        }
    }

    /// Whoever sends a body of known length does not ask again after its last piece.
    fn kept(&mut self, piece: &Bytes) {
        if let Some(keep) = &mut self.keep {
            keep.take(piece);
        }
        if self.inner.is_end_stream() {
            self.has_ended();
        }
    }

    fn has_ended(&mut self) {
        if let Some(keep) = self.keep.take() {
            keep.complete();
        }
    }

    /// Whether there is nothing more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.inner.is_end_stream()
    }

    /// What is known of the rest's length.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    fn broken(&self, why: &str) -> FillError {
        FillError::Broken { at: self.position, why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_sends_next_to_nothing_is_given_up_after_a_grace() {
        check(0, 60, false);
        check(2, 61, true);
        check(6099, 61, true);
        check(6100, 61, false);
        check(u64::MAX, u64::MAX / 200, false);
    }

    #[track_caller]
    fn check(bytes: u64, waited_s: u64, expected: bool) {
        assert_eq!(too_slow(bytes, Duration::from_secs(waited_s)), expected, "{bytes} bytes in {waited_s} s");
    }
}
