//! A shard on a database in memory: what it holds (I9), and that what it forgets meanwhile changes nothing (I2).

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::ids::{AssignmentVersion, Incarnation, InputId, Revision, Timeline, WorkerName};

/// A value: bytes whose first one records change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blob(Vec<u8>);

thread_local! {
    /// How often a value was encoded.
    static ENCODED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    /// And decoded, which is how often one was read from the database.
    static DECODED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Entity for Blob {
    fn encode(&self, into: &mut Vec<u8>) {
        ENCODED.set(ENCODED.get() + 1);
        into.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        DECODED.set(DECODED.get() + 1);
        Ok(Self(bytes.to_vec()))
    }

    fn weight(&self) -> usize {
        self.0.capacity()
    }
}

/// A record's key is the entity's; its value's first byte says what to do.
struct Touch;

const TABLE: TableId = TableId::new(1);
const READ: u8 = 0;
const CHANGE: u8 = 1;
const FAIL: u8 = 2;
const REMOVE: u8 = 3;

impl Pipeline for Touch {
    type Entity = Blob;

    fn process(&mut self, record: &InputRecord<'_>, workspace: &mut Workspace<'_, Blob>) -> Result<Verdict, StateError> {
        let key = record.key.unwrap();
        match record.value.unwrap()[0] {
            READ => {
                workspace.get(TABLE, key)?;
            }
            REMOVE => *workspace.update(TABLE, key)? = None,
            what => {
                let blob = workspace.update(TABLE, key)?.get_or_insert_with(|| Blob(vec![0]));
                blob.0[0] = blob.0[0].wrapping_add(1);
                if what == FAIL {
                    workspace.undo();
                    return Ok(Verdict::Rejected);
                }
            }
        }
        Ok(Verdict::Processed)
    }
}

#[derive(Default)]
struct Memory(BTreeMap<Vec<u8>, Vec<u8>>);

impl StateStore for Memory {
    fn get_written(&self, key: &[u8], into: &mut Vec<u8>) -> Result<Option<Timestamp>, StateError> {
        into.clear();
        Ok(self.0.get(key).map(|value| {
            into.extend_from_slice(value);
            Timestamp::default()
        }))
    }

    fn apply(&mut self, changes: &StateBatch, _stamp: &Stamp) -> Result<(), StateError> {
        assert!(changes.iter().is_sorted_by_key(|(key, _)| key), "a store is given its keys in their order");
        for (key, value) in changes.iter() {
            match value {
                Some(value) => self.0.insert(key.to_vec(), value.to_vec()),
                None => self.0.remove(key),
            };
        }
        Ok(())
    }

    fn stamp(&self) -> Result<Option<Stamp>, StateError> {
        Ok(None)
    }

    fn checkpointer(&self) -> Checkpointer {
        unreachable!("no test takes a checkpoint")
    }
}

fn owner() -> Owner {
    Owner {
        timeline: Timeline::new(0),
        shard: ShardId::new(0),
        worker: WorkerName::new("w"),
        incarnation: Incarnation::new("w.1"),
        assignment: AssignmentVersion::new(1),
    }
}

fn shard(store: Memory, cache_bytes_max: usize) -> Shard<Touch, Memory> {
    let head = Stamp {
        owner: owner(),
        epoch: Epoch::default(),
        revision: Revision::new("r"),
        clock: Timestamp::default(),
        positions: Vec::new(),
        topic_ids: Vec::new(),
        books: Books::default(),
        retained: Vec::new(),
        garbage: Vec::new(),
        journal: JournalOffset::default(),
    };
    Shard::new(Touch, store, head, cache_bytes_max)
}

fn state_key(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(TABLE, Partition::new(0), key, &mut bytes);
    bytes
}

/// Feeds a shard as a worker does: one epoch sealed, one open, and no record into one that is full.
struct Driver {
    shard: Shard<Touch, Memory>,
    offset: u64,
    sealed: Option<Epoch>,
    epoch_bytes_max: usize,
    cache_bytes_seen: usize,
}

impl Driver {
    fn new(store: Memory, cache_bytes_max: usize, epoch_bytes_max: usize) -> Self {
        Self { shard: shard(store, cache_bytes_max), offset: 0, sealed: None, epoch_bytes_max, cache_bytes_seen: 0 }
    }

    fn record(&mut self, key: &[u8], value: &[u8]) {
        let record = InputRecord {
            input: InputId::new(0),
            partition: Partition::new(0),
            offset: Offset::new(self.offset),
            timestamp: Timestamp::default(),
            key: Some(key),
            value: Some(value),
            headers: &[],
        };
        self.offset += 1;
        self.shard.process(&record, Timestamp::default()).unwrap();
        self.cache_bytes_seen = self.cache_bytes_seen.max(self.shard.cache_bytes());
        if self.shard.open_bytes() >= self.epoch_bytes_max {
            self.round();
        }
    }

    fn round(&mut self) {
        self.confirm();
        self.sealed = self.shard.seal(&owner(), Timestamp::default(), Annotations::default()).map(|sealed| sealed.epoch);
    }

    fn confirm(&mut self) {
        if let Some(epoch) = self.sealed.take() {
            self.shard.committed(epoch, JournalOffset::default()).unwrap();
        }
    }
}

#[test]
fn small_records_that_touch_large_entities_stay_within_the_cache_and_lose_nothing() {
    // 20 MB of entities of 100 KB, records of 100 bytes; epochs and cache of 1 and 4 MB. Nothing but fullness ends an epoch.
    const ENTITIES: u32 = 200;
    const ENTITY: usize = 100_000;
    for what in [READ, CHANGE, FAIL] {
        let store = Memory((0..ENTITIES).map(|n| (state_key(&n.to_be_bytes()), vec![7; ENTITY])).collect());
        let mut driver = Driver::new(store, 4_000_000, 1_000_000);
        let mut record = vec![0; 96];
        record[0] = what;
        for n in (0..ENTITIES).chain(0..ENTITIES) {
            driver.record(&n.to_be_bytes(), &record);
        }
        // One entity more than the cache holds: the one in hand.
        assert!(driver.cache_bytes_seen < 4_000_000 + 2 * ENTITY, "{what}: {} bytes", driver.cache_bytes_seen);
        driver.round();
        driver.confirm();
        let expected = if what == CHANGE { 9 } else { 7 };
        let store = driver.shard.into_store();
        assert!(store.0.values().all(|value| value[0] == expected && value.len() == ENTITY), "{what}: the state is not what it must be");
    }
}

#[test]
fn whatever_is_evicted_between_two_records_the_state_is_that_of_a_cache_without_bounds() {
    // Random records on few keys, cache and epochs of any size, commits at any time; a map is the oracle.
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let cache_bytes_max = [0, 300, 1_000, 100_000][rng.random_range(0..4)];
        let mut driver = Driver::new(Memory::default(), cache_bytes_max, [1, 500, 5_000][rng.random_range(0..3)]);
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for _ in 0..200 {
            let key = [rng.random_range(b'a'..=b'p')];
            let what = [READ, CHANGE, CHANGE, FAIL, REMOVE][rng.random_range(0..5)];
            driver.record(&key, &[what]);
            match what {
                CHANGE => {
                    let value = model.entry(state_key(&key)).or_insert_with(|| vec![0]);
                    value[0] = value[0].wrapping_add(1);
                }
                REMOVE => {
                    model.remove(&state_key(&key));
                }
                _ => {}
            }
            match rng.random_range(0..8) {
                0 => driver.round(),
                1 => driver.confirm(),
                _ => {}
            }
        }
        driver.round();
        driver.confirm();
        assert_eq!(driver.shard.into_store().0, model, "seed {seed}");
    }
}

/// Method: epochs of many records on few keys; reads, failures and removals among them. Whatever is cached, an epoch encodes each entity that it
/// changed once, and no other.
#[test]
fn an_entity_is_encoded_once_for_each_epoch_that_changed_it() {
    for cache_bytes_max in [0, 100_000] {
        let mut driver = Driver::new(Memory::default(), cache_bytes_max, usize::MAX);
        driver.record(b"failed", &[CHANGE]);
        driver.round();
        driver.confirm();
        for round in 0..3 {
            for _ in 0..10 {
                for key in [b"a", b"b", b"c"] {
                    driver.record(key, &[CHANGE]);
                }
                driver.record(b"read", &[READ]);
                driver.record(b"failed", &[FAIL]);
            }
            driver.record(b"c", &[REMOVE]);
            let before = ENCODED.get();
            driver.round();
            driver.confirm();
            assert_eq!(ENCODED.get() - before, 2, "a and b in round {round}, with a cache of {cache_bytes_max} bytes");
        }
        let before = ENCODED.get();
        driver.record(b"a", &[READ]);
        driver.round();
        driver.confirm();
        assert_eq!(ENCODED.get() - before, 0, "nothing was changed");
    }
    assert_eq!(ENCODED.get(), 2 * (1 + 3 * 2), "records encode nothing");
}

/// Method: ten entities come again and again, each time after more strangers than the cache has room for. They are read from the database once.
#[test]
fn what_is_used_often_outlasts_what_comes_once() {
    let often: Vec<String> = (0..10).map(|number| format!("often-{number}")).collect();
    let stored = often.iter().map(|key| (state_key(key.as_bytes()), vec![0; 100])).collect();
    let mut driver = Driver::new(Memory(stored), 10_000, usize::MAX);
    let room = 10_000 / 100;
    for round in 0..20 {
        for _ in 0..4 {
            often.iter().for_each(|key| driver.record(key.as_bytes(), &[READ]));
        }
        for stranger in 0..room * 2 {
            driver.record(format!("stranger-{round}-{stranger}").as_bytes(), &[READ]);
        }
    }
    assert_eq!(DECODED.get(), often.len());
    assert!(driver.cache_bytes_seen < 10_000 + 300, "{} bytes", driver.cache_bytes_seen);
}
