//! A sun of a region of four, second by second.

use std::fmt::Write as _;
use std::sync::Arc;

use popularity_api::wire::{HotFile, RegionState, ServerState};

use super::*;
use crate::region::{Suspended, WORD_S, Witnesses};

const FILE: &str = "c1/a.jpg";

#[test]
fn the_owner_passes_on_what_is_too_much_for_it() {
    let case = Case::default();
    // It serves 1,000 requests/s, 800 of the file; the others 200: 600 above the mean of 400.
    check(&case, "0.75 to second third fourth");
    check(&Case { spread: 3, ..case }, "0.75 to second third");
    check(&Case { others: 1000.0, ..case }, "nothing");
    check(&Case { others: 900.0, ..case }, "nothing"); // Less than a tenth above the mean.
    check(&Case { file: 300.0, others: 0.0, ..case }, "0.98 to second third fourth"); // Some is always served here.
}

#[test]
fn what_was_passed_on_counts_as_asked_for() {
    // 600 of 800 were passed on and came to the others: all carry 400, and the share stays.
    check(
        &Case { served: 400.0, file: 200.0, passed: 600, others: 400.0, ..Case::default() },
        "0.75 to second third fourth",
    );
    check(&Case { served: 400.0, file: 200.0, passed: 0, others: 400.0, ..Case::default() }, "nothing");
}

#[test]
fn bits_count_where_the_cards_are_busy() {
    let case = Case { served: 400.0, others: 400.0, file: 200.0, ..Case::default() };
    check(&Case { bits: 8e9, file_bits: 8e9, others_bits: 2e9, ..case }, "0.56 to second third fourth");
    check(&Case { bits: 8e7, file_bits: 8e7, others_bits: 2e7, ..case }, "nothing");
}

#[test]
fn only_the_owner_passes_on_and_only_what_is_hot() {
    let case = Case::default();
    for place in 1..4 {
        check(&Case { me: place, ..case }, "nothing");
    }
    check(&Case { spread: 1, ..case }, "nothing");
    check(&Case { redirect: false, ..case }, "nothing");
}

#[test]
fn whoever_became_the_owner_lately_passes_nothing_on() {
    let second_weighs_more = topology_with(|name| if name == order()[0] { 1 } else { 100 });
    assert_eq!(owner(&second_weighs_more), order()[1]);
    check(&Case { earlier: Some(&second_weighs_more), ..Case::default() }, "nothing");
    let third_joins = topology_with(|name| if name == order()[2] { 0 } else { 100 });
    check(&Case { earlier: Some(&third_joins), ..Case::default() }, "0.75 to second third fourth");
}

#[test]
fn nobody_is_sent_to_a_sun_that_is_down() {
    check(&Case { down: Some(1), ..Case::default() }, "0.75 to third fourth");
}

#[test]
fn while_the_api_is_away_the_sun_goes_by_what_it_sees() {
    let away = Case { heard_ms_ago: WORD_S * 1000, spread: 1, ..Case::default() };
    // 800 requests/s of 1,000 are far more than 1.25 % of what it would carry: all four, a quarter each.
    check(&away, "0.75 to second third fourth");
    // Three quarters of 24 taken off 1,000: 1.25 % of what is left is 12.3.
    check(&Case { file: 24.0, ..away }, "0.50 to second");
    check(&Case { file: 10.0, ..away }, "nothing");
}

#[test]
fn the_mean_is_guessed_without_what_others_would_take() {
    // Asked for 2,000 requests/s, of four suns.
    check_mean(2000.0, &[], 2000.0);
    check_mean(2000.0, &[100.0, 90.0], 2000.0); // At most 5 %: not hot.
    check_mean(2000.0, &[1200.0], 1100.0); // A quarter of it stays here.
    check_mean(2000.0, &[60.0, 1200.0], 1055.0); // Beside that one, 60 of 1,100 are hot as well.
    check_mean(2000.0, &[50.0, 1200.0], 1100.0);
    check_mean(2000.0, &[2000.0], 500.0);
    check_mean(100.0, &[19.0], 100.0); // Little is never hot.
    check_mean(0.0, &[], 0.0);
}

#[track_caller]
fn check_mean(asked: f64, owned: &[f64], expected: f64) {
    let mean = mean_guessed(&Rule::default(), asked, owned.to_vec(), 4);
    assert!((mean - expected).abs() < 1e-9, "{owned:?} of {asked}: {mean}, expected {expected}");
}

#[track_caller]
fn check(case: &Case, expected: &str) {
    assert_eq!(case.passing(), expected, "{case:?}");
}

#[derive(Clone, Copy, Debug)]
struct Case<'a> {
    /// Place of this sun in the file's order.
    me: usize,
    /// Requests per second that it serves, and of them those of the file.
    served: f64,
    file: f64,
    /// Requests for the file that it passed on in the last second.
    passed: u64,
    /// What each of the others serves.
    others: f64,
    bits: f64,
    file_bits: f64,
    others_bits: f64,
    /// By the API.
    spread: usize,
    heard_ms_ago: u64,
    redirect: bool,
    earlier: Option<&'a Arc<Topology>>,
    down: Option<usize>,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self {
            me: 0,
            served: 1000.0,
            file: 800.0,
            passed: 0,
            others: 200.0,
            bits: 0.0,
            file_bits: 0.0,
            others_bits: 0.0,
            spread: 20,
            heard_ms_ago: 0,
            redirect: true,
            earlier: None,
            down: None,
        }
    }
}

impl Case<'_> {
    fn passing(&self) -> String {
        let (topology, order, now_ms) = (topology_with(|_| 100), order(), 100_000);
        let mut view = RegionView::default();
        view.hear(&self.answer(&order), now_ms - self.heard_ms_ago);
        let mut suspended = Suspended::default();
        if let Some(down) = self.down {
            suspended.suspend(&order[down], now_ms);
        }
        let mut turns = Turns::default();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        let counted = Counted {
            prefix: content().prefix(),
            file: FILE.into(),
            requests: self.file as u64,
            bytes: (self.file_bits / 8.0) as u64,
        };
        let load = Load { requests_per_second: self.served, bits_per_second: self.bits, ..Load::default() };
        // Until the smoothed rates are the true ones.
        for _ in 0..100 {
            let passed = HashMap::from([(content().prefix(), self.passed)]);
            turns.count(std::slice::from_ref(&counted), load, passed, 1.0);
        }
        let earlier: Vec<Arc<Topology>> = self.earlier.into_iter().cloned().collect();
        let heard = view.clone();
        let belief = Witnesses { view: &heard, suspended: &suspended, now_ms };
        let me = &order[self.me];
        let own =
            turns.own(&Place { me, topology: &topology, earlier: &earlier, view: &heard, belief: &belief, now_ms });
        view.see(own);
        let config = HotConfig { redirect: self.redirect, ..HotConfig::default() };
        let place = Place { me, topology: &topology, earlier: &earlier, view: &view, belief: &belief, now_ms };
        shown(&turns.pass(&config, &place), &order)
    }

    fn answer(&self, order: &[String]) -> RegionState {
        let server = |(place, name): (usize, &String)| {
            let (requests_per_second, bits_per_second) =
                if place == self.me { (self.served, self.bits) } else { (self.others, self.others_bits) };
            let load = Load { requests_per_second, bits_per_second, ..Load::default() };
            ServerState { name: name.clone(), healthy: true, load, busy: 1.0, rest: None }
        };
        RegionState {
            servers: order.iter().enumerate().map(server).collect(),
            hot: vec![HotFile { file: FILE.to_owned(), spread: self.spread }],
            ..RegionState::default()
        }
    }
}

fn shown(passing: &Passing, order: &[String]) -> String {
    let Some((_, shared)) = passing.iter().next() else { return "nothing".to_owned() };
    let place = |server: &str| order.iter().position(|name| name == server).unwrap();
    let siblings = shared.siblings.iter().map(|one| ["first", "second", "third", "fourth"][place(&one.server)]);
    format!("{:.2} to {}", shared.share, siblings.collect::<Vec<_>>().join(" "))
}

fn content() -> geo::ContentId {
    CanonicalName::parse(FILE).unwrap().content_id()
}

fn order() -> Vec<String> {
    let topology = topology_with(|_| 100);
    topology.regions[0].sun_order(content()).iter().map(|sun| sun.server.name.clone()).collect()
}

fn owner(topology: &Topology) -> String {
    topology.regions[0].owner(content()).unwrap().server.name.clone()
}

fn topology_with(weight: impl Fn(&str) -> u16) -> Arc<Topology> {
    let mut text = String::from(
        "version = 1\ndomain = \"example.org\"\ndefault_region = 4\n\
         [content_servers]\nurl = \"http://cs{number}.storage.example.org\"\nnumbers = [\"1-9\"]\n\
         [[region]]\nid = 4\nname = \"Moscow\"\nlatitude = 55.75\nlongitude = 37.6\n\
         [[group]]\nname = \"sun4-1\"\nsubnet = \"192.0.2.0/26\"\n",
    );
    for sun in 1..=4 {
        let name = format!("sun4-1-{sun}");
        let _ = write!(
            text,
            "[[sun]]\nname = \"{name}\"\naddresses = [\"192.0.2.{sun}\"]\ninternal = \"10.0.0.{sun}:8081\"\nweight = {}\n",
            weight(&name)
        );
    }
    Arc::new(Topology::parse(&text).unwrap())
}
