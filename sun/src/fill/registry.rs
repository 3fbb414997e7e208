//! Which fills are under way: one per missing piece, however many wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use geo::ContentId;

use crate::fill::plan::Plan;
use crate::fill::{Fill, Reader};
use crate::sources::Source;

/// Fills under way, by file.
#[derive(Debug, Default)]
pub struct Registry {
    fills: Mutex<HashMap<ContentId, Vec<Arc<Fill>>>>,
}

/// What a request needs of a fill.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// To know what the file is; nothing is held of it.
    Head,
    /// The byte at a position of a version.
    Byte {
        /// The version.
        generation: u64,
        /// The position.
        position: u64,
    },
}

/// How a request got its bytes.
#[derive(Debug)]
pub enum Joined<T> {
    /// A fill was under way.
    Joined(Reader),
    /// A new one: the caller runs its task.
    Started(Reader),
    /// A fill ended meanwhile and left this in the tiers.
    Held(T),
}

/// The fills of one file, for a new one that should not bring what they bring.
#[derive(Clone, Copy, Debug)]
pub struct UnderWay<'a> {
    fills: &'a [Arc<Fill>],
    direct: bool,
}

impl UnderWay<'_> {
    /// Whether the byte at `position` of a version comes soon by a fill that the newcomer may join.
    #[must_use]
    pub fn brings(&self, generation: u64, position: u64) -> bool {
        self.fills.iter().any(|fill| (fill.direct || !self.direct) && fill.brings(generation, position))
    }
}

impl Registry {
    /// Joins a fill that meets the need, or begins one; `begin` gives its plan and its sources, and is told what
    /// else is under way. Whoever asks without `direct` may join any; with it, only one that asks no sun (and the
    /// sources that `begin` gives have none). `held` looks at the tiers once more under the registry's lock: a
    /// fill leaves the registry only after its bytes are in the tiers, so nothing is fetched twice for having
    /// looked too early.
    pub fn join<T>(
        &self,
        content: ContentId,
        need: Need,
        direct: bool,
        held: impl FnOnce() -> Option<T>,
        begin: impl FnOnce(UnderWay<'_>) -> (Plan, Vec<Source>),
    ) -> Joined<T> {
        let mut fills = self.lock();
        let under_way = fills.entry(content).or_default();
        let meets = |fill: &&Arc<Fill>| {
            (fill.direct || !direct)
                && match need {
                    Need::Head => fill.tells(),
                    Need::Byte { generation, position } => fill.brings(generation, position),
                }
        };
        if let Some(fill) = under_way.iter().find(meets) {
            return Joined::Joined(Reader::new(Arc::clone(fill)));
        }
        if let Some(held) = held() {
            if under_way.is_empty() {
                fills.remove(&content);
            }
            return Joined::Held(held);
        }
        let (plan, sources) = begin(UnderWay { fills: under_way, direct });
        let fill = Arc::new(Fill::new(content, plan, sources));
        debug_assert!(fill.direct || !direct, "a request of a server asks no sun");
        under_way.push(Arc::clone(&fill));
        Joined::Started(Reader::new(fill))
    }

    /// Takes fills of a file out that nobody is to join any more; they go on.
    pub fn part(&self, content: ContentId, parts: impl Fn(&Fill) -> bool) {
        let mut fills = self.lock();
        if let Some(under_way) = fills.get_mut(&content) {
            under_way.retain(|fill| !parts(fill));
            if under_way.is_empty() {
                fills.remove(&content);
            }
        }
    }

    /// The fill has left its bytes in the tiers, or failed.
    pub fn leave(&self, fill: &Arc<Fill>) {
        let mut fills = self.lock();
        if let Some(under_way) = fills.get_mut(&fill.content) {
            under_way.retain(|other| !Arc::ptr_eq(other, fill));
            if under_way.is_empty() {
                fills.remove(&fill.content);
            }
        }
    }

    /// Leaves the rest from `position` on to another fill that brings it soon, if there is one that was answered
    /// and that all readers of this one may join. The fill leaves the registry in the same breath, so that of two fills that meet,
    /// one goes on.
    pub fn yields(&self, fill: &Arc<Fill>, generation: u64, position: u64) -> bool {
        let mut fills = self.lock();
        let Some(under_way) = fills.get_mut(&fill.content) else { return false };
        let others = under_way.iter().filter(|other| !Arc::ptr_eq(other, fill) && (other.direct || !fill.direct));
        let yields = others.into_iter().any(|other| other.answered() && other.brings(generation, position));
        if yields {
            under_way.retain(|other| !Arc::ptr_eq(other, fill));
        }
        yields
    }

    /// Files that are being filled.
    #[cfg(test)]
    fn files(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContentId, Vec<Arc<Fill>>>> {
        self.fills.lock().expect("no code that holds this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::EXTENT_BYTES as MIB;
    use crate::fill::Opened;
    use crate::meta::Meta;

    #[test]
    fn a_second_request_joins_and_the_last_leave_empties_the_registry() {
        let registry = Registry::default();
        let first = started(registry.join(content(), Need::Head, false, nothing, whole));
        assert!(matches!(registry.join(content(), Need::Head, false, nothing, whole), Joined::Joined(_)));
        assert_eq!(registry.files(), 1);
        registry.leave(first.fill());
        assert_eq!(registry.files(), 0);
    }

    #[test]
    fn a_request_from_a_sun_never_joins_a_fill_that_may_ask_a_sun() {
        let registry = Registry::default();
        let open = started(registry.join(content(), Need::Head, false, nothing, whole));
        let direct = started(registry.join(content(), Need::Head, true, nothing, |_| (Plan::Whole, Vec::new())));
        assert!(!open.fill().direct && direct.fill().direct);
        registry.leave(open.fill());
        // The other way round is fine: a direct fill waits for no sun.
        assert!(matches!(registry.join(content(), Need::Head, false, nothing, whole), Joined::Joined(_)));
    }

    #[test]
    fn a_byte_that_a_fill_brings_only_much_later_gets_its_own() {
        let registry = Registry::default();
        let span = |_: UnderWay<'_>| (missing(0, u64::MAX), Vec::new());
        let _first = started(registry.join(content(), Need::Head, false, nothing, span));
        let near = Need::Byte { generation: 2, position: MIB };
        assert!(matches!(registry.join(content(), near, false, nothing, span), Joined::Joined(_)));
        let far = Need::Byte { generation: 2, position: 100 * MIB };
        assert!(matches!(registry.join(content(), far, false, nothing, span), Joined::Started(_)));
    }

    #[test]
    fn what_came_into_the_tiers_meanwhile_is_not_fetched_again() {
        let registry = Registry::default();
        let joined = registry.join(content(), Need::Head, false, || Some(7), whole);
        assert!(matches!(joined, Joined::Held(7)));
        assert_eq!(registry.files(), 0);
    }

    fn started(joined: Joined<()>) -> Reader {
        match joined {
            Joined::Started(reader) => reader,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_peer_joins_a_clients_fill_that_asks_no_sun() {
        let registry = Registry::default();
        let owner = started(registry.join(content(), Need::Head, false, nothing, |_| (Plan::Whole, Vec::new())));
        assert!(owner.fill().direct);
        assert!(matches!(registry.join(content(), Need::Head, true, nothing, whole), Joined::Joined(_)));
    }

    #[test]
    fn a_reader_of_one_version_joins_no_fill_that_may_bring_another() {
        let registry = Registry::default();
        let _cold = started(registry.join(content(), Need::Head, false, nothing, whole));
        let byte = Need::Byte { generation: 1, position: 0 };
        assert!(matches!(registry.join(content(), byte, false, nothing, whole), Joined::Started(_)));
    }

    #[test]
    fn a_newcomer_does_not_learn_the_version_from_a_fill_that_continues_one() {
        let registry = Registry::default();
        let continued = |_: UnderWay<'_>| (missing(0, u64::MAX), Vec::new());
        let _old = started(registry.join(content(), Need::Head, false, nothing, continued));
        assert!(matches!(registry.join(content(), Need::Head, false, nothing, whole), Joined::Started(_)));
    }

    #[test]
    fn a_fill_leaves_to_another_what_that_one_brings() {
        let registry = Registry::default();
        let begin = |start, end| move |_: UnderWay<'_>| (missing(start, end), Vec::new());
        let need = |position| Need::Byte { generation: 2, position };
        let first = started(registry.join(content(), need(0), false, nothing, begin(0, 50 * MIB)));
        let second = started(registry.join(content(), need(9 * MIB), false, nothing, begin(9 * MIB, 50 * MIB)));
        // What a third is told: only what comes soon counts as brought.
        let told = |under_way: UnderWay<'_>| {
            let brought = [0, 5, 9, 20].map(|at| under_way.brings(2, at * MIB));
            assert_eq!(brought, [true, false, true, false]);
            (missing(5 * MIB, 9 * MIB), Vec::new())
        };
        let _third = started(registry.join(content(), need(5 * MIB), false, nothing, told));

        assert!(!registry.yields(first.fill(), 2, 9 * MIB), "it was not answered: it may fail");
        let opened = Opened { end: 50 * MIB, ..Opened::of_medium(version()) };
        second.fill().open(opened, 9 * MIB);
        assert!(!registry.yields(first.fill(), 2, 7 * MIB), "nobody is there yet");
        assert!(!registry.yields(first.fill(), 1, 9 * MIB), "another version");
        assert!(registry.yields(first.fill(), 2, 9 * MIB));
        assert!(!registry.yields(second.fill(), 2, 0), "whoever has yielded brings nothing any more");
    }

    fn whole(_: UnderWay<'_>) -> (Plan, Vec<Source>) {
        (Plan::Whole, vec![Source::Sun { name: "sun4-1-1".into(), address: ([10, 0, 0, 1], 8081).into() }])
    }

    fn missing(start: u64, end: u64) -> Plan {
        Plan::missing(version(), start, end, |_| false)
    }

    fn version() -> Arc<Meta> {
        Arc::new(Meta::new(&http::HeaderMap::new(), Some(200 * MIB), 0, 0, 2))
    }

    fn nothing() -> Option<()> {
        None
    }

    fn content() -> ContentId {
        geo::CanonicalName::parse("c1/a").unwrap().content_id()
    }
}
