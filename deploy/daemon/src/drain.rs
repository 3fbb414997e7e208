//! Ending in order: one signal that everything listens to, and everything that must end before exit.
//!
//! ```text
//!   SIGTERM/SIGINT --> Drain::start() --> listeners stop accepting, connections finish their requests
//!                                     --> all trackers empty, or the deadline passes --> exit
//! ```

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Shared by all parts of a daemon; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Nobody drains yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain; later calls change nothing.
    pub fn start(&self) {
        self.token.cancel();
        self.tasks.close();
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
    let _ = drain;
    todo!()
}
