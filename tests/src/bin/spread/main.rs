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
    let wanted = std::env::args().nth(1);
    let runs = scenarios.iter().filter(|scenario| wanted.as_ref().is_none_or(|wanted| scenario.name.contains(wanted)));
    let results: Vec<(&Scenario, Vec<Second>)> = runs.map(|scenario| (scenario, scenario.run())).collect();
    println!(
        "\n| scenario | highest | within | then at most | extra copies | sent on, then |\n|---|---|---|---|---|---|"
    );
    for (scenario, seconds) in &results {
        println!("{}", scenario.line(seconds));
    }
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
    fn run(&self) -> Vec<Second> {
        let mut region = Region::new(self.file, self.links, self.redirect, self.api);
        for _ in 0..BEFORE_S {
            region.second(0.0);
        }
        println!("{}", self.name);
        let mut seconds = Vec::new();
        for second in 0..AFTER_S {
            seconds.push(region.second(0.2));
            if second < SHOWN_S {
                println!("  second {second:2}: {}", seconds[second]);
            }
        }
        seconds
    }

    /// A row of the table. "Within": the first second after which no one is above the goal.
    fn line(&self, seconds: &[Second]) -> String {
        let highest = seconds.iter().map(Second::ratio).fold(0.0, f64::max);
        let last_above = seconds.iter().rposition(|second| second.ratio() > GOAL);
        let within = last_above.map_or(0, |last| last + 1);
        let settled = &seconds[within..];
        let then = settled.iter().map(Second::ratio).fold(0.0, f64::max);
        let (within, then) = if settled.is_empty() {
            (
                "never".to_owned(),
                format!("{:.2}", seconds[seconds.len() / 2..].iter().map(Second::ratio).fold(0.0, f64::max)),
            )
        } else {
            (format!("{within} s"), format!("{then:.2}"))
        };
        let last = &seconds[seconds.len() - 1];
        format!(
            "| {} | {highest:.2} | {within} | {then} | {} | {:.1} % |",
            self.name,
            last.copies,
            last.sent_on as f64 * 100.0 / region::REQUESTS as f64
        )
    }
}

/// Seconds before, for the state to settle.
const BEFORE_S: usize = 30;
/// Seconds of the file's fame.
const AFTER_S: usize = 45;
/// Seconds that are printed.
const SHOWN_S: usize = 12;
/// Busiest sun / mean.
const GOAL: f64 = 1.15;
