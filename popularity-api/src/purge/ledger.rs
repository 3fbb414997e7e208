//! The log, with what follows from it for this API: who goes by it, and what is not wanted or linked any more.
//!
//! - A file that was purged hard, by name or by its folder, is **not wanted** by any cache that the purge is for until
//!   somebody downloads it again, and a download counts only [`SETTLED_MS`] after the purge: what was under way
//!   then is reported late. Downloads after that show that the content server still gives the file. A batch tells its age,
//!   so that one which waited in a spool since before the purge neither revives the file nor counts for it.
//! - A cache that has not acknowledged such a purge **does not count as a holder** of the file, in links and as a
//!   source for other caches. Once it has, its holdings are right again.
//!
//! Purges by tag change neither: the API does not know tags. Caches drop such files, say so, and fetch anew from the content
//! server if they are still wanted.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use geo::topology::Topology;
use geo::{CanonicalName, ContentId, RegionId};
use tokio::sync::watch;

use super::log::{Ahead, Log, PostError};
use super::rules::{RULES_MAX, Rules, Subject};
use super::target::Target;
use crate::wire::{Purge, PurgeAcknowledgements, PurgeLog, PurgeMode, PurgeRequest, PurgeServer, PurgeState};

/// See the module's doc. Shared by reference.
#[derive(Debug)]
pub struct Ledger {
    log: Log,
    /// Ticks with every new entry.
    latest: watch::Sender<u64>,
    /// Of the fleet, under none, and of each region.
    rules: RwLock<HashMap<Option<RegionId>, Arc<Rules>>>,
    followers: Mutex<HashMap<String, Heard>>,
    revived: Mutex<HashSet<ContentId>>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    applied: u64,
    at_ms: u64,
}

impl Ledger {
    /// Takes up what the log has.
    #[must_use]
    pub fn new(log: Log) -> Self {
        let (rules, latest) = (RwLock::default(), watch::Sender::new(log.latest()));
        let ledger = Self { log, latest, rules, followers: Mutex::default(), revived: Mutex::default() };
        ledger.log.for_each(|purge| ledger.take(purge));
        ledger
    }

    /// Appends a purge; see [`Log::post`]. The entry, and whether it is new.
    ///
    /// # Errors
    ///
    /// [`PostError`].
    pub fn post(&self, request: PurgeRequest, now_ms: u64) -> Result<(Purge, bool), PostError> {
        let (purge, new) = self.log.post(request, now_ms)?;
        if new {
            self.take(&purge);
            self.latest.send_replace(self.log.latest());
        }
        Ok((purge, new))
    }

    /// Takes over what the other API's log says, at a replica; see [`Log::follow`].
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn follow(&self, told: &PurgeLog) -> std::io::Result<()> {
        let new = self.log.follow(told)?;
        if told.floor.is_some() {
            self.rules.write().unwrap_or_else(PoisonError::into_inner).clear();
            self.log.for_each(|purge| self.take(purge));
        } else {
            new.iter().for_each(|purge| self.take(purge));
        }
        self.latest.send_replace(self.log.latest());
        Ok(())
    }

    /// What a replica goes by; see [`Log::position`].
    #[must_use]
    pub fn position(&self) -> u64 {
        self.log.position()
    }

    /// The purges that a server goes by, if it has said.
    #[must_use]
    pub fn applied(&self, server: &str) -> Option<u64> {
        self.followers().get(server).map(|heard| heard.applied)
    }

    /// What a follower gets; see [`Log::after`].
    ///
    /// # Errors
    ///
    /// [`Ahead`].
    pub fn after(&self, after: u64) -> Result<PurgeLog, Ahead> {
        self.log.after(after)
    }

    /// Resolves when there is an entry behind `after`.
    pub async fn behind(&self, after: u64) {
        // The sender lives in this ledger.
        let _ = self.latest.subscribe().wait_for(|latest| *latest > after).await;
    }

    /// A server said that it goes by everything up to `applied`. `now_ms` on any scale that only rises.
    pub fn acknowledge(&self, server: &str, applied: u64, now_ms: u64) {
        self.followers().insert(server.to_owned(), Heard { applied, at_ms: now_ms });
    }

    /// Who goes by a purge; nothing when it is not in the log.
    #[must_use]
    pub fn acknowledgements(&self, sequence: u64, topology: &Topology, now_ms: u64) -> Option<PurgeAcknowledgements> {
        let purge = self.log.entry(sequence)?;
        let followers = self.followers();
        let regions = topology.regions.iter().filter(|region| purge.region.is_none_or(|meant| meant == region.id));
        let names = regions.flat_map(|region| {
            let suns = region.suns.iter().map(|sun| &sun.server.name);
            suns.chain(region.caches.iter().map(|cache| &cache.server.name))
        });
        let server = |name: &String| {
            let heard = followers.get(name);
            let state = match heard {
                Some(heard) if heard.applied >= sequence => PurgeState::Applied,
                Some(heard) if now_ms.saturating_sub(heard.at_ms) < SILENT_MS => PurgeState::Waiting,
                _ => PurgeState::Silent,
            };
            PurgeServer { server: name.clone(), state, applied: heard.map(|heard| heard.applied) }
        };
        let mut servers: Vec<PurgeServer> = names.map(server).collect();
        servers.sort_by(|a, b| a.server.cmp(&b.server));
        Some(PurgeAcknowledgements { sequence, servers })
    }

    /// Whether caches of the region are not to carry the file.
    #[must_use]
    pub fn unwanted(&self, region: RegionId, name: &str, content: ContentId) -> bool {
        self.purged_at(region, name, content) > 0 && !self.revived().contains(&content)
    }

    /// Whether what the cache said of holding the file is from before a purge that it does not go by yet.
    #[must_use]
    pub fn doubted(&self, cache: &str, region: RegionId, name: &str, content: ContentId) -> bool {
        let sequence = self.purged_at(region, name, content);
        sequence > 0 && self.followers().get(cache).is_none_or(|heard| heard.applied < sequence)
    }

    /// The file was downloaded at `at_ms` or before (milliseconds since 1970). False: it was purged after that.
    pub fn downloaded(&self, region: RegionId, name: &str, at_ms: u64) -> bool {
        if self.log.latest() == 0 {
            return true;
        }
        let Ok(name) = CanonicalName::from_written(name) else { return true };
        let sequence = self.purged_at(region, name.as_str(), name.content_id());
        if sequence == 0 {
            return true;
        }
        // An entry that is no longer kept is old enough.
        let since_ms = self.log.entry(sequence).map_or(Some(SETTLED_MS), |purge| at_ms.checked_sub(purge.at_ms));
        if since_ms.is_some_and(|since_ms| since_ms >= SETTLED_MS) {
            let mut revived = self.revived();
            if revived.len() < REVIVED_MAX {
                revived.insert(name.content_id());
            }
        }
        since_ms.is_some()
    }

    /// The last sequence; 0 while there was none.
    #[must_use]
    pub fn latest(&self) -> u64 {
        self.log.latest()
    }

    /// Sequence of the latest hard purge of the file by name or folder; 0: none.
    fn purged_at(&self, region: RegionId, name: &str, content: ContentId) -> u64 {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let of =
            |region| rules.get(&region).map_or(0, |rules| rules.matching(Subject { name, content, tags: &[] }).hard);
        of(None).max(of(Some(region)))
    }

    fn take(&self, purge: &Purge) {
        let Ok(target) = Target::parse(purge.what, &purge.value) else { return };
        if purge.mode == PurgeMode::Hard && !matches!(target, Target::Tag(_)) {
            match &target {
                Target::File(_) => {
                    let mut revived = self.revived();
                    target.files().for_each(|name| {
                        revived.remove(&name.content_id());
                    });
                }
                // Which of the revived ones lie in the folder is not known: all have to be downloaded once more.
                Target::Prefix(_) => self.revived().clear(),
                Target::Tag(_) => {}
            }
        }
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let of_region = rules.entry(purge.region).or_insert_with(|| Arc::new(Rules::new(RULES_MAX)));
        of_region.apply(purge.sequence, &target, purge.mode);
    }

    // Entries of maps are replaced one by one: what a panic leaves behind is still a map.
    fn followers(&self) -> MutexGuard<'_, HashMap<String, Heard>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn revived(&self) -> MutexGuard<'_, HashSet<ContentId>> {
        self.revived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long after a purge downloads of what was there before it are still reported, milliseconds: servers report each
/// second, and an unfinished response may go on for a while. Too small: a file that was taken down is carried once
/// more, in vain. Too large: one that was replaced is carried late.
pub const SETTLED_MS: u64 = 10_000;

/// A follower that has not asked for so long is silent, milliseconds: three times the longest wait for an answer.
pub const SILENT_MS: u64 = 15_000;

/// Purged files that may be carried again; beyond it further ones are not. 32 bytes each.
const REVIVED_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::topology;
    use crate::wire::PurgeWhat;

    #[test]
    fn who_answered_and_who_did_not_is_named() {
        let (_place, ledger) = ledger();
        let sequence = post(&ledger, "a", PurgeWhat::File, "c1/a", None, 0);
        ledger.acknowledge("sun4-1-1", sequence, 0);
        ledger.acknowledge("sun4-1-2", sequence - 1, 0);
        check(
            &ledger,
            sequence,
            0,
            "cache4-1 silent, cache4-2 silent, cache5-1 silent, cache6-1 silent, sun4-1-1 applied, \
             sun4-1-2 waiting, sun4-1-3 silent, sun5-1-1 silent, sun6-1-1 silent",
        );
        let of_one = post(&ledger, "b", PurgeWhat::File, "c1/a", Some(5), 0);
        check(&ledger, of_one, 0, "cache5-1 silent, sun5-1-1 silent");
        let four = post(&ledger, "c", PurgeWhat::File, "c1/a", Some(4), 0);
        ledger.acknowledge("sun4-1-1", four, 0);
        check(
            &ledger,
            four,
            SILENT_MS,
            "cache4-1 silent, cache4-2 silent, sun4-1-1 applied, sun4-1-2 silent, sun4-1-3 silent",
        );
        assert_eq!(ledger.acknowledgements(four + 1, &topology(), 0), None);
    }

    #[test]
    fn what_was_purged_is_not_wanted_until_it_is_downloaded_again() {
        let (_place, ledger) = ledger();
        let unwanted = |region, file| ledger.unwanted(RegionId(region), file, content(file));
        assert!(!unwanted(4, "c1/a/b"));
        post(&ledger, "a", PurgeWhat::Prefix, "c1/a/", Some(4), 1000);
        assert!(unwanted(4, "c1/a/b") && !unwanted(5, "c1/a/b") && !unwanted(4, "c1/b"));
        assert!(!ledger.downloaded(RegionId(4), "c1/a/b", 999), "from before the purge");
        assert!(ledger.downloaded(RegionId(5), "c1/a/b", 999), "there it was not purged");
        assert!(ledger.downloaded(RegionId(4), "c1/a/b", 1000 + SETTLED_MS - 1));
        assert!(unwanted(4, "c1/a/b"), "it may have begun before");
        assert!(ledger.downloaded(RegionId(4), "c1/a/b", 1000 + SETTLED_MS));
        assert!(!unwanted(4, "c1/a/b") && unwanted(4, "c1/a/c"));
        post(&ledger, "b", PurgeWhat::File, "c1/a/b", None, 90_000);
        assert!(unwanted(4, "c1/a/b") && unwanted(5, "c1/a/b"));
    }

    #[test]
    fn a_soft_purge_and_one_by_tag_take_nothing_away() {
        let (_place, ledger) = ledger();
        post(&ledger, "a", PurgeWhat::Tag, "news", None, 0);
        let soft = PurgeRequest { mode: PurgeMode::Soft, ..request("b", PurgeWhat::File, "c1/a", None) };
        ledger.post(soft, 0).unwrap();
        assert!(!ledger.unwanted(RegionId(4), "c1/a", content("c1/a")));
        assert!(!ledger.doubted("cache4-1", RegionId(4), "c1/a", content("c1/a")));
    }

    #[test]
    fn a_cache_holds_nothing_that_was_purged_until_it_says_that_it_knows() {
        let (_place, ledger) = ledger();
        let doubted = |cache, file| ledger.doubted(cache, RegionId(4), file, content(file));
        assert!(!doubted("cache4-1", "c1/a"));
        let sequence = post(&ledger, "a", PurgeWhat::File, "c1/a", None, 0);
        assert!(doubted("cache4-1", "c1/a") && !doubted("cache4-1", "c1/b"));
        ledger.acknowledge("cache4-1", sequence - 1, 0);
        assert!(doubted("cache4-1", "c1/a"));
        ledger.acknowledge("cache4-1", sequence, 0);
        assert!(!doubted("cache4-1", "c1/a") && doubted("cache4-2", "c1/a"));
    }

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let place = tempfile::tempdir().unwrap();
        let log = Log::open(&place.path().join("purges"), 1000, 100).unwrap();
        (place, Ledger::new(log))
    }

    fn request(id: &str, what: PurgeWhat, value: &str, region: Option<u16>) -> PurgeRequest {
        let region = region.map(RegionId);
        PurgeRequest { id: id.to_owned(), what, value: value.to_owned(), mode: PurgeMode::Hard, region }
    }

    fn post(ledger: &Ledger, id: &str, what: PurgeWhat, value: &str, region: Option<u16>, now_ms: u64) -> u64 {
        ledger.post(request(id, what, value, region), now_ms).unwrap().0.sequence
    }

    fn content(file: &str) -> ContentId {
        CanonicalName::parse(file).unwrap().content_id()
    }

    #[track_caller]
    fn check(ledger: &Ledger, sequence: u64, now_ms: u64, expected: &str) {
        let found = ledger.acknowledgements(sequence, &topology(), now_ms).unwrap();
        let state = |server: &PurgeServer| format!("{} {:?}", server.server, server.state).to_lowercase();
        assert_eq!(found.servers.iter().map(state).collect::<Vec<_>>().join(", "), expected);
    }
}
