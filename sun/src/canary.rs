//! Whether this server can do its work, as its self-check asks twice a second: a file that it makes itself goes through the
//! RAM tier and through every device of the store, by the same code as all others.
//!
//! ```text
//!   GET /.well-known/sun-canary --may they?--> RAM: keep, look, compare --+
//!                                                                         +--> Report
//!        at most once a second, however many ask:                         |
//!          every device: write, read back ([`crate::store::canary`]) -----+
//!          open descriptors
//! ```
//!
//! Nobody's content server is asked: an outage there must not take this server's addresses away. The answer never waits for a
//! device; a device that hangs is told by the age of its round. Whoever is neither on this machine nor has a token gets what
//! they would get without this module, so that nobody uses it to make load or to learn what is wrong here.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use daemon::tokens::Role;
use geo::ContentId;
use http::{HeaderMap, HeaderValue, Response, header};

use crate::body::ResponseBody;
use crate::edge::Edge;
use crate::headers;
use crate::meta::Meta;
use crate::ram::{Head, Ram};
use crate::store::canary::{Canaries, Found};

/// Where it is asked for; no file's name. RFC 8615 keeps such paths free.
pub const PATH: &str = "/.well-known/sun-canary";

/// How this server is.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Report {
    /// Its process.
    pub pid: u32,
    /// What is wrong with the RAM tier; null: nothing.
    pub ram: Option<String>,
    /// Devices of the store, as they are configured.
    pub devices: Vec<Device>,
    /// Open descriptors; null: not known yet.
    pub descriptors: Option<u64>,
    /// How many there may be; null: any number.
    pub descriptors_max: Option<u64>,
    /// It ends, or another process has taken over from it.
    pub draining: bool,
}

/// One device of the store.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Device {
    /// Its path.
    pub name: String,
    /// What is wrong with it; null: nothing.
    pub failed: Option<String>,
    /// Why nothing can be said of it; null: it was written and read.
    pub unknown: Option<String>,
    /// Which look at it this is of, from 1; a report with the number of one before says nothing new of it. 0: this sun does
    /// not say. A read that hangs is a look each second.
    #[serde(default)]
    pub round: u64,
}

/// What is known between two answers.
#[derive(Debug, Default)]
pub struct Canary {
    canaries: Canaries,
    state: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// When the last round began; none: there was none.
    round: Option<Instant>,
    descriptors: Option<u64>,
    devices: Vec<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    found: Found,
    /// Since when a round of it is under way.
    busy: Option<Instant>,
    /// Looks so far.
    round: u64,
}

/// Whether somebody may ask: this machine, or a server or operator with a token.
#[must_use]
pub fn may_ask(edge: &Edge, client: Option<IpAddr>, fields: &HeaderMap) -> bool {
    let token = || edge.tokens.identify(headers::text(fields, &header::AUTHORIZATION));
    let known = || token().is_some_and(|who| matches!(who.role, Role::Sun | Role::Cache | Role::Operator));
    client.is_some_and(|client| client.is_loopback()) || known()
}

/// Answers whoever may ask.
pub fn answer(edge: &Arc<Edge>) -> Response<ResponseBody> {
    if edge.canary.begin_round(Instant::now()) {
        look(edge);
    }
    let report = report(edge);
    let body = serde_json::to_vec(&report).unwrap_or_default();
    let mut response = Response::new(ResponseBody::whole(Bytes::from(body)));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn report(edge: &Edge) -> Report {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let (descriptors, devices) = edge.canary.known(&edge.store.device_names(), Instant::now());
    Report {
        pid: std::process::id(),
        ram: through_ram(&edge.ram, rand::random()).err(),
        devices,
        descriptors,
        descriptors_max: limit.current,
        draining: edge.draining.load(std::sync::atomic::Ordering::Relaxed),
    }
}

/// Begins a round: on threads that may block, one a device.
fn look(edge: &Arc<Edge>) {
    let counting = Arc::clone(edge);
    tokio::task::spawn_blocking(move || counting.canary.lock().descriptors = descriptors());
    for at in 0..edge.store.device_names().len() {
        if edge.canary.begin_device(at, Instant::now()) {
            let edge = Arc::clone(edge);
            tokio::task::spawn_blocking(move || {
                let found = edge.store.canary_round(at, &edge.canary.canaries);
                edge.canary.end_device(at, found, Instant::now());
            });
        }
    }
}

impl Canary {
    fn begin_round(&self, now: Instant) -> bool {
        let mut known = self.lock();
        let due = known.round.is_none_or(|last| now.saturating_duration_since(last) >= EVERY);
        if due {
            known.round = Some(now);
        }
        due
    }

    /// False: the round before is still under way.
    fn begin_device(&self, at: usize, now: Instant) -> bool {
        let mut known = self.lock();
        while known.devices.len() <= at {
            known.devices.push(Seen { found: Found::Unknown("it was not looked at yet"), busy: None, round: 0 });
        }
        let device = &mut known.devices[at];
        let free = device.busy.is_none();
        if free {
            device.busy = Some(now);
        }
        free
    }

    fn end_device(&self, at: usize, found: Found, now: Instant) {
        if let Some(device) = self.lock().devices.get_mut(at) {
            if let Found::Failed(why) = &found
                && !matches!(device.found, Found::Failed(_))
            {
                tracing::warn!(device = at, why, "the canary of a device");
            }
            if found == Found::Waits {
                device.busy = None;
                return;
            }
            *device = Seen { found, busy: None, round: device.told(now).1 + 1 };
        }
    }

    fn known(&self, names: &[String], now: Instant) -> (Option<u64>, Vec<Device>) {
        let known = self.lock();
        let seen = |at: usize| known.devices.get(at).map(|seen| seen.told(now));
        let devices = names.iter().enumerate().map(|(at, name)| {
            let (found, round) = seen(at).unwrap_or((Found::Unknown("it was not looked at yet"), 0));
            let (failed, unknown) = match found {
                Found::Well => (None, None),
                Found::Failed(why) => (Some(why), None),
                Found::Unknown(why) => (None, Some(why.to_owned())),
                Found::Waits => (None, Some("its first record is being written".to_owned())),
            };
            Device { name: name.clone(), failed, unknown, round }
        });
        (known.descriptors, devices.collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // What is kept is whole after every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// What is known, and which look it is of.
    fn told(&self, now: Instant) -> (Found, u64) {
        let waited = self.busy.map(|since| now.saturating_duration_since(since)).filter(|waited| *waited > ROUND_MAX);
        match waited {
            Some(waited) => {
                let why = format!("a read takes longer than {:.1} s", waited.as_secs_f64());
                (Found::Failed(why), self.round + waited.as_secs() / EVERY.as_secs())
            }
            None => (self.found.clone(), self.round),
        }
    }
}

/// Keeps a small file and looks whether it is there as it was kept. That a full tier does not admit it is no failure.
fn through_ram(ram: &Ram, generation: u64) -> Result<(), String> {
    let content = ContentId::from_bytes(*b"the sun's canary");
    let body = Bytes::from(generation.to_le_bytes().repeat(RAM_BYTES / 8));
    let meta = Meta::new(&HeaderMap::new(), Some(body.len() as u64), 0, 0, generation);
    ram.keep_small(content, Arc::new(meta), body);
    match ram.head(content) {
        // Another question may have kept its own meanwhile: every generation is its body.
        Some(Head::Small { meta, body }) if body != meta.generation.to_le_bytes().repeat(RAM_BYTES / 8) => {
            Err("what was kept came back otherwise".to_owned())
        }
        Some(_) | None => Ok(()),
    }
}

/// Open descriptors of this process.
fn descriptors() -> Option<u64> {
    // The one that looks is among them.
    std::fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1))
}

/// Rounds begin no sooner after one another: what is written for them is one record a second and device.
const EVERY: Duration = Duration::from_secs(1);

/// A round of a device that takes longer is a read that hangs.
const ROUND_MAX: Duration = Duration::from_secs(2);

/// What is kept in RAM.
const RAM_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_begun_once_a_second_however_many_ask() {
        let (canary, start) = (Canary::default(), Instant::now());
        let at = |ms| canary.begin_round(start + Duration::from_millis(ms));
        assert_eq!([0, 1, 500, 999, 1000, 1001, 2500].map(at), [true, false, false, false, true, false, true]);
    }

    #[test]
    fn a_device_whose_round_does_not_end_is_told() {
        let (canary, start) = (Canary::default(), Instant::now());
        let names = ["disk".to_owned()];
        let told = |ms| canary.known(&names, start + Duration::from_millis(ms)).1.remove(0);
        assert!(told(0).unknown.is_some());
        assert!(canary.begin_device(0, start));
        canary.end_device(0, Found::Well, start);
        assert_eq!(told(0), Device { name: "disk".to_owned(), failed: None, unknown: None, round: 1 });
        assert!(canary.begin_device(0, start));
        assert!(!canary.begin_device(0, start), "no second thread hangs");
        assert_eq!((told(2000).failed, told(2000).round), (None, 1));
        assert_eq!(told(2001).failed.as_deref(), Some("a read takes longer than 2.0 s"));
    }

    #[test]
    fn every_look_has_a_number_and_a_read_that_hangs_is_one_each_second() {
        let (canary, start) = (Canary::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let round = |ms| canary.known(&["disk".to_owned()], at(ms)).1.remove(0).round;
        assert_eq!(round(0), 0);
        assert!(canary.begin_device(0, start));
        canary.end_device(0, Found::Well, start);
        assert!(canary.begin_device(0, start));
        assert_eq!([1, 2000, 2001, 2999, 3000].map(round), [1, 1, 3, 3, 4]);
        canary.end_device(0, Found::Well, at(3500));
        assert_eq!(round(3500), 5);
        assert!(canary.begin_device(0, at(4000)));
        canary.end_device(0, Found::Failed("odd".to_owned()), at(4000));
        assert!(canary.begin_device(0, at(5000)));
        canary.end_device(0, Found::Waits, at(5000));
        let known = canary.known(&["disk".to_owned()], at(5000)).1.remove(0);
        assert_eq!((known.failed.as_deref(), known.round), (Some("odd"), 6), "nothing new is known");
        assert!(canary.begin_device(0, at(6000)), "and it is looked at again");
    }

    #[test]
    fn what_is_kept_in_ram_is_compared() {
        let ram = Ram::new(1 << 20);
        assert_eq!(through_ram(&ram, 7), Ok(()));
        assert_eq!(through_ram(&Ram::new(0), 8), Ok(()), "a tier that admits nothing is no broken one");
    }
}
