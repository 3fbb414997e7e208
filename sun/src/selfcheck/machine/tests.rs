//! The state machine: what a series of events makes of it, one line a case; random events keep its invariants.

use proptest::prelude::*;

use super::*;

#[test]
fn a_sun_is_announced_after_three_good_probes_and_not_before() {
    let mut run = Run::new();
    assert_eq!(run.machine.announced(), Announce::Unchanged, "what a self-check before this one left");
    run.others(1, 1);
    run.tell("g g", "Init>Rising(probe)");
    assert_eq!(run.machine.announced(), Announce::Unchanged);
    run.tell("g", "Rising>Up(probe) Best");
    run.tell("g g g", "");
}

#[test]
fn two_bad_probes_withdraw_a_sun_and_one_does_not() {
    let mut run = Run::up();
    run.tell("b", "Look Up>Falling(probe)");
    run.tell("g", "Falling>Up(probe)");
    run.tell("b", "Look Up>Falling(probe)");
    run.others(1, 1);
    run.tell("b", "Falling>Down(probe) Nothing");
    run.tell("g b", "Down>Rising(probe) Rising>Down(probe)");
    run.tell("g g g", "Down>Rising(probe) Rising>Up(probe) Best");
}

#[test]
fn what_has_counted_neither_counts_again_nor_is_it_well() {
    let mut run = Run::up();
    run.tell("a", "");
    run.tell("b", "Look Up>Falling(probe)");
    run.others(1, 1);
    run.tell("a a", "");
    run.tell("b", "Falling>Down(probe) Nothing");
    run.tell("g a g g", "Down>Rising(probe) Rising>Up(probe) Best");
}

#[test]
fn a_slow_sun_leaves_only_while_most_of_its_group_is_up() {
    let slow = |others: usize, confirmed: usize| {
        let mut run = Run::up();
        run.tell("s", "Look Up>Falling(probe)");
        let view = View { others, up: confirmed, standing: others, confirmed, looked: true };
        run.order(Event::View(view), "");
        run.tell("s s", "*");
        assert_eq!(run.machine.is_kept(), run.machine.state() == State::Falling);
        run.machine.announced()
    };
    let (stays, leaves) = (Announce::Best, Announce::Nothing);
    assert_eq!([slow(1, 0), slow(1, 1)], [stays, leaves]);
    assert_eq!([slow(2, 1), slow(2, 2)], [stays, leaves], "of three, one may be missing");
    assert_eq!([slow(7, 5), slow(7, 6), slow(7, 7)], [stays, leaves, leaves], "of eight, two");
    assert_eq!(slow(0, 0), stays);
}

#[test]
fn a_slow_sun_that_stays_has_not_fallen_and_one_that_hangs_goes() {
    let mut run = Run::up();
    run.tell("s", "Look Up>Falling(probe)");
    run.order(Event::View(View { others: 2, up: 1, standing: 2, confirmed: 1, looked: true }), "");
    run.tell("s s s s s", "");
    run.tell("g", "Falling>Up(probe)");
    assert!(run.machine.penalty(run.now_ms) < 1.0);
    run.tell("s s s", "Look Up>Falling(probe)");
    run.order(Event::View(View { others: 2, up: 1, standing: 2, confirmed: 1, looked: true }), "");
    run.tell("b s b", "");
    assert!(run.machine.is_kept(), "one odd probe among slow ones is no reason to leave");
    run.tell("b", "Falling>Down(probe) Nothing");
    let mut run = Run::with(Rules { slow_percent_max: 0, ..rules() });
    run.tell("g g g s", "*");
    run.others(1, 1);
    run.tell("s s s", "");
}

#[test]
fn falls_before_a_restart_count() {
    let restarted = |penalty| {
        let mut run = Run { machine: Machine::new(rules(), false, penalty, 0), now_ms: 0 };
        run.others(1, 1);
        run.tell("g g g", "*");
        run.machine.state()
    };
    assert_eq!([0.0, 2500.0, 2501.0, 1e300].map(restarted), [State::Up, State::Up, State::Held, State::Held]);
    assert_eq!([f64::NAN, f64::INFINITY, -1e9].map(restarted), [State::Up; 3]);
}

#[test]
fn where_nobody_listens_one_probe_is_enough() {
    let mut run = Run::up();
    run.tell("e", "Probe");
    run.tell("x", "Look Up>Down(probe)");
    run.view(1, 1, "Nothing");
    let mut run = Run::new();
    run.others(1, 1);
    run.tell("x", "Init>Down(probe) Nothing");
}

#[test]
fn the_end_of_a_process_that_another_has_taken_over_from_changes_nothing() {
    let mut run = Run::up();
    run.tell("e g e g", "Probe Probe");
    assert_eq!(run.machine.state(), State::Up);
}

#[test]
fn the_last_of_a_group_stays_until_another_is_up() {
    let mut run = Run::up();
    run.others(0, 1);
    // The other is Falling: it may be next, and while it serves it is preferred.
    run.tell("x", "Look Up>Down(probe)");
    run.view(0, 1, "Last(true) Drain");
    run.view(1, 1, "Last(false) Nothing");
    run.view(0, 1, "");
    run.view(0, 0, "Last(true) Drain");
    run.tell("g", "Down>Rising(probe)");
    run.tell("g g", "Rising>Up(probe) Last(false) Best");
}

#[test]
fn nobody_leaves_by_what_was_said_before() {
    let mut run = Run::up();
    run.others(1, 1);
    run.tell("x", "Look Up>Down(probe)");
    assert_eq!(run.machine.announced(), Announce::Best, "the others are asked");
    run.answers(1, 0, false, "");
    run.answers(1, 1, false, "Nothing");
    let mut run = Run::up();
    run.tell("x", "Look Up>Down(probe)");
    run.answers(1, 0, true, "Last(true) Drain");
}

#[test]
fn the_others_are_waited_for_for_a_moment_only() {
    let mut run = Run::up();
    run.tell("x", "Look Up>Down(probe)");
    run.now_ms += 499;
    run.tell("t", "");
    run.now_ms += 1;
    run.tell("t", "Last(true) Drain");
}

#[test]
fn an_operator_may_take_out_whom_the_others_spare() {
    let mut run = Run::up();
    run.order(Event::Leaving(true), "Look");
    assert_eq!(run.machine.may_leave(run.now_ms), None);
    run.answers(1, 0, false, "");
    assert_eq!(run.machine.may_leave(run.now_ms), None, "that was said before");
    run.answers(1, 0, true, "");
    assert_eq!(run.machine.may_leave(run.now_ms), Some(false));
    run.order(Event::Leaving(false), "");
    run.order(Event::Leaving(true), "Look");
    run.answers(1, 1, false, "");
    assert_eq!(run.machine.may_leave(run.now_ms), Some(true));
    run.order(Event::Disable("maintenance".into()), "Up>Disabled(operator) Nothing");
    assert_eq!(run.machine.may_leave(run.now_ms), Some(true), "nothing is announced");
}

#[test]
fn a_sun_that_was_never_well_is_announced_as_the_last_only_after_a_while() {
    let mut run = Run::new();
    run.others(0, 0);
    run.tell("x", "Init>Down(probe)");
    assert_eq!(run.machine.announced(), Announce::Unchanged, "it may be the last already");
    run.now_ms += 10_000;
    run.tell("t", "Last(true) Drain");
}

#[test]
fn a_flapping_sun_is_held_until_its_penalty_is_gone() {
    let mut run = Run::up();
    for _ in 0..2 {
        run.fall();
        run.tell("g g g", "Down>Rising(probe) Rising>Up(probe) Best");
    }
    run.fall();
    run.tell("g g g", "Down>Rising(probe) Rising>Held(probe)");
    run.view(0, 0, "Last(true) Drain");
    run.view(1, 1, "Last(false) Nothing");
    // 3000 halve to below 1000 within two half-lives.
    run.now_ms += 600_000;
    run.view(1, 1, "");
    run.tell("t", "");
    run.tell("g", "Held>Up(probe) Best");
}

#[test]
fn the_operator_forgives() {
    let mut run = Run::up();
    for _ in 0..3 {
        run.fall();
        run.tell("g g g", "*");
    }
    assert_eq!(run.machine.state(), State::Held);
    run.order(Event::Enable("well again".into()), "Held>Up(operator) Best");
}

#[test]
fn the_operators_word_stands_over_everything() {
    let mut run = Run::up();
    run.others(0, 0);
    run.order(Event::Disable("maintenance".into()), "Look Up>Disabled(operator) Nothing");
    run.tell("x g g g t", "");
    assert_eq!(run.machine.announced(), Announce::Nothing);
    run.order(Event::Enable("done".into()), "Disabled>Up(operator) Best");
}

#[test]
fn a_draining_sun_is_announced_with_a_lower_preference_after_a_while() {
    let mut run = Run::up();
    run.order(Event::Draining(true), "Look Up>Draining(topology)");
    run.now_ms += 4999;
    run.tell("t", "");
    run.now_ms += 1;
    run.tell("t", "Drain");
    run.view(1, 1, "");
    run.tell("x", "Draining>Down(probe) Nothing");
    run.tell("g g g", "Down>Rising(probe) Rising>Draining(probe) Drain");
    run.order(Event::Draining(false), "Draining>Up(topology) Best");
}

#[test]
fn a_stop_withdraws_whatever_the_others_do() {
    let mut run = Run::up();
    run.others(0, 0);
    run.order(Event::Stop, "Nothing");
    run.tell("x t g", "Look Up>Down(probe) Down>Rising(probe)");
    assert_eq!(run.machine.announced(), Announce::Nothing);
}

#[test]
fn without_a_guard_it_withdraws_whatever_the_others_do() {
    let mut run = Run::with(Rules { up_min: 0, ..rules() });
    run.tell("g g g x t", "Init>Rising(probe) Rising>Up(probe) Best Look Up>Down(probe) Nothing");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_what_is_announced_is_right(events in proptest::collection::vec(any_event(), 1..300), up_min in 0usize..3) {
        let rules = Rules { up_min, ..rules() };
        let mut model = Model::new(&rules);
        let mut machine = Machine::new(rules.clone(), false, 0.0, 0);
        let mut now_ms = 0;
        for (pause_ms, event) in events {
            now_ms += pause_ms;
            let before = machine.clone();
            let actions = machine.on(event.clone(), now_ms);
            model.on(&event);
            model.shown(is_shown_up(&before), is_shown_up(&machine), now_ms);
            model.check(&before, &machine, &event, &actions, now_ms)?;
        }
        // Whatever happened, a sun that is well and that nobody took out is announced again in the end.
        machine.on(Event::Enable(String::new()), now_ms);
        machine.on(Event::Draining(false), now_ms);
        for _ in 0..rules.thresholds.rise {
            machine.on(Event::Probe(Verdict::Good), now_ms);
        }
        if !model.stopped {
            prop_assert_eq!(machine.state(), State::Up);
            prop_assert_eq!(machine.announced(), Announce::Best);
        }
    }
}

/// What must hold, said without the machine's own words.
struct Model {
    rules: Rules,
    disabled: bool,
    stopped: bool,
    view: View,
    /// When it was shown as Up for the last time.
    look_ms: u64,
    good_in_a_row: u32,
    bad_in_a_row: u32,
    /// Of these, the last ones in a row that were not slow.
    other_in_a_row: u32,
}

impl Model {
    fn new(rules: &Rules) -> Self {
        Self {
            rules: rules.clone(),
            disabled: false,
            stopped: false,
            view: View::default(),
            look_ms: 0,
            good_in_a_row: 0,
            bad_in_a_row: 0,
            other_in_a_row: 0,
        }
    }

    fn on(&mut self, event: &Event) {
        match event {
            Event::Probe(Verdict::Good) => {
                (self.good_in_a_row, self.bad_in_a_row, self.other_in_a_row) = (self.good_in_a_row + 1, 0, 0);
            }
            Event::Probe(Verdict::Bad { slow, .. }) => {
                (self.good_in_a_row, self.bad_in_a_row) = (0, self.bad_in_a_row + 1);
                self.other_in_a_row = if *slow { 0 } else { self.other_in_a_row + 1 };
            }
            Event::View(view) => self.view = *view,
            Event::Disable(_) => self.disabled = true,
            Event::Enable(_) => self.disabled = false,
            Event::Stop => self.stopped = true,
            Event::Probe(Verdict::Again) | Event::Ended | Event::Draining(_) | Event::Leaving(_) | Event::Tick => {}
        }
    }

    /// From the moment on in which others may not count on it, what they said before does not count.
    fn shown(&mut self, was_up: bool, is_up: bool, now_ms: u64) {
        if was_up && !is_up {
            (self.view.confirmed, self.view.looked, self.look_ms) = (0, false, now_ms);
        }
    }

    fn check(
        &self,
        before: &Machine,
        after: &Machine,
        event: &Event,
        actions: &[Action],
        now_ms: u64,
    ) -> Result<(), TestCaseError> {
        let (was, is) = (before.announced(), after.announced());
        // What was left by a self-check before this one may be announced.
        let announces = |what| matches!(what, Announce::Best | Announce::Drain | Announce::Unchanged);
        if self.disabled || self.stopped {
            prop_assert_eq!(is, Announce::Nothing);
        } else if announces(was) && is == Announce::Nothing {
            prop_assert!(self.view.confirmed >= self.rules.up_min, "withdrawn, and too few others are Up");
        } else if is == Announce::Nothing && now_ms >= self.rules.start_wait_ms {
            prop_assert!(self.view.standing >= self.rules.up_min, "silent, and too few others stand");
        }
        let asks = !self.view.looked && now_ms - self.look_ms < self.rules.look_ms_max;
        if matches!(after.state(), State::Rising | State::Down | State::Held) && !(asks && was == is) {
            prop_assert_ne!(is, Announce::Best, "an ill sun may win against one that is well");
        }
        if after.state() == State::Up && before.state() == State::Rising {
            prop_assert!(self.good_in_a_row >= self.rules.thresholds.rise);
        }
        if let (State::Up | State::Falling | State::Draining, State::Down) = (before.state(), after.state()) {
            let certain = matches!(event, Event::Probe(Verdict::Bad { certain: true, .. }));
            prop_assert!(certain || self.bad_in_a_row >= self.rules.thresholds.fall);
            if !certain && self.other_in_a_row < self.rules.thresholds.fall {
                // Of seven one (25 %) may be anything else than Up: this one. Of those it has not heard of, nobody is.
                let most = if self.view.others == 6 { 6 } else { 0 };
                prop_assert!(self.view.confirmed >= most.max(self.rules.up_min), "it is slow, and so are others");
            }
        }
        let moved = actions.iter().filter(|action| matches!(action, Action::Moved(_))).count();
        prop_assert_eq!(moved, usize::from(before.state() != after.state()));
        let told = actions.iter().any(|action| matches!(action, Action::Announce(_)));
        prop_assert_eq!(told, was != is);
        if matches!(event, Event::Tick | Event::View(_) | Event::Ended) {
            prop_assert_eq!(before.state(), after.state(), "no change without a cause");
        }
        Ok(())
    }
}

fn is_shown_up(machine: &Machine) -> bool {
    machine.state() == State::Up && !machine.is_leaving()
}

fn any_event() -> impl Strategy<Value = (u64, Event)> {
    let confirmed = prop_oneof![3 => 0usize..3, 1 => 4usize..7];
    let view = (confirmed, 0usize..3, 0usize..3, any::<bool>()).prop_map(|(confirmed, more, standing, looked)| {
        let up = (confirmed + more).min(6);
        Event::View(View { others: 6, up, standing: (up + standing).min(6), confirmed, looked })
    });
    let event = prop_oneof![
        8 => Just(Event::Probe(Verdict::Good)),
        5 => Just(Event::Probe(Verdict::Bad { reason: String::new(), certain: false, slow: false })),
        1 => Just(Event::Probe(Verdict::Bad { reason: String::new(), certain: true, slow: false })),
        5 => Just(Event::Probe(Verdict::Bad { reason: String::new(), certain: false, slow: true })),
        1 => Just(Event::Probe(Verdict::Again)),
        6 => view,
        1 => Just(Event::Ended),
        1 => Just(Event::Disable(String::new())),
        1 => Just(Event::Enable(String::new())),
        1 => any::<bool>().prop_map(Event::Leaving),
        1 => any::<bool>().prop_map(Event::Draining),
        3 => Just(Event::Tick),
    ];
    // A stop is the end: it comes in few runs only, or nothing else would be tested.
    let event = prop_oneof![200 => event, 1 => Just(Event::Stop)];
    (prop_oneof![10 => 0u64..600, 1 => 0u64..200_000], event)
}

/// A machine, and what it was told.
struct Run {
    machine: Machine,
    now_ms: u64,
}

impl Run {
    fn new() -> Self {
        Self::with(rules())
    }

    fn with(rules: Rules) -> Self {
        Self { machine: Machine::new(rules, false, 0.0, 0), now_ms: 0 }
    }

    /// It is Up, and another one is.
    fn up() -> Self {
        let mut run = Self::new();
        run.others(1, 1);
        run.tell("g g g", "*");
        assert_eq!(run.machine.state(), State::Up);
        run
    }

    fn others(&mut self, up: usize, standing: usize) {
        self.view(up, standing, "*");
    }

    /// All others were asked and answered just now.
    #[track_caller]
    fn view(&mut self, up: usize, standing: usize, expected: &str) {
        self.order(Event::View(View { others: 1, up, standing, confirmed: up, looked: true }), expected);
    }

    /// So many are Up, and so many of them said so since the last look, which all have heard of or not.
    #[track_caller]
    fn answers(&mut self, up: usize, confirmed: usize, looked: bool, expected: &str) {
        self.order(Event::View(View { others: 1, up, standing: up, confirmed, looked }), expected);
    }

    /// Two bad probes, and another one is Up in between.
    #[track_caller]
    fn fall(&mut self) {
        self.tell("b", "Look Up>Falling(probe)");
        self.others(1, 1);
        self.tell("b", "Falling>Down(probe) Nothing");
    }

    #[track_caller]
    fn order(&mut self, event: Event, expected: &str) {
        let actions = self.machine.on(event, self.now_ms);
        check(&actions, expected);
    }

    /// g: a good probe; b: a bad one; a: one that tells nothing new; s: it is slow; x: nobody listens; e: the process ended; t: a tick.
    #[track_caller]
    fn tell(&mut self, events: &str, expected: &str) {
        let bad = |certain| Event::Probe(Verdict::Bad { reason: "why".into(), certain, slow: false });
        let mut actions = Vec::new();
        for event in events.split(' ') {
            let event = match event {
                "g" => Event::Probe(Verdict::Good),
                "b" => bad(false),
                "x" => bad(true),
                "a" => Event::Probe(Verdict::Again),
                "s" => Event::Probe(Verdict::Bad { reason: "why".into(), certain: false, slow: true }),
                "e" => Event::Ended,
                _ => Event::Tick,
            };
            actions.extend(self.machine.on(event, self.now_ms));
        }
        check(&actions, expected);
    }
}

#[track_caller]
fn check(actions: &[Action], expected: &str) {
    let said: Vec<String> = actions
        .iter()
        .map(|action| match action {
            Action::Moved(Transition { from, to, cause, .. }) => format!("{from:?}>{to:?}({cause})"),
            Action::Last(last) => format!("Last({last})"),
            Action::Announce(announce) => format!("{announce:?}"),
            Action::Probe => "Probe".to_owned(),
            Action::Look => "Look".to_owned(),
        })
        .collect();
    match expected {
        "*" => {}
        _ => assert_eq!(said.join(" "), expected),
    }
}

pub(super) fn rules() -> Rules {
    Rules {
        thresholds: Thresholds::default(),
        up_min: 1,
        slow_percent_max: 25,
        look_ms_max: 500,
        start_wait_ms: 10_000,
        drain_wait_ms: 5000,
    }
}
