//! Method: one schedule each for what design.md sections 3 and 4 guard against, down to the half-sentences. The world does the one thing that is
//! asked for and nothing else goes wrong; the oracle watches all the way, and at the end all is worked off.

use forebay_engine::ids::{JournalOffset, ShardId};
use forebay_sim::coverage::Fault;
use forebay_sim::world::{Setup, World};
use std::time::Duration;

const SHARD: ShardId = ShardId::new(0);

/// Worker 0 owns the shard and has worked off its input.
fn owned(setup: Setup) -> World {
    let mut world = World::new(setup, 7);
    (0..world.seats.len()).for_each(|seat| world.start(seat));
    let version = world.next_version();
    world.assign(0, version);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    world.work_off(5);
    world
}

/// Worker 1 gets the shard; worker 0 is not told.
fn take_over(world: &mut World) {
    let version = world.next_version();
    world.assign(1, version);
    world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
}

fn retained(world: &World) -> usize {
    world.oracle.head(SHARD).map_or(0, |head| head.retained.len())
}

fn start_of(world: &World) -> JournalOffset {
    world.log.journal_range(SHARD).start
}

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

#[test]
fn a_release_whose_transaction_aborts_is_no_release_and_its_writer_is_barred() {
    let mut world = owned(Setup::quiet());
    let version = world.next_version();
    world.unassign(0, version);
    world.until("the release is sent", |world| world.is_at(0, "releasing") && world.is_at(0, "commit-end"));
    world.hold(0);
    let version = world.next_version();
    world.assign(1, version);
    world.until("worker 1 bars", |world| world.coverage.met("a live incarnation is barred") > 0);
    world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
    world.end();
}

#[test]
fn a_claim_after_a_committed_release_bars_nobody() {
    let mut world = owned(Setup::quiet());
    let version = world.next_version();
    world.unassign(0, version);
    world.until("the release is committed", |world| world.is_at(0, "left"));
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
fn a_zombies_manifest_that_arrives_late_is_on_no_list() {
    let mut world = owned(Setup::quiet());
    world.produce(5);
    world.until("a manifest is about to be put", |world| world.is_at(0, "snapshot-manifest"));
    world.hold(0);
    let put = world.coverage.met("a manifest is put");
    take_over(&mut world);
    for _ in 0..6 {
        world.work_off(3);
    }
    world.wake(0);
    world.until("the manifest arrives", |world| world.coverage.met("a manifest is put") > put && !world.is_at(0, "snapshot-manifest"));
    world.work_off(3);
    let head = world.oracle.head(SHARD).expect("it has epochs");
    assert!(head.retained.iter().all(|checkpoint| checkpoint.incarnation.as_str().starts_with("w1")), "{:?}", head.retained);
    world.end();
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
fn a_commit_whose_outcome_is_unknown_is_learnt_from_the_journal() {
    for (fault, committed) in [(Fault::ReplyLost, 1), (Fault::Lost, 0)] {
        let mut world = owned(Setup::quiet());
        world.produce(5);
        world.force("commit-end", fault);
        world.until("the reply is lost", |world| !world.is_forced());
        world.until("worker 0 has claimed again", |world| world.runs(0, SHARD));
        world.work_off(5);
        assert_eq!(world.coverage.met("a commit's outcome is unknown, and it is committed"), committed);
        assert_eq!(world.coverage.met("an incarnation is over"), 1);
        world.end();
    }
}

#[test]
fn with_the_store_down_work_goes_on_the_journal_grows_and_claims_wait() {
    let mut world = owned(Setup::quiet());
    world.set_store_down(true);
    let (start, epochs) = (start_of(&world), world.oracle.epochs());
    for _ in 0..6 {
        world.work_off(3);
    }
    assert!(world.oracle.epochs() >= epochs + 6);
    assert_eq!(start_of(&world), start);
    let version = world.next_version();
    world.assign(1, version);
    world.until("worker 1's claim fails", |world| world.is_at(1, "failed"));
    world.set_store_down(false);
    world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
    world.end();
}

#[test]
fn a_local_database_that_is_behind_is_brought_along_by_the_journal() {
    let mut world = owned(Setup { checkpoint_epochs: 1000, ..Setup::quiet() });
    for _ in 0..4 {
        world.work_off(3);
    }
    world.crash(0, false);
    world.start(0);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    assert_eq!(world.coverage.met("a checkpoint is restored"), 0);
    world.end();
}

#[test]
fn a_local_database_whose_epoch_was_cut_off_gives_way_to_a_checkpoint() {
    let mut world = owned(Setup::quiet());
    let version = world.next_version();
    world.unassign(0, version);
    world.until("the release is committed", |world| world.is_at(0, "left"));
    take_over(&mut world);
    for _ in 0..12 {
        world.work_off(3);
    }
    assert!(start_of(&world) > JournalOffset::new(0));
    let version = world.next_version();
    world.unassign(1, version);
    world.until("the release is committed", |world| world.is_at(1, "left"));
    let version = world.next_version();
    world.assign(0, version);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    assert!(world.coverage.met("a local database is of another history, or too old") > 0);
    assert_eq!(world.coverage.met("a checkpoint is restored"), 1);
    world.end();
}

#[test]
fn a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_a_longer_journal() {
    let mut world = owned(Setup::quiet());
    for _ in 0..8 {
        world.work_off(3);
    }
    assert_eq!(retained(&world), 2);
    world.damage_newest(SHARD);
    world.crash(0, true);
    take_over(&mut world);
    assert_eq!(world.coverage.met("a damaged checkpoint is passed over"), 1);
    assert_eq!(world.coverage.met("a checkpoint is restored"), 1);
    world.end();
}

#[test]
fn garbage_of_a_zombie_whose_epoch_never_commits_is_not_deleted() {
    let mut world = owned(Setup::quiet());
    let named = |world: &World| world.oracle.head(SHARD).map_or(0, |head| head.retained.len());
    for _ in 0..4 {
        world.work_off(3);
    }
    assert!(named(&world) >= 1);
    world.produce(4);
    world.until("worker 0 commits", |world| world.is_at(0, "commit-end"));
    world.hold(0);
    let objects: Vec<String> = world.store.keys().cloned().collect();
    take_over(&mut world);
    let kept: Vec<String> = objects.iter().filter(|key| world.store.get(key).is_some()).cloned().collect();
    assert_eq!(objects, kept);
    world.wake(0);
    world.end();
}

#[test]
fn while_there_is_one_checkpoint_only_the_journal_is_not_cut() {
    let mut world = owned(Setup { checkpoint_epochs: 6, ..Setup::quiet() });
    while retained(&world) < 2 {
        assert_eq!(start_of(&world), JournalOffset::new(0));
        world.work_off(2);
    }
    for _ in 0..8 {
        world.work_off(2);
    }
    assert!(start_of(&world) > JournalOffset::new(0));
    world.end();
}

#[test]
fn an_idle_owner_commits_a_heartbeat_and_stays_owner() {
    let mut world = owned(Setup { heartbeat: Duration::from_secs(10), ..Setup::quiet() });
    world.until("all is quiet", |world| world.actors().is_empty());
    let (end, epochs) = (world.log.journal_range(SHARD).end, world.oracle.epochs());
    world.pass(Duration::from_secs(11));
    world.until("a record is written", move |world| world.log.journal_range(SHARD).end > end);
    world.until("all is quiet", |world| world.actors().is_empty());
    assert!(world.runs(0, SHARD));
    assert_eq!(world.oracle.epochs(), epochs);
    world.end();
}

/// Worker 0 owns the shard, has nothing to do, and looks at its journal every five seconds.
fn idle() -> World {
    let mut world = owned(Setup { watch: Duration::from_secs(5), checkpoint_epochs: 1000, ..Setup::quiet() });
    quiet(&mut world);
    world
}

fn quiet(world: &mut World) {
    world.until("all is quiet", |world| world.actors().is_empty());
}

#[test]
fn an_idle_owner_that_is_replaced_notices_and_gives_up() {
    let mut world = idle();
    take_over(&mut world);
    assert!(world.runs(0, SHARD), "it was told nothing and has nothing to commit");
    world.pass(Duration::from_secs(6));
    world.until("worker 0 has given up", |world| world.is_at(0, "left"));
    assert_eq!(world.coverage.met("an idle owner sees that it was replaced"), 1);
    assert_eq!(world.coverage.met("a producer is fenced"), 0);
    assert!(world.runs(1, SHARD));
    quiet(&mut world);
    assert_eq!(world.coverage.met("a live incarnation is barred"), 1, "the new owner is left alone");
    world.end();
}

#[test]
fn an_idle_owner_that_is_replaced_while_it_looks_notices_with_the_next_look() {
    let mut world = idle();
    world.pass(Duration::from_secs(6));
    world.until("worker 0 looks", |world| world.is_at(0, "look"));
    world.force("look", Fault::Lost);
    take_over(&mut world);
    world.until("the answer was lost", |world| !world.is_forced());
    world.pass(Duration::from_secs(6));
    world.until("worker 0 has given up", |world| world.is_at(0, "left"));
    world.end();
}

#[test]
fn an_idle_owner_that_is_left_alone_looks_without_a_transaction_and_hardly_reads() {
    let mut world = idle();
    let end = world.log.journal_range(SHARD).end;
    for look in 1..=10 {
        world.pass(Duration::from_secs(6));
        world.until("it has looked", |world| world.coverage.met("an idle owner asks for its journal's end") == look);
        quiet(&mut world);
    }
    assert_eq!(world.log.journal_range(SHARD).end, end, "nothing was written");
    assert_eq!(world.coverage.met("an idle owner reads on in its journal"), 1, "the marker of its last transaction");
    assert_eq!(world.coverage.met("an incarnation is over"), 0);
    world.work_off(5);
    world.end();
}

#[test]
fn a_busy_owner_does_not_look() {
    let mut world = owned(Setup { watch: Duration::from_secs(5), checkpoint_epochs: 1000, ..Setup::quiet() });
    for _ in 0..20 {
        world.pass(Duration::from_secs(1));
        world.work_off(3);
    }
    assert_eq!(world.coverage.met("an idle owner asks for its journal's end"), 0);
    world.end();
}

#[test]
fn an_idle_owner_that_meets_what_a_loser_left_claims_again_and_stays_owner() {
    let mut world = World::new(Setup { watch: Duration::from_secs(5), checkpoint_epochs: 1000, ..Setup::quiet() }, 7);
    (0..2).for_each(|seat| world.start(seat));
    let (lower, higher) = (world.next_version(), world.next_version());
    world.assign(1, lower);
    world.until("worker 1 has read the journal and is about to put its claim", |world| world.is_at(1, "commit-journal"));
    world.hold(1);
    world.assign(0, higher);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    quiet(&mut world);
    world.wake(1);
    world.until("worker 1 has given up and released", |world| world.is_at(1, "left"));
    assert_eq!(world.coverage.met("a claim is given up after its record was committed"), 1);
    world.pass(Duration::from_secs(6));
    world.until("worker 0 has met it", |world| world.coverage.met("an incarnation is over") == 1);
    world.until("worker 0 owns the shard again", |world| world.runs(0, SHARD));
    quiet(&mut world);
    world.pass(Duration::from_secs(6));
    quiet(&mut world);
    assert_eq!(world.coverage.met("an incarnation is over"), 1, "once");
    world.end();
}

#[test]
fn a_shard_that_fails_while_its_heartbeat_is_committed_is_claimed_again() {
    let mut world = owned(Setup { heartbeat: Duration::from_secs(10), ..Setup::quiet() });
    world.until("all is quiet", |world| world.actors().is_empty());
    world.pass(Duration::from_secs(11));
    world.until("the heartbeat is on its way", |world| world.is_at(0, "commit-begin"));
    world.delay_commits(0, true);
    world.poison_shard(0, SHARD);
    world.produce(1);
    world.until("the shard fails", |world| world.is_at(0, "failed"));
    world.until("it is claimed again", |world| world.is_at(0, "scanning"));
    world.delay_commits(0, false);
    world.work_off(3);
    world.end();
}

#[test]
fn a_worker_that_owns_nothing_sleeps() {
    let mut world = owned(Setup { heartbeat: Duration::from_secs(10), ..Setup::quiet() });
    let version = world.next_version();
    world.unassign(0, version);
    world.until("the release is committed", |world| world.is_at(0, "left"));
    world.pass(Duration::from_secs(11));
    world.until("all is quiet", |world| world.actors().is_empty());
}

#[test]
fn a_shard_that_fails_holds_up_nobody() {
    let mut world = World::new(Setup { shards: 2, partitions: 2, ..Setup::quiet() }, 7);
    (0..2).for_each(|seat| world.start(seat));
    let version = world.next_version();
    world.assign(0, version);
    world.until("both shards run", |world| world.runs(0, SHARD) && world.runs(0, ShardId::new(1)));
    world.work_off(10);
    world.poison_shard(0, SHARD);
    world.produce(10);
    world.until("shard 0 fails", |world| world.is_at(0, "failed"));
    assert!(world.runs(0, ShardId::new(1)));
    world.until("all is worked off", World::is_worked_off);
    assert_eq!(world.coverage.met("an incarnation is over"), 0);
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

#[test]
fn an_upload_whose_reply_is_lost_and_that_is_tried_again_is_an_upload() {
    let mut world = owned(Setup::quiet());
    for _ in 0..3 {
        for part in ["snapshot-file", "snapshot-manifest"] {
            world.force(part, Fault::ReplyLost);
            world.produce(4);
            while world.is_forced() {
                world.work_off(2);
            }
        }
    }
    for _ in 0..6 {
        world.work_off(2);
    }
    assert_eq!(retained(&world), 2);
    world.end();
}

#[test]
fn a_crash_at_each_step_of_each_task_loses_nothing() {
    let phases = [
        "open-producer",
        "read-manifest",
        "scan",
        "commit-begin",
        "commit-journal",
        "commit-end",
        "restore-range",
        "restore-journal",
        "verify",
    ];
    for phase in phases {
        for wipe in [false, true] {
            let mut world = owned(Setup::quiet());
            world.work_off(9);
            world.crash(0, wipe);
            world.start(0);
            let version = world.next_version();
            world.assign(0, version);
            world.until(phase, |world| world.is_at(0, phase));
            world.crash(0, wipe);
            world.end();
        }
    }
}
