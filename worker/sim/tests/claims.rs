//! tmp
use forebay_sim::{claims, mutant::{self, Mutant}};
use forebay_engine::mutants::Bug;
#[test]
fn tmp() {
    let n: u64 = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    for m in [None, Some(Mutant::NoBar), Some(Mutant::NoGap), Some(Mutant::ReleaseUncommitted), Some(Mutant::NoVerify), Some(Mutant::Engine(Bug::NoBack)), Some(Mutant::Engine(Bug::Behind))] {
        mutant::set(m);
        let start = std::time::Instant::now();
        let (mut bad, mut ep, mut first) = (0, 0, None);
        for seed in 0..n {
            match forebay_sim::panics::caught(|| claims::run(seed)).unwrap_or_else(Err) { Ok(e) => ep += e, Err(e) => { bad += 1; first.get_or_insert((seed, e)); } }
        }
        println!("{m:?}: {bad} bad, {ep} epochs, {:?} {:?}", start.elapsed(), first.map(|(s, e)| (s, e[..e.len().min(100)].to_owned())));
    }
}
