//! The log as helpers may use it: every question to it, and every read of a journal, is given up when it hangs, like the producer's calls. What
//! hangs is then an error like any other, and is tried again.

use std::sync::Arc;

use crossbeam_channel::bounded;
use forebay_engine::claim::Scan;
use forebay_engine::failure::Failure;
use forebay_engine::ids::{JournalOffset, ShardId};
use forebay_engine::journal::{self, JournalError};
use forebay_engine::log::{JournalEntry, JournalRange, Log, LogError, View};

use crate::watchdog::{Hung, Watchdog};

/// Records of a journal on their way from the thread that reads them: few, for one may be as large as a chunk of a journal gets.
const RECORDS_AHEAD: usize = 16;

/// A log and the watchdog over it. Cheap to clone.
pub(crate) struct Watched<L> {
    log: Arc<L>,
    watchdog: Arc<Watchdog>,
}

/// Why the heads of a journal could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Log(error) => error.into(),
            ScanError::Journal(error) => error.into(),
        }
    }
}

enum Read {
    Entry(JournalEntry),
    End(Result<JournalRange, LogError>),
}

impl<L: Log> Watched<L> {
    pub(crate) fn new(log: Arc<L>, watchdog: Arc<Watchdog>) -> Self {
        Self { log, watchdog }
    }

    /// Asks the log something. `Unavailable` when no answer comes.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        action: &str,
        question: impl FnOnce(&L) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let log = self.log.clone();
        self.watchdog.call(action, self.log.deadlines().read, move || question(&log)).map_err(|hung| unavailable(action, &hung))?
    }

    /// Bars an incarnation; see [`Log::bar`].
    pub(crate) fn bar(&self, incarnation: &forebay_engine::ids::Incarnation) -> Result<(), LogError> {
        let (action, log, whom) = (format!("bar incarnation {incarnation}"), self.log.clone(), incarnation.clone());
        let barred = self.watchdog.call(&action, self.log.deadlines().open, move || log.bar(&whom));
        barred.map_err(|hung| unavailable(&action, &hung))?
    }

    /// See [`Log::read_journal`]. `each` may take its time; the log may not.
    pub(crate) fn read_journal(
        &self,
        shard: ShardId,
        from: JournalOffset,
        view: View,
        each: &mut dyn FnMut(JournalEntry),
    ) -> Result<JournalRange, LogError> {
        let action = format!("read the journal of shard {shard} from offset {from}");
        let (sender, answers) = bounded(RECORDS_AHEAD);
        let (log, deadline) = (self.log.clone(), self.log.deadlines().read);
        let read = move || {
            // Once it is given up nobody listens.
            let end = log.read_journal(shard, from, view, &mut |entry| drop(sender.send(Read::Entry(entry))));
            drop(sender.send(Read::End(end)));
        };
        let mut leash = self.watchdog.start(&action, read).map_err(|hung| unavailable(&action, &hung))?;
        loop {
            let (read, same) = self.watchdog.await_answer(leash, &answers, deadline).map_err(|hung| unavailable(&action, &hung))?;
            leash = same;
            match read {
                Read::Entry(entry) => each(entry),
                Read::End(end) => {
                    self.watchdog.release(leash);
                    return end;
                }
            }
        }
    }

    /// Folds the heads of a piece of journal.
    pub(crate) fn scan(&self, shard: ShardId, from: JournalOffset, view: View) -> Result<(Scan, JournalRange), ScanError> {
        let mut scan = Scan::default();
        let mut outcome = Ok(());
        let range = self.read_journal(shard, from, view, &mut |entry| {
            if outcome.is_ok() {
                outcome = journal::head(&entry).map(|head| scan.add(entry.offset, &head));
            }
        })?;
        outcome?;
        Ok((scan, range))
    }
}

impl<L> Clone for Watched<L> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), watchdog: self.watchdog.clone() }
    }
}

fn unavailable(action: &str, hung: &Hung) -> LogError {
    LogError::Unavailable { action: action.to_owned(), reason: hung.reason() }
}

#[cfg(test)]
mod tests;
