//! Several machines that ask each other, with answers that take their time: what holds of the group as a whole.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::selfcheck::peers::{Asked, Book, Peer};

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_group_never_goes_dark_by_what_its_members_said_before(
        members in 2usize..5,
        steps in proptest::collection::vec(any_step(), 1..400),
    ) {
        let mut group = Group::new(members);
        for (pause_ms, member, step) in steps {
            group.now_ms += pause_ms;
            group.step(member % members, step);
            prop_assert!(group.announced() >= 1, "nobody is announced");
        }
    }
}

#[test]
fn of_two_that_are_to_be_disabled_at_once_neither_goes_by_the_word_of_the_other() {
    for second in [Step::Order, Step::Probe(false, true)] {
        let mut group = Group::new(2);
        for (member, step) in [(0, Step::Order), (1, second), (0, Step::Ask), (1, Step::Ask)] {
            group.step(member, step);
        }
        for step in [Step::Answer(1), Step::Hear] {
            group.step(0, step);
            group.step(1, step);
        }
        let states = group.members.iter().map(|member| member.machine.state()).collect::<Vec<_>>();
        assert!(!states.contains(&State::Disabled), "{states:?}");
        assert_eq!(group.announced(), 2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn an_overload_of_a_group_takes_no_more_than_a_quarter_of_it_away(
        members in 2usize..10,
        steps in proptest::collection::vec(any_load(), 1..600),
    ) {
        let mut group = Group::new(members);
        for (pause_ms, member, step) in steps {
            group.now_ms += pause_ms;
            // Two odd answers in a row are ill, and not an overload.
            let at = member % members;
            let odd = matches!(step, Step::Probe(false, _));
            if odd && group.members[at].was_odd {
                continue;
            }
            if matches!(step, Step::Probe(..) | Step::Slow) {
                group.members[at].was_odd = odd;
            }
            group.step(at, step);
            let best = |member: &&Member| member.machine.announced() == Announce::Best;
            let away = members - group.members.iter().filter(best).count();
            prop_assert!(away <= (members / 4).max(1), "{away} of {members} are not announced as before");
        }
    }
}

/// What one of them does, or what happens to it.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// It begins to ask all others, as it does now and then and at each look.
    Ask,
    /// The one that follows it by so many answers its question.
    Answer(usize),
    /// It hears what those said who answered; those who have not answered by now will not.
    Hear,
    /// A probe.
    Probe(bool, bool),
    /// A probe of a sun that has too much to do.
    Slow,
    /// The operator wants it out.
    Order,
    /// The operator lets it back in.
    Enable,
    /// Time passes.
    Tick,
}

fn any_step() -> impl Strategy<Value = (u64, usize, Step)> {
    let step = prop_oneof![
        4 => Just(Step::Ask),
        8 => (1usize..5).prop_map(Step::Answer),
        4 => Just(Step::Hear),
        8 => Just(Step::Probe(true, false)),
        3 => Just(Step::Probe(false, false)),
        3 => Just(Step::Slow),
        1 => Just(Step::Probe(false, true)),
        3 => Just(Step::Order),
        2 => Just(Step::Enable),
        2 => Just(Step::Tick),
    ];
    (0u64..20, 0usize..4, step)
}

/// As [`any_step`], and nothing but too much to do is wrong, with an odd answer now and then.
fn any_load() -> impl Strategy<Value = (u64, usize, Step)> {
    let step = prop_oneof![
        4 => Just(Step::Ask),
        24 => (1usize..10).prop_map(Step::Answer),
        4 => Just(Step::Hear),
        4 => Just(Step::Probe(true, false)),
        4 => Just(Step::Slow),
        1 => Just(Step::Probe(false, false)),
    ];
    (0u64..5, 0usize..9, step)
}

struct Group {
    members: Vec<Member>,
    names: Vec<(String, SocketAddr)>,
    now_ms: u64,
}

struct Member {
    machine: Machine,
    book: Book,
    /// The look with which it asks, and who answered what.
    asking: Option<(u64, Vec<(usize, Peer)>)>,
    /// Its last probe failed otherwise than by being slow.
    was_odd: bool,
}

impl Group {
    /// All are Up and know nothing of each other.
    fn new(members: usize) -> Self {
        let new = || {
            let mut machine = Machine::new(tests::rules(), false, 0.0, 0);
            for _ in 0..3 {
                machine.on(Event::Probe(Verdict::Good), 0);
            }
            Member { machine, book: Book::default(), asking: None, was_odd: false }
        };
        let names = (0..members).map(|at| (format!("sun{at}"), ([127, 0, 0, 1], 1).into())).collect();
        Self { members: (0..members).map(|_| new()).collect(), names, now_ms: 0 }
    }

    fn step(&mut self, at: usize, step: Step) {
        match step {
            Step::Ask => self.members[at].asking = Some((self.members[at].machine.looks(), Vec::new())),
            Step::Answer(by) => {
                let other = (at + by) % self.members.len();
                let peer = self.peer(other);
                if let Some((_, answers)) = &mut self.members[at].asking
                    && other != at
                {
                    answers.push((other, peer));
                }
            }
            Step::Hear => self.hear(at),
            Step::Probe(true, _) => self.tell(at, Event::Probe(Verdict::Good)),
            Step::Probe(false, certain) => {
                self.tell(at, Event::Probe(Verdict::Bad { reason: String::new(), certain, slow: false }));
            }
            Step::Slow => {
                self.tell(at, Event::Probe(Verdict::Bad { reason: String::new(), certain: false, slow: true }));
            }
            Step::Order => self.tell(at, Event::Leaving(true)),
            Step::Enable => self.tell(at, Event::Enable(String::new())),
            Step::Tick => self.tell(at, Event::Tick),
        }
    }

    fn hear(&mut self, at: usize) {
        let Some((look, answers)) = self.members[at].asking.take() else { return };
        let asked = Asked { at_ms: self.now_ms, look };
        for (other, peer) in answers {
            self.members[at].book.hear(&self.names[other].0, Ok(peer), asked);
        }
        self.members[at].book.whole(look);
        self.tell(at, Event::Tick);
    }

    /// As the driver does.
    fn tell(&mut self, at: usize, event: Event) {
        let others: Vec<_> =
            self.names.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, name)| name.clone()).collect();
        let now_ms = self.now_ms;
        let Member { machine, book, .. } = &mut self.members[at];
        let view = book.view(&others, 1000, machine.looks(), now_ms);
        machine.on(Event::View(view), now_ms);
        machine.on(event, now_ms);
        if machine.is_leaving() {
            match machine.may_leave(now_ms) {
                Some(true) => drop(machine.on(Event::Disable(String::new()), now_ms)),
                Some(false) => drop(machine.on(Event::Leaving(false), now_ms)),
                None => {}
            }
        }
    }

    fn peer(&self, at: usize) -> Peer {
        let machine = &self.members[at].machine;
        let announced = matches!(machine.announced(), Announce::Best | Announce::Drain);
        Peer {
            name: self.names[at].0.clone(),
            state: machine.state(),
            reachable: announced,
            last: machine.is_last(),
            leaving: machine.is_leaving(),
            round_age_ms: 0,
            every_ms: 500,
        }
    }

    fn announced(&self) -> usize {
        let announces = |member: &&Member| matches!(member.machine.announced(), Announce::Best | Announce::Drain);
        self.members.iter().filter(announces).count()
    }
}
