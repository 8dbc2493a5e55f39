//! Method: switch one deliberate bug on, and run the seeds of the normal test run until one fails. A bug that none of them finds is a hole in
//! the net. Bugs of the claim protocol that only certain orders show are searched for in `orders.rs`.

use std::time::Duration;

use forebay_engine::ids::ShardId;
use forebay_engine::mutants::Bug;
use forebay_sim::mutant::{self, Mutant};
use forebay_sim::world::{Setup, World};
use forebay_sim::{claims, panics, run};

/// As many as the normal run has.
const RUNS: u64 = 4_000;
const CLAIM_RUNS: u64 = 100_000;

fn found_by_runs(mutant: Mutant) {
    let found = (0..RUNS).find(|seed| run::run(*seed, Some(mutant)).1.is_err());
    assert!(found.is_some(), "{mutant:?} is found by none of {RUNS} seeds");
}

fn found_by_claims(mutant: Mutant) {
    mutant::set(Some(mutant));
    let found = (0..CLAIM_RUNS).find(|seed| panics::caught(|| claims::random::run(*seed)).unwrap_or_else(Err).is_err());
    mutant::set(None);
    assert!(found.is_some(), "{mutant:?} is found by none of {CLAIM_RUNS} seeds of the claims");
}

fn found_by_starts(mutant: Mutant) {
    mutant::set(Some(mutant));
    let found = (0..CLAIM_RUNS).find(|seed| panics::caught(|| claims::random::starts(*seed)).unwrap_or_else(Err).is_err());
    mutant::set(None);
    assert!(found.is_some(), "{mutant:?} is found by none of {CLAIM_RUNS} seeds of the starts");
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
    ($($name:ident: $check:ident($mutant:expr);)*) => {
        $(#[test]
        fn $name() {
            $check($mutant);
        })*
    };
}

mutants! {
    earlier_owners_are_not_barred: found_by_runs(Mutant::NoBar);
    earlier_owners_are_not_barred_in_claims_alone: found_by_claims(Mutant::NoBar);
    a_cut_journal_goes_unnoticed: found_by_claims(Mutant::NoGap);
    an_uncommitted_release_counts: found_by_claims(Mutant::ReleaseUncommitted);
    a_claim_does_not_go_back_to_its_third_step: found_by_claims(Mutant::NoBackUnverified);
    of_two_starts_both_give_up: found_by_starts(Mutant::Engine(Bug::BothYield));
    of_two_starts_neither_gives_up: found_by_starts(Mutant::Engine(Bug::NeitherYields));
    outputs_are_put_out_before_the_commit_is_known: found_by_runs(Mutant::OutputsEarly);
    garbage_is_deleted_before_its_epoch_is_committed: found_by_runs(Mutant::DeleteAtOnce);
    a_snapshot_is_taken_of_an_uncommitted_epoch: found_by_runs(Mutant::SnapshotUncommitted);
    a_file_id_comes_twice: found_by_runs(Mutant::FileIdTwice);
    a_failed_commit_is_tried_again_with_the_same_producer: found_by_runs(Mutant::CommitAgain);
    an_epoch_takes_more_than_it_may: found_by_runs(Mutant::EpochUnbounded);
    the_overlay_is_kept_after_an_abort: found_by_runs(Mutant::OverlayKept);
    the_journal_is_cut_before_the_list_is_committed: found_by_runs(Mutant::CutEarly);
    the_list_is_never_trimmed: found_by_runs(Mutant::Engine(Bug::ListNotTrimmed));
    the_list_is_trimmed_to_one: found_by_runs(Mutant::Engine(Bug::ListTrimmedToOne));
    a_file_is_reused_by_its_name_only: found_by_runs(Mutant::Engine(Bug::FileByName));
    the_clock_goes_back: found_by_runs(Mutant::Engine(Bug::ClockBack));
    a_patch_is_made_against_the_last_record_and_not_the_last_epoch: found_by_runs(Mutant::Engine(Bug::PatchOfLastRecord));
    an_idle_owner_does_not_look_whether_it_was_replaced: found_by_a_replaced_owner(Mutant::Engine(Bug::Unwatchful));
    garbage_counts_although_the_list_grew: found_by_runs(Mutant::Engine(Bug::StaleGarbage));
}
