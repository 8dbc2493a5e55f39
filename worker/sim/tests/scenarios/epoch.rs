//! Section 3: transactions and their ends.

use forebay_engine::ids::Timestamp;
use forebay_sim::coverage::Fault;

use crate::*;

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
fn a_shard_whose_outputs_are_refused_holds_up_nobody_and_goes_on_once_they_are_taken() {
    let mut world = World::new(Setup { shards: 3, partitions: 3, ..Setup::quiet() }, 7);
    world.start(0);
    let version = world.next_version();
    world.assign(0, version);
    world.until("all shards run", |world| (0..3).all(|shard| world.runs(0, ShardId::new(shard))));
    world.work_off(10);
    world.refuse(Some(Partition::new(1)));
    // Again and again: who is to blame is not forgotten by what the others commit.
    for _ in 0..3 {
        world.produce(30);
        world.until("the refused shard stops", |world| world.is_at(0, "stalled"));
        world.until("the others are worked off", |world| [0, 2].into_iter().all(|at| world.is_partition_worked_off(Partition::new(at))));
    }
    assert!(!world.is_partition_worked_off(Partition::new(1)), "no record of the refused partition came, or it was taken");
    let (together, alone) =
        ["a transaction of several shards is refused", "a shard's transaction is refused"].map(|name| world.coverage.met(name)).into();
    assert!(together <= 1 && alone >= 1, "others were refused with it {together} times, and it alone {alone} times");
    world.refuse(None);
    world.until("all is worked off", World::is_worked_off);
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

/// "The next epoch is processed meanwhile; its outputs wait in bounded memory."
#[test]
fn while_a_commit_is_on_its_way_the_next_epoch_is_processed_and_waits() {
    let mut world = owned(Setup::quiet());
    world.produce(3);
    world.until("worker 0 commits", |world| world.is_at(0, "commit-end"));
    world.delay_commits(0, true);
    let epochs = world.oracle.epochs();
    world.produce(40);
    quiet(&mut world);
    assert!(open_bytes(&world) > 0, "the next epoch holds records");
    assert!(open_bytes(&world) < 900 + 200, "and no more than an epoch may, which the last record may exceed: {}", open_bytes(&world));
    assert_eq!(world.oracle.epochs(), epochs, "nothing is committed out of turn");
    world.delay_commits(0, false);
    world.until("all is worked off", World::is_worked_off);
    world.end();
}

/// "When an epoch is not committed, its overlay and every overlay built on it are dropped and those records processed again."
#[test]
fn an_epoch_that_is_not_committed_takes_the_one_built_on_it_with_it() {
    for fault in [Fault::Lost, Fault::Late] {
        let mut world = owned(Setup::quiet());
        world.produce(3);
        world.until("worker 0 commits", |world| world.is_at(0, "commit-journal"));
        world.delay_commits(0, true);
        world.produce(5);
        quiet(&mut world);
        assert!(open_bytes(&world) > 0, "another epoch is built on it");
        world.force("commit-journal", fault);
        world.delay_commits(0, false);
        world.until("it fails", |world| world.coverage.met("an incarnation is over") == 1);
        world.until("all is worked off", World::is_worked_off);
        world.end();
    }
}

/// "After **any** error of the producer ... the worker throws it away, takes a new incarnation": whatever the request, and whatever became of it. A
/// late end of a transaction must not land in the next one.
#[test]
fn after_any_error_of_the_producer_the_incarnation_is_over() {
    for part in ["commit-begin", "commit-outputs", "commit-journal", "commit-offsets", "commit-end"] {
        for fault in [Fault::Lost, Fault::ReplyLost, Fault::Late] {
            let mut world = owned(Setup::quiet());
            world.force(part, fault);
            world.produce(5);
            world.until("it goes wrong", |world| !world.is_forced());
            world.until("worker 0 owns the shard again", |world| world.coverage.met("an incarnation is over") == 1 && world.runs(0, SHARD));
            world.until("all is worked off", World::is_worked_off);
            world.end();
        }
    }
}

/// The same for the opening of a producer: the next try is another incarnation, since the first may have been opened after all.
#[test]
fn a_producer_that_does_not_open_is_never_asked_again() {
    for fault in [Fault::Lost, Fault::ReplyLost, Fault::Late] {
        let mut world = World::new(Setup::quiet(), 7);
        (0..2).for_each(|seat| world.start(seat));
        world.force("open-producer", fault);
        let version = world.next_version();
        world.assign(0, version);
        world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
        assert_eq!(world.coverage.met("an incarnation is over"), 1);
        world.end();
    }
}

/// "An incarnation calls `init_transactions` once"; the transaction's time-out bars it like anybody else.
#[test]
fn an_owner_whose_transaction_timed_out_claims_again() {
    let mut world = owned(Setup::quiet());
    world.produce(5);
    world.until("worker 0 commits", |world| world.is_at(0, "commit-end"));
    world.hold(0);
    world.time_out();
    world.wake(0);
    world.until("worker 0 owns the shard again", |world| world.coverage.met("an incarnation is over") == 1 && world.runs(0, SHARD));
    world.until("all is worked off", World::is_worked_off);
    world.end();
}

/// "What it came to is made certain at once: the first owner of a shard commits an empty first epoch."
#[test]
fn the_first_owner_says_where_the_job_starts_before_anything_is_read() {
    let mut world = World::new(Setup { records: 0, ..Setup::quiet() }, 7);
    (0..2).for_each(|seat| world.start(seat));
    let version = world.next_version();
    world.assign(0, version);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    quiet(&mut world);
    let head = world.oracle.head(SHARD).expect("an epoch is committed");
    assert_eq!((head.books.records_in, head.positions.len()), (0, 1));
    take_over(&mut world);
    quiet(&mut world);
    assert_eq!(world.oracle.epochs(), 1, "the second owner has nothing to add");
    world.end();
}

/// "The journal is the truth about offsets": the group's committed offsets expire, and nobody misses them.
#[test]
fn offsets_of_the_group_that_have_expired_are_not_missed() {
    let mut world = owned(Setup::quiet());
    world.crash(0, true);
    world.log.group.clear();
    world.start(0);
    take_over(&mut world);
    world.work_off(5);
    world.end();
}

/// "The clock is bounded by the broker's append time, so that a worker whose clock runs ahead cannot freeze a shard's time."
fn a_clock_runs_ahead_and_the_next_owner_goes_on() {
    let mut world = World::new(Setup::quiet(), 7);
    for (seat, ahead) in [(0, Duration::from_secs(3600)), (1, Duration::ZERO)] {
        world.start(seat);
        world.set_clock_ahead(seat, ahead);
        let version = world.next_version();
        world.assign(seat, version);
        world.until("it owns the shard", |world| world.runs(seat, SHARD));
        for _ in 0..3 {
            let before = world.oracle.head(SHARD).map(|head| head.clock);
            world.pass(Duration::from_secs(60));
            world.work_off(5);
            let (after, time) = (world.oracle.head(SHARD).map(|head| head.clock), world.time());
            assert!(after > before, "worker {seat}: time stands still at {after:?}");
            assert!(after < Some(after_by(time, 30)), "worker {seat}: at {time:?} it is {after:?}");
        }
    }
    world.end();
}

fn after_by(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_millis(time.as_millis() + 1000 * seconds)
}

#[test]
fn a_worker_whose_clock_runs_ahead_does_not_freeze_the_shards_time() {
    a_clock_runs_ahead_and_the_next_owner_goes_on();
}

/// The same with the bug that it guards against.
#[test]
fn a_clock_that_nothing_bounds_is_found() {
    mutant::set(Some(Mutant::ClockUnbounded));
    let outcome = panics::caught(a_clock_runs_ahead_and_the_next_owner_goes_on);
    mutant::set(None);
    assert!(outcome.as_ref().is_err_and(|panic| panic.contains("worker 0: at")), "{outcome:?}");
}

fn open_bytes(world: &World) -> usize {
    world.seats[0].process.iter().flat_map(|process| process.shards()).map(|(_, shard)| shard.open_bytes()).sum()
}
