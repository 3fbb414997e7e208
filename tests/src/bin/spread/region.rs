//! The simulated region: 20 suns, an API, a link maker a second behind it, and their users.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;

use geo::{CanonicalName, ContentId, RegionId, Scheme, Topology};
use popularity_api::balance;
use popularity_api::holdings::{Bounds, Holdings};
use popularity_api::hot::Rule;
use popularity_api::links::{self, Knowledge, Visitor};
use popularity_api::purge::{Ledger, log::Log};
use popularity_api::status::Registry;
use popularity_api::wire::{HotRate, Load, RegionState, StatusReport};
use sun::config::HotConfig;
use sun::hot::Passing;
use sun::hot::detector::Window;
use sun::hot::turn::{Place, Turns};
use sun::region::{RegionView, Suspended, Witnesses};

/// Where the requests for the file come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Links {
    /// Links made at the moment of the request.
    Fresh,
    /// As before, of two drawn always the less busy.
    Undamped,
    /// Links from before, which name the owner, and whose share fades by half in 42 s (a page lives 60 s on average).
    Fading,
    /// Links from before only.
    Owner,
}

/// What happened within a second.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    /// Requests served by each sun.
    pub(crate) served: Vec<u64>,
    /// Requests for the file that its owner sent on.
    pub(crate) sent_on: u64,
    /// Suns beside the owner that have served the file so far.
    pub(crate) copies: usize,
    /// Suns that the link maker shares the file between.
    pub(crate) spread: usize,
}

pub(crate) struct Region {
    topology: Topology,
    holdings: Holdings,
    api: Option<Registry>,
    replica: Registry,
    purges: Ledger,
    /// Reports on their way to the link maker, with their times.
    late: VecDeque<(u64, StatusReport)>,
    suns: Vec<SimulatedSun>,
    numbers: HashMap<String, usize>,
    files: Vec<String>,
    sums: Vec<f64>,
    hot: String,
    links: Links,
    redirect: bool,
    random: u64,
    now_ms: u64,
    fame_s: f64,
    holders: Vec<bool>,
}

struct SimulatedSun {
    name: String,
    window: Window,
    turns: Turns,
    view: RegionView,
    passing: Passing,
    served: u64,
    reported: u64,
}

impl Region {
    pub(crate) fn new(hot: &str, links: Links, redirect: bool, api: bool, seed: u64) -> Self {
        let topology = topology();
        let region = topology.region(RegionId(4)).expect("it is in the document");
        let suns: Vec<SimulatedSun> = region.suns.iter().map(|sun| SimulatedSun::new(&sun.server.name)).collect();
        let mut sums = Vec::with_capacity(FILES);
        for file in 1..=FILES {
            sums.push(sums.last().unwrap_or(&0.0) + 1.0 / file as f64);
        }
        Self {
            numbers: suns.iter().enumerate().map(|(number, sun)| (sun.name.clone(), number)).collect(),
            holdings: Holdings::new(Bounds { files_max: 1, log_max: 1 }),
            api: api.then(|| Registry::new(Rule::default(), 0)),
            replica: Registry::new(Rule::default(), 0),
            purges: no_purges(),
            late: VecDeque::new(),
            holders: vec![false; suns.len()],
            suns,
            files: (0..FILES).map(|file| format!("c1/{seed}/{file}.jpg")).collect(),
            sums,
            hot: hot.to_owned(),
            links,
            redirect,
            random: 0x9e37_79b9_7f4a_7c15 ^ (seed << 1),
            now_ms: 10_000,
            fame_s: 0.0,
            topology,
        }
    }

    /// A second in which the file has this share of all requests.
    pub(crate) fn second(&mut self, share: f64) -> Second {
        let before: Vec<u64> = self.suns.iter().map(|sun| sun.served).collect();
        let mut sent_on = 0;
        let start = self.now_ms;
        for request in 0..REQUESTS {
            self.now_ms = start + request * 1000 / REQUESTS;
            // Each sun reports once a second, at a moment of its own.
            let every = REQUESTS / self.suns.len() as u64;
            if request % every == 0 {
                self.report(usize::try_from(request / every).unwrap_or(0));
            }
            let hot = self.uniform() < share;
            sent_on += u64::from(self.request(hot));
        }
        self.now_ms = start + 1000;
        if share > 0.0 {
            self.fame_s += 1.0;
        }
        let region = self.topology.region(RegionId(4)).expect("it is in the document");
        Second {
            served: self.suns.iter().zip(before).map(|(sun, before)| sun.served - before).collect(),
            sent_on,
            copies: self.holders.iter().filter(|holds| **holds).count().saturating_sub(1),
            spread: self.replica.at(self.now_ms).spread(region, &self.hot),
        }
    }

    /// One request; true when it was sent on.
    fn request(&mut self, hot: bool) -> bool {
        let file = if hot { self.hot.clone() } else { self.draw_file() };
        let name = CanonicalName::parse(&file).expect("a file's name");
        let content = name.content_id();
        let mut number = self.link(hot, &file, content);
        let mut random = self.random;
        let passed = self.suns[number].passing.on(content, Scheme::Https, &mut |below| draw(&mut random, below));
        let passed = passed.map(|address| self.numbers[server_of(address)]);
        self.random = random;
        let sent_on = passed.is_some();
        if let Some(sibling) = passed {
            number = sibling;
            // The sibling decides for itself: were it to send the client on as well, that would be a loop.
            let again = self.suns[number].passing.on(content, Scheme::Https, &mut |_| 0);
            assert!(again.is_none(), "{file} was sent on twice");
        }
        if hot {
            self.holders[number] = true;
        }
        self.suns[number].serve(content, &file);
        sent_on
    }

    /// The sun that the user's link names.
    fn link(&mut self, hot: bool, file: &str, content: ContentId) -> usize {
        let region = self.topology.region(RegionId(4)).expect("it is in the document");
        let owner = || self.numbers[&region.owner(content).expect("it has weight").server.name];
        let mut random = self.random;
        let old = match self.links {
            Links::Fading => uniform(&mut random) < (-self.fame_s / 60.0).exp(),
            Links::Owner => true,
            Links::Fresh | Links::Undamped => false,
        };
        let number = if self.api.is_none() || (hot && old) {
            owner()
        } else if self.links == Links::Undamped {
            self.undamped(file, content, &mut random)
        } else {
            let visitor = Visitor { regions: vec![region], evidence: String::new(), scheme: Scheme::Https };
            let view = self.replica.at(self.now_ms);
            let knowledge = Knowledge {
                topology: &self.topology,
                holdings: &self.holdings,
                view,
                purges: &self.purges,
                signer: None,
                now_s: 0,
            };
            let link = links::link(knowledge, &visitor, file, false, &mut |below| draw(&mut random, below));
            self.numbers[&link.server.expect("a server")]
        };
        self.random = random;
        number
    }

    fn undamped(&self, file: &str, content: ContentId, random: &mut u64) -> usize {
        let region = self.topology.region(RegionId(4)).expect("it is in the document");
        let view = self.replica.at(self.now_ms);
        let order = region.sun_order(content);
        let busy: Vec<f64> = order.iter().take(view.spread(region, file)).map(|sun| view.busy(&sun.server)).collect();
        let place = balance::choose_with(f64::INFINITY, &busy, &mut |below| draw(random, below));
        self.numbers[&order[place].server.name]
    }

    /// What a sun's second comes to; as `sun::control` and `popularity_api::api` do it.
    fn report(&mut self, number: usize) {
        while let Some((at_ms, report)) = self.late.pop_front_if(|(at_ms, _)| *at_ms + 1000 <= self.now_ms) {
            self.replica.report(&self.topology, report, at_ms + 1000);
        }
        let now_ms = self.now_ms;
        let report = self.suns[number].status();
        if let Some(api) = &mut self.api {
            self.late.push_back((now_ms, report.clone()));
            api.report(&self.topology, report, now_ms);
            let region = self.topology.region(RegionId(4)).expect("it is in the document");
            let view = api.at(now_ms);
            let answer = RegionState { servers: view.servers(region), hot: view.hot(region), ..RegionState::default() };
            self.suns[number].view.hear(&answer, now_ms);
        }
        let config = HotConfig { redirect: self.redirect, ..HotConfig::default() };
        self.suns[number].turn(&config, &self.topology, now_ms);
    }

    fn draw_file(&mut self) -> String {
        let drawn = self.uniform() * self.sums[FILES - 1];
        self.files[self.sums.partition_point(|sum| *sum < drawn).min(FILES - 1)].clone()
    }

    fn uniform(&mut self) -> f64 {
        uniform(&mut self.random)
    }
}

/// The log of purges, with nothing in it.
fn no_purges() -> Ledger {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    Ledger::new(Log::open(&folder.path().join("purges"), 0, 1).expect("the folder is ours"))
}

impl SimulatedSun {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            window: Window::new(1),
            turns: Turns::default(),
            view: RegionView::default(),
            passing: Passing::default(),
            served: 0,
            reported: 0,
        }
    }

    fn serve(&mut self, content: ContentId, file: &str) {
        self.served += 1;
        self.window.requested(content, || file.into());
        self.window.sent(content, FILE_BYTES, || file.into());
    }

    fn status(&mut self) -> StatusReport {
        let served = (self.served - self.reported) as f64;
        self.reported = self.served;
        let load =
            Load { requests_per_second: served, bits_per_second: served * FILE_BYTES as f64 * 8.0, ..Load::default() };
        let counted = Window::merged(std::slice::from_ref(&self.window));
        self.window.clear();
        let hottest = self.turns.count(&counted, load, self.passing.passed(), 1.0);
        let hottest = hottest.iter().map(HotRate::from).collect();
        StatusReport { server: self.name.clone(), healthy: true, load, hottest, ..StatusReport::default() }
    }

    fn turn(&mut self, config: &HotConfig, topology: &Topology, now_ms: u64) {
        let suspended = Suspended::default();
        let view = self.view.clone();
        let belief = Witnesses { view: &view, suspended: &suspended, now_ms };
        let own = {
            let place = Place { me: &self.name, topology, earlier: &[], view: &view, belief: &belief, now_ms };
            self.turns.own(&place)
        };
        self.view.see(own);
        let place = Place { me: &self.name, topology, earlier: &[], view: &self.view, belief: &belief, now_ms };
        self.passing = self.turns.pass(config, &place);
    }
}

impl Second {
    /// Busiest sun / mean.
    pub(crate) fn ratio(&self) -> f64 {
        let mean = self.served.iter().sum::<u64>() as f64 / self.served.len() as f64;
        self.served.iter().copied().max().unwrap_or(0) as f64 / mean
    }
}

impl std::fmt::Display for Second {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ratio, sent_on, copies, spread) = (self.ratio(), self.sent_on, self.copies, self.spread);
        write!(f, "busiest / mean {ratio:.2}, r {spread:2}, {copies:2} extra copies, {sent_on:4} requests sent on")
    }
}

fn server_of(address: &str) -> &str {
    address.trim_start_matches("https://").split('.').next().unwrap_or_default()
}

fn draw(random: &mut u64, below: usize) -> usize {
    usize::try_from(next(random) % below as u64).unwrap_or(0)
}

fn uniform(random: &mut u64) -> f64 {
    (next(random) >> 11) as f64 / (1_u64 << 53) as f64
}

/// xorshift64* (Vigna, 2016).
fn next(random: &mut u64) -> u64 {
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    random.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

fn topology() -> Topology {
    let mut text = String::from(
        "version = 1\ndomain = \"example.org\"\ndefault_region = 4\n\
         [content_servers]\nurl = \"http://cs{number}.storage.example.org\"\nnumbers = [\"1-9\"]\n\
         [[region]]\nid = 4\nname = \"Moscow\"\nlatitude = 55.75\nlongitude = 37.6\n\
         [[group]]\nname = \"sun4-1\"\nsubnet = \"192.0.2.0/26\"\n\
         [[class]]\nname = \"live\"\npaths = [\"*.ts\"]\nspread = \"all\"\n",
    );
    for sun in 1..=SUNS {
        let _ = write!(
            text,
            "[[sun]]\nname = \"sun4-1-{sun}\"\naddresses = [\"192.0.2.{sun}\"]\ninternal = \"10.0.0.{sun}:8081\"\nweight = 100\n"
        );
    }
    Topology::parse(&text).expect("the document is good")
}

const SUNS: usize = 20;
/// Requests per second of the region.
pub(crate) const REQUESTS: u64 = 40_000;
/// Other files.
pub(crate) const FILES: usize = 200_000;
/// Bytes of a file: a picture.
const FILE_BYTES: u64 = 20_000;
