//! Counting: batches gather for a moment, and go to their shards together.
//!
//! ```text
//!   count(batch) --> its source's boot (OPEN) --> parts by shard --+
//!   count(batch) --> ...                                           +--> gathers for commit_ms
//!                                                                           |
//!                        shard 4.0: COUNT(parts of all batches), WAIT  <----+----> shard 4.1: COUNT, WAIT ...
//!                                                                           |
//!       a batch is answered when all its parts are: counted, or one failed and all are sent again <---'
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Settings;
use super::link::Link;
use super::places::Place;
use super::scripts::{COUNT, Counted, digits};
use crate::engine::CountError;
use crate::engine::table::{Mark, Standing};

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) source: String,
    pub(super) mark: Mark,
    pub(super) parts: BTreeMap<Place, Vec<u8>>,
    pub(super) reply: oneshot::Sender<Result<bool, CountError>>,
    /// Its room in the queue.
    pub(super) room: OwnedSemaphorePermit,
}

/// Gathers batches until the other end is gone, and ends when all of them are answered.
pub(super) async fn gather(mut submitted: mpsc::UnboundedReceiver<Submission>, link: Arc<Link>, settings: Settings) {
    let mut groups = JoinSet::new();
    while let Some(first) = submitted.recv().await {
        let (mut group, until) = (vec![first], Instant::now() + settings.commit);
        while group.len() < GROUP_MAX {
            tokio::select! {
                next = submitted.recv() => match next {
                    Some(next) => group.push(next),
                    None => break,
                },
                () = sleep_until(until) => break,
            }
        }
        // A shard that does not answer holds up its own group and no other.
        groups.spawn(commit(group, Arc::clone(&link), settings.clone()));
        while groups.try_join_next().is_some() {}
    }
    while groups.join_next().await.is_some() {}
}

/// A part of one batch, for one shard.
#[derive(Clone, Debug)]
struct Part {
    batch: usize,
    source: String,
    mark: Mark,
    entries: Vec<u8>,
}

async fn commit(group: Vec<Submission>, link: Arc<Link>, settings: Settings) {
    let begun = std::time::Instant::now();
    let (mut replies, mut outcomes) = (Vec::new(), Vec::new());
    let mut places: BTreeMap<Place, Vec<Part>> = BTreeMap::new();
    for (batch, Submission { source, mark, parts, reply, room }) in group.into_iter().enumerate() {
        outcomes.push(Outcome { missing: parts.len(), ..Outcome::default() });
        for (place, entries) in parts {
            places.entry(place).or_default().push(Part { batch, source: source.clone(), mark, entries });
        }
        replies.push((mark, reply, room));
    }
    let mut tasks = JoinSet::new();
    for (place, parts) in places {
        let (link, settings) = (Arc::clone(&link), settings.clone());
        tasks.spawn(async move { count_place(place, parts, &link, &settings).await });
    }
    while let Some(done) = tasks.join_next().await {
        // One that panicked leaves its parts missing.
        for (batch, part) in done.unwrap_or_default() {
            if let Some(outcome) = outcomes.get_mut(batch) {
                outcome.add(part);
            }
        }
    }
    link.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
    for ((mark, reply, _room), outcome) in replies.into_iter().zip(outcomes) {
        // Who does not wait any more sends it again.
        drop(reply.send(outcome.answer(mark)));
    }
}

/// What became of one part.
type PartOutcome = Result<(Standing, Mark), String>;

/// Sends a shard its parts, as many at once as do not hold its node up for long; what became of them, by batch.
async fn count_place(place: Place, parts: Vec<Part>, link: &Link, settings: &Settings) -> Vec<(usize, PartOutcome)> {
    let (mut done, mut rest) = (Vec::with_capacity(parts.len()), &parts[..]);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|part| {
            bytes += part.entries.len();
            bytes <= SCRIPT_BYTES_MAX
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        match count_parts(place, now, link, settings).await {
            Ok(counted) => {
                link.metrics.counted(place, &counted);
                done.extend(now.iter().map(|part| part.batch).zip(counted.standings.into_iter().map(Ok)));
            }
            Err(error) => {
                link.metrics.unconfirmed(now.len());
                done.extend(now.iter().map(|part| (part.batch, Err(error.clone()))));
            }
        }
        rest = later;
    }
    done
}

async fn count_parts(place: Place, parts: &[Part], link: &Link, settings: &Settings) -> Result<Counted, String> {
    let mut arguments: Vec<Vec<u8>> = settings.shard_arguments().map(String::into_bytes).into();
    for part in parts {
        arguments.push(part.source.clone().into_bytes());
        arguments.push(digits(part.mark.boot).into_bytes());
        arguments.push(digits(part.mark.sequence).into_bytes());
        arguments.push(part.entries.clone());
    }
    let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
    let answer = link.write(COUNT, &place.keys(&settings.prefix), &arguments).await?;
    Counted::read(&answer, parts.len()).ok_or_else(|| "an answer that is none of the script's".to_owned())
}

/// What is known of a batch while its parts come back.
#[derive(Clone, Debug, Default)]
struct Outcome {
    /// Parts that nothing was heard of.
    missing: usize,
    new: bool,
    stale: Option<u64>,
    failed: Option<String>,
}

impl Outcome {
    fn add(&mut self, part: PartOutcome) {
        self.missing = self.missing.saturating_sub(1);
        match part {
            Ok((Standing::New, _)) => self.new = true,
            Ok((Standing::Counted, _)) => {}
            Ok((Standing::Stale, known)) => self.stale = Some(known.boot),
            Err(error) => self.failed = Some(error),
        }
    }

    /// One part that failed fails the batch: it is sent again, and the others are not counted a second time.
    fn answer(self, mark: Mark) -> Result<bool, CountError> {
        match (self.failed, self.stale) {
            (Some(error), _) => Err(CountError::Away(error)),
            (None, Some(known)) => Err(CountError::Stale { boot: mark.boot, known }),
            (None, None) if self.missing > 0 => {
                Err(CountError::Away("a part of it failed inside; see the log".to_owned()))
            }
            (None, None) => Ok(self.new),
        }
    }
}

/// Batches of one group.
const GROUP_MAX: usize = 10_000;
/// Entries of one script, bytes: some 5,000, or 30 ms of a node.
const SCRIPT_BYTES_MAX: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_what_its_parts_are() {
        let new = || Ok((Standing::New, Mark::default()));
        let counted = || Ok((Standing::Counted, Mark::default()));
        let stale = || Ok((Standing::Stale, Mark { boot: 9, sequence: 0 }));
        check(vec![new(), new()], "Ok(true)");
        check(vec![counted(), new()], "Ok(true)");
        check(vec![counted(), counted()], "Ok(false)");
        check(vec![new()], r#"Err(Away("a part of it failed inside; see the log"))"#);
        check(vec![new(), stale()], "Err(Stale { boot: 7, known: 9 })");
        check(vec![Err("gone".to_owned()), stale()], r#"Err(Away("gone"))"#);
    }

    #[track_caller]
    fn check(parts: Vec<PartOutcome>, expected: &str) {
        let mut outcome = Outcome { missing: 2, ..Outcome::default() };
        parts.into_iter().for_each(|part| outcome.add(part));
        assert_eq!(format!("{:?}", outcome.answer(Mark { boot: 7, sequence: 1 })), expected);
    }
}
