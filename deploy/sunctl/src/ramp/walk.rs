//! A plan carried out, in the foreground: a step, a pause, the next step.
//!
//! ```text
//!   preview, consent --> step --written--> pause --> step ... --> done               status 0
//!                         ^ |                |
//!             wait, again +-+ no answer      +-- Ctrl-C ----------> where it stands  status 1
//!                           +-- for 5 minutes, or refused --------> where it stands  status 1
//! ```
//!
//! All steps of one ramp are one entry of the history. A step whose answer got lost may have been written: the next try finds
//! the server as the step leaves it, and goes on. A ramp that ends before that says both weights that the server may have.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use geo::answer::Answer;
use geo::etcd::EtcdError;
use geo::{Source, Topology, Weight};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Plan;
use crate::edit::{Edit, State};
use crate::topology::change::{self, Consent, Draft, Signature};
use crate::topology::store::{Held, Store};
use crate::weight::{self, Told, Wish, named};

/// Changes a server's weight in steps; Ctrl-C leaves it where it is.
///
/// # Errors
///
/// As [`weight::set`]. What goes wrong after the first step is an answer that says where it stands.
pub async fn set(
    source: &Source,
    wish: Wish<'_>,
    over: Duration,
    by: &Signature,
    consent: Consent<'_>,
    told: &Told,
) -> anyhow::Result<Answer> {
    let store = Store::open(source)?;
    let held = store.read().await?;
    let whole = weight::draft(&held, wish, told)?;
    let topology = held.topology()?.context("there is no topology yet")?;
    let from = state(&topology, wish.server)?;
    let plan = plan(&topology, wish, from, over)?;
    if whole.is_what(&held) {
        return Ok(plan.answer(format!("{}\nNothing was written.\n", whole.preview), Stand::Untouched, true));
    }
    let preview = format!("{}{}", whole.preview, plan.text());
    match consent {
        Consent::Never => {
            return Ok(plan.answer(format!("{preview}Nothing was written (--dry-run).\n"), Stand::Untouched, true));
        }
        Consent::Given => tell(&preview),
        Consent::Asked(ask) => {
            if !ask(&preview)? {
                return Ok(plan.answer("Nothing was written.\n".to_owned(), Stand::Untouched, true));
            }
        }
    }
    // Heard from here on: one that comes while a step is written ends the ramp after it.
    let interrupted = signal(SignalKind::interrupt()).context("signals cannot be listened to")?;
    let series = format!("{:016x}", rand::random::<u64>());
    let stand = Stand::Untouched;
    let walk = Walk { store: &store, by, wish, series, first: from, now: from, stand, interrupted };
    Ok(walk.run(&plan).await)
}

/// How far a ramp is.
struct Walk<'a> {
    store: &'a Store,
    by: &'a Signature,
    wish: Wish<'a>,
    /// What its steps have in common.
    series: String,
    /// Where it began.
    first: State,
    /// What is known to be written: at first what was there.
    now: State,
    /// What is known of this.
    stand: Stand,
    interrupted: Signal,
}

/// What a ramp did to the document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stand {
    /// Nothing.
    Untouched,
    /// It wrote this, and nothing after it.
    Written(State),
    /// It asked for this, and has no answer: it may be so.
    Asked(State),
}

/// Why a ramp ends before its end.
enum Stop {
    Interrupted,
    Failed(anyhow::Error),
}

impl Walk<'_> {
    async fn run(mut self, plan: &Plan) -> Answer {
        let steps = steps(plan, self.wish.edit, self.first);
        for (step, &after) in (1..).zip(&steps) {
            let left = plan.every * u32::try_from(steps.len() - step).unwrap_or(u32::MAX);
            if let Err(stop) = self.step(after, (step, steps.len())).await {
                return self.stopped(plan, &stop, left);
            }
            (self.now, self.stand) = (after, Stand::Written(after));
            tell(&format!("{}: {}, step {step} of {}\n", self.wish.server, words(after), steps.len()));
            if step == steps.len() {
                break;
            }
            let interrupted = tokio::select! {
                () = tokio::time::sleep(plan.every) => false,
                _ = self.interrupted.recv() => true,
            };
            if interrupted {
                return self.stopped(plan, &Stop::Interrupted, left.saturating_sub(plan.every));
            }
        }
        let said = format!("Done: {} has {}.\n", self.wish.server, words(self.now));
        plan.answer(said, self.stand, true)
    }

    /// Writes one step, however often the cluster has to be asked, within [`OUTAGE_MAX`].
    async fn step(&mut self, after: State, (step, count): (usize, usize)) -> Result<(), Stop> {
        let (server, first) = (self.wish.server, words(self.first));
        let name = named(server, self.wish.edit);
        let what = if step == count {
            format!("{name} --over: {first} -> {} in {count} steps", words(after))
        } else {
            format!("{name} --over: {first} -> {}, step {step} of {count}", words(after))
        };
        let (mut since, mut tries) = (None, 0);
        loop {
            let draft = |held: &Held| self.draft(held, after, &what);
            let Err(error) = change::make(self.store, self.by, Consent::Given, draft).await else { return Ok(()) };
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            let outage = matches!(error.downcast_ref::<EtcdError>(), Some(EtcdError::Unreachable(_)));
            if outage {
                self.stand = Stand::Asked(after);
            }
            let Some(wait) = pause(waited, tries).filter(|_| outage) else { return Err(Stop::Failed(error)) };
            tries += 1;
            let left = OUTAGE_MAX.saturating_sub(waited).as_secs();
            tell(&format!("{server}: {}; waiting for the cluster, {left} s at most: {error:#}\n", words(self.now)));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = self.interrupted.recv() => return Err(Stop::Interrupted),
            }
        }
    }

    /// One step, if nobody else changed the server since the last one.
    fn draft(&self, held: &Held, after: State, what: &str) -> anyhow::Result<Draft> {
        let server = self.wish.server;
        let now = state(&held.topology()?.context("the topology is gone")?, server)?;
        if now != self.now && now != after {
            bail!("somebody changed {server} meanwhile: it has {} and keeps it", words(now));
        }
        let wish = Wish { edit: Edit::State(after), ..self.wish };
        let draft = weight::draft(held, wish, &Told::default())?;
        Ok(Draft { what: what.to_owned(), series: Some(self.series.clone()), ..draft })
    }

    fn stopped(&self, plan: &Plan, stop: &Stop, left: Duration) -> Answer {
        let (server, now, left) = (self.wish.server, words(self.now), left.as_secs().max(1));
        let place = match self.stand {
            Stand::Untouched => format!("Nothing was written: {server} had {now}."),
            Stand::Written(_) => format!("{server} has {now} and keeps it."),
            Stand::Asked(after) => format!(
                "{server} has {now}, or {} if the last write went through: `sunctl weight show` tells.",
                words(after)
            ),
        };
        let why = match stop {
            Stop::Interrupted => format!("Stopped: {place}"),
            Stop::Failed(error) => format!("Stopped: {error:#}\n{place}"),
        };
        let on = match self.wish.edit {
            Edit::Drain => format!(
                "`sunctl drain {server} --over {left}s` goes on (its weight was {}: `resume` then gives {}).",
                self.first.weight, self.now.weight
            ),
            Edit::Resume if self.now == self.first => format!("`sunctl resume {server} --over {left}s` begins again."),
            Edit::Resume => format!("`sunctl weight set {server} {} --over {left}s` goes on.", self.first.weight),
            Edit::Weight(to) | Edit::State(State { weight: to, .. }) => {
                format!("`sunctl weight set {server} {to} --over {left}s` goes on.")
            }
        };
        plan.answer(format!("{why} {on}\n"), self.stand, false)
    }
}

impl Plan {
    /// For programs, what is not known is null.
    fn answer(&self, text: String, stand: Stand, good: bool) -> Answer {
        let (weight, written) = match stand {
            Stand::Untouched => (None, Some(false)),
            Stand::Written(state) => (Some(state.weight), Some(true)),
            Stand::Asked(_) => (None, None),
        };
        let json = json!({
            "weights": self.weights,
            "every_s": self.every.as_secs_f64(),
            "over_s": self.over().as_secs_f64(),
            "moved_max": self.moved_max,
            "weight": weight,
            "written": written,
        });
        Answer { text, json, good }
    }
}

/// What the server is after each step. A server that drains keeps its weight, which only the last step of a drain and none of
/// a resumption can write.
fn steps(plan: &Plan, edit: Edit, first: State) -> Vec<State> {
    let serving = |&weight: &u16| State { weight, draining: false };
    let mut steps: Vec<State> = plan.weights.iter().map(serving).collect();
    let last = match edit {
        Edit::Weight(weight) => State { weight, ..first },
        Edit::State(state) => state,
        Edit::Drain => State { draining: true, ..first },
        Edit::Resume => State { draining: false, ..first },
    };
    // The last step to no weight is the drain itself; a plan that moves nothing has no step, and the change still is one.
    steps.pop();
    steps.push(last);
    steps
}

/// The plan of a server in a topology, by what counts of its weight.
fn plan(topology: &Topology, wish: Wish<'_>, from: State, over: Duration) -> anyhow::Result<Plan> {
    let own = topology.server(wish.server).context("the server is gone")?;
    let region = topology.region(own.region).context("the region is gone")?;
    let weights: Vec<(&str, Weight)> = if topology.sun(wish.server).is_some() {
        region.suns.iter().map(|sun| (sun.server.name.as_str(), sun.server.weight)).collect()
    } else {
        region.caches.iter().map(|cache| (cache.server.name.as_str(), cache.server.weight)).collect()
    };
    let others = weights.iter().filter(|(name, _)| *name != wish.server).map(|(_, weight)| weight.get());
    let serves = |state: State| if state.draining { 0 } else { state.weight };
    let to = match wish.edit {
        Edit::Weight(weight) => State { weight, ..from },
        Edit::State(state) => state,
        Edit::Drain => State { draining: true, ..from },
        Edit::Resume => State { draining: false, ..from },
    };
    // Where what counts stays, as of a server that drains and gets another weight, there is nothing to do in steps.
    let (from, to) = (serves(from), serves(to));
    Ok(Plan::new(&others.collect::<Vec<_>>(), from, to, over))
}

fn state(topology: &Topology, server: &str) -> anyhow::Result<State> {
    let server = topology.server(server).with_context(|| format!("{server} is gone"))?;
    Ok(State { weight: server.weight_wanted.get(), draining: server.draining() })
}

fn words(State { weight, draining }: State) -> String {
    format!("weight {weight}{}", if draining { ", draining" } else { "" })
}

/// How long to wait before the next try of a cluster that has not answered for so long; none: it was long enough.
fn pause(waited: Duration, tries: u32) -> Option<Duration> {
    let pause = PAUSE * 2_u32.saturating_pow(tries);
    (waited < OUTAGE_MAX).then(|| pause.min(PAUSE_MAX).min(OUTAGE_MAX - waited))
}

/// Progress goes beside the answer, which is told at the end.
fn tell(text: &str) {
    // Who does not listen wants no progress.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// How long a cluster may be away. Too short: an upgrade of its members ends the ramp; too long: nobody hears of it.
const OUTAGE_MAX: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_grow_and_end_when_it_was_long_enough() {
        let (mut waited, mut pauses) = (Duration::ZERO, Vec::new());
        while let Some(wait) = pause(waited, pauses.len() as u32) {
            pauses.push(wait.as_secs());
            waited += wait;
        }
        assert_eq!(pauses[..6], [1, 2, 4, 8, 15, 15]);
        assert_eq!(waited, OUTAGE_MAX);
        assert_eq!(pause(Duration::ZERO, u32::MAX), Some(PAUSE_MAX));
    }

    #[test]
    fn a_drain_in_steps_keeps_the_weight_and_a_resumption_gives_it_back() {
        let (serving, drained) = (at(100, false), at(100, true));
        let down = Plan::new(&[100], 100, 0, Duration::from_secs(600));
        let up = Plan::new(&[100], 0, 100, Duration::from_secs(600));
        let steps_down = steps(&down, Edit::Drain, serving);
        assert_eq!(steps_down.last(), Some(&drained));
        assert!(
            steps_down[..steps_down.len() - 1].iter().all(|step| !step.draining && step.weight > 0),
            "{steps_down:?}"
        );
        let steps_up = steps(&up, Edit::Resume, drained);
        assert_eq!((steps_up.last(), steps_up.len()), (Some(&serving), up.weights.len()));
        assert!(steps_up.iter().all(|step| !step.draining && step.weight > 0), "{steps_up:?}");
        let nothing = Plan::new(&[100], 0, 0, Duration::from_secs(600));
        assert_eq!(steps(&nothing, Edit::Drain, at(0, false)), [at(0, true)]);
        assert_eq!(steps(&nothing, Edit::Resume, at(0, true)), [at(0, false)]);
    }

    #[test]
    fn a_server_that_drains_gets_another_weight_in_one_step() {
        let drained = TOPOLOGY.replacen("weight = 100", "weight = 100\ndraining = true", 1);
        let topology = Topology::parse(&drained).unwrap();
        let of = |edit| {
            let wish = Wish { server: "sun4-2-1", edit, guard: weight::Guard::Last };
            let plan = plan(&topology, wish, at(100, true), Duration::from_secs(600)).unwrap();
            steps(&plan, edit, at(100, true))
        };
        assert_eq!(of(Edit::Weight(50)), [at(50, true)]);
        assert_eq!(of(Edit::Drain), [at(100, true)]);
        assert_eq!(of(Edit::Resume).len(), 20);
    }

    #[tokio::test]
    async fn a_ramp_that_ends_early_says_what_it_knows_to_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::File(folder.path().join("topology.toml"));
        let by = Signature::new("ann", "").unwrap();
        let plan = Plan::new(&[100], 100, 50, Duration::from_secs(600));
        let on = "`sunctl weight set sun4-2-1 50 --over 60s` goes on.\n";
        for (stand, stop, weight, written, says) in [
            (
                Stand::Untouched,
                Stop::Failed(anyhow::anyhow!("full")),
                None,
                Some(false),
                "Stopped: full\nNothing was written: sun4-2-1 had weight 80.",
            ),
            (
                Stand::Written(at(80, false)),
                Stop::Interrupted,
                Some(80),
                Some(true),
                "Stopped: sun4-2-1 has weight 80 and keeps it.",
            ),
            (
                Stand::Asked(at(70, false)),
                Stop::Interrupted,
                None,
                None,
                "Stopped: sun4-2-1 has weight 80, or weight 70 if the last write went through: `sunctl weight show` tells.",
            ),
        ] {
            let wish = Wish { server: "sun4-2-1", edit: Edit::Weight(50), guard: weight::Guard::Last };
            let (interrupted, first, now) = (signal(SignalKind::interrupt()).unwrap(), at(100, false), at(80, false));
            let walk = Walk { store: &store, by: &by, wish, series: String::new(), first, now, stand, interrupted };
            let answer = walk.stopped(&plan, &stop, Duration::from_secs(60));
            assert_eq!(answer.text, format!("{says} {on}"));
            assert_eq!((&answer.json["weight"], &answer.json["written"]), (&json!(weight), &json!(written)));
            assert!(!answer.good);
        }
    }

    #[tokio::test]
    async fn the_first_step_that_is_refused_is_no_write() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        std::fs::write(&file, TOPOLOGY).unwrap();
        // A file where the folder of the history is to be.
        std::fs::write(folder.path().join("topology.toml.history"), "").unwrap();
        let answer = walked(&file, Edit::Drain, at(100, false)).await;
        assert!(!answer.good && answer.text.contains("Nothing was written"), "{}", answer.text);
        assert_eq!((&answer.json["weight"], &answer.json["written"]), (&json!(null), &json!(false)));
    }

    #[tokio::test]
    async fn a_server_is_drained_and_resumed_in_steps_which_are_one_change_each() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        std::fs::write(&file, TOPOLOGY).unwrap();
        let now = || state(&Topology::parse(&std::fs::read_to_string(&file).unwrap()).unwrap(), "sun4-2-1").unwrap();
        let answer = walked(&file, Edit::Drain, at(100, false)).await;
        assert_eq!(answer.text, "Done: sun4-2-1 has weight 100, draining.\n");
        assert_eq!((answer.good, now()), (true, at(100, true)));
        let answer = walked(&file, Edit::Resume, at(100, true)).await;
        assert_eq!((answer.good, now()), (true, at(100, false)));
        let history = Store::File(file.clone()).history(9).await.unwrap();
        let changes: Vec<&str> = history.iter().map(|entry| entry.change.as_str()).collect();
        assert_eq!(changes[0], "resume sun4-2-1 --over: weight 100, draining -> weight 100 in 20 steps");
        assert_eq!(changes[1], "drain sun4-2-1 --over: weight 100 -> weight 100, draining in 20 steps");
        assert_eq!(changes.len(), 3, "and what was found: {changes:?}");
        // Somebody else was there since this one looked.
        let answer = walked(&file, Edit::Drain, at(90, false)).await;
        assert_eq!((answer.good, now()), (false, at(100, false)));
        for said in
            ["somebody changed sun4-2-1 meanwhile: it has weight 100 and keeps it", "`sunctl drain sun4-2-1 --over "]
        {
            assert!(answer.text.contains(said), "{}", answer.text);
        }
    }

    /// A ramp without pauses.
    async fn walked(file: &std::path::Path, edit: Edit, first: State) -> Answer {
        let (from, to) = if edit == Edit::Drain { (first.weight, 0) } else { (0, first.weight) };
        let plan = Plan { every: Duration::ZERO, ..Plan::new(&[100], from, to, Duration::from_secs(600)) };
        let by = Signature::new("ann", "").unwrap();
        let wish = Wish { server: "sun4-2-1", edit, guard: weight::Guard::Last };
        let interrupted = signal(SignalKind::interrupt()).unwrap();
        let store = Store::File(file.to_owned());
        let series = format!("{edit:?}");
        let stand = Stand::Untouched;
        Walk { store: &store, by: &by, wish, series, first, now: first, stand, interrupted }.run(&plan).await
    }

    const TOPOLOGY: &str = r#"
version = 7
domain = "example.org"
default_region = 4
content_servers = { url = "http://cs{number}", numbers = ["1"] }
region = [{ id = 4, name = "Moscow", latitude = 55.75, longitude = 37.6 }]
group = [{ name = "sun4-2", subnet = "192.0.2.0/26" }]

[[sun]]
name = "sun4-2-1"
addresses = ["192.0.2.1"]
internal = "10.4.2.1:8081"
weight = 100

[[sun]]
name = "sun4-2-2"
addresses = ["192.0.2.2"]
internal = "10.4.2.2:8081"
weight = 100
"#;

    const fn at(weight: u16, draining: bool) -> State {
        State { weight, draining }
    }
}
