//! Which requests for a hot file its owner passes on to a sibling, by `307` (RFC 9110, section 15.4.8). Pure.
//!
//! Links that were handed out before a file got hot name its owner alone, and pages keep them for minutes. The owner
//! takes what leaves it as loaded as the mean of the region, and passes the rest on:
//!
//! ```text
//!     served + passed on, per second      share passed on = (all - expected) / what it owns of hot files
//!   |##########|..................|
//!   0      expected              all       expected = mean of the region's suns, by weight (requests) or card (bits)
//! ```
//!
//! All of it is counted before anything is passed on, so the share does not depend on the last one and cannot swing.
//! While the region's mean is not known, each of the `r` suns gets a part: the share is `1 - 1/r`.
//!
//! # Why it cannot loop
//!
//! Only the first of a file's order passes on, and only to others of that order. Two suns go by one order when they go
//! by one topology, so whoever is asked next is not first and serves. Topologies spread within a second; meanwhile two
//! suns may go by different ones. Therefore a sun passes on only what it is first for by *every* topology of its last
//! ten minutes ([`crate::sources::History`]): if two suns have a version in common they cannot both be first. Two that have none
//! in common (one was cut off for that long) end at the client's own bound on redirects, unless the gauges end it
//! first: nobody passes on who is no busier than the mean. What comes from a server is never passed on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use geo::{ContentId, Scheme};
use popularity_api::balance;

/// What is passed on until the next turn, by the first 8 bytes of content ids.
#[derive(Debug, Default)]
pub struct Passing {
    files: HashMap<u64, Shared>,
}

/// A hot file of this sun.
#[derive(Debug)]
pub struct Shared {
    /// Share of requests that are passed on, 0..=1.
    pub share: f64,
    /// Suns that keep it as well, at least one.
    pub siblings: Vec<Sibling>,
    /// How busy they are, in the same order.
    pub busy: Vec<f64>,
    /// Requests passed on since the turn.
    pub passed: AtomicU64,
}

/// A sun that keeps a hot file as well.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sibling {
    /// Its name.
    pub server: String,
    /// The file's address there with TLS.
    pub https: Option<String>,
    /// And without.
    pub http: Option<String>,
}

impl Passing {
    /// Passes these on.
    #[must_use]
    pub const fn new(files: HashMap<u64, Shared>) -> Self {
        Self { files }
    }

    /// The address at a sibling that a client's request is passed on to; none: serve it. `draw` gives random numbers
    /// below its argument.
    pub fn on(&self, content: ContentId, scheme: Scheme, draw: &mut impl FnMut(usize) -> usize) -> Option<&str> {
        let shared = self.files.get(&content.prefix())?;
        if balance::fraction(draw) >= shared.share {
            return None;
        }
        let sibling = &shared.siblings[balance::choose(&shared.busy, draw)];
        let address = match scheme {
            Scheme::Https => sibling.https.as_deref(),
            Scheme::Http => sibling.http.as_deref(),
        };
        // One without a port for the scheme takes nothing over.
        let address = address?;
        shared.passed.fetch_add(1, Ordering::Relaxed);
        Some(address)
    }

    /// Requests passed on of each file since the turn.
    #[must_use]
    pub fn passed(&self) -> HashMap<u64, u64> {
        let passed = self.files.iter().map(|(&prefix, shared)| (prefix, shared.passed.load(Ordering::Relaxed)));
        passed.filter(|&(_, passed)| passed > 0).collect()
    }

    /// Files that are passed on in part.
    pub fn iter(&self) -> impl Iterator<Item = (&u64, &Shared)> {
        self.files.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_passed_on_to_the_less_busy() {
        let passing = passing(0.75);
        check(&passing, "c1/a", Scheme::Https, &[(3 << 18) - 1, 0, 0, 1 << 19], "https://two/");
        check(&passing, "c1/a", Scheme::Https, &[3 << 18], "-");
        check(&passing, "c1/b", Scheme::Https, &[], "-");
        check(&passing, "c1/a", Scheme::Http, &[0, 1, 0, 1 << 19], "-"); // Only one of them speaks plain HTTP.
        check(&passing, "c1/a", Scheme::Http, &[0, 0, 0, (1 << 20) - 1], "http://one/");
        assert_eq!(passing.passed(), HashMap::from([(content("c1/a").prefix(), 2)]));
    }

    #[test]
    fn nothing_is_passed_on_at_first() {
        check(&Passing::default(), "c1/a", Scheme::Https, &[], "-");
    }

    #[track_caller]
    fn check(passing: &Passing, file: &str, scheme: Scheme, draws: &[usize], expected: &str) {
        let mut draws = draws.iter().copied();
        let address = passing.on(content(file), scheme, &mut |_| draws.next().unwrap());
        assert_eq!(address.unwrap_or("-"), expected, "{file}");
    }

    fn passing(share: f64) -> Passing {
        let one =
            Sibling { server: "one".into(), https: Some("https://one/".into()), http: Some("http://one/".into()) };
        let two = Sibling { server: "two".into(), https: Some("https://two/".into()), http: None };
        let shared = Shared { share, siblings: vec![one, two], busy: vec![1.2, 1.0], passed: AtomicU64::new(0) };
        Passing::new(HashMap::from([(content("c1/a").prefix(), shared)]))
    }

    fn content(file: &str) -> ContentId {
        geo::CanonicalName::parse(file).unwrap().content_id()
    }
}
