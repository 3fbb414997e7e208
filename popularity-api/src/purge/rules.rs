//! Which stored responses are purged: the latest number of every file, prefix and tag that was.
//!
//! ```text
//!   files     content id    -> { hard 7, soft 9 }
//!   prefixes  "c1/photos/"  -> { hard 8 }               a response whose fill began at number 7:
//!   tags      hash          -> { soft 3 }                 hard 8 matches it -> gone; only soft 9 -> stale
//!   floor     everything that began before it -> gone
//! ```
//!
//! A lookup costs one load while nothing is newer than the response, else one probe a file and tag and one
//! for each `/` of the name. Accepting a rule is one insertion, whatever it covers.
//!
//! # Bounds
//!
//! Rules reach back [`RULES_MAX`] numbers, from when there were so many. What began before that is gone whether a rule matches it or not: a response
//! that outlives a quarter of a million purges is fetched once more. Entries below that floor are swept out shard by shard as
//! new ones come, so there are at most twice as many, about 100 bytes each and the text of prefixes.
//!
//! Why shards: a table of this size takes milliseconds to grow, and lookups would wait for it.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use geo::ContentId;

use super::target::{ANY_TAG, Target, tag_hash};
use crate::wire::PurgeMode;

/// See the module's doc. Shared by reference.
#[derive(Debug)]
pub struct Rules {
    files: Shards<ContentId>,
    prefixes: Shards<Box<str>>,
    tags: Shards<u64>,
    /// The latest rule by tag.
    any_tag: RwLock<Latest>,
    /// Number up to which rules are in force; stored after them.
    latest: AtomicU64,
    /// The first number; 0: none yet.
    first: AtomicU64,
    floor: AtomicU64,
    window: u64,
}

/// What rules match: a stored response, or one on its way.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Canonical name.
    pub name: &'a str,
    /// Its id.
    pub content: ContentId,
    /// [`tag_hash`] of its tags.
    pub tags: &'a [u64],
}

/// What becomes of a stored response.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// No purge since its fill began matches.
    Current,
    /// It is not served without asking.
    Stale,
    /// It counts as not stored.
    Gone,
}

/// Numbers of the latest rules that match something; 0: none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Latest {
    /// Hard ones.
    pub hard: u64,
    /// Soft ones.
    pub soft: u64,
}

impl Rules {
    /// No rules, reaching back `window` numbers (see [`RULES_MAX`]).
    #[must_use]
    pub fn new(window: u64) -> Self {
        Self {
            files: Shards::new(window),
            prefixes: Shards::new(window),
            tags: Shards::new(window),
            any_tag: RwLock::default(),
            latest: AtomicU64::new(0),
            first: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            window,
        }
    }

    /// Takes a rule in: in force when this returns. Numbers come in rising order; one that came before is ignored.
    pub fn apply(&self, number: u64, target: &Target, mode: PurgeMode) {
        if number <= self.latest() {
            return;
        }
        let floor = self.floor.load(Ordering::Acquire);
        match target {
            Target::File(_) => {
                target.files().for_each(|name| self.files.raise(name.content_id(), number, mode, floor));
            }
            Target::Prefix(_) => {
                target.prefixes().for_each(|prefix| self.prefixes.raise(prefix, number, mode, floor));
            }
            Target::Tag(tag) => {
                self.any_tag.write().unwrap_or_else(PoisonError::into_inner).raise(number, mode);
                self.tags.raise(tag_hash(tag), number, mode, floor);
            }
        }
        self.pass(number);
    }

    /// Goes by numbers up to this one, which were none of this server's.
    pub fn pass(&self, number: u64) {
        // Numbers need not begin at 1: the window is counted from the first.
        let first = self.first.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire);
        if number.saturating_sub(first.err().unwrap_or(number)) >= self.window {
            self.raise_floor(number - self.window);
        }
        self.latest.fetch_max(number, Ordering::AcqRel);
    }

    /// What began before this number is gone; fills that begin now count as begun at it.
    pub fn raise_floor(&self, number: u64) {
        self.floor.fetch_max(number, Ordering::AcqRel);
        self.latest.fetch_max(number, Ordering::AcqRel);
    }

    /// Number up to which rules are in force: what a fill that begins now remembers.
    #[must_use]
    pub fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// What began before it is gone.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Entries kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len() + self.prefixes.len() + self.tags.len()
    }

    /// Whether nothing was ever purged, nor passed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.latest() == 0
    }

    /// What becomes of a response whose fill began at `number`.
    #[must_use]
    pub fn verdict(&self, subject: Subject<'_>, number: u64) -> Verdict {
        // The floor is never above it.
        if number >= self.latest() {
            return Verdict::Current;
        }
        let latest = self.matching(subject);
        if latest.hard > number || self.floor() > number {
            Verdict::Gone
        } else if latest.soft > number {
            Verdict::Stale
        } else {
            Verdict::Current
        }
    }

    /// The latest rules that match, without the floor.
    #[must_use]
    pub fn matching(&self, subject: Subject<'_>) -> Latest {
        let mut latest = self.files.find(&subject.content);
        if self.prefixes.any() {
            let name = subject.name;
            let folders = name.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at + 1);
            for end in std::iter::once(0).chain(folders) {
                latest.join(self.prefixes.find(&name[..end]));
            }
        }
        if self.tags.any() {
            for tag in subject.tags {
                latest.join(match *tag {
                    ANY_TAG => *self.any_tag.read().unwrap_or_else(PoisonError::into_inner),
                    tag => self.tags.find(&tag),
                });
            }
        }
        latest
    }

    /// Number of the latest rule by tag: what a response without known tags may yet turn out to be purged by.
    #[must_use]
    pub fn latest_tag(&self) -> u64 {
        let latest = self.any_tag.read().unwrap_or_else(PoisonError::into_inner);
        latest.hard.max(latest.soft)
    }
}

impl Latest {
    fn raise(&mut self, number: u64, mode: PurgeMode) {
        let field = match mode {
            PurgeMode::Hard => &mut self.hard,
            PurgeMode::Soft => &mut self.soft,
        };
        *field = number.max(*field);
    }

    fn join(&mut self, other: Self) {
        self.hard = self.hard.max(other.hard);
        self.soft = self.soft.max(other.soft);
    }

    fn newest(self) -> u64 {
        self.hard.max(self.soft)
    }
}

/// A table in parts, so that no part takes long to grow or to be swept.
#[derive(Debug)]
struct Shards<K> {
    hasher: RandomState,
    parts: Box<[RwLock<HashMap<K, Latest>>]>,
    /// Entries that make a part be swept.
    part_max: usize,
    /// Insertions so far.
    inserted: AtomicU64,
}

impl<K: Eq + Hash> Shards<K> {
    fn new(window: u64) -> Self {
        let part_max = usize::try_from(window).unwrap_or(usize::MAX) / SHARDS * 2;
        let parts = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { hasher: RandomState::new(), parts, part_max: part_max.max(2), inserted: AtomicU64::new(0) }
    }

    fn raise(&self, key: K, number: u64, mode: PurgeMode, floor: u64) {
        let mut part = self.part(&key).write().unwrap_or_else(PoisonError::into_inner);
        if part.len() >= self.part_max {
            part.retain(|_, latest| latest.newest() > floor);
        }
        part.entry(key).or_default().raise(number, mode);
        drop(part);
        self.inserted.fetch_add(1, Ordering::Release);
    }

    fn find<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Latest
    where
        K: std::borrow::Borrow<Q>,
    {
        if !self.any() {
            return Latest::default();
        }
        self.part(key).read().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or_default()
    }

    fn any(&self) -> bool {
        self.inserted.load(Ordering::Acquire) > 0
    }

    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn part<Q: Hash + ?Sized>(&self, key: &Q) -> &RwLock<HashMap<K, Latest>> {
        #[expect(clippy::cast_possible_truncation, reason = "only the lowest bits count")]
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        &self.parts[index]
    }
}

/// Numbers that rules reach back. Fewer: long-lived files are fetched again because of purges that are not theirs. More: RAM, here
/// at most 50 MB when every one was of another file.
pub const RULES_MAX: u64 = 1 << 18;

const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use geo::CanonicalName;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::PurgeWhat;

    #[test]
    fn a_response_is_purged_by_what_came_after_its_fill_began() {
        let rules = rules(&["1 hard file c1/a/b.jpg", "2 soft file c1/a/b.jpg"]);
        check(&rules, "c1/a/b.jpg", &[], 0, Verdict::Gone);
        check(&rules, "c1/a/b.jpg", &[], 1, Verdict::Stale);
        check(&rules, "c1/a/b.jpg", &[], 2, Verdict::Current);
        check(&rules, "c1/a/c.jpg", &[], 0, Verdict::Current);
    }

    #[test]
    fn a_prefix_is_whole_segments() {
        let rules = rules(&["1 hard prefix c1/a"]);
        check(&rules, "c1/a/b/c.jpg", &[], 0, Verdict::Gone);
        check(&rules, "c1/a/b.jpg", &[], 0, Verdict::Gone);
        check(&rules, "c1/ab.jpg", &[], 0, Verdict::Current);
        check(&rules, "c1/a", &[], 0, Verdict::Current);
        check(&rules, "c1/a/b.jpg", &[], 1, Verdict::Current);
    }

    #[test]
    fn a_sites_file_is_purged_as_its_url_is_written() {
        let rules = rules(&["1 hard file c7/caf%c3%a9.jpg", "2 hard prefix c7/%61"]);
        let check = |name: &str, began, expected| {
            let name = CanonicalName::from_written(name).unwrap();
            let subject = Subject { name: name.as_str(), content: name.content_id(), tags: &[] };
            assert_eq!(rules.verdict(subject, began), expected, "{} {began}", name.as_str());
        };
        for (name, number) in [("c7/caf%c3%a9.jpg", 1), ("c7/caf%C3%A9.jpg", 1), ("c7/%61/x?y=1", 2), ("c7/a/x", 2)] {
            check(name, number - 1, Verdict::Gone);
            check(name, number, Verdict::Current);
        }
        check("c7/caf%C3%a9.jpg", 0, Verdict::Current);
    }

    #[test]
    fn the_empty_prefix_is_everything() {
        let rules = rules(&["1 soft prefix "]);
        check(&rules, "c1/a", &[], 0, Verdict::Stale);
        check(&rules, "c9/b/c/d", &[], 0, Verdict::Stale);
    }

    #[test]
    fn a_tag_reaches_all_that_have_it() {
        let rules = rules(&["1 hard tag news", "2 soft tag sport"]);
        check(&rules, "c1/a", &["sport", "news"], 0, Verdict::Gone);
        check(&rules, "c1/a", &["sport"], 0, Verdict::Stale);
        check(&rules, "c1/a", &["weather"], 0, Verdict::Current);
        check(&rules, "c1/a", &[], 0, Verdict::Current);
        assert_eq!(rules.latest_tag(), 2);
        let content = CanonicalName::parse("c1/a").unwrap().content_id();
        let overflown = Subject { name: "c1/a", content, tags: &[ANY_TAG] };
        assert_eq!(rules.verdict(overflown, 0), Verdict::Gone, "who has more tags than are kept has all");
    }

    #[test]
    fn what_began_before_the_floor_is_gone() {
        let rules = rules(&[]);
        rules.raise_floor(5);
        check(&rules, "c1/a", &[], 4, Verdict::Gone);
        check(&rules, "c1/a", &[], 5, Verdict::Current);
    }

    #[test]
    fn rules_are_bounded_and_what_falls_out_of_them_is_gone() {
        let rules = Rules::new(640);
        for number in 1..=100_000 {
            rules.apply(number, &Target::parse(PurgeWhat::File, &format!("c1/{number}")).unwrap(), PurgeMode::Soft);
        }
        assert!(rules.len() <= 2 * 640 + SHARDS, "{}", rules.len());
        check(&rules, "c1/untouched", &[], 100_000 - 641, Verdict::Gone);
        check(&rules, "c1/untouched", &[], 100_000 - 640, Verdict::Current);
        check(&rules, "c1/99999", &[], 99_998, Verdict::Stale);
    }

    #[test]
    fn numbers_that_begin_high_drop_nothing() {
        let rules = rules(&["1700000000000 hard file c1/a"]);
        check(&rules, "c1/b", &[], 0, Verdict::Current);
        check(&rules, "c1/a", &[], 0, Verdict::Gone);
        rules.pass(1_700_000_000_000 + RULES_MAX);
        check(&rules, "c1/b", &[], 0, Verdict::Gone);
    }

    #[test]
    fn a_number_that_came_before_changes_nothing() {
        let rules = rules(&["5 soft file c1/a"]);
        rules.apply(4, &Target::parse(PurgeWhat::File, "c1/a").unwrap(), PurgeMode::Hard);
        check(&rules, "c1/a", &[], 0, Verdict::Stale);
        assert_eq!(rules.latest(), 5);
    }

    proptest! {
        /// Model: every rule is remembered and compared with the response one by one.
        #[test]
        fn verdicts_are_those_of_a_list(
            purges in prop::collection::vec((0_u8..3, 0_u8..4, any::<bool>()), 0..40),
            file in 0_u8..4, folder in 0_u8..4, tag in 0_u8..4, began in 0_u64..40,
        ) {
            let rules = Rules::new(RULES_MAX);
            let mut list = Vec::new();
            for (number, (what, value, hard)) in (1..).zip(purges) {
                let (what, value) = match what {
                    0 => (PurgeWhat::File, format!("c1/{}/{value}", value % 2)),
                    1 => (PurgeWhat::Prefix, format!("c1/{value}/")),
                    _ => (PurgeWhat::Tag, value.to_string()),
                };
                let mode = if hard { PurgeMode::Hard } else { PurgeMode::Soft };
                rules.apply(number, &Target::parse(what, &value).unwrap(), mode);
                list.push((number, what, value, mode));
            }
            let (name, tag) = (format!("c1/{folder}/{file}"), tag.to_string());
            let expected = list.iter().filter(|(number, what, value, _)| *number > began && match what {
                PurgeWhat::File => *value == name,
                PurgeWhat::Prefix => name.starts_with(value.as_str()),
                PurgeWhat::Tag => *value == tag,
            });
            let expected = expected.map(|(.., mode)| match mode {
                PurgeMode::Hard => Verdict::Gone,
                PurgeMode::Soft => Verdict::Stale,
            });
            let expected = expected.max().unwrap_or(Verdict::Current);
            let content = CanonicalName::parse(&name).unwrap().content_id();
            let tags = [tag_hash(&tag)];
            prop_assert_eq!(rules.verdict(Subject { name: &name, content, tags: &tags }, began), expected);
        }
    }

    /// "1 hard prefix c1/a".
    fn rules(lines: &[&str]) -> Rules {
        let rules = Rules::new(RULES_MAX);
        for line in lines {
            let parts: Vec<&str> = line.splitn(4, ' ').collect();
            let mode = if parts[1] == "hard" { PurgeMode::Hard } else { PurgeMode::Soft };
            let what = match parts[2] {
                "file" => PurgeWhat::File,
                "prefix" => PurgeWhat::Prefix,
                _ => PurgeWhat::Tag,
            };
            rules.apply(parts[0].parse().unwrap(), &Target::parse(what, parts[3]).unwrap(), mode);
        }
        rules
    }

    #[track_caller]
    fn check(rules: &Rules, name: &str, tags: &[&str], began: u64, expected: Verdict) {
        let content = CanonicalName::parse(name).unwrap().content_id();
        let tags: Vec<u64> = tags.iter().map(|tag| tag_hash(tag)).collect();
        assert_eq!(rules.verdict(Subject { name, content, tags: &tags }, began), expected, "{name} {began}");
    }
}
