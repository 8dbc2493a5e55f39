//! Method: many seeds, each a run of its own with its own faults and its own aim; an oracle that knows what must come out. A failure prints the
//! seed and how to see it again.

use forebay_sim::run::{self, PAIRS};

#[test]
fn tmp() {
    let seeds: std::ops::Range<u64> = match std::env::var("SEEDS") { Ok(s) => { let (a,b) = s.split_once("..").unwrap(); a.parse().unwrap()..b.parse().unwrap() }, Err(_) => 0..300 };
    if let Ok(seed) = std::env::var("SEED") {
        let (trace, outcome) = run::trace(seed.parse().unwrap(), None);
        for line in trace { println!("{line}"); }
        outcome.unwrap();
        return;
    }
    let start = std::time::Instant::now();
    let mut coverage = forebay_sim::coverage::Coverage::default();
    let mut failures = Vec::new();
    let n = seeds.end - seeds.start;
    for seed in seeds {
        let (covered, outcome) = run::run(seed, None);
        coverage.add(&covered);
        if let Err(v) = outcome { failures.push((seed, v)); }
    }
    println!("{} runs in {:?}", n, start.elapsed());
    println!("{}", coverage.table());
    for (phase, faults) in PAIRS { for fault in *faults { if coverage.pair(phase, *fault) == 0 { println!("UNMET {phase} {fault:?}"); } } }
    println!("{} failures", failures.len());
    for (seed, v) in failures.iter().take(40) { let s = v.to_string(); println!("seed {seed}: {}", &s[..s.len().min(300)]); }
    assert!(failures.is_empty());
}
