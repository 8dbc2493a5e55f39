//! The log port: Kafka, or the embedded log on local disk. Input records, outputs, offsets and the journal all lie in it, and one
//! transaction carries all that an epoch puts there.
//!
//! Calls block and have deadlines of their own; [`Deadlines`] says those of calls that are given up when they do not keep them. After **any** error
//! of a [`Producer`] its owner drops it, takes a new incarnation and claims its shards again: the outcome of the last transaction is learnt from the journals, never guessed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, InputId, JournalOffset, Offset, Partition, ShardId, Timestamp};
use crate::record::{InputRecord, Outputs};

/// The topics of one job, as the log adapter needs to know them.
#[derive(Clone, Debug)]
pub struct JobTopics {
    /// The job's uid: part of every transactional id, `forebay.<uid>.<incarnation>`.
    pub uid: String,
    /// Input topics; [`InputId`] is the index.
    pub inputs: Vec<String>,
    /// Output topics, the dead-letter topic included; `OutputId` is the index.
    pub outputs: Vec<String>,
    /// The journal topic: one partition per shard.
    pub journal: String,
    /// The consumer group whose offsets are kept equal to the journal's, for everybody's tools.
    pub group: String,
    /// The number of shards; input partition `p` belongs to shard `p mod shards`.
    pub shards: u32,
}

/// The next record to read of one input partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InputPosition {
    /// The input.
    pub input: InputId,
    /// The partition.
    pub partition: Partition,
    /// The next offset to read; everything below was processed.
    pub next: Offset,
}

/// What the log knows of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// The name.
    pub name: String,
    /// Kafka's topic id, or what stands for it: another one means that the topic was deleted and made anew. Empty: unknown.
    pub id: String,
    /// Number of partitions.
    pub partitions: u32,
}

/// Which time stamps a topic takes, by its brokers' clock. A transaction with another is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampLimits {
    /// How far behind the clock, in milliseconds.
    pub behind_millis_max: i64,
    /// How far ahead of it.
    pub ahead_millis_max: i64,
}

impl TimestampLimits {
    /// All of them.
    pub const NONE: Self = Self { behind_millis_max: i64::MAX, ahead_millis_max: i64::MAX };

    /// The one that the topic takes and that is closest to this.
    pub fn nearest(self, timestamp: Timestamp, now: Timestamp) -> Timestamp {
        let oldest = now.as_millis().saturating_sub(self.behind_millis_max);
        let newest = now.as_millis().saturating_add(self.ahead_millis_max);
        Timestamp::from_millis(timestamp.as_millis().clamp(oldest, newest))
    }
}

/// Where a job without journal and snapshot starts to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// At the oldest record.
    Earliest,
    /// Behind the newest record.
    Latest,
    /// At the first record with this time stamp or a later one.
    Timestamp(Timestamp),
    /// At the committed offsets of the job's (or an adopted) consumer group.
    Group,
}

/// What a journal reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// Every record up to the high watermark, committed, open or aborted.
    Uncommitted,
    /// Committed records up to the last stable offset as it is now; does not wait.
    CommittedSoFar,
    /// Committed records up to the high watermark as it was when the call began; waits until it is stable.
    CommittedToEnd,
}

/// One record of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// Where it lies.
    pub offset: JournalOffset,
    /// As [`crate::journal`] encoded it.
    pub bytes: Vec<u8>,
}

/// How far a journal was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JournalRange {
    /// The oldest offset that is left.
    pub start: JournalOffset,
    /// Behind the last offset that was read; the high watermark, or the last stable offset for [`View::CommittedSoFar`].
    pub end: JournalOffset,
}

/// All that one commit carries: epochs, claims and releases of any of the worker's shards.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Outputs, in order within each element; elements are of different shards.
    pub outputs: Vec<Arc<Outputs>>,
    /// Journal records (chunks of one record follow each other) per shard.
    pub journal: Vec<(ShardId, Vec<Vec<u8>>)>,
    /// Input offsets for the consumer group.
    pub offsets: Vec<InputPosition>,
}

/// What a committed transaction left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Per shard of the transaction, where the first chunk of its first journal record lies and the offset behind that record's last one: a release
    /// mark behind an epoch does not count.
    pub journal: BTreeMap<ShardId, (JournalOffset, JournalOffset)>,
    /// When the first journal record was appended, by the log's own clock; `None` where it has none of its own, or nothing was written.
    pub appended: Option<Timestamp>,
}

/// How long calls may take before they come back by themselves, with an error at the latest. One that takes longer hangs: whoever waits for it
/// gives it up together with its incarnation, and must expect it to come back at any later time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Of [`Log::open_producer`] and [`Log::bar`].
    pub open: Duration,
    /// Of [`Producer::commit`].
    pub commit: Duration,
    /// Of all that asks or reads; of [`Log::read_journal`] it is the time from one record to the next, to the first and from the last.
    pub read: Duration,
}

impl Deadlines {
    /// Calls take as long as they take: for a log that waits for nobody else.
    pub const NONE: Self = Self { open: Duration::MAX, commit: Duration::MAX, read: Duration::MAX };
}

/// Why the log did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Somebody barred this incarnation.
    #[error("{action}: this incarnation is barred by a later owner")]
    Fenced {
        /// What was attempted.
        action: String,
    },
    /// The wanted position was deleted.
    #[error("{action}: offset {wanted} is gone, {topic}-{partition} starts at {start}; {way_out}")]
    Cut {
        /// What was attempted.
        action: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The position that was asked for.
        wanted: u64,
        /// The oldest one there is.
        start: u64,
        /// What the user can do.
        way_out: String,
    },
    /// The wanted position lies behind the end: the topic was cut, made anew, or lost records.
    #[error("{action}: offset {wanted} lies behind the end {end} of {topic}-{partition}; the topic was made anew or lost records")]
    Beyond {
        /// What was attempted.
        action: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The position that was asked for.
        wanted: u64,
        /// The high watermark.
        end: u64,
    },
    /// A topic or partition does not exist.
    #[error("{action}: {what} does not exist; {way_out}")]
    Missing {
        /// What was attempted.
        action: String,
        /// The topic or partition.
        what: String,
        /// What the user can do.
        way_out: String,
    },
    /// The broker refused: credentials, ACLs.
    #[error("{action}: refused: {reason}")]
    Denied {
        /// What was attempted.
        action: String,
        /// The broker's words and the way out.
        reason: String,
    },
    /// A deadline passed; `reason` says what blocks (a hanging transaction, an offline partition).
    #[error("{action}: {reason}")]
    Unavailable {
        /// What was attempted.
        action: String,
        /// What blocks.
        reason: String,
    },
    /// A record that the log will never take: too large.
    #[error("{action}: {reason}")]
    Rejected {
        /// What was attempted.
        action: String,
        /// The broker's words and the way out.
        reason: String,
    },
}

/// One job's view of the log. Shared by all threads of a worker.
pub trait Log: Send + Sync + 'static {
    /// The transactional producer.
    type Producer: Producer;
    /// A reader of one shard's input partitions.
    type Input: InputReader + 'static;

    /// Of the calls that are given up when they hang.
    fn deadlines(&self) -> Deadlines;

    /// Inputs, then outputs, then the journal, in the order of [`JobTopics`]. A topic that is missing is an error, except the journal: it then has
    /// no partitions and no id.
    fn describe(&self) -> Result<Vec<TopicInfo>, LogError>;

    /// What time stamps the outputs take, in the order of [`JobTopics`]; those that the list is too short for take all.
    fn timestamp_limits(&self) -> Result<Vec<TimestampLimits>, LogError> {
        Ok(Vec::new())
    }

    /// Why nothing more can be written until this process has ended; `None`: nothing says so.
    fn broken(&self) -> Option<LogError> {
        None
    }

    /// Makes the journal topic if it is not there, with one partition per shard and the settings that the protocol needs.
    fn ensure_journal(&self) -> Result<(), LogError>;

    /// Where to start in each partition of an input when there is neither journal nor snapshot.
    fn start_positions(&self, input: InputId, from: StartFrom) -> Result<Vec<InputPosition>, LogError>;

    /// Which of these partitions have offsets in the consumer group that this job's own transactions put there (told by its uid), and which. They
    /// outlive the journal. None where they could not: in a log that keeps both in one place.
    fn own_positions(&self, positions: &[InputPosition]) -> Result<Vec<InputPosition>, LogError> {
        let _ = positions;
        Ok(Vec::new())
    }

    /// Opens the producer of a new incarnation: `init_transactions` on `forebay.<uid>.<incarnation>`, called once per incarnation.
    fn open_producer(&self, incarnation: &Incarnation) -> Result<Self::Producer, LogError>;

    /// Bars an incarnation: what it left open is aborted, and it can never commit again. When this returns, the abort is visible to
    /// committed readers. One that was never there, or is long gone, is barred as well.
    fn bar(&self, incarnation: &Incarnation) -> Result<(), LogError>;

    /// Reads a shard's journal from `from` to the end (taken when the call begins) and hands each record of the view to `each`, in order.
    /// `Cut` when `from` lies before the start, `Beyond` behind the end, `Unavailable` when the end does not become stable in time.
    fn read_journal(
        &self,
        shard: ShardId,
        from: JournalOffset,
        view: View,
        each: &mut dyn FnMut(JournalEntry),
    ) -> Result<JournalRange, LogError>;

    /// The oldest and the next offset of a shard's journal (uncommitted).
    fn journal_range(&self, shard: ShardId) -> Result<JournalRange, LogError>;

    /// The ends of many journals (uncommitted, as in [`Log::journal_range`]), in the order of `shards`; one request per broker at most, so that
    /// idle workers can ask every few seconds.
    fn journal_ends(&self, shards: &[ShardId]) -> Result<Vec<JournalOffset>, LogError>;

    /// Deletes a shard's journal records before an offset. Asking for what is already gone is no error.
    fn cut_journal(&self, shard: ShardId, before: JournalOffset) -> Result<(), LogError>;

    /// A reader of the given partitions at the given positions.
    fn open_input(&self, shard: ShardId, positions: &[InputPosition]) -> Result<Self::Input, LogError>;
}

/// The one transactional producer of an incarnation. Dropping it may block.
pub trait Producer: Send {
    /// Begins a transaction, sends everything, adds the offsets, commits. `Ok` means: committed, all of it. An error means: unknown, even
    /// where it looks certain; the producer is then useless. Past its deadline it sends nothing more, even if the call hangs.
    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, LogError>;
}

/// Takes one input record, and says whether the next one may come.
pub type Each<'a> = &'a mut dyn FnMut(&InputRecord<'_>) -> ControlFlow<()>;

/// What an [`InputReader`] calls to wake the thread that polls it. It must not block.
pub type Bell = Arc<dyn Fn() + Send + Sync>;

/// Reads committed records of one shard's input partitions. Owned by the thread that runs the shard.
pub trait InputReader: Send {
    /// Hands at most `limit` records to `each`, in order within each partition; waits at most `wait` for the first one. Returns how many.
    /// `each` may ask for a break: the record that it was handed is taken, and the next call goes on behind it.
    /// `Cut` or `Beyond` when the next record of a partition is not there any more.
    fn poll_while(&mut self, wait: Duration, limit: usize, each: Each<'_>) -> Result<usize, LogError>;

    /// The same without breaks.
    fn poll(&mut self, wait: Duration, limit: usize, each: &mut dyn FnMut(&InputRecord<'_>)) -> Result<usize, LogError> {
        self.poll_while(wait, limit, &mut |record| {
            each(record);
            ControlFlow::Continue(())
        })
    }

    /// Has `bell` called, from any thread, when records may have come since a poll found none; now and then without reason. False: this reader
    /// cannot tell, and wants to be polled every few milliseconds.
    fn ring(&mut self, bell: Bell) -> bool {
        let _ = bell;
        false
    }

    /// Per partition the position that reading has reached (behind transaction markers too, which are no records) and the end as far as known.
    fn progress(&mut self) -> Vec<InputProgress>;
}

/// How far an input partition was read, and how far it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputProgress {
    /// Where reading stands: every record before it was handed out.
    pub position: InputPosition,
    /// Behind the last committed record, as last heard from the log.
    pub end: Offset,
}
