//! Entities that are over: gone for every reader at the same clock, whatever compactions removed, and wherever the state was restored from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_engine::ids::{Epoch, InputId, JournalOffset, Offset, Partition, ShardId, TableId, Timeline, Timestamp};
use forebay_engine::journal::{Books, Stamp};
use forebay_engine::lifetimes::Lifetimes;
use forebay_engine::log::{JournalEntry, JournalRange, LogError, View};
use forebay_engine::manifest::{Manifest, RetainedCheckpoint};
use forebay_engine::pipeline::{Entity, Pipeline, Verdict, Workspace};
use forebay_engine::record::InputRecord;
use forebay_engine::restore::{ImportError, RestoreNote, RestorePorts, restore};
use forebay_engine::shard::{Annotations, Shard};
use forebay_engine::state::{StateBatch, StateError, StateStore};
use forebay_engine::store::StoreError;
use forebay_state::keys::KeyRange;
use forebay_state::{RocksState, SharedMemory, StateReader};
use tempfile::{TempDir, tempdir};

use crate::model::{Random, key, small_memory, stamp};

/// Of table 1; table 2 has none.
const LIFETIME: i64 = 1000;

fn lifetimes() -> Lifetimes {
    Lifetimes::new([(TableId::new(1), Duration::from_millis(LIFETIME.unsigned_abs()))])
}

fn memory() -> SharedMemory {
    small_memory().with_lifetimes(lifetimes())
}

fn stamp_at(epoch: u64, clock: i64) -> Stamp {
    Stamp { clock: Timestamp::from_millis(clock), ..stamp(epoch) }
}

fn put(store: &mut RocksState, epoch: u64, clock: i64, keys: &[Vec<u8>]) {
    let mut batch = StateBatch::default();
    keys.iter().for_each(|key| batch.put(key, b"value"));
    store.apply(&batch, &stamp_at(epoch, clock)).unwrap();
}

fn keys_in(store: &RocksState) -> Vec<Vec<u8>> {
    let entries = store.scan(&KeyRange::all(), usize::MAX).map(Result::unwrap);
    entries.map(|entry| key(entry.table.get(), entry.partition.get(), &entry.key)).collect()
}

#[test]
fn a_compaction_removes_exactly_what_is_over_by_the_clock_of_an_epoch_in_the_files() {
    // Three entities, one of them in a table without lifetimes; clocks around the boundary.
    let dir = tempdir().unwrap();
    let mut store = RocksState::create(&dir.path().join("db"), &memory()).unwrap();
    let (old, young, eternal) = (key(1, 0, b"old"), key(1, 0, b"young"), key(2, 0, b"eternal"));
    put(&mut store, 1, 5_000, &[old.clone(), eternal.clone()]);
    put(&mut store, 2, 5_001, std::slice::from_ref(&young));
    let take = |store: &RocksState, name: &str| store.checkpointer()(&dir.path().join(name)).unwrap();
    take(&store, "c1");
    // Over by the clock of an epoch that may not lie in the files yet: what a crash leaves must hold it.
    put(&mut store, 3, 5_000 + LIFETIME, &[]);
    store.compact();
    assert_eq!(keys_in(&store), [old.clone(), young.clone(), eternal.clone()]);
    // Not shown all the same, to the millisecond.
    let reader = |name: &str| StateReader::open(&dir.path().join(name)).unwrap().unwrap().with_lifetimes(lifetimes());
    let shown = |reader: &StateReader, key: &[u8]| reader.get(key, &mut Vec::new()).unwrap();
    take(&store, "c2");
    assert!(shown(&reader("c1"), &old));
    assert!(!shown(&reader("c2"), &old) && shown(&reader("c2"), &young) && shown(&reader("c2"), &eternal));
    let scanned: Vec<_> = reader("c2").scan(&KeyRange::all(), 10).map(|entry| entry.unwrap().key).collect();
    assert_eq!(scanned, [b"young".to_vec(), b"eternal".to_vec()]);
    // The checkpoint has told that epoch 3 lies in the files.
    store.compact();
    assert_eq!(keys_in(&store), [young, eternal]);
}

#[test]
fn a_database_that_is_opened_again_goes_on_removing_after_its_first_checkpoint() {
    // The journal behind it may patch what is over by now: it was written when the lifetime was longer.
    let dir = tempdir().unwrap();
    let folder = dir.path().join("db");
    let mut store = RocksState::create(&folder, &small_memory()).unwrap();
    put(&mut store, 1, 0, &[key(1, 0, b"old")]);
    put(&mut store, 2, LIFETIME, &[]);
    drop(store);
    let store = RocksState::open(&folder, &memory()).unwrap().unwrap();
    store.compact();
    assert_eq!(keys_in(&store), [key(1, 0, b"old")]);
    store.checkpointer()(&dir.path().join("checkpoint")).unwrap();
    store.compact();
    assert_eq!(keys_in(&store), Vec::<Vec<u8>>::new());
}

/// Counts the records of each key.
#[derive(Clone)]
struct Count(u64);

impl Entity for Count {
    fn encode(&self, into: &mut Vec<u8>) {
        into.push(1);
        into.extend_from_slice(&self.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        Ok(Self(u64::from_be_bytes(bytes[1..].try_into().map_err(|_| "not eight bytes")?)))
    }

    fn weight(&self) -> usize {
        8
    }
}

/// A record with a value counts; one without only looks. What each saw, in turn.
struct Counter(Arc<Mutex<Vec<Option<u64>>>>);

impl Pipeline for Counter {
    type Entity = Count;

    fn process(&mut self, record: &InputRecord<'_>, workspace: &mut Workspace<'_, Count>) -> Result<Verdict, StateError> {
        let key = record.key.unwrap();
        self.0.lock().unwrap().push(workspace.get(TableId::new(1), key)?.map(|count| count.0));
        if record.value.is_some() {
            workspace.update(TableId::new(1), key)?.get_or_insert(Count(0)).0 += 1;
        }
        Ok(Verdict::Processed)
    }
}

/// A worker's disk, its journal, and the one checkpoint that counts.
struct World {
    folder: PathBuf,
    checkpoint: Option<(Stamp, PathBuf)>,
    journal: Vec<JournalEntry>,
}

impl RestorePorts for World {
    type Store = RocksState;

    fn timeline(&self) -> Timeline {
        Timeline::new(0)
    }

    fn topic_ids(&self) -> &[String] {
        &[]
    }

    fn read_journal(&mut self, from: JournalOffset, _: View, each: &mut dyn FnMut(JournalEntry)) -> Result<JournalRange, LogError> {
        self.journal.iter().filter(|entry| entry.offset >= from).cloned().for_each(each);
        self.journal_range()
    }

    fn journal_range(&mut self) -> Result<JournalRange, LogError> {
        Ok(JournalRange { start: JournalOffset::default(), end: JournalOffset::new(self.journal.len() as u64) })
    }

    fn newest_manifest(&mut self) -> Result<Option<Manifest>, StoreError> {
        Ok(None)
    }

    fn manifest(&mut self, checkpoint: &RetainedCheckpoint) -> Result<Manifest, StoreError> {
        let (stamp, _) = self.checkpoint.clone().expect("it is on the list");
        Ok(Manifest { format: 1, engine: String::new(), stamp, taken_by: checkpoint.incarnation.clone(), files: Vec::new() })
    }

    fn open_local(&mut self) -> Result<Option<RocksState>, StateError> {
        RocksState::open(&self.folder, &memory())
    }

    fn create(&mut self) -> Result<RocksState, StateError> {
        RocksState::wipe(&self.folder)?;
        RocksState::create(&self.folder, &memory())
    }

    fn import(&mut self, _: &Manifest) -> Result<RocksState, ImportError> {
        RocksState::wipe(&self.folder)?;
        copy(&self.checkpoint.as_ref().expect("it is on the list").1, &self.folder);
        Ok(RocksState::open(&self.folder, &memory())?.expect("it was just copied"))
    }

    fn note(&mut self, _: RestoreNote) {}
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A shard that is run by one worker after the other.
struct Life {
    dir: TempDir,
    random: Random,
    world: World,
    seen: Arc<Mutex<Vec<Option<u64>>>>,
    /// Each key's count, and the clock of its last change.
    model: BTreeMap<Vec<u8>, (u64, i64)>,
    now: i64,
    offset: u64,
    folders: u32,
    /// What a crash would leave.
    flushed: Option<PathBuf>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let dir = tempdir().unwrap();
        let world = World { folder: dir.path().join("db"), checkpoint: None, journal: Vec::new() };
        Self {
            dir,
            random: Random(seed),
            world,
            seen: Arc::default(),
            model: BTreeMap::new(),
            now: 0,
            offset: 0,
            folders: 0,
            flushed: None,
        }
    }

    fn open(&mut self) -> Shard<Counter, RocksState> {
        let restored = restore(&mut self.world, ShardId::new(3)).unwrap();
        let head = restored.head.unwrap_or_else(|| Stamp { epoch: Epoch::default(), books: Books::default(), ..stamp_at(0, 0) });
        let head = Stamp { positions: Vec::new(), ..head };
        Shard::new(Counter(self.seen.clone()), restored.store, head, 500).with_lifetimes(lifetimes())
    }

    fn new_folder(&mut self) -> PathBuf {
        self.folders += 1;
        self.dir.path().join(format!("folder-{}", self.folders))
    }

    /// Some records: what they saw, and what they should have seen.
    fn records(&mut self, shard: &mut Shard<Counter, RocksState>) -> (Vec<Option<u64>>, Vec<Option<u64>>) {
        let clock = self.now.max(shard.head().clock.as_millis());
        let mut expected = Vec::new();
        for _ in 0..self.random.below(6) {
            let name = format!("key-{}", self.random.below(12)).into_bytes();
            let counts = self.random.below(3) > 0;
            let count = self.model.get(&name).filter(|(_, written)| written + LIFETIME > clock).map(|(count, _)| *count);
            expected.push(count);
            if counts {
                self.model.insert(name.clone(), (count.unwrap_or(0) + 1, clock));
            }
            let record = InputRecord {
                input: InputId::new(0),
                partition: Partition::new(3),
                offset: Offset::new(self.offset),
                timestamp: Timestamp::default(),
                key: Some(&name),
                value: counts.then_some(b"x"),
                headers: &[],
            };
            self.offset += 1;
            shard.process(&record, Timestamp::from_millis(self.now)).unwrap();
        }
        (std::mem::take(&mut *self.seen.lock().unwrap()), expected)
    }

    fn commit(&mut self, shard: &mut Shard<Counter, RocksState>) {
        let counts = |(stamp, _): &(Stamp, PathBuf)| RetainedCheckpoint {
            epoch: stamp.epoch,
            incarnation: stamp.owner.incarnation.clone(),
            journal: stamp.journal,
        };
        let annotations = Annotations { retained: Some(self.world.checkpoint.iter().map(counts).collect()), garbage: Vec::new() };
        let owner = shard.head().owner.clone();
        let sealed = shard.seal(&owner, Timestamp::from_millis(self.now), annotations).expect("it says something");
        let journal = &mut self.world.journal;
        for bytes in sealed.journal {
            journal.push(JournalEntry { offset: JournalOffset::new(journal.len() as u64), bytes });
        }
        shard.committed(sealed.epoch, JournalOffset::new(journal.len() as u64)).unwrap();
    }

    /// What happens between two epochs.
    fn fate(&mut self, shard: Shard<Counter, RocksState>) -> Shard<Counter, RocksState> {
        match self.random.below(8) {
            0 => {
                let folder = self.new_folder();
                let checkpoint = shard.checkpointer()(&folder).unwrap();
                self.world.checkpoint = Some((checkpoint.stamp, folder));
                return shard;
            }
            1 => shard.into_store().compact(),
            2 => {
                // Killed: the disk holds what was flushed last.
                drop(shard);
                self.world.folder = self.flushed.take().unwrap_or_else(|| self.new_folder());
            }
            3 => {
                // Moved to an empty disk of a machine whose clock is behind.
                drop(shard);
                self.world.folder = self.new_folder();
                self.now -= 500;
                self.flushed = None;
            }
            4 => {
                let folder = self.new_folder();
                shard.checkpointer()(&folder).unwrap();
                self.flushed = Some(folder);
                return shard;
            }
            _ => return shard,
        }
        self.open()
    }
}

#[test]
fn every_read_sees_the_same_whatever_was_compacted_crashed_or_restored_and_however_clocks_differ() {
    // Random records, commits, compactions, checkpoints, crashes and moves to machines whose clocks are behind; a map with clocks is the oracle.
    for seed in 0..6 {
        let mut life = Life::new(seed);
        let mut shard = life.open();
        for step in 0..100 {
            life.now += i64::try_from(life.random.below(300)).unwrap();
            let (seen, expected) = life.records(&mut shard);
            assert_eq!(seen, expected, "seed {seed}, step {step}");
            life.commit(&mut shard);
            shard = life.fate(shard);
        }
    }
}
