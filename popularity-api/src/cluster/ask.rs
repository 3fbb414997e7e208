//! Rankings: each shard tells its best, and they are put together here.
//!
//! The best of a region are among the best of its shards, so [`top`] is exact. What a cache wants is ranked by
//! `rating / size^exponent`, which no shard keeps an order of: the `scan_max` files of the region with the highest ratings are
//! looked at and put in that order. So an answer is exact in a region with at most `scan_max` files, about. In a larger one
//! a file is overlooked when it is not among the `scan_max` best rated, although it is so much smaller than the last
//! candidate that it is worth more: with an exponent of 0.5, when the last file looked at is rated `k` times lower than the last
//! candidate, only files more than `k^2` times smaller than that candidate.

use std::collections::BTreeMap;
use std::sync::Arc;

use geo::RegionId;
use redis::Value;
use tokio::task::JoinSet;

use super::Settings;
use super::link::Link;
use super::places::{self, Place};
use super::scripts::{BEST, Kept};
use crate::engine::decay::Pulse;
use crate::engine::files::RatedFile;
use crate::ratings::{Carried, Carry, Decayed, RankedFile};

/// The best of a region, best first.
pub(super) async fn top(
    link: &Arc<Link>,
    settings: &Settings,
    region: RegionId,
    limit: usize,
    pulse: Pulse,
) -> Result<Vec<RankedFile>, String> {
    let (told, settings) = (scan(link, settings, region, limit).await?, settings.clone());
    aside(move || {
        let ranked = rank(told, &settings, 0.0);
        Ok(ranked.into_iter().filter_map(|file| file.read(pulse)).take(limit).collect())
    })
    .await
}

/// What a cache is to carry, and what it holds.
pub(super) async fn carried(
    link: &Arc<Link>,
    settings: &Settings,
    ask: &Carry,
    pulse: Pulse,
) -> Result<Carried, String> {
    let held = held(link, settings, ask).await?;
    if ask.limit == 0 {
        return Ok(Carried { best: Vec::new(), held });
    }
    let each = settings.scan_max.div_ceil(settings.shards as usize);
    let told = scan(link, settings, ask.region, each).await?;
    let (settings, ask) = (settings.clone(), ask.clone());
    let best = aside(move || {
        let accepted = rank(told, &settings, ask.exponent).into_iter().filter_map(|file| file.read(pulse));
        let accepted = accepted.filter(|ranked| {
            let RankedFile { name, content, size, rating, .. } = ranked;
            (ask.accept)(&RatedFile { name, content: *content, size: *size }, *rating)
        });
        Ok(accepted.take(ask.limit).collect())
    });
    Ok(Carried { best: best.await?, held })
}

/// Work for a hundred thousand names, off the runtime's threads.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

/// What each shard of a region tells of so many of its best-rated.
async fn scan(link: &Arc<Link>, settings: &Settings, region: RegionId, each: usize) -> Result<Vec<Vec<Value>>, String> {
    let mut shards = JoinSet::new();
    for place in Place::all(region, settings.shards) {
        let [rank, files, _] = place.keys(&settings.prefix);
        let link = Arc::clone(link);
        shards.spawn(async move { link.ask(BEST, &[rank, files], &[each.to_string()]).await });
    }
    let mut told = Vec::new();
    while let Some(shard) = shards.join_next().await {
        let Value::Array(values) = shard.map_err(|error| error.to_string())?? else {
            return Err("an answer that is none of the script's".to_owned());
        };
        told.push(values);
    }
    Ok(told)
}

/// A file as its shard tells it. Its name is looked at, and its id computed, only when its turn comes.
struct Told {
    name: Vec<u8>,
    kept: Kept,
    score: f64,
}

/// All that is told in order of worth; of equal ones the name that comes first.
fn rank(told: Vec<Vec<Value>>, settings: &Settings, exponent: f64) -> Vec<Told> {
    let mut ranked: Vec<Told> = Vec::with_capacity(told.iter().map(Vec::len).sum::<usize>() / 2);
    for values in told {
        let mut values = values.into_iter();
        while let Some((name, kept)) = values.next().zip(values.next()) {
            if let (Value::BulkString(name), Value::BulkString(kept)) = (name, kept)
                && let Some(kept) = Kept::read(&kept)
            {
                let score = kept.worth(&settings.decay, exponent);
                ranked.push(Told { name, kept, score });
            }
        }
    }
    ranked.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.name.cmp(&b.name)));
    ranked
}

impl Told {
    /// The file; nothing when its name is none.
    fn read(self, pulse: Pulse) -> Option<RankedFile> {
        let name = String::from_utf8(self.name).ok()?;
        let (hour, days) = pulse.left(self.kept.rating);
        Some(RankedFile {
            content: places::content(&name)?,
            name: name.into(),
            size: self.kept.size,
            rating: Decayed { hour, days },
            score: self.score,
        })
    }
}

/// What the files that the cache holds are worth.
async fn held(link: &Arc<Link>, settings: &Settings, ask: &Carry) -> Result<Vec<(String, f64)>, String> {
    let (region, names, shards) = (ask.region, Arc::clone(&ask.held), settings.shards);
    let places = aside(move || {
        let mut places: BTreeMap<Place, Vec<String>> = BTreeMap::new();
        for name in names() {
            let Some(content) = places::content(&name) else { continue };
            let place = Place { region, shard: places::shard(content, shards) };
            places.entry(place).or_default().push(name);
        }
        Ok(places)
    })
    .await?;
    let mut shards = JoinSet::new();
    for (place, names) in places {
        let (link, [_, files, _], settings) = (Arc::clone(link), place.keys(&settings.prefix), settings.clone());
        let exponent = ask.exponent;
        shards.spawn(async move {
            let mut scores = Vec::new();
            for names in names.chunks(FIELDS_MAX) {
                let fields: Vec<&str> = names.iter().map(String::as_str).collect();
                let Value::Array(kept) = link.fields(&files, &fields).await? else { continue };
                let worth = |kept: &Value| match kept {
                    Value::BulkString(kept) => Some(Kept::read(kept)?.worth(&settings.decay, exponent)),
                    _ => None,
                };
                scores.extend(names.iter().zip(&kept).filter_map(|(name, kept)| Some((name.clone(), worth(kept)?))));
            }
            Ok::<_, String>(scores)
        });
    }
    let mut held = Vec::new();
    while let Some(shard) = shards.join_next().await {
        held.extend(shard.map_err(|error| error.to_string())??);
    }
    Ok(held)
}

/// Names of one question.
const FIELDS_MAX: usize = 1000;
