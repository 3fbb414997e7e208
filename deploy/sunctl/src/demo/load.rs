//! Visitors: clients of both regions that open pages and fetch what is on them, some files far more often
//! than others.
//!
//! ```text
//!   visitor 0: 127.4.0.1   visitor 1: 127.5.0.1   visitor 2: 127.4.0.2 ...
//!      |
//!      +-> choose files by rank (Zipf) -> POST /v1/links -> GET each link over https -> look around -> again
//! ```
//!
//! Each region has its own order of ranks, so its own favourites. Small files are fetched whole; of a
//! large one a part, as a player does that jumps about.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemon::drain::Drain;
use geo::Scheme;
use popularity_api::Client;
use popularity_api::wire::LinksRequest;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};

use super::cache_status::{self, Tier};
use super::https::HttpsClient;
use super::media::Library;
use super::plan::REGIONS;

/// What visitors have had so far.
#[derive(Debug, Default)]
pub struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    tiers: [AtomicU64; 4],
    last_error: Mutex<Option<String>>,
}

/// A tally at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tallied {
    /// Whole answers.
    pub requests: u64,
    /// Requests without a whole answer, or with one that is an error of the visitor's.
    pub errors: u64,
    /// Answers by where their bytes were: sun, cache, owner, content server.
    pub tiers: [u64; 4],
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// What all visitors share.
#[derive(Debug)]
struct Site {
    library: Arc<Library>,
    api: Client,
    trust: Arc<rustls::ClientConfig>,
    favourites: Vec<Favourites>,
    tally: Arc<Tally>,
}

/// Sends `count` visitors in, until the drain.
pub fn start(
    count: u32,
    library: Arc<Library>,
    api: Client,
    trust: Arc<rustls::ClientConfig>,
    drain: &Drain,
) -> Arc<Tally> {
    let tally = Arc::new(Tally::default());
    let favourites =
        REGIONS.iter().map(|(id, _)| Favourites::new(library.files().len(), &mut StdRng::seed_from_u64((*id).into())));
    let favourites = favourites.collect();
    let site = Arc::new(Site { library, api, trust, favourites, tally: Arc::clone(&tally) });
    for number in 0..count.min(VISITORS_MAX) {
        let (site, draining) = (Arc::clone(&site), drain.clone());
        drain.spawn(async move {
            let mut visitor = Visitor::new(number, &site, &draining);
            tokio::select! {
                () = draining.wait() => {}
                () = visitor.visit(&site) => {}
            }
        });
    }
    tally
}

impl Tally {
    /// The tally now.
    #[must_use]
    pub fn now(&self) -> Tallied {
        Tallied {
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            tiers: std::array::from_fn(|tier| self.tiers[tier].load(Ordering::Relaxed)),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn answered(&self, cache_status: &str) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let tier = match cache_status::served(cache_status).map(|served| served.tier) {
            Some(Tier::Sun) => 0,
            Some(Tier::Cache) => 1,
            Some(Tier::Owner) => 2,
            Some(Tier::Content) | None => 3,
        };
        self.tiers[tier].fetch_add(1, Ordering::Relaxed);
    }

    /// An answer that is none; what the edges count as errors of theirs is not counted twice.
    fn refused(&self, status: hyper::StatusCode, url: &str) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let counted = u64::from(!status.is_server_error());
        self.errors.fetch_add(counted, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{url}: {status}"));
    }

    fn failed(&self, why: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}

/// One visitor with its address, its connections and its own chance.
#[derive(Debug)]
struct Visitor {
    address: Ipv4Addr,
    region: usize,
    https: HttpsClient,
    random: StdRng,
}

impl Visitor {
    fn new(number: u32, site: &Site, drain: &Drain) -> Self {
        let (region, address) = origin(number);
        let https = HttpsClient::new(address, Arc::clone(&site.trust), drain.tracker().clone());
        Self { address, region, https, random: StdRng::seed_from_u64(number.into()) }
    }

    /// Opens pages for ever.
    async fn visit(&mut self, site: &Site) {
        loop {
            if let Err(error) = self.page(site).await {
                site.tally.failed(format!("{error:#}"));
            }
            let pause_ms = self.random.random_range(PAUSE_MS_MIN..PAUSE_MS_MAX);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    async fn page(&mut self, site: &Site) -> anyhow::Result<()> {
        let favourites = &site.favourites[self.region];
        let chosen: Vec<usize> = (0..FILES_PER_PAGE).map(|_| favourites.choose(&mut self.random)).collect();
        let files = site.library.files();
        let request = LinksRequest {
            client: self.address.into(),
            files: chosen.iter().map(|&index| files[index].name.to_string()).collect(),
            scheme: Scheme::Https,
            explain: false,
        };
        let links = site.api.links(&request).await?;
        for (&index, link) in chosen.iter().zip(&links.links) {
            let Some(url) = &link.url else {
                site.tally.failed(format!("no link for {}", link.file));
                continue;
            };
            let range = part(files[index].size, &mut self.random);
            match self.https.fetch(url, range.as_deref()).await {
                Ok(fetched) if fetched.status.is_success() => site.tally.answered(&fetched.cache_status),
                Ok(fetched) => site.tally.refused(fetched.status, url),
                Err(error) => site.tally.failed(format!("{error:#}")),
            }
        }
        Ok(())
    }
}

/// Region, as an index, and address of a visitor: in turn one of each region.
fn origin(number: u32) -> (usize, Ipv4Addr) {
    let regions = REGIONS.len();
    let region = number as usize % regions;
    let [_, _, high, low] = (number / 2 + 1).to_be_bytes();
    (region, Ipv4Addr::new(127, REGIONS[region].0.to_le_bytes()[0], high, low))
}

/// The `Range` of a large file's part, at a chosen position.
fn part(size: u64, random: &mut impl Rng) -> Option<String> {
    let last_start = size.checked_sub(PART_BYTES).filter(|_| size > WHOLE_BYTES_MAX)?;
    let start = random.random_range(0..=last_start);
    Some(format!("bytes={start}-{}", start + PART_BYTES - 1))
}

/// A region's files in order of liking, chosen by Zipf's law: the n-th with probability proportional to
/// 1 / n^0.9, as measured for the media of social networks and CDNs.
#[derive(Debug)]
struct Favourites {
    order: Vec<usize>,
    /// Sums of the weights up to and including each rank.
    cumulative: Vec<f64>,
}

impl Favourites {
    fn new(files: usize, random: &mut impl Rng) -> Self {
        let mut order: Vec<usize> = (0..files).collect();
        order.shuffle(random);
        let mut sum = 0.0;
        let cumulative = (1..=files)
            .map(|rank| {
                sum += (rank as f64).powf(-ZIPF_EXPONENT);
                sum
            })
            .collect();
        Self { order, cumulative }
    }

    fn choose(&self, random: &mut impl Rng) -> usize {
        let all = self.cumulative.last().copied().unwrap_or(0.0);
        let at = random.random::<f64>() * all;
        let rank = self.cumulative.partition_point(|&sum| sum <= at);
        self.order[rank.min(self.order.len() - 1)]
    }
}

/// More visitors than these would only wait for each other on one machine.
pub const VISITORS_MAX: u32 = 10_000;
const FILES_PER_PAGE: usize = 6;
/// Between two pages; short, for a person, but a demo is to be seen at work.
const PAUSE_MS_MIN: u64 = 50;
const PAUSE_MS_MAX: u64 = 150;
/// Larger files are fetched in part.
const WHOLE_BYTES_MAX: u64 = 4_000_000;
const PART_BYTES: u64 = 1_000_000;
const ZIPF_EXPONENT: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_come_from_both_regions_in_turn() {
        check_origin(0, 0, "127.4.0.1");
        check_origin(1, 1, "127.5.0.1");
        check_origin(2, 0, "127.4.0.2");
        check_origin(513, 1, "127.5.1.1");
        check_origin(VISITORS_MAX - 1, 1, "127.5.19.136");
    }

    #[test]
    fn the_first_of_a_region_is_liked_most() {
        let mut random = StdRng::seed_from_u64(1);
        let favourites = Favourites::new(385, &mut random);
        let mut chosen = vec![0_u32; 385];
        for _ in 0..100_000 {
            chosen[favourites.choose(&mut random)] += 1;
        }
        let share = |rank: usize| f64::from(chosen[favourites.order[rank]]) / 100_000.0;
        // 1 / sum of n^-0.9 for n of 1..=385 is 0.1148; the tenth has 10^-0.9 of that.
        assert!((share(0) - 0.1148).abs() < 0.005, "{}", share(0));
        assert!((share(9) - 0.0145).abs() < 0.002, "{}", share(9));
        assert!(chosen.iter().filter(|&&count| count > 0).count() > 380);
    }

    #[test]
    fn only_large_files_are_fetched_in_part() {
        let mut random = StdRng::seed_from_u64(1);
        assert_eq!(part(2_000, &mut random), None);
        assert_eq!(part(WHOLE_BYTES_MAX, &mut random), None);
        for _ in 0..100 {
            let range = part(50_000_000, &mut random).unwrap();
            let (first, last) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap();
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            assert_eq!(last - first + 1, PART_BYTES);
            assert!(last < 50_000_000);
        }
    }

    #[track_caller]
    fn check_origin(number: u32, region: usize, address: &str) {
        assert_eq!(origin(number), (region, address.parse().unwrap()), "visitor {number}");
    }
}
