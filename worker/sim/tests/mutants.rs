//! Method: switch one deliberate bug on, run seeds of the normal test run until one of them fails. A bug that none finds is a hole in the net.

use forebay_sim::mutant::ALL;
use forebay_sim::run;

#[test]
fn tmp() {
    for mutant in ALL {
        let start = std::time::Instant::now();
        let found = (0..2000u64).find_map(|seed| run::run(seed, Some(*mutant)).1.err().map(|v| (seed, v)));
        println!("{mutant:?}: {:?} {:?}", found.map(|(s, v)| (s, { let s = v.to_string(); s[..s.len().min(150)].to_owned() })), start.elapsed());
    }
}
