//! What every simulated cache does, and how one is measured.

use rustix::time::{ClockId, clock_gettime};

use crate::trace::{Request, Trace};

/// A cache without bytes: it says whether it would have had them.
pub(crate) trait Policy {
    /// Asks for a file or block; a miss brings it in (or does not, as the policy likes). Whether it was a hit.
    fn request(&mut self, request: Request) -> bool;

    /// Bytes written to its medium so far: admissions and whatever is moved by copying.
    fn written_bytes(&self) -> u64;
}

/// What came of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Share of requests.
    pub(crate) request_hit_ratio: f64,
    /// Share of bytes.
    pub(crate) byte_hit_ratio: f64,
    /// Bytes written per byte served, hit or not; none where nothing is known of it.
    pub(crate) written_per_served: Option<f64>,
    /// Nanoseconds of CPU, lookup and eviction and all; none where it means nothing.
    pub(crate) cpu_ns_per_request: Option<f64>,
}

/// Runs a whole trace through a cache that begins empty.
pub(crate) fn run(trace: &Trace, policy: &mut dyn Policy) -> Outcome {
    let (mut hits, mut hit_bytes, mut bytes) = (0_u64, 0_u64, 0_u64);
    let begun = thread_cpu_ns();
    for request in &trace.requests {
        bytes += request.size;
        if policy.request(*request) {
            hits += 1;
            hit_bytes += request.size;
        }
    }
    let cpu_ns = thread_cpu_ns() - begun;
    let requests = trace.requests.len() as f64;
    Outcome {
        request_hit_ratio: hits as f64 / requests,
        byte_hit_ratio: hit_bytes as f64 / bytes as f64,
        written_per_served: Some(policy.written_bytes() as f64 / bytes as f64),
        cpu_ns_per_request: Some(cpu_ns / requests),
    }
}

/// CPU time of this thread: what others do on the machine does not count.
fn thread_cpu_ns() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}
