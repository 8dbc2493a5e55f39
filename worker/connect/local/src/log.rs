//! One job's view of the embedded log: the engine's log port.
//!
//! A transaction is one frame, so none is ever open: an uncommitted reader sees what a committed one sees, and nothing has to be aborted.
//! What bars an incarnation is a durable mark that every commit checks.

mod input;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use forebay_engine::ids::{Incarnation, InputId, JournalOffset, ShardId, Timestamp};
use forebay_engine::log::{
    Deadlines, InputPosition, JobTopics, JournalEntry, JournalRange, Log, LogError, Producer, Receipt, StartFrom, TopicInfo, Transaction,
    View,
};
use forebay_engine::partitioner::partition_for_key;
use forebay_engine::record::{OutputRecord, Outputs};

use input::Cursor;
pub use input::LocalInput;

use crate::disk::{self, Change, CommittedOffset, Draft, LogFolder, OpenError, RecordParts, State, TopicNumber};

/// What to open.
#[derive(Clone, Debug)]
pub struct LocalLogOptions {
    /// The log's folder. Jobs may share one, within a process.
    pub dir: PathBuf,
    /// The job's topics.
    pub topics: JobTopics,
    /// Make output topics that are not there, with as many partitions as the first input. Inputs are never made: they come with their
    /// records. The journal is made by `ensure_journal`, whatever this says.
    pub auto_create: bool,
}

/// Why a job's log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LocalLogError {
    /// The folder.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The job's topics: an input is missing, an output could not be made.
    #[error(transparent)]
    Topics(#[from] LogError),
}

/// One job's view of the log in a folder.
#[derive(Clone)]
pub struct LocalLog {
    folder: LogFolder,
    topics: Arc<JobTopics>,
}

/// The producer of one incarnation.
pub struct LocalProducer {
    log: LocalLog,
    transactional_id: String,
    /// Which opening of this transactional id it is: a later one fences it, as in Kafka.
    opening: u64,
    /// After an error nothing is committed any more: the engine takes a new incarnation.
    failed: bool,
    /// Records without a key go to one partition per transaction and shard, so that they stay in order; the next goes to the next.
    keyless: u32,
}

impl LocalLog {
    /// Opens a job's log and, if asked to, makes the outputs that are missing.
    pub fn open(options: LocalLogOptions) -> Result<Self, LocalLogError> {
        let folder = LogFolder::open(&options.dir)?;
        Ok(Self::on(folder, options.topics, options.auto_create)?)
    }

    /// A job's view of a log that is open.
    pub fn on(folder: LogFolder, topics: JobTopics, auto_create: bool) -> Result<Self, LogError> {
        let log = Self { folder, topics: Arc::new(topics) };
        if auto_create {
            log.create_outputs()?;
        }
        Ok(log)
    }

    /// The log itself.
    pub fn folder(&self) -> &LogFolder {
        &self.folder
    }

    fn create_outputs(&self) -> Result<(), LogError> {
        let known = self.folder.topics();
        let is_known = |name: &String| known.iter().any(|topic| topic.name == *name);
        let missing: Vec<_> = self.topics.outputs.iter().filter(|output| !is_known(output)).collect();
        let Some(input) = self.topics.inputs.first().filter(|_| !missing.is_empty()) else { return Ok(()) };
        let input = known.iter().find(|topic| topic.name == *input);
        let input = input.ok_or_else(|| disk::missing_topic("look at the job's topics".to_owned(), &self.topics.inputs[0]))?;
        for output in missing {
            self.folder.create_topic(output, input.partitions)?;
        }
        Ok(())
    }

    fn transactional_id(&self, incarnation: &Incarnation) -> String {
        format!("forebay.{}.{incarnation}", self.topics.uid)
    }

    fn read_journal_action(&self, shard: ShardId) -> String {
        format!("read journal {}-{shard}", self.topics.journal)
    }
}

impl Log for LocalLog {
    type Producer = LocalProducer;
    type Input = LocalInput;

    fn deadlines(&self) -> Deadlines {
        Deadlines::NONE
    }

    fn describe(&self) -> Result<Vec<TopicInfo>, LogError> {
        let known = self.folder.topics();
        let find = |name: &String| known.iter().find(|topic| topic.name == *name).cloned();
        let JobTopics { inputs, outputs, journal, .. } = &*self.topics;
        let mut topics = Vec::with_capacity(inputs.len() + outputs.len() + 1);
        for name in inputs.iter().chain(outputs) {
            topics.push(find(name).ok_or_else(|| disk::missing_topic("look up the job's topics".to_owned(), name))?);
        }
        topics.push(find(journal).unwrap_or_else(|| TopicInfo { name: journal.clone(), id: String::new(), partitions: 0 }));
        Ok(topics)
    }

    fn broken(&self) -> Option<LogError> {
        self.folder.failure()
    }

    fn ensure_journal(&self) -> Result<(), LogError> {
        self.folder.create_topic(&self.topics.journal, self.topics.shards).map(|_| ())
    }

    fn start_positions(&self, input: InputId, from: StartFrom) -> Result<Vec<InputPosition>, LogError> {
        let topic = &self.topics.inputs[usize::from(input.get())];
        self.folder.positions(topic, input, from, &self.topics.group)
    }

    fn open_producer(&self, incarnation: &Incarnation) -> Result<LocalProducer, LogError> {
        let transactional_id = self.transactional_id(incarnation);
        let mut state = self.folder.state();
        if state.is_barred(&transactional_id) {
            return Err(fenced(&format!("open producer {transactional_id}")));
        }
        let opening = state.open_producer(&transactional_id);
        drop(state);
        Ok(LocalProducer { log: self.clone(), transactional_id, opening, failed: false, keyless: 0 })
    }

    fn bar(&self, incarnation: &Incarnation) -> Result<(), LogError> {
        let transactional_id = self.transactional_id(incarnation);
        // A commit that is under way holds the writer's turn: it is whole before this returns, or refused.
        self.folder.append(&format!("bar {transactional_id}"), Draft::default(), |state, draft| {
            if !state.is_barred(&transactional_id) {
                draft.changes.push(Change::Barred { transactional_id: transactional_id.clone() });
            }
            Ok(())
        })?;
        Ok(())
    }

    fn read_journal(
        &self,
        shard: ShardId,
        from: JournalOffset,
        view: View,
        each: &mut dyn FnMut(JournalEntry),
    ) -> Result<JournalRange, LogError> {
        // No transaction is ever open or aborted here, so that all views are the same.
        let (View::Uncommitted | View::CommittedSoFar | View::CommittedToEnd) = view;
        // Says best what is wrong when there is no such journal.
        self.journal_range(shard)?;
        let (folder, journal) = (&self.folder, &self.topics.journal);
        let mut cursor = Cursor::new(folder, journal, shard.get(), from.get(), self.read_journal_action(shard), JOURNAL_WAY_OUT)?;
        let (start, end) = cursor.refresh(&folder.state())?;
        while cursor.next() < end {
            let left = usize::try_from(end - cursor.next()).unwrap_or(usize::MAX);
            cursor.take(folder, left, &mut |record| {
                let bytes = record.value.unwrap_or_default().to_vec();
                each(JournalEntry { offset: JournalOffset::new(record.offset.get()), bytes });
                ControlFlow::Continue(())
            })?;
        }
        Ok(JournalRange { start: JournalOffset::new(start), end: JournalOffset::new(end) })
    }

    fn journal_range(&self, shard: ShardId) -> Result<JournalRange, LogError> {
        let state = self.folder.state();
        let name = &self.topics.journal;
        let missing = || LogError::Missing {
            action: self.read_journal_action(shard),
            what: format!("journal {name}-{shard}"),
            way_out: "it is made when a job starts for the first time; if it was deleted, restore from a savepoint".to_owned(),
        };
        let (_, topic) = state.topic(name).ok_or_else(missing)?;
        let index = topic.partitions.get(shard.get() as usize).ok_or_else(missing)?;
        Ok(JournalRange { start: JournalOffset::new(index.start), end: JournalOffset::new(index.next) })
    }

    fn journal_ends(&self, shards: &[ShardId]) -> Result<Vec<JournalOffset>, LogError> {
        shards.iter().map(|shard| self.journal_range(*shard).map(|range| range.end)).collect()
    }

    fn cut_journal(&self, shard: ShardId, before: JournalOffset) -> Result<(), LogError> {
        let journal = &self.topics.journal;
        self.folder.cut(&format!("cut journal {journal}-{shard} before {before}"), journal, shard.get(), before.get())
    }

    fn open_input(&self, _shard: ShardId, positions: &[InputPosition]) -> Result<LocalInput, LogError> {
        LocalInput::open(&self.folder, &self.topics.inputs, positions)
    }
}

impl Producer for LocalProducer {
    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, LogError> {
        let action = format!("commit as {}", self.transactional_id);
        if self.failed {
            let reason = "an earlier commit of this producer failed; a new incarnation is needed".to_owned();
            return Err(LogError::Unavailable { action, reason });
        }
        let receipt = self.try_commit(&action, transaction);
        // Once fenced it stays fenced, and says so each time.
        self.failed = matches!(receipt, Err(ref error) if !matches!(error, LogError::Fenced { .. }));
        receipt
    }
}

impl LocalProducer {
    fn try_commit(&mut self, action: &str, transaction: &Transaction) -> Result<Receipt, LogError> {
        let topics = Arc::clone(&self.log.topics);
        let targets = Targets::find(&self.log.folder.state(), &topics);
        let mut draft = Draft::default();
        for outputs in &transaction.outputs {
            self.draft_outputs(&mut draft, action, &targets, outputs)?;
        }
        let journal = if transaction.journal.is_empty() { None } else { Some(targets.journal(action, &topics)?) };
        for (shard, chunks) in &transaction.journal {
            let (number, partitions) = journal.expect("it was looked up because there are journal records");
            if shard.get() >= partitions {
                return Err(disk::missing_partition(action, &topics.journal, shard.get()));
            }
            for chunk in chunks {
                let record = RecordParts { timestamp: now(), key: None, value: Some(chunk) };
                disk::check_record(|| action.to_owned(), &topics.journal, &record, &[])?;
                draft.push(number, shard.get(), &record, &[]);
            }
        }
        let offsets = targets.offsets(action, &topics, &transaction.offsets)?;
        if !offsets.is_empty() {
            draft.changes.push(Change::OffsetsCommitted { group: topics.group.clone(), offsets });
        }
        let batches = self.log.folder.append(action, draft, |state, _| {
            if state.may_commit(&self.transactional_id, self.opening) { Ok(()) } else { Err(fenced(action)) }
        })?;
        let mut receipt = Receipt::default();
        for batch in batches.iter().filter(|batch| journal.is_some_and(|(number, _)| batch.number == number)) {
            let shard = ShardId::new(batch.partition);
            let first = transaction.journal.iter().find(|(of, chunks)| *of == shard && !chunks.is_empty());
            let chunks = first.map_or(0, |(_, chunks)| chunks.len() as u64);
            receipt.journal.entry(shard).or_insert((JournalOffset::new(batch.base), JournalOffset::new(batch.base + chunks)));
        }
        Ok(receipt)
    }

    fn draft_outputs(&mut self, draft: &mut Draft, action: &str, targets: &Targets, outputs: &Outputs) -> Result<(), LogError> {
        self.keyless = self.keyless.wrapping_add(1);
        for record in outputs.iter() {
            let OutputRecord { output, partition, timestamp, key, value, headers } = record;
            let name = &self.log.topics.outputs[usize::from(output.get())];
            let (number, partitions) =
                targets.outputs[usize::from(output.get())].ok_or_else(|| disk::missing_topic(action.to_owned(), name))?;
            let partition = match (partition, key) {
                (Some(partition), _) if partition.get() < partitions => partition.get(),
                (Some(partition), _) => return Err(disk::missing_partition(action, name, partition.get())),
                (None, Some(key)) => partition_for_key(key, partitions).get(),
                (None, None) => self.keyless % partitions,
            };
            let record = RecordParts { timestamp, key, value };
            disk::check_record(|| action.to_owned(), name, &record, &headers)?;
            draft.push(number, partition, &record, &headers);
        }
        Ok(())
    }
}

/// A topic's number and how many partitions it has; `None` when it is not there.
type Target = Option<(TopicNumber, u32)>;

/// The job's topics as a commit finds them.
struct Targets {
    inputs: Vec<Target>,
    outputs: Vec<Target>,
    journal: Target,
}

impl Targets {
    fn find(state: &State, topics: &JobTopics) -> Self {
        let find = |name: &String| state.topic(name).map(|(number, topic)| (number, topic.partitions.len() as u32));
        Self {
            inputs: topics.inputs.iter().map(find).collect(),
            outputs: topics.outputs.iter().map(find).collect(),
            journal: find(&topics.journal),
        }
    }

    fn journal(&self, action: &str, topics: &JobTopics) -> Result<(TopicNumber, u32), LogError> {
        self.journal.ok_or_else(|| LogError::Missing {
            action: action.to_owned(),
            what: format!("journal {}", topics.journal),
            way_out: "it is made when a job starts for the first time; if it was deleted, restore from a savepoint".to_owned(),
        })
    }

    fn offsets(&self, action: &str, topics: &JobTopics, positions: &[InputPosition]) -> Result<Vec<CommittedOffset>, LogError> {
        let mut offsets = BTreeMap::new();
        for position in positions {
            let input = usize::from(position.input.get());
            let (number, _) = self.inputs[input].ok_or_else(|| disk::missing_topic(action.to_owned(), &topics.inputs[input]))?;
            offsets.insert((number, position.partition.get()), position.next.get());
        }
        Ok(offsets.into_iter().map(|((number, partition), next)| (number, partition, next)).collect())
    }
}

const JOURNAL_WAY_OUT: &str = "only a checkpoint that the journal still follows can be restored, or a savepoint";

fn fenced(action: &str) -> LogError {
    LogError::Fenced { action: action.to_owned() }
}

/// Journal records have a time stamp for people who look at them; nothing depends on it.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
