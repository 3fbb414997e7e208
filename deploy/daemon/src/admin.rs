//! The private admin port: `/metrics` (Prometheus text), `/healthz` (200 while the process works),
//! `/readyz` (200 when ready, 503 with one reason a line when not, or draining).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::drain::Drain;

/// Conditions that must hold before the daemon is ready; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<Vec<String>>>,
}

impl Readiness {
    /// Declares a condition that does not hold yet, "topology".
    pub fn expect(&self, condition: &str) {
        let _ = condition;
        todo!()
    }

    /// The condition holds now.
    pub fn hold(&self, condition: &str) {
        let _ = condition;
        todo!()
    }

    /// Conditions that do not hold.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let _ = &self.waiting;
        todo!()
    }
}

/// Serves the admin port until the drain has ended (it still answers while draining, `/readyz` with 503).
/// `more` is merged in: a daemon's own admin routes. Returns the bound address (port 0 asks for a free one).
///
/// # Errors
///
/// When the address cannot be bound.
pub async fn serve(
    listen: SocketAddr,
    registry: prometheus::Registry,
    readiness: Readiness,
    drain: &Drain,
    more: axum::Router,
) -> std::io::Result<SocketAddr> {
    let _ = (listen, registry, readiness, drain, more);
    todo!()
}
