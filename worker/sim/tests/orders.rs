//! Method: a few claimants, and every order in which they can take their steps, with everything that an owner may do in between; see
//! [`forebay_sim::claims::explore`]. Deliberate bugs are searched for in the same worlds, so that what is not found is known to be not there.

use forebay_engine::claim::VersionRule;
use forebay_engine::ids::AssignmentVersion;
use forebay_engine::mutants::Bug;
use forebay_sim::claims::Budget;
use forebay_sim::claims::explore::{Explored, explore};
use forebay_sim::mutant::{self, Mutant};

type World = Vec<(VersionRule, Budget)>;

/// A claimant that commits one epoch.
const PLAIN: Budget = Budget { epochs: 1, uploads: 0, cuts: 0, releases: 0, returns: false, aborts: false };

fn world(budgets: &[Budget]) -> World {
    (1..).map(AssignmentVersion::new).map(VersionRule::Exactly).zip(budgets.iter().copied()).collect()
}

/// Small worlds that differ in what they are after. The versions rise in the order of the claimants.
fn worlds() -> Vec<(&'static str, World)> {
    let busy = Budget { epochs: 2, uploads: 1, cuts: 1, ..PLAIN };
    let undecided = Budget { epochs: 2, releases: 1, returns: true, aborts: true, ..PLAIN };
    let leaves = Budget { uploads: 1, releases: 1, ..PLAIN };
    vec![
        ("two that work, snapshot and cut", world(&[busy, busy])),
        ("one that may abort its release, or come back from it, and one that does not know", world(&[undecided, PLAIN])),
        ("three that work", world(&[PLAIN; 3])),
        ("one that leaves, and its snapshot between two claims", world(&[leaves, PLAIN, PLAIN])),
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

/// Two rules of design.md section 3 guard the same thing: in step 4 "go back to 3" (without it: [`Bug::NoBack`], bar whom one met and go on with
/// the claim one has; [`Bug::Behind`], do not mind records behind one's claim if their writers are barred or released), and in step 5 the
/// last look behind the claim (without it: [`Mutant::NoVerify`]). Leaving out one of the two is no bug, leaving out both is.
///
/// What the proof in section 3 needs of a claim is a moment T such that (a) at T no foreign record lies behind the claim record o; (b) everybody of
/// whom a record or a manifest was met is barred before T, or its last record was a committed release; (c) what was restored holds all that
/// was committed up to T. For whoever writes behind o after T was not met, or had released and claims anew; it reads from its manifest on, before
/// its claim and after, so it meets o or a manifest of an epoch behind o; and the first such epoch that is not the owner's is of
/// somebody who met o, and barred the owner before it committed anything.
///
/// With both rules, and with `NoVerify`, T is the moment of step 4's last scan: it found nothing unknown and nothing behind o. (c) holds for what an
/// owner may use: it restores after T; had anybody become owner since, then this one is barred, and can commit nothing on it.
///
/// With `NoBack` or `Behind`, T is the moment of the last look. (a) is what it looks for: a foreign record that lay behind o in step 4 lies there
/// still, since a journal changes at its end only, and a cut starts the claim again. (b) is step 4's barring, which the bugs leave in. (c) the
/// journal was read to its end after the barring, and nothing foreign came since.
///
/// The search agrees: no order of these worlds tells any of the three from none. And it shows what they are in pairs: bugs.
#[test]
fn the_step_back_and_the_last_look_stand_in_for_each_other() {
    for mutant in [Mutant::Engine(Bug::NoBack), Mutant::Engine(Bug::Behind), Mutant::NoVerify] {
        check_all(Some(mutant));
    }
    for mutant in [Mutant::NoBackUnverified, Mutant::BehindUnverified] {
        assert!(found(mutant) > 0, "{mutant:?} is found in none of the worlds");
    }
}

#[test]
fn what_breaks_the_protocol_is_found_in_small_worlds() {
    for mutant in [Mutant::NoBar, Mutant::NoGap, Mutant::ReleaseUncommitted] {
        assert!(found(mutant) > 0, "{mutant:?} is found in none of the worlds");
    }
}

/// Starts without an operator: whatever the order, in every end exactly one of them has the shard.
#[test]
fn of_starts_in_any_order_exactly_one_wins() {
    let start = (VersionRule::AboveAll, PLAIN);
    let explored = search(None, &[start; 2], true).unwrap_or_else(|what| panic!("{what}"));
    println!("{explored:?}");
    assert!(explored.ends > 1, "there is more than one way to end");
    for mutant in [Bug::BothYield, Bug::NeitherYields] {
        assert!(search(Some(Mutant::Engine(mutant)), &[start; 2], true).is_err(), "{mutant:?} is not found");
    }
}
