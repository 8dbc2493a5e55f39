//! Taking a snapshot: a checkpoint of a committed epoch, the files that are not there yet (small ones packed together), the manifest last (I5);
//! and finding garbage (I6).
//!
//! Run on a thread of its own while the shard goes on. What it uploads counts only once an epoch that lists it is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ids::{Incarnation, ShardId, Timestamp};
use crate::manifest::{FORMAT, Manifest, ManifestFile, RetainedCheckpoint, file_key, file_prefix, manifest_key, manifest_prefix};
use crate::mutants::{self, Bug};
use crate::state::{Checkpoint, CheckpointFile};
use crate::store::{Body, ObjectStore, Put, StoreError};

/// Files up to this size share one object: a request takes as long as sending so many bytes, and has a price.
pub const PACKED_BYTES_MAX: u64 = 64 << 10;

/// A pack is held in memory while it is put; what does not fit in is put by itself. Far more small files than RocksDB leaves uncompacted.
const PACK_BYTES_MAX: u64 = 4 << 20;

/// Files that a checkpoint on the current list names, by name in the database's folder: read after the last claim.
#[derive(Clone, Debug, Default)]
pub struct KnownFiles {
    files: BTreeMap<String, ManifestFile>,
}

impl KnownFiles {
    /// What the newest checkpoint on the current list names.
    pub fn of(manifest: &Manifest) -> Self {
        Self { files: manifest.files.iter().filter(|file| file.immutable).map(|file| (file.name.clone(), file.clone())).collect() }
    }

    /// The object that holds this very file, by name, size and checksum: databases that grew apart may use one name for two files.
    fn find(&self, file: &CheckpointFile, crc32: u32) -> Option<&ManifestFile> {
        let same = |known: &&ManifestFile| known.size == file.size && known.crc32 == crc32 || mutants::is(Bug::FileByName);
        self.files.get(&file.name).filter(|known| file.immutable && same(known))
    }
}

/// Why a snapshot was not taken. Work goes on without it: the journal grows.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The object store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A local file could not be read.
    #[error("read {path} to upload it: {reason}")]
    Read {
        /// The file.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// After the upload a file was not there.
    #[error("checkpoint of shard {shard} at epoch {epoch}: object {object} is not there after its upload")]
    Vanished {
        /// The shard.
        shard: ShardId,
        /// The epoch.
        epoch: u64,
        /// The object.
        object: String,
    },
}

/// Reads a file's CRC-32; a port, so that the simulator has files that are not on disk.
pub trait ChecksumFile {
    /// The CRC-32 (IEEE) of the whole file.
    fn crc32(&mut self, path: &Path) -> Result<u32, String>;
}

/// What an upload needs besides the checkpoint.
pub struct Upload<'a> {
    /// Where to.
    pub store: &'a dyn ObjectStore,
    /// Reads checksums.
    pub checksum: &'a mut dyn ChecksumFile,
    /// What need not be uploaded again.
    pub known: &'a KnownFiles,
    /// Who takes the checkpoint.
    pub taken_by: &'a Incarnation,
    /// Makes names that never come twice.
    pub unique: &'a mut dyn FnMut() -> String,
    /// Files of at most so many bytes share one object: [`PACKED_BYTES_MAX`].
    pub packed_bytes_max: u64,
}

/// Files that share an object, one behind the other.
struct Pack {
    object: String,
    paths: Vec<PathBuf>,
    bytes: u64,
}

impl Upload<'_> {
    /// Uploads a checkpoint that lies in `folder`. Returns its manifest, which is there, as are all its files.
    pub fn run(mut self, folder: &Path, checkpoint: &Checkpoint) -> Result<Manifest, SnapshotError> {
        let shard = checkpoint.stamp.owner.shard;
        let files = self.upload_files(folder, checkpoint)?;
        check_there(self.store, checkpoint, &files)?;
        let manifest = Manifest {
            format: FORMAT,
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            stamp: checkpoint.stamp.clone(),
            taken_by: self.taken_by.clone(),
            files,
        };
        let key = manifest_key(shard, manifest.stamp.epoch, self.taken_by);
        // A manifest of this epoch and incarnation that is there already is ours: of an upload whose reply was lost, or of an attempt before.
        // Its own files are there too, for it was put last.
        if self.store.put(&key, &Body::Bytes(manifest.encode()))? == Put::AlreadyThere {
            let bytes = self.store.get(&key)?;
            if let Ok(earlier) = Manifest::decode(&bytes) {
                return Ok(earlier);
            }
        }
        Ok(manifest)
    }

    /// The names of objects never come twice: one that is there already was put by this very call, whose first reply was lost.
    fn upload_files(&mut self, folder: &Path, checkpoint: &Checkpoint) -> Result<Vec<ManifestFile>, SnapshotError> {
        let mut files = Vec::with_capacity(checkpoint.files.len());
        let mut pack = Pack { object: self.new_object(checkpoint), paths: Vec::new(), bytes: 0 };
        for file in &checkpoint.files {
            let path = folder.join(&file.name);
            let crc32 = self.checksum.crc32(&path).map_err(|reason| SnapshotError::Read { path: path.display().to_string(), reason })?;
            if let Some(there) = self.known.find(file, crc32) {
                files.push(there.clone());
                continue;
            }
            let (object, offset) = if file.size <= self.packed_bytes_max && pack.bytes + file.size <= PACK_BYTES_MAX {
                pack.paths.push(path);
                pack.bytes += file.size;
                (pack.object.clone(), Some(pack.bytes - file.size))
            } else {
                let object = self.new_object(checkpoint);
                self.store.put(&object, &Body::File(path))?;
                (object, None)
            };
            files.push(ManifestFile { name: file.name.clone(), object, offset, size: file.size, crc32, immutable: file.immutable });
        }
        if !pack.paths.is_empty() {
            self.store.put(&pack.object, &Body::Pack(pack.paths))?;
        }
        Ok(files)
    }

    fn new_object(&mut self, checkpoint: &Checkpoint) -> String {
        file_key(checkpoint.stamp.owner.shard, &format!("{}-{}", self.taken_by, (self.unique)()))
    }
}

fn check_there(store: &dyn ObjectStore, checkpoint: &Checkpoint, files: &[ManifestFile]) -> Result<(), SnapshotError> {
    let shard = checkpoint.stamp.owner.shard;
    let there: BTreeMap<String, u64> = store.list(&file_prefix(shard))?.into_iter().map(|object| (object.key, object.size)).collect();
    let is_there = |file: &ManifestFile| match (there.get(&file.object), file.offset) {
        (None, _) => false,
        (Some(bytes), None) => *bytes == file.size,
        (Some(bytes), Some(offset)) => *bytes >= offset + file.size,
    };
    match files.iter().find(|file| !is_there(file) && !mutants::is(Bug::FilesUnchecked)) {
        None => Ok(()),
        Some(file) => Err(SnapshotError::Vanished { shard, epoch: checkpoint.stamp.epoch.get(), object: file.object.clone() }),
    }
}

/// Objects of a shard that no checkpoint on the list names and that are older than `grace` by the store's clock; at most `limit`.
///
/// `listed` are the manifests of the whole current list, the one that was put just now last: its age is the store's time. Files are listed before
/// manifests: a manifest that is seen without its files is no reason to delete any. Nothing may be deleted before an epoch that names it as garbage
/// is committed: only then is it certain that this list was the current one.
pub fn find_garbage(
    store: &dyn ObjectStore,
    shard: ShardId,
    listed: &[Manifest],
    grace: Duration,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let files = store.list(&file_prefix(shard))?;
    let manifests = store.list(&manifest_prefix(shard))?;
    let mut named: BTreeSet<String> = listed.iter().flat_map(|manifest| &manifest.files).map(|file| file.object.clone()).collect();
    let retained: Vec<RetainedCheckpoint> = listed.iter().map(Manifest::retained).collect();
    let keys: Vec<String> = retained.iter().map(|checkpoint| manifest_key(shard, checkpoint.epoch, &checkpoint.incarnation)).collect();
    // One that is not listed tells no time: then nothing is old.
    let newest = keys.last().and_then(|key| manifests.iter().find(|object| object.key == *key));
    let now = newest.map_or(Timestamp::default(), |object| object.modified);
    named.extend(keys);
    let grace = if mutants::is(Bug::NoGrace) { 0 } else { i64::try_from(grace.as_millis()).unwrap_or(i64::MAX) };
    let old = |modified: Timestamp| modified.as_millis().saturating_add(grace) <= now.as_millis();
    let garbage = files.into_iter().chain(manifests).filter(|object| old(object.modified) && !named.contains(&object.key));
    Ok(garbage.take(limit).map(|object| object.key).collect())
}
