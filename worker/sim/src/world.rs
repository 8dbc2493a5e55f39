//! Simulated worker processes around one log and one store. Whoever can act is an [`Actor`]; one at a time does one small step, chosen by the
//! seed. Requests that were sent outlive the process that sent them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forebay_engine::ids::{AssignmentVersion, Incarnation, JournalOffset, Partition, ShardId, Timeline, WorkerName};

use crate::coverage::{Coverage, Fault};
use crate::log::{SimLog, Target, TxnId};
use crate::oracle::{Invariant, Oracle, Violation};
use crate::rng::Rng;
use crate::store::SimStore;
use crate::task::{Call, Link, Pool};

mod assign;
mod calls;
mod commit;
mod direct;
mod executor;
mod faults;
mod finish;
mod process;
mod schedule;

pub use assign::Letter;
pub use process::{Process, Seat};
pub use schedule::Actor;

/// How a run is set up. A scenario sets it by hand, a seed by chance.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Workers.
    pub workers: usize,
    /// Shards.
    pub shards: u32,
    /// Input partitions.
    pub partitions: u32,
    /// Records at the start.
    pub records: usize,
    /// Records that are produced while the run goes on.
    pub records_later: usize,
    /// What records have at most besides their key and id, in bytes. Their outputs have it, too.
    pub padding_max: usize,
    /// How often a record is of the first partition and key, instead of any.
    pub skew: f64,
    /// Scheduling steps before all is healed.
    pub steps: usize,
    /// Checkpoints that count.
    pub checkpoints_retained: usize,
    /// A checkpoint is due after so many epochs of a shard.
    pub checkpoint_epochs: u64,
    /// How old garbage must be.
    pub grace: Duration,
    /// See `WorkerOptions`.
    pub heartbeat: Duration,
    /// See `WorkerOptions`.
    pub watch: Duration,
    /// Bytes of an open epoch.
    pub epoch_bytes_max: usize,
    /// Bytes of a chunk of a journal record.
    pub journal_chunk_bytes: usize,
    /// Bytes of decoded state per shard.
    pub cache_bytes_max: usize,
    /// How often a call of a port goes wrong.
    pub call_faults: f64,
    /// How often something else goes wrong, per step.
    pub faults: f64,
    /// Starts claim above all that they see; there is no operator.
    pub above_all: bool,
    /// A phase and a fault that this run goes for.
    pub directed: Option<(&'static str, Fault)>,
}

/// A request that was given up by its sender and arrives all the same.
#[derive(Debug)]
enum Orphan {
    Call(ShardId, Call),
    Producer(Incarnation, u32, Option<TxnId>, commit::Part),
}

/// A task on a helper thread.
struct Task {
    seat: usize,
    shard: ShardId,
    /// What it does, for coverage.
    kind: &'static str,
    calls: usize,
    pending: Call,
    /// The end that a read to the end has fixed.
    end: Option<JournalOffset>,
    /// When it began to wait.
    since: i64,
    /// The request was carried out; a bar waits for markers.
    sent: bool,
    /// Nobody answers before this time.
    slow_until: i64,
    link: Link,
}

/// Everything.
pub struct World {
    /// How it was set up.
    pub setup: Setup,
    /// The log.
    pub log: SimLog,
    /// The store.
    pub store: SimStore,
    /// The watcher.
    pub oracle: Oracle,
    /// What was met.
    pub coverage: Coverage,
    /// The workers.
    pub seats: Vec<Seat>,
    rng: Rng,
    pool: Pool,
    tasks: BTreeMap<u64, Task>,
    orphans: BTreeMap<u64, Orphan>,
    /// Assignments on their way: FIFO per worker unless a fault reorders them.
    letters: BTreeMap<u64, (usize, Letter)>,
    next_id: u64,
    /// Milliseconds.
    now: i64,
    timeline: Timeline,
    version: AssignmentVersion,
    version_seen: AssignmentVersion,
    store_down: bool,
    /// The shard whose journal is offline.
    offline: Option<ShardId>,
    /// The partition of the outputs that the log takes nothing for.
    refusing: Option<Partition>,
    /// Shards whose newest checkpoint was damaged.
    damaged: BTreeSet<ShardId>,
    /// What goes wrong next, in a scenario.
    forced: Option<(&'static str, Fault)>,
    /// Requests that a scenario holds up.
    held: Option<&'static str>,
    /// A scenario holds up all markers.
    markers_held: bool,
    /// Transactions that nobody will ever end.
    hanging: BTreeSet<TxnId>,
    /// What the last failure of each shard was said to be.
    said: BTreeMap<ShardId, String>,
    /// Nothing goes wrong any more.
    healed: bool,
    schedule: schedule::Schedule,
    records_made: u64,
    records_later: usize,
    steps: usize,
    /// One line per step, when somebody wants to read it.
    pub trace: Option<Vec<String>>,
}

impl World {
    /// A world before its first step.
    pub fn new(setup: Setup, seed: u64) -> Self {
        crate::panics::install();
        let mut rng = Rng::new(seed);
        let log = SimLog::new(setup.partitions, 2, setup.shards);
        let schedule = schedule::Schedule::new(&mut rng);
        let seats = (0..setup.workers).map(|number| Seat::new(WorkerName::new(format!("w{number}")))).collect();
        let mut world = Self {
            oracle: Oracle::new(setup.shards, setup.checkpoints_retained),
            records_later: setup.records_later,
            setup,
            log,
            store: SimStore::default(),
            coverage: Coverage::default(),
            seats,
            rng,
            pool: Pool::default(),
            tasks: BTreeMap::new(),
            orphans: BTreeMap::new(),
            letters: BTreeMap::new(),
            next_id: 0,
            now: 1_000_000,
            timeline: Timeline::default(),
            version: AssignmentVersion::default(),
            version_seen: AssignmentVersion::default(),
            store_down: false,
            offline: None,
            refusing: None,
            damaged: BTreeSet::new(),
            forced: None,
            held: None,
            markers_held: false,
            hanging: BTreeSet::new(),
            said: BTreeMap::new(),
            healed: false,
            schedule,
            records_made: 0,
            steps: 0,
            trace: None,
        };
        for _ in 0..world.setup.records {
            world.produce_record();
        }
        world
    }

    /// The seed's whole run: workers start, things go wrong, all is healed, everything is checked. The first violation ends it.
    pub fn run(&mut self) -> Result<(), Violation> {
        for seat in 0..self.seats.len() {
            self.start(seat);
        }
        self.assign_all();
        for _ in 0..self.setup.steps {
            self.step()?;
        }
        self.finish()
    }

    /// One step of somebody.
    pub fn step(&mut self) -> Result<(), Violation> {
        self.steps += 1;
        if !self.healed {
            self.maybe_fault();
        }
        if let Some(actor) = self.choose() {
            self.act(actor);
        }
        self.verdict()
    }

    /// The first violation, if there is one.
    pub fn verdict(&self) -> Result<(), Violation> {
        self.oracle.violations().first().map_or(Ok(()), |violation| Err(violation.clone()))
    }

    /// Lets one actor do its step.
    pub fn act(&mut self, actor: Actor) {
        self.note(|_| format!("{actor:?}"));
        match actor {
            Actor::Coordinator(seat) => self.coordinate(seat),
            Actor::Committer(seat) => self.commit_step(seat),
            Actor::Executor(seat, executor) => self.execute(seat, executor),
            Actor::Task(id) => self.task_step(id),
            Actor::Marker(txn, target) => self.log.mark(txn, target),
            Actor::Orphan(id) => self.orphan_step(id),
            Actor::Letter(id) => self.deliver(id),
            Actor::Clock => self.advance(),
            Actor::Source => self.produce_later(),
        }
        for txn in self.log.take_committed() {
            self.oracle.committed(txn, &self.log, &self.store);
        }
        self.check_memory();
    }

    /// All shards.
    fn shards(&self) -> BTreeSet<ShardId> {
        (0..self.setup.shards).map(ShardId::new).collect()
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>5} {:>9} {}", self.steps, self.now, text(self));
            self.trace.iter_mut().for_each(|trace| trace.push(line.clone()));
        }
    }

    fn markers(&self) -> Vec<(TxnId, Target)> {
        self.log.markers().into_iter().filter(|(txn, _)| !self.hanging.contains(txn)).collect()
    }

    /// Queues stay short and epochs small, whatever happens (I9).
    fn check_memory(&mut self) {
        // Every shard has at most a few messages under way to and from its executor; the rest are ticks of the operator.
        let bound = 24 * self.setup.shards as usize + 16;
        let (epoch_max, cache_max) = (self.setup.epoch_bytes_max, self.setup.cache_bytes_max);
        let mut found = None;
        for seat in &self.seats {
            let Some(process) = &seat.process else { continue };
            if process.longest_queue() > bound {
                found = Some(format!("a queue of {} holds {} messages", seat.name, process.longest_queue()));
            }
            for (shard, state) in process.shards() {
                // The last record may go over the limit, and counts as input and as output; what an epoch changed is pinned until it is applied, and two are at most.
                let epoch_max = epoch_max + 400 + 2 * self.setup.padding_max;
                if state.open_bytes() > epoch_max || state.cache_bytes() > cache_max + 2 * epoch_max {
                    found = Some(format!("shard {shard} holds {} bytes of epoch and {} of state", state.open_bytes(), state.cache_bytes()));
                }
            }
        }
        if let Some(what) = found {
            self.oracle.report(Invariant::I9Memory, what);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (_, task) in std::mem::take(&mut self.tasks) {
            self.pool.kill(task.link);
        }
    }
}
