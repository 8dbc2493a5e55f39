//! Starting and stopping a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use forebay_engine::claim::VersionRule;
use forebay_engine::ids::{Epoch, Revision, ShardId};
use forebay_engine::lifetimes::Lifetimes;
use forebay_engine::log::{Log, LogError, StartFrom};
use forebay_engine::pipeline::Pipeline;
use forebay_engine::store::ObjectStore;
use forebay_engine::worker::{Event, IncarnationNames, Worker, WorkerOptions};
use forebay_state::{RocksState, SharedMemory};

use crate::clock::Clock;
use crate::control::{Assigner, Checkpoints};
use crate::coordinator::Coordinator;
use crate::executor::Shared;
use crate::prefetch::Prefetcher;
use crate::pressure::Pressure;
use crate::restorer::newest_mark;
use crate::restores::{Restores, restorer};
use crate::snapshots::{Pace, Snapshots};
use crate::status::Status;
use crate::turns::Turns;
use crate::watchdog::Watchdog;
use crate::watched::Watched;
use crate::{committer, executor, helpers};

/// The outside world of a worker: the log, the object store, the pipeline.
pub struct Engine<L, P> {
    /// The log.
    pub log: Arc<L>,
    /// The object store, rooted at the job's prefix and timeline.
    pub store: Arc<dyn ObjectStore>,
    /// Makes a shard's pipeline.
    pub pipeline: Arc<dyn Fn(ShardId) -> P + Send + Sync>,
}

/// What decides how a worker runs.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// The engine's part.
    pub worker: WorkerOptions,
    /// Never comes twice: made when the process starts.
    pub process: String,
    /// The shards to own from the start, and under which version; none: [`Runtime::assigner`] gives them later.
    pub assignment: (VersionRule, BTreeSet<ShardId>),
    /// How many shards the job has.
    pub shards: u32,
    /// What the pipeline is.
    pub revision: Revision,
    /// Where to start per input when there is neither journal nor snapshot.
    pub start_from: Vec<StartFrom>,
    /// Where the databases lie; made if it is not there.
    pub state_dir: PathBuf,
    /// Threads that process records.
    pub executors: usize,
    /// Bytes of inputs and outputs that end a shard's epoch before its time; the memory budget may set a lower limit.
    pub epoch_bytes_max: usize,
    /// How often each shard takes a checkpoint.
    pub checkpoint_interval: Duration,
    /// The least time between the end of one and the start of the next.
    pub checkpoint_pause: Duration,
    /// How many checkpoints of this worker may be taken at once.
    pub checkpoints_concurrent: usize,
    /// Objects on no list are left alone for so long: [`RuntimeOptions::GARBAGE_GRACE`], but in tests.
    pub garbage_grace: Duration,
    /// How long entities live, by table.
    pub lifetimes: Lifetimes,
    /// What the process may hold, in bytes.
    pub memory_bytes_max: usize,
    /// Has the allocator give free memory back to the system; called as the process comes near what it may hold.
    pub give_back: fn(),
}

impl RuntimeOptions {
    /// A checkpoint that is being uploaded is on no list yet: far longer than that takes.
    pub const GARBAGE_GRACE: Duration = Duration::from_secs(600);

    /// Whether the shards fit into the memory. [`Runtime::start`] fails if not.
    pub fn check_memory(&self) -> Result<(), RuntimeError> {
        self.budget().map(drop)
    }

    fn budget(&self) -> Result<Budget, RuntimeError> {
        // A worker that is told its shards later may come to have them all.
        let shards_max = if self.assignment.1.is_empty() { self.shards as usize } else { self.assignment.1.len() };
        Budget::of(self.memory_bytes_max, shards_max)
    }
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state folder or the database.
    #[error(transparent)]
    State(#[from] forebay_engine::state::StateError),
    /// The state folder.
    #[error("create the state folder {path}: {reason}; name another by --state-dir")]
    Folder {
        /// The folder.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// The shards do not fit.
    #[error(
        "{shards} shards in one process need {needed_mib} MiB of memory, and it may use {found_mib}: give it more (`--memory`, `spec.state.memory`), share \
         the shards among several (`--shards`), or make the job anew with fewer (`spec.shards`)"
    )]
    Memory {
        /// How many.
        shards: usize,
        /// What it may use.
        found_mib: usize,
        /// What that many need.
        needed_mib: usize,
    },
}

/// A running worker. Dropping it does not stop it: [`Runtime::stop`], then [`Runtime::join`].
pub struct Runtime {
    events: Sender<Event>,
    status: Arc<Status>,
    /// Asks the executors for checkpoints. They end only once this is dropped.
    checkpoint: TakeCheckpoints,
    prefetcher: Arc<Prefetcher>,
    coordinator: JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Runtime {
    /// Starts all threads; shards are claimed in the background, as [`Runtime::status`] tells. The journal is there: [`ensure_journal`].
    pub fn start<L: Log, P: Pipeline + 'static>(engine: Engine<L, P>, options: RuntimeOptions) -> Result<Self, RuntimeError> {
        std::fs::create_dir_all(&options.state_dir)
            .map_err(|error| RuntimeError::Folder { path: options.state_dir.display().to_string(), reason: error.to_string() })?;
        let budget = options.budget()?;
        // What is missing is better said before anything runs.
        engine.log.describe()?;
        let memory = SharedMemory::new(budget.database_bytes, 2)?.with_lifetimes(options.lifetimes.clone());
        let status = Arc::new(Status::default());
        let (events, inbox) = unbounded();
        let (clock, watchdog) = (Arc::<Clock>::default(), Arc::new(Watchdog::new(status.clone())));
        let log = Watched::new(engine.log.clone(), watchdog.clone());
        let (orders, committer) = committer::start(engine.log.clone(), clock.clone(), watchdog, status.clone(), events.clone());
        let (helper_tasks, mut threads) = helpers::start("helper", 4);
        let (snapshot_tasks, snapshotters) = helpers::start("snapshot", options.checkpoints_concurrent.max(1));
        threads.push(committer);
        threads.extend(snapshotters);
        let pressure = Arc::new(Pressure::new(options.memory_bytes_max, budget.epoch_bytes.min(options.epoch_bytes_max)));
        threads.push(pressure.watch(options.give_back));
        let shared = Arc::new(Shared {
            log: log.clone(),
            helpers: helper_tasks.clone(),
            clock: clock.clone(),
            status: status.clone(),
            events: events.clone(),
            snapshots: Snapshots::<RocksState>::new(
                engine.store.clone(),
                options.state_dir.clone(),
                Pace { interval: options.checkpoint_interval, pause: options.checkpoint_pause },
                options.garbage_grace,
                status.clone(),
                events.clone(),
                snapshot_tasks,
            ),
            pressure,
        });
        let mut executors = Vec::new();
        for number in 0..options.executors.max(1) {
            let (commands, thread) = executor::start(number, shared.clone());
            executors.push(commands);
            threads.push(thread);
        }
        let checkpoint = checkpoint_by(executors.clone());
        let (marks, objects) = (engine.store.clone(), engine.store.clone());
        let turns = Arc::<Turns>::default();
        let restores = Arc::new(Restores { log: log.clone(), engine, options: options.clone(), memory, status: status.clone() });
        let prefetcher = restores.prefetcher(turns.clone());
        let coordinator = Coordinator {
            worker: Worker::new(options.worker.clone(), IncarnationNames::new(options.process.clone())),
            log: log.clone(),
            clock,
            status: status.clone(),
            events: events.clone(),
            inbox,
            orders,
            executors,
            helpers: helper_tasks,
            manifests: Arc::new(move |shard| Ok(newest_mark(&*marks, shard)?)),
            deleter: Arc::new(move |keys: &[String]| objects.delete(keys).map_err(|error| error.to_string())),
            restorer: restorer(restores, turns.clone(), budget.cache_bytes),
            turns,
            prefetcher: prefetcher.clone(),
        };
        let thread = std::thread::Builder::new().name("coordinator".into()).spawn(move || coordinator.run());
        let coordinator = thread.expect("the system refuses a thread at the start");
        let (rule, shards) = options.assignment;
        let _ = events.send(Event::Assigned(rule, shards));
        Ok(Self { events, status, checkpoint, prefetcher, coordinator, threads })
    }

    /// Has a checkpoint taken, of the given epoch or later, of each of these shards that runs here and has none that counts and none on its
    /// way; work goes on. [`Runtime::status`] tells when it counts: `checkpoint` is then so new, or `checkpoint_failures` has grown.
    pub fn checkpoint(&self, wanted: BTreeMap<ShardId, Epoch>) {
        (self.checkpoint)(wanted);
    }

    /// What is known of the shards.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Gives it other shards while it runs, under a version that an operator decided on. Those that it has and that are not among them are
    /// released.
    pub fn assigner(&self) -> Assigner {
        let events = self.events.clone();
        Box::new(move |version, shards| drop(events.send(Event::Assigned(VersionRule::Exactly(version), shards))))
    }

    /// [`Runtime::checkpoint`] of all shards as they are now, for somebody who may outlive this worker, and then asks nobody.
    pub fn checkpointer(&self) -> Checkpoints {
        let (checkpoint, status) = (Arc::downgrade(&self.checkpoint), self.status.clone());
        Box::new(move || {
            if let Some(checkpoint) = checkpoint.upgrade() {
                checkpoint(status.shards().into_iter().map(|(shard, status)| (shard, status.epoch)).collect());
            }
        })
    }

    /// What prepares shards that others own, so that to take them over costs next to nothing.
    pub fn prefetcher(&self) -> Arc<Prefetcher> {
        self.prefetcher.clone()
    }

    /// Finishes the open epochs and releases all shards; [`Runtime::join`] waits for it.
    pub fn stop(&self) {
        let _ = self.events.send(Event::Stop);
    }

    /// Whether all shards are released and the threads are ending.
    pub fn is_over(&self) -> bool {
        self.coordinator.is_finished()
    }

    /// Waits for the end. `Err` is the text of a panic: a bug.
    pub fn join(self) -> Result<(), String> {
        let text = |panic: Box<dyn std::any::Any + Send>| helpers::panic_text(&*panic);
        let Self { events, checkpoint, prefetcher, coordinator, threads, .. } = self;
        coordinator.join().map_err(text)?;
        prefetcher.end();
        drop((events, checkpoint));
        for thread in threads {
            thread.join().map_err(text)?;
        }
        Ok(())
    }
}

type TakeCheckpoints = Arc<dyn Fn(BTreeMap<ShardId, Epoch>) + Send + Sync>;

/// Has each executor take checkpoints of those of the shards that it has.
fn checkpoint_by<P: Pipeline + 'static>(executors: Vec<Sender<executor::Command<P, RocksState>>>) -> TakeCheckpoints {
    Arc::new(move |wanted| {
        let wanted = Arc::new(wanted);
        executors.iter().for_each(|executor| drop(executor.send(executor::Command::Checkpoint(wanted.clone()))));
    })
}

/// Makes the journal where it is not there, and checks it where it is. A cluster that has just started, or is busy, may let the first request for a topic
/// time out; the request itself may have succeeded.
pub fn ensure_journal<L: Log>(log: &L) -> Result<(), LogError> {
    const ATTEMPTS: usize = 3;
    for _ in 1..ATTEMPTS {
        match log.ensure_journal() {
            Err(error @ LogError::Unavailable { .. }) => tracing::warn!(%error, "the journal topic is asked for again"),
            other => return other,
        }
    }
    log.ensure_journal()
}

/// Code, threads, compiled expressions, the clients of log and object store.
const PROGRAM_BYTES: usize = 160 << 20;

/// Below this an epoch has hardly more records than commits have overhead.
const EPOCH_BYTES_MIN: usize = 64 << 10;

/// How the memory of a worker is shared out (I9).
struct Budget {
    database_bytes: usize,
    cache_bytes: usize,
    epoch_bytes: usize,
}

impl Budget {
    /// The program itself takes [`PROGRAM_BYTES`]. Of the rest a quarter is for the databases: write buffers that are large save more work than
    /// anything else. An eighth is for decoded state, and a ninth for what one epoch of every shard counts as its own. That stands for three times as
    /// much, since two epochs of a shard are in memory at once, each with its changes encoded, and a producer holds a copy of one. What is left is
    /// for the log's buffers, and for the allocator, which takes a quarter to a third more than it gives (all measured in a drain of the workload
    /// `action`: twice the epochs cost a third less of the broker's time and 6% less of the client's; a sixth for decoded state saves nothing more).
    fn of(bytes: usize, shards: usize) -> Result<Self, RuntimeError> {
        let shards = shards.max(1);
        let rest = bytes - PROGRAM_BYTES.min(bytes / 3);
        // 16 MiB are about 100 ms of a shard at full speed; larger epochs gain nothing.
        let epoch_bytes = (rest / 9 / shards).min(16 << 20);
        if epoch_bytes < EPOCH_BYTES_MIN {
            let needed_mib = (PROGRAM_BYTES + shards * 9 * EPOCH_BYTES_MIN).div_ceil(1 << 20);
            return Err(RuntimeError::Memory { shards, found_mib: bytes >> 20, needed_mib });
        }
        Ok(Self { database_bytes: (rest / 4).max(forebay_state::MEMORY_BYTES_MIN), cache_bytes: rest / 8 / shards, epoch_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_out_is_there_however_many_shards_there_are() {
        for mib in [256, 512, 1024, 8192, 65_536] {
            for shards in [1, 4, 64, 304, 1024] {
                let bytes = mib << 20;
                let rest = bytes - PROGRAM_BYTES.min(bytes / 3);
                match Budget::of(bytes, shards) {
                    Ok(Budget { database_bytes, cache_bytes, epoch_bytes }) => {
                        let held = database_bytes + shards * (cache_bytes + 3 * epoch_bytes);
                        // What is left is a quarter for the allocator and the log's buffers.
                        assert!(held <= rest * 3 / 4, "{shards} shards on {mib} MiB hold {held} of {rest} bytes");
                    }
                    Err(error) => assert!(rest / 9 / shards < EPOCH_BYTES_MIN, "{error}"),
                }
            }
        }
        let error = Budget::of(512 << 20, 1024).map(|budget| budget.epoch_bytes).unwrap_err().to_string();
        assert!(error.starts_with("1024 shards in one process need 736 MiB of memory, and it may use 512"), "{error}");
        assert!(Budget::of(736 << 20, 1024).is_ok());
        assert!(Budget::of(256 << 20, 64).is_ok());
    }
}
