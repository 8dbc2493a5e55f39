//! Section 3: owners that have nothing to commit.

use forebay_sim::coverage::Fault;

use crate::*;

#[test]
fn an_idle_owner_commits_a_heartbeat_and_stays_owner() {
    let mut world = owned(Setup { heartbeat: Duration::from_secs(10), ..Setup::quiet() });
    quiet(&mut world);
    let (end, epochs) = (world.log.journal_range(SHARD).end, world.oracle.epochs());
    world.pass(Duration::from_secs(11));
    world.until("a record is written", move |world| world.log.journal_range(SHARD).end > end);
    quiet(&mut world);
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
    quiet(&mut world);
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
    quiet(&mut world);
}
