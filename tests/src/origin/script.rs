//! What a scripted content server does for one path.

use std::sync::Arc;

use tokio::sync::watch;

/// The behaviour of one path; made with [`Script::file`] and changed by the methods that follow.
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) status: u16,
    pub(super) size: u64,
    pub(super) version: u32,
    pub(super) declared: Declared,
    pub(super) ranges: bool,
    pub(super) headers: Vec<(String, String)>,
    pub(super) dies_at: Option<u64>,
    pub(super) deaths: Option<usize>,
    pub(super) gate: Option<(u64, Gate)>,
    pub(super) head_gate: Option<Gate>,
    pub(super) heads_held: Option<usize>,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) echoes: Option<String>,
    pub(super) any_method: bool,
}

/// What the response says about its length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Declared {
    /// The truth.
    True,
    /// `Content-Length` of so many bytes more (or fewer) than are sent.
    Off(i64),
    /// Nothing: chunked.
    Unknown,
}

impl Script {
    /// A file of `size` bytes by [`crate::pattern::Pattern`], with validators, ranges and a true length.
    #[must_use]
    pub const fn file(size: u64) -> Self {
        Self {
            status: 200,
            size,
            version: 0,
            declared: Declared::True,
            ranges: true,
            headers: Vec::new(),
            dies_at: None,
            deaths: None,
            gate: None,
            head_gate: None,
            heads_held: None,
            bytes_per_second: None,
            echoes: None,
            any_method: false,
        }
    }

    /// An answer with this status and a short body.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        let mut script = Self::file(16);
        script.status = status;
        script
    }

    /// Other bytes and other validators under the same path.
    #[must_use]
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// One more response header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `Range` is answered with the whole file.
    #[must_use]
    pub const fn ignoring_ranges(mut self) -> Self {
        self.ranges = false;
        self
    }

    /// Chunked, without a `Content-Length`.
    #[must_use]
    pub const fn chunked(mut self) -> Self {
        self.declared = Declared::Unknown;
        self
    }

    /// `Content-Length` says `more` bytes than are sent before the connection closes.
    #[must_use]
    pub const fn declaring_too_much(mut self, more: i64) -> Self {
        self.declared = Declared::Off(more);
        self
    }

    /// The connection breaks once the file's byte at `offset` would be next; every time.
    #[must_use]
    pub const fn dying_at(mut self, offset: u64) -> Self {
        self.dies_at = Some(offset);
        self
    }

    /// As [`Script::dying_at`], but only for the first `times` responses.
    #[must_use]
    pub const fn dying_at_for(mut self, offset: u64, times: usize) -> Self {
        self.dies_at = Some(offset);
        self.deaths = Some(times);
        self
    }

    /// Sends the bytes before `offset` and then nothing until the gate opens. Offset 0 holds the body, not the head.
    #[must_use]
    pub fn held_at(mut self, offset: u64, gate: &Gate) -> Self {
        self.gate = Some((offset, gate.clone()));
        self
    }

    /// Does not even send the head until the gate opens.
    #[must_use]
    pub fn head_held(mut self, gate: &Gate) -> Self {
        self.head_gate = Some(gate.clone());
        self
    }

    /// As [`Script::head_held`], but only for the first `times` responses.
    #[must_use]
    pub fn head_held_for(mut self, gate: &Gate, times: usize) -> Self {
        self.heads_held = Some(times);
        self.head_held(gate)
    }

    /// Sends at most so many bytes a second, a tenth of them at a time.
    #[must_use]
    pub const fn dripping(mut self, bytes_per_second: u64) -> Self {
        self.bytes_per_second = Some(bytes_per_second);
        self
    }

    /// The body is what the request says in this header, and there are no validators: an answer made for its client.
    #[must_use]
    pub fn echoing(mut self, header: &str) -> Self {
        self.echoes = Some(header.to_owned());
        self
    }

    /// Methods other than GET and HEAD get the same.
    #[must_use]
    pub const fn any_method(mut self) -> Self {
        self.any_method = true;
        self
    }

    /// The file's validator.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"v{}-{}\"", self.version, self.size)
    }

    /// The gate before this response's head, if there is to be one.
    pub(super) fn take_head_gate(&mut self) -> Option<Gate> {
        match &mut self.heads_held {
            Some(0) => None,
            Some(left) => {
                *left -= 1;
                self.head_gate.clone()
            }
            None => self.head_gate.clone(),
        }
    }

    /// Counts a death, if this response is to be one.
    pub(super) const fn take_death(&mut self) -> Option<u64> {
        match self.deaths {
            Some(0) => None,
            Some(left) => {
                self.deaths = Some(left - 1);
                self.dies_at
            }
            None => self.dies_at,
        }
    }
}

/// Holds responses at a byte until a test lets them go on, so that a test decides what happens first.
#[derive(Clone, Debug)]
pub struct Gate {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    arrived: usize,
    open: bool,
}

impl Gate {
    /// A closed one.
    #[must_use]
    pub fn closed() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Lets all go on, those who come later too.
    pub fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// Resolves once a response has been held.
    pub async fn reached(&self) {
        let mut state = self.state.subscribe();
        let reached = state.wait_for(|state| state.arrived > 0);
        crate::poll::within("a response held at the gate", reached).await.expect("the gate outlives its waiters");
    }

    pub(crate) async fn pass(&self) {
        let mut state = self.state.subscribe();
        self.state.send_modify(|state| state.arrived += 1);
        // The sender lives in `self`.
        let _ = state.wait_for(|state| state.open).await;
    }
}
