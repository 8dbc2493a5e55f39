//! Method: switch one deliberate bug on, and run the seeds of the normal test run until one fails. A bug that none of them finds is a hole in
//! the net. Bugs of the claim protocol that only certain orders show are searched for in `orders.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_engine::ids::ShardId;
use forebay_engine::mutants::Bug;
use forebay_sim::mutant::{self, Mutant};
use forebay_sim::oracle::Invariant::{self, *};
use forebay_sim::world::{Setup, World};
use forebay_sim::{claims, panics, run};

/// As many as the normal run has.
const RUNS: u64 = 4_000;
const CLAIM_RUNS: u64 = 100_000;

/// It must be seen as a violation of one of these invariants. Runs that see something else first, a job that gets nowhere for example, do not count.
fn found_by_runs(mutant: Mutant, as_one_of: &[Invariant]) {
    let mut others = BTreeSet::new();
    let found = (0..RUNS).find(|seed| match run::run(*seed, Some(mutant)).1 {
        Ok(()) => false,
        Err(violation) if as_one_of.contains(&violation.invariant) => true,
        Err(violation) => {
            others.insert(violation.invariant);
            false
        }
    });
    assert!(found.is_some(), "{mutant:?} is found by none of {RUNS} seeds as one of {as_one_of:?}, but as {others:?}");
}

fn found_by_claims(mutant: Mutant) {
    found_alone(mutant, "was committed", |seed| claims::random::run(seed).map(drop));
}

fn found_by_starts(mutant: Mutant, says: &str) {
    found_alone(mutant, says, |seed| claims::random::starts(seed).map(drop));
}

fn found_alone(mutant: Mutant, says: &str, run: impl Fn(u64) -> Result<(), String>) {
    mutant::set(Some(mutant));
    let found = (0..CLAIM_RUNS).find_map(|seed| panics::caught(|| run(seed)).unwrap_or_else(Err).err());
    mutant::set(None);
    let what = found.unwrap_or_else(|| panic!("{mutant:?} is found by none of {CLAIM_RUNS} seeds"));
    assert!(what.contains(says), "{mutant:?} is found as {what:?}, which does not say {says:?}");
}

/// Worker 0 owns a shard, has nothing left to commit, and worker 1 is given it: within two looks worker 0 must have given up.
fn found_by_a_replaced_owner(mutant: Mutant) {
    mutant::set(Some(mutant));
    let replaced = panics::caught(|| {
        let mut world = World::new(Setup { watch: Duration::from_secs(5), checkpoint_epochs: 1000, ..Setup::quiet() }, 7);
        for seat in [0, 1] {
            world.start(seat);
            let version = world.next_version();
            world.assign(seat, version);
            world.until("it owns the shard", |world| world.runs(seat, ShardId::new(0)));
            // The first owner commits where it starts, and is idle from then on.
            for _ in 0..3 {
                world.until("all is quiet", |world| world.actors().is_empty());
                world.pass(Duration::from_millis(100));
            }
        }
        for _ in 0..2 {
            world.pass(Duration::from_secs(6));
            world.until("all is quiet", |world| world.actors().is_empty());
        }
        assert!(world.is_at(0, "left"), "it goes on: {:?}", world.phases(0));
    });
    mutant::set(None);
    assert!(replaced.as_ref().is_err_and(|panic| panic.contains("it goes on")), "{mutant:?} is not found: {replaced:?}");
}

macro_rules! mutants {
    ($($name:ident: $check:ident($mutant:expr $(, $as:expr)?);)*) => {
        $(#[test]
        fn $name() {
            $check($mutant $(, $as)?);
        })*
    };
}

mutants! {
    earlier_owners_are_not_barred: found_by_runs(Mutant::NoBar, &[I4Owners]);
    earlier_owners_are_not_barred_in_claims_alone: found_by_claims(Mutant::NoBar);
    a_cut_journal_goes_unnoticed: found_by_claims(Mutant::NoGap);
    an_uncommitted_release_counts: found_by_claims(Mutant::ReleaseUncommitted);
    a_claim_does_not_go_back_to_its_third_step: found_by_claims(Mutant::NoBackUnverified);
    of_two_starts_both_give_up: found_by_starts(Mutant::Engine(Bug::BothYield), "these own the shard: []");
    of_two_starts_neither_gives_up: found_by_starts(Mutant::Engine(Bug::NeitherYields), "was barred 8 times");
    outputs_are_put_out_before_the_commit_is_known: found_by_runs(Mutant::OutputsEarly, &[I1ExactlyOnce]);
    garbage_is_deleted_before_its_epoch_is_committed: found_by_runs(Mutant::DeleteAtOnce, &[I6Garbage]);
    a_snapshot_is_taken_of_an_uncommitted_epoch: found_by_runs(Mutant::SnapshotUncommitted, &[I5Snapshots]);
    the_outputs_of_an_epoch_are_put_out_in_another_order: found_by_runs(Mutant::OutputsReversed, &[I3Order]);
    the_books_leave_out_what_was_seen_before: found_by_runs(Mutant::Engine(Bug::BooksUncounted), &[I8Books]);
    a_damaged_file_of_a_checkpoint_is_restored: found_by_runs(Mutant::ChecksumIgnored, &[I2State]);
    a_file_id_comes_twice: found_by_runs(Mutant::FileIdTwice, &[I5Snapshots]);
    a_failed_commit_is_tried_again_with_the_same_producer: found_by_runs(Mutant::CommitAgain, &[I4Owners]);
    an_epoch_takes_more_than_it_may: found_by_runs(Mutant::EpochUnbounded, &[I9Memory]);
    the_overlay_is_kept_after_an_abort: found_by_runs(Mutant::OverlayKept, &[Assertion, I4Owners]);
    the_journal_is_cut_before_the_list_is_committed: found_by_runs(Mutant::CutEarly, &[I6Garbage]);
    the_list_is_never_trimmed: found_by_runs(Mutant::Engine(Bug::ListNotTrimmed), &[I6Garbage]);
    the_list_is_trimmed_to_one: found_by_runs(Mutant::Engine(Bug::ListTrimmedToOne), &[I6Garbage]);
    a_file_is_reused_by_its_name_only: found_by_runs(Mutant::Engine(Bug::FileByName), &[I5Snapshots, I2State]);
    the_clock_goes_back: found_by_runs(Mutant::Engine(Bug::ClockBack), &[I7Clock]);
    a_patch_is_made_against_the_last_record_and_not_the_last_epoch: found_by_runs(Mutant::Engine(Bug::PatchOfLastRecord), &[I2State]);
    an_idle_owner_does_not_look_whether_it_was_replaced: found_by_a_replaced_owner(Mutant::Engine(Bug::Unwatchful));
    garbage_counts_although_the_list_grew: found_by_runs(Mutant::Engine(Bug::StaleGarbage), &[I6Garbage]);
}
