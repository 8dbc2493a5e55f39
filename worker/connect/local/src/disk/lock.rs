//! One process per log folder, one open log per folder in a process.
//!
//! The lock is the operating system's (`flock`): it ends with its process, however that ends. The file stays, and says who had it last.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

use super::{OpenError, Shared};

/// The logs that this process has open. A weak reference that is dead stands for one that is being opened or closed.
static OPEN: Mutex<BTreeMap<PathBuf, Weak<Shared>>> = Mutex::new(BTreeMap::new());
/// Some log was opened or closed.
static CHANGED: Condvar = Condvar::new();

/// This process's sole right to a folder. Dropping it lets others in.
#[derive(Debug)]
pub(crate) struct FolderLock {
    dir: PathBuf,
    /// `None` until the lock is held.
    file: Option<File>,
}

/// The open log of a folder: the one that this process has already, or what `open` makes of it.
pub(crate) fn open_once(dir: &Path, open: impl FnOnce(FolderLock) -> Result<Shared, OpenError>) -> Result<Arc<Shared>, OpenError> {
    let mut logs = open_logs();
    while let Some(log) = logs.get(dir) {
        if let Some(log) = log.upgrade() {
            return Ok(log);
        }
        logs = CHANGED.wait(logs).expect(NO_PANIC);
    }
    logs.insert(dir.to_owned(), Weak::new());
    drop(logs);
    // From here on the lock's drop takes the entry out again.
    let mut lock = FolderLock { dir: dir.to_owned(), file: None };
    lock.acquire()?;
    let log = Arc::new(open(lock)?);
    open_logs().insert(dir.to_owned(), Arc::downgrade(&log));
    CHANGED.notify_all();
    Ok(log)
}

impl FolderLock {
    fn acquire(&mut self) -> Result<(), OpenError> {
        let path = self.dir.join("lock");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(OpenError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Whoever holds it may not have written its id yet.
                let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
                let holder = if known { format!("process {}", pid.trim()) } else { "another process".to_owned() };
                return Err(OpenError::InUse { dir: self.dir.clone(), lock: path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::io("lock", &path)(source)),
        }
        let id = std::process::id();
        file.set_len(0).and_then(|()| writeln!(file, "{id}")).map_err(OpenError::io("write", &path))?;
        self.file = Some(file);
        Ok(())
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        let mut logs = open_logs();
        // Closing the file unlocks it; only then may another thread try.
        drop(self.file.take());
        logs.remove(&self.dir);
        CHANGED.notify_all();
    }
}

const NO_PANIC: &str = "nothing panics while it holds the list of open logs";

fn open_logs() -> MutexGuard<'static, BTreeMap<PathBuf, Weak<Shared>>> {
    OPEN.lock().expect(NO_PANIC)
}
