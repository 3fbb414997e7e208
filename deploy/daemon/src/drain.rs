//! Ending in order: one signal that everything listens to, and everything that must end before exit.
//!
//! ```text
//!   SIGTERM/SIGINT --> Drain::start() --> listeners stop accepting, connections finish their requests
//!                                     --> all trackers empty, or the deadline passes --> exit
//!
//!   SIGUSR2 --> a new process serves --> Drain::hand_over() --> the same, and clients never notice
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::sockets::Sockets;
use crate::upgrade::Stage;

/// Shared by all parts of a daemon; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    tasks: TaskTracker,
    sockets: Sockets,
    handed_over: Arc<AtomicBool>,
    /// Cancelled when the process before this one has ended; unset without one.
    predecessor: Arc<OnceLock<CancellationToken>>,
    hooks: Arc<Mutex<Hooks>>,
}

/// What is to be lent to the next process, and taken back.
#[derive(Default)]
struct Hooks(Vec<Hook>);

type Hook = Box<dyn Fn(Stage) + Send>;

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hooks({})", self.0.len())
    }
}

impl Drain {
    /// Nobody drains yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain; later calls change nothing.
    pub fn start(&self) {
        self.sockets.close();
        self.token.cancel();
        self.tasks.close();
    }

    /// Begins the drain of a process whose successor serves already.
    pub fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Release);
        self.start();
    }

    /// Whether another process serves in the place of this one: then clients are to be led there gently, and nobody is to
    /// be told that this server goes away.
    #[must_use]
    pub fn handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Acquire)
    }

    /// The listening sockets.
    #[must_use]
    pub const fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// Has `hook` called, on a thread that may block, around the start of a new process: for what only one process may
    /// write.
    pub fn on_upgrade(&self, hook: impl Fn(Stage) + Send + 'static) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).0.push(Box::new(hook));
    }

    pub(crate) fn stage(&self, stage: Stage) {
        for hook in &self.hooks.lock().unwrap_or_else(PoisonError::into_inner).0 {
            hook(stage);
        }
    }

    /// Another process serves until this is cancelled.
    pub(crate) fn after(&self, predecessor: CancellationToken) {
        // Set once, before the daemon starts.
        let _ = self.predecessor.set(predecessor);
    }

    /// Whether no process before this one is still ending.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.predecessor.get().is_none_or(CancellationToken::is_cancelled)
    }

    /// Resolves when the process before this one has ended; at once when there was none.
    pub async fn alone(&self) {
        if let Some(predecessor) = self.predecessor.get() {
            predecessor.cancelled().await;
        }
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn started(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves when the drain begins.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }

    /// Runs a task that the end waits for. It must watch [`Drain::wait`] if it would not end by itself.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// What tracks the tasks, for those that are spawned elsewhere.
    #[must_use]
    pub const fn tracker(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Resolves when the drain has begun and every task has ended (true), or `limit` after it began (false).
    pub async fn finished(&self, limit: Duration) -> bool {
        self.token.cancelled().await;
        tokio::time::timeout(limit, self.tasks.wait()).await.is_ok()
    }
}

/// Begins the drain on SIGTERM or SIGINT; a second signal ends the process at once with status 130.
///
/// # Errors
///
/// When the process cannot listen to signals.
pub fn on_signals(drain: &Drain) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let drain = drain.clone();
    // Not tracked: it listens until the process ends, and the drain must not wait for it.
    tokio::spawn(async move {
        let mut either = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = either().await;
        tracing::info!(signal = name, "draining; a second signal ends at once");
        drain.start();
        let name = either().await;
        tracing::warn!(signal = name, "ending at once");
        std::process::exit(STATUS_INTERRUPTED);
    });
    Ok(())
}

/// Exit status after a second signal: 128 + SIGINT, as shells report it.
const STATUS_INTERRUPTED: i32 = 130;

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_end_waits_for_every_task() {
        let drain = Drain::new();
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let task = drain.spawn(async move { released.await.is_ok() });
        drain.start();
        assert!(!drain.finished(Duration::ZERO).await, "a task is running");
        release.send(()).unwrap();
        assert!(drain.finished(LONG).await);
        assert!(task.await.unwrap());
    }

    #[tokio::test]
    async fn everything_that_waits_hears_of_the_drain() {
        let drain = Drain::new();
        let waiting = [drain.clone(), drain.clone()].map(|drain| tokio::spawn(async move { drain.wait().await }));
        assert!(!drain.started());
        drain.start();
        drain.start();
        assert!(drain.started());
        for task in waiting {
            task.await.unwrap();
        }
        assert!(drain.finished(LONG).await);
    }

    /// The only test that sends this process a signal.
    #[tokio::test]
    async fn a_signal_begins_the_drain() {
        let drain = Drain::new();
        on_signals(&drain).unwrap();
        let process = std::process::id().to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &process]).status().unwrap();
        assert!(sent.success());
        drain.wait().await;
        assert!(drain.started());
    }
}
