//! When a round is due.

use std::collections::BTreeSet;

use super::super::{Action, Attempt, Event, IncarnationNames, Report, Worker, WorkerOptions};
use super::*;
use crate::claim::{Scan, VersionRule};
use crate::failure::Failure;
use crate::ids::{JournalOffset, Revision, Timeline, WorkerName};
use crate::journal::{Books, Owner, Stamp};
use crate::log::JournalRange;

const FIRST: ShardId = ShardId::new(0);
const SECOND: ShardId = ShardId::new(1);

/// A worker that runs both shards, each with the attempt of its start; its last round began at 0.
fn running() -> (Worker, [Attempt; 2]) {
    let mut worker = idle();
    let mut started = played(&mut worker, 0, Event::Assigned(VersionRule::AboveAll, BTreeSet::from([FIRST, SECOND])), &[]).started;
    started.sort_unstable();
    (worker, [started[0].1, started[1].1])
}

/// A worker that has just started and has no shards.
fn idle() -> Worker {
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
    Worker::new(options, IncarnationNames::new("p"))
}

/// What happened while everything around a worker answered at once.
#[derive(Debug, Default)]
struct Played {
    started: Vec<(ShardId, Attempt)>,
    /// The shards whose epochs were in each transaction.
    transactions: Vec<Vec<ShardId>>,
    stalled: Vec<ShardId>,
    stopped: bool,
}

/// Answers all that the worker wants. A transaction with an epoch of one of the shards in `refused` is refused.
fn played(worker: &mut Worker, millis: i64, event: Event, refused: &[ShardId]) -> Played {
    let mut played = Played::default();
    let mut events = vec![event];
    while let Some(event) = events.pop() {
        for action in worker.step(Timestamp::from_millis(millis), event) {
            match action {
                Action::OpenProducer(incarnation) => events.push(Event::ProducerOpened(incarnation)),
                Action::ReadManifest(shard, attempt) => events.push(Event::ManifestRead(shard, attempt, None)),
                Action::Scan(shard, attempt, ..) => {
                    let range = JournalRange { start: JournalOffset::default(), end: JournalOffset::default() };
                    events.push(Event::Scanned(shard, attempt, Scan::default(), range));
                }
                Action::Commit(incarnation, contribution) => {
                    let mut epochs: Vec<ShardId> = contribution.epochs.iter().map(|epoch| epoch.shard).collect();
                    epochs.sort_unstable();
                    events.push(match epochs.iter().any(|shard| refused.contains(shard)) {
                        true => Event::ProducerFailed(incarnation, Failure::Lasting("a record is too large".into())),
                        false => Event::Committed(incarnation, receipt(&contribution)),
                    });
                    if !epochs.is_empty() {
                        played.transactions.push(epochs);
                    }
                }
                Action::Restore(shard, attempt, claimed) => {
                    events.push(Event::Restored(shard, attempt, Box::new(stamp(claimed.owner())), Scan::default()));
                }
                Action::Seal(shard, attempt, ..) => events.push(sealed(shard, attempt)),
                Action::Start(shard, attempt) => played.started.push((shard, attempt)),
                Action::Report(Report::Stalled(shard, _)) => played.stalled.push(shard),
                Action::Stopped => played.stopped = true,
                _ => {}
            }
        }
    }
    played
}

fn sealed(shard: ShardId, attempt: Attempt) -> Event {
    let epoch = Epoch::default().next().next();
    let sealed = SealedEpoch { shard, epoch, journal: Vec::new(), outputs: std::sync::Arc::default(), positions: Vec::new(), records: 1 };
    Event::Sealed(shard, attempt, Some(sealed))
}

fn receipt(contribution: &Contribution) -> Receipt {
    let at = (JournalOffset::new(1), JournalOffset::new(2));
    let claims = contribution.claims.iter().map(|owner| owner.shard);
    Receipt {
        journal: claims.chain(contribution.epochs.iter().map(|epoch| epoch.shard)).map(|shard| (shard, at)).collect(),
        appended: None,
    }
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

/// Opening a producer takes up to a second: no shard that comes later waits for it.
#[test]
fn a_worker_without_shards_has_its_producer_opened() {
    let mut worker = idle();
    assert_eq!(worker.wake_at(), Some(Timestamp::default()));
    let mut actions = worker.step(Timestamp::from_millis(1), Event::Assigned(VersionRule::AboveAll, BTreeSet::new()));
    let Some(Action::OpenProducer(incarnation)) = actions.pop() else { panic!("it has nothing to do") };
    assert_eq!((actions.len(), worker.wake_at()), (0, None));
    // It has no heart that would beat for nobody.
    let opened = Event::ProducerOpened(incarnation);
    assert_eq!((worker.step(Timestamp::from_millis(2), opened).len(), worker.wake_at()), (0, None));
    let actions = worker.step(Timestamp::from_millis(3), Event::Assigned(VersionRule::AboveAll, BTreeSet::from([FIRST])));
    assert!(matches!(actions[..], [Action::ReadManifest(shard, _)] if shard == FIRST), "{actions:?}");
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

/// Method: the log takes no record of the second shard. Both are in one transaction first, so nobody knows whose it was.
#[test]
fn a_shard_whose_records_are_refused_stops_by_itself_and_the_others_go_on() {
    let (mut worker, _) = running();
    worker.step(Timestamp::from_millis(10), Event::Dirty(FIRST));
    worker.step(Timestamp::from_millis(20), Event::Dirty(SECOND));
    let both = played(&mut worker, 100, Event::Tick, &[SECOND]);
    assert_eq!((both.transactions, both.stalled), (vec![vec![FIRST, SECOND]], vec![]));

    let again = played(&mut worker, 300, Event::Tick, &[SECOND]);
    assert_eq!(again.started.len(), 2, "both are claimed again");
    worker.step(Timestamp::from_millis(310), Event::Dirty(SECOND));
    worker.step(Timestamp::from_millis(320), Event::Dirty(FIRST));
    let first = played(&mut worker, 400, Event::Tick, &[SECOND]);
    assert_eq!((first.transactions, first.stalled), (vec![vec![FIRST]], vec![]));
    let second = played(&mut worker, 500, Event::Tick, &[SECOND]);
    assert_eq!((second.transactions, second.stalled), (vec![vec![SECOND]], vec![SECOND]));
    assert_eq!(worker.phase(SECOND), Some("stalled"));

    let alone = played(&mut worker, 700, Event::Tick, &[SECOND]);
    assert_eq!(alone.started.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), [FIRST]);
    worker.step(Timestamp::from_millis(710), Event::Dirty(FIRST));
    assert_eq!(played(&mut worker, 800, Event::Tick, &[SECOND]).transactions, [vec![FIRST]]);

    // It is tried now and then; once its records are taken it is one of all.
    let helped = played(&mut worker, 500 + 12_800, Event::Tick, &[]);
    assert_eq!(helped.started.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), [SECOND]);
    let dirty = |worker: &mut Worker, millis| {
        worker.step(Timestamp::from_millis(millis), Event::Dirty(FIRST));
        worker.step(Timestamp::from_millis(millis), Event::Dirty(SECOND));
    };
    dirty(&mut worker, 13_350);
    assert_eq!(played(&mut worker, 13_500, Event::Tick, &[]).transactions, [vec![SECOND]]);
    assert_eq!(played(&mut worker, 13_600, Event::Tick, &[]).transactions, [vec![FIRST]]);
    dirty(&mut worker, 13_650);
    assert_eq!(played(&mut worker, 13_700, Event::Tick, &[]).transactions, [vec![FIRST, SECOND]]);
}

/// Method: every transaction with an epoch fails in a way that may pass, every claim succeeds.
#[test]
fn pauses_grow_while_claims_succeed_and_epochs_do_not() {
    let (mut worker, _) = running();
    let (mut now, mut pauses) = (0, Vec::new());
    for _ in 0..4 {
        worker.step(Timestamp::from_millis(now + 10), Event::Dirty(FIRST));
        now += 100;
        let actions = worker.step(Timestamp::from_millis(now), Event::Tick);
        let attempt = actions.iter().find_map(|action| if let Action::Seal(_, attempt, ..) = action { Some(*attempt) } else { None });
        let actions = worker.step(Timestamp::from_millis(now), sealed(FIRST, attempt.expect("a round is due")));
        let [Action::Commit(incarnation, _)] = &actions[..] else { panic!("{actions:?}") };
        worker.step(Timestamp::from_millis(now), Event::ProducerFailed(incarnation.clone(), Failure::Passing("no answer".into())));
        let again = worker.wake_at().expect("it is tried again");
        pauses.push(again.as_millis() - now);
        now = again.as_millis();
        assert_eq!(played(&mut worker, now, Event::Tick, &[]).started.len(), 2);
    }
    assert_eq!(pauses, [200, 400, 800, 1600]);
}

#[test]
fn who_has_no_right_to_the_journal_is_stalled_and_not_tried_all_the_time() {
    let (mut worker, _) = running();
    let Producer::Ready(incarnation) = &worker.producer else { panic!("it runs without a producer") };
    let incarnation = incarnation.clone();
    let denied = Failure::Lasting("access to the journal is denied".into());
    let actions = worker.step(Timestamp::from_millis(10), Event::ProducerFailed(incarnation, denied));
    let stalled = actions.iter().filter(|action| matches!(action, Action::Report(Report::Stalled(..)))).count();
    assert_eq!((stalled, worker.wake_at()), (2, Some(Timestamp::from_millis(10 + 12_800))));
    assert_eq!(played(&mut worker, 10 + 12_800, Event::Tick, &[]).started.len(), 2);
}

#[test]
fn a_worker_that_stops_takes_no_shards_any_more() {
    let (mut worker, attempts) = running();
    assert_eq!(seals(&mut worker, 50, Event::Stop), [FIRST, SECOND]);
    assert_eq!(seals(&mut worker, 60, Event::Assigned(VersionRule::AboveAll, BTreeSet::from([FIRST]))), []);
    let first = played(&mut worker, 70, Event::Sealed(FIRST, attempts[0], None), &[]);
    let second = played(&mut worker, 80, Event::Sealed(SECOND, attempts[1], None), &[]);
    assert_eq!((first.started, second.started, second.stopped), (vec![], vec![], true));
}

/// What the transaction that a step asks for carries: the shards with an epoch, and those with a release mark.
fn committing(worker: &mut Worker, millis: i64, event: Event) -> Option<(Vec<ShardId>, Vec<ShardId>, Incarnation, Receipt)> {
    let actions = worker.step(Timestamp::from_millis(millis), event);
    actions.into_iter().find_map(|action| match action {
        Action::Commit(incarnation, contribution) => {
            let receipt = receipt(&contribution);
            let epochs = contribution.epochs.iter().map(|epoch| epoch.shard).collect();
            Some((epochs, contribution.releases.iter().map(|owner| owner.shard).collect(), incarnation, receipt))
        }
        _ => None,
    })
}

fn keeps(shards: &[ShardId]) -> Event {
    Event::Assigned(VersionRule::AboveAll, shards.iter().copied().collect())
}

/// Method: one shard is taken away while nothing is on its way, the other while its epoch is committed.
#[test]
fn the_last_epoch_and_the_release_mark_are_one_transaction() {
    let (mut worker, attempts) = running();
    assert_eq!(seals(&mut worker, 50, keeps(&[SECOND])), [FIRST], "it waits for the interval");
    let (epochs, releases, incarnation, receipt) = committing(&mut worker, 60, sealed(FIRST, attempts[0])).unwrap();
    assert_eq!((epochs, releases), (vec![FIRST], vec![FIRST]));
    let done = worker.step(Timestamp::from_millis(70), Event::Committed(incarnation, receipt));
    assert!(matches!(done[..], [Action::Confirm(FIRST, ..), Action::Close(FIRST)]), "{done:?}");

    worker.step(Timestamp::from_millis(80), Event::Dirty(SECOND));
    assert_eq!(seals(&mut worker, 200, Event::Tick), [SECOND]);
    let (epochs, releases, incarnation, receipt) = committing(&mut worker, 210, sealed(SECOND, attempts[1])).unwrap();
    assert_eq!((epochs, releases), (vec![SECOND], vec![]));
    assert_eq!(seals(&mut worker, 220, keeps(&[])), []);
    // What came meanwhile is the last epoch.
    assert_eq!(seals(&mut worker, 230, Event::Committed(incarnation, receipt)), [SECOND]);
    let (epochs, releases, ..) = committing(&mut worker, 240, sealed(SECOND, attempts[1])).unwrap();
    assert_eq!((epochs, releases), (vec![SECOND], vec![SECOND]));
}

/// Method: it is taken away between the question for its epoch and the answer.
#[test]
fn an_epoch_that_is_being_sealed_is_the_last_one_of_a_shard_that_is_taken_away() {
    let (mut worker, attempts) = running();
    worker.step(Timestamp::from_millis(10), Event::Dirty(FIRST));
    assert_eq!(seals(&mut worker, 100, Event::Tick), [FIRST]);
    assert_eq!(seals(&mut worker, 105, keeps(&[SECOND])), []);
    let (epochs, releases, ..) = committing(&mut worker, 110, sealed(FIRST, attempts[0])).unwrap();
    assert_eq!((epochs, releases), (vec![FIRST], vec![FIRST]));
}
