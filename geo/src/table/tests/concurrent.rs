//! Readers beside the writer: each answer is that of a state between the beginning and the end of the reading.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::leaf;
use super::model::{Model, Step, address, ranges, steps};
use crate::table::{Table, Writer};

#[test]
fn a_reader_sees_what_was_before_or_after() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..6 {
        let addresses = prop::collection::vec(address(), 40..60);
        let strategy = (steps(400), addresses, ranges());
        let (steps, clients, base) = strategy.new_tree(&mut runner).unwrap().current();
        check(&steps, &clients, Model { prefixes: [].into(), base });
    }
}

/// All of what an address is told: each prefix of the chain's number, and the base's.
type Answer = (Vec<u8>, bool);

fn check(steps: &[Step], clients: &[IpAddr], mut model: Model) {
    let mut writer = Writer::build(model.content(&[]));
    let mut states: Vec<Vec<Answer>> = vec![clients.iter().map(|client| expected(&model, *client)).collect()];
    for step in steps {
        match *step {
            Step::Set(prefix, number) => model.set(prefix, number),
            Step::Remove(prefix) => model.remove(prefix),
        };
        states.push(clients.iter().map(|client| expected(&model, *client)).collect());
    }
    // The number of the last change that began, and of the last that was done.
    let (begun, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let table = Arc::clone(writer.table());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| read(&table, clients, &states, &begun, &done));
        }
        for (number, step) in steps.iter().enumerate() {
            begun.store(number + 1, SeqCst);
            match *step {
                Step::Set(prefix, number) => writer.set(prefix, &leaf(number)),
                Step::Remove(prefix) => writer.remove(prefix),
            };
            done.store(number + 1, SeqCst);
        }
    });
}

fn read(table: &Table, clients: &[IpAddr], states: &[Vec<Answer>], begun: &AtomicUsize, done: &AtomicUsize) {
    loop {
        let mut last = 0;
        for (index, client) in clients.iter().enumerate() {
            last = done.load(SeqCst);
            let found = table.lookup(*client);
            let answer = (
                found.and_then(|found| table.prefix(*client, found)).map(|prefix| prefix.prefix_len()),
                found.is_some(),
            );
            let upto = begun.load(SeqCst);
            let possible = &states[last..=upto];
            let told = |state: &Vec<Answer>| (state[index].0.first().copied(), state[index].1);
            assert!(possible.iter().any(|state| told(state) == answer), "{client} in {last}..={upto}: {answer:?}");
            // Of the chain, each step is of some state in between, so it only gets shorter.
            let mut chain = found;
            let mut length = 129;
            while let Some(prefix) = chain.and_then(|found| table.prefix(*client, found)) {
                assert!(prefix.contains(client) && prefix.prefix_len() < length, "{client}: {prefix}");
                length = prefix.prefix_len();
                let upto = begun.load(SeqCst);
                let known = states[last..=upto].iter().any(|state| state[index].0.contains(&length));
                assert!(known, "{client}: {prefix} is of no state in {last}..={upto}");
                chain = chain.and_then(|found| table.covering(*client, found));
            }
        }
        if last + 1 == states.len() {
            return;
        }
    }
}

/// Lengths of the prefixes that have the address, longest first, and whether anything is known of it.
fn expected(model: &Model, client: IpAddr) -> Answer {
    let chain: Vec<u8> = model.chain(client).iter().map(|(prefix, _)| prefix.prefix_len()).collect();
    let known = !chain.is_empty() || model.base_of(client).is_some();
    (chain, known)
}
