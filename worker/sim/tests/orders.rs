//! Method: a few claimants, and every order in which they can take their steps, with everything that an owner may do in between; see
//! [`forebay_sim::claims::explore`]. Deliberate bugs are searched for in the same worlds, so that what is not found is known to be not there.

use forebay_engine::claim::VersionRule;
use forebay_engine::ids::AssignmentVersion;
use forebay_engine::mutants::Bug;
use forebay_sim::claims::Budget;
use forebay_sim::claims::explore::{Explored, explore};
use forebay_sim::mutant::{self, Mutant};

type World = Vec<(VersionRule, Budget)>;

fn claimant(version: u64, epochs: u8, uploads: u8, cuts: u8, releases: u8) -> (VersionRule, Budget) {
    (VersionRule::Exactly(AssignmentVersion::new(version)), Budget { epochs, uploads, cuts, releases, aborts: false })
}

/// Small worlds that differ in what they are after.
fn worlds() -> Vec<(&'static str, World)> {
    vec![
        ("two that work, snapshot and cut", vec![claimant(1, 2, 1, 1, 0), claimant(2, 2, 1, 1, 0)]),
        ("one that releases and may come back, and one that does not know", vec![claimant(1, 1, 1, 0, 1), claimant(2, 1, 0, 0, 0)]),
        ("three that work", vec![claimant(1, 1, 0, 0, 0), claimant(2, 1, 0, 0, 0), claimant(3, 1, 0, 0, 0)]),
        ("a snapshot between two claims", vec![claimant(1, 1, 1, 0, 1), claimant(2, 1, 0, 0, 0), claimant(3, 1, 0, 0, 0)]),
    ]
}

fn search(mutant: Option<Mutant>, world: &[(VersionRule, Budget)], comes_back: bool) -> Result<Explored, String> {
    mutant::set(mutant);
    let outcome = explore(world, comes_back);
    mutant::set(None);
    outcome
}

/// In how many of the worlds the bug is found.
fn found(mutant: Mutant) -> usize {
    worlds().iter().filter(|(_, world)| search(Some(mutant), world, false).is_err()).count()
}

fn check_all(mutant: Option<Mutant>) {
    for (name, world) in worlds() {
        let explored = search(mutant, &world, false).unwrap_or_else(|what| panic!("{mutant:?}, {name}: {what}"));
        println!("{mutant:?}, {name}: {explored:?}");
        assert!(explored.commits > 0, "{name}: nobody ever commits an epoch");
    }
}

#[test]
fn no_order_lets_two_owners_interleave() {
    check_all(None);
}

#[test]
fn what_breaks_the_protocol_is_found_in_small_worlds() {
    for mutant in [Mutant::NoBar, Mutant::ReleaseUncommitted, Mutant::NoBackUnverified, Mutant::BehindUnverified] {
        assert!(found(mutant) > 0, "{mutant:?} is found in none of the worlds");
    }
}

/// Starts without an operator: whatever the order, in every end exactly one of them has the shard.
#[test]
fn of_starts_in_any_order_exactly_one_wins() {
    let start = (VersionRule::AboveAll, Budget { epochs: 1, uploads: 0, cuts: 0, releases: 0, aborts: false });
    let explored = search(None, &[start; 2], true).unwrap_or_else(|what| panic!("{what}"));
    println!("{explored:?}");
    assert!(explored.ends > 1, "there is more than one way to end");
    for mutant in [Bug::BothYield, Bug::NeitherYields] {
        assert!(search(Some(Mutant::Engine(mutant)), &[start; 2], true).is_err(), "{mutant:?} is not found");
    }
}
