//! One file suddenly takes a fifth of all requests of a region of 20 suns: how long is any of them busier than the
//! others? A simulation with the product's own deciding code: links, hot files and gauges of `popularity_api`, the
//! sketch, rates and redirects of `sun`; only clock, dice and network are simulated.
//!
//! ```text
//!   40,000 requests/s, Zipf --> link maker (state of a second ago) --> sun: 307? serve, count
//!                                   ^                                    |  each second, all at different moments
//!                                   +----- popularity API <--- status ---+--> spread, gauges, what to pass on
//! ```

mod region;

use region::{Links, Region, Second};

fn main() {
    let (wanted, seeds) = options();
    println!("20 suns, {} requests/s, Zipf 1.0 over {} files; at second 0 one file", region::REQUESTS, region::FILES);
    println!("takes 20 % of all requests. Gauges are 1 to 2 s old. Goal: busiest / mean <= 1.15 within 5 s.\n");
    let plain = Scenario { name: "links made anew", ..Scenario::default() };
    let scenarios = [
        Scenario { name: "links made anew", ..plain },
        Scenario { name: "links made anew, power of two choices undamped", links: Links::Undamped, ..plain },
        Scenario { name: "old links fade (60 s), no 307", links: Links::Fading, redirect: false, ..plain },
        Scenario { name: "old links fade (60 s), 307", links: Links::Fading, ..plain },
        Scenario { name: "old links for good, no 307", links: Links::Owner, redirect: false, ..plain },
        Scenario { name: "old links for good, 307", links: Links::Owner, ..plain },
        Scenario { name: "API away, no 307", links: Links::Owner, redirect: false, api: false, ..plain },
        Scenario { name: "API away, 307", links: Links::Owner, api: false, ..plain },
        Scenario { name: "spread = \"all\", links made anew", file: "c1/viral.ts", ..plain },
        Scenario {
            name: "spread = \"all\", old links for good, 307",
            file: "c1/viral.ts",
            links: Links::Owner,
            ..plain
        },
    ];
    let runs = scenarios.iter().filter(|scenario| scenario.name.contains(&wanted));
    let results: Vec<(&Scenario, Vec<Run>)> =
        runs.map(|scenario| (scenario, (0..seeds).map(|seed| scenario.run(seed)).collect())).collect();
    println!("\nLeast..most of {seeds} seeds.\n");
    println!("| scenario | before | highest | within | then at most | extra copies | sent on, then |");
    println!("|---|---|---|---|---|---|---|");
    for (scenario, runs) in &results {
        println!("{}", line(scenario.name, runs));
    }
}

/// `[NAME] [--seeds N]`: part of the names of the scenarios that are run, and how often each is, with other dice and
/// other names of files, and so other owners.
fn options() -> (String, u64) {
    let mut words = std::env::args().skip(1).peekable();
    let wanted = words.next_if(|word| !word.starts_with("--")).unwrap_or_default();
    let seeds = match (words.next().as_deref(), words.next().map(|seeds| seeds.parse())) {
        (None, _) => 1,
        (Some("--seeds"), Some(Ok(seeds))) if seeds > 0 => seeds,
        _ => panic!("usage: spread [NAME] [--seeds N]"),
    };
    (wanted, seeds)
}

#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    /// The file that gets hot.
    file: &'static str,
    links: Links,
    redirect: bool,
    /// The popularity API answers.
    api: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self { name: "", file: "c1/viral.jpg", links: Links::Fresh, redirect: true, api: true }
    }
}

impl Scenario {
    fn run(&self, seed: u64) -> Run {
        let mut region = Region::new(self.file, self.links, self.redirect, self.api, seed);
        let mut before = 0.0;
        for second in 0..BEFORE_S {
            let ratio = region.second(0.0).ratio();
            if second >= BEFORE_S / 2 {
                before = f64::max(before, ratio);
            }
        }
        println!("{}, seed {seed}", self.name);
        let mut seconds = Vec::new();
        for second in 0..AFTER_S {
            seconds.push(region.second(0.2));
            if second < SHOWN_S {
                println!("  second {second:2}: {}", seconds[second]);
            }
        }
        Run { before, seconds }
    }
}

/// One scenario with one seed.
#[derive(Debug)]
struct Run {
    /// Busiest / mean before the file's fame, at most.
    before: f64,
    seconds: Vec<Second>,
}

impl Run {
    /// The first second after which no one is above the goal; none when that never comes.
    fn within(&self) -> Option<usize> {
        let within = self.seconds.iter().rposition(|second| second.ratio() > GOAL).map_or(0, |last| last + 1);
        (within < self.seconds.len()).then_some(within)
    }

    /// Busiest / mean at most, from that second on; in the second half when it never comes.
    fn then(&self) -> f64 {
        let settled = &self.seconds[self.within().unwrap_or(self.seconds.len() / 2)..];
        settled.iter().map(Second::ratio).fold(0.0, f64::max)
    }
}

/// A row of the table.
fn line(name: &str, runs: &[Run]) -> String {
    let never = runs.iter().filter(|run| run.within().is_none()).count();
    let within = match runs.iter().filter_map(Run::within).collect::<Vec<_>>() {
        ends if ends.is_empty() => "never".to_owned(),
        ends if never > 0 => format!("{} s; never: {never}", between(ends.iter().map(|&end| end as f64), 0)),
        ends => format!("{} s", between(ends.iter().map(|&end| end as f64), 0)),
    };
    let last = |run: &Run| run.seconds[run.seconds.len() - 1].clone();
    format!(
        "| {name} | {} | {} | {within} | {} | {} | {} % |",
        between(runs.iter().map(|run| run.before), 2),
        between(runs.iter().map(|run| run.seconds.iter().map(Second::ratio).fold(0.0, f64::max)), 2),
        between(runs.iter().map(Run::then), 2),
        between(runs.iter().map(|run| last(run).copies as f64), 0),
        between(runs.iter().map(|run| last(run).sent_on as f64 * 100.0 / region::REQUESTS as f64), 1),
    )
}

/// The least and the most of some numbers.
fn between(numbers: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let (least, most) = (numbers[0], numbers[numbers.len() - 1]);
    let (least, most) = (format!("{least:.digits$}"), format!("{most:.digits$}"));
    if least == most { least } else { format!("{least}..{most}") }
}

/// Seconds before, for the state to settle.
const BEFORE_S: usize = 30;
/// Seconds of the file's fame.
const AFTER_S: usize = 45;
/// Seconds that are printed.
const SHOWN_S: usize = 12;
/// Busiest sun / mean.
const GOAL: f64 = 1.15;
