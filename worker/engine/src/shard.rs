//! One shard: takes records through the pipeline, gathers an epoch's effects, seals them, and applies them once they are committed.
//!
//! It never commits anything itself and never reads a clock. At most one epoch is sealed and unconfirmed while the next one is open;
//! when a commit fails both are dropped, for nobody ever saw them.

mod cache;

use std::sync::Arc;

use crate::changes::Changes;
use crate::ids::{Epoch, JournalOffset, Offset, Partition, ShardId, TableId, Timestamp};
use crate::journal::{self, Books, Owner, Stamp};
use crate::lifetimes::Lifetimes;
use crate::log::InputPosition;
use crate::manifest::RetainedCheckpoint;
use crate::mutants::{self, Bug};
use crate::pipeline::{Entity, Pipeline, Verdict};
use crate::record::{InputRecord, OutputMark, Outputs};
use crate::state::{Checkpointer, StateBatch, StateError, StateStore};
use cache::{Cache, SlotId};

/// The state of a shard between two commits.
pub struct Shard<P: Pipeline, S: StateStore> {
    pipeline: P,
    store: S,
    lifetimes: Lifetimes,
    journal_chunk_bytes: usize,
    cache: Cache<P::Entity>,
    /// The last committed and applied epoch.
    head: Stamp,
    /// Sealed and not yet confirmed.
    sealed: Option<Unconfirmed>,
    open: Open,
    scratch: Scratch,
    /// Emptied, their memory is used again: an epoch is as large as the one before, about.
    spare: Spare,
}

struct Unconfirmed {
    stamp: Stamp,
    changes: StateBatch,
    outputs: Arc<Outputs>,
    records: usize,
}

#[derive(Default)]
struct Spare {
    outputs: Outputs,
    values: StateBatch,
    journal: Changes,
}

/// The epoch that is being gathered.
struct Open {
    epoch: Epoch,
    /// Set by the epoch's first record.
    clock: Option<Timestamp>,
    positions: Vec<InputPosition>,
    books: Books,
    outputs: Outputs,
    records: usize,
    input_bytes: usize,
}

#[derive(Default)]
struct Scratch {
    /// The key that was looked for last, and what the record in hand found by it.
    key: Vec<u8>,
    found: Option<SlotId>,
    value: Vec<u8>,
}

/// What the next epoch says beside its records: news about checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// The new list of checkpoints that count, oldest first.
    pub retained: Option<Vec<RetainedCheckpoint>>,
    /// Objects to be deleted once this epoch is committed.
    pub garbage: Vec<String>,
}

impl Annotations {
    /// Whether there is anything to say.
    pub fn is_empty(&self) -> bool {
        self.retained.is_none() && self.garbage.is_empty()
    }
}

/// One shard's part of a transaction.
#[derive(Debug)]
pub struct SealedEpoch {
    /// The shard.
    pub shard: ShardId,
    /// The epoch.
    pub epoch: Epoch,
    /// Its journal record, in chunks.
    pub journal: Vec<Vec<u8>>,
    /// Its outputs.
    pub outputs: Arc<Outputs>,
    /// The next record of each of its partitions.
    pub positions: Vec<InputPosition>,
    /// Records in it.
    pub records: usize,
}

impl<P: Pipeline, S: StateStore> Shard<P, S> {
    /// A shard whose store holds the state at `head`. `owner` is who goes on from there; `head.positions` say where.
    pub fn new(pipeline: P, store: S, head: Stamp, cache_bytes_max: usize) -> Self {
        assert!(head.books.balance(), "I8: the books of {:?} do not balance: {:?}", head.owner.shard, head.books);
        let open = Open::after(&head, Outputs::default());
        let cache = Cache::new(cache_bytes_max);
        Self {
            pipeline,
            store,
            lifetimes: Lifetimes::default(),
            journal_chunk_bytes: journal::CHUNK_BYTES,
            cache,
            head,
            sealed: None,
            open,
            scratch: Scratch::default(),
            spare: Spare::default(),
        }
    }

    /// The same shard, whose entities are over after their tables' lifetimes.
    #[must_use]
    pub fn with_lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// The same shard, whose journal records are cut into chunks of so many bytes.
    #[must_use]
    pub fn with_journal_chunks(self, bytes: usize) -> Self {
        Self { journal_chunk_bytes: bytes, ..self }
    }

    /// The last committed epoch and all that is true of it.
    pub fn head(&self) -> &Stamp {
        &self.head
    }

    /// Where processing stands, unconfirmed epochs included.
    pub fn positions(&self) -> &[InputPosition] {
        &self.open.positions
    }

    /// Processes one record. `now` becomes the epoch's clock if this is its first record.
    pub fn process(&mut self, record: &InputRecord<'_>, now: Timestamp) -> Result<Verdict, StateError> {
        let last_clock = self.sealed.as_ref().map_or(self.head.clock, |sealed| sealed.stamp.clock);
        // I7: the clock never goes back, whatever the machine's clock does.
        let floor = if mutants::is(Bug::ClockBack) { now } else { last_clock };
        let clock = *self.open.clock.get_or_insert(now.max(floor));
        let position = position_of(&mut self.open.positions, record);
        assert!(record.offset >= position.next, "I1: {record:?} lies before {position:?} and was processed already");
        position.next = record.offset.next();
        self.cache.begin_record(self.head.epoch);
        self.scratch.found = None;
        let mark = self.open.outputs.mark();
        let mut workspace = Workspace {
            clock,
            partition: record.partition,
            epoch: self.open.epoch,
            cache: &mut self.cache,
            store: &self.store,
            lifetimes: &self.lifetimes,
            outputs: &mut self.open.outputs,
            mark,
            scratch: &mut self.scratch,
        };
        let verdict = self.pipeline.process(record, &mut workspace)?;
        if verdict != Verdict::Duplicate || !mutants::is(Bug::BooksUncounted) {
            self.open.books.count(verdict);
        }
        self.open.records += 1;
        self.open.input_bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        Ok(verdict)
    }

    /// Reading has come this far although the last of it were no records (transaction markers, compacted ones): an epoch that is sealed
    /// anyway commits these positions.
    pub fn reached(&mut self, reached: &InputPosition) {
        for position in &mut self.open.positions {
            if (position.input, position.partition) == (reached.input, reached.partition) {
                position.next = position.next.max(reached.next);
            }
        }
    }

    /// Records in the open epoch.
    pub fn open_records(&self) -> usize {
        self.open.records
    }

    /// Bytes that the open epoch holds back: its outputs, and the entities that it has changed, as they were before. By how much these grow
    /// is bounded by the inputs, which are counted for that reason: they are not held themselves.
    pub fn open_bytes(&self) -> usize {
        self.open.input_bytes + self.open.outputs.bytes() + self.cache.open_bytes()
    }

    /// Bytes of decoded state in memory.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Records of the epoch that is sealed and whose outcome is not known yet.
    pub fn unconfirmed_records(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.records)
    }

    /// Ends the open epoch, for `owner` to commit; the next one is open afterwards. `None` when there is nothing to commit.
    pub fn seal(&mut self, owner: &Owner, now: Timestamp, annotations: Annotations) -> Option<SealedEpoch> {
        assert!(
            self.sealed.is_none(),
            "I4: epoch {} is sealed while {:?} is unconfirmed",
            self.open.epoch,
            self.sealed.as_ref().map(|s| s.stamp.epoch)
        );
        if self.open.records == 0 && annotations.is_empty() {
            return None;
        }
        assert!(self.open.books.balance(), "I8: {:?}", self.open.books);
        let mut changes = std::mem::take(&mut self.spare.values);
        self.spare.journal.clear();
        self.cache.encode_changes(&mut changes, &mut self.spare.journal);
        let stamp = Stamp {
            owner: owner.clone(),
            epoch: self.open.epoch,
            clock: self.open.clock.unwrap_or(now.max(self.head.clock)),
            positions: self.open.positions.clone(),
            books: self.open.books,
            retained: annotations.retained.unwrap_or_else(|| self.head.retained.clone()),
            garbage: annotations.garbage,
            journal: JournalOffset::default(),
            revision: self.head.revision.clone(),
            topic_ids: self.head.topic_ids.clone(),
        };
        let spare = std::mem::take(&mut self.spare.outputs);
        let open = std::mem::replace(&mut self.open, Open::after(&stamp, spare));
        let sealed = SealedEpoch {
            shard: owner.shard,
            epoch: stamp.epoch,
            journal: journal::encode_epoch_in(&stamp, &self.spare.journal, self.journal_chunk_bytes),
            outputs: Arc::new(open.outputs),
            positions: open.positions,
            records: open.records,
        };
        self.sealed = Some(Unconfirmed { stamp, changes, outputs: sealed.outputs.clone(), records: sealed.records });
        Some(sealed)
    }

    /// The sealed epoch is committed and its journal record ends before `journal`: applies it. Returns the new head.
    pub fn committed(&mut self, epoch: Epoch, journal: JournalOffset) -> Result<&Stamp, StateError> {
        let Unconfirmed { mut stamp, mut changes, outputs, .. } = self.sealed.take().expect("only a sealed epoch is committed");
        assert_eq!(stamp.epoch, epoch, "I4: the commit is of another epoch than the one that was sealed");
        stamp.journal = journal;
        self.store.apply(&changes, &stamp)?;
        self.head = stamp;
        self.cache.applied(self.head.epoch);
        changes.clear();
        self.spare.values = changes;
        // Whoever sent them has let go of them, as a rule; if not, the next epoch takes new memory.
        if let Some(mut outputs) = Arc::into_inner(outputs) {
            outputs.clear();
            self.spare.outputs = outputs;
        }
        Ok(&self.head)
    }

    /// A handle to take a checkpoint of the applied state.
    pub fn checkpointer(&self) -> Checkpointer {
        self.store.checkpointer()
    }

    /// Gives the store back; what is not applied is forgotten (it was never seen, or it is in the journal).
    pub fn into_store(self) -> S {
        self.store
    }
}

impl Open {
    fn after(stamp: &Stamp, outputs: Outputs) -> Self {
        Self {
            epoch: stamp.epoch.next(),
            clock: None,
            positions: stamp.positions.clone(),
            books: stamp.books,
            outputs,
            records: 0,
            input_bytes: 0,
        }
    }
}

fn position_of<'a>(positions: &'a mut Vec<InputPosition>, record: &InputRecord<'_>) -> &'a mut InputPosition {
    let at = positions.binary_search_by_key(&(record.input, record.partition), |position| (position.input, position.partition));
    let at = at.unwrap_or_else(|at| {
        positions.insert(at, InputPosition { input: record.input, partition: record.partition, next: Offset::default() });
        at
    });
    &mut positions[at]
}

/// What one record may touch: state of its own partition, and the epoch's outputs.
pub struct Workspace<'a, E: Entity> {
    clock: Timestamp,
    partition: Partition,
    epoch: Epoch,
    cache: &'a mut Cache<E>,
    store: &'a dyn StateStore,
    lifetimes: &'a Lifetimes,
    outputs: &'a mut Outputs,
    mark: OutputMark,
    scratch: &'a mut Scratch,
}

impl<E: Entity> Workspace<'_, E> {
    /// The epoch's clock: one value per epoch, never going back within a shard (I7).
    pub fn now(&self) -> Timestamp {
        self.clock
    }

    /// The entity as this epoch sees it: one that is over by the epoch's clock is not there.
    pub fn get(&mut self, table: TableId, key: &[u8]) -> Result<Option<&E>, StateError> {
        let slot = self.slot(table, key)?;
        Ok(self.cache.entity(slot))
    }

    /// The entity to change; `None` is one that does not exist. What the caller leaves there is its new state, written once per epoch.
    pub fn update(&mut self, table: TableId, key: &[u8]) -> Result<&mut Option<E>, StateError> {
        let slot = self.slot(table, key)?;
        Ok(self.cache.entity_mut(slot, self.epoch, self.clock))
    }

    /// The outputs, to append to.
    pub fn outputs(&mut self) -> &mut Outputs {
        self.outputs
    }

    /// Takes back all state changes and outputs of this record.
    pub fn undo(&mut self) {
        self.cache.undo();
        self.outputs.rewind(self.mark);
    }

    fn slot(&mut self, table: TableId, key: &[u8]) -> Result<SlotId, StateError> {
        // A step looks before it changes, and the next one looks at what this one changed.
        if let Some(slot) = self.scratch.found
            && decode_key(&self.scratch.key) == Some((table, self.partition, key))
        {
            return Ok(slot);
        }
        self.scratch.found = None;
        let slot = self.find(table, key)?;
        self.scratch.found = Some(slot);
        Ok(slot)
    }

    fn find(&mut self, table: TableId, key: &[u8]) -> Result<SlotId, StateError> {
        encode_key(table, self.partition, key, &mut self.scratch.key);
        let is_over = |written| self.lifetimes.is_over(table, written, self.clock);
        if let Some(slot) = self.cache.find(&self.scratch.key) {
            self.cache.expire(slot, is_over);
            return Ok(slot);
        }
        let written = self.store.get_written(&self.scratch.key, &mut self.scratch.value)?;
        let entity = match written {
            Some(written) if !is_over(written) => Some(E::decode(&self.scratch.value).map_err(|reason| StateError::Corrupt {
                action: format!("read table {table}, partition {}, key {}", self.partition, String::from_utf8_lossy(key)),
                reason,
            })?),
            Some(_) | None => None,
        };
        Ok(self.cache.insert(&self.scratch.key, entity, written.unwrap_or(self.clock)))
    }
}

/// The bytes of a state key: table (2 bytes), partition (4 bytes), both big-endian, then the entity's key. The layout is part of the format.
pub fn encode_key(table: TableId, partition: Partition, key: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&table.get().to_be_bytes());
    into.extend_from_slice(&partition.get().to_be_bytes());
    into.extend_from_slice(key);
}

/// The inverse of [`encode_key`]; `None` for bytes that are no state key.
pub fn decode_key(bytes: &[u8]) -> Option<(TableId, Partition, &[u8])> {
    let (table, rest) = bytes.split_first_chunk()?;
    let (partition, key) = rest.split_first_chunk()?;
    Some((TableId::new(u16::from_be_bytes(*table)), Partition::new(u32::from_be_bytes(*partition)), key))
}

/// The shard of an input partition.
pub fn shard_of(partition: Partition, shards: u32) -> ShardId {
    ShardId::new(partition.get() % shards)
}

#[cfg(test)]
mod tests;
