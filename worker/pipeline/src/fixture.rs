//! Runs a pipeline on a list of records: no log, no disk, no clock. For `forebay test`, and for tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use forebay_crds::pipeline::Step;
use forebay_engine::ids::{
    AssignmentVersion, Epoch, Incarnation, InputId, JournalOffset, Offset, OutputId, Partition, Revision, ShardId, TableId, Timeline,
    Timestamp, WorkerName,
};
use forebay_engine::journal::{Books, Owner, Stamp};
use forebay_engine::lifetimes::Lifetimes;
use forebay_engine::partitioner::partition_for_key;
use forebay_engine::pipeline::{Entity, Verdict};
use forebay_engine::record::{Header, InputRecord};
use forebay_engine::shard::{Annotations, Shard, decode_key};
use forebay_engine::state::{Checkpointer, StateBatch, StateError, StateStore};

use crate::compile::{CompileContext, CompiledPipeline, InputContext};
use crate::document::Document;
use crate::instance::PipelineInstance;

/// Enough that no fixture evicts anything.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// Kafka's default for `max.message.bytes`, less the framing of a batch.
pub const RECORD_BYTES_MAX: usize = (1 << 20) - 512;

/// One input record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FixtureRecord {
    /// Which input; the first by default.
    pub input: InputId,
    /// The partition; by the key when it is not given, 0 without a key.
    pub partition: Option<Partition>,
    /// The record's time stamp.
    pub timestamp: Timestamp,
    /// The clock when it is processed; its time stamp when it is not given.
    pub now: Option<Timestamp>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// One output record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixtureOutput {
    /// The topic, as an index into the job's outputs.
    pub output: OutputId,
    /// The partition, where a step decides it.
    pub partition: Option<Partition>,
    /// The time stamp.
    pub timestamp: Timestamp,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct FixtureRun {
    /// What became of each record.
    pub verdicts: Vec<Verdict>,
    /// All outputs in order.
    pub outputs: Vec<FixtureOutput>,
    /// The state at the end, by table and key.
    pub state: BTreeMap<(TableId, Vec<u8>), Document>,
    /// The counts.
    pub books: Books,
}

/// A context for a fixture: ids in the order in which topics and tables come in the manifest, the dead-letter topic last. A job that keeps its
/// state must not use it: its tables' ids outlive a change of the manifest.
pub fn fixture_context(steps: &[Step], inputs: Vec<InputContext>, dead_letter: &str) -> CompileContext {
    let mut outputs = BTreeMap::new();
    let mut tables = BTreeMap::new();
    let number = |len: usize| u16::try_from(len).expect("a manifest has far fewer topics and tables");
    for step in steps {
        for topic in step.output_topics() {
            let id = OutputId::new(number(outputs.len()));
            outputs.entry(topic.to_owned()).or_insert(id);
        }
        if let Some((table, _)) = step.table() {
            let id = TableId::new(number(tables.len()));
            tables.entry(table.to_owned()).or_insert(id);
        }
    }
    let id = OutputId::new(number(outputs.len()));
    let dead_letter = *outputs.entry(dead_letter.to_owned()).or_insert(id);
    let (job, revision) = ("fixture".to_owned(), "fixture".to_owned());
    let (record_bytes_max, timestamp_limits) = (RECORD_BYTES_MAX, Vec::new());
    CompileContext { outputs, tables, dead_letter, inputs, job, revision, template: None, record_bytes_max, timestamp_limits }
}

/// Runs the records in order, each in an epoch of its own. Offsets count from 0 in each partition. `Err` is a bug: the state is in memory.
pub fn run_fixture(pipeline: &Arc<CompiledPipeline>, records: &[FixtureRecord]) -> Result<FixtureRun, StateError> {
    run_fixture_with(pipeline, records, &Lifetimes::default())
}

/// The same, for tables whose entities do not live for ever.
pub fn run_fixture_with(
    pipeline: &Arc<CompiledPipeline>,
    records: &[FixtureRecord],
    lifetimes: &Lifetimes,
) -> Result<FixtureRun, StateError> {
    let owner = owner();
    let instance = PipelineInstance::new(Arc::clone(pipeline));
    let shard = Shard::new(instance, MemoryStore::default(), beginning(owner.clone()), CACHE_BYTES_MAX);
    let mut shard = shard.with_lifetimes(lifetimes.clone());
    let mut run = FixtureRun::default();
    let mut next: BTreeMap<(InputId, Partition), Offset> = BTreeMap::new();
    for record in records {
        let partition = record.partition.unwrap_or_else(|| {
            let partitions = pipeline.context.inputs[usize::from(record.input.get())].partitions;
            record.key.as_deref().map_or(Partition::default(), |key| partition_for_key(key, partitions))
        });
        let offset = next.entry((record.input, partition)).or_default();
        let headers: Vec<_> = record.headers.iter().map(|(name, value)| Header { name, value: value.as_deref() }).collect();
        let input = InputRecord {
            input: record.input,
            partition,
            offset: *offset,
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        *offset = offset.next();
        let now = record.now.unwrap_or(record.timestamp);
        run.verdicts.push(shard.process(&input, now)?);
        let sealed = shard.seal(&owner, now, Annotations::default()).expect("an epoch with a record is sealed");
        run.outputs.extend(sealed.outputs.iter().map(|output| FixtureOutput {
            output: output.output,
            partition: output.partition,
            timestamp: output.timestamp,
            key: output.key.map(<[u8]>::to_vec),
            value: output.value.map(<[u8]>::to_vec),
            headers: output.headers.iter().map(|header| (header.name.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
        }));
        shard.committed(sealed.epoch, JournalOffset::new(sealed.epoch.get()))?;
    }
    run.books = shard.head().books;
    let clock = shard.head().clock;
    for (key, (written, value)) in &shard.into_store().values {
        let corrupt = |reason: String| StateError::Corrupt { action: "read the state of a fixture".into(), reason };
        let (table, _, key) = decode_key(key).ok_or_else(|| corrupt("a key is too short".into()))?;
        if lifetimes.is_over(table, *written, clock) {
            continue;
        }
        run.state.insert((table, key.to_vec()), Document::decode(value).map_err(corrupt)?);
    }
    Ok(run)
}

/// Whoever runs a fixture.
pub fn owner() -> Owner {
    Owner {
        timeline: Timeline::new(0),
        shard: ShardId::new(0),
        worker: WorkerName::new("fixture"),
        incarnation: Incarnation::new("fixture.1"),
        assignment: AssignmentVersion::new(1),
    }
}

/// The stamp of a shard that has processed nothing yet.
pub fn beginning(owner: Owner) -> Stamp {
    Stamp {
        owner,
        epoch: Epoch::default(),
        revision: Revision::new("fixture"),
        clock: Timestamp::default(),
        positions: vec![],
        topic_ids: vec![],
        books: Books::default(),
        retained: vec![],
        garbage: vec![],
        journal: JournalOffset::default(),
    }
}

/// A state store in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    /// With the clock of the epoch that wrote each.
    values: BTreeMap<Vec<u8>, (Timestamp, Vec<u8>)>,
    stamp: Option<Stamp>,
}

impl StateStore for MemoryStore {
    fn get_written(&self, key: &[u8], into: &mut Vec<u8>) -> Result<Option<Timestamp>, StateError> {
        into.clear();
        Ok(self.values.get(key).map(|(written, value)| {
            into.extend_from_slice(value);
            *written
        }))
    }

    fn apply(&mut self, changes: &StateBatch, stamp: &Stamp) -> Result<(), StateError> {
        for (key, value) in changes.iter() {
            match value {
                Some(value) => self.values.insert(key.to_vec(), (stamp.clock, value.to_vec())),
                None => self.values.remove(key),
            };
        }
        self.stamp = Some(stamp.clone());
        Ok(())
    }

    fn stamp(&self) -> Result<Option<Stamp>, StateError> {
        Ok(self.stamp.clone())
    }

    /// There is nothing on disk to take one of.
    fn checkpointer(&self) -> Checkpointer {
        Box::new(|to: &Path| {
            let action = format!("take a checkpoint into {}", to.display());
            Err(StateError::Io { action, reason: "this state is in memory; run the job with a state folder".into() })
        })
    }
}
