//! Reading ahead of clients that ask for a file in successive ranges, as players do.
//!
//! ```text
//!   request   [0..1)   [1..2)   [2..3)   [3..4)   ...  [9..10)          (MiB, all of one client)
//!   window       0        2        2        4             0  it jumped
//!   fetched      -      2..4     4..5     5..8            -
//! ```
//!
//! Every range is a request of its own, so each would wait for the content server anew. A client whose range goes
//! on where its last one ended has the next extents fetched: one, two, four and so on up to a bound, and never
//! more than it has read in sequence. A client that stops asking leaves at most that many bytes that nobody
//! wanted. Whoever jumps begins again.
//!
//! What is remembered is one [`Sequence`] in a table of fixed size, by a hash of client, file and version; two
//! that fall on the same place push each other out, which costs only speed. Nothing is read ahead while the
//! content server is in trouble or busy, or memory for fills is short: those who wait come first.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::edge::Edge;
use crate::extent::{self, EXTENT_BYTES};
use crate::fill::plan::Plan;
use crate::fill::registry::{Joined, Need, UnderWay};
use crate::fill::{WINDOW_BYTES_MAX, task};
use crate::meta::Meta;
use crate::request::Lookup;

/// Who reads what in sequence; see the module's doc.
#[derive(Debug)]
pub struct Sequences {
    bytes_max: u64,
    hasher: std::hash::RandomState,
    table: Box<[Mutex<Option<Sequence>>]>,
}

/// One client's way through one file.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Sequence {
    key: u64,
    /// Where it began.
    began: u64,
    /// Where its last range ended.
    next: u64,
    /// What was fetched ahead and not asked for yet.
    ahead: Range<u64>,
    at_ms: u64,
}

/// What follows from a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ahead {
    /// To be fetched now: whole extents, but for the file's end.
    pub fetch: Range<u64>,
    /// Bytes of this request that had been fetched ahead for it.
    pub used: u64,
}

impl Sequences {
    /// At most `bytes_max` ahead of each client; 0: nothing is.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let table = (0..PLACES).map(|_| Mutex::default()).collect();
        Self { bytes_max, hasher: std::hash::RandomState::new(), table }
    }

    /// A client asks for `part` of a version of a file of `size` bytes.
    pub fn note(&self, who: (IpAddr, geo::ContentId, u64), part: &Range<u64>, size: u64, now_ms: u64) -> Ahead {
        let key = self.hasher.hash_one(who);
        let place = usize::try_from(key % PLACES as u64).expect("below the table's length");
        let mut place = self.table[place].lock().expect("no code that holds this lock panics");
        let known = place.as_mut().filter(|known| known.key == key && now_ms.saturating_sub(known.at_ms) < PAUSE_MS);
        let Some(sequence) = known else {
            *place = Some(Sequence { key, began: part.start, next: part.end, ahead: 0..0, at_ms: now_ms });
            return Ahead::default();
        };
        sequence.at_ms = now_ms;
        sequence.follow(part, size, self.bytes_max)
    }
}

impl Sequence {
    fn follow(&mut self, part: &Range<u64>, size: u64, bytes_max: u64) -> Ahead {
        let used = self.ahead.end.min(part.end).saturating_sub(self.ahead.start.max(part.start));
        let goes_on = part.start.abs_diff(self.next) <= SLACK_BYTES && part.end > self.next;
        self.next = part.end;
        if !goes_on {
            (self.began, self.ahead) = (part.start, 0..0);
            return Ahead { fetch: 0..0, used };
        }
        let extents_read = part.end.saturating_sub(self.began) / EXTENT_BYTES;
        let window = (1 << extents_read.max(1).ilog2()).min(bytes_max / EXTENT_BYTES) * EXTENT_BYTES;
        let reached = part.end.next_multiple_of(EXTENT_BYTES);
        let from = self.ahead.end.max(reached);
        let to = (reached + window).min(size);
        self.ahead.start = self.ahead.start.max(part.end);
        // Half a window at a time at least, so that neighbours are one question.
        if from >= to || (to < size && to - from < window / 2) {
            return Ahead { fetch: 0..0, used };
        }
        if self.ahead.start >= self.ahead.end {
            self.ahead.start = from;
        }
        self.ahead.end = to;
        Ahead { fetch: from..to, used }
    }
}

/// Notes a client's request for `part` of a file, and begins to fetch what it will probably ask for next.
pub fn follow(edge: &Arc<Edge>, client: IpAddr, request: &Lookup, meta: &Arc<Meta>, part: &Range<u64>) {
    let Some(size) = meta.size.filter(|size| *size > EXTENT_BYTES && edge.sequences.bytes_max > 0) else { return };
    let who = (client, request.content, meta.generation);
    let Ahead { fetch, used } = edge.sequences.note(who, part, size, edge.now_ms());
    edge.metrics.read_ahead_used.inc_by(used);
    let mut position = fetch.start;
    while position < fetch.end && spare(edge, request) {
        position = begin(edge, request, meta, position, fetch.end);
    }
}

/// Whether there is room for what nobody has asked for yet.
fn spare(edge: &Edge, request: &Lookup) -> bool {
    let content_server = request.name.content_server();
    let share = edge.share(request.site.as_deref(), &request.name);
    edge.trusts(content_server)
        && edge.in_flight.has_room(2 * WINDOW_BYTES_MAX)
        && edge.slots.try_enter(content_server, &share).is_some()
}

/// Has the first gap from `position` on fetched, unless it is there or on its way. Returns where to go on.
fn begin(edge: &Arc<Edge>, request: &Lookup, meta: &Arc<Meta>, position: u64, end: u64) -> u64 {
    let (content, generation) = (request.content, meta.generation);
    let is_held = |index| edge.has_extent(content, generation, index);
    let held = || is_held(extent::index_of(position)).then_some(());
    let plan = |under_way: UnderWay<'_>| {
        let here = |index| is_held(index) || under_way.brings(generation, extent::start_of(index));
        let plan = Plan::missing(Arc::clone(meta), position, end, here);
        (plan, edge.sources(&request.name, content, request.site.as_deref(), false))
    };
    match edge.fills.join(content, Need::Byte { generation, position }, false, held, plan) {
        Joined::Held(()) | Joined::Joined(_) => position + EXTENT_BYTES,
        Joined::Started(reader) => {
            let asked = reader.fill().plan.range().unwrap_or(position..end);
            edge.metrics.read_ahead.inc_by(asked.end - asked.start);
            tokio::spawn(task::run(Arc::clone(edge), Arc::clone(reader.fill()), request.errand()));
            asked.end.max(position + EXTENT_BYTES)
        }
    }
}

/// Sequences that are remembered, about 100 bytes each.
pub const PLACES: usize = 4096;
/// How far a range may begin from the end of the last one and still go on from it, bytes.
pub const SLACK_BYTES: u64 = 64 * 1024;
/// Whoever asks again only after so long begins anew, milliseconds.
pub const PAUSE_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = EXTENT_BYTES;

    #[test]
    fn the_window_grows_while_a_client_goes_on() {
        // In halves of MiB: what is asked for, what is then fetched (in MiB).
        check(&[(0, 1, ""), (1, 2, "1..2"), (2, 3, "2..3"), (3, 4, "3..4"), (4, 5, "4..5"), (5, 6, "")]);
        check(&[(0, 2, ""), (2, 4, "2..4"), (4, 6, "4..5"), (6, 8, "5..8"), (8, 10, ""), (10, 12, "8..10")]);
        // From the middle as well as from the start.
        check(&[(40, 42, ""), (42, 44, "22..24"), (44, 46, "24..25")]);
    }

    #[test]
    fn the_window_ends_at_its_bound_and_with_the_file() {
        let long: Vec<(u64, u64, &str)> =
            vec![(0, 16, ""), (16, 32, "16..32"), (32, 48, "32..40"), (48, 64, "40..48"), (64, 80, "48..56")];
        check(&long);
        check(&[(190, 192, ""), (192, 194, "97..99"), (194, 196, "99..100"), (196, 198, ""), (198, 200, "")]);
    }

    #[test]
    fn a_client_that_jumps_has_nothing_fetched_ahead() {
        check(&[(0, 2, ""), (100, 102, ""), (50, 52, ""), (0, 2, ""), (0, 2, "")]);
        check(&[(0, 2, ""), (2, 4, "2..4"), (100, 102, ""), (102, 104, "52..54")]);
        check(&[(2, 4, ""), (0, 2, "")]);
    }

    #[test]
    fn small_gaps_and_overlaps_are_no_jumps() {
        for (start, goes_on) in [(MIB - SLACK_BYTES, true), (MIB + SLACK_BYTES, true), (MIB + SLACK_BYTES + 1, false)] {
            let sequences = Sequences::new(16 * MIB);
            sequences.note(who(1), &(0..MIB), 100 * MIB, 0);
            let ahead = sequences.note(who(1), &(start..2 * MIB), 100 * MIB, 0);
            assert_eq!(!ahead.fetch.is_empty(), goes_on, "{start}");
        }
    }

    #[test]
    fn bytes_that_were_fetched_ahead_are_used_once() {
        let sequences = Sequences::new(16 * MIB);
        let note = |start, end| sequences.note(who(1), &(start * MIB..end * MIB), 100 * MIB, 0).used / MIB;
        let used = [note(0, 1), note(1, 2), note(2, 3), note(3, 4), note(4, 5), note(50, 51), note(51, 52)];
        assert_eq!(used, [0, 0, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn clients_files_and_versions_are_told_apart_and_pauses_end_a_sequence() {
        let sequences = Sequences::new(16 * MIB);
        let note = |who, start: u64, now_ms| {
            !sequences.note(who, &(start * MIB..(start + 1) * MIB), 100 * MIB, now_ms).fetch.is_empty()
        };
        assert!(!note(who(1), 0, 0));
        assert!(!note(who(2), 1, 0), "another client");
        assert!(!note((who(1).0, who(1).1, 4), 1, 0), "another version");
        assert!(note(who(1), 1, PAUSE_MS - 1));
        assert!(!note(who(1), 2, 2 * PAUSE_MS));
    }

    /// Requests of one client for a file of 100 MiB, in halves of MiB, each with what is then fetched, in MiB.
    #[track_caller]
    fn check(requests: &[(u64, u64, &str)]) {
        let sequences = Sequences::new(16 * MIB);
        for (start, end, expected) in requests {
            let ahead = sequences.note(who(1), &(start * MIB / 2..end * MIB / 2), 100 * MIB, 0);
            let found = if ahead.fetch.is_empty() {
                String::new()
            } else {
                format!("{}..{}", ahead.fetch.start / MIB, ahead.fetch.end / MIB)
            };
            assert_eq!(found, *expected, "{start}..{end} of {requests:?}");
        }
    }

    fn who(client: u8) -> (IpAddr, geo::ContentId, u64) {
        ([192, 0, 2, client].into(), geo::CanonicalName::parse("c1/a").unwrap().content_id(), 2)
    }
}
