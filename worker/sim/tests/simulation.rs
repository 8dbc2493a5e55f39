//! Method: thousands of seeds, each a run with faults and an aim of its own; an oracle that knows what must come out watches every commit, upload,
//! deletion and restore, and in the end all is healed and worked off. `SEEDS=5000..9000` or `SEEDS=20000` for more; `SEED=17` replays one and
//! prints what happened, step by step. The two simulations of claims alone have seeds of their own, `CLAIM_SEED` and `START_SEED`.

use std::num::NonZero;
use std::ops::Range;
use std::panic::resume_unwind;
use std::thread;

use forebay_sim::coverage::Coverage;
use forebay_sim::run::{self, SITUATIONS};
use forebay_sim::{claims, panics};

/// Seeds of the normal run: every pair of phase and fault is the aim of a dozen of them.
const RUNS: u64 = 4_000;
/// Runs of the claim protocol alone.
const CLAIM_RUNS: u64 = 100_000;
/// Runs of several starts at the same time.
const START_RUNS: u64 = 20_000;

fn seeds(default: u64) -> Range<u64> {
    let Ok(text) = std::env::var("SEEDS") else { return 0..default };
    let number = |text: &str| text.trim().parse().unwrap_or_else(|_| panic!("SEEDS={text} is neither a number nor a range like 0..100"));
    text.split_once("..").map_or_else(|| 0..number(&text), |(from, to)| number(from)..number(to))
}

fn run_all(seeds: impl Iterator<Item = u64>) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in seeds {
        let (covered, outcome) = run::run(seed, None);
        outcome.unwrap_or_else(|violation| panic!("seed {seed}: {violation}\nto see it: make sim SEED={seed}"));
        coverage.add(&covered);
    }
    coverage
}

#[test]
fn every_invariant_holds_whatever_crashes_stalls_or_gets_lost() {
    if let Ok(seed) = std::env::var("SEED") {
        let (trace, outcome) = run::trace(seed.parse().expect("SEED is a number"), None);
        trace.iter().for_each(|line| println!("{line}"));
        return outcome.unwrap_or_else(|violation| panic!("{violation}"));
    }
    if std::env::var("CLAIM_SEED").or(std::env::var("START_SEED")).is_ok() {
        return;
    }
    let threads = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let coverage = thread::scope(|scope| {
        let part = |part: u64| move || run_all(seeds(RUNS).filter(|seed| seed % threads == part));
        let parts: Vec<_> = (0..threads).map(|number| scope.spawn(part(number))).collect();
        let mut coverage = Coverage::default();
        parts.into_iter().for_each(|part| coverage.add(&part.join().unwrap_or_else(|panic| resume_unwind(panic))));
        coverage
    });
    println!("{}", coverage.table());
    let unmet: Vec<_> = run::pairs().into_iter().filter(|(phase, fault)| coverage.pair(phase, *fault) == 0).collect();
    let unseen: Vec<_> = SITUATIONS.iter().filter(|name| coverage.met(name) == 0).collect();
    let complete = std::env::var("SEEDS").is_ok() || (unmet.is_empty() && unseen.is_empty());
    assert!(complete, "no run met {unmet:?} and {unseen:?}: what was not met was not tested");
}

/// Runs one of the simulations of claims alone: all its seeds, or the one that the variable names. Returns the sum of what they count.
fn claims_alone(variable: &str, runs: u64, run: impl Fn(u64) -> Result<usize, String>) -> usize {
    let one = std::env::var(variable).ok().map(|seed| seed.parse().unwrap_or_else(|_| panic!("{variable}={seed} is no number")));
    let of = |seed| {
        let outcome = panics::caught(|| run(seed)).unwrap_or_else(Err);
        outcome.unwrap_or_else(|what| panic!("{what}\nto see it again: make sim {variable}={seed}"))
    };
    match one {
        Some(seed) => of(seed),
        None if ["SEED", "CLAIM_SEED", "START_SEED"].iter().any(|other| std::env::var(other).is_ok()) => 1,
        None => seeds(runs).map(of).sum(),
    }
}

#[test]
fn no_schedule_of_claims_alone_lets_two_owners_interleave() {
    let epochs = claims_alone("CLAIM_SEED", CLAIM_RUNS, claims::random::run);
    assert!(epochs > 0, "claims that never lead to an epoch prove nothing");
}

#[test]
fn of_starts_that_do_not_see_each_other_exactly_one_wins() {
    let barred = claims_alone("START_SEED", START_RUNS, |seed| claims::random::starts(seed).map(|starts| starts.again));
    assert!(barred > 0, "starts that never meet prove nothing");
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in [3, 11, 42, 97] {
        let (first, second) = (run::trace(seed, None), run::trace(seed, None));
        assert!(first.0.len() > 100);
        let different = first.0.iter().zip(&second.0).position(|(a, b)| a != b);
        assert_eq!((different, first.0.len(), first.1), (None, second.0.len(), second.1), "seed {seed}");
    }
}
