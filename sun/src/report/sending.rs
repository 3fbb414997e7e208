//! Batches from the sums to the spool, and from the spool to the API: two tasks, so that an API that hangs does not keep
//! downloads in RAM.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemon::clock::{unix_ms, unix_us};
use daemon::drain::Drain;
use popularity_api::engine::folder::Disk;
use popularity_api::pace::Pace;
use popularity_api::spool::{Split, Spool};
use popularity_api::wire::DownloadsBatch;
use popularity_api::{Client, ClientError};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::edge::Edge;
use crate::metrics::ReportMetrics;

/// Reports downloads until the drain has ended all connections, then once more. Nothing is reported before the process
/// before this one has ended: the API takes what it has left for outdated once it has heard of a later start, and the spool
/// is that process's. Until then this one's downloads are in RAM alone, and a kill loses them. What cannot be delivered in
/// the end is on disk for the next start.
pub async fn report_downloads(edge: Arc<Edge>, client: Option<Client>, drain: Drain, connections: TaskTracker) {
    drain.alone().await;
    let Some(client) = client else {
        // Nobody is told, and nothing is kept.
        while !ended(&edge, &drain, &connections).await {
            drop(edge.downloads.take());
        }
        return;
    };
    let spool = Spooled::open(&edge).await;
    let (told, turns) = watch::channel(false);
    let collecting = collect(&edge, &spool, &drain, &connections, told);
    let began = Instant::now();
    let sender = Sender { edge: &edge, client: &client, spool: &spool, pace: Pace::default(), began, complained: None };
    tokio::join!(collecting, sender.run(turns));
}

/// Moves downloads to the spool each period, and a last time, of which it tells true, when all connections have ended.
async fn collect(edge: &Edge, spool: &Spooled, drain: &Drain, connections: &TaskTracker, told: watch::Sender<bool>) {
    loop {
        let ended = ended(edge, drain, connections).await;
        spool.push(edge).await;
        told.send_replace(ended);
        if ended {
            return;
        }
    }
}

/// Waits for a period, or until the drain has ended all connections: true.
async fn ended(edge: &Edge, drain: &Drain, connections: &TaskTracker) -> bool {
    let period = Duration::from_millis(edge.config.report_ms);
    loop {
        let draining = drain.started();
        // While it drains, what is counted is still told as it comes: the deadline may cut the rest off.
        tokio::select! {
            () = tokio::time::sleep(period) => return false,
            () = drain.wait(), if !draining => {}
            () = connections.wait(), if draining => return true,
        }
    }
}

/// The spool, used by one task at a time, off the runtime's threads.
struct Spooled(Arc<Mutex<Held>>);

/// The spool, and when a folder that could not be used is tried again; never when it is used, or none is wanted.
struct Held {
    spool: Spool,
    retry_at: Option<Instant>,
}

impl Held {
    /// Tries the folder again, if it is time to.
    fn retry(&mut self, data: &Path, bytes_max: u64, now: Instant) {
        if self.retry_at.is_none_or(|retry_at| now < retry_at) {
            return;
        }
        self.retry_at = Some(now + RETRY);
        match attach(&mut self.spool, data, bytes_max) {
            Ok(()) => {
                self.retry_at = None;
                tracing::info!("the spool can be used now: downloads wait on disk from here on");
            }
            Err(error) => tracing::debug!(%error, "the spool can still not be used"),
        }
    }
}

impl Spooled {
    async fn open(edge: &Edge) -> Self {
        let (data, bytes_max) = (edge.config.data.clone(), edge.config.spool.bytes_max);
        let name = edge.config.name.clone();
        let opened = tokio::task::spawn_blocking(move || open(&data, name, bytes_max)).await;
        Self(Arc::new(Mutex::new(opened.expect("opening a spool does not panic"))))
    }

    async fn push(&self, edge: &Edge) {
        let batches = edge.downloads.take();
        edge.metrics.report.thinned.inc_by(edge.downloads.take_thinned());
        if !batches.is_empty() {
            let (data, bytes_max, now_ms) = (edge.config.data.clone(), edge.config.spool.bytes_max, unix_ms());
            let push = move |held: &mut Held| {
                held.retry(&data, bytes_max, Instant::now());
                batches.iter().for_each(|batch| held.spool.push(batch, now_ms));
            };
            self.with_held(push).await;
        }
        self.publish(&edge.metrics.report).await;
    }

    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Spool) -> T + Send + 'static) -> Option<T> {
        self.with_held(|held| work(&mut held.spool)).await
    }

    async fn with_held<T: Send + 'static>(&self, work: impl FnOnce(&mut Held) -> T + Send + 'static) -> Option<T> {
        let spool = Arc::clone(&self.0);
        // A step that panics leaves a list of batches, some of which may be on disk no more: they are found damaged.
        let run = move || work(&mut spool.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(run).await.inspect_err(|error| tracing::error!(%error, "the spool")).ok()
    }

    /// Off the runtime's threads as well: whoever holds the spool may wait for the disk.
    async fn publish(&self, metrics: &ReportMetrics) {
        if let Some(figures) = self.with(|spool| spool.figures()).await {
            metrics.spool(&figures);
        }
    }
}

struct Sender<'a> {
    edge: &'a Edge,
    client: &'a Client,
    spool: &'a Spooled,
    pace: Pace,
    began: Instant,
    /// The status that the API refused something with, which is said once and not again until it accepts.
    complained: Option<u16>,
}

/// What follows from an answer.
#[derive(Debug, PartialEq)]
enum Step {
    /// The next batch; this one is done.
    Next,
    /// The next batch; this one was refused for good.
    Refused,
    /// All batches again, under a boot above this one.
    Renumber(u64),
    /// In two halves: the API takes none as long.
    Split,
    /// Not now.
    Wait,
    /// Not within this time.
    Told(Duration),
}

impl Sender<'_> {
    /// Sends what waits whenever it is told to look, until it is told that this is the end.
    async fn run(mut self, mut turns: watch::Receiver<bool>) {
        while turns.changed().await.is_ok() {
            let ended = *turns.borrow_and_update();
            if ended {
                self.pace.hurry();
            }
            self.flush().await;
            self.spool.publish(&self.edge.metrics.report).await;
            if ended {
                return;
            }
        }
    }

    /// Sends what waits, oldest first, until something does not get through.
    async fn flush(&mut self) {
        while self.pace.may(self.now_ms()) {
            let next = self.spool.with(|spool| spool.first(unix_ms()).map(|batch| (batch, spool.first_is_own()))).await;
            let Some((batch, own)) = next.flatten() else { return };
            let answer = self.client.report_downloads(&batch).await;
            if let Ok(ack) = &answer {
                self.edge.downloads.sample(ack.sample);
                self.edge.metrics.report.sample.set(ack.sample);
                self.edge.metrics.report.refused.inc_by(ack.refused as u64);
                self.complained = None;
                self.pace.succeeded();
            }
            let step = step(answer.as_ref().map(|_| ()), own);
            if let Err(error) = &answer {
                self.complain(error, &step);
            }
            self.take(step, &batch).await;
        }
    }

    fn complain(&mut self, error: &ClientError, step: &Step) {
        let refused = if let ClientError::Refused(problem) = error { Some(problem.status) } else { None };
        if refused.is_some() && std::mem::replace(&mut self.complained, refused) != refused {
            tracing::warn!(%error, ?step, "downloads are refused");
        } else {
            tracing::debug!(%error, ?step, "downloads wait, or are refused as the ones before");
        }
    }

    async fn take(&mut self, step: Step, batch: &DownloadsBatch) {
        let (boot, sequence) = (batch.boot, batch.sequence);
        match step {
            Step::Next => drop(self.spool.with(move |spool| spool.done(boot, sequence)).await),
            Step::Refused => {
                self.edge.metrics.report.refused.inc_by(batch.downloads.len() as u64);
                self.spool.with(move |spool| spool.done(boot, sequence)).await;
            }
            Step::Split => self.split(batch).await,
            Step::Renumber(known) => {
                self.spool.with(move |spool| spool.renumber(known)).await;
                // Another server that uses this name would have it go on for ever.
                self.pace.failed(self.now_ms(), rand::random());
            }
            Step::Wait => self.pace.failed(self.now_ms(), rand::random()),
            Step::Told(after) => self.pace.told(self.now_ms(), after, rand::random()),
        }
    }

    async fn split(&mut self, batch: &DownloadsBatch) {
        let whole = batch.clone();
        let split = self.spool.with(move |spool| {
            let split = spool.split(&whole);
            if split == Split::Single {
                spool.done(whole.boot, whole.sequence);
            }
            split
        });
        match split.await {
            Some(Split::Done) => {}
            Some(Split::Single) => self.edge.metrics.report.refused.inc_by(batch.downloads.len() as u64),
            Some(Split::Failed) | None => self.pace.failed(self.now_ms(), rand::random()),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A 4xx is the same next time. Not so 408, nor 401, 403, 421 (a copy of the API) and 415 (one that takes none that are
/// packed): a person may mend the token, the topology, the address or its release. 413: it takes only shorter ones. 409
/// says that the API has heard of a later start of this server; what that means for a batch of this life (`own`) and for an
/// earlier one is said in [`popularity_api::spool`].
fn step(answer: Result<(), &ClientError>, own: bool) -> Step {
    match answer {
        Ok(()) => Step::Next,
        Err(ClientError::Busy { after, .. }) => Step::Told(*after),
        Err(ClientError::Refused(problem)) => match (problem.status, known_boot(&problem.detail)) {
            (401 | 403 | 408 | 415 | 421, _) | (409, None) => Step::Wait,
            (413, _) => Step::Split,
            (409, Some(known)) if own => Step::Renumber(known),
            (400..500, _) => Step::Refused,
            _ => Step::Wait,
        },
        Err(_) => Step::Wait,
    }
}

/// `known boot N` of a 409; see [`DownloadsBatch::boot`].
fn known_boot(detail: &str) -> Option<u64> {
    let (_, rest) = detail.rsplit_once("known boot ")?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

/// The spool in the data folder; one in RAM while that cannot be used.
fn open(data: &Path, name: String, bytes_max: u64) -> Held {
    let mut spool = Spool::open(None, name, boot(data), 0).expect("RAM needs no opening");
    if bytes_max == 0 {
        return Held { spool, retry_at: None };
    }
    if let Err(error) = attach(&mut spool, data, bytes_max) {
        tracing::warn!(
            folder = %data.join(FOLDER).display(), %error,
            "the spool cannot be used: downloads wait in RAM alone until it can, a restart before that loses them, and what an \
             earlier process left there is lost once these are reported"
        );
        return Held { spool, retry_at: Some(Instant::now() + RETRY) };
    }
    Held { spool, retry_at: None }
}

/// Has the spool use its folder.
fn attach(spool: &mut Spool, data: &Path, bytes_max: u64) -> std::io::Result<()> {
    let boot = spool.boot();
    spool.attach(Arc::new(Disk::open(&data.join(FOLDER))?), bytes_max)?;
    if spool.boot() > boot {
        note(data, spool.boot());
    }
    let figures = spool.figures();
    if figures.disk_bytes > 0 {
        let (batches, bytes) = (figures.batches, figures.disk_bytes);
        tracing::info!(batches, bytes, "downloads of before this start are reported first");
    }
    Ok(())
}

/// Microseconds since 1970, and more than at the last start, also when the clock went back in between: the API
/// counts nothing that looks older than what it has counted. The last one is kept in the data folder.
fn boot(data: &std::path::Path) -> u64 {
    let now = unix_us();
    let last = std::fs::read_to_string(data.join(BOOT)).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let boot = last.map_or(now, |last| now.max(last.saturating_add(1)));
    note(data, boot);
    boot
}

/// Writes down which boot batches are numbered under; what a spool holds may have raised it.
fn note(data: &Path, boot: u64) {
    let file = data.join(BOOT);
    if let Err(error) = geo::watch::write_atomically(&file, &format!("{boot}\n")) {
        tracing::warn!(file = %file.display(), %error, "the start is not written down: the next must not be earlier");
    }
}

/// Under the data folder.
const FOLDER: &str = "spool";
/// Likewise: the latest boot, a number.
const BOOT: &str = "boot";
/// A folder that could not be used is tried again after so long. Shorter: work for nothing; longer: more is lost by a restart.
const RETRY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use popularity_api::wire::Problem;

    use super::*;

    #[test]
    fn a_start_is_later_than_the_last_also_when_the_clock_went_back() {
        let data = tempfile::tempdir().unwrap();
        let first = boot(data.path());
        assert!(boot(data.path()) > first);
        let ahead = first + 1_000_000_000_000;
        std::fs::write(data.path().join("boot"), ahead.to_string()).unwrap();
        assert_eq!(boot(data.path()), ahead + 1);
        std::fs::write(data.path().join("boot"), "nonsense").unwrap();
        assert!(boot(data.path()) > first);
    }

    #[test]
    fn what_follows_from_an_answer() {
        let refused = |status, detail: &str| {
            Err(ClientError::Refused(Problem { title: String::new(), status, detail: detail.to_owned() }))
        };
        let busy = |after| {
            let problem = Problem { title: String::new(), status: 429, detail: String::new() };
            Err(ClientError::Busy { problem, after: Duration::from_secs(after) })
        };
        let stale = "its boot 7 is older than the known boot 12; restart with a later one (known boot 12)";
        for (answer, expected) in [
            (Ok(()), Step::Next),
            (busy(3), Step::Told(Duration::from_secs(3))),
            (refused(400, ""), Step::Refused),
            (refused(404, ""), Step::Refused),
            (refused(413, ""), Step::Split),
            (refused(415, ""), Step::Wait),
            (refused(401, ""), Step::Wait),
            (refused(403, ""), Step::Wait),
            (refused(408, ""), Step::Wait),
            (refused(421, ""), Step::Wait),
            (refused(409, stale), Step::Renumber(12)),
            (refused(409, "known boot x"), Step::Wait),
            (refused(409, "something else"), Step::Wait),
            (Err(ClientError::Unreachable { url: String::new(), why: String::new() }), Step::Wait),
        ] {
            assert_eq!(step(answer.as_ref().copied(), true), expected, "{answer:?}");
            let expected = if expected == Step::Renumber(12) { Step::Refused } else { expected };
            assert_eq!(step(answer.as_ref().copied(), false), expected, "of an earlier life: {answer:?}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_replaced_by_ram_until_it_can() {
        let data = tempfile::tempdir().unwrap();
        let first = open(data.path(), "sun4-2-1".into(), 1 << 20);
        let mut second = open(data.path(), "sun4-2-1".into(), 1 << 20);
        second.spool.push(&[], 0);
        let figures = second.spool.figures();
        assert_eq!((figures.disk_bytes, figures.ram_bytes), (0, 4096), "the first one has it");
        assert!(second.spool.boot() > first.spool.boot());
        let due = second.retry_at.unwrap();
        second.retry(data.path(), 1 << 20, due);
        assert!(!second.spool.is_on_disk(), "the first one still has it");
        drop(first);
        second.retry(data.path(), 1 << 20, due);
        assert!(!second.spool.is_on_disk(), "it was tried a moment ago");
        second.retry(data.path(), 1 << 20, due + RETRY);
        second.spool.push(&[], 0);
        assert_eq!((second.spool.figures().disk_bytes, second.retry_at), (4096, None));
    }
}
