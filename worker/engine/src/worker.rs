//! One worker: the order in which its shards are claimed, restored, sealed and committed, and what happens when anything of that fails.
//!
//! A state machine without I/O. It never sees a record: shards process theirs on their own threads and report what they sealed. It holds the
//! rule that makes all else safe: after any error of the producer the incarnation is over, and every shard is claimed again.

mod barring;
mod checkpoints;
mod claims;
mod round;
mod suspects;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::claim::{Claim, ClaimEvent, Claimed, GaveUp, ManifestMark, Scan, VersionRule};
use crate::failure::Failure;
use crate::ids::{Epoch, Incarnation, JournalOffset, ShardId, Timeline, Timestamp, WorkerName};
use crate::journal::{Owner, Stamp};
use crate::log::{JournalRange, Receipt, View};
use crate::manifest::RetainedCheckpoint;
use crate::shard::{Annotations, SealedEpoch};
use barring::Barring;
use round::Round;
use watch::Watch;
pub use watch::{Look, Sight};

/// What decides how a worker behaves.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The pod or process.
    pub worker: WorkerName,
    /// The history that it works on.
    pub timeline: Timeline,
    /// How often epochs are committed at the head.
    pub commit_interval: Duration,
    /// How often they are while every shard that has any is behind: fewer, larger epochs are cheaper, and nobody waits for them.
    pub commit_interval_behind: Duration,
    /// How many checkpoints count; at least 2, so that a damaged newest one has a predecessor.
    pub checkpoints_retained: usize,
    /// After so long without a transaction one is committed all the same: the broker forgets a transactional id, and that it was barred, after
    /// `transactional.id.expiration.ms` (7 days by default).
    pub heartbeat: Duration,
    /// After so long without a transaction an owner looks whether somebody else wrote its journals: a commit would have told it.
    pub watch: Duration,
    /// How long to wait before a failed shard, or a producer that did not open, is tried again; doubles up to 64 times that.
    pub retry: Duration,
}

/// Numbers one attempt to bring a shard up; answers to earlier attempts are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The clock moved. Times never go back; the driver sees to that.
    Tick,
    /// These shards, and no others, are this worker's.
    Assigned(VersionRule, BTreeSet<ShardId>),
    /// [`Action::OpenProducer`] succeeded.
    ProducerOpened(Incarnation),
    /// Opening or committing failed: the incarnation is over.
    ProducerFailed(Incarnation, Failure),
    /// Answer to [`Action::ReadManifest`].
    ManifestRead(ShardId, Attempt, Option<ManifestMark>),
    /// Answer to [`Action::Scan`].
    Scanned(ShardId, Attempt, Scan, JournalRange),
    /// Answer to [`Action::Scan`]: the journal starts behind the wanted offset.
    Cut(ShardId, Attempt, JournalOffset),
    /// Answer to [`Action::Bar`].
    Barred(Incarnation),
    /// [`Action::Bar`] failed and may be tried again.
    BarFailed(Incarnation, Failure),
    /// Any of the actions of a shard's claim or restore failed.
    ClaimFailed(ShardId, Attempt, Failure),
    /// Answer to [`Action::Restore`]: where the restored state stands, and what the uncommitted journal behind the claim showed after it.
    Restored(ShardId, Attempt, Box<Stamp>, Scan),
    /// The restore found the journal cut under it: the claim must start again.
    RestoreOutrun(ShardId, Attempt),
    /// The open epoch got its first record.
    Dirty(ShardId),
    /// The open epoch is as large as it may be; the shard waits.
    Full(ShardId),
    /// More records than the shard can soon process lie before it, or no longer.
    Behind(ShardId, Attempt, bool),
    /// Answer to [`Action::Seal`].
    Sealed(ShardId, Attempt, Option<SealedEpoch>),
    /// Answer to [`Action::Commit`].
    Committed(Incarnation, Receipt),
    /// A running shard failed by itself: bad state, a panic in a step, an input that was cut. It holds up nobody.
    ShardFailed(ShardId, Attempt, Failure),
    /// Answer to one of [`Action::Look`].
    Looked(ShardId, Attempt, Sight),
    /// A checkpoint is uploaded and its files were checked to exist.
    CheckpointUploaded(ShardId, Attempt, RetainedCheckpoint),
    /// Objects were found that none of these checkpoints names, old enough to be deleted.
    GarbageFound(ShardId, Attempt, Vec<RetainedCheckpoint>, Vec<String>),
    /// Finish the open epochs, release all shards, stop.
    Stop,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Throw the old producer away, if there is one, and open one for a new incarnation.
    OpenProducer(Incarnation),
    /// See [`crate::claim::ClaimAction::ReadManifest`].
    ReadManifest(ShardId, Attempt),
    /// See [`crate::claim::ClaimAction::Scan`].
    Scan(ShardId, Attempt, JournalOffset, View),
    /// See [`crate::claim::ClaimAction::Bar`]; one for all shards that want it.
    Bar(Incarnation),
    /// Restore the shard, read the uncommitted journal behind the claim once more, answer with both.
    Restore(ShardId, Attempt, Claimed),
    /// Go on from the restored state: read inputs, process, say [`Event::Dirty`] at an epoch's first record.
    Start(ShardId, Attempt),
    /// End the open epoch.
    Seal(ShardId, Attempt, Owner, Annotations),
    /// Commit all this in one transaction.
    Commit(Incarnation, Contribution),
    /// The sealed epoch is committed: apply it.
    Confirm(ShardId, Epoch, JournalOffset),
    /// Drop whatever is not confirmed and stop; the local database stays.
    Drop(ShardId),
    /// The shard is released; forget it.
    Close(ShardId),
    /// The epoch that says so is committed: the journal before `before` may go, and the objects.
    Discard {
        /// The shard.
        shard: ShardId,
        /// The start of the oldest retained checkpoint's journal; `None`: leave the journal.
        before: Option<JournalOffset>,
        /// Objects on no list.
        objects: Vec<String>,
    },
    /// Look at the journals of shards that run here, uncommitted records too; answer for each with [`Event::Looked`].
    Look(Vec<Look>),
    /// Something that people want to know.
    Report(Report),
    /// All shards are released; the process may end.
    Stopped,
}

/// News for logs, metrics and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The shard is this worker's and runs from here.
    Owned(ShardId, Epoch),
    /// Somebody else has the better right.
    GaveUp(ShardId, GaveUp),
    /// The shard cannot go on; it is tried again.
    Failed(ShardId, String),
    /// The shard cannot go on without help. It is tried again now and then, in case that somebody helped.
    Stalled(ShardId, String),
    /// The incarnation is over; all shards are claimed again.
    IncarnationOver(Incarnation, String),
    /// A restore could not use the shard's checkpoint of this epoch and tried the one before. Whoever restores says so, not the state machine.
    FellBack(ShardId, Epoch, String),
}

/// What one transaction carries.
#[derive(Debug, Default)]
pub struct Contribution {
    /// Epochs, at most one per shard.
    pub epochs: Vec<SealedEpoch>,
    /// Claim records to put.
    pub claims: Vec<Owner>,
    /// Release marks to put, behind the shard's epoch if it has one.
    pub releases: Vec<Owner>,
}

impl Contribution {
    fn is_empty(&self) -> bool {
        self.epochs.is_empty() && self.claims.is_empty() && self.releases.is_empty()
    }
}

#[derive(Debug)]
enum Producer {
    /// To be opened at this time: at once, or after a failure. Not only when there are shards: that takes up to a second, which they would wait.
    Waiting(Timestamp),
    Opening(Incarnation),
    Ready(Incarnation),
}

#[derive(Debug)]
enum Phase {
    /// Waits for a producer.
    Waiting,
    Claiming(Claim),
    /// The claim record is to be part of the next transaction.
    ClaimDue(Claim),
    Restoring(Claim),
    Running(Claim),
    /// To be sealed and released in the next transaction; or, if it is sealed already and on its way, in the one after it.
    Releasing(Owner),
    /// A release mark, nothing else, in the next transaction.
    ReleaseDue(Owner),
    /// Failed; again at this time.
    Failed(Timestamp),
    /// Gave up, or released.
    Left,
}

#[derive(Debug)]
struct ShardState {
    rule: VersionRule,
    phase: Phase,
    /// To be claimed again once it is released.
    wanted: bool,
    attempt: Attempt,
    failures: u32,
    /// Its last failure needs help.
    stalled: bool,
    dirty: bool,
    full: bool,
    behind: bool,
    /// For the next epoch to say.
    annotations: Annotations,
    /// What the last committed epoch said.
    retained: Vec<RetainedCheckpoint>,
    /// Up to here it has seen its journal, while it runs.
    known: JournalOffset,
}

/// The machine. Feed it events with [`Worker::step`], do what it says.
#[derive(Debug)]
pub struct Worker {
    options: WorkerOptions,
    /// Makes the next incarnation: a name that never comes twice.
    incarnations: IncarnationNames,
    producer: Producer,
    producer_failures: u32,
    shards: BTreeMap<ShardId, ShardState>,
    /// Shards whose epochs were in a transaction that was refused, and have not committed since.
    suspects: BTreeSet<ShardId>,
    round: Round,
    watch: Watch,
    barring: Barring,
    stopping: bool,
    now: Timestamp,
    out: Vec<Action>,
}

/// Makes names of incarnations: `<worker>.<process>.<number>`.
#[derive(Debug)]
pub struct IncarnationNames {
    process: String,
    number: u64,
}

impl IncarnationNames {
    /// `process` never comes twice: a random id made when the process starts.
    pub fn new(process: impl Into<String>) -> Self {
        Self { process: process.into(), number: 0 }
    }

    fn next(&mut self, worker: &WorkerName) -> Incarnation {
        self.number += 1;
        Incarnation::new(format!("{worker}.{}.{}", self.process, self.number))
    }
}

impl Worker {
    /// A worker that owns nothing yet.
    pub fn new(options: WorkerOptions, incarnations: IncarnationNames) -> Self {
        assert!(options.checkpoints_retained >= 2, "a damaged newest checkpoint needs a predecessor");
        Self {
            options,
            incarnations,
            producer: Producer::Waiting(Timestamp::default()),
            producer_failures: 0,
            shards: BTreeMap::new(),
            suspects: BTreeSet::new(),
            round: Round::Idle { last: Timestamp::default() },
            watch: Watch::default(),
            barring: Barring::default(),
            stopping: false,
            now: Timestamp::default(),
            out: Vec::new(),
        }
    }

    /// Takes an event at a time and says what to do.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        match event {
            Event::Tick => {}
            Event::Assigned(rule, shards) => self.assigned(rule, &shards),
            Event::ProducerOpened(incarnation) => self.producer_opened(incarnation),
            Event::ProducerFailed(incarnation, failure) => self.producer_failed(&incarnation, &failure),
            Event::ManifestRead(shard, attempt, manifest) => self.claim_event(shard, attempt, ClaimEvent::Manifest(manifest)),
            Event::Scanned(shard, attempt, scan, range) => self.claim_event(shard, attempt, ClaimEvent::Scanned(scan, range)),
            Event::Cut(shard, attempt, start) => self.claim_event(shard, attempt, ClaimEvent::Cut(start)),
            Event::Barred(incarnation) => self.barring.done(incarnation, self.now),
            Event::BarFailed(incarnation, failure) => self.bar_failed(&incarnation, &failure),
            Event::ClaimFailed(shard, attempt, failure) | Event::ShardFailed(shard, attempt, failure) => {
                self.shard_failed(shard, attempt, &failure)
            }
            Event::Restored(shard, attempt, head, scan) => self.restored(shard, attempt, *head, &scan),
            Event::RestoreOutrun(shard, attempt) => self.restore_outrun(shard, attempt),
            Event::Dirty(shard) => self.mark(shard, |state| state.dirty = true),
            Event::Full(shard) => self.mark(shard, |state| (state.dirty, state.full) = (true, true)),
            Event::Behind(shard, attempt, behind) => {
                self.mark(shard, |state| state.behind = if state.attempt == attempt { behind } else { state.behind })
            }
            Event::Sealed(shard, attempt, sealed) => self.sealed(shard, attempt, sealed),
            Event::Committed(incarnation, receipt) => self.committed(&incarnation, &receipt),
            Event::Looked(shard, attempt, sight) => self.looked(shard, attempt, sight),
            Event::CheckpointUploaded(shard, attempt, checkpoint) => self.checkpoint_uploaded(shard, attempt, checkpoint),
            Event::GarbageFound(shard, attempt, named, garbage) => self.garbage_found(shard, attempt, &named, garbage),
            Event::Stop => self.stop(),
        }
        self.retry_what_is_due();
        self.tell_barred();
        self.begin_round_if_due();
        self.look_if_due();
        if self.stopping && self.shards.values().all(|state| matches!(state.phase, Phase::Left)) && matches!(self.round, Round::Idle { .. })
        {
            self.stopping = false;
            self.out.push(Action::Stopped);
        }
        std::mem::take(&mut self.out)
    }

    /// When the next [`Event::Tick`] is wanted; `None`: not before something else happens.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let retry = self.shards.values().filter_map(|state| if let Phase::Failed(at) = state.phase { Some(at) } else { None });
        let producer = if let Producer::Waiting(at) = self.producer { Some(at) } else { None };
        let round = match self.round {
            Round::Idle { last } if self.has_work() => Some(after(last, self.interval())),
            Round::Idle { last } if self.has_heart() => Some(after(last, self.options.heartbeat)),
            Round::Idle { .. } | Round::Sealing { .. } | Round::Committing { .. } => None,
        };
        retry.chain(producer).chain(round).chain(self.look_due_at()).min()
    }

    /// A word for the phase of a shard, for logs, status and coverage; `None` when it is not this worker's.
    pub fn phase(&self, shard: ShardId) -> Option<&'static str> {
        self.shards.get(&shard).map(|state| match &state.phase {
            Phase::Waiting => "waiting",
            Phase::Claiming(claim) => claim.phase(),
            Phase::ClaimDue(_) => "claiming",
            Phase::Restoring(_) => "restoring",
            Phase::Running(_) => "running",
            Phase::Releasing(_) | Phase::ReleaseDue(_) => "releasing",
            Phase::Failed(_) if state.stalled => "stalled",
            Phase::Failed(_) => "failed",
            Phase::Left => "left",
        })
    }

    /// The shards whose claims are under way and not committed yet, or not read on.
    pub fn claiming(&self) -> impl Iterator<Item = ShardId> {
        self.shards.iter().filter(|(_, state)| matches!(state.phase, Phase::Claiming(_))).map(|(shard, _)| *shard)
    }

    /// A word for the phase of the round: `idle`, `sealing` or `committing`.
    pub fn round_phase(&self) -> &'static str {
        self.round.name()
    }

    fn assigned(&mut self, rule: VersionRule, shards: &BTreeSet<ShardId>) {
        if self.stopping {
            return;
        }
        for shard in shards {
            self.shards.entry(*shard).or_insert_with(ShardState::new).assign(rule);
        }
        let gone: Vec<_> = self.shards.keys().filter(|shard| !shards.contains(shard)).copied().collect();
        for shard in gone {
            self.leave(shard);
        }
        self.claim_waiting();
    }

    fn stop(&mut self) {
        self.stopping = true;
        let all: Vec<_> = self.shards.keys().copied().collect();
        for shard in all {
            self.leave(shard);
        }
    }

    /// Gives a shard up, by a release mark where there is something to release.
    fn leave(&mut self, shard: ShardId) {
        let Some(state) = self.shards.get_mut(&shard) else { return };
        state.wanted = false;
        state.phase = match std::mem::replace(&mut state.phase, Phase::Left) {
            Phase::Running(claim) => Phase::Releasing(claim.owner().clone()),
            Phase::Claiming(claim) | Phase::Restoring(claim) if claim.may_have_record() => {
                state.attempt = Attempt(state.attempt.0 + 1);
                self.out.push(Action::Drop(shard));
                Phase::ReleaseDue(claim.owner().clone())
            }
            Phase::Waiting | Phase::Claiming(_) | Phase::ClaimDue(_) | Phase::Restoring(_) | Phase::Failed(_) => {
                state.attempt = Attempt(state.attempt.0 + 1);
                self.out.push(Action::Drop(shard));
                self.out.push(Action::Close(shard));
                Phase::Left
            }
            other @ (Phase::Releasing(_) | Phase::ReleaseDue(_) | Phase::Left) => other,
        };
        if matches!(state.phase, Phase::Left) {
            self.leave_round(shard);
        }
    }

    fn mark(&mut self, shard: ShardId, set: impl FnOnce(&mut ShardState)) {
        if let Some(state) = self.shards.get_mut(&shard) {
            set(state);
        }
    }

    fn producer_opened(&mut self, incarnation: Incarnation) {
        if matches!(&self.producer, Producer::Opening(opening) if *opening == incarnation) {
            self.producer = Producer::Ready(incarnation);
            self.claim_waiting();
        }
    }

    /// Never guess: whatever the error was, this incarnation is over. What it committed is learnt from the journals.
    fn producer_failed(&mut self, incarnation: &Incarnation, failure: &Failure) {
        let current = match &self.producer {
            Producer::Opening(current) | Producer::Ready(current) => current == incarnation,
            Producer::Waiting(_) => false,
        };
        if !current {
            return;
        }
        self.out.push(Action::Report(Report::IncarnationOver(incarnation.clone(), failure.reason().to_owned())));
        let in_transaction = self.in_transaction();
        self.round = Round::Idle { last: self.now };
        for (shard, state) in &mut self.shards {
            state.phase = match std::mem::replace(&mut state.phase, Phase::Left) {
                Phase::Left => Phase::Left,
                // The next owner bars this incarnation; there is nobody to commit a mark any more.
                Phase::Releasing(_) | Phase::ReleaseDue(_) => {
                    self.out.extend([Action::Drop(*shard), Action::Close(*shard)]);
                    state.released()
                }
                Phase::Waiting | Phase::Claiming(_) | Phase::ClaimDue(_) | Phase::Restoring(_) | Phase::Running(_) | Phase::Failed(_) => {
                    self.out.push(Action::Drop(*shard));
                    Phase::Waiting
                }
            };
            state.restart();
        }
        let again = match failure {
            Failure::Passing(_) => backoff(self.now, self.options.retry, self.producer_failures),
            Failure::Lasting(_) => self.refused(in_transaction, failure),
        };
        self.producer = Producer::Waiting(again);
        self.producer_failures = self.producer_failures.saturating_add(1);
    }

    fn retry_what_is_due(&mut self) {
        let due = match self.producer {
            Producer::Waiting(at) => at <= self.now,
            Producer::Opening(_) | Producer::Ready(_) => false,
        };
        if due && !self.stopping {
            let incarnation = self.incarnations.next(&self.options.worker);
            self.producer = Producer::Opening(incarnation.clone());
            self.out.push(Action::OpenProducer(incarnation));
        }
        let now = self.now;
        for state in self.shards.values_mut() {
            if matches!(state.phase, Phase::Failed(at) if at <= now) {
                state.phase = Phase::Waiting;
            }
        }
        self.claim_waiting();
    }

    /// Its part of a transaction in flight may still be committed: the journal will tell.
    fn shard_failed(&mut self, shard: ShardId, attempt: Attempt, failure: &Failure) {
        let Some(state) = self.shards.get_mut(&shard).filter(|state| state.attempt == attempt) else { return };
        state.phase = match &state.phase {
            Phase::Left => return,
            Phase::Releasing(owner) => Phase::ReleaseDue(owner.clone()),
            Phase::ReleaseDue(_) | Phase::Failed(_) => return,
            Phase::Waiting | Phase::Claiming(_) | Phase::ClaimDue(_) | Phase::Restoring(_) | Phase::Running(_) => {
                Phase::Failed(state.again(self.now, self.options.retry, failure))
            }
        };
        state.restart();
        let reason = failure.reason().to_owned();
        let report = if state.stalled { Report::Stalled(shard, reason) } else { Report::Failed(shard, reason) };
        self.out.extend([Action::Drop(shard), Action::Report(report)]);
        self.leave_round(shard);
    }
}

impl ShardState {
    fn new() -> Self {
        Self {
            rule: VersionRule::AboveAll,
            phase: Phase::Left,
            wanted: false,
            attempt: Attempt::default(),
            failures: 0,
            stalled: false,
            dirty: false,
            full: false,
            behind: false,
            annotations: Annotations::default(),
            retained: Vec::new(),
            known: JournalOffset::default(),
        }
    }

    /// It is this worker's, under this version or a higher one that it was told before.
    fn assign(&mut self, rule: VersionRule) {
        match self.phase {
            Phase::Left => (self.rule, self.phase) = (rule, Phase::Waiting),
            Phase::Releasing(_) | Phase::ReleaseDue(_) => (self.rule, self.wanted) = (rule, true),
            // What runs or claims under a lower version goes on; the higher one counts when it has to claim again.
            Phase::Waiting | Phase::Claiming(_) | Phase::ClaimDue(_) | Phase::Restoring(_) | Phase::Running(_) | Phase::Failed(_) => {
                if let (VersionRule::Exactly(old), VersionRule::Exactly(new)) = (self.rule, rule) {
                    self.rule = VersionRule::Exactly(old.max(new));
                }
            }
        }
    }

    /// It failed. When to try again: soon at first where it may heal by itself, slowly where it needs help.
    fn again(&mut self, now: Timestamp, retry: Duration, failure: &Failure) -> Timestamp {
        self.stalled = matches!(failure, Failure::Lasting(_));
        self.failures = self.failures.saturating_add(1);
        let exponent = if self.stalled { BACKOFF_MAX } else { self.failures - 1 };
        backoff(now, retry, exponent)
    }

    /// Nothing of it is left here; whether to begin anew.
    fn released(&mut self) -> Phase {
        if std::mem::take(&mut self.wanted) { Phase::Waiting } else { Phase::Left }
    }

    /// A new attempt: answers to the last one are of no interest, and what it wanted to say about checkpoints was never committed.
    fn restart(&mut self) {
        self.attempt = Attempt(self.attempt.0 + 1);
        (self.dirty, self.full, self.behind) = (false, false, false);
        self.annotations = Annotations::default();
    }
}

/// A pause grows up to two to the power of this times the first one.
const BACKOFF_MAX: u32 = 6;

fn after(time: Timestamp, delay: Duration) -> Timestamp {
    Timestamp::from_millis(time.as_millis().saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)))
}

fn backoff(now: Timestamp, retry: Duration, failures: u32) -> Timestamp {
    after(now, retry * (1 << failures.min(BACKOFF_MAX)))
}
