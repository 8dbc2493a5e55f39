//! Section 2, "journal": "per epoch one record (chunked when large)": what comes between the chunks of one.

use forebay_sim::coverage::Fault;

use crate::*;

/// Every epoch has several chunks.
fn chunked() -> Setup {
    Setup { journal_chunk_bytes: 40, ..Setup::quiet() }
}

/// Worker 0 owns the shard, and has put the first chunks of an epoch and not the last ones.
fn between_chunks() -> World {
    let mut world = owned(chunked());
    quiet(&mut world);
    world.produce(5);
    world.until("worker 0 is between chunks", |world| world.is_at(0, "commit-chunks"));
    world
}

#[test]
fn a_crash_between_the_chunks_of_an_epoch_loses_nothing() {
    for wipe in [false, true] {
        for seat in [0, 1] {
            let mut world = between_chunks();
            world.crash(0, wipe);
            world.start(0);
            let version = world.next_version();
            world.assign(seat, version);
            world.until("it owns the shard", |world| world.runs(seat, SHARD));
            world.until("all is worked off", World::is_worked_off);
            world.end();
        }
    }
}

/// "After any error of the producer": the chunks that lie there are aborted, and the record is put once more, whole.
#[test]
fn an_abort_between_the_chunks_of_an_epoch_leaves_no_part_of_it() {
    for fault in [Fault::Lost, Fault::ReplyLost, Fault::Late] {
        let mut world = between_chunks();
        let epochs = world.oracle.epochs();
        world.force("commit-chunks", fault);
        world.until("it goes wrong", |world| !world.is_forced());
        assert_eq!(world.oracle.epochs(), epochs);
        world.until("all is worked off", World::is_worked_off);
        assert_eq!(world.coverage.met("an incarnation is over"), 1);
        world.end();
    }
}

/// Step 2: the chunks that a zombie has put are aborted, and it puts no more.
#[test]
fn a_zombie_that_wakes_between_the_chunks_of_its_epoch_commits_nothing() {
    let mut world = between_chunks();
    world.hold(0);
    take_over(&mut world);
    world.work_off(5);
    world.wake(0);
    world.until("the zombie is fenced", |world| world.coverage.met("a producer is fenced") > 0);
    world.end();
}

/// Step 4: a claim record is put by somebody who has not met the owner yet, and so has not barred it: the epoch is committed around it.
///
/// Method: the claimant has the higher version and takes over; or it has the lower one and gives up, and its release lies there, too.
#[test]
fn a_claim_between_the_chunks_of_an_epoch_that_is_committed_all_the_same_hides_nothing() {
    for takes_over in [true, false] {
        let mut world = World::new(Setup { checkpoint_epochs: 1000, ..chunked() }, 7);
        (0..2).for_each(|seat| world.start(seat));
        let (lower, higher) = (world.next_version(), world.next_version());
        world.assign(1, if takes_over { higher } else { lower });
        world.until("worker 1 is about to put its claim", |world| world.is_at(1, "commit-journal"));
        world.hold(1);
        world.assign(0, if takes_over { lower } else { higher });
        world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
        world.until("worker 0 is between chunks", |world| world.is_at(0, "commit-chunks"));
        world.hold(0);
        world.wake(1);
        if takes_over {
            world.until("worker 1's claim lies in the journal", |world| world.is_at(1, "reading-on"));
            world.hold(1);
        } else {
            world.until("worker 1 has given up and released", |world| world.is_at(1, "left"));
        }
        let epochs = world.oracle.epochs();
        world.wake(0);
        world.until("the epoch is committed", |world| world.oracle.epochs() > epochs);
        assert!(world.coverage.met("something lies between the chunks of a record") > 0);
        world.wake(1);
        if !takes_over {
            world.crash(0, true);
            let version = world.next_version();
            world.assign(1, version);
        }
        world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
        world.until("all is worked off", World::is_worked_off);
        world.end();
    }
}

/// "Records before the oldest retained checkpoint are deleted": a checkpoint stands behind the last chunk of its epoch, and so does the cut.
#[test]
fn a_journal_of_chunks_is_cut_between_records_and_restored_from_there() {
    let mut world = owned(chunked());
    while start_of(&world) == JournalOffset::new(0) {
        world.work_off(3);
    }
    quiet(&mut world);
    let first = world.oracle.head(SHARD).expect("it has epochs").retained[0].journal;
    assert_eq!(start_of(&world), first);
    world.crash(0, true);
    take_over(&mut world);
    assert_eq!(world.coverage.met("a checkpoint is restored"), 1);
    world.work_off(5);
    world.end();
}
