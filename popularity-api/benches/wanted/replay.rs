//! A trace through the engine, and its ratings into a cache.

use std::collections::HashMap;

use anyhow::Context;
use geo::{CanonicalName, ContentId, RegionId};
use popularity_api::config::Config;
use popularity_api::engine::batch::{Batch, Entry, Group};
use popularity_api::engine::decay::{Decay, LANDMARK_MS};
use popularity_api::engine::table::{Mark, Table};
use popularity_api::ratings::Decayed;
use popularity_api::turnover::Turnover;

use crate::caches::{Outcome, score};
use crate::trace::Trace;

// The cache's own decisions, by their file: its crate stands above this one, with a whole edge below it.
#[path = "../../../cache-daemon/src/plan.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is public where it belongs, and has tests there")]
mod plan;

use plan::{Action, Rated, Room, UNRATED, plan};

/// What a cache is told to carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Of size, in `rating / size^exponent`.
    pub(crate) exponent: f64,
    /// Weight of the short half-life in the rating.
    pub(crate) hour_share: f64,
    /// Only what is expected to pay.
    pub(crate) pays: bool,
}

impl Policy {
    /// As the shipped config has it.
    pub(crate) fn shipped() -> Self {
        let ratings = Config::default().ratings;
        Self { exponent: ratings.size_exponent, hour_share: ratings.hour_share, pays: true }
    }
}

/// The cache as the ratings of the first half fill it, kept as it is.
pub(crate) fn carried_once(trace: &Trace, bytes_max: u64, hours: f64, policy: Policy) -> anyhow::Result<Outcome> {
    let mut cache = Cache::new(trace, bytes_max, hours, policy)?;
    let half = trace.requests.len() / 2;
    trace.requests[..half].iter().enumerate().for_each(|(at, &key)| cache.downloaded(at, key as usize));
    cache.carry(half, trace.sizes.len());
    let mut held = vec![false; trace.sizes.len()];
    cache.held.values().for_each(|&key| held[key] = true);
    Ok(score(trace, &held))
}

/// The cache that begins like that and goes on.
pub(crate) fn carried_on(trace: &Trace, bytes_max: u64, hours: f64, policy: Policy) -> anyhow::Result<Outcome> {
    let mut cache = Cache::new(trace, bytes_max, hours, policy)?;
    let half = trace.requests.len() / 2;
    let (mut outcome, mut planned_ms) = (Outcome::default(), 0);
    for (at, &key) in trace.requests.iter().enumerate() {
        let key = key as usize;
        if at >= half {
            if cache.time_ms(at) >= planned_ms + PLAN_MS {
                planned_ms = cache.time_ms(at);
                cache.carry(at, if at == half { trace.sizes.len() } else { CANDIDATES_MAX });
            }
            outcome.count(cache.held.contains_key(&cache.contents[key]), trace.size(key));
        }
        cache.downloaded(at, key);
    }
    Ok(Outcome { ahead_bytes: cache.fetched_bytes, held_bytes: cache.used_bytes(), ..outcome })
}

/// A region's ratings and its one cache.
struct Cache<'a> {
    trace: &'a Trace,
    bytes_max: u64,
    /// From one request to the next.
    step_ms: f64,
    policy: Policy,
    decay: Decay,
    table: Table,
    pending: Vec<Entry>,
    sequence: u64,
    names: Vec<String>,
    contents: Vec<ContentId>,
    keys: HashMap<ContentId, usize>,
    held: HashMap<ContentId, usize>,
    turnover: Turnover,
    fetched_bytes: u64,
}

impl<'a> Cache<'a> {
    fn new(trace: &'a Trace, bytes_max: u64, hours: f64, policy: Policy) -> anyhow::Result<Self> {
        let ratings = Config::default().ratings;
        let decay = Decay::new(ratings.half_life_hour_s, ratings.half_life_days_s, policy.hour_share);
        let decay = decay.context("a share within 0..=1")?;
        let names: Vec<String> = (0..trace.sizes.len()).map(|key| format!("c1/{key}")).collect();
        let contents = names.iter().map(|name| Ok(CanonicalName::parse(name)?.content_id()));
        let contents: Vec<ContentId> = contents.collect::<anyhow::Result<_>>()?;
        Ok(Self {
            trace,
            bytes_max,
            step_ms: hours * 3_600_000.0 / trace.requests.len() as f64,
            policy,
            decay,
            table: Table::new(decay, trace.sizes.len() + 16),
            pending: Vec::new(),
            sequence: 0,
            keys: contents.iter().enumerate().map(|(key, content)| (*content, key)).collect(),
            names,
            contents,
            held: HashMap::new(),
            turnover: Turnover::default(),
            fetched_bytes: 0,
        })
    }

    /// When the request with this number comes.
    fn time_ms(&self, at: usize) -> u64 {
        LANDMARK_MS + (at as f64 * self.step_ms) as u64
    }

    /// Counts a download, with the others of its half minute.
    fn downloaded(&mut self, at: usize, key: usize) {
        let (size, file) = (self.trace.size(key), self.names[key].as_str().into());
        self.pending.push(Entry { region: REGION, file, size, downloads: 1.0 });
        if self.time_ms(at + 1) / REPORT_MS > self.time_ms(at) / REPORT_MS {
            self.report(at);
        }
    }

    fn report(&mut self, at: usize) {
        self.sequence += 1;
        let mark = Mark { boot: 1, sequence: self.sequence };
        let batch = Batch { source: "sun1-1-1".to_owned(), mark, entries: std::mem::take(&mut self.pending) };
        self.table.apply(&Group { time_ms: self.time_ms(at), batches: vec![batch] });
    }

    /// Asks what to carry, at most `candidates_max` files, and does so.
    fn carry(&mut self, at: usize, candidates_max: usize) {
        self.report(at);
        let wanted = Config::default().wanted;
        let (rules, pulse, now_ms) = (wanted.rules(&self.decay), self.decay.at(self.time_ms(at)), self.time_ms(at));
        let residence_s = self.turnover.residence_s(self.held.len(), now_ms, wanted.residence_max_s as f64);
        let ranked = self
            .table
            .best(REGION, self.policy.exponent, self.trace.sizes.len(), |file| !self.held.contains_key(&file.content));
        let pays = |rating, size| {
            let (hour, days) = pulse.left(rating);
            rules.copies(Decayed { hour, days }, size, f64::INFINITY, residence_s) > 0
        };
        let wanted = ranked.iter().filter(|ranked| !self.policy.pays || pays(ranked.rating, ranked.file.size));
        let candidates: Vec<Rated> = wanted
            .take(candidates_max)
            .map(|ranked| Rated { content: ranked.file.content, bytes: ranked.file.size, score: ranked.score })
            .collect();
        let held: Vec<Rated> = self.held.iter().map(|(&content, &key)| self.rated(content, key)).collect();
        let room = Room { bytes_max: self.bytes_max, fetches_max: candidates_max };
        let mut dropped = 0;
        for action in plan(&candidates, &held, &[], room) {
            match action {
                Action::Fetch(content) => {
                    let key = self.keys[&content];
                    self.fetched_bytes += self.trace.size(key);
                    self.held.insert(content, key);
                }
                Action::Drop(content) => {
                    dropped += 1;
                    self.held.remove(&content);
                }
            }
        }
        if dropped > 0 {
            self.turnover.dropped(dropped, now_ms);
        }
    }

    fn rated(&self, content: ContentId, key: usize) -> Rated {
        let score = self.table.score(REGION, &self.names[key], self.policy.exponent).unwrap_or(UNRATED);
        Rated { content, bytes: self.trace.size(key), score }
    }

    fn used_bytes(&self) -> u64 {
        self.held.values().map(|&key| self.trace.size(key)).sum()
    }
}

const REGION: RegionId = RegionId(1);
/// How often suns report.
const REPORT_MS: u64 = 30_000;
/// How often the cache plans; a daemon does so every three seconds.
const PLAN_MS: u64 = 300_000;
/// Candidates of one answer, as a cache asks for.
const CANDIDATES_MAX: usize = 1000;
