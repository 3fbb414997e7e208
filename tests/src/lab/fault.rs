//! What fails in the lab, how it is done, and until when clients are looked at.
//!
//! Each fault has a lab of its own, so that nothing is left of the one before: no penalty for flapping, no warm session.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::documents;
use super::family::Family;
use super::fleet::{Fleet, Member, Options, in_a_lab};
use super::outcome::Outcome;
use super::speaker::Kind;
use crate::poll;

/// What happens to a sun, or to several.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// kill -9 of the sun.
    Killed,
    /// The sun stands still: SIGSTOP.
    Hung,
    /// Its only device takes and gives nothing any more.
    Disk,
    /// Its certificate expires.
    Certificate,
    /// kill -9 of its BGP speaker.
    Speaker,
    /// The cable to the router is cut.
    Link,
    /// Both cables are cut: what a machine without power looks like.
    Machine,
    /// Its machine answers for the group's addresses no more: `ip route del local SUBNET`.
    Unrouted,
    /// More clients than it can serve, on connections that are kept.
    Overloaded,
    /// It is told to drain in the topology.
    Drained,
    /// What `systemctl restart` does: its self-check is stopped, then the sun, and both are started again.
    Restarted,
    /// A new process takes over: SIGUSR2.
    Upgraded,
    /// The device fails of the last sun that is there.
    Last,
    /// Two suns are killed and started again and again.
    Flapping,
}

impl Fault {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 14] = [
        Self::Killed,
        Self::Hung,
        Self::Disk,
        Self::Certificate,
        Self::Speaker,
        Self::Link,
        Self::Machine,
        Self::Unrouted,
        Self::Overloaded,
        Self::Drained,
        Self::Restarted,
        Self::Upgraded,
        Self::Last,
        Self::Flapping,
    ];

    /// One word, for the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Hung => "hung",
            Self::Disk => "disk",
            Self::Certificate => "certificate",
            Self::Speaker => "speaker",
            Self::Link => "link",
            Self::Machine => "machine",
            Self::Unrouted => "unrouted",
            Self::Overloaded => "overloaded",
            Self::Drained => "drained",
            Self::Restarted => "restarted",
            Self::Upgraded => "upgraded",
            Self::Last => "last",
            Self::Flapping => "flapping",
        }
    }

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Killed => "sun killed (-9)",
            Self::Hung => "sun hung (SIGSTOP)",
            Self::Disk => "its disk failed",
            Self::Certificate => "its certificate expired",
            Self::Speaker => "its BGP speaker killed",
            Self::Link => "its link cut",
            Self::Machine => "its machine gone",
            Self::Unrouted => "its local route removed",
            Self::Overloaded => "sun overloaded",
            Self::Drained => "sun drained",
            Self::Restarted => "sun restarted",
            Self::Upgraded => "sun upgraded",
            Self::Last => "last healthy member's disk failed",
            Self::Flapping => "two members flapping",
        }
    }

    /// Why it cannot be played in such a lab.
    #[must_use]
    pub fn lacks(self, options: &Options) -> Option<&'static str> {
        match self {
            Self::Restarted if options.speaker == Kind::Exabgp => {
                Some("with ExaBGP the self-check is no unit that is stopped first")
            }
            Self::Flapping if options.suns < 3 => Some("it takes 3 suns: the last one that is well stays"),
            _ => None,
        }
    }

    /// Plays it in a lab.
    ///
    /// # Panics
    ///
    /// When the lab cannot be made, or what must become so does not within [`poll::DEADLINE`].
    #[must_use]
    pub fn play(self, options: &Options) -> Outcome {
        in_a_lab(options, async |fleet| self.scenario(fleet, options).await)
    }

    async fn scenario(self, fleet: &mut Fleet, options: &Options) -> Outcome {
        if self == Self::Last {
            leave_alone(fleet, options.suns).await;
        }
        let before = self.prepare(fleet);
        let flow = fleet.flow(VICTIM);
        tokio::time::sleep(before.unwrap_or(BEFORE)).await;
        let fault = flow.now();
        self.happen(fleet, options).await;
        tokio::time::sleep(AFTER).await;
        let end = flow.now();
        let states = if options.checked { states(fleet) } else { Vec::new() };
        let targets =
            fleet.members.iter().flat_map(|member| member.addresses().into_iter().map(|_| member.name.clone()));
        let targets: Vec<String> = targets.collect();
        let mut outcome = Outcome::of(self, &flow.end(), &targets, &documents::name(VICTIM), (fault, end));
        outcome.states = states;
        outcome.most_away = fleet.most_away;
        outcome
    }

    /// What must be done beforehand; returned is when it happens by itself.
    fn prepare(self, fleet: &mut Fleet) -> Option<Duration> {
        if self != Self::Certificate {
            return None;
        }
        // A certificate is valid to the end of a second.
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970") + CERTIFICATE_TAKEN;
        let last = UNIX_EPOCH + Duration::from_secs(seconds.as_secs());
        fleet.expire_certificate(VICTIM, last);
        let end = last + Duration::from_secs(1);
        Some(end.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// Does it, and waits until what must follow has followed.
    async fn happen(self, fleet: &mut Fleet, options: &Options) {
        match self {
            Self::Killed => fleet.member(VICTIM).sun.as_mut().expect("it runs").kill(),
            Self::Hung => fleet.member(VICTIM).signal_sun(Signal::STOP),
            Self::Disk => fleet.member(VICTIM).break_disk(),
            // Its time has come.
            Self::Certificate => {}
            Self::Speaker => fleet.member(VICTIM).speaker.as_mut().expect("it runs").kill(),
            Self::Link => drop(fleet.router.ip(&format!("link set sun{VICTIM} down"))),
            Self::Machine => lose(fleet, VICTIM),
            Self::Unrouted => unroute(fleet, options.family),
            Self::Overloaded => return overload(fleet).await,
            Self::Drained => fleet.drain(&[VICTIM]),
            Self::Restarted => return restart(fleet, &options.check_more).await,
            Self::Upgraded => return upgrade(fleet).await,
            Self::Last => {
                fleet.member(VICTIM).break_disk();
                return tokio::time::sleep(AFTER).await;
            }
            Self::Flapping => return flap(fleet).await,
        }
        let notices = options.checked || matches!(self, Self::Speaker | Self::Link | Self::Machine);
        if notices {
            fleet.until_away(VICTIM).await;
        }
    }
}

/// What `systemctl restart` does with the units: the self-check is stopped first, which withdraws, and started last.
async fn restart(fleet: &mut Fleet, check_more: &str) {
    if let Some(check) = &mut fleet.member(VICTIM).check {
        check.terminate();
        check.until_ended().await;
    }
    let sun = fleet.member(VICTIM).sun.as_mut().expect("it runs");
    sun.terminate();
    sun.until_ended().await;
    fleet.member(VICTIM).start_sun().await;
    fleet.member(VICTIM).start_check(check_more).await;
    fleet.until_home().await;
}

/// What the self-check is to notice: nothing answers at the sun's addresses, and all else is well.
fn unroute(fleet: &mut Fleet, family: Family) {
    let machine = &fleet.member(VICTIM).machine;
    machine.ip(&format!("-{} route del local {} dev lo", family.each()[0].word(), family.subnet()));
}

/// A crowd comes, stays and goes. Whether the sun is relieved of it, or too slow for that, is the machine's to say. The others have the
/// same cores: one that suddenly takes longer than two probes is taken for hung before it is known to be slow, and leaves as well
/// while another one is well.
async fn overload(fleet: &mut Fleet) {
    let crowd = fleet.crowd(VICTIM);
    let began = Instant::now();
    while began.elapsed() < OVERLOAD {
        fleet.most_away = fleet.most_away.max(fleet.away());
        tokio::time::sleep(LOOK).await;
    }
    drop(crowd);
}

async fn upgrade(fleet: &mut Fleet) {
    let sun = fleet.member(VICTIM).sun.as_mut().expect("it runs");
    let former = sun.upgrade().await;
    poll::until_true("the end of the former process", || async { !sun.runs(former) }).await;
}

/// Two suns die and come back, until both are held or it was enough.
async fn flap(fleet: &mut Fleet) {
    for _ in 0..FLAPS {
        for number in [VICTIM, VICTIM + 1] {
            fleet.member(number).sun.as_mut().expect("it runs").kill();
        }
        fleet.until_away(VICTIM).await;
        fleet.until_away(VICTIM + 1).await;
        for number in [VICTIM, VICTIM + 1] {
            fleet.member(number).start_sun().await;
        }
        let held = || async { states(fleet).iter().filter(|state| state.contains(" is Held ")).count() == 2 };
        let routed = || async {
            let routes = fleet.routes();
            let at = |number| routes.iter().filter(|(_, by)| *by == number).count();
            at(VICTIM) > 0 && at(VICTIM + 1) > 0
        };
        poll::until_true("both are announced again, or held", || async { routed().await || held().await }).await;
        if held().await {
            return;
        }
    }
}

/// Takes all machines but the victim's away.
async fn leave_alone(fleet: &mut Fleet, suns: u8) {
    for number in 1..=suns {
        if number != VICTIM {
            lose(fleet, number);
        }
    }
    poll::until_true("one is left", || async { fleet.routes().iter().all(|(_, by)| *by == VICTIM) }).await;
}

fn lose(fleet: &Fleet, number: u8) {
    fleet.router.ip(&format!("link set sun{number} down"));
    fleet.cut_internal(number);
}

/// What each self-check says of its sun.
fn states(fleet: &Fleet) -> Vec<String> {
    fleet.members.iter().map(Member::state).collect()
}

/// Which sun it happens to; a second one is the next.
const VICTIM: u8 = 1;

/// Requests flow for so long before.
const BEFORE: Duration = Duration::from_millis(1500);

/// A sun has taken a changed certificate by then.
const CERTIFICATE_TAKEN: Duration = Duration::from_secs(6);

/// And for so long after what must follow has followed.
const AFTER: Duration = Duration::from_millis(3000);

/// The crowd stays for so long.
const OVERLOAD: Duration = Duration::from_secs(8);

/// Between two looks at who is announced.
const LOOK: Duration = Duration::from_millis(50);

/// More falls than a sun is allowed.
const FLAPS: usize = 5;
