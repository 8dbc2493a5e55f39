//! A worker's local disk with a small database per shard: applies lie in memory until a flush puts them into an immutable file. A crash keeps
//! the files and a clean prefix of what was in memory; a wipe keeps nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use forebay_engine::ids::{ShardId, Timestamp};
use forebay_engine::journal::Stamp;
use forebay_engine::state::{Checkpoint, CheckpointFile, Checkpointer, StateBatch, StateError, StateStore};

use crate::model::digest_of;
use crate::mutant::{Mutant, is};

/// A file of a database. Its checksum is kept beside it: a damaged file is one whose checksum was changed.
#[derive(Clone, Debug, Default)]
pub struct FileData {
    /// Puts and deletes of a table file.
    pub entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Of the database's manifest: the table files, in order.
    pub names: Vec<String>,
    /// Of the database's manifest: the last applied epoch.
    pub stamp: Option<Stamp>,
    /// Bytes, more or less.
    pub size: u64,
    /// Stands for the checksum of all that.
    pub crc32: u32,
}

impl FileData {
    fn sealed(mut self) -> Arc<Self> {
        let parts = self.entries.iter().map(|(key, value)| digest_of(key, value.as_deref().unwrap_or(b"\0deleted")));
        let stamp = self
            .stamp
            .as_ref()
            .map_or(0, |stamp| digest_of(stamp.owner.incarnation.as_str().as_bytes(), &stamp.journal.get().to_be_bytes()));
        let sum = parts.fold(stamp, u64::wrapping_add);
        self.crc32 = (sum ^ (sum >> 32)) as u32 ^ self.entries.len() as u32;
        self.size = 8 + self.entries.iter().map(|(key, value)| (key.len() + value.as_ref().map_or(0, Vec::len)) as u64).sum::<u64>();
        Arc::new(self)
    }
}

/// The file that names the others.
const MANIFEST: &str = "MANIFEST";

#[derive(Debug, Default)]
struct Db {
    tables: Vec<(String, Arc<FileData>)>,
    flushed: Option<Stamp>,
    memory: Vec<(StateBatch, Stamp)>,
    view: BTreeMap<Vec<u8>, Vec<u8>>,
    next_file: u64,
    /// The handle that has it open; 0: none.
    open: u64,
}

impl Db {
    /// A database of the given files; `None` when they do not belong together.
    fn of(files: &BTreeMap<String, Arc<FileData>>) -> Option<Self> {
        let manifest = files.get(MANIFEST)?;
        let mut db = Self { flushed: manifest.stamp.clone(), ..Self::default() };
        for name in &manifest.names {
            db.tables.push((name.clone(), files.get(name)?.clone()));
            db.next_file = db.next_file.max(name.parse::<u64>().ok()? + 1);
        }
        db.rebuild();
        Some(db)
    }

    fn stamp(&self) -> Option<&Stamp> {
        self.memory.last().map(|(_, stamp)| stamp).or(self.flushed.as_ref())
    }

    fn rebuild(&mut self) {
        self.view.clear();
        for (_, table) in &self.tables {
            for (key, value) in &table.entries {
                write(&mut self.view, key, value.as_deref());
            }
        }
        for (batch, _) in &self.memory {
            batch.iter().for_each(|(key, value)| write(&mut self.view, key, value));
        }
    }

    /// Puts the first `epochs` of what is in memory into a file, and merges all files when there are many.
    fn flush(&mut self, epochs: usize) {
        let flushed: Vec<_> = self.memory.drain(..epochs).collect();
        let Some((_, stamp)) = flushed.last() else { return };
        self.flushed = Some(stamp.clone());
        let mut merged = BTreeMap::new();
        if self.tables.len() >= 3 {
            for (_, table) in self.tables.drain(..) {
                merged.extend(table.entries.iter().cloned());
            }
        }
        for (batch, _) in &flushed {
            merged.extend(batch.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))));
        }
        if !merged.is_empty() {
            let table = FileData { entries: merged.into_iter().collect(), ..FileData::default() };
            self.tables.push((self.next_file.to_string(), table.sealed()));
            self.next_file += 1;
        }
    }

    fn files(&self) -> BTreeMap<String, Arc<FileData>> {
        let names = self.tables.iter().map(|(name, _)| name.clone()).collect();
        let manifest = FileData { names, stamp: self.flushed.clone(), ..FileData::default() };
        self.tables.iter().cloned().chain([(MANIFEST.to_owned(), manifest.sealed())]).collect()
    }
}

fn write(view: &mut BTreeMap<Vec<u8>, Vec<u8>>, key: &[u8], value: Option<&[u8]>) {
    match value {
        Some(value) => view.insert(key.to_vec(), value.to_vec()),
        None => view.remove(key),
    };
}

#[derive(Debug, Default)]
struct Inner {
    dbs: BTreeMap<ShardId, Db>,
    /// Of checkpoints.
    files: BTreeMap<PathBuf, Arc<FileData>>,
    handles: u64,
    /// Shards whose next apply fails.
    failing: BTreeSet<ShardId>,
}

/// A worker's disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    /// The process died: of what each database had in memory the first `keep(n)` of `n` epochs reached a file.
    pub fn crash(&self, mut keep: impl FnMut(usize) -> usize) {
        let mut inner = self.lock();
        for db in inner.dbs.values_mut() {
            let kept = keep(db.memory.len());
            db.flush(kept);
            db.memory.clear();
            db.rebuild();
            db.open = 0;
        }
        inner.files.clear();
        inner.failing.clear();
    }

    /// Everything is gone.
    pub fn wipe(&self) {
        let mut inner = self.lock();
        inner.dbs.clear();
        inner.files.clear();
    }

    /// The next apply of a shard fails.
    pub fn fail_apply(&self, shard: ShardId) {
        self.lock().failing.insert(shard);
    }

    /// Opens a shard's database; `None` when there is none.
    pub fn open(&self, shard: ShardId) -> Result<Option<SimState>, StateError> {
        let mut inner = self.lock();
        let handle = inner.handles + 1;
        let Some(db) = inner.dbs.get_mut(&shard) else { return Ok(None) };
        if db.open != 0 && !is(Mutant::OverlayKept) {
            return Err(StateError::Io { action: format!("open the database of shard {shard}"), reason: "somebody has it open".into() });
        }
        db.open = handle;
        inner.handles = handle;
        Ok(Some(SimState { disk: self.clone(), shard, handle }))
    }

    /// Removes a shard's database, which nobody may have open.
    pub fn remove(&self, shard: ShardId) -> Result<(), StateError> {
        let mut inner = self.lock();
        if inner.dbs.get(&shard).is_some_and(|db| db.open != 0) {
            return Err(StateError::Io { action: format!("wipe the database of shard {shard}"), reason: "somebody has it open".into() });
        }
        inner.dbs.remove(&shard);
        Ok(())
    }

    /// Makes an empty database.
    pub fn create(&self, shard: ShardId) -> Result<SimState, StateError> {
        self.remove(shard)?;
        self.lock().dbs.insert(shard, Db::default());
        self.open(shard).map(|state| state.expect("it was just made"))
    }

    /// Makes a database of downloaded files. `Ok(None)`: they do not belong together.
    pub fn adopt(&self, shard: ShardId, files: &BTreeMap<String, Arc<FileData>>) -> Result<Option<SimState>, StateError> {
        self.remove(shard)?;
        let Some(db) = Db::of(files) else { return Ok(None) };
        self.lock().dbs.insert(shard, db);
        self.open(shard)
    }

    /// A checkpoint's file.
    pub fn file(&self, path: &Path) -> Option<Arc<FileData>> {
        self.lock().files.get(path).cloned()
    }

    /// Stamp and digest of a shard's database as it stands.
    pub fn digest(&self, shard: ShardId) -> Option<(Stamp, u64)> {
        let inner = self.lock();
        let db = inner.dbs.get(&shard)?;
        Some((db.stamp()?.clone(), digest(&db.view)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The digest of the state that a set of files holds, and its stamp.
pub fn digest_of_files(files: &BTreeMap<String, Arc<FileData>>) -> Option<(Stamp, u64)> {
    let db = Db::of(files)?;
    Some((db.stamp()?.clone(), digest(&db.view)))
}

fn digest(view: &BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
    view.iter().map(|(key, value)| digest_of(key, value)).fold(0, u64::wrapping_add)
}

/// An open database.
#[derive(Debug)]
pub struct SimState {
    disk: Disk,
    shard: ShardId,
    handle: u64,
}

impl SimState {
    fn with<T>(&self, act: impl FnOnce(&mut Db) -> T) -> Result<T, StateError> {
        let mut inner = self.disk.lock();
        match inner.dbs.get_mut(&self.shard) {
            Some(db) if db.open == self.handle || is(Mutant::OverlayKept) => Ok(act(db)),
            _ => Err(StateError::Io { action: format!("use the database of shard {}", self.shard), reason: "it was closed".into() }),
        }
    }
}

impl Drop for SimState {
    fn drop(&mut self) {
        // Closing flushes, as RocksDB does.
        let _ = self.with(|db| {
            db.flush(db.memory.len());
            db.open = 0;
        });
    }
}

impl StateStore for SimState {
    /// No table of the simulation has a lifetime, so no clock is kept.
    fn get_written(&self, key: &[u8], into: &mut Vec<u8>) -> Result<Option<Timestamp>, StateError> {
        into.clear();
        self.with(|db| {
            db.view.get(key).map(|value| {
                into.extend_from_slice(value);
                Timestamp::default()
            })
        })
    }

    fn apply(&mut self, changes: &StateBatch, stamp: &Stamp) -> Result<(), StateError> {
        if self.disk.lock().failing.remove(&self.shard) {
            return Err(StateError::Io { action: format!("apply epoch {}", stamp.epoch), reason: "the disk is full".into() });
        }
        self.with(|db| {
            changes.iter().for_each(|(key, value)| write(&mut db.view, key, value));
            db.memory.push((changes.clone(), stamp.clone()));
            if db.memory.len() >= 6 {
                db.flush(3);
            }
        })
    }

    fn stamp(&self) -> Result<Option<Stamp>, StateError> {
        self.with(|db| db.stamp().cloned())
    }

    fn checkpointer(&self) -> Checkpointer {
        let state = Self { disk: self.disk.clone(), shard: self.shard, handle: self.handle };
        let state = std::mem::ManuallyDrop::new(state);
        Box::new(move |to: &Path| {
            let files = state.with(|db| {
                db.flush(db.memory.len());
                db.files()
            })?;
            let stamp = files[MANIFEST]
                .stamp
                .clone()
                .ok_or_else(|| StateError::Io { action: "take a checkpoint".into(), reason: "nothing was applied yet".into() })?;
            let mut inner = state.disk.lock();
            let row = |(name, file): (&String, &Arc<FileData>)| CheckpointFile {
                name: name.clone(),
                size: file.size,
                immutable: name != MANIFEST,
            };
            let rows = files.iter().map(row).collect();
            inner.files.extend(files.into_iter().map(|(name, file)| (to.join(name), file)));
            Ok(Checkpoint { stamp, files: rows })
        })
    }
}
