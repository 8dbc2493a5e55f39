//! How the lags of a job's shards go, as far as this operator has followed them: while a change is under way, for at other times nobody asks. An operator that starts
//! anew follows them anew, and the change waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_api::v1::Shard;

use crate::plan::Fleet;
use crate::plan::rollout::Rollout;
use crate::plan::trend::{Sample, Trend};

/// By the uid of the pod that works on them.
pub struct Lags {
    begin: Instant,
    kept: Mutex<BTreeMap<String, BTreeMap<u32, Trend>>>,
}

impl Lags {
    /// Nothing is followed yet.
    pub fn since(begin: Instant) -> Self {
        Self { begin, kept: Mutex::default() }
    }

    /// Adds what is seen now, and tells the fleet what has been seen.
    pub fn follow(&self, fleet: &mut Fleet, now: Instant) {
        let is_asked = matches!(Rollout::of(fleet), Rollout::Canary { .. } | Rollout::Switch { .. });
        let (window, at) = (fleet.gate.observe, now - self.begin);
        let mut kept = self.kept();
        for worker in &mut fleet.workers {
            let mut before = kept.remove(&worker.uid).unwrap_or_default();
            if !is_asked {
                continue;
            }
            if let Some(said) = worker.heard() {
                let sampled = said.owned.iter().filter_map(|shard| Some((shard.shard, sample(shard, at)?)));
                let trends = sampled.map(|(number, sample)| {
                    let mut trend = before.remove(&number).unwrap_or_default();
                    trend.add(sample, window);
                    (number, trend)
                });
                before = trends.collect();
            }
            worker.trends.clone_from(&before);
            kept.insert(worker.uid.clone(), before);
        }
    }

    /// Keeps those of these pods only.
    pub fn retain(&self, there: &BTreeSet<String>) {
        self.kept().retain(|uid, _| there.contains(uid));
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<u32, Trend>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a shard that runs.
fn sample(shard: &Shard, at: Duration) -> Option<Sample> {
    let books = shard.books.as_ref().filter(|_| shard.running_millis.is_some())?;
    Some(Sample { at, lag_records: shard.lag_records, records_in: books.records_in, rejected: books.rejected })
}
