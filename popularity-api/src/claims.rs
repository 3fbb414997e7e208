//! Who is fetching what from its content server, so that no two caches do at a time. Pure: the time comes in,
//! milliseconds on any scale that only rises.
//!
//! ```text
//!   cache4-1: may I fetch c1/a?   yes                    --> content server --+
//!   cache5-1: may I fetch c1/a?   no, cache4-1 does                           |
//!   cache4-1: holdings +c1/a      <-------------------------------------------+
//!   cache5-1: wanted?             c1/a, from cache4-1    --> cache4-1
//! ```
//!
//! A claim ends when its cache says that it holds the file or that it failed, when the cache starts again or is gone, and
//! by itself after the time that a slow download takes, an hour at most. Nothing depends on it: a claim that is lost, with
//! the API or with its cache, costs one more fetch.

use std::collections::HashMap;

/// Fetches under way.
#[derive(Debug)]
pub struct Claims {
    /// By the first eight bytes of the content id.
    files: HashMap<u64, Claim>,
    claim_ms: u64,
}

#[derive(Clone, Debug)]
struct Claim {
    cache: String,
    until_ms: u64,
}

impl Claims {
    /// None; each lasts `claim_ms` and a second for each mebibyte, up to [`CLAIM_MAX_MS`].
    #[must_use]
    pub fn new(claim_ms: u64) -> Self {
        Self { files: HashMap::new(), claim_ms }
    }

    /// Claims a file for a cache. `lives`: whether a cache is still there to fetch what it claimed.
    ///
    /// # Errors
    ///
    /// The name of the cache that fetches it already.
    pub fn claim(
        &mut self,
        cache: &str,
        file: u64,
        size: u64,
        now_ms: u64,
        lives: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let holds = |claim: &&Claim| claim.cache != cache && now_ms < claim.until_ms && lives(&claim.cache);
        if let Some(claim) = self.files.get(&file).filter(holds) {
            return Err(claim.cache.clone());
        }
        if self.files.len() >= CLAIMS_MAX {
            self.files.retain(|_, claim| now_ms < claim.until_ms);
        }
        // Without room nobody waits: two fetches at a time are what claims are there to avoid, not to prevent.
        if self.files.len() < CLAIMS_MAX {
            let lasts_ms =
                self.claim_ms.saturating_add((size >> 20).saturating_mul(1000)).min(CLAIM_MAX_MS.max(self.claim_ms));
            let until_ms = now_ms.saturating_add(lasts_ms);
            self.files.insert(file, Claim { cache: cache.to_owned(), until_ms });
        }
        Ok(())
    }

    /// The cache holds the file, or could not fetch it.
    pub fn ended(&mut self, cache: &str, file: u64) {
        if self.files.get(&file).is_some_and(|claim| claim.cache == cache) {
            self.files.remove(&file);
        }
    }

    /// The cache started again, so nothing that it claimed before is under way.
    pub fn restarted(&mut self, cache: &str) {
        self.files.retain(|_, claim| claim.cache != cache);
    }
}

/// Fetches that are known to be under way; some 100 bytes each.
const CLAIMS_MAX: usize = 100_000;
/// Longest claim, milliseconds, unless the option says more. Too long: a file waits for a cache that lives and hangs. Too short: a file of 4 GiB and more
/// that comes slowly is fetched twice.
const CLAIM_MAX_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cache_at_a_time_fetches_a_file() {
        let mut claims = Claims::new(30_000);
        check(&mut claims, "a", 1, 0, "");
        check(&mut claims, "b", 1, 1, "a");
        check(&mut claims, "b", 2, 1, "");
        check(&mut claims, "a", 1, 2, "");
        claims.ended("b", 1);
        check(&mut claims, "b", 1, 3, "a");
        claims.ended("a", 1);
        check(&mut claims, "b", 1, 4, "");
        check(&mut claims, "a", 1, 5, "b");
    }

    #[test]
    fn a_claim_ends_after_the_time_of_a_slow_download() {
        let mut claims = Claims::new(30_000);
        assert_eq!(claims.claim("a", 1, 10 << 20, 0, |_| true), Ok(()));
        check(&mut claims, "b", 1, 39_999, "a");
        check(&mut claims, "b", 1, 40_000, "");
        assert_eq!(claims.claim("a", 2, u64::MAX, 0, |_| true), Ok(()));
        check(&mut claims, "b", 2, CLAIM_MAX_MS - 1, "a");
        check(&mut claims, "b", 2, CLAIM_MAX_MS, "");
    }

    #[test]
    fn nobody_waits_for_a_cache_that_is_gone_or_started_again() {
        let mut claims = Claims::new(30_000);
        check(&mut claims, "a", 1, 0, "");
        check(&mut claims, "a", 2, 0, "");
        assert_eq!(claims.claim("b", 1, 0, 1, |cache| cache != "a"), Ok(()));
        check(&mut claims, "c", 1, 2, "b");
        claims.restarted("a");
        check(&mut claims, "c", 1, 3, "b");
        check(&mut claims, "c", 2, 3, "");
    }

    #[test]
    fn claims_are_bounded_and_old_ones_make_room() {
        let mut claims = Claims::new(30_000);
        for file in 0..=CLAIMS_MAX as u64 {
            check(&mut claims, "a", file, 0, "");
        }
        assert_eq!(claims.files.len(), CLAIMS_MAX);
        check(&mut claims, "b", CLAIMS_MAX as u64, 1, "");
        check(&mut claims, "b", CLAIMS_MAX as u64, 30_000, "");
        check(&mut claims, "a", CLAIMS_MAX as u64, 30_001, "b");
    }

    #[track_caller]
    fn check(claims: &mut Claims, cache: &str, file: u64, now_ms: u64, fetching: &str) {
        assert_eq!(claims.claim(cache, file, 0, now_ms, |_| true).err().unwrap_or_default(), fetching);
    }
}
