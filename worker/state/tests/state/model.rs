//! The oracle: epochs whose changes follow from a seed, and the state that they must make.

use std::collections::BTreeMap;

use forebay_engine::ids::{
    AssignmentVersion, Epoch, Incarnation, InputId, JournalOffset, Offset, Partition, Revision, ShardId, TableId, Timeline, Timestamp,
    WorkerName,
};
use forebay_engine::journal::{Books, Owner, Stamp};
use forebay_engine::log::InputPosition;
use forebay_engine::shard::encode_key;
use forebay_engine::state::{StateBatch, StateStore};
use forebay_state::keys::KeyRange;
use forebay_state::{Entry, MEMORY_BYTES_MIN, RocksState, SharedMemory, StateReader};

pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// The least memory there can be, so that databases flush and compact all the time.
pub fn small_memory() -> SharedMemory {
    SharedMemory::new(MEMORY_BYTES_MIN, 2).unwrap()
}

/// Random numbers that follow from a seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

pub fn key(table: u16, partition: u32, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(TableId::new(table), Partition::new(partition), key, &mut bytes);
    bytes
}

pub fn stamp(epoch: u64) -> Stamp {
    Stamp {
        owner: Owner {
            timeline: Timeline::new(0),
            shard: ShardId::new(3),
            worker: WorkerName::new("w0"),
            incarnation: Incarnation::new("w0.1"),
            assignment: AssignmentVersion::new(1),
        },
        epoch: Epoch::new(epoch),
        revision: Revision::new("r1"),
        clock: Timestamp::from_millis(i64::try_from(epoch).unwrap() * 100),
        positions: vec![InputPosition { input: InputId::new(0), partition: Partition::new(3), next: Offset::new(epoch * 10) }],
        topic_ids: vec!["t".into()],
        books: Books { records_in: epoch, processed: epoch, ..Books::default() },
        retained: vec![],
        garbage: vec![],
        journal: JournalOffset::new(epoch * 2),
    }
}

/// What epoch `epoch` changes: some of 400 keys are put, some deleted; values do not compress and name their epoch.
pub fn changes(seed: u64, epoch: u64) -> StateBatch {
    let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(epoch));
    let mut batch = StateBatch::default();
    for _ in 0..20 + random.below(40) {
        let number = random.below(400);
        let key = key(u16::try_from(number % 3).unwrap(), u32::try_from(number % 2).unwrap(), format!("user-{number}").as_bytes());
        if random.below(4) == 0 {
            batch.delete(&key);
        } else {
            let mut value = epoch.to_be_bytes().to_vec();
            value.extend((0..random.below(300)).map(|_| random.below(256) as u8));
            batch.put(&key, &value);
        }
    }
    batch
}

/// Applies one epoch of the model to a store.
pub fn apply(store: &mut RocksState, seed: u64, epoch: u64) {
    store.apply(&changes(seed, epoch), &stamp(epoch)).unwrap();
}

/// The state after each epoch, in turn.
pub struct Model {
    seed: u64,
    pub epoch: u64,
    pub state: State,
}

impl Model {
    pub fn new(seed: u64) -> Self {
        Self { seed, epoch: 0, state: State::new() }
    }

    pub fn at(seed: u64, epoch: u64) -> Self {
        let mut model = Self::new(seed);
        model.advance_to(epoch);
        model
    }

    pub fn advance_to(&mut self, epoch: u64) {
        assert!(self.epoch <= epoch, "the model is at epoch {} and cannot go back to {epoch}", self.epoch);
        while self.epoch < epoch {
            self.epoch += 1;
            for (key, value) in changes(self.seed, self.epoch).iter() {
                match value {
                    Some(value) => self.state.insert(key.to_vec(), value.to_vec()),
                    None => self.state.remove(key),
                };
            }
        }
    }
}

/// All state of a store, by a scan.
pub fn dump(store: &RocksState) -> State {
    collect(store.scan(&KeyRange::all(), usize::MAX).map(Result::unwrap))
}

/// All state of a folder, read-only, with its epoch.
pub fn dump_folder(reader: &StateReader) -> (Stamp, State) {
    let state = collect(reader.scan(&KeyRange::all(), usize::MAX).map(Result::unwrap));
    (reader.stamp().unwrap().unwrap(), state)
}

pub fn collect(entries: impl Iterator<Item = Entry>) -> State {
    entries.map(|entry| (key(entry.table.get(), entry.partition.get(), &entry.key), entry.value)).collect()
}

/// Compares states without printing megabytes.
pub fn assert_same(found: &State, expected: &State, what: &str) {
    let wrong: Vec<_> = expected.keys().chain(found.keys()).filter(|key| found.get(*key) != expected.get(*key)).collect();
    let epoch_of = |value: Option<&Vec<u8>>| value.map(|value| u64::from_be_bytes(*value.first_chunk().unwrap()));
    let first = wrong.first().map(|key| (key, epoch_of(found.get(*key)), epoch_of(expected.get(*key))));
    assert!(wrong.is_empty(), "{what}: {} keys differ; the first with the epochs of its value, found and expected: {first:?}", wrong.len());
}
