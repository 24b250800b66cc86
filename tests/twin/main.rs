//! The seeded twin: the whole daemon on fakes and a clock that stands still, its environment's faults drawn from a seed.
//!
//! `docs/testing.md` explains it. One seed again, with its trace: `make simulate SEEDS=17`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and a simulation prints its trace"
)]
#![allow(clippy::disallowed_methods, reason = "tests read their environment")]

mod auditor;
#[allow(dead_code, reason = "the tests of the ledger use the rest")]
#[path = "../it/ledger/cut_disk.rs"]
mod cut_disk;
mod dice;
mod scenario;
mod simulation;
mod support;

use std::time::Duration;

use tokio::time::Instant;

/// The seeds of a normal test run.
const SHORT: std::ops::Range<u64> = 0..60;

/// The seeds of `SEEDS`: `17`, or `0..2000`.
fn seeds() -> Option<std::ops::Range<u64>> {
    let text = std::env::var("SEEDS").ok().filter(|text| !text.is_empty())?;
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("SEEDS={text}: a number, or `from..to`"));
    match text.split_once("..") {
        Some((from, to)) => Some(number(from)..number(to)),
        None => Some(number(&text)..number(&text) + 1),
    }
}

/// Simulates a seed, and tells what it broke.
fn judge(seed: u64) -> (simulation::History, Vec<String>) {
    let history = simulation::run(seed);
    let broken = auditor::audit(&history);
    (history, broken)
}

#[test]
fn whatever_a_seed_does_no_rule_is_broken() {
    simulation::watch_for_panics();
    let (wanted, begun) = (seeds(), Instant::now());
    let (mut count, mut failed, mut simulated) = (0_u32, Vec::new(), Duration::ZERO);
    for seed in wanted.clone().unwrap_or(SHORT) {
        let (history, broken) = judge(seed);
        let jobs = u32::try_from(history.scenario.jobs.len()).unwrap();
        (count, simulated) = (count + 1, simulated + history.end * jobs);
        if wanted.as_ref().is_some_and(|wanted| wanted.end - wanted.start == 1) {
            println!("{}", history.trace());
        }
        if !broken.is_empty() {
            println!("seed {seed}: {}", broken.join("; "));
            failed.push(seed);
        }
    }
    let days = simulated.as_secs_f64() / 86_400.0;
    println!("{count} seeds, {days:.1} service-days in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "seeds that break a rule: {failed:?}; replay with `make simulate SEEDS={}`", failed[0]);
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    for seed in 0..20 {
        let (first, second) = (simulation::run(seed).trace(), simulation::run(seed).trace());
        if first != second {
            let (a, b) = first.lines().zip(second.lines()).find(|(a, b)| a != b).unwrap_or(("", ""));
            panic!("seed {seed} differs:\n{a}\n{b}");
        }
    }
}
