//! Savepoints: copies of a job's checkpoints, one of each shard, that need nothing of the job and outlive it; and the first checkpoints of a new job,
//! made from one.
//!
//! A savepoint is laid out as a job's own prefix is, and its manifest, `savepoint.json`, is written last, create-only: without it there is none.
//! Whoever makes it reads what the object store has and asks no worker, so it can be made of a job that rests.

use std::collections::BTreeSet;
use std::path::Path;

use forebay_engine::ids::{AssignmentVersion, Epoch, Incarnation, JournalOffset, ShardId, Timeline, WorkerName};
use forebay_engine::journal::{Owner, Stamp};
use forebay_engine::manifest::{Manifest, RetainedCheckpoint, manifest_key};
use forebay_engine::restore::ImportError;
use forebay_engine::snapshot::{ChecksumFile, KnownFiles, PACKED_BYTES_MAX, SnapshotError, Upload};
use forebay_engine::state::{StateBatch, StateError, StateStore};
use forebay_engine::store::{Body, ObjectStore, Put, StoreError};
use forebay_state::{MEMORY_BYTES_MIN, RocksState, SharedMemory};
use serde::{Deserialize, Serialize};

use crate::fetch::{fetch_all, fetch_object};
use crate::restorer::{checksum, newest_manifest};

/// The format that this version writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
/// The object that makes a savepoint of what lies beside it.
const MANIFEST: &str = "savepoint.json";
/// What the first owner of a new job's shards calls itself: it is nobody, and is barred at no cost.
const SEEDER: &str = "savepoint";

/// A job's state, shard by shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Savepoint {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the engine that wrote it.
    pub engine: String,
    /// The uid of the job that it is of.
    pub job: String,
    /// One checkpoint of each shard that has any state, in their order. They are of different moments: without loops between shards that is no matter.
    pub shards: Vec<SavedShard>,
}

/// A checkpoint in a savepoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedShard {
    /// The shard.
    pub shard: ShardId,
    /// The epoch whose state it holds.
    pub epoch: Epoch,
    /// Who took it.
    pub incarnation: Incarnation,
    /// How many records are in its books.
    pub records_in: u64,
    /// How many bytes its files have.
    pub bytes: u64,
}

/// Why a savepoint was not made, or not used.
#[derive(Debug, thiserror::Error)]
pub enum SavepointError {
    /// The object store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A shard's first checkpoint is still to come.
    #[error("shard {shard} has no checkpoint yet; the first comes within the checkpoint interval after its first epoch, try again then")]
    NoCheckpoint {
        /// The shard.
        shard: ShardId,
    },
    /// An object is not what its manifest says.
    #[error("{reason}; `forebay snapshot verify` lists all that is damaged. Try again after the next checkpoint")]
    Damaged {
        /// Which, and what is wrong with it.
        reason: String,
    },
    /// There is no savepoint, or it cannot be read.
    #[error("read the savepoint: {reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
    /// The local disk.
    #[error("{action}: {reason}")]
    Disk {
        /// What was attempted.
        action: &'static str,
        /// The system's words.
        reason: String,
    },
    /// The files are not brought in.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The database.
    #[error(transparent)]
    State(#[from] StateError),
    /// The new job's checkpoint.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// The savepoint in a store that is rooted where it lies; `None` if there is none.
pub fn read(store: &dyn ObjectStore) -> Result<Option<Savepoint>, SavepointError> {
    let bytes = match store.get(MANIFEST) {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let unreadable = |reason: String| SavepointError::Unreadable { reason };
    let savepoint: Savepoint = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if savepoint.format != FORMAT {
        let reason =
            format!("format {} is unknown to this version, which reads format {FORMAT}; use the version that wrote it", savepoint.format);
        return Err(unreadable(reason));
    }
    Ok(Some(savepoint))
}

/// Copies the newest checkpoint of each of these shards from a job's store to `to`, by way of files in `scratch`. One that is there already is returned as it
/// is: a savepoint never changes. Only a shard that has never committed an epoch may be left out.
pub fn take(
    from: &dyn ObjectStore,
    to: &dyn ObjectStore,
    job: &str,
    shards: impl Iterator<Item = ShardId>,
    scratch: &Path,
) -> Result<Savepoint, SavepointError> {
    make(to, job, shards, |shard| copy(from, to, shard, scratch).map(Some))
}

/// Makes a savepoint of what `save` puts to `to`, shard by shard; `None`: the shard has never committed an epoch. One that is there already is returned as it is.
pub fn make<E: From<SavepointError>>(
    to: &dyn ObjectStore,
    job: &str,
    shards: impl Iterator<Item = ShardId>,
    mut save: impl FnMut(ShardId) -> Result<Option<SavedShard>, E>,
) -> Result<Savepoint, E> {
    if let Some(savepoint) = read(to)? {
        return Ok(savepoint);
    }
    let shards = shards.filter_map(|shard| save(shard).transpose()).collect::<Result<_, E>>()?;
    let savepoint = Savepoint { format: FORMAT, engine: env!("CARGO_PKG_VERSION").to_owned(), job: job.to_owned(), shards };
    let bytes = serde_json::to_vec_pretty(&savepoint).expect("a savepoint has string keys only");
    match to.put(MANIFEST, &Body::Bytes(bytes)).map_err(SavepointError::from)? {
        Put::Created => Ok(savepoint),
        // Somebody else was faster, or the first reply was lost.
        Put::AlreadyThere => Ok(read(to)?.unwrap_or(savepoint)),
    }
}

/// Deletes a savepoint, its manifest first: what is left of one that is half gone is none. Returns how many objects there were.
pub fn delete(store: &dyn ObjectStore) -> Result<usize, SavepointError> {
    store.delete(&[MANIFEST.to_owned()])?;
    let keys: Vec<String> = store.list("")?.into_iter().map(|object| object.key).collect();
    store.delete(&keys)?;
    Ok(keys.len())
}

/// Makes a shard's first checkpoint in a new history's store out of the one in a savepoint. The same positions, books and state; another owner and
/// journal. Returns what it holds.
pub fn seed(
    savepoint: &dyn ObjectStore,
    saved: &SavedShard,
    (to, timeline): (&dyn ObjectStore, Timeline),
    by: &Incarnation,
    scratch: &Path,
) -> Result<Stamp, SavepointError> {
    let manifest = decode(savepoint, &manifest_key(saved.shard, saved.epoch, &saved.incarnation))?;
    let database = scratch.join("database");
    fetch_all(savepoint, &manifest, &database, &|| true)?;
    let memory = SharedMemory::new(MEMORY_BYTES_MIN, 2)?;
    let unreadable = || SavepointError::Unreadable { reason: format!("the files of shard {} are no database", saved.shard) };
    let state = RocksState::open(&database, &memory)?.ok_or_else(unreadable)?;
    seed_with(state, manifest.stamp, (to, timeline), by, &scratch.join("checkpoint"))
}

/// Makes a shard's first checkpoint in a new history's store out of a database that holds `was`, by way of the folder `checkpoint`.
pub(crate) fn seed_with(
    mut state: RocksState,
    was: Stamp,
    (to, timeline): (&dyn ObjectStore, Timeline),
    by: &Incarnation,
    checkpoint: &Path,
) -> Result<Stamp, SavepointError> {
    state.apply(&StateBatch::default(), &first_stamp(was, timeline, by))?;
    let taken = state.checkpointer()(checkpoint)?;
    let mut unique = || uuid::Uuid::new_v4().simple().to_string();
    let upload = Upload {
        store: to,
        checksum: &mut Checksums,
        known: &KnownFiles::default(),
        taken_by: by,
        unique: &mut unique,
        packed_bytes_max: PACKED_BYTES_MAX,
    };
    Ok(upload.run(checkpoint, &taken)?.stamp)
}

/// What a process that makes first checkpoints signs them with.
pub fn seeder() -> Incarnation {
    Incarnation::new(format!("{SEEDER}.{}", uuid::Uuid::new_v4().simple()))
}

/// The epoch goes on counting. The checkpoint names itself among those that count: the new journal says nothing about it before the first epoch, and
/// holds nothing of what came before.
fn first_stamp(was: Stamp, timeline: Timeline, by: &Incarnation) -> Stamp {
    let owner = Owner {
        timeline,
        shard: was.owner.shard,
        worker: WorkerName::new(SEEDER),
        incarnation: by.clone(),
        assignment: AssignmentVersion::new(0),
    };
    let itself = RetainedCheckpoint { epoch: was.epoch, incarnation: by.clone(), journal: JournalOffset::default() };
    let mut topic_ids = was.topic_ids;
    // The last one is that of the old journal.
    if let Some(journal) = topic_ids.last_mut() {
        journal.clear();
    }
    Stamp { owner, topic_ids, retained: vec![itself], garbage: Vec::new(), journal: JournalOffset::default(), ..was }
}

/// Copies the newest checkpoint of a shard. The job goes on meanwhile: what it does not need any more may be gone before it is copied, and then the
/// checkpoint that is the newest by then is gone on with, of which most is copied already.
fn copy(from: &dyn ObjectStore, to: &dyn ObjectStore, shard: ShardId, scratch: &Path) -> Result<SavedShard, SavepointError> {
    let mut copied = BTreeSet::new();
    let mut manifest = newest_manifest(from, shard)?.ok_or(SavepointError::NoCheckpoint { shard })?;
    while let Err(error) = copy_objects(from, to, &manifest, &mut copied, scratch) {
        let newest = newest_manifest(from, shard)?.filter(|newest| newest.retained() != manifest.retained());
        match (error, newest) {
            (SavepointError::Import(ImportError::Store(StoreError::NotFound { .. })), Some(newest)) => manifest = newest,
            (error, _) => return Err(error),
        }
    }
    let objects = manifest.objects();
    let left: Vec<String> = copied.into_iter().filter(|object| !objects.contains_key(object.as_str())).collect();
    if !left.is_empty()
        && let Err(error) = to.delete(&left)
    {
        tracing::warn!(%shard, %error, objects = left.len(), "copies that the savepoint does not need are left in it");
    }
    to.put(&manifest_key(shard, manifest.stamp.epoch, &manifest.taken_by), &Body::Bytes(manifest.encode()))?;
    Ok(saved(shard, &manifest))
}

/// How a savepoint names a checkpoint that lies beside it: that of this epoch, which `by` has taken.
pub(crate) fn find(store: &dyn ObjectStore, shard: ShardId, epoch: Epoch, by: &Incarnation) -> Result<SavedShard, SavepointError> {
    Ok(saved(shard, &decode(store, &manifest_key(shard, epoch, by))?))
}

fn saved(shard: ShardId, manifest: &Manifest) -> SavedShard {
    SavedShard {
        shard,
        epoch: manifest.stamp.epoch,
        incarnation: manifest.taken_by.clone(),
        records_in: manifest.stamp.books.records_in,
        bytes: manifest.files.iter().map(|file| file.size).sum(),
    }
}

fn copy_objects(
    from: &dyn ObjectStore,
    to: &dyn ObjectStore,
    manifest: &Manifest,
    copied: &mut BTreeSet<String>,
    scratch: &Path,
) -> Result<(), SavepointError> {
    let file = scratch.join("object");
    for (object, files) in manifest.objects().into_iter().filter(|(object, _)| !copied.contains(*object)).collect::<Vec<_>>() {
        match fetch_object(from, object, &files, &file) {
            Ok(_) => {}
            Err(ImportError::Damaged(reason)) => return Err(SavepointError::Damaged { reason }),
            Err(error) => return Err(error.into()),
        }
        to.put(object, &Body::File(file.clone()))?;
        copied.insert(object.to_owned());
        std::fs::remove_file(&file).map_err(disk("remove a downloaded file"))?;
    }
    Ok(())
}

fn decode(store: &dyn ObjectStore, key: &str) -> Result<Manifest, SavepointError> {
    Manifest::decode(&store.get(key)?).map_err(|reason| SavepointError::Unreadable { reason: format!("object {key}: {reason}") })
}

fn disk(action: &'static str) -> impl Fn(std::io::Error) -> SavepointError {
    move |error| SavepointError::Disk { action, reason: error.to_string() }
}

/// Of files that nobody has read before.
pub(crate) struct Checksums;

impl ChecksumFile for Checksums {
    fn crc32(&mut self, path: &Path) -> Result<u32, String> {
        checksum(path).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    //! Method: a checkpoint of a real database goes into an object store in memory, from there into a savepoint, and from that into a new job's store.

    use std::sync::atomic::{AtomicUsize, Ordering};

    use forebay_engine::ids::Partition;
    use forebay_engine::ids::TableId;
    use forebay_engine::shard::encode_key;
    use forebay_engine::store::{Downloaded, ObjectInfo, Put};

    use super::*;
    use crate::fetch::tests::{Objects, stamp};

    fn key() -> Vec<u8> {
        let mut key = Vec::new();
        encode_key(TableId::new(0), Partition::new(0), b"n1", &mut key);
        key
    }

    /// A job's store with one checkpoint of shard 0, which holds one entity.
    fn job() -> (Objects, Stamp) {
        job_at(Epoch::new(7))
    }

    fn job_at(epoch: Epoch) -> (Objects, Stamp) {
        let (store, dir) = (Objects::default(), tempfile::tempdir().unwrap());
        let mut head = stamp(epoch);
        head.journal = JournalOffset::new(99);
        head.topic_ids = vec!["input".into(), "journal".into()];
        head.books.records_in = 5;
        let memory = SharedMemory::new(MEMORY_BYTES_MIN, 2).unwrap();
        let mut state = RocksState::create(&dir.path().join("database"), &memory).unwrap();
        let mut batch = StateBatch::default();
        batch.put(&key(), b"entity");
        state.apply(&batch, &head).unwrap();
        let folder = dir.path().join("checkpoint");
        let checkpoint = state.checkpointer()(&folder).unwrap();
        let by = Incarnation::new("w.1");
        let mut unique = || uuid::Uuid::new_v4().simple().to_string();
        let upload = Upload {
            store: &store,
            checksum: &mut Checksums,
            known: &KnownFiles::default(),
            taken_by: &by,
            unique: &mut unique,
            packed_bytes_max: PACKED_BYTES_MAX,
        };
        upload.run(&folder, &checkpoint).unwrap();
        (store, head)
    }

    #[test]
    fn a_new_job_begins_with_the_state_and_positions_of_a_savepoint() {
        let (from, head) = job();
        let (saved, to, scratch) = (Objects::default(), Objects::default(), tempfile::tempdir().unwrap());
        let savepoint = take(&from, &saved, "uid", [ShardId::new(0)].into_iter(), scratch.path()).unwrap();
        assert_eq!(read(&saved).unwrap(), Some(savepoint.clone()));
        // Taken again it is the same one, though the job has gone on.
        assert_eq!(take(&Objects::default(), &saved, "uid", [ShardId::new(0)].into_iter(), scratch.path()).unwrap(), savepoint);

        let by = seeder();
        seed(&saved, &savepoint.shards[0], (&to, Timeline::new(0)), &by, scratch.path()).unwrap();
        let first = newest_manifest(&to, ShardId::new(0)).unwrap().unwrap();
        assert_eq!(first.stamp.retained, [first.retained()], "without this the state would be lost with the second epoch");
        assert_eq!((first.stamp.epoch, &first.stamp.positions, first.stamp.books), (head.epoch, &head.positions, head.books));
        assert_eq!(
            (first.stamp.journal, first.stamp.topic_ids.as_slice()),
            (JournalOffset::default(), &["input".to_owned(), String::new()][..])
        );
        let folder = scratch.path().join("again");
        fetch_all(&to, &first, &folder, &|| true).unwrap();
        let state = RocksState::open(&folder, &SharedMemory::new(MEMORY_BYTES_MIN, 2).unwrap()).unwrap().unwrap();
        let mut value = Vec::new();
        assert!(state.get(&key(), &mut value).unwrap() && value == b"entity");
        assert_eq!(state.stamp().unwrap(), Some(first.stamp));
    }

    /// A store in which one checkpoint is collected while its first object is downloaded, and another is the newest then.
    struct Moving {
        stores: [Objects; 2],
        at: AtomicUsize,
    }

    impl Moving {
        fn now(&self) -> &Objects {
            &self.stores[self.at.load(Ordering::SeqCst)]
        }
    }

    impl ObjectStore for Moving {
        fn put(&self, key: &str, _: &Body) -> Result<Put, StoreError> {
            panic!("{key} is put into the job's own store")
        }

        fn get(&self, key: &str) -> Result<Vec<u8>, StoreError> {
            self.now().get(key)
        }

        fn download(&self, key: &str, to: &Path) -> Result<Downloaded, StoreError> {
            match self.at.swap(1, Ordering::SeqCst) {
                0 => Err(StoreError::NotFound { action: "download", key: key.to_owned() }),
                _ => self.now().download(key, to),
            }
        }

        fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
            self.now().list(prefix)
        }

        fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
            panic!("{keys:?} are deleted from the job's own store")
        }
    }

    #[test]
    fn a_checkpoint_that_is_collected_while_it_is_copied_is_replaced_by_the_newest() {
        let stores = [job_at(Epoch::new(7)).0, job_at(Epoch::new(8)).0];
        let from = Moving { stores, at: AtomicUsize::new(0) };
        let (saved, scratch) = (Objects::default(), tempfile::tempdir().unwrap());
        let savepoint = take(&from, &saved, "uid", [ShardId::new(0)].into_iter(), scratch.path()).unwrap();
        assert_eq!(savepoint.shards[0].epoch, Epoch::new(8));

        // One that lacks an object and is the newest all the same is missing it for good.
        let from = Moving { stores: [job_at(Epoch::new(7)).0, job_at(Epoch::new(7)).0], at: AtomicUsize::new(0) };
        let missing = take(&from, &Objects::default(), "uid", [ShardId::new(0)].into_iter(), scratch.path()).unwrap_err();
        assert!(matches!(missing, SavepointError::Import(ImportError::Store(StoreError::NotFound { .. }))), "{missing}");
    }

    /// What format 1 looked like when it was made. A build that cannot read it cannot use old savepoints.
    const GOLDEN: &str = r#"{
  "format": 1,
  "engine": "0.1.0",
  "job": "uid",
  "shards": [
    {
      "shard": 0,
      "epoch": 7,
      "incarnation": "w.1",
      "recordsIn": 5,
      "bytes": 4096
    }
  ]
}"#;

    #[test]
    fn a_savepoint_of_format_1_is_read_and_written_as_it_was_when_the_format_was_made() {
        let (shard, epoch, incarnation) = (ShardId::new(0), Epoch::new(7), Incarnation::new("w.1"));
        let shards = vec![SavedShard { shard, epoch, incarnation, records_in: 5, bytes: 4096 }];
        let savepoint = Savepoint { format: 1, engine: "0.1.0".into(), job: "uid".into(), shards };
        let store = Objects::default();
        store.put(MANIFEST, &Body::Bytes(GOLDEN.into())).unwrap();
        assert_eq!(read(&store).unwrap().as_ref(), Some(&savepoint));
        assert_eq!(serde_json::to_string_pretty(&savepoint).unwrap(), GOLDEN);
    }

    #[test]
    fn what_is_damaged_is_not_copied_and_makes_no_savepoint() {
        let (from, _) = job();
        from.damage("files/");
        let (saved, scratch) = (Objects::default(), tempfile::tempdir().unwrap());
        let damaged = take(&from, &saved, "uid", [ShardId::new(0)].into_iter(), scratch.path()).unwrap_err();
        assert!(matches!(damaged, SavepointError::Damaged { .. }) && damaged.to_string().contains("checksum"), "{damaged}");
        assert_eq!(saved.list("").unwrap(), []);
    }

    #[test]
    fn what_is_not_whole_is_no_savepoint() {
        let (saved, scratch) = (Objects::default(), tempfile::tempdir().unwrap());
        let missing = take(&Objects::default(), &saved, "uid", [ShardId::new(0)].into_iter(), scratch.path()).unwrap_err();
        assert!(missing.to_string().contains("shard 0 has no checkpoint yet"), "{missing}");
        assert_eq!(read(&saved).unwrap(), None);
        saved.put(MANIFEST, &Body::Bytes(br#"{"format": 2, "engine": "", "job": "", "shards": []}"#.to_vec())).unwrap();
        let other = read(&saved).unwrap_err().to_string();
        assert!(other.contains("format 2 is unknown"), "{other}");
    }
}
