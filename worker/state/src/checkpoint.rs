//! Checkpoints: hard links to a database's table files, and which epoch lies in them.
//!
//! With the write-ahead log off, RocksDB flushes the memtable before it lists the files, and lists them in one moment, together with the
//! length of its manifest. So a checkpoint is a clean prefix of the applied epochs (I2), at least up to the last one applied before the
//! call. Epochs applied meanwhile may or may not be in it; hence the stamp is read from the checkpoint's own files and not remembered (I5).
//!
//! **Names of table files.** Within one local database's life, from its creation or import to its wiping, reopening and crashes included, a
//! table file's name stands for one content: RocksDB numbers files upwards; a checkpoint links only files that the synced manifest names;
//! the manifest holds the next number; and at opening the counter is moved past every file in the folder, orphans of a crash included.
//! (The exception is a disk that loses what it had synced.) *Two* databases are another matter: both count on from the same number when
//! both were restored from one checkpoint, or when one was restored from the other's. Then the same name stands for different contents.
//! Who matches files with objects by name may do so only for objects that this very database uploaded or was restored from; in all
//! other cases size and checksum must be compared too. RocksDB is the last guard: it keeps each table file's unique id in the manifest,
//! and refuses a foreign file as corrupt.

use std::ffi::OsStr;
use std::path::Path;

use forebay_engine::state::{Checkpoint, CheckpointFile, StateError};
use rocksdb::{DB, checkpoint::Checkpoint as RocksCheckpoint};

use crate::error::{io, refused};
use crate::reader::{OpenFiles, StateReader};

/// Takes a checkpoint into `to`, which must not exist yet; its parent must. When it fails nothing is left there.
pub(crate) fn take(db: &DB, to: &Path) -> Result<Checkpoint, StateError> {
    let action = || format!("take a checkpoint of {} into {}", db.path().display(), to.display());
    if to.try_exists().map_err(|e| io("look at", to, &e))? {
        return Err(StateError::Io { action: action(), reason: "the folder exists already; name a new one".into() });
    }
    RocksCheckpoint::new(db).and_then(|checkpoint| checkpoint.create_checkpoint(to)).map_err(|e| refused(action(), &e))?;
    let taken = inspect(to);
    if taken.is_err()
        && let Err(error) = std::fs::remove_dir_all(to)
    {
        tracing::warn!("cannot remove the failed checkpoint {}: {error}", to.display());
    }
    taken
}

/// What a checkpoint's folder holds.
fn inspect(dir: &Path) -> Result<Checkpoint, StateError> {
    let files = list(dir)?;
    let action = || format!("read the stamp of checkpoint {}", dir.display());
    let nothing = |reason: &str| StateError::Io { action: action(), reason: reason.into() };
    let reader = StateReader::open_with(dir, OpenFiles::Few)?.ok_or_else(|| nothing("it holds no database"))?;
    let stamp = reader.stamp()?.ok_or_else(|| nothing("no epoch was applied yet, so there is nothing to take a checkpoint of"))?;
    Ok(Checkpoint { stamp, files })
}

/// Not those that RocksDB writes anew when they are missing: a copy of the options, which are given at each opening, and the database's id,
/// which the manifest holds too.
fn list(dir: &Path) -> Result<Vec<CheckpointFile>, StateError> {
    let fail = |e: std::io::Error| io("list the checkpoint's files in", dir, &e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        let name = entry.file_name().into_string().expect("RocksDB's file names are ASCII");
        if name == "IDENTITY" || name.starts_with("OPTIONS-") {
            continue;
        }
        let size = entry.metadata().map_err(fail)?.len();
        files.push(CheckpointFile { immutable: path.extension() == Some(OsStr::new("sst")), name, size });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
