//! Checkpoints of a real database on their way to an object store in memory and back: how many requests it takes, and what damage does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Barrier;

use forebay_engine::ids::Timestamp;
use forebay_engine::ids::{
    AssignmentVersion, Epoch, Incarnation, JournalOffset, Partition, Revision, ShardId, TableId, Timeline, WorkerName,
};
use forebay_engine::journal::{Books, Owner, Stamp};
use forebay_engine::shard::encode_key;
use forebay_engine::snapshot::{KnownFiles, PACKED_BYTES_MAX, Upload};
use forebay_engine::state::{StateBatch, StateStore};
use forebay_engine::store::{Body, Downloaded, ObjectInfo, Put, StoreError};
use forebay_state::{RocksState, SharedMemory};

use super::*;
use crate::savepoint::Checksums;

/// Counts requests by kind.
#[derive(Default)]
pub(crate) struct Objects {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    requests: Mutex<BTreeMap<&'static str, usize>>,
    /// Downloads wait here for each other.
    together: Option<Barrier>,
}

impl Objects {
    fn count(&self, what: &'static str) {
        *self.requests.lock().unwrap().entry(what).or_default() += 1;
    }

    /// The requests since the last call.
    fn requests(&self) -> BTreeMap<&'static str, usize> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    /// Alters a byte of each object whose key begins so.
    pub(crate) fn damage(&self, prefix: &str) {
        for (_, bytes) in self.objects.lock().unwrap().iter_mut().filter(|(key, _)| key.starts_with(prefix)) {
            bytes[0] ^= 1;
        }
    }

    fn bytes_of(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        let found = self.objects.lock().unwrap().get(key).cloned();
        found.ok_or_else(|| StoreError::NotFound { action: "get", key: key.to_owned() })
    }
}

impl ObjectStore for Objects {
    fn put(&self, key: &str, body: &Body) -> Result<Put, StoreError> {
        self.count("put");
        let read = |path: &PathBuf| std::fs::read(path).unwrap();
        let bytes = match body {
            Body::Bytes(bytes) => bytes.clone(),
            Body::File(path) => read(path),
            Body::Pack(paths) => paths.iter().flat_map(read).collect(),
        };
        let before = self.objects.lock().unwrap().insert(key.to_owned(), bytes);
        assert!(before.is_none(), "{key} comes twice");
        Ok(Put::Created)
    }

    fn get(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        self.count("get");
        self.bytes_of(key)
    }

    fn download(&self, key: &str, to: &Path) -> Result<Downloaded, StoreError> {
        self.count("get");
        if let Some(together) = &self.together {
            together.wait();
        }
        let bytes = self.bytes_of(key)?;
        std::fs::write(to, &bytes).unwrap();
        Ok(Downloaded { size: bytes.len() as u64, crc32: crc32fast::hash(&bytes) })
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.count("list");
        let objects = self.objects.lock().unwrap();
        let of = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(of.map(|(key, bytes)| ObjectInfo { key: key.clone(), size: bytes.len() as u64, modified: Timestamp::default() }).collect())
    }

    fn delete(&self, _keys: &[String]) -> Result<(), StoreError> {
        unreachable!("nothing is deleted here")
    }
}

/// A database, and the checkpoints that were taken of it.
struct Lab {
    dir: tempfile::TempDir,
    memory: SharedMemory,
    database: RocksState,
    objects: Objects,
    epoch: Epoch,
    newest: Option<Manifest>,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let memory = SharedMemory::new(64 << 20, 1).unwrap();
        let database = RocksState::create(&dir.path().join("database"), &memory).unwrap();
        Self { dir, memory, database, objects: Objects::default(), epoch: Epoch::default(), newest: None }
    }

    /// An epoch that changes `entities` of 1000 bytes that do not compress.
    fn apply(&mut self, entities: u32) {
        self.epoch = self.epoch.next();
        let (mut batch, mut key) = (StateBatch::default(), Vec::new());
        let mut noise = self.epoch.get();
        for n in 0..entities {
            encode_key(TableId::new(1), Partition::new(0), &n.to_be_bytes(), &mut key);
            let value: Vec<u8> = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                noise.to_be_bytes()[0]
            })
            .take(1000)
            .collect();
            batch.put(&key, &value);
        }
        self.database.apply(&batch, &stamp(self.epoch)).unwrap();
    }

    fn checkpoint(&mut self, packed_bytes_max: u64) -> Manifest {
        let folder = self.dir.path().join(format!("checkpoint-{}", self.epoch));
        let checkpoint = self.database.checkpointer()(&folder).unwrap();
        let known = self.newest.as_ref().map(KnownFiles::of).unwrap_or_default();
        let (mut number, prefix) = (0, format!("{}-{packed_bytes_max}", self.epoch));
        let upload = Upload {
            store: &self.objects,
            checksum: &mut Checksums,
            known: &known,
            taken_by: &Incarnation::new(format!("w.{packed_bytes_max}")),
            unique: &mut || {
                number += 1;
                format!("{prefix}-{number}")
            },
            packed_bytes_max,
        };
        let manifest = upload.run(&folder, &checkpoint).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        self.newest = Some(manifest.clone());
        manifest
    }

    /// Three checkpoints, of which the newest has a table file of each; every file is an object.
    fn third(&mut self) -> Manifest {
        let mut taken = std::iter::repeat_with(|| {
            self.apply(100);
            self.checkpoint(0)
        });
        taken.nth(2).unwrap()
    }

    /// Makes what lies in the restored folder into a checkpoint; how many objects were downloaded for it.
    fn replaced(&self, manifest: &Manifest) -> usize {
        let folder = self.dir.path().join("restored");
        self.objects.requests();
        replace(&self.objects, manifest, &folder, &|| true).unwrap();
        let downloads = self.objects.requests().remove("get").unwrap_or_default();
        let restored = RocksState::open(&folder, &self.memory).unwrap().unwrap();
        assert_eq!(restored.stamp().unwrap().as_ref(), Some(&manifest.stamp));
        downloads
    }

    /// The table files in the restored folder.
    fn tables(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.dir.path().join("restored")).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "sst")).collect()
    }

    /// What a restore finds, by key and value.
    fn fetched(&self, manifest: &Manifest) -> Result<Vec<(Vec<u8>, Vec<u8>)>, ImportError> {
        let folder = self.dir.path().join("restored");
        RocksState::wipe(&folder).unwrap();
        fetch_all(&self.objects, manifest, &folder, &|| true)?;
        let restored = RocksState::open(&folder, &self.memory).unwrap().unwrap();
        assert_eq!(restored.stamp().unwrap().as_ref(), Some(&manifest.stamp));
        Ok(content(&restored))
    }
}

fn content(database: &RocksState) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = database.scan(&forebay_state::keys::KeyRange::all(), usize::MAX);
    all.map(|entry| entry.map(|entry| (entry.key, entry.value)).unwrap()).collect()
}

pub(crate) fn stamp(epoch: Epoch) -> Stamp {
    let owner = Owner {
        timeline: Timeline::new(0),
        shard: ShardId::new(0),
        worker: WorkerName::new("w"),
        incarnation: Incarnation::new("w.1"),
        assignment: AssignmentVersion::new(1),
    };
    Stamp {
        owner,
        epoch,
        revision: Revision::new("r"),
        clock: Timestamp::default(),
        positions: Vec::new(),
        topic_ids: Vec::new(),
        books: Books::default(),
        retained: Vec::new(),
        garbage: Vec::new(),
        journal: JournalOffset::new(epoch.get()),
    }
}

#[test]
fn a_checkpoint_takes_a_put_for_its_small_files_together_one_for_its_manifest_and_one_for_each_large_file() {
    // Packed and, for comparison, each file by itself.
    let mut counts = Vec::new();
    for packed_bytes_max in [PACKED_BYTES_MAX, 0] {
        let mut lab = Lab::new();
        // A table file of 400 KB, then two of 10 KB.
        let mut puts = Vec::new();
        let mut gets = Vec::new();
        for entities in [400, 10, 10] {
            lab.apply(entities);
            let manifest = lab.checkpoint(packed_bytes_max);
            puts.push(lab.objects.requests()["put"]);
            assert_eq!(lab.fetched(&manifest).unwrap(), content(&lab.database));
            gets.push(lab.objects.requests()["get"]);
        }
        counts.push((puts, gets));
    }
    assert_eq!(counts, [(vec![3, 2, 2], vec![2, 2, 3]), (vec![5, 5, 5], vec![4, 5, 6])]);
}

#[test]
fn a_table_file_in_an_older_pack_is_named_again_and_not_uploaded_again() {
    let mut lab = Lab::new();
    lab.apply(10);
    let first = lab.checkpoint(PACKED_BYTES_MAX);
    lab.apply(10);
    let second = lab.checkpoint(PACKED_BYTES_MAX);
    let tables = |manifest: &Manifest| manifest.files.iter().filter(|file| file.immutable).cloned().collect::<Vec<_>>();
    assert_eq!(tables(&second)[..1], tables(&first)[..]);
    assert_eq!(lab.fetched(&second).unwrap(), content(&lab.database));
}

#[test]
fn what_is_damaged_missing_or_no_file_name_is_said_and_no_database() {
    let mut lab = Lab::new();
    lab.apply(100);
    let manifest = lab.checkpoint(PACKED_BYTES_MAX);
    let keys: Vec<String> = manifest.objects().into_keys().map(str::to_owned).collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        let whole = lab.objects.bytes_of(&key).unwrap();
        let mut flipped = whole.clone();
        flipped[0] ^= 1;
        let longer = [&whole[..], b"x"].concat();
        for bytes in [Some(flipped), Some(whole[..whole.len() - 1].to_vec()), Some(longer), None] {
            let is_longer_pack = bytes.as_ref().is_some_and(|bytes| bytes.len() > whole.len()) && manifest.objects()[&key[..]].len() > 1;
            match bytes {
                Some(bytes) => lab.objects.objects.lock().unwrap().insert(key.clone(), bytes),
                None => lab.objects.objects.lock().unwrap().remove(&key),
            };
            let fetched = lab.fetched(&manifest);
            assert_eq!(
                RocksState::is_in(&lab.dir.path().join("restored")).unwrap(),
                fetched.is_ok(),
                "{key}: damage is taken for a database"
            );
            match fetched {
                Err(ImportError::Damaged(reason)) => assert!(reason.contains(&key), "{reason}"),
                Err(ImportError::Store(StoreError::NotFound { key: missing, .. })) => assert_eq!(missing, key),
                Ok(_) if is_longer_pack => {}
                other => panic!("{key}: {other:?}"),
            }
        }
        lab.objects.objects.lock().unwrap().insert(key, whole);
    }
    for name in ["../x", "a/b", "..", ""] {
        let mut manifest = manifest.clone();
        manifest.files[0].name = name.into();
        assert!(matches!(lab.fetched(&manifest), Err(ImportError::Damaged(_))), "{name:?}");
    }
}

#[test]
fn several_objects_are_on_their_way_at_once_and_no_more_than_allowed() {
    // Downloads wait until there are as many as allowed: fewer at a time would never end, more would leave some waiting for ever.
    let mut lab = Lab::new();
    let manifest = lab.third();
    let mut waiting = manifest.clone();
    waiting.files.retain(|file| file.immutable || file.name.starts_with("MANIFEST"));
    assert_eq!(waiting.objects().len(), DOWNLOADS_MAX, "three table files and a manifest");
    lab.objects.together = Some(Barrier::new(DOWNLOADS_MAX));
    fetch_all(&lab.objects, &waiting, &lab.dir.path().join("together"), &|| true).unwrap();
}

/// Method: every file is an object. A checkpoint replaces an older one that was opened meanwhile, and itself.
#[test]
fn what_an_older_checkpoint_left_is_not_downloaded_again() {
    let mut lab = Lab::new();
    lab.apply(400);
    let first = lab.checkpoint(0);
    lab.apply(10);
    let second = lab.checkpoint(0);
    assert_eq!((first.files.len(), second.files.len()), (4, 5), "a table file, two, and three that change each time");
    assert_eq!(lab.replaced(&first), 4);
    assert_eq!(lab.replaced(&second), 4);
    assert_eq!(lab.replaced(&second), 3);
    assert_eq!(lab.fetched(&second).unwrap(), content(&lab.database));
}

/// Method: a table file of the right name and size has another byte, and another name on the disk.
#[test]
fn what_only_looks_the_same_is_downloaded_and_its_other_names_stay_as_they_are() {
    let mut lab = Lab::new();
    lab.apply(400);
    let manifest = lab.checkpoint(0);
    lab.replaced(&manifest);
    let [table] = lab.tables().try_into().unwrap();
    let other = lab.dir.path().join("other");
    std::fs::hard_link(&table, &other).unwrap();
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&table, &bytes).unwrap();
    assert_eq!(lab.replaced(&manifest), 4);
    assert_ne!(std::fs::read(&table).unwrap(), bytes);
    assert_eq!(std::fs::read(&other).unwrap(), bytes);
}

/// Method: three table files are downloaded; after two of them nobody waits for it any longer.
#[test]
fn what_was_downloaded_before_an_interruption_is_not_downloaded_again() {
    let mut lab = Lab::new();
    let (manifest, asked) = (lab.third(), AtomicUsize::new(0));
    let mut tables = manifest.clone();
    tables.files.retain(|file| file.immutable);
    let is_wanted = || asked.fetch_add(1, Ordering::Relaxed) < 2;
    assert!(replace(&lab.objects, &tables, &lab.dir.path().join("restored"), &is_wanted).is_err());
    assert_eq!((tables.files.len(), lab.tables().len()), (3, 2));
    assert_eq!(lab.replaced(&manifest), manifest.files.len() - 2);
    assert_eq!(lab.fetched(&manifest).unwrap(), content(&lab.database));
}
