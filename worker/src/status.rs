//! What a worker tells about itself: read by progress bars, `/metrics`, health checks and, later, the operator.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use forebay_engine::ids::{Epoch, ShardId};
use forebay_engine::journal::{Books, Stamp};
use forebay_engine::log::InputProgress;
use forebay_engine::worker::Report;

use crate::load::Load;

/// One shard, as last seen.
#[derive(Clone, Debug, Default)]
pub struct ShardStatus {
    /// A word of the engine: `claiming`, `restoring`, `running`, `failed`, `stalled`...
    pub phase: &'static str,
    /// The last committed epoch.
    pub epoch: Epoch,
    /// Counts up to that epoch.
    pub books: Books,
    /// How far its partitions were read, and how far they reach.
    pub progress: Vec<InputProgress>,
    /// When it was last looked at, and for how many milliseconds the oldest record had waited then that is not processed; 0 if none waited.
    pub waits: Option<(Instant, u64)>,
    /// Records processed and not committed yet.
    pub uncommitted_records: usize,
    /// Decoded state in memory.
    pub cache_bytes: usize,
    /// The epoch of the newest checkpoint that counts.
    pub checkpoint: Option<Epoch>,
    /// Attempts to take one that failed since the shard came up.
    pub checkpoint_failures: u64,
    /// It failed in a way that needs help, and has not run since.
    pub stalled: bool,
    /// When that was first seen, or the shard began to run without one.
    pub checkpoint_seen: Option<Instant>,
    /// The last epoch that this process has begun to make a checkpoint of, and when.
    pub cut: Option<(Epoch, Instant)>,
    /// When that was of the newest checkpoint that counts; absent if this process has not made it.
    pub checkpoint_taken: Option<Instant>,
    /// Journal records behind that checkpoint: what a restore reads. Transaction markers and claims count too.
    pub journal_records: u64,
    /// Bytes of journal that this process wrote since then.
    pub journal_bytes: u64,
    /// The last failure, until it runs again.
    pub failure: Option<String>,
    /// When this process had it running, and its books then; absent while it does not run.
    pub began: Option<(Instant, Books)>,
    /// What part of its thread's time it takes; absent while it does not run.
    pub load: Option<Load>,
}

impl ShardStatus {
    /// Takes over what a committed epoch says, whose journal record had so many bytes.
    pub(crate) fn committed(&mut self, head: &Stamp, journal_bytes: u64) {
        (self.epoch, self.books) = (head.epoch, head.books);
        let newest = head.retained.last();
        self.journal_bytes += journal_bytes;
        if self.checkpoint_seen.is_none() || self.checkpoint != newest.map(|checkpoint| checkpoint.epoch) {
            self.checkpoint = newest.map(|checkpoint| checkpoint.epoch);
            (self.checkpoint_seen, self.journal_bytes) = (Some(Instant::now()), 0);
            self.checkpoint_taken = self.cut.filter(|(epoch, _)| Some(*epoch) == self.checkpoint).map(|(_, at)| at);
        }
        self.journal_records = head.journal.get().saturating_sub(newest.map_or(0, |checkpoint| checkpoint.journal.get()));
    }

    /// For how long the oldest record has waited that is not processed, in milliseconds; 0 if none does, `None` if that is not known.
    pub fn freshness_millis(&self) -> Option<u64> {
        let (seen, millis) = self.waits.filter(|_| self.phase == "running")?;
        Some(if millis == 0 { 0 } else { millis + seen.elapsed().as_millis() as u64 })
    }

    /// Records between what was read and the end, as far as known.
    pub fn lag_records(&self) -> u64 {
        self.progress.iter().map(|p| p.end.get().saturating_sub(p.position.next.get())).sum()
    }
}

/// Shared by all threads of a worker. Its locks are taken once per batch or epoch, never per record.
#[derive(Debug, Default)]
pub struct Status {
    shards: Mutex<BTreeMap<ShardId, ShardStatus>>,
    /// The books of shards that are no longer this worker's, as of its last epoch of them.
    left: Mutex<BTreeMap<ShardId, Books>>,
    reports: Mutex<Vec<Report>>,
    /// Counters since the process started.
    pub counters: Counters,
    /// Set once every shard is released.
    pub stopped: AtomicBool,
}

/// Counters since the process started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Transactions committed.
    pub transactions: AtomicU64,
    /// Microseconds spent in commits.
    pub commit_micros: AtomicU64,
    /// Records put out.
    pub output_records: AtomicU64,
    /// Bytes of keys, values and headers put out.
    pub output_bytes: AtomicU64,
    /// Bytes of journal records.
    pub journal_bytes: AtomicU64,
    /// Checkpoints uploaded.
    pub checkpoints: AtomicU64,
    /// Checkpoints that failed: the object store is down, or refuses.
    pub checkpoint_failures: AtomicU64,
    /// Incarnations that ended by an error.
    pub incarnations_over: AtomicU64,
    /// Calls of the log that hung past their deadline, each on a thread that was given up.
    pub calls_given_up: AtomicU64,
    /// Restores, by any means.
    pub restores: AtomicU64,
    /// Checkpoints that a restore could not use.
    pub restore_fallbacks: AtomicU64,
}

impl Counters {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, value: u64) {
        counter.fetch_add(value, Ordering::Relaxed);
    }
}

impl Status {
    /// Changes what is known of a shard.
    pub fn update(&self, shard: ShardId, change: impl FnOnce(&mut ShardStatus)) {
        change(lock(&self.shards).entry(shard).or_default());
    }

    /// The same, for what goes on beside a shard, such as a checkpoint: the shard may have been released meanwhile, and must not come back by it.
    pub fn update_if_there(&self, shard: ShardId, change: impl FnOnce(&mut ShardStatus)) {
        if let Some(status) = lock(&self.shards).get_mut(&shard) {
            change(status);
        }
    }

    /// A shard that is no longer this worker's. Its books are remembered.
    pub fn forget(&self, shard: ShardId) {
        if let Some(last) = lock(&self.shards).remove(&shard) {
            lock(&self.left).insert(shard, last.books);
        }
    }

    /// All shards, as last seen.
    pub fn shards(&self) -> BTreeMap<ShardId, ShardStatus> {
        lock(&self.shards).clone()
    }

    /// The sum of the books of all shards that are, or were, this worker's: also after it has released them all.
    pub fn books(&self) -> Books {
        let mut all = lock(&self.left).clone();
        all.extend(lock(&self.shards).iter().map(|(shard, status)| (*shard, status.books)));
        all.values().fold(Books::default(), |sum, books| sum.plus(books))
    }

    /// News since the last call. Bounded: the oldest are dropped when nobody asks.
    pub fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut lock(&self.reports))
    }

    pub(crate) fn report(&self, report: Report) {
        const REPORTS_MAX: usize = 1000;
        let mut reports = lock(&self.reports);
        if reports.len() == REPORTS_MAX {
            reports.remove(0);
        }
        reports.push(report);
    }
}

/// A poisoned lock means that a thread panicked while it wrote a status: what is there is still the best there is.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use forebay_engine::ids::{Incarnation, JournalOffset};
    use forebay_engine::manifest::RetainedCheckpoint;

    use super::*;
    use crate::fetch::tests::stamp;

    /// Method: a shard comes up with a checkpoint of another process, makes one, and begins the next while that comes to count.
    #[test]
    fn a_checkpoint_is_as_old_as_what_it_holds_and_of_no_known_age_if_another_process_made_it() {
        let head = |epoch, checkpoint| {
            let (of, incarnation) = (Epoch::new(checkpoint), Incarnation::new("w.1"));
            let retained = vec![RetainedCheckpoint { epoch: of, incarnation, journal: JournalOffset::default() }];
            Stamp { retained, ..stamp(Epoch::new(epoch)) }
        };
        let mut status = ShardStatus::default();
        status.committed(&head(7, 5), 0);
        assert!(status.checkpoint_seen.is_some() && status.checkpoint_taken.is_none());
        let began = Instant::now();
        status.cut = Some((Epoch::new(8), began));
        status.committed(&head(9, 5), 0);
        assert_eq!(status.checkpoint_taken, None);
        status.committed(&head(10, 8), 0);
        assert_eq!(status.checkpoint_taken, Some(began));
        status.cut = Some((Epoch::new(11), Instant::now()));
        status.committed(&head(12, 8), 0);
        assert_eq!(status.checkpoint_taken, Some(began));
    }

    /// Method: a shard is seen, released, and seen again further on, as when it is taken back.
    #[test]
    fn the_books_of_a_released_shard_stay_in_the_sum_and_count_once() {
        let status = Status::default();
        let see = |shard, records_in| {
            status.update(ShardId::new(shard), |status| status.books = Books { records_in, ..Books::default() });
        };
        see(0, 5);
        see(1, 7);
        status.forget(ShardId::new(1));
        status.update_if_there(ShardId::new(1), |status| status.checkpoint_failures += 1);
        assert_eq!(status.shards().keys().copied().collect::<Vec<_>>(), [ShardId::new(0)]);
        assert_eq!(status.books().records_in, 12);
        see(1, 9);
        assert_eq!(status.books().records_in, 14);
        status.forget(ShardId::new(0));
        status.forget(ShardId::new(1));
        assert_eq!(status.books().records_in, 14);
        assert!(status.shards().is_empty());
    }
}
