//! Decoded state of a shard: the overlay and the cache in one. A slot that an unconfirmed epoch changed is pinned (that is the overlay);
//! the rest may be evicted between any two records, least used first by a clock hand, so that memory stays within its budget (I9).
//!
//! What a slot weighs is measured when it is loaded and when its changes are encoded. In between it grows by what the epoch's records bring,
//! which the shard counts.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::SmallVec;

use crate::changes::{Change, Changes};
use crate::ids::{Epoch, Timestamp};
use crate::mutants::{self, Bug};
use crate::patch::PatchWriter;
use crate::pipeline::Entity;
use crate::state::StateBatch;

/// Index of a slot. Stays valid until the slot is evicted, which never happens while a record is processed.
pub(super) type SlotId = u32;

/// What a slot costs beside its entity and a long key: the slot itself, the table's entry, allocator overhead.
const SLOT_OVERHEAD_BYTES: usize = 80;

/// Keys up to so many bytes lie in their slots, so that looking one up need not look elsewhere in memory: table, partition, and 18 of the entity's key.
const SHORT_KEY_BYTES: usize = 24;

/// Turns of the clock hand for which a slot stays at most after its last use. Entities that are looked up once are many, and go first: with users by a Zipf
/// distribution of skew 1 a cache of a fifteenth of them misses 25% of the time, and 28% with the one "used" mark that also new ones had.
const USES_MAX: u8 = 3;

/// Of the budget: less than this is neither worth a search nor searched for. So what a search costs, a step or a few for each slot, is spread
/// over the loads of a sixteenth of the cache.
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
    /// Slots that the open epoch changed, each once, those among them whose change was taken back.
    touched: Vec<Touched<E>>,
    /// What the record in hand changed, to take it back.
    undo: Vec<Undo<E>>,
    record: u64,
    /// A patch that is being written, and the bytes that it inserts next.
    patch: (Vec<u8>, Vec<u8>),
}

struct Slot<E> {
    key: SmallVec<[u8; SHORT_KEY_BYTES]>,
    entity: Option<E>,
    bytes: usize,
    /// The clock of the last epoch that changed it.
    written: Timestamp,
    /// The last epoch that touched it; the slot is pinned until that epoch is applied.
    touched: Epoch,
    /// Where in that epoch's list, while it is open.
    touched_at: u32,
    uses: u8,
}

/// What the open epoch does to a slot. Most slots are not touched by it, so it is not kept in them.
struct Touched<E> {
    slot: SlotId,
    /// Not when the records that did so were taken back.
    is_changed: bool,
    /// The last record that changed it, so that a record saves it once.
    record: u64,
    /// What it was before the epoch, once that has changed it: the journal says what changed.
    base: Option<E>,
}

struct Undo<E> {
    slot: SlotId,
    entity: Option<E>,
    written: Timestamp,
    was_changed: bool,
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
            touched: Vec::new(),
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
            if !undo.was_changed || mutants::is(Bug::PatchOfLastRecord) {
                self.touched[self.slots[undo.slot as usize].touched_at as usize].base = undo.entity;
            }
        }
    }

    pub(super) fn find(&mut self, key: &[u8]) -> Option<SlotId> {
        let hash = self.hasher.hash_one(key);
        let slot = *self.table.find(hash, |slot| *self.slots[*slot as usize].key == *key)?;
        let uses = &mut self.slots[slot as usize].uses;
        *uses = (*uses + 1).min(USES_MAX);
        Some(slot)
    }

    /// Adds what the state store holds for a key that is not in the cache.
    pub(super) fn insert(&mut self, key: &[u8], entity: Option<E>, written: Timestamp) -> SlotId {
        let bytes = cost(key, entity.as_ref());
        self.bytes += bytes;
        let slot = Slot { key: SmallVec::from_slice(key), entity, bytes, written, touched: Epoch::default(), touched_at: 0, uses: 0 };
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
        if slot.touched != epoch {
            slot.touched = epoch;
            slot.touched_at = u32::try_from(self.touched.len()).expect("there are no more than slots");
            self.pinned_open += slot.bytes;
            self.touched.push(Touched { slot: id, is_changed: false, record: 0, base: None });
        }
        let touched = &mut self.touched[slot.touched_at as usize];
        if touched.record != self.record {
            touched.record = self.record;
            self.undo.push(Undo { slot: id, entity: slot.entity.clone(), written: slot.written, was_changed: touched.is_changed });
        }
        touched.is_changed = true;
        slot.written = clock;
        &mut slot.entity
    }

    /// Takes back what the record in hand changed.
    pub(super) fn undo(&mut self) {
        for undo in self.undo.drain(..) {
            let slot = &mut self.slots[undo.slot as usize];
            (slot.entity, slot.written) = (undo.entity, undo.written);
            let touched = &mut self.touched[slot.touched_at as usize];
            (touched.is_changed, touched.record) = (undo.was_changed, 0);
        }
    }

    /// Encodes everything that the open epoch changed, each entity once: for the state store as values, for the journal as what changed. The epoch
    /// is sealed from here on.
    pub(super) fn encode_changes(&mut self, values: &mut StateBatch, journal: &mut Changes) {
        self.settle();
        self.pinned_open = 0;
        // A store that keeps keys in order searches from the last one on: neighbours cost it half of what keys at random do.
        let slots = &self.slots;
        self.touched.sort_by_cached_key(|touched| beginning_of(&slots[touched.slot as usize].key));
        for Touched { slot, is_changed, base, .. } in self.touched.drain(..) {
            let slot = &mut self.slots[slot as usize];
            if !is_changed {
                // Taken back: it is as the store has it, and need not stay.
                slot.touched = Epoch::default();
                continue;
            }
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
            let bytes = cost(&slot.key, slot.entity.as_ref());
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
        // All around as often as may be needed to count down all uses, and once more.
        let mut turns = (usize::from(USES_MAX) + 1) * self.slots.len();
        while self.bytes > self.bytes_max - least && turns > 0 {
            turns -= 1;
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[self.hand];
            if slot.bytes == 0 || slot.touched > applied {
                continue;
            }
            if slot.uses > 0 {
                slot.uses -= 1;
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
            self.slots[self.hand].key = SmallVec::new();
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

/// What a slot weighs.
fn cost<E: Entity>(key: &[u8], entity: Option<&E>) -> usize {
    let key_elsewhere = if key.len() > SHORT_KEY_BYTES { key.len() } else { 0 };
    SLOT_OVERHEAD_BYTES + key_elsewhere + entity.map_or(size_of::<E>(), Entity::weight)
}

/// What tells the order of most keys.
fn beginning_of(key: &[u8]) -> [u128; 2] {
    let mut bytes = [0; 32];
    let len = key.len().min(bytes.len());
    bytes[..len].copy_from_slice(&key[..len]);
    let (halves, _) = bytes.as_chunks::<16>();
    [u128::from_be_bytes(halves[0]), u128::from_be_bytes(halves[1])]
}
