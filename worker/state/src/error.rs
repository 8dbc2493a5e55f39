//! From RocksDB's words to the port's two kinds: what may pass once somebody helps (`Io`), and what will never be right again (`Corrupt`).

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use forebay_engine::state::StateError;
use rocksdb::ErrorKind;

/// What RocksDB says when a file that the database needs is gone: its kind is an I/O error, but no retry brings the file back.
const MISSING: &str = "No such file or directory";

/// Ways out, by the words of the operating system or of RocksDB.
const WAYS_OUT: [(&str, &str); 6] = [
    (
        "No space left on device",
        "free some space or enlarge the volume; nothing that was committed is lost, the shard goes on from its snapshot and journal",
    ),
    ("Disk quota exceeded", "raise the quota; nothing that was committed is lost, the shard goes on from its snapshot and journal"),
    ("Too many open files", "raise the limit of open files (ulimit -n): a shard may hold up to 256"),
    ("lock hold by current process", "this process still has the database open: drop it, and wait for its running checkpoints, first"),
    ("Resource temporarily unavailable", "another process has the database open: stop it first"),
    ("Read-only file system", "the volume became read-only, often after an I/O error: look into the node's kernel log"),
];

/// The last error that one database reported from its background threads, where no caller hears it, since its last successful write.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<Option<String>>);

impl Trouble {
    /// RocksDB reported an error.
    pub(crate) fn report(&self, words: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words.to_owned());
    }

    /// A write succeeded.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was reported since the last successful write.
    pub(crate) fn words(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether a write was turned away because flushing or compaction lags behind. Trying again later is right.
pub(crate) fn is_stall(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::Incomplete && error.as_ref().contains("Write stall")
}

/// A write was turned away for too long.
pub(crate) fn stalled(action: String, trouble: Option<String>) -> StateError {
    let reason = match trouble {
        Some(words) => with_way_out(&format!("the database takes no more writes: {words}")),
        None => {
            "the database takes no more writes, for flushing and compaction do not keep up; the disk is too slow for this load".to_owned()
        }
    };
    StateError::Io { action, reason }
}

/// RocksDB refused.
pub(crate) fn refused(action: impl Into<String>, error: &rocksdb::Error) -> StateError {
    let (action, words) = (action.into(), error.as_ref());
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::NotSupported | ErrorKind::InvalidArgument | ErrorKind::NotFound => corrupt(action, words),
        ErrorKind::IOError if words.contains(MISSING) => corrupt(action, words),
        ErrorKind::IOError
        | ErrorKind::MergeInProgress
        | ErrorKind::Incomplete
        | ErrorKind::ShutdownInProgress
        | ErrorKind::TimedOut
        | ErrorKind::Aborted
        | ErrorKind::Busy
        | ErrorKind::Expired
        | ErrorKind::TryAgain
        | ErrorKind::CompactionTooLarge
        | ErrorKind::ColumnFamilyDropped
        | ErrorKind::Unknown => StateError::Io { action, reason: with_way_out(words) },
    }
}

/// The operating system refused.
pub(crate) fn io(action: &str, path: &Path, error: &std::io::Error) -> StateError {
    StateError::Io { action: format!("{action} {}", path.display()), reason: with_way_out(&error.to_string()) }
}

/// The bytes cannot be what was written.
pub(crate) fn corrupt(action: impl Into<String>, reason: impl Into<String>) -> StateError {
    StateError::Corrupt { action: action.into(), reason: reason.into() }
}

fn with_way_out(words: &str) -> String {
    match WAYS_OUT.iter().find(|(needle, _)| words.contains(needle)) {
        Some((_, way_out)) => format!("{words}; {way_out}"),
        None => words.to_owned(),
    }
}
