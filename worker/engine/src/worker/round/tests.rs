//! When a round is due.

use std::collections::BTreeSet;

use super::super::{Action, Attempt, Event, IncarnationNames, Worker, WorkerOptions};
use super::*;
use crate::claim::{Scan, VersionRule};
use crate::ids::{JournalOffset, Revision, Timeline, WorkerName};
use crate::journal::{Books, Owner, Stamp};
use crate::log::JournalRange;

const FIRST: ShardId = ShardId::new(0);
const SECOND: ShardId = ShardId::new(1);

/// A worker that runs both shards, each with the attempt of its start; its last round began at 0.
fn running() -> (Worker, [Attempt; 2]) {
    let options = WorkerOptions {
        worker: WorkerName::new("w"),
        timeline: Timeline::new(0),
        commit_interval: Duration::from_millis(100),
        commit_interval_behind: Duration::from_secs(1),
        checkpoints_retained: 2,
        heartbeat: Duration::from_secs(3600),
        watch: Duration::from_secs(3600),
        retry: Duration::from_millis(200),
    };
    let mut worker = Worker::new(options, IncarnationNames::new("p"));
    let mut started = Vec::new();
    let mut events = vec![Event::Assigned(VersionRule::AboveAll, BTreeSet::from([FIRST, SECOND]))];
    while let Some(event) = events.pop() {
        for action in worker.step(Timestamp::default(), event) {
            match action {
                Action::OpenProducer(incarnation) => events.push(Event::ProducerOpened(incarnation)),
                Action::ReadManifest(shard, attempt) => events.push(Event::ManifestRead(shard, attempt, None)),
                Action::Scan(shard, attempt, ..) => {
                    let range = JournalRange { start: JournalOffset::default(), end: JournalOffset::default() };
                    events.push(Event::Scanned(shard, attempt, Scan::default(), range));
                }
                Action::Commit(incarnation, contribution) => events.push(Event::Committed(incarnation, receipt(&contribution))),
                Action::Restore(shard, attempt, claimed) => {
                    events.push(Event::Restored(shard, attempt, Box::new(stamp(claimed.owner())), Scan::default()));
                }
                Action::Start(shard, attempt) => started.push((shard, attempt)),
                _ => {}
            }
        }
    }
    started.sort_unstable();
    (worker, [started[0].1, started[1].1])
}

fn receipt(contribution: &Contribution) -> Receipt {
    let at = (JournalOffset::new(1), JournalOffset::new(2));
    Receipt { journal: contribution.claims.iter().map(|owner| (owner.shard, at)).collect(), appended: None }
}

fn stamp(owner: &Owner) -> Stamp {
    Stamp {
        owner: owner.clone(),
        epoch: Epoch::default().next(),
        revision: Revision::new("r"),
        clock: Timestamp::default(),
        positions: Vec::new(),
        topic_ids: Vec::new(),
        books: Books::default(),
        retained: Vec::new(),
        garbage: Vec::new(),
        journal: JournalOffset::default(),
    }
}

/// The shards that are to seal their epochs.
fn seals(worker: &mut Worker, millis: i64, event: Event) -> Vec<ShardId> {
    let actions = worker.step(Timestamp::from_millis(millis), event);
    actions.into_iter().filter_map(|action| if let Action::Seal(shard, ..) = action { Some(shard) } else { None }).collect()
}

#[test]
fn behind_the_head_epochs_grow_until_a_shard_has_caught_up() {
    let (mut worker, [attempt, _]) = running();
    assert_eq!(seals(&mut worker, 10, Event::Dirty(FIRST)), []);
    assert_eq!(worker.wake_at(), Some(Timestamp::from_millis(100)));
    assert_eq!(seals(&mut worker, 20, Event::Behind(FIRST, attempt, true)), []);
    assert_eq!(worker.wake_at(), Some(Timestamp::from_millis(1000)));
    assert_eq!(seals(&mut worker, 500, Event::Tick), []);
    assert_eq!(seals(&mut worker, 510, Event::Behind(FIRST, attempt, false)), [FIRST]);
}

#[test]
fn an_epoch_of_a_shard_that_is_behind_lasts_no_longer_than_it_may() {
    let (mut worker, [attempt, _]) = running();
    seals(&mut worker, 10, Event::Dirty(FIRST));
    seals(&mut worker, 20, Event::Behind(FIRST, attempt, true));
    assert_eq!(seals(&mut worker, 999, Event::Tick), []);
    assert_eq!(seals(&mut worker, 1000, Event::Tick), [FIRST]);
}

#[test]
fn one_shard_at_the_head_sets_the_pace_for_all() {
    let (mut worker, [attempt, _]) = running();
    seals(&mut worker, 10, Event::Dirty(FIRST));
    seals(&mut worker, 20, Event::Behind(FIRST, attempt, true));
    assert_eq!(seals(&mut worker, 300, Event::Dirty(SECOND)), [FIRST, SECOND]);
}

#[test]
fn what_an_earlier_attempt_says_of_its_lag_is_not_believed() {
    let (mut worker, [attempt, _]) = running();
    seals(&mut worker, 10, Event::Dirty(FIRST));
    seals(&mut worker, 20, Event::Behind(FIRST, Attempt(attempt.0 - 1), true));
    assert_eq!(seals(&mut worker, 100, Event::Tick), [FIRST]);
}
