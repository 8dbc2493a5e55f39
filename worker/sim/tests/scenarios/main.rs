//! Method: one schedule each for what design.md sections 3 and 4 guard against, down to the half-sentences. The world does the one thing that is
//! asked for and nothing else goes wrong; the oracle watches all the way, and at the end all is worked off.
//!
//! One file per part of the two sections: [`claim`], [`chunks`], [`epoch`], [`watch`], [`gone`], [`state`].

mod chunks;
mod claim;
mod epoch;
mod gone;
mod state;
mod watch;

use std::time::Duration;

use forebay_engine::ids::{JournalOffset, Partition, ShardId, Timeline};
use forebay_engine::journal::{self, Kind};
use forebay_engine::log::View;
use forebay_engine::mutants::Bug;
use forebay_sim::mutant::{self, Mutant};
use forebay_sim::panics;
use forebay_sim::world::{Setup, World};

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

/// The same scenario with the bug that it guards against: it must fail, and with these words.
fn fails_with(bug: Bug, scenario: fn(), words: &str) {
    mutant::set(Some(Mutant::Engine(bug)));
    let outcome = panics::caught(scenario);
    mutant::set(None);
    assert!(outcome.as_ref().is_err_and(|panic| panic.contains(words)), "{bug:?}: {outcome:?}");
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

/// Nobody has anything left to do, and nothing is due within the next commit intervals.
fn quiet(world: &mut World) {
    for _ in 0..3 {
        world.until("all is quiet", |world| world.actors().is_empty());
        world.pass(Duration::from_millis(100));
    }
    world.until("all is quiet", |world| world.actors().is_empty());
}

/// The records of one kind that a worker wrote to the journal, those that were aborted too.
fn records_of(world: &World, worker: &str, kind: Kind) -> usize {
    let range = world.log.journal_range(SHARD);
    let read = world.log.read_journal(SHARD, range.start, View::Uncommitted, range.end).expect("it reads from the start");
    let (entries, _) = read.expect("an uncommitted reader does not wait");
    let heads = entries.iter().map(|entry| journal::head(entry).expect("the simulated log keeps bytes as they are"));
    heads.filter(|head| head.owner.worker.as_str() == worker && head.kind == kind).count()
}
