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

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The seeds of a run that names none, such as one without optimization.
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

/// What became of a seed.
struct Judged {
    seed: u64,
    broken: Vec<String>,
    /// How long its services were simulated, together.
    simulated: Duration,
    trace: Option<String>,
}

fn judge(seed: u64, traced: bool) -> Judged {
    let history = simulation::run(seed);
    let broken = auditor::audit(&history);
    let jobs = u32::try_from(history.scenario.jobs.len()).unwrap();
    Judged { seed, broken, simulated: history.end * jobs, trace: traced.then(|| history.trace()) }
}

/// Judges all seeds, on each core another.
fn judge_all(seeds: std::ops::Range<u64>) -> Vec<Judged> {
    let (next, traced) = (AtomicU64::new(seeds.start), seeds.end - seeds.start == 1);
    let one_by_one = || {
        let taken = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        taken.take_while(|seed| *seed < seeds.end).map(|seed| judge(seed, traced)).collect::<Vec<_>>()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut judged: Vec<Judged> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(one_by_one)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    judged.sort_by_key(|judged| judged.seed);
    judged
}

#[test]
fn whatever_a_seed_does_no_rule_is_broken() {
    simulation::watch_for_panics();
    let begun = Instant::now();
    let judged = judge_all(seeds().unwrap_or(SHORT));
    let failed: Vec<&Judged> = judged.iter().filter(|judged| !judged.broken.is_empty()).collect();
    for trace in judged.iter().filter_map(|judged| judged.trace.as_ref()) {
        println!("{trace}");
    }
    for judged in &failed {
        println!("seed {}: {}", judged.seed, judged.broken.join("; "));
    }
    let days = judged.iter().map(|judged| judged.simulated.as_secs_f64()).sum::<f64>() / 86_400.0;
    println!("{} seeds, {days:.1} service-days in {:.1} s", judged.len(), begun.elapsed().as_secs_f64());
    let seeds: Vec<u64> = failed.iter().map(|judged| judged.seed).collect();
    assert!(seeds.is_empty(), "seeds that break a rule: {seeds:?}; replay with `make simulate SEEDS={}`", seeds[0]);
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
