//! When to take checkpoints, and taking them on helper threads while the shards go on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use forebay_engine::ids::{Epoch, Incarnation, ShardId};
use forebay_engine::manifest::{Manifest, RetainedCheckpoint};
use forebay_engine::pipeline::Pipeline;
use forebay_engine::shard::Shard;
use forebay_engine::snapshot::{ChecksumFile, KnownFiles, PACKED_BYTES_MAX, SnapshotError, Upload, find_garbage};
use forebay_engine::state::{Checkpointer, StateError, StateStore};
use forebay_engine::store::{ObjectStore, StoreError};
use forebay_engine::worker::{Attempt, Event};

use crate::helpers::Task;
use crate::restorer::{checksum, read_manifest};
use crate::status::{Counters, Status};

/// Objects named as garbage in one epoch: keeps its journal record small; the rest is found with the next checkpoint.
const GARBAGE_MAX: usize = 500;

/// The part of an interval that a shard has to itself when it has come.
const CATCH_UP_SHARE: u32 = 8;

/// How often checkpoints are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From the start of one to the start of the next.
    pub interval: Duration,
    /// At least so long from the end of one to the start of the next.
    pub pause: Duration,
}

impl Pace {
    /// When the next one is due after one that began and ended then.
    fn next(self, began: Instant, ended: Instant) -> Instant {
        (began + self.interval).max(ended + self.pause)
    }
}

/// Shared by the executors of a worker.
pub(crate) struct Snapshots<S> {
    inner: Arc<Inner>,
    _store: std::marker::PhantomData<fn(S)>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    state_dir: PathBuf,
    pace: Pace,
    garbage_grace: Duration,
    status: Arc<Status>,
    events: Sender<Event>,
    tasks: Sender<Task>,
    shards: Mutex<BTreeMap<ShardId, Due>>,
}

struct Due {
    at: Instant,
    began: Instant,
    running: bool,
    attempt: Attempt,
    /// Records in the books of this attempt's last checkpoint, or of one that was there: without further ones there is nothing new to save.
    saved_records: Option<u64>,
    /// Checksums of the files of the database that is open now, by name: a table file's name is used once in a database's life.
    checksums: BTreeMap<String, u32>,
}

impl<S: StateStore> Snapshots<S> {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        state_dir: PathBuf,
        pace: Pace,
        garbage_grace: Duration,
        status: Arc<Status>,
        events: Sender<Event>,
        tasks: Sender<Task>,
    ) -> Self {
        let inner = Inner { store, state_dir, pace, garbage_grace, status, events, tasks, shards: Mutex::default() };
        Self { inner: Arc::new(inner), _store: std::marker::PhantomData }
    }

    /// An epoch of the shard was committed and applied: takes a checkpoint if one is due and none is on its way.
    pub(crate) fn committed<P: Pipeline>(&self, shard: ShardId, attempt: Attempt, state: &Shard<P, S>) {
        self.take_if(shard, attempt, state, Want::Epoch, |due| Instant::now() >= due.at);
    }

    /// The shard has nothing to do: takes a checkpoint if one is due and there is something new to save. Without it a shard whose records have run
    /// out would keep all since its last checkpoint in its journal alone, until the next record comes.
    pub(crate) fn idle<P: Pipeline>(&self, shard: ShardId, attempt: Attempt, state: &Shard<P, S>) {
        let records = state.head().books.records_in;
        self.take_if(shard, attempt, state, Want::Records, |due| Instant::now() >= due.at && due.saved_records != Some(records));
    }

    /// Somebody wants a checkpoint now, of this epoch or later: takes one unless there is one that counts, or one is on its way.
    pub(crate) fn asked<P: Pipeline>(&self, shard: ShardId, attempt: Attempt, state: &Shard<P, S>, epoch: Epoch) {
        let newest = state.head().retained.last().map(|checkpoint| checkpoint.epoch);
        self.take_if(shard, attempt, state, Want::Epoch, |_| newest < Some(epoch));
    }

    fn take_if<P: Pipeline>(&self, shard: ShardId, attempt: Attempt, state: &Shard<P, S>, want: Want, is_due: impl FnOnce(&Due) -> bool) {
        let mut shards = self.inner.lock();
        let due = shards.entry(shard).or_insert_with(|| Due {
            at: Instant::now() + first_wait(self.inner.pace.interval, shard).max(self.inner.pace.interval / CATCH_UP_SHARE),
            began: Instant::now(),
            running: false,
            attempt,
            saved_records: None,
            checksums: BTreeMap::new(),
        });
        if due.attempt != attempt {
            (due.attempt, due.saved_records) = (attempt, None);
            due.checksums.clear();
            // It has just come, perhaps not for the first time here, and has records to catch up with.
            due.at = due.at.max(Instant::now() + self.inner.pace.interval / CATCH_UP_SHARE);
        }
        if due.running || !is_due(due) {
            return;
        }
        (due.running, due.began) = (true, Instant::now());
        let job = Job {
            shard,
            attempt,
            want,
            incarnation: state.head().owner.incarnation.clone(),
            retained: state.head().retained.clone(),
            checksums: std::mem::take(&mut due.checksums),
        };
        let (inner, checkpointer) = (self.inner.clone(), state.checkpointer());
        let _ = self.inner.tasks.send(Box::new(move || inner.take(job, checkpointer)));
    }
}

/// What makes a checkpoint worth its while.
#[derive(Clone, Copy)]
enum Want {
    /// An epoch that the newest one does not hold.
    Epoch,
    /// Records that it does not hold: the epochs that say which checkpoints count have none, and would never let a shard come to rest.
    Records,
}

struct Job {
    shard: ShardId,
    attempt: Attempt,
    want: Want,
    incarnation: Incarnation,
    retained: Vec<RetainedCheckpoint>,
    checksums: BTreeMap<String, u32>,
}

/// What came of it: how many records are in the books of the newest checkpoint now, and what was found when it was uploaded.
enum Outcome {
    Uploaded { records: u64, named: Vec<RetainedCheckpoint>, garbage: Vec<String> },
    NothingNew { records: u64 },
}

#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Self::Snapshot(error.into())
    }
}

impl Inner {
    fn take(&self, mut job: Job, checkpointer: Checkpointer) {
        let (shard, attempt) = (job.shard, job.attempt);
        let folder = self.state_dir.join(format!("checkpoint-{shard}-{}", uuid::Uuid::new_v4().simple()));
        tracing::debug!(%shard, "checkpoint begins");
        let outcome = self.upload(&mut job, checkpointer, &folder);
        let saved = match &outcome {
            Ok(Outcome::Uploaded { records, .. } | Outcome::NothingNew { records }) => Some(*records),
            Err(_) => None,
        };
        tracing::debug!(%shard, taken = outcome.is_ok(), "checkpoint ends");
        let _ = std::fs::remove_dir_all(&folder);
        match outcome {
            Ok(Outcome::Uploaded { named, garbage, .. }) => {
                Counters::add(&self.status.counters.checkpoints, 1);
                let _ = self.events.send(Event::GarbageFound(shard, attempt, named, garbage));
            }
            Ok(Outcome::NothingNew { .. }) => {}
            Err(error) => {
                Counters::add(&self.status.counters.checkpoint_failures, 1);
                self.status.update_if_there(shard, |status| status.checkpoint_failures += 1);
                tracing::warn!(%shard, %error, "no checkpoint was taken; work goes on and the journal grows until one succeeds");
            }
        }
        let mut shards = self.lock();
        if let Some(due) = shards.get_mut(&shard) {
            due.running = false;
            due.at = self.pace.next(due.began, Instant::now());
            if due.attempt == attempt {
                due.checksums = job.checksums;
                due.saved_records = saved.or(due.saved_records);
            }
        }
    }

    fn upload(&self, job: &mut Job, checkpointer: Checkpointer, folder: &Path) -> Result<Outcome, JobError> {
        let began = Instant::now();
        let checkpoint = checkpointer(folder)?;
        self.status.update_if_there(job.shard, |status| status.cut = Some((checkpoint.stamp.epoch, began)));
        let records = checkpoint.stamp.books.records_in;
        let mut listed = Vec::new();
        let mut all_known = true;
        for retained in &job.retained {
            match read_manifest(&*self.store, job.shard, retained) {
                Ok(manifest) => listed.push(manifest),
                // What it names is not known, so nothing may be called garbage; the checkpoint itself is none the worse.
                Err(StoreError::NotFound { .. }) => all_known = false,
                Err(error) => return Err(error.into()),
            }
        }
        let is_there = |newest: &Manifest| match job.want {
            Want::Epoch => newest.stamp.epoch == checkpoint.stamp.epoch,
            Want::Records => newest.stamp.books.records_in == records,
        };
        if listed.last().is_some_and(is_there) {
            return Ok(Outcome::NothingNew { records });
        }
        tracing::debug!(shard = %job.shard, "upload begins");
        let known = listed.last().map(KnownFiles::of).unwrap_or_default();
        let mut checksum = CachedChecksums { known: &mut job.checksums };
        let mut unique = || uuid::Uuid::new_v4().simple().to_string();
        let upload = Upload {
            store: &*self.store,
            checksum: &mut checksum,
            known: &known,
            taken_by: &job.incarnation,
            unique: &mut unique,
            packed_bytes_max: PACKED_BYTES_MAX,
        };
        let manifest = upload.run(folder, &checkpoint)?;
        job.checksums.retain(|name, _| checkpoint.files.iter().any(|file| file.name == *name));
        let retained = manifest.retained();
        tracing::info!(shard = %job.shard, epoch = %retained.epoch, files = manifest.files.len(), "checkpoint uploaded");
        let _ = self.events.send(Event::CheckpointUploaded(job.shard, job.attempt, retained));
        if !all_known {
            return Ok(Outcome::Uploaded { records, named: Vec::new(), garbage: Vec::new() });
        }
        listed.push(manifest);
        let garbage = find_garbage(&*self.store, job.shard, &listed, self.garbage_grace, GARBAGE_MAX)?;
        Ok(Outcome::Uploaded { records, named: listed.iter().map(Manifest::retained).collect(), garbage })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ShardId, Due>> {
        self.shards.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// How long a shard's first checkpoint waits. Multiples of the golden ratio lie evenly in the interval, however many shards there are: those of a
/// worker neither flush nor upload at once.
fn first_wait(interval: Duration, shard: ShardId) -> Duration {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    interval.mul_f64((f64::from(shard.get() + 1) * GOLDEN).fract())
}

struct CachedChecksums<'a> {
    known: &'a mut BTreeMap<String, u32>,
}

impl ChecksumFile for CachedChecksums<'_> {
    fn crc32(&mut self, path: &Path) -> Result<u32, String> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(crc32) = self.known.get(&name) {
            return Ok(*crc32);
        }
        let crc32 = checksum(path).map_err(|error| error.to_string())?;
        if name.ends_with(".sst") {
            self.known.insert(name, crc32);
        }
        Ok(crc32)
    }
}

#[cfg(test)]
pub(crate) mod tests;
