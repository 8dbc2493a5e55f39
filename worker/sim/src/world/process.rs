//! One worker process: the coordinator with the engine's state machine, and the queues between it and its committer, executors and helpers.
//! What production has as threads and channels is here an actor and a queue each.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use forebay_engine::ids::{ShardId, Timeline, Timestamp, WorkerName};
use forebay_engine::shard::Shard;
use forebay_engine::worker::{Action, Event, IncarnationNames, Report, Worker, WorkerOptions};

use super::assign::Letter;
use super::commit::{Committer, Order};
use super::executor::{Command, Executor};
use super::{Setup, World};
use crate::disk::{Disk, SimState};
use crate::jobs::{Job, LogFacts, SnapshotPlan};
use crate::log::SimLog;
use crate::mutant::{Mutant, is};
use crate::oracle::Invariant;
use crate::pipeline::Counting;

/// A worker across its restarts.
pub struct Seat {
    /// Its name.
    pub name: WorkerName,
    /// Its disk.
    pub disk: Disk,
    /// Its process, while it lives.
    pub process: Option<Process>,
    /// Steps for which it stands still.
    pub stalled: usize,
    pub(super) starts: u64,
    /// The last assignment that reached it: it lies on its volume.
    pub(super) kept: Option<Letter>,
}

impl Seat {
    pub(super) fn new(name: WorkerName) -> Self {
        Self { name, disk: Disk::default(), process: None, stalled: 0, starts: 0, kept: None }
    }
}

/// A process.
pub struct Process {
    /// The engine's.
    pub worker: Worker,
    pub(super) inbox: VecDeque<Event>,
    /// What its clock showed last, and how far it is off.
    clock: i64,
    pub(super) skew: i64,
    /// How far it is ahead of the log's, as the last commit has shown.
    ahead: i64,
    /// Ticks in a row after which the engine still wanted to be woken at once.
    spins: u32,
    pub(super) committer: Committer,
    pub(super) executors: Vec<Executor>,
    pub(super) due: BTreeMap<ShardId, Due>,
    /// It was told to stop.
    pub(super) stopping: bool,
    /// All shards are released.
    pub stopped: bool,
}

/// When a shard's next checkpoint is due.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub running: bool,
    pub epochs: u64,
}

impl Process {
    fn new(name: &WorkerName, timeline: Timeline, setup: &Setup, start: u64, skew: i64) -> Self {
        let options = WorkerOptions {
            worker: name.clone(),
            timeline,
            commit_interval: Duration::from_millis(100),
            commit_interval_behind: Duration::from_secs(1),
            checkpoints_retained: setup.checkpoints_retained,
            heartbeat: setup.heartbeat,
            watch: setup.watch,
            retry: Duration::from_millis(200),
        };
        Self {
            worker: Worker::new(options, IncarnationNames::new(format!("p{start}"))),
            inbox: VecDeque::new(),
            clock: 0,
            skew,
            ahead: 0,
            spins: 0,
            committer: Committer::default(),
            executors: (0..2).map(|_| Executor::default()).collect(),
            due: BTreeMap::new(),
            stopping: false,
            stopped: false,
        }
    }

    pub(super) fn can_coordinate(&self, now: i64) -> bool {
        !self.stopped
            && (!self.inbox.is_empty() || self.worker.wake_at().is_some_and(|at| at.as_millis() <= self.clock.max(now + self.skew)))
    }

    pub(super) fn can_commit(&self, log: &SimLog, now: i64) -> bool {
        self.committer.can_act(log, now)
    }

    pub(super) fn can_execute(&self, executor: usize, log: &SimLog) -> bool {
        self.executors[executor].can_act(log)
    }

    pub(super) fn time(&mut self, now: i64) -> Timestamp {
        self.clock = self.clock.max(now + self.skew);
        Timestamp::from_millis(self.clock)
    }

    /// The time for epochs: its clock as the machine has it, less what it is known to be ahead. May go back.
    pub(super) fn epoch_time(&self, now: i64) -> Timestamp {
        Timestamp::from_millis(now + self.skew - self.ahead)
    }

    /// What was sent when the log's clock showed `sent` was appended at `appended` by the same clock, and not before it was sent: by what the machine
    /// took for the former it is ahead of the latter, or more.
    pub(super) fn compare_clocks(&mut self, sent: i64, appended: Timestamp) {
        if !is(Mutant::ClockUnbounded) {
            self.ahead = (sent + self.skew - appended.as_millis()).max(0);
        }
    }

    pub(super) fn longest_queue(&self) -> usize {
        self.executors
            .iter()
            .map(|executor| executor.commands.len())
            .chain([self.inbox.len(), self.committer.orders.len()])
            .max()
            .unwrap_or(0)
    }

    /// Shards that an executor holds.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &Shard<Counting, SimState>)> {
        self.executors.iter().flat_map(Executor::shards)
    }

    pub(super) fn executor(&mut self, shard: ShardId) -> &mut Executor {
        let count = self.executors.len();
        &mut self.executors[shard.get() as usize % count]
    }
}

impl World {
    /// A new process of a worker; it resumes the assignment that lies on its volume.
    pub fn start(&mut self, seat: usize) {
        let skew = [0, 0, 40, -3000, 5000][self.rng.below(5)];
        let state = &mut self.seats[seat];
        assert!(state.process.is_none(), "one process per worker");
        state.starts += 1;
        let mut process = Process::new(&state.name, self.timeline, &self.setup, state.starts, skew);
        if let Some(letter) = &state.kept {
            process.inbox.push_back(letter.event());
        }
        state.process = Some(process);
        if self.setup.above_all {
            let shards = self.shards();
            self.send(seat, Letter { rule: forebay_engine::claim::VersionRule::AboveAll, shards });
        }
    }

    /// A process is told to stop: it releases its shards first.
    pub fn stop(&mut self, seat: usize) {
        if let Some(process) = &mut self.seats[seat].process {
            process.stopping = true;
            process.inbox.push_back(Event::Stop);
        }
    }

    /// The coordinator takes its next event, or the time.
    pub(super) fn coordinate(&mut self, seat: usize) {
        let now = self.now;
        let Some(process) = &mut self.seats[seat].process else { return };
        let time = process.time(now);
        let event = process.inbox.pop_front().unwrap_or(Event::Tick);
        let is_tick = matches!(event, Event::Tick);
        let text = self.trace.is_some().then(|| format!("{event:?}"));
        let actions = match crate::panics::caught(|| process.worker.step(time, event)) {
            Ok(actions) => actions,
            Err(panic) => return self.oracle.report(Invariant::Assertion, format!("worker {}: {panic}", self.seats[seat].name)),
        };
        let spins = is_tick && actions.is_empty() && process.worker.wake_at().is_some_and(|at| at <= time);
        process.spins = if spins { process.spins + 1 } else { 0 };
        if process.spins > 2 {
            let what = format!("worker {} wants to be woken again at once, for ever", self.seats[seat].name);
            return self.oracle.report(Invariant::Progress, what);
        }
        if let Some(text) = text {
            self.note(|_| format!("    {text} -> {actions:?}"));
        }
        for action in actions {
            self.perform(seat, action);
        }
    }

    fn perform(&mut self, seat: usize, action: Action) {
        let process = self.seats[seat].process.as_mut().expect("its coordinator just acted");
        match action {
            Action::OpenProducer(incarnation) => process.committer.orders.push_back(Order::Open(incarnation)),
            Action::Commit(incarnation, contribution) => process.committer.orders.push_back(Order::Commit(incarnation, contribution)),
            Action::ReadManifest(shard, attempt) => {
                self.help(seat, shard, "read-manifest", move |job| Job { attempt, ..job }.read_manifest())
            }
            Action::Scan(shard, attempt, from, view) => self.help(seat, shard, "scan", move |job| Job { attempt, ..job }.scan(from, view)),
            // It is of no shard; a task needs one to have a name.
            Action::Bar(incarnation) => self.help(seat, ShardId::new(0), "bar", move |job| job.bar(incarnation)),
            Action::Restore(shard, attempt, claimed) => {
                let (input, journal, group) = (self.log.describe_input(), self.log.describe_journal(), self.log.group.clone());
                let (log, setup) = (LogFacts { input, journal, group }, self.setup.clone());
                self.help(seat, shard, "restore", move |job| Job { attempt, ..job }.restore(&claimed, &log, &setup));
            }
            Action::Start(shard, attempt) => {
                let incarnation = process.committer.incarnation().cloned();
                process.executor(shard).commands.push_back(Command::Start(shard, attempt, incarnation));
            }
            Action::Seal(shard, attempt, owner, annotations) => {
                let early =
                    annotations.retained.as_ref().filter(|list| list.len() >= 2 && is(Mutant::CutEarly)).map(|list| list[0].journal);
                process.executor(shard).commands.push_back(Command::Seal(shard, attempt, owner, annotations));
                if early.is_some() {
                    self.help(seat, shard, "discard", move |job| job.discard(early, &[]));
                }
            }
            Action::Confirm(shard, epoch, journal) => process.executor(shard).commands.push_back(Command::Confirm(shard, epoch, journal)),
            Action::Drop(shard) => process.executor(shard).commands.push_back(Command::Drop(shard)),
            Action::Close(shard) => process.executor(shard).commands.push_back(Command::Close(shard)),
            Action::Discard { shard, before, objects } => self.help(seat, shard, "discard", move |job| job.discard(before, &objects)),
            Action::Look(looks) => {
                for look in looks {
                    self.help(seat, look.shard, "look", move |job| Job { attempt: look.attempt, ..job }.look(look.from));
                }
            }
            Action::Report(report) => self.reported(&report),
            Action::Stopped => process.stopped = true,
        }
    }

    fn reported(&mut self, report: &Report) {
        match report {
            Report::Owned(..) => self.coverage.situation("a shard is owned"),
            Report::GaveUp(_, gave_up) => {
                self.version_seen = self.version_seen.max(gave_up.version);
                self.coverage.situation(if gave_up.claimed {
                    "a claim is given up after its record was committed"
                } else {
                    "a claim is given up before its record"
                });
            }
            Report::Failed(shard, reason) => self.shard_said("a shard fails", *shard, reason),
            Report::Stalled(shard, reason) => self.shard_said("a shard stalls", *shard, reason),
            Report::IncarnationOver(_, reason) => {
                self.coverage.situation("an incarnation is over");
                if reason.ends_with("it claims the shard") {
                    self.coverage.situation("an idle owner sees that it was replaced");
                }
            }
            Report::FellBack(..) => unreachable!("the simulator's restores note what they find"),
        }
    }

    fn shard_said(&mut self, situation: &'static str, shard: ShardId, reason: &str) {
        self.coverage.situation(situation);
        self.said.insert(shard, reason.to_owned());
    }

    /// A committed epoch was applied: takes a checkpoint if one is due.
    pub(super) fn consider_snapshot(&mut self, seat: usize, shard: ShardId) {
        let unique = format!("u{}", self.id());
        let (every, grace) = (self.setup.checkpoint_epochs, self.setup.grace);
        let process = self.seats[seat].process.as_mut().expect("its executor just acted");
        let due = process.due.entry(shard).or_default();
        due.epochs += 1;
        if due.running || due.epochs < every {
            return;
        }
        (due.running, due.epochs) = (true, 0);
        let Some((attempt, state)) = process.executor(shard).slot(shard) else { return };
        let checkpointer = state.checkpointer();
        let plan =
            SnapshotPlan { unique, incarnation: state.head().owner.incarnation.clone(), retained: state.head().retained.clone(), grace };
        self.help(seat, shard, "snapshot", move |job| {
            job.remote.call(crate::task::Call::Begin);
            Job { attempt, ..job }.snapshot(checkpointer, &plan)
        });
    }
}
