//! A shard's database: opening, reading, applying epochs, wiping.
//!
//! I2: an epoch's changes and its stamp are one write batch. A memtable holds whole batches, memtables are flushed in order, and a table
//! file counts only once RocksDB's manifest names it; so whatever a crash leaves is the state of some applied epoch, with its stamp.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::ids::Timestamp;
use forebay_engine::journal::Stamp;
use forebay_engine::state::{Checkpointer, StateBatch, StateError, StateStore};
use rocksdb::{BottommostLevelCompaction, CompactOptions, DB, Options, ReadOptions, WriteBatch, WriteOptions};

use crate::checkpoint;
use crate::error::{Trouble, corrupt, io, is_stall, refused, stalled};
use crate::expiry::FiledClock;
use crate::keys::{self, KeyRange, STAMP_KEY};
use crate::memory::{SharedMemory, quiet_options};
use crate::scan::Scan;

/// What was found in a database that is damaged. A block may be damaged that opening does not read: without this file the shard would open the
/// same database again, and meet the same block again.
const CONDEMNED: &str = "CONDEMNED";

/// What a change costs in a write batch beside its bytes: a tag and two lengths.
const BATCH_ENTRY_BYTES: usize = 12;

/// Between two attempts of a write that is turned away: far below the time of the flush that it waits for.
const STALL_PAUSE: Duration = Duration::from_millis(5);

/// 30 s, far longer than three write buffers of 16 MiB take to reach a slow disk: the shard is better off elsewhere.
const STALL_ATTEMPTS_MAX: u32 = 6_000;

/// 1 s, when RocksDB has reported an error: time for it to get over a passing one by itself.
const TROUBLE_ATTEMPTS_MAX: u32 = 200;

/// One shard's state in one folder. Owned by the shard's thread; checkpoints run beside it.
///
/// Dropping it closes the database, which first flushes what is in memory, so that a planned restart opens at its last epoch. After a crash
/// it opens at an older one. A running checkpoint keeps the database open until it is done.
pub struct RocksState {
    db: Arc<DB>,
    dir: PathBuf,
    /// Kept, because making them anew costs an allocation for each read.
    read: ReadOptions,
    write: WriteOptions,
    trouble: Arc<Trouble>,
    filed: FiledClock,
}

impl RocksState {
    /// Opens the database in `dir`: the shard's own from before, or the files of a checkpoint that the caller has just put there (see
    /// [`RocksState::wipe_but`]). `None` when there is none.
    ///
    /// Whose it is, is for the caller to judge by [`StateStore::stamp`]: timeline, shard, epoch, incarnation and journal position.
    /// `Corrupt`: files are missing or damaged; wipe it and restore from a snapshot. Damage in blocks that nobody has read yet shows as
    /// `Corrupt` when they are read, and from then on here. `Io`: somebody else has it open, or the disk refuses; the reason says the way out.
    pub fn open(dir: &Path, memory: &SharedMemory) -> Result<Option<Self>, StateError> {
        if !Self::is_in(dir)? {
            return Ok(None);
        }
        if let Ok(verdict) = std::fs::read_to_string(dir.join(CONDEMNED)) {
            return Err(corrupt(format!("open the database in {}", dir.display()), format!("it was found damaged before: {verdict}")));
        }
        let state = Self::start(dir, memory, |_| {})?;
        // An interrupted call of `wipe_but` would keep the disk space of files that this database removes.
        remove_folder(&aside(dir))?;
        // Reads the one key that is always needed, so that a damaged stamp is found here and not in the shard.
        state.stamp()?;
        Ok(Some(state))
    }

    /// RocksDB's pointer to its manifest, written last when a database is made: a folder without it holds no database.
    pub const CURRENT: &str = "CURRENT";

    /// Whether there is a database in `dir`, of whatever use.
    pub fn is_in(dir: &Path) -> Result<bool, StateError> {
        let current = dir.join(Self::CURRENT);
        current.try_exists().map_err(|e| io("look for", &current, &e))
    }

    /// Makes an empty database in `dir`, which is created with its parents. What an interrupted creation or wipe left there is removed.
    /// `Io` when there is a database already.
    pub fn create(dir: &Path, memory: &SharedMemory) -> Result<Self, StateError> {
        if Self::is_in(dir)? {
            let reason = "there is a database already; open it, or wipe it first".into();
            return Err(StateError::Io { action: format!("create a database in {}", dir.display()), reason });
        }
        Self::wipe(dir)?;
        std::fs::create_dir_all(dir).map_err(|e| io("create folder", dir, &e))?;
        Self::start(dir, memory, |options| {
            options.create_if_missing(true);
            options.set_error_if_exists(true);
        })
    }

    /// Removes the database and its folder; a folder that is not there counts as removed. `Io` when the database is open, here or in
    /// another process: nothing is removed then.
    pub fn wipe(dir: &Path) -> Result<(), StateError> {
        wipe_folder(dir)?;
        remove_folder(&aside(dir))
    }

    /// Removes the database like [`RocksState::wipe`], but leaves those of its files in the folder that `keeps` asks for by name and bytes. It is no
    /// database any more. A call that was interrupted may have left less. Where the file system has no hard links nothing is kept.
    pub fn wipe_but(dir: &Path, keeps: impl Fn(&str, u64) -> bool) -> Result<(), StateError> {
        let aside = aside(dir);
        let exists = |path: &Path| path.try_exists().map_err(|e| io("look at", path, &e));
        if exists(&aside)? && !exists(dir)? {
            std::fs::rename(&aside, dir).map_err(|e| io("take back", &aside, &e))?;
        }
        remove_folder(&aside)?;
        if !exists(dir)? {
            return Ok(());
        }
        std::fs::create_dir_all(&aside).map_err(|e| io("create folder", &aside, &e))?;
        for file in std::fs::read_dir(dir).map_err(|e| io("list", dir, &e))? {
            let file = file.map_err(|e| io("list", dir, &e))?;
            let bytes = file.metadata().map_err(|e| io("look at", &file.path(), &e))?.len();
            if file.file_name().to_str().is_some_and(|name| keeps(name, bytes)) {
                // One that cannot be linked is made anew.
                let _ = std::fs::hard_link(file.path(), aside.join(file.file_name()));
            }
        }
        // Last, for it is refused while the database is open.
        let wiped = wipe_folder(dir);
        if wiped.is_err() {
            return remove_folder(&aside).and(wiped);
        }
        std::fs::rename(&aside, dir).map_err(|e| io("take back", &aside, &e))
    }

    /// The entries of a range in the order of their keys, at most `limit`, as of now, with those that are over and still there.
    pub fn scan(&self, range: &KeyRange, limit: usize) -> Scan<'_> {
        Scan::new(&self.db, &self.dir, range, limit, None)
    }

    /// Rewrites all files now, without what is over by the clock of an epoch that lay in them before. Takes as long as it takes.
    pub fn compact(&self) {
        let mut options = CompactOptions::default();
        // The last level too, which nothing is pushed down into.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
    }

    fn start(dir: &Path, memory: &SharedMemory, adjust: impl FnOnce(&mut Options)) -> Result<Self, StateError> {
        let trouble = Arc::<Trouble>::default();
        let filed = FiledClock::default();
        let mut options = memory.options(&trouble, &filed);
        adjust(&mut options);
        let db = DB::open(&options, dir).map_err(|e| refused(format!("open the database in {}", dir.display()), &e))?;
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        // Turned away instead of blocked, see `apply`.
        write.set_no_slowdown(true);
        Ok(Self { db: Arc::new(db), dir: dir.to_owned(), read: ReadOptions::default(), write, trouble, filed })
    }
}

impl StateStore for RocksState {
    fn get_written(&self, key: &[u8], into: &mut Vec<u8>) -> Result<Option<Timestamp>, StateError> {
        get_written(&self.db, &self.dir, &self.read, key, into).inspect_err(|error| condemn(&self.dir, error))
    }

    /// When flushing lags behind, RocksDB turns the write away, and it is tried again here, for a limited time. Letting RocksDB block the
    /// writer instead can block it for ever: on a full disk its recovery waits for the writer, which waits for the recovery.
    fn apply(&mut self, changes: &StateBatch, stamp: &Stamp) -> Result<(), StateError> {
        let stamp_bytes = keys::encode_stamp(stamp);
        let action = || format!("apply epoch {} of shard {} in {}", stamp.epoch, stamp.owner.shard, self.dir.display());
        let mut attempts = 0;
        loop {
            match self.db.write_opt(batch(changes, stamp, &stamp_bytes), &self.write) {
                Ok(()) => {
                    self.trouble.clear();
                    return Ok(());
                }
                Err(error) if is_stall(&error) => {
                    let trouble = self.trouble.words();
                    if attempts >= if trouble.is_some() { TROUBLE_ATTEMPTS_MAX } else { STALL_ATTEMPTS_MAX } {
                        return Err(stalled(action(), trouble));
                    }
                    attempts += 1;
                    std::thread::sleep(STALL_PAUSE);
                }
                Err(error) => return Err(refused(action(), &error)).inspect_err(|error| condemn(&self.dir, error)),
            }
        }
    }

    fn stamp(&self) -> Result<Option<Stamp>, StateError> {
        stamp(&self.db, &self.dir, &self.read)
    }

    /// Runs only while this store is there: one that is called after the store was dropped says so as `Io`.
    fn checkpointer(&self) -> Checkpointer {
        let db = Arc::downgrade(&self.db);
        let (dir, filed) = (self.dir.clone(), self.filed.clone());
        Box::new(move |to: &Path| match db.upgrade() {
            // The database's own files hold that epoch too: they are the same ones.
            Some(db) => checkpoint::take(&db, to).inspect(|checkpoint| filed.advance(checkpoint.stamp.clock)),
            None => Err(StateError::Io {
                action: format!("take a checkpoint of {} into {}", dir.display(), to.display()),
                reason: "the database was closed in the meantime".into(),
            }),
        })
    }
}

fn batch(changes: &StateBatch, stamp: &Stamp, stamp_bytes: &[u8]) -> WriteBatch {
    let per_entry = BATCH_ENTRY_BYTES + keys::CLOCK_BYTES;
    let mut batch = WriteBatch::with_capacity_bytes(changes.bytes() + stamp_bytes.len() + per_entry * (changes.len() + 2));
    let mut bytes = Vec::new();
    for (key, value) in changes.iter() {
        assert!(keys::is_state_key(key), "I2: {key:02x?} is no state key and could overwrite what the store keeps for itself");
        match value {
            Some(value) => {
                keys::encode_value(stamp.clock, value, &mut bytes);
                batch.put(key, &bytes);
            }
            None => batch.delete(key),
        }
    }
    batch.put(STAMP_KEY, stamp_bytes);
    batch
}

/// Sees to it that a damaged database is not opened again. One that cannot be marked is met again, no more.
fn condemn(dir: &Path, error: &StateError) {
    if matches!(error, StateError::Corrupt { .. })
        && let Err(failure) = std::fs::write(dir.join(CONDEMNED), error.to_string())
    {
        tracing::warn!("cannot mark the damaged database in {}: {failure}", dir.display());
    }
}

/// Where files outlive the wipe of their folder.
fn aside(dir: &Path) -> PathBuf {
    dir.with_extension("kept")
}

fn wipe_folder(dir: &Path) -> Result<(), StateError> {
    if !dir.try_exists().map_err(|e| io("look at", dir, &e))? {
        return Ok(());
    }
    // RocksDB's own way takes the database's lock first. It leaves alone what it does not know, such as half-downloaded files.
    DB::destroy(&quiet_options(Arc::default()), dir).map_err(|e| refused(format!("wipe {}", dir.display()), &e))?;
    remove_folder(dir)
}

fn remove_folder(dir: &Path) -> Result<(), StateError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove folder", dir, &error)),
        _ => Ok(()),
    }
}

/// Reads one entity into `into`; when it was last written.
pub(crate) fn get_written(
    db: &DB,
    dir: &Path,
    read: &ReadOptions,
    key: &[u8],
    into: &mut Vec<u8>,
) -> Result<Option<Timestamp>, StateError> {
    into.clear();
    let action = || format!("read {} in {}", keys::describe(key), dir.display());
    let Some(value) = db.get_pinned_opt(key, read).map_err(|e| refused(action(), &e))? else { return Ok(None) };
    let (written, entity) = keys::decode_value(&value).map_err(|reason| corrupt(action(), reason))?;
    into.extend_from_slice(entity);
    Ok(Some(written))
}

/// Reads one value of this crate's own into `into`.
fn get(db: &DB, dir: &Path, read: &ReadOptions, key: &[u8], into: &mut Vec<u8>) -> Result<bool, StateError> {
    into.clear();
    let value = db.get_pinned_opt(key, read).map_err(|e| refused(format!("read {} in {}", keys::describe(key), dir.display()), &e))?;
    Ok(value.inspect(|value| into.extend_from_slice(value)).is_some())
}

/// Reads the stamp.
pub(crate) fn stamp(db: &DB, dir: &Path, read: &ReadOptions) -> Result<Option<Stamp>, StateError> {
    let mut bytes = Vec::new();
    if !get(db, dir, read, STAMP_KEY, &mut bytes)? {
        return Ok(None);
    }
    keys::decode_stamp(&bytes).map(Some).map_err(|reason| corrupt(format!("read the stamp in {}", dir.display()), reason))
}
