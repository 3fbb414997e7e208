//! ExaBGP, which starts this daemon as its process and reads orders from its standard output, a line each:
//!
//! ```text
//!   announce route 192.0.2.1/32 next-hop self origin igp med 100
//!   announce route 192.0.2.1/32 next-hop self origin igp med 100100 community [65535:0]
//!   withdraw route 192.0.2.1/32 next-hop self
//! ```
//!
//! A route that is announced again replaces the one before, so draining has no gap. Which routes there are is the topology's
//! word ([`geo::anycast`]), the same as of `sunctl render bird`. ExaBGP keeps the routes of a process that died and starts it
//! again: one that finds its sun ill withdraws what the one before may have left. It is asked for its sessions once a second; what
//! it [`answers`] is read by a thread. All is told anew when it may not have all that was told: it refused an order, was lost, or
//! has a session that was not there.
//!
//! Orders are written by a thread, one after the other: an ExaBGP that does not read holds nobody up.

pub mod answers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use geo::anycast::{Announcement, Assignment};
use geo::topology::Watched;
use rustix::event::{PollFd, PollFlags, poll};

use self::answers::{Answers, Command, Heard};
use super::config::{Rank, SpeakerConfig};
use super::machine::Announce;

/// See the module's doc.
pub struct Exabgp {
    orders: SyncSender<String>,
    writer: JoinHandle<()>,
    /// Nobody reads any more.
    ended: Arc<AtomicBool>,
    config: SpeakerConfig,
    name: String,
    topology: Watched,
    /// What is to be announced when anything is.
    routes: Vec<Announcement>,
    answers: Arc<Mutex<Answers>>,
    /// What was said, by prefix; none: nothing, and a process before this one may have said anything.
    said: Option<BTreeMap<String, String>>,
    /// All is to be said anew.
    anew: bool,
    /// Prefixes that were said since all of it was confirmed: they are withdrawn again if they are not wanted.
    unconfirmed: BTreeSet<String>,
    announced: Announce,
}

impl Exabgp {
    /// Nothing was said yet. Starts the thread that writes.
    ///
    /// # Errors
    ///
    /// When the thread cannot be made.
    pub fn new(
        config: &SpeakerConfig,
        name: &str,
        mut topology: Watched,
        output: Box<dyn Write + Send>,
    ) -> io::Result<Self> {
        topology.mark_changed();
        let (orders, waiting) = sync_channel(ORDERS_MAX);
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let writer = std::thread::Builder::new().name("exabgp-orders".to_owned()).spawn(move || {
            write_all(output, &waiting);
            told.store(true, Ordering::Relaxed);
        })?;
        Ok(Self {
            orders,
            writer,
            ended,
            config: config.clone(),
            name: name.to_owned(),
            topology,
            routes: Vec::new(),
            answers: Arc::default(),
            said: None,
            anew: false,
            unconfirmed: BTreeSet::new(),
            announced: Announce::Nothing,
        })
    }

    /// Reads what it answers, until `input` ends, which is the end of ExaBGP.
    ///
    /// # Errors
    ///
    /// When the thread that reads cannot be made.
    pub fn listen(
        &self,
        input: impl Read + AsFd + Send + 'static,
        ended: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let answers = Arc::clone(&self.answers);
        let read = move || {
            match until_end(input, |bytes| lock(&answers).read(bytes, Instant::now())) {
                Ok(()) => tracing::info!("ExaBGP ended"),
                Err(error) => tracing::warn!(%error, "ExaBGP is not heard any more"),
            }
            ended();
        };
        std::thread::Builder::new().name("exabgp-answers".to_owned()).spawn(read).map(drop)
    }

    /// What it answered.
    #[must_use]
    pub fn heard(&self) -> Heard {
        lock(&self.answers).heard(Instant::now())
    }

    /// What it is to have answered.
    #[cfg(test)]
    pub(super) fn answers(&self) -> MutexGuard<'_, Answers> {
        lock(&self.answers)
    }

    /// Which families of addresses are announced when anything is: IPv4, IPv6.
    #[must_use]
    pub fn families(&self) -> (bool, bool) {
        let has = |ipv4| self.routes.iter().any(|route| route.prefix.addr().is_ipv4() == ipv4);
        (has(true), has(false))
    }

    /// Says what changed since it was last said, or all of it when it may be lacking.
    ///
    /// # Errors
    ///
    /// When nobody reads: ExaBGP ended, or hangs.
    pub fn say(&mut self, announce: Announce) -> Result<(), String> {
        if announce == Announce::Unchanged {
            return Ok(());
        }
        if self.topology.has_changed().unwrap_or(false) {
            // A topology without this sun leaves what there is.
            let routes = routes(&self.topology.borrow_and_update(), &self.name);
            self.routes = routes.unwrap_or_else(|| std::mem::take(&mut self.routes));
        }
        let wanted = wanted(&self.routes, &self.config, announce);
        self.anew |= lock(&self.answers).tells_anew(Instant::now());
        let lines = match &self.said {
            Some(said) if !self.anew => changes(said, &wanted, &self.config.next_hop),
            _ => begin(&self.routes, &self.unconfirmed, &wanted, &self.config.next_hop),
        };
        if self.ended.load(Ordering::Relaxed) {
            return Err("ExaBGP does not read any more".to_owned());
        }
        self.write(&lines)?;
        self.has_said(wanted);
        self.announced = announce;
        Ok(())
    }

    /// This was written.
    fn has_said(&mut self, wanted: BTreeMap<String, String>) {
        let heard = self.heard();
        if heard.problem.is_none() && heard.answered == Some(true) {
            self.unconfirmed.clear();
        }
        self.unconfirmed.extend(wanted.keys().cloned());
        (self.said, self.anew) = (Some(wanted), false);
    }

    /// Hands orders to the thread that writes, and with them asks it something now and then.
    fn write(&self, lines: &str) -> Result<(), String> {
        let now = Instant::now();
        // What is asked is noted before it can be answered.
        let mut answers = lock(&self.answers);
        let question = answers.asks(now);
        let text = match question {
            None if lines.is_empty() => return Ok(()),
            None | Some(Command::Route) => lines.to_owned(),
            Some(Command::Sessions) => format!("{lines}{SESSIONS}\n"),
            Some(Command::Version) => format!("{lines}{VERSION}\n"),
        };
        match self.orders.try_send(text) {
            Ok(()) => {
                answers.asked(Command::Route, lines.lines().count(), now);
                if let Some(question) = question {
                    answers.asked(question, 1, now);
                }
                Ok(())
            }
            Err(_) if lines.is_empty() => Ok(()),
            Err(_) => Err("ExaBGP does not read: an order waits already".to_owned()),
        }
    }

    /// What was said last, and how many routes as best or backup, and with a lower preference; none: nothing, and what a process
    /// before this one said is not known.
    #[must_use]
    pub fn said(&self) -> Option<(Announce, (usize, usize))> {
        let routes = self.said.as_ref()?.len();
        Some(match self.announced {
            Announce::Drain => (self.announced, (0, routes)),
            _ => (self.announced, (routes, 0)),
        })
    }

    /// Ends, when everything that was said is written.
    pub async fn close(self) {
        drop(self.orders);
        let written = tokio::task::spawn_blocking(move || self.writer.join());
        // One that panicked writes nothing any more, either.
        let _ = written.await;
    }
}

/// What a sun announces while it is well; none: the topology has no such sun.
pub(super) fn routes(topology: &geo::Topology, name: &str) -> Option<Vec<Announcement>> {
    let sun = topology.sun(name)?;
    let region = topology.region(sun.server.region)?;
    let group = region.groups.iter().find(|group| group.number == sun.group)?;
    Some(Assignment::of(topology, &group.name)?.announcements(name))
}

/// Attributes by prefix.
fn wanted(routes: &[Announcement], config: &SpeakerConfig, announce: Announce) -> BTreeMap<String, String> {
    if !matches!(announce, Announce::Best | Announce::Drain) {
        return BTreeMap::new();
    }
    let drains = announce == Announce::Drain;
    routes.iter().map(|route| (route.prefix.to_string(), attributes(route, config, drains))).collect()
}

fn attributes(route: &Announcement, config: &SpeakerConfig, drains: bool) -> String {
    let mut attributes = format!("next-hop {} origin igp", config.next_hop);
    let rank = u32::from(route.rank.unwrap_or(0));
    match config.rank {
        Rank::Med => {
            let metric = rank * MED_A_RANK + if drains { MED_DRAIN } else { 0 };
            let _ = write!(attributes, " med {metric}");
        }
        Rank::Prepend => {
            // The whole path is said: the session's own AS is not put in front of it.
            let count = 1 + if drains { PREPENDS_MAX } else { rank.min(PREPENDS_MAX - 1) };
            let path = vec![config.asn.to_string(); count as usize].join(" ");
            let _ = write!(attributes, " as-path [ {path} ]");
        }
    }
    if drains {
        attributes += " community [65535:0]";
    }
    attributes
}

/// What is said first, and when it may be lacking: it also takes back what a process before this one may have said of these
/// routes, and what this one said of others.
fn begin(
    routes: &[Announcement],
    unconfirmed: &BTreeSet<String>,
    wanted: &BTreeMap<String, String>,
    next_hop: &str,
) -> String {
    let prefixes = routes.iter().map(|route| route.prefix.to_string()).chain(unconfirmed.iter().cloned());
    changes(&prefixes.map(|prefix| (prefix, String::new())).collect(), wanted, next_hop)
}

/// Reads until the end. ExaBGP shares its end of the pipe in a mode that does not wait.
fn until_end(mut input: impl Read + AsFd, mut heard: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => heard(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(&input, PollFlags::IN)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn lock(answers: &Mutex<Answers>) -> MutexGuard<'_, Answers> {
    // What is kept is whole after every step.
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_all(mut output: Box<dyn Write + Send>, orders: &Receiver<String>) {
    for lines in orders {
        if let Err(error) = output.write_all(lines.as_bytes()).and_then(|()| output.flush()) {
            tracing::warn!(%error, "ExaBGP does not read any more");
            return;
        }
    }
}

/// The lines that make of what was said what is wanted; what is new comes first.
fn changes(said: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>, next_hop: &str) -> String {
    let mut lines = String::new();
    for (prefix, attributes) in wanted.iter().filter(|(prefix, attributes)| said.get(*prefix) != Some(attributes)) {
        let _ = writeln!(lines, "announce route {prefix} {attributes}");
    }
    for prefix in said.keys().filter(|prefix| !wanted.contains_key(*prefix)) {
        let _ = writeln!(lines, "withdraw route {prefix} next-hop {next_hop}");
    }
    lines
}

impl std::fmt::Debug for Exabgp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exabgp").field("announced", &self.announced).finish_non_exhaustive()
    }
}

/// Orders that may wait for an ExaBGP that reads slowly: one, and a question before it.
const ORDERS_MAX: usize = 2;

/// What it is asked; `summary` has only the sessions that are up.
const SESSIONS: &str = "show neighbor extensive";

/// Whoever answers this has read everything before it.
const VERSION: &str = "version";

/// As in BIRD's configuration.
const MED_A_RANK: u32 = 100;

/// Above every rank there is: also for routers that do not know the community.
const MED_DRAIN: u32 = 100_000;

/// Routers drop paths that are much longer.
const PREPENDS_MAX: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selfcheck::fixture;

    #[test]
    fn only_changes_are_said() {
        let routes = [route("192.0.2.1/32", Some(0)), route("192.0.2.2/32", Some(2)), route("192.0.2.0/28", None)];
        let config = SpeakerConfig::default();
        let best = wanted(&routes, &config, Announce::Best);
        assert_eq!(
            changes(&BTreeMap::new(), &best, "self"),
            "announce route 192.0.2.0/28 next-hop self origin igp med 0\n\
             announce route 192.0.2.1/32 next-hop self origin igp med 0\n\
             announce route 192.0.2.2/32 next-hop self origin igp med 200\n"
        );
        assert_eq!(changes(&best, &best, "self"), "");
        let drain = wanted(&routes[..1], &config, Announce::Drain);
        assert_eq!(
            changes(&best, &drain, "self"),
            "announce route 192.0.2.1/32 next-hop self origin igp med 100000 community [65535:0]\n\
             withdraw route 192.0.2.0/28 next-hop self\nwithdraw route 192.0.2.2/32 next-hop self\n"
        );
        let nothing = wanted(&routes, &config, Announce::Nothing);
        assert_eq!(changes(&drain, &nothing, "self"), "withdraw route 192.0.2.1/32 next-hop self\n");
    }

    #[test]
    fn what_a_process_before_left_is_withdrawn_with_the_first_word() {
        let routes = [route("192.0.2.1/32", Some(0)), route("192.0.2.0/28", None)];
        let config = SpeakerConfig::default();
        let nothing = wanted(&routes, &config, Announce::Nothing);
        assert_eq!(
            begin(&routes, &BTreeSet::new(), &nothing, "self"),
            "withdraw route 192.0.2.0/28 next-hop self\nwithdraw route 192.0.2.1/32 next-hop self\n"
        );
        let best = wanted(&routes, &config, Announce::Best);
        assert_eq!(begin(&routes, &BTreeSet::new(), &best, "self"), changes(&BTreeMap::new(), &best, "self"));
    }

    #[test]
    fn what_is_refused_is_said_again_also_of_prefixes_that_the_topology_has_lost() {
        let (told, heard) = std::sync::mpsc::channel();
        let topology = |suns| std::sync::Arc::new(geo::Topology::parse(&fixture::topology(suns)).unwrap());
        let (sender, watched) = tokio::sync::watch::channel(topology(2));
        let mut exabgp = Exabgp::new(&SpeakerConfig::default(), "sun4-2-1", watched, Box::new(Told(told))).unwrap();
        let mut say = |answer: &str| {
            let lines = |said: String| said.lines().filter(|line| line.contains(" route ")).map(short).collect();
            exabgp.say(Announce::Best).unwrap();
            let said: Vec<String> = heard.recv().map(lines).unwrap();
            // Every route, and the question that comes with the first.
            let answers = answer.repeat(said.len()) + if said.is_empty() { "" } else { "done\n" };
            lock(&exabgp.answers).read(answers.as_bytes(), Instant::now());
            said
        };
        let all = ["announce 192.0.2.0/24", "announce 192.0.2.1/32", "announce 192.0.2.2/32"];
        assert_eq!(say("error\n"), all);
        sender.send(topology(1)).unwrap();
        let one = ["announce 192.0.2.0/24", "announce 192.0.2.1/32", "withdraw 192.0.2.2/32"];
        assert_eq!(say("done\n"), one);
    }

    #[test]
    fn a_longer_path_ranks_backups() {
        let config =
            SpeakerConfig { rank: Rank::Prepend, asn: 65001, next_hop: "10.0.0.1".into(), ..SpeakerConfig::default() };
        let of = |rank, drains| attributes(&route("192.0.2.1/32", rank), &config, drains);
        assert_eq!(of(Some(0), false), "next-hop 10.0.0.1 origin igp as-path [ 65001 ]");
        assert_eq!(of(Some(2), false), "next-hop 10.0.0.1 origin igp as-path [ 65001 65001 65001 ]");
        assert_eq!(of(Some(0), true).matches("65001").count(), 11);
        assert!(of(Some(0), true).ends_with("community [65535:0]"));
    }

    /// What is done to which prefix.
    fn short(line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!("{} {}", words[0], words[2])
    }

    /// Hears what is written.
    struct Told(std::sync::mpsc::Sender<String>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn route(prefix: &str, rank: Option<u16>) -> Announcement {
        Announcement { prefix: prefix.parse().unwrap(), rank }
    }
}
