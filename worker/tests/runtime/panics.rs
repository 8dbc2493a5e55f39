//! Promise: a panic ends no more than its shard's attempt. The others on the same thread go on, under the same incarnation, and the shard comes back
//! with all its records, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use forebay_engine::ids::{OutputId, Partition, ShardId, TableId, Timestamp};
use forebay_engine::log::{InputReader, StartFrom};
use forebay_engine::pipeline::{Entity, Pipeline, Verdict, Workspace};
use forebay_engine::record::{Destination, InputRecord};
use forebay_engine::state::StateError;
use forebay_engine::worker::Report;
use forebay_local::{FolderStore, LogFolder, NewRecord};
use forebay_worker::runtime::ensure_journal;
use forebay_worker::status::{ShardStatus, Status};
use forebay_worker::{Engine, Runtime, RuntimeOptions};

use crate::gates::Gate;
use crate::support::{end, log_of, options, until};

/// The one that panics. It comes first on the thread.
const FRAIL: ShardId = ShardId::new(0);
const SOUND: ShardId = ShardId::new(1);

const TABLE: TableId = TableId::new(1);

/// Panics at the last of so many steps, and never again. One thread burns it.
#[derive(Default)]
struct Fuse(AtomicU32);

impl Fuse {
    fn light(&self, steps: u32) {
        self.0.store(steps, Ordering::SeqCst);
    }

    fn burn(&self) {
        let steps = self.0.load(Ordering::SeqCst);
        self.0.store(steps.saturating_sub(1), Ordering::SeqCst);
        assert!(steps != 1, "told to");
    }
}

/// Where a shard may panic.
#[derive(Clone, Default)]
struct Fuses {
    /// A record is in the middle of the pipeline.
    record: Arc<Fuse>,
    /// An epoch is being sealed.
    seal: Arc<Fuse>,
}

/// How many records there were.
#[derive(Clone)]
struct Count {
    records: u64,
    seal: Arc<Fuse>,
}

impl Entity for Count {
    fn encode(&self, into: &mut Vec<u8>) {
        self.seal.burn();
        into.extend(self.records.to_be_bytes());
    }
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let records: [u8; 8] = bytes.try_into().map_err(|_| format!("{bytes:?} is no number"))?;
        Ok(Self { records: u64::from_be_bytes(records), seal: Arc::default() })
    }
    fn weight(&self) -> usize {
        0
    }
}

/// Counts records, and puts each count out.
struct Counting(Fuses);

impl Pipeline for Counting {
    type Entity = Count;

    fn process(&mut self, record: &InputRecord<'_>, workspace: &mut Workspace<'_, Count>) -> Result<Verdict, StateError> {
        let count = workspace.update(TABLE, b"k")?;
        let records = count.as_ref().map_or(0, |count| count.records) + 1;
        *count = Some(Count { records, seal: self.0.seal.clone() });
        self.0.record.burn();
        let to = Destination { output: OutputId::new(0), partition: Some(record.partition), timestamp: record.timestamp, key: None };
        workspace.outputs().push(to, Some(&records.to_be_bytes()), &[]);
        Ok(Verdict::Processed)
    }
}

/// Method: the third record of a batch panics, when it has changed the state and before its output.
#[test]
fn a_shard_that_panics_in_a_record_harms_no_other_and_comes_back() {
    panic_by(|fuses| fuses.record.light(3));
}

/// Method: the encoding of what an epoch has changed panics, in a round that the other shard may be a part of.
#[test]
fn a_shard_that_panics_while_it_seals_harms_no_other_and_comes_back() {
    panic_by(|fuses| fuses.seal.light(1));
}

/// Two shards on one thread have committed when the first one panics. It is not let back before the other one has committed what came before that
/// and after it.
fn panic_by(light: impl FnOnce(&Fuses)) {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open(&dir.path().join("log")).unwrap();
    folder.create_topic("in", 2).unwrap();
    produce(&folder, &[(FRAIL, 10), (SOUND, 10)]);
    let (fuses, restores) = (Fuses::default(), Arc::<Gate>::default());
    let runtime = start(dir.path(), fuses.clone(), restores.clone());
    let status = runtime.status().clone();
    until_committed(&status, FRAIL, 10);
    let before = until_committed(&status, SOUND, 10);
    let restored = status.counters.restores.load(Ordering::Relaxed);

    restores.set_closed(true);
    light(&fuses);
    produce(&folder, &[(FRAIL, 5), (SOUND, 5)]);
    restores.wait_until_somebody_waits();
    produce(&folder, &[(FRAIL, 5), (SOUND, 5)]);
    let sound = until_committed(&status, SOUND, 20);
    assert!(sound.began == before.began && sound.failure.is_none(), "it has been harmed: {sound:?}");
    let frail = status.shards().remove(&FRAIL).unwrap();
    assert_eq!((frail.phase, frail.books.records_in), ("restoring", 10), "{frail:?}");
    assert_eq!(frail.failure.as_deref(), Some("shard 0 panicked: told to"));

    restores.set_closed(false);
    let back = until_committed(&status, FRAIL, 20);
    assert_eq!(back.failure, None);
    assert_eq!(failures(&status), [(FRAIL, "shard 0 panicked: told to".to_owned())]);
    assert_eq!(status.counters.incarnations_over.load(Ordering::Relaxed), 0, "the producer has nothing to do with it");
    assert_eq!(status.counters.restores.load(Ordering::Relaxed), restored + 1);
    end(runtime);
    let all: Vec<u64> = (1..=20).collect();
    assert_eq!(outputs(&folder), BTreeMap::from([(FRAIL.get(), all.clone()), (SOUND.get(), all)]));
}

/// A worker with both shards on one thread. Each restore of the frail one passes the gate.
fn start(dir: &Path, fuses: Fuses, restores: Arc<Gate>) -> Runtime {
    let log = log_of(dir, 2);
    let store = Arc::new(FolderStore::open(&dir.join("store")).unwrap());
    let pipeline = move |shard: ShardId| {
        if shard == SOUND {
            return Counting(Fuses::default());
        }
        restores.pass();
        Counting(fuses.clone())
    };
    let usual = options(dir, "p");
    let assignment = (usual.assignment.0, BTreeSet::from([FRAIL, SOUND]));
    let both = RuntimeOptions { assignment, shards: 2, executors: 1, ..usual };
    ensure_journal(&log).unwrap();
    Runtime::start(Engine { log: Arc::new(log), store, pipeline: Arc::new(pipeline) }, both).unwrap()
}

/// Puts so many records into the partition of each of the shards; they are seen together.
fn produce(folder: &LogFolder, records: &[(ShardId, usize)]) {
    let mut writer = folder.writer("in").unwrap();
    for (shard, count) in records {
        let partition = Some(Partition::new(shard.get()));
        let record = NewRecord { partition, timestamp: Timestamp::from_millis(1), key: Some(b"k"), value: Some(b"v"), headers: &[] };
        (0..*count).for_each(|_| writer.push(&record).unwrap());
    }
    writer.finish().unwrap();
}

fn until_committed(status: &Status, shard: ShardId, records: u64) -> ShardStatus {
    let is_at_rest = |shard: &ShardStatus| shard.phase == "running" && shard.uncommitted_records == 0;
    until(&format!("{records} records of shard {shard} are committed"), || match status.shards().remove(&shard) {
        Some(found) if is_at_rest(&found) && found.books.records_in == records => Ok(found),
        other => Err(Box::new(other)),
    })
}

/// The failures of shards that were reported.
fn failures(status: &Status) -> Vec<(ShardId, String)> {
    let failure = |report: Report| match report {
        Report::Failed(shard, reason) | Report::Stalled(shard, reason) => Some((shard, reason)),
        _ => None,
    };
    status.take_reports().into_iter().filter_map(failure).collect()
}

/// What was put out, by partition.
fn outputs(folder: &LogFolder) -> BTreeMap<u32, Vec<u64>> {
    let mut reader = folder.consume("out", StartFrom::Earliest, "nobody").unwrap();
    let mut counts: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut take = |record: &InputRecord<'_>| {
        let count: [u8; 8] = record.value.unwrap().try_into().unwrap();
        counts.entry(record.partition.get()).or_default().push(u64::from_be_bytes(count));
    };
    while reader.poll(Duration::ZERO, 100, &mut take).unwrap() > 0 {}
    counts
}
