//! More clients than a sun can serve: each asks again as soon as it is answered, so answers take the longer the more they are.

use tokio::runtime::{Builder, Runtime};

use super::network::Machine;
use crate::certificates::Authority;
use crate::visitors::{Target, Visitors};

/// A crowd; it goes when dropped, whatever it still waits for.
#[derive(Debug)]
pub struct Crowd {
    runtime: Option<Runtime>,
    _visitors: Visitors,
}

impl Crowd {
    /// Has it come to a machine and ask.
    ///
    /// # Panics
    ///
    /// When the machine cannot be entered.
    #[must_use]
    pub fn start(machine: &Machine, authority: &Authority, target: &Target) -> Self {
        // Its threads are where the one is that starts them.
        let runtime = machine.inside(|| Builder::new_multi_thread().worker_threads(THREADS).enable_all().build());
        let runtime = runtime.expect("a runtime");
        let context = runtime.enter();
        let visitors = Visitors::start(authority, target, COUNTS);
        drop(context);
        Self { runtime: Some(runtime), _visitors: visitors }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// HTTP/1.1 and HTTP/2 on connections that are kept, and new connections, each with a handshake.
const COUNTS: [usize; 3] = [300, 300, 600];

/// More than cores: the sun is to be what is waited for.
const THREADS: usize = 4;
