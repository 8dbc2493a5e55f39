//! A log like Kafka's, in memory: partitions, transactional producers with fencing, markers that take an offset, deleted records.
//!
//! It does one broker-side thing per call and never waits: what takes time in Kafka (a request on its way, a marker that is written later) is
//! for the world to schedule. A transaction is *decided* first; its markers follow one by one, and committed readers see a partition only up
//! to the first record whose marker is missing.

use std::collections::{BTreeMap, BTreeSet};

use forebay_engine::ids::{Incarnation, JournalOffset, Offset, OutputId, Partition, ShardId, Timestamp};
use forebay_engine::log::{InputPosition, JournalEntry, JournalRange, LogError, View};

mod input;
mod journal;
mod partition;

pub use input::InputTopic;
pub use journal::JournalTopic;
pub use partition::{PartitionLog, Slot};

/// A transaction of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TxnId(usize);

/// A place where a transaction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A partition of an output topic.
    Output(OutputId, Partition),
    /// A shard's journal.
    Journal(ShardId),
    /// The consumer group's offsets.
    Group,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Open,
    Commit,
    Abort,
}

/// A transaction as it stands.
#[derive(Debug)]
pub struct Txn {
    /// Whose it is.
    pub owner: Incarnation,
    decision: Decision,
    touched: BTreeSet<Target>,
    unmarked: BTreeSet<Target>,
    /// Input offsets that become the group's.
    pub offsets: Vec<InputPosition>,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: u32,
    current: Option<TxnId>,
}

/// A record of an output topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputBody {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
}

/// A record of the input topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputBody {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The log's time.
    pub timestamp: Timestamp,
}

/// Why a producer's request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A newer producer of the same transactional id was opened.
    Fenced,
    /// The transaction is not open (any more).
    NoTransaction,
    /// The last transaction's markers are not written yet: try again.
    Busy,
}

/// The broker.
#[derive(Debug)]
pub struct SimLog {
    input_id: String,
    journal_id: String,
    /// The input's partitions; `None` is a marker or an aborted record of whoever produces there.
    pub inputs: Vec<Vec<Option<InputBody>>>,
    /// The oldest offset that is left of each; what lies before is there for the oracle only.
    pub input_starts: Vec<u64>,
    /// Output partitions.
    pub outputs: BTreeMap<(OutputId, Partition), PartitionLog<OutputBody>>,
    /// Journals; the index is the shard.
    pub journals: Vec<PartitionLog<Vec<u8>>>,
    /// The group's committed offsets.
    pub group: BTreeMap<Partition, Offset>,
    producers: BTreeMap<Incarnation, Producer>,
    txns: Vec<Txn>,
    /// Committed since the last look.
    committed: Vec<TxnId>,
    /// Decided, and a marker is missing.
    unsettled: BTreeSet<TxnId>,
}

impl SimLog {
    /// A log with empty topics.
    pub fn new(partitions: u32, outputs: u16, shards: u32) -> Self {
        let all = (0..outputs).flat_map(|o| (0..partitions).map(move |p| (OutputId::new(o), Partition::new(p))));
        Self {
            input_id: input::FIRST_ID.to_owned(),
            journal_id: "journal-1".to_owned(),
            inputs: vec![Vec::new(); partitions as usize],
            input_starts: vec![0; partitions as usize],
            outputs: all.map(|key| (key, PartitionLog::default())).collect(),
            journals: (0..shards).map(|_| PartitionLog::default()).collect(),
            group: BTreeMap::new(),
            producers: BTreeMap::new(),
            txns: Vec::new(),
            committed: Vec::new(),
            unsettled: BTreeSet::new(),
        }
    }

    /// `init_transactions`: fences earlier producers of this id and aborts what they left open. Returns the producer's epoch.
    pub fn init(&mut self, incarnation: &Incarnation) -> u32 {
        let producer = self.producers.entry(incarnation.clone()).or_default();
        producer.epoch += 1;
        let (epoch, current) = (producer.epoch, producer.current);
        if let Some(txn) = current {
            self.decide(txn, Decision::Abort);
        }
        epoch
    }

    /// Forgets all transactional ids; open transactions are aborted. A request of a producer that is not known is refused.
    pub fn forget_producers(&mut self) {
        for txn in std::mem::take(&mut self.producers).into_values().filter_map(|producer| producer.current) {
            self.decide(txn, Decision::Abort);
        }
    }

    /// Whether an incarnation's own producer is the latest of its id.
    pub fn is_live(&self, incarnation: &Incarnation) -> bool {
        self.producers.get(incarnation).is_some_and(|producer| producer.epoch == 1)
    }

    /// Whether nothing of this id waits for a marker; `init_transactions` returns only then.
    pub fn settled(&self, incarnation: &Incarnation) -> bool {
        self.producers.get(incarnation).and_then(|p| p.current).is_none_or(|txn| self.txns[txn.0].unmarked.is_empty())
    }

    /// Opens a transaction.
    pub fn begin(&mut self, incarnation: &Incarnation, epoch: u32) -> Result<TxnId, Refused> {
        let settled = self.settled(incarnation);
        let next = TxnId(self.txns.len());
        let producer = self.producers.get_mut(incarnation).filter(|p| p.epoch == epoch).ok_or(Refused::Fenced)?;
        if !settled {
            return Err(Refused::Busy);
        }
        producer.current = Some(next);
        let none = BTreeSet::new();
        self.txns.push(Txn {
            owner: incarnation.clone(),
            decision: Decision::Open,
            touched: none.clone(),
            unmarked: none,
            offsets: Vec::new(),
        });
        Ok(next)
    }

    /// Appends to an output partition.
    pub fn produce(
        &mut self,
        who: (&Incarnation, u32),
        txn: TxnId,
        to: (OutputId, Partition),
        bodies: Vec<OutputBody>,
    ) -> Result<(), Refused> {
        self.touch(who, txn, Target::Output(to.0, to.1))?;
        let partition = self.outputs.get_mut(&to).expect("the pipeline names existing partitions only");
        bodies.into_iter().for_each(|body| partition.append(txn, body));
        Ok(())
    }

    /// Appends to a journal. Returns where the first record lies and the offset behind the last.
    pub fn journal(
        &mut self,
        who: (&Incarnation, u32),
        txn: TxnId,
        shard: ShardId,
        chunks: &[Vec<u8>],
    ) -> Result<(JournalOffset, JournalOffset), Refused> {
        self.touch(who, txn, Target::Journal(shard))?;
        let journal = &mut self.journals[shard.get() as usize];
        let first = journal.end();
        chunks.iter().for_each(|chunk| journal.append(txn, chunk.clone()));
        Ok((JournalOffset::new(first), JournalOffset::new(journal.end())))
    }

    /// Adds input offsets.
    pub fn add_offsets(&mut self, who: (&Incarnation, u32), txn: TxnId, offsets: &[InputPosition]) -> Result<(), Refused> {
        self.touch(who, txn, Target::Group)?;
        self.txns[txn.0].offsets.extend_from_slice(offsets);
        Ok(())
    }

    /// Ends the open transaction of this producer, whichever that is: the protocol's first version does not name it.
    pub fn end(&mut self, who: (&Incarnation, u32), commit: bool) -> Result<TxnId, Refused> {
        let producer = self.producers.get(who.0).filter(|p| p.epoch == who.1).ok_or(Refused::Fenced)?;
        let txn = producer.current.filter(|txn| self.txns[txn.0].decision == Decision::Open).ok_or(Refused::NoTransaction)?;
        self.decide(txn, if commit { Decision::Commit } else { Decision::Abort });
        Ok(txn)
    }

    /// Open transactions and whose they are.
    pub fn open(&self) -> impl Iterator<Item = (TxnId, &Incarnation)> {
        self.txns.iter().enumerate().filter(|(_, txn)| txn.decision == Decision::Open).map(|(id, txn)| (TxnId(id), &txn.owner))
    }

    /// The transaction time-out: the coordinator aborts, and fences the producer.
    pub fn time_out(&mut self, txn: TxnId) {
        let owner = self.txns[txn.0].owner.clone();
        if self.txns[txn.0].decision == Decision::Open {
            self.init(&owner);
        }
    }

    /// Markers that are to be written.
    pub fn markers(&self) -> Vec<(TxnId, Target)> {
        self.unsettled.iter().flat_map(|id| self.txns[id.0].unmarked.iter().map(|target| (*id, *target))).collect()
    }

    /// Writes one marker; it takes an offset of its own.
    pub fn mark(&mut self, txn: TxnId, target: Target) {
        let state = &mut self.txns[txn.0];
        if !state.unmarked.remove(&target) {
            return;
        }
        if state.unmarked.is_empty() {
            self.unsettled.remove(&txn);
        }
        let commit = state.decision == Decision::Commit;
        match target {
            Target::Output(output, partition) => self.outputs.get_mut(&(output, partition)).expect("it was written to").mark(txn, commit),
            Target::Journal(shard) => self.journals[shard.get() as usize].mark(txn, commit),
            Target::Group if commit => {
                for position in &state.offsets {
                    self.group.insert(position.partition, position.next);
                }
            }
            Target::Group => {}
        }
    }

    /// Transactions that were decided to commit since the last call, in that order.
    pub fn take_committed(&mut self) -> Vec<TxnId> {
        std::mem::take(&mut self.committed)
    }

    /// A transaction.
    pub fn txn(&self, txn: TxnId) -> &Txn {
        &self.txns[txn.0]
    }

    /// Where a transaction wrote.
    pub fn touched(&self, txn: TxnId) -> impl Iterator<Item = Target> + '_ {
        self.txns[txn.0].touched.iter().copied()
    }

    /// Reads a journal. `end` is the high watermark that a reader to the end has fixed; `Ok(None)`: not stable up to there yet.
    pub fn read_journal(
        &self,
        shard: ShardId,
        from: JournalOffset,
        view: View,
        end: JournalOffset,
    ) -> Result<Option<(Vec<JournalEntry>, JournalRange)>, LogError> {
        let journal = &self.journals[shard.get() as usize];
        let (action, topic) = (format!("read the journal of shard {shard}"), "journal".to_owned());
        let (wanted, partition) = (from.get(), shard.get());
        if wanted < journal.start() {
            let way_out = "restore a savepoint".to_owned();
            return Err(LogError::Cut { action, topic, partition, wanted, start: journal.start(), way_out });
        }
        if wanted > journal.end() {
            return Err(LogError::Beyond { action, topic, partition, wanted, end: journal.end() });
        }
        let stable = journal.stable_end();
        let end = match view {
            View::Uncommitted => journal.end(),
            View::CommittedSoFar => stable,
            View::CommittedToEnd if stable < end.get() => return Ok(None),
            View::CommittedToEnd => end.get(),
        };
        let is_in = |txn: TxnId| view == View::Uncommitted || self.txns[txn.0].decision == Decision::Commit;
        let entries = journal.records(wanted, end).filter(|(_, txn, _)| is_in(*txn));
        let entries = entries.map(|(offset, _, bytes)| JournalEntry { offset: JournalOffset::new(offset), bytes: bytes.clone() }).collect();
        Ok(Some((entries, JournalRange { start: JournalOffset::new(journal.start()), end: JournalOffset::new(end) })))
    }

    /// Whose transaction a committed reader of a journal waits for.
    pub fn in_the_way(&self, shard: ShardId) -> Option<&Incarnation> {
        self.journals[shard.get() as usize].first_open().map(|txn| &self.txns[txn.0].owner)
    }

    /// Start and high watermark of a journal.
    pub fn journal_range(&self, shard: ShardId) -> JournalRange {
        let journal = &self.journals[shard.get() as usize];
        JournalRange { start: JournalOffset::new(journal.start()), end: JournalOffset::new(journal.end()) }
    }

    fn touch(&mut self, who: (&Incarnation, u32), txn: TxnId, target: Target) -> Result<(), Refused> {
        let producer = self.producers.get(who.0).filter(|p| p.epoch == who.1).ok_or(Refused::Fenced)?;
        if producer.current != Some(txn) || self.txns[txn.0].decision != Decision::Open {
            return Err(Refused::NoTransaction);
        }
        self.txns[txn.0].touched.insert(target);
        self.txns[txn.0].unmarked.insert(target);
        Ok(())
    }

    fn decide(&mut self, txn: TxnId, decision: Decision) {
        let state = &mut self.txns[txn.0];
        if state.decision == Decision::Open {
            state.decision = decision;
            if !state.unmarked.is_empty() {
                self.unsettled.insert(txn);
            }
            if decision == Decision::Commit {
                self.committed.push(txn);
            }
        }
    }
}
