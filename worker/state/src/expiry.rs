//! Removing what is over: done by compactions, which rewrite the files anyway.
//!
//! A compaction goes by the clock of an epoch that lies in the files. So whatever a crash, a snapshot or a restore leaves of a database, it
//! never lacks an entity that is not over by the clock of its own stamp, and the journal's patches find the values that they were made for.
//!
//! A database that was just opened has no such clock until its first checkpoint. What the journal holds behind it may have been written when
//! lifetimes were longer, or when there were none, and patch what is over by those of today: nothing goes before it is replayed.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use forebay_engine::ids::Timestamp;
use forebay_engine::lifetimes::Lifetimes;
use forebay_engine::shard::decode_key;
use rocksdb::Options;
use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use crate::keys::decode_value;

/// Files that no write touches are compacted for this purpose alone, at most this often...
const PERIOD_MIN: Duration = Duration::from_secs(24 * 3600);
/// ... and at least so.
const PERIOD_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The newest clock that a checkpoint has found in a database's files since it was opened.
#[derive(Clone, Debug)]
pub(crate) struct FiledClock(Arc<AtomicI64>);

impl Default for FiledClock {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MIN)))
    }
}

impl FiledClock {
    /// An epoch with this clock lies in the files.
    pub(crate) fn advance(&self, clock: Timestamp) {
        self.0.fetch_max(clock.as_millis(), Ordering::Relaxed);
    }

    fn get(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Makes a database's compactions remove what is over.
pub(crate) fn remove_in_compactions(options: &mut Options, lifetimes: &Lifetimes, clock: &FiledClock) {
    let Some(shortest) = lifetimes.shortest() else { return };
    options.set_compaction_filter_factory(Factory { lifetimes: lifetimes.clone(), clock: clock.clone() });
    options.set_periodic_compaction_seconds(shortest.clamp(PERIOD_MIN, PERIOD_MAX).as_secs());
}

struct Factory {
    lifetimes: Lifetimes,
    clock: FiledClock,
}

impl CompactionFilterFactory for Factory {
    type Filter = Filter;

    fn create(&mut self, _context: CompactionFilterContext) -> Filter {
        Filter { lifetimes: self.lifetimes.clone(), clock: self.clock.get() }
    }

    fn name(&self) -> &CStr {
        c"forebay.lifetimes"
    }
}

struct Filter {
    lifetimes: Lifetimes,
    clock: Timestamp,
}

impl CompactionFilter for Filter {
    /// What cannot be read stays: a read says so.
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> Decision {
        let over = decode_key(key).zip(decode_value(value).ok());
        let over = over.is_some_and(|((table, _, _), (written, _))| self.lifetimes.is_over(table, written, self.clock));
        if over { Decision::Remove } else { Decision::Keep }
    }

    fn name(&self) -> &CStr {
        c"forebay.lifetimes"
    }
}
