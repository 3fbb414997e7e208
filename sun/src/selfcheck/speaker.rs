//! Has announced what the machine says, and says what is.
//!
//! A speaker is told again every round, not only when something changes: one that was restarted, or that an operator changed by
//! hand, is set right within a second. One that is away is a reason that is shown, and none to do anything else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::bird::{self, Protocol};
use super::config::{SpeakerConfig, SpeakerKind};
use super::exabgp::Exabgp;
use super::machine::Announce;

/// What is known of the speaker.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Speaking {
    /// Which.
    pub kind: SpeakerKind,
    /// What was last asked of it.
    pub wanted: Announce,
    /// What it announces, as far as it is known.
    pub announced: Announce,
    /// Prefixes that it announces as best or backup, and with a lower preference.
    pub routes: (usize, usize),
    /// BGP sessions that are up, of how many; null: it does not tell.
    pub sessions: Option<(usize, usize)>,
    /// What is wrong; null: nothing.
    pub problem: Option<String>,
}

/// Shared with whoever shows it.
pub type Shared = Arc<Mutex<Speaking>>;

/// One speaker.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    exabgp: Option<Exabgp>,
    shared: Shared,
}

impl Speaking {
    /// Nothing was looked at yet.
    #[must_use]
    pub const fn new(kind: SpeakerKind) -> Self {
        let (wanted, announced) = (Announce::Unchanged, Announce::Unchanged);
        Self { kind, wanted, announced, routes: (0, 0), sessions: None, problem: None }
    }

    /// Whether clients are sent here by it: the routes are there and a session carries them. Without a speaker nobody knows
    /// better than the state.
    #[must_use]
    pub fn reaches_clients(&self) -> bool {
        let carried = self.sessions.is_none_or(|(up, all)| up > 0 || all == 0);
        self.kind == SpeakerKind::None
            || (self.problem.is_none() && carried && matches!(self.announced, Announce::Best | Announce::Drain))
    }

    fn of_bird(wanted: Announce, protocols: &[Protocol]) -> Self {
        let ((up, _), (drain, _)) = (bird::count(protocols, bird::UP), bird::count(protocols, bird::DRAIN));
        let announced = match (up, drain) {
            (0, 0) => Announce::Nothing,
            (0, _) => Announce::Drain,
            _ => Announce::Best,
        };
        let sessions = bird::sessions(protocols).filter(|session| session.is_up()).count();
        let sessions = Some((sessions, bird::sessions(protocols).count()));
        Self { kind: SpeakerKind::Bird, wanted, announced, routes: (up, drain), sessions, problem: None }
    }
}

impl Speaker {
    /// Nothing is said yet. `exabgp` is there if it is the one.
    #[must_use]
    pub fn new(config: &SpeakerConfig, exabgp: Option<Exabgp>) -> Self {
        let shared = Arc::new(Mutex::new(Speaking::new(config.kind)));
        Self { config: config.clone(), exabgp, shared }
    }

    /// What is known of it.
    #[must_use]
    pub fn shared(&self) -> Shared {
        Arc::clone(&self.shared)
    }

    /// Has announced what `wanted` says until its sender is gone, and what it said last then.
    pub async fn run(mut self, mut wanted: watch::Receiver<Announce>) {
        let mut ended = false;
        loop {
            let announce = *wanted.borrow_and_update();
            self.round(announce).await;
            if ended {
                return;
            }
            tokio::select! {
                changed = wanted.changed() => ended = changed.is_err(),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn round(&mut self, announce: Announce) {
        let before = self.known();
        let now = match (self.config.kind, &mut self.exabgp) {
            (SpeakerKind::Bird, _) => {
                let timeout = Duration::from_millis(self.config.timeout_ms);
                match bird::round(&self.config.socket, announce, timeout).await {
                    Ok(protocols) => Speaking::of_bird(announce, &protocols),
                    Err(error) => Speaking {
                        wanted: announce,
                        sessions: None,
                        problem: Some(error.to_string()),
                        ..before.clone()
                    },
                }
            }
            (SpeakerKind::Exabgp, Some(exabgp)) => {
                let problem = exabgp.say(announce).err();
                let (announced, routes) = exabgp.said();
                Speaking { wanted: announce, announced, routes, problem, ..before.clone() }
            }
            (SpeakerKind::None | SpeakerKind::Exabgp, _) => {
                Speaking { wanted: announce, announced: announce, ..before.clone() }
            }
        };
        say(&before, &now);
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn known(&self) -> Speaking {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Logs what changed.
fn say(before: &Speaking, now: &Speaking) {
    match (&before.problem, &now.problem) {
        (None, Some(why)) => tracing::warn!(%why, "the speaker does not announce what it should"),
        (Some(_), None) => tracing::info!("the speaker is there again"),
        _ => {}
    }
    if now.problem.is_none() && before.announced != now.announced {
        tracing::info!(announced = ?now.announced, routes = now.routes.0 + now.routes.1, "announced");
    }
    if before.sessions.is_some() && now.sessions.is_some() && before.sessions != now.sessions {
        let (up, all) = now.sessions.unwrap_or_default();
        tracing::info!(up, all, "BGP sessions");
    }
}

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(500);
