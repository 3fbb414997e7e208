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
    let mut best = scan(link, settings, region, limit, 0.0, pulse).await?;
    best.truncate(limit);
    Ok(best)
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
    let ranked = scan(link, settings, ask.region, each, ask.exponent, pulse).await?;
    let accepted = ranked.into_iter().filter(|ranked| {
        let RankedFile { name, content, size, rating, .. } = ranked;
        (ask.accept)(&RatedFile { name, content: *content, size: *size }, *rating)
    });
    Ok(Carried { best: accepted.take(ask.limit).collect(), held })
}

/// So many of the best-rated of each shard of a region, in order of worth; of equal ones the name that comes first.
async fn scan(
    link: &Arc<Link>,
    settings: &Settings,
    region: RegionId,
    each: usize,
    exponent: f64,
    pulse: Pulse,
) -> Result<Vec<RankedFile>, String> {
    let mut shards = JoinSet::new();
    for place in Place::all(region, settings.shards) {
        let [rank, files, _] = place.keys(&settings.prefix);
        let link = Arc::clone(link);
        shards.spawn(async move { link.ask(BEST, &[rank, files], &[each.to_string()]).await });
    }
    let mut ranked = Vec::new();
    while let Some(shard) = shards.join_next().await {
        let answer = shard.map_err(|error| error.to_string())??;
        let Value::Array(values) = answer else { return Err("an answer that is none of the script's".to_owned()) };
        let files = values.chunks_exact(2).filter_map(|pair| file(settings, &pair[0], &pair[1], exponent, pulse));
        ranked.extend(files);
    }
    ranked.sort_unstable_by(|a: &RankedFile, b| b.score.total_cmp(&a.score).then_with(|| a.name.cmp(&b.name)));
    Ok(ranked)
}

fn file(settings: &Settings, name: &Value, kept: &Value, exponent: f64, pulse: Pulse) -> Option<RankedFile> {
    let (Value::BulkString(name), Value::BulkString(kept)) = (name, kept) else { return None };
    let (name, kept) = (std::str::from_utf8(name).ok()?, Kept::read(kept)?);
    let (hour, days) = pulse.left(kept.rating);
    Some(RankedFile {
        content: places::content(name)?,
        name: name.into(),
        size: kept.size,
        rating: Decayed { hour, days },
        score: kept.worth(&settings.decay, exponent),
    })
}

/// What the files that the cache holds are worth.
async fn held(link: &Arc<Link>, settings: &Settings, ask: &Carry) -> Result<Vec<(String, f64)>, String> {
    let mut places: BTreeMap<Place, Vec<String>> = BTreeMap::new();
    for name in (ask.held)() {
        let Some(content) = places::content(&name) else { continue };
        let shard = places::shard(content, settings.shards);
        places.entry(Place { region: ask.region, shard }).or_default().push(name);
    }
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
