//! Read-only views of a database folder: for people who look into a state or a snapshot, and for the stamp of a fresh checkpoint.
//!
//! Leaves no file behind and takes no lock, so a worker may have the database open meanwhile. What it shows then is what that worker has
//! flushed: the state of some applied epoch, whole, a little behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_engine::ids::Timestamp;
use forebay_engine::journal::Stamp;
use forebay_engine::lifetimes::Lifetimes;
use forebay_engine::shard::decode_key;
use forebay_engine::state::StateError;
use rocksdb::{DB, ReadOptions};

use crate::error::refused;
use crate::keys::KeyRange;
use crate::memory::quiet_options;
use crate::rocks::{self, RocksState};
use crate::scan::Scan;

/// A live database may drop a file between our reading its list and our opening the file; the next list no longer has it.
const OPEN_ATTEMPTS: usize = 3;

/// How many table files are held open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenFiles {
    /// All, from the start: a live database may delete its files while we read them.
    All,
    /// Few, when they are needed: for folders that nobody changes.
    Few,
}

/// A database folder, read-only, as it was when it was opened.
pub struct StateReader {
    db: DB,
    dir: PathBuf,
    read: ReadOptions,
    lifetimes: Lifetimes,
}

impl StateReader {
    /// Opens the database in `dir`, live or not, or a checkpoint's folder. `None` when there is none. `Corrupt`: files are missing or
    /// damaged.
    pub fn open(dir: &Path) -> Result<Option<Self>, StateError> {
        let mut attempt = 1;
        loop {
            match Self::open_with(dir, OpenFiles::All) {
                Err(StateError::Corrupt { .. }) if attempt < OPEN_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// The same, for one attempt.
    pub(crate) fn open_with(dir: &Path, files: OpenFiles) -> Result<Option<Self>, StateError> {
        if !RocksState::is_in(dir)? {
            return Ok(None);
        }
        let mut options = quiet_options(Arc::default());
        options.set_max_open_files(match files {
            OpenFiles::All => -1,
            OpenFiles::Few => 32,
        });
        let db = DB::open_for_read_only(&options, dir, false).map_err(|e| refused(format!("open {} for reading", dir.display()), &e))?;
        Ok(Some(Self { db, dir: dir.to_owned(), read: ReadOptions::default(), lifetimes: Lifetimes::default() }))
    }

    /// The same, without the entities that are over by the clock of the epoch that the folder holds.
    #[must_use]
    pub fn with_lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// The epoch that the folder holds; `None` when nothing was applied yet.
    pub fn stamp(&self) -> Result<Option<Stamp>, StateError> {
        rocks::stamp(&self.db, &self.dir, &self.read)
    }

    /// Reads the value of a state key into `into` (cleared first); false when there is none.
    pub fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Result<bool, StateError> {
        let Some(written) = rocks::get_written(&self.db, &self.dir, &self.read, key, into)? else { return Ok(false) };
        let table = decode_key(key).map(|(table, _, _)| table);
        let is_over = match (table, self.hidden()?) {
            (Some(table), Some((lifetimes, clock))) => lifetimes.is_over(table, written, clock),
            _ => false,
        };
        if is_over {
            into.clear();
        }
        Ok(!is_over)
    }

    /// The entries of a range in the order of their keys, at most `limit`.
    pub fn scan(&self, range: &KeyRange, limit: usize) -> Scan<'_> {
        // A stamp that cannot be read hides nothing; whoever asks for it is told.
        Scan::new(&self.db, &self.dir, range, limit, self.hidden().unwrap_or_default())
    }

    /// What is not to be shown.
    fn hidden(&self) -> Result<Option<(Lifetimes, Timestamp)>, StateError> {
        if self.lifetimes.is_empty() {
            return Ok(None);
        }
        Ok(self.stamp()?.map(|stamp| (self.lifetimes.clone(), stamp.clock)))
    }
}
