//! Section 3, "Claim" and "Release", step by step.

use forebay_engine::ids::AssignmentVersion;
use forebay_sim::coverage::Fault;

use crate::*;

#[test]
fn a_zombie_that_wakes_in_the_middle_of_a_commit_commits_nothing() {
    for part in ["commit-begin", "commit-journal", "commit-outputs", "commit-offsets", "commit-end"] {
        let mut world = owned(Setup::quiet());
        world.produce(5);
        world.until("worker 0 commits", |world| world.is_at(0, part));
        world.hold(0);
        take_over(&mut world);
        world.work_off(5);
        world.wake(0);
        world.until("the zombie is fenced", |world| world.coverage.met("a producer is fenced") > 0);
        world.end();
    }
}

#[test]
fn a_zombies_last_request_that_arrives_behind_a_claim_changes_nothing() {
    for part in ["commit-journal", "commit-outputs", "commit-end"] {
        let mut world = owned(Setup::quiet());
        world.force(part, Fault::Late);
        world.produce(5);
        world.until("the request is late", |world| !world.is_forced());
        world.crash(0, false);
        take_over(&mut world);
        world.end();
        assert_eq!(world.coverage.met("a producer's request arrives late"), 1, "{part}");
    }
}

/// Method: the mark goes alone, and with a last epoch.
#[test]
fn a_release_whose_transaction_aborts_is_no_release_and_its_writer_is_barred() {
    for records in [0, 3] {
        let mut world = owned(Setup::quiet());
        world.produce(records);
        let version = world.next_version();
        world.unassign(0, version);
        // A last epoch may have gone before it.
        world.until("the release is sent", |world| world.is_at(0, "commit-end") && records_of(world, "w0", Kind::Release) == 1);
        world.hold(0);
        let version = world.next_version();
        world.assign(1, version);
        world.until("worker 1 bars", |world| world.coverage.met("a live incarnation is barred") > 0);
        world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
        world.work_off(5);
        world.end();
    }
}

/// Its writer cannot know, and leaves all the same.
#[test]
fn a_release_that_is_committed_counts_although_its_writer_never_heard_of_it() {
    let mut world = owned(Setup::quiet());
    world.produce(3);
    let version = world.next_version();
    world.unassign(0, version);
    world.until("the release is sent", |world| world.is_at(0, "releasing") && world.is_at(0, "commit-end"));
    world.force("commit-end", Fault::ReplyLost);
    world.until("worker 0 has left", |world| world.is_at(0, "left"));
    quiet(&mut world);
    take_over(&mut world);
    world.work_off(5);
    assert_eq!(world.coverage.met("a live incarnation is barred"), 0);
    world.end();
}

#[test]
fn a_claim_after_a_committed_release_bars_nobody() {
    let mut world = owned(Setup::quiet());
    let version = world.next_version();
    world.unassign(0, version);
    world.until("the release is committed", |world| world.is_at(0, "left"));
    // The marker follows; until it is there nobody can know.
    quiet(&mut world);
    take_over(&mut world);
    world.work_off(5);
    assert_eq!(world.coverage.met("a live incarnation is barred"), 0);
    world.end();
}

#[test]
fn a_claim_whose_journal_is_cut_between_manifest_and_scan_starts_again() {
    let mut world = owned(Setup::quiet());
    while retained(&world) == 0 {
        world.work_off(3);
    }
    let version = world.next_version();
    world.assign(1, version);
    world.until("worker 1 has read the manifest", |world| world.is_at(1, "scanning"));
    world.hold(1);
    let read = start_of(&world);
    for _ in 0..12 {
        world.work_off(3);
    }
    assert!(start_of(&world) > read, "the journal was cut meanwhile");
    world.wake(1);
    world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
    assert!(world.coverage.met("the journal is cut between manifest and scan") > 0);
    world.end();
}

#[test]
fn a_journal_that_nobody_can_restore_from_stalls_and_says_so() {
    let mut world = World::new(Setup { checkpoint_epochs: 1000, ..Setup::quiet() }, 7);
    world.start(0);
    let version = world.next_version();
    world.assign(0, version);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    world.work_off(5);
    let end = world.log.journal_range(SHARD).end;
    world.cut_by_hand(SHARD, end);
    world.crash(0, true);
    world.start(0);
    let version = world.next_version();
    world.assign(0, version);
    world.until("it stalls", |world| world.coverage.met("a shard stalls") > 0);
    assert!(!world.runs(0, SHARD));
}

#[test]
fn the_same_version_given_to_two_workers_never_makes_two_owners_and_the_next_version_wins() {
    let mut world = World::new(Setup::quiet(), 7);
    (0..2).for_each(|seat| world.start(seat));
    let version = world.next_version();
    world.assign(0, version);
    world.assign(1, version);
    let settled = |world: &World, seat: usize| world.runs(seat, SHARD) || world.is_at(seat, "left");
    world.until("both have settled", |world| settled(world, 0) && settled(world, 1));
    assert!(world.is_at(0, "left") || world.is_at(1, "left"));
    take_over(&mut world);
    world.end();
}

#[test]
fn who_gives_up_after_its_claim_record_commits_a_release() {
    let mut world = World::new(Setup::quiet(), 7);
    (0..2).for_each(|seat| world.start(seat));
    let (lower, higher) = (world.next_version(), world.next_version());
    world.assign(0, higher);
    world.until("worker 0 has read the journal and is about to put its claim", |world| world.is_at(0, "commit-journal"));
    world.hold(0);
    world.assign(1, lower);
    world.until("worker 1's claim lies in the journal", |world| world.is_at(1, "reading-on"));
    world.hold(1);
    world.wake(0);
    world.until("worker 0's claim lies behind it", |world| world.is_at(0, "reading-on"));
    world.hold(0);
    world.wake(1);
    world.until("worker 1 has given up and released", |world| world.is_at(1, "left"));
    assert_eq!(world.coverage.met("a claim is given up after its record was committed"), 1);
    world.wake(0);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    assert_eq!(world.coverage.met("a live incarnation is barred"), 0);
    world.end();
}

#[test]
fn an_assignment_that_comes_while_a_shard_is_released_is_not_forgotten() {
    let mut world = owned(Setup::quiet());
    world.produce(3);
    let version = world.next_version();
    world.unassign(0, version);
    world.until("worker 0 releases", |world| world.is_at(0, "releasing"));
    let version = world.next_version();
    world.assign(0, version);
    world.until("worker 0 owns it again", |world| world.runs(0, SHARD) && world.is_worked_off());
    world.end();
}

/// Step 1: "uncommitted records too".
#[test]
fn an_incarnation_whose_only_record_is_in_an_open_transaction_is_barred() {
    let mut world = World::new(Setup::quiet(), 7);
    (0..2).for_each(|seat| world.start(seat));
    let version = world.next_version();
    world.assign(0, version);
    world.until("worker 0's claim lies in the journal, its transaction is open", |world| world.is_at(0, "commit-end"));
    world.hold(0);
    take_over(&mut world);
    assert_eq!(world.coverage.met("a live incarnation is barred"), 1);
    world.wake(0);
    world.until("worker 0 is fenced and gives up", |world| world.is_at(0, "left"));
    world.end();
}

/// Step 1: "the incarnations seen in both": here in the manifest alone, behind which the journal holds nothing.
#[test]
fn an_owner_that_only_the_manifest_names_is_barred() {
    let mut world = owned(Setup::quiet());
    let put = world.coverage.met("a manifest is put");
    let is_put = move |world: &World| world.coverage.met("a manifest is put") > put;
    while !is_put(&world) {
        world.produce(1);
        world.until("all is quiet, or a manifest is put", |world| world.actors().is_empty() || is_put(world));
    }
    // The epoch that would say so is not committed.
    world.hold(0);
    take_over(&mut world);
    assert_eq!(world.coverage.met("a live incarnation is barred"), 1);
    world.wake(0);
    world.end();
}

/// Step 1: "less those whose *last* record is a committed release".
#[test]
fn an_incarnation_that_claims_again_behind_its_release_is_barred() {
    let mut world = owned(Setup::quiet());
    let version = world.next_version();
    world.unassign(0, version);
    world.until("the release is committed", |world| world.is_at(0, "left"));
    let version = world.next_version();
    world.assign(0, version);
    world.until("worker 0 owns it again", |world| world.runs(0, SHARD));
    quiet(&mut world);
    assert_eq!(world.coverage.met("an incarnation is over"), 0, "it is the same incarnation");
    take_over(&mut world);
    assert_eq!(world.coverage.met("a live incarnation is barred"), 1);
    world.end();
}

/// Step 1: "give up if one of them has a higher assignment version".
#[test]
fn a_stale_assignment_gives_up_before_it_bars_anybody() {
    let mut world = World::new(Setup::quiet(), 7);
    (0..2).for_each(|seat| world.start(seat));
    let (stale, version) = (world.next_version(), world.next_version());
    world.assign(0, version);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    world.assign(1, stale);
    world.until("worker 1 gives up", |world| world.is_at(1, "left"));
    assert_eq!(world.coverage.met("a claim is given up before its record"), 1);
    assert_eq!(world.coverage.met("a live incarnation is barred"), 0);
    assert_eq!(records_of(&world, "w1", Kind::Claim), 0);
    world.end();
}

/// Step 2: "a live process that is barred takes a new incarnation and claims all its shards again"; "What a claim costs others".
#[test]
fn a_worker_that_is_barred_for_one_shard_claims_its_others_again() {
    let other = ShardId::new(1);
    let mut world = World::new(Setup { shards: 2, partitions: 2, ..Setup::quiet() }, 7);
    (0..2).for_each(|seat| world.start(seat));
    let version = world.next_version();
    world.assign(0, version);
    world.until("both shards run", |world| world.runs(0, SHARD) && world.runs(0, other));
    world.work_off(10);
    let version = world.next_version();
    world.assign_some_to(1, version, &[SHARD]);
    world.until("worker 1 owns shard 0", |world| world.runs(1, SHARD));
    world.produce(10);
    world.until("worker 0 has lost shard 0 and claimed shard 1 again", |world| {
        world.coverage.met("an incarnation is over") == 1 && world.is_at(0, "left") && world.runs(0, other)
    });
    world.until("all is worked off", World::is_worked_off);
    assert_eq!(world.coverage.met("a live incarnation is barred"), 1, "the two do not fight");
    world.end();
}

/// Step 2: an incarnation that several journals name is barred once, for all of them; a claim that began later takes the answer over.
#[test]
fn an_incarnation_is_barred_once_for_all_shards() {
    let mut world = World::new(Setup { shards: 2, partitions: 2, ..Setup::quiet() }, 7);
    (0..2).for_each(|seat| world.start(seat));
    let version = world.next_version();
    world.assign(0, version);
    world.until("both shards run", |world| world.runs(0, SHARD) && world.runs(0, ShardId::new(1)));
    world.work_off(10);
    let before = world.coverage.met("an incarnation is barred");
    world.crash(0, false);
    let version = world.next_version();
    world.assign(1, version);
    world.until("both shards run", |world| world.runs(1, SHARD) && world.runs(1, ShardId::new(1)));
    assert_eq!(world.coverage.met("an incarnation is barred"), before + 1);
    world.end();
}

/// Step 2: the answer counts when it is there, not when it was asked for.
#[test]
fn a_shard_waits_for_a_barring_that_another_one_asked_for() {
    let other = ShardId::new(1);
    let mut world = World::new(Setup { shards: 2, partitions: 2, ..Setup::quiet() }, 7);
    (0..2).for_each(|seat| world.start(seat));
    let version = world.next_version();
    world.assign(0, version);
    world.until("both shards run", |world| world.runs(0, SHARD) && world.runs(0, other));
    world.work_off(10);
    world.hold_calls(Some("bar"));
    let version = world.next_version();
    world.assign(1, version);
    let waits = |world: &World| world.phases(1).iter().filter(|phase| **phase == "barring").count() == 2;
    world.until("both claims want it, or one goes on", |world| waits(world) || world.runs(1, SHARD) || world.runs(1, other));
    world.work_off(4);
    assert!(waits(&world) && records_of(&world, "w1", Kind::Claim) == 0, "it claims before anybody is barred");
    world.hold_calls(None);
    world.until("both shards run", |world| world.runs(1, SHARD) && world.runs(1, other));
    world.end();
}

/// The same with the bug that it guards against.
#[test]
fn a_barring_that_counts_before_it_is_done_is_found() {
    fails_with(Bug::BarredTooSoon, a_shard_waits_for_a_barring_that_another_one_asked_for, "it claims before anybody is barred");
}

/// "The answer is not believed for ever: the broker forgets": what was barred for one shard is barred for the next without asking, until a heartbeat's time is over.
#[test]
fn a_barring_is_believed_for_the_time_of_a_heartbeat_and_then_done_again() {
    let (second, third) = (ShardId::new(1), ShardId::new(2));
    let mut world = World::new(Setup { shards: 3, partitions: 3, ..Setup::quiet() }, 7);
    (0..2).for_each(|seat| world.start(seat));
    let version = world.next_version();
    world.assign(0, version);
    world.until("all shards run", |world| [SHARD, second, third].into_iter().all(|shard| world.runs(0, shard)));
    world.work_off(10);
    quiet(&mut world);
    // It sleeps from now on, with its producer open.
    world.hold(0);
    let mut take = |shards: &[ShardId]| {
        let before = world.coverage.met("an incarnation is barred");
        let version = world.next_version();
        world.assign_some_to(1, version, shards);
        world.until("worker 1 owns them", |world| shards.iter().all(|shard| world.runs(1, *shard)));
        quiet(&mut world);
        let barred = world.coverage.met("an incarnation is barred") - before;
        world.pass(world.setup.heartbeat / 3);
        barred
    };
    assert_eq!(take(&[SHARD]), 1);
    assert_eq!(take(&[SHARD, second]), 0, "it is known to be barred");
    take(&[SHARD, second]);
    assert_eq!(take(&[SHARD, second, third]), 1, "it may be forgotten by now");
    world.wake(0);
    world.end();
}

/// The same with the bug that it guards against.
#[test]
fn a_barring_that_is_believed_for_ever_is_found() {
    fails_with(Bug::BarredForEver, a_barring_is_believed_for_the_time_of_a_heartbeat_and_then_done_again, "it may be forgotten by now");
}

/// Step 4: "an equal one of another worker: give up": each has claimed before it could see the other.
#[test]
fn two_workers_that_claimed_under_the_same_version_both_give_up() {
    let mut world = World::new(Setup::quiet(), 7);
    (0..2).for_each(|seat| world.start(seat));
    let version = world.next_version();
    for phase in ["commit-journal", "reading-on"] {
        for seat in 0..2 {
            if phase == "commit-journal" {
                world.assign(seat, version);
            }
            world.wake(seat);
            world.until("it has come so far", |world| world.is_at(seat, phase));
            world.hold(seat);
        }
    }
    (0..2).for_each(|seat| world.wake(seat));
    world.until("both have given up", |world| world.is_at(0, "left") && world.is_at(1, "left"));
    assert_eq!(world.coverage.met("a claim is given up after its record was committed"), 2);
    assert_eq!(world.coverage.met("a shard is owned"), 0);
    take_over(&mut world);
    world.end();
}

/// "Reports the version that it met; the operator's next assignment lies above any version seen": the operator has forgotten its own.
#[test]
fn a_version_that_was_met_is_reported_and_surpassed() {
    let mut world = World::new(Setup::quiet(), 7);
    (0..2).for_each(|seat| world.start(seat));
    let forgotten = AssignmentVersion::new(40);
    world.assign(0, forgotten);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    let low = world.next_version();
    assert!(low < forgotten);
    world.assign(1, low);
    world.until("worker 1 gives up", |world| world.is_at(1, "left"));
    let next = world.next_version();
    assert_eq!(next, forgotten.next());
    world.assign(1, next);
    world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
    world.end();
}

/// Step 4: "an incarnation that is neither barred nor released: bar it", and "go back to 3".
#[test]
fn an_owner_that_came_between_scan_and_claim_is_barred_and_the_claim_repeated() {
    let mut world = World::new(Setup::quiet(), 7);
    (0..2).for_each(|seat| world.start(seat));
    let (lower, higher) = (world.next_version(), world.next_version());
    world.assign(1, higher);
    world.until("worker 1 has read the journal and is about to put its claim", |world| world.is_at(1, "commit-journal"));
    world.hold(1);
    world.assign(0, lower);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    world.work_off(5);
    world.wake(1);
    world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
    assert_eq!(records_of(&world, "w1", Kind::Claim), 2);
    assert_eq!(world.coverage.met("a live incarnation is barred"), 1);
    world.end();
}

/// Step 4: "if any record of another lies behind one's claim record", even of one that has left and need not be barred.
#[test]
fn records_behind_a_claim_send_it_back_even_if_their_writer_has_released() {
    let mut world = World::new(Setup::quiet(), 7);
    (0..2).for_each(|seat| world.start(seat));
    let (lower, higher) = (world.next_version(), world.next_version());
    world.assign(1, higher);
    world.until("worker 1 is about to put its claim", |world| world.is_at(1, "commit-journal"));
    world.hold(1);
    world.assign(0, lower);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    world.wake(1);
    world.until("worker 1's claim lies in the journal", |world| world.is_at(1, "commit-end"));
    world.hold(1);
    world.work_off(5);
    let version = world.next_version();
    world.unassign(0, version);
    world.until("worker 0 has released", |world| world.is_at(0, "left"));
    world.wake(1);
    world.until("worker 1 reads on", |world| world.is_at(1, "reading-on"));
    world.hold(1);
    quiet(&mut world);
    world.wake(1);
    world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
    assert_eq!(records_of(&world, "w1", Kind::Claim), 2);
    assert_eq!(world.coverage.met("a live incarnation is barred"), 0);
    world.end();
}

/// "Whenever the journal turns out to be cut past what one has read": here between steps 3 and 4.
#[test]
fn a_claim_whose_journal_is_cut_before_it_has_read_on_starts_again() {
    let mut world = owned(Setup { workers: 3, ..Setup::quiet() });
    let version = world.next_version();
    world.assign(1, version);
    world.until("worker 1 has put its claim", |world| world.is_at(1, "reading-on"));
    world.hold(1);
    overtake(&mut world);
    world.wake(1);
    world.until("worker 1 gives up to worker 2", |world| world.is_at(1, "left"));
    assert!(world.runs(2, SHARD));
    world.end();
}

/// The same while it restores.
#[test]
fn a_restore_whose_journal_is_cut_under_it_starts_its_claim_again() {
    let mut world = owned(Setup { workers: 3, ..Setup::quiet() });
    let version = world.next_version();
    world.assign(1, version);
    world.until("worker 1 is about to read what it restores", |world| world.is_at(1, "restore-journal"));
    world.hold(1);
    overtake(&mut world);
    world.wake(1);
    world.until("worker 1 gives up to worker 2", |world| world.is_at(1, "left"));
    assert!(world.coverage.met("the journal is cut under a restore") > 0);
    world.end();
}

/// Worker 2 takes the shard and goes on until all that was there before is cut off.
fn overtake(world: &mut World) {
    let (version, end) = (world.next_version(), world.log.journal_range(SHARD).end);
    world.assign(2, version);
    world.until("worker 2 owns the shard", |world| world.runs(2, SHARD));
    while start_of(world) <= end {
        world.work_off(3);
    }
}

/// Step 5: "anything foreign behind the claim by now: start again".
#[test]
fn a_claim_that_is_overtaken_during_its_restore_starts_again() {
    let mut world = owned(Setup { workers: 3, checkpoint_epochs: 1000, ..Setup::quiet() });
    let version = world.next_version();
    world.assign(1, version);
    world.until("worker 1 has restored and is about to look behind its claim", |world| world.is_at(1, "verify"));
    world.hold(1);
    let version = world.next_version();
    world.assign(2, version);
    world.until("worker 2 owns the shard", |world| world.runs(2, SHARD));
    world.work_off(5);
    let owned = world.coverage.met("a shard is owned");
    world.wake(1);
    world.until("worker 1 gives up", |world| world.is_at(1, "left"));
    assert_eq!(world.coverage.met("a shard is owned"), owned, "worker 1 never took itself for the owner");
    world.end();
}

/// It is told to leave while an epoch is on its way whose outcome it never learns.
#[test]
fn an_owner_with_an_epoch_in_doubt_leaves_no_release() {
    let mut world = owned(Setup::quiet());
    world.produce(3);
    world.until("its last epoch is about to be committed", |world| world.is_at(0, "commit-end"));
    world.delay_commits(0, true);
    let version = world.next_version();
    world.unassign(0, version);
    world.until("it is told to leave", |world| world.is_at(0, "releasing"));
    world.force("commit-end", Fault::ReplyLost);
    world.delay_commits(0, false);
    world.until("worker 0 has left", |world| world.is_at(0, "left"));
    assert_eq!(records_of(&world, "w0", Kind::Release), 0);
    take_over(&mut world);
    world.end();
}

/// "Without an operator a start takes the highest version seen plus one: the later start wins."
#[test]
fn without_an_operator_the_later_start_wins() {
    let mut world = World::new(Setup::quiet(), 7);
    (0..2).for_each(|seat| world.start(seat));
    world.assign_above_all(1);
    world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
    world.work_off(5);
    world.assign_above_all(0);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    world.produce(5);
    world.until("worker 1 gives up", |world| world.is_at(1, "left"));
    world.until("all is worked off", World::is_worked_off);
    assert_eq!(world.coverage.met("a live incarnation is barred"), 1, "the loser does not outbid the winner");
    world.end();
}

/// "Starts that did not see each other": both have read an empty journal, so both take the same version. One wins, whoever is faster.
#[test]
fn of_two_starts_at_the_same_time_exactly_one_wins() {
    for first in 0..2 {
        let mut world = World::new(Setup { watch: Duration::from_secs(5), ..Setup::quiet() }, 7);
        (0..2).for_each(|seat| world.start(seat));
        for seat in [first, 1 - first] {
            world.assign_above_all(seat);
            world.until("it has read the journal and is about to put its claim", |world| world.is_at(seat, "commit-journal"));
            world.hold(seat);
        }
        world.wake(first);
        world.until("the first has settled", |world| world.runs(first, SHARD) || world.is_at(first, "left"));
        world.wake(1 - first);
        world.work_off(5);
        quiet(&mut world);
        world.pass(Duration::from_secs(6));
        world.until("worker 1 owns the shard alone", |world| world.runs(1, SHARD) && world.is_at(0, "left"));
        quiet(&mut world);
        assert!(world.runs(1, SHARD));
        world.end();
    }
}

/// "The end": a committed reader waits until everything before it is decided.
#[test]
fn a_restore_waits_until_the_journal_is_stable() {
    let mut world = owned(Setup::quiet());
    let version = world.next_version();
    world.assign(1, version);
    world.until("worker 1's claim is on its way", |world| world.is_at(1, "commit-end"));
    world.hold_markers(true);
    world.until("worker 1 restores", |world| world.is_at(1, "restore-journal"));
    quiet(&mut world);
    assert!(world.is_at(1, "restore-journal"), "it waits for the marker of its own claim");
    world.hold_markers(false);
    world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
    world.end();
}

/// "After `transactional.id.expiration.ms` the coordinator forgets that an id was barred": a zombie must not come back with it.
#[test]
fn a_barred_incarnation_that_the_broker_has_forgotten_stays_away() {
    let mut world = owned(Setup::quiet());
    world.produce(5);
    world.until("worker 0 commits", |world| world.is_at(0, "commit-end"));
    world.hold(0);
    take_over(&mut world);
    quiet(&mut world);
    world.forget_producers();
    world.wake(0);
    world.until("worker 0 gives up", |world| world.is_at(0, "left"));
    world.produce(5);
    world.until("all is worked off", World::is_worked_off);
    assert!(world.runs(1, SHARD), "under a new incarnation: its own was forgotten, too");
    world.end();
}
