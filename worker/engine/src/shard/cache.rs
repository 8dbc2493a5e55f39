//! Decoded state of a shard: the overlay and the cache in one. A slot that an unconfirmed epoch changed is pinned (that is the overlay);
//! the rest may be evicted between any two records, least recently used first by a clock hand, so that memory stays within its budget (I9).
//!
//! What a slot weighs is measured when it is loaded and when its changes are encoded. In between it grows by what the epoch's records bring,
//! which the shard counts.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use crate::changes::{Change, Changes};
use crate::ids::{Epoch, Timestamp};
use crate::mutants::{self, Bug};
use crate::patch::PatchWriter;
use crate::pipeline::Entity;
use crate::state::StateBatch;

/// Index of a slot. Stays valid until the slot is evicted, which never happens while a record is processed.
pub(super) type SlotId = u32;

/// What a slot costs beside its key and entity: the slot itself, the table's entry, allocator overhead.
const SLOT_OVERHEAD_BYTES: usize = 128;

/// Of the budget: less than this is neither worth a search nor searched for. So what a search costs, a step for each slot, is spread over
/// the loads of a sixteenth of the cache.
const EVICTION_SHARE: usize = 16;

pub(super) struct Cache<E> {
    slots: Vec<Slot<E>>,
    free: Vec<SlotId>,
    table: HashTable<SlotId>,
    hasher: DefaultHashBuilder,
    hand: usize,
    bytes: usize,
    bytes_max: usize,
    /// Of `bytes`, what the open epoch changed; and what the sealed one did. A slot that both changed is in both.
    pinned_open: usize,
    pinned_sealed: usize,
    /// Slots that the open epoch changed, each once.
    changed: Vec<SlotId>,
    /// What the record in hand changed, to take it back.
    undo: Vec<Undo<E>>,
    record: u64,
    /// A patch that is being written, and the bytes that it inserts next.
    patch: (Vec<u8>, Vec<u8>),
}

struct Slot<E> {
    key: Box<[u8]>,
    entity: Option<E>,
    bytes: usize,
    /// The clock of the last epoch that changed it.
    written: Timestamp,
    /// The last epoch that changed it.
    changed: Epoch,
    /// The last epoch for which it was put on the list of changes; the slot is pinned until that epoch is applied.
    listed: Epoch,
    /// What it was before the open epoch, once that has changed it: the journal says what changed.
    base: Option<E>,
    /// The last record that changed it, so that a record saves it once.
    record: u64,
    used: bool,
}

struct Undo<E> {
    slot: SlotId,
    entity: Option<E>,
    written: Timestamp,
    changed: Epoch,
    /// It is what the slot was before the epoch.
    is_base: bool,
}

impl<E: Entity> Cache<E> {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            hand: 0,
            bytes: 0,
            bytes_max,
            pinned_open: 0,
            pinned_sealed: 0,
            changed: Vec::new(),
            undo: Vec::new(),
            record: 0,
            patch: (Vec::new(), Vec::new()),
        }
    }

    /// A new record starts: what the last one did can no longer be taken back, and no slot is in use. `applied` is the last applied epoch.
    pub(super) fn begin_record(&mut self, applied: Epoch) {
        self.record += 1;
        self.settle();
        self.evict(applied);
    }

    /// What was kept to take the last record back is of no use any more, but for what was there before the epoch.
    fn settle(&mut self) {
        for undo in self.undo.drain(..) {
            if undo.is_base {
                self.slots[undo.slot as usize].base = undo.entity;
            }
        }
    }

    pub(super) fn find(&mut self, key: &[u8]) -> Option<SlotId> {
        let hash = self.hasher.hash_one(key);
        let slot = *self.table.find(hash, |slot| *self.slots[*slot as usize].key == *key)?;
        self.slots[slot as usize].used = true;
        Some(slot)
    }

    /// Adds what the state store holds for a key that is not in the cache.
    pub(super) fn insert(&mut self, key: &[u8], entity: Option<E>, written: Timestamp) -> SlotId {
        let bytes = key.len() + SLOT_OVERHEAD_BYTES + entity.as_ref().map_or(0, Entity::weight);
        self.bytes += bytes;
        let slot = Slot {
            key: key.into(),
            entity,
            bytes,
            written,
            changed: Epoch::default(),
            listed: Epoch::default(),
            base: None,
            record: 0,
            used: true,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                SlotId::try_from(self.slots.len() - 1).expect("the budget holds far fewer than 2^32 slots")
            }
        };
        let hash = self.hasher.hash_one(key);
        let (hasher, slots) = (&self.hasher, &self.slots);
        self.table.insert_unique(hash, id, |slot| hasher.hash_one(&*slots[*slot as usize].key));
        id
    }

    /// Forgets an entity whose time is over. That is no change: whoever reads it anew finds the same.
    pub(super) fn expire(&mut self, slot: SlotId, is_over: impl FnOnce(Timestamp) -> bool) {
        let slot = &mut self.slots[slot as usize];
        if slot.entity.is_some() && is_over(slot.written) {
            slot.entity = None;
        }
    }

    pub(super) fn entity(&self, slot: SlotId) -> Option<&E> {
        self.slots[slot as usize].entity.as_ref()
    }

    /// The entity to change, in `epoch`, whose clock is `clock`; remembers what it was.
    pub(super) fn entity_mut(&mut self, id: SlotId, epoch: Epoch, clock: Timestamp) -> &mut Option<E> {
        let slot = &mut self.slots[id as usize];
        if slot.record != self.record {
            slot.record = self.record;
            let is_base = slot.changed != epoch || mutants::is(Bug::PatchOfLastRecord);
            self.undo.push(Undo { slot: id, entity: slot.entity.clone(), written: slot.written, changed: slot.changed, is_base });
        }
        (slot.changed, slot.written) = (epoch, clock);
        if slot.listed != epoch {
            slot.listed = epoch;
            self.pinned_open += slot.bytes;
            self.changed.push(id);
        }
        &mut slot.entity
    }

    /// Takes back what the record in hand changed.
    pub(super) fn undo(&mut self) {
        for undo in self.undo.drain(..) {
            let slot = &mut self.slots[undo.slot as usize];
            slot.entity = undo.entity;
            (slot.changed, slot.written) = (undo.changed, undo.written);
            slot.record = 0;
        }
    }

    /// Encodes everything that `epoch` changed, each entity once: for the state store as values, for the journal as what changed. The epoch is
    /// sealed from here on.
    pub(super) fn encode_changes(&mut self, epoch: Epoch, values: &mut StateBatch, journal: &mut Changes) {
        self.settle();
        self.pinned_open = 0;
        // A store that keeps keys in order searches from the last one on: neighbours cost it half of what keys at random do.
        let slots = &self.slots;
        self.changed.sort_by_cached_key(|id| beginning_of(&slots[*id as usize].key));
        for id in self.changed.drain(..) {
            let slot = &mut self.slots[id as usize];
            if slot.changed != epoch {
                continue; // taken back
            }
            let base = slot.base.take();
            match (&slot.entity, &base) {
                (None, _) => {
                    values.delete(&slot.key);
                    journal.push(&slot.key, Change::Delete);
                }
                (Some(entity), base) => {
                    let value = values.put_with(&slot.key, |arena| entity.encode(arena));
                    let (patch, scratch) = &mut self.patch;
                    patch.clear();
                    let mut writer = PatchWriter::new(patch, scratch);
                    let is_patched = base.as_ref().is_some_and(|base| entity.encode_patch(base, &mut writer));
                    writer.finish();
                    let is_shorter = is_patched && patch.len() < value.len();
                    journal.push(&slot.key, if is_shorter { Change::Patch(patch) } else { Change::Put(value) });
                }
            }
            let bytes = slot.key.len() + SLOT_OVERHEAD_BYTES + slot.entity.as_ref().map_or(0, Entity::weight);
            self.bytes = self.bytes - slot.bytes + bytes;
            slot.bytes = bytes;
            self.pinned_sealed += bytes;
        }
    }

    /// The sealed epoch is applied: what it changed may be evicted.
    pub(super) fn applied(&mut self, epoch: Epoch) {
        self.pinned_sealed = 0;
        self.evict(epoch);
    }

    /// Brings the cache back within its budget. What was changed after `applied` stays: nothing else holds its state.
    fn evict(&mut self, applied: Epoch) {
        let least = self.bytes_max / EVICTION_SHARE;
        if self.bytes <= self.bytes_max || self.bytes - self.pinned() <= least {
            return;
        }
        // Twice around: the first turn may only take away the "used" marks.
        let mut turns = 2 * self.slots.len();
        while self.bytes > self.bytes_max - least && turns > 0 {
            turns -= 1;
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[self.hand];
            if slot.bytes == 0 || slot.listed > applied {
                continue;
            }
            if slot.used {
                slot.used = false;
                continue;
            }
            let hash = self.hasher.hash_one(&*slot.key);
            self.bytes -= slot.bytes;
            slot.bytes = 0;
            slot.entity = None;
            let id = SlotId::try_from(self.hand).expect("slot ids have 32 bits");
            if let Ok(entry) = self.table.find_entry(hash, |slot| *slot == id) {
                entry.remove();
            }
            self.slots[self.hand].key = Box::default();
            self.free.push(id);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the open epoch pins.
    pub(super) fn open_bytes(&self) -> usize {
        self.pinned_open
    }

    /// What cannot be evicted now, or more: a slot that two epochs changed counts twice.
    fn pinned(&self) -> usize {
        (self.pinned_open + self.pinned_sealed).min(self.bytes)
    }
}

/// What tells the order of most keys.
fn beginning_of(key: &[u8]) -> [u128; 2] {
    let mut bytes = [0; 32];
    let len = key.len().min(bytes.len());
    bytes[..len].copy_from_slice(&key[..len]);
    let (halves, _) = bytes.as_chunks::<16>();
    [u128::from_be_bytes(halves[0]), u128::from_be_bytes(halves[1])]
}
