//! Preparing shards that somebody else owns, so that to take one over costs next to nothing: what is committed so far is restored to the local disk, and
//! what comes is followed. No claim is needed, for nothing but that disk is written. The restore behind the claim then finds the database of its own history,
//! and reads what has come since. A worker that must bar the owner before it, which takes a second or two, downloads meanwhile what the restore will need.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_engine::ids::ShardId;

use crate::helpers::panic_text;

/// How often a shard that is ready is brought up to date: seldom enough that reading its journal costs little, often enough that little is left to read.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);
/// Each attempt downloads what has changed since the one before it began, so the third is short unless they never come to an end.
const OUTRUNS_MAX: u32 = 3;
/// How long the end of the worker waits for one that is on its way.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How far a shard is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefetched {
    /// Its state as of a moment ago lies on the disk.
    pub ready: bool,
    /// Why the last attempt came to nothing. It is tried again.
    pub failure: Option<String>,
}

/// Why a shard was not brought up to date.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The journal was cut meanwhile: at once again, with what is downloaded already.
    Outrun,
    /// What went wrong.
    Failed(String),
}

/// Whether the shard is still to be prepared.
pub(crate) type Wanted = Arc<dyn Fn() -> bool + Send + Sync>;

/// What is done about a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Its database is brought up to date, again and again.
    Follow,
    /// Its newest checkpoint is downloaded, once.
    Download,
}

/// A shard that is wanted.
struct Entry {
    work: Work,
    state: Prefetched,
    due: Instant,
    /// Attempts in a row that were outrun.
    outruns: u32,
}

/// Prepares shards, one at a time, on a thread of its own.
pub struct Prefetcher {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    wanted: BTreeMap<ShardId, Entry>,
    at_work_on: Option<ShardId>,
    is_over: bool,
}

impl Prefetcher {
    /// Starts the thread. `fetch` does one shard's work once, and leaves its database closed.
    pub(crate) fn start(fetch: impl Fn(ShardId, Work, Wanted) -> Result<(), Missed> + Send + 'static) -> Arc<Self> {
        let prefetcher = Arc::new(Self { inner: Mutex::default(), changed: Condvar::new() });
        let own = prefetcher.clone();
        let thread = std::thread::Builder::new().name("prefetch".into()).spawn(move || own.run(&fetch));
        thread.expect("the system refuses a thread at the start");
        prefetcher
    }

    /// From now on these shards are prepared, and no others. What lies on the disk of others stays there.
    pub fn want(&self, shards: &BTreeSet<ShardId>) {
        let mut inner = self.inner();
        inner.wanted.retain(|shard, entry| entry.work == Work::Download || shards.contains(shard));
        for shard in shards {
            inner.wanted.entry(*shard).or_insert_with(|| Entry::new(Work::Follow)).work = Work::Follow;
        }
        self.changed.notify_all();
    }

    /// Downloads for shards that are about to be restored here, as much as there is time for until then.
    pub(crate) fn download(&self, shards: impl IntoIterator<Item = ShardId>) {
        let mut inner = self.inner();
        for shard in shards {
            // One that is followed and not ready begins with its journal, which has no end while the owner before has a transaction open.
            let entry = inner.wanted.entry(shard).or_insert_with(|| Entry::new(Work::Download));
            if !entry.state.ready {
                *entry = Entry::new(Work::Download);
            }
        }
        self.changed.notify_all();
    }

    /// The shard will not be restored here. Does not wait for the end of a download that is on its way.
    pub(crate) fn cancel_download(&self, shard: ShardId) {
        self.inner().wanted.retain(|other, entry| *other != shard || entry.work == Work::Follow);
    }

    /// The shards that are prepared, and how far they are.
    pub fn all(&self) -> BTreeMap<ShardId, Prefetched> {
        let inner = self.inner();
        let followed = inner.wanted.iter().filter(|(_, entry)| entry.work == Work::Follow);
        followed.map(|(shard, entry)| (*shard, entry.state.clone())).collect()
    }

    /// Leaves a shard to whoever restores it now; waits until its disk is left alone.
    pub(crate) fn leave(&self, shard: ShardId) {
        let mut inner = self.inner();
        inner.wanted.remove(&shard);
        while inner.at_work_on == Some(shard) {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the thread; does not wait for long.
    pub(crate) fn end(&self) {
        let mut inner = self.inner();
        inner.is_over = true;
        self.changed.notify_all();
        let is_busy = |inner: &mut Inner| inner.at_work_on.is_some();
        drop(self.changed.wait_timeout_while(inner, END_TIMEOUT, is_busy));
    }

    fn run(self: &Arc<Self>, fetch: &dyn Fn(ShardId, Work, Wanted) -> Result<(), Missed>) {
        let mut inner = self.inner();
        while !inner.is_over {
            let next = inner.wanted.iter().min_by_key(|(_, entry)| entry.due).map(|(shard, entry)| (*shard, entry.work, entry.due));
            let Some((shard, work, due)) = next else {
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let wait = due.saturating_duration_since(Instant::now());
            if wait > Duration::ZERO {
                inner = self.changed.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            inner.at_work_on = Some(shard);
            drop(inner);
            let own = self.clone();
            let wanted: Wanted = Arc::new(move || own.wants(shard));
            let outcome = catch_unwind(AssertUnwindSafe(|| fetch(shard, work, wanted)));
            let outcome = outcome.unwrap_or_else(|panic| Err(Missed::Failed(format!("it panicked: {}", panic_text(&*panic)))));
            inner = self.inner();
            inner.at_work_on = None;
            match work {
                Work::Follow => drop(inner.wanted.get_mut(&shard).map(|entry| entry.note(shard, outcome))),
                // What has not come, the restore brings, and says why.
                Work::Download => inner.wanted.retain(|other, entry| *other != shard || entry.work == Work::Follow),
            }
            self.changed.notify_all();
        }
    }

    fn wants(&self, shard: ShardId) -> bool {
        let inner = self.inner();
        !inner.is_over && inner.wanted.contains_key(&shard)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(work: Work) -> Self {
        Self { work, state: Prefetched::default(), due: Instant::now(), outruns: 0 }
    }

    /// Notes what came of an attempt, and when the next one is due.
    fn note(&mut self, shard: ShardId, outcome: Result<(), Missed>) {
        let outruns = std::mem::take(&mut self.outruns) + 1;
        self.due = Instant::now() + FOLLOW_INTERVAL;
        match outcome {
            Ok(()) => {
                if !self.state.ready {
                    tracing::info!(%shard, "prefetched");
                }
                self.state = Prefetched { ready: true, failure: None };
            }
            Err(Missed::Outrun) => {
                (self.outruns, self.due) = (outruns, Instant::now());
                tracing::debug!(%shard, outruns, "a prefetch was outrun by newer checkpoints");
                let reason = || format!("the journal was cut behind newer checkpoints meanwhile, {outruns} times in a row");
                self.state.failure = (outruns >= OUTRUNS_MAX).then(reason);
            }
            Err(Missed::Failed(reason)) => {
                tracing::warn!(%shard, reason, "a shard was not prefetched");
                self.state.failure = Some(reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, Sender, bounded};

    use super::*;

    fn shard(number: u32) -> ShardId {
        ShardId::new(number)
    }

    /// A prefetcher whose work begins when the test receives the shard, and ends when it sends the outcome.
    fn scripted() -> (Arc<Prefetcher>, Receiver<ShardId>, Sender<Result<(), Missed>>) {
        let (begun, begins) = bounded(0);
        let (end, ends) = bounded::<Result<(), Missed>>(0);
        let fetch = move |shard, _work, _wanted: Wanted| {
            begun.send(shard).map_err(|_| Missed::Failed("the test is over".into()))?;
            ends.recv().unwrap_or(Ok(()))
        };
        (Prefetcher::start(fetch), begins, end)
    }

    /// Waits for what `all` must come to say.
    fn await_state(prefetcher: &Prefetcher, expected: &[(u32, Prefetched)]) {
        let expected: BTreeMap<ShardId, Prefetched> = expected.iter().map(|(number, state)| (shard(*number), state.clone())).collect();
        let mut inner = prefetcher.inner();
        while inner.wanted.iter().map(|(shard, entry)| (*shard, entry.state.clone())).collect::<BTreeMap<_, _>>() != expected {
            inner = prefetcher.changed.wait(inner).unwrap();
        }
    }

    #[test]
    fn a_shard_is_ready_once_it_was_fetched_and_is_followed_then() {
        let (prefetcher, begins, end) = scripted();
        prefetcher.want(&[shard(3)].into());
        assert_eq!(begins.recv().unwrap(), shard(3));
        for _ in 0..OUTRUNS_MAX {
            assert_eq!(prefetcher.all()[&shard(3)], Prefetched::default());
            end.send(Err(Missed::Outrun)).unwrap();
            assert_eq!(begins.recv().unwrap(), shard(3), "it is not tried again");
        }
        // Whoever waits for it knows that it may be so every time.
        let outrun = Some("the journal was cut behind newer checkpoints meanwhile, 3 times in a row".into());
        await_state(&prefetcher, &[(3, Prefetched { ready: false, failure: outrun })]);
        end.send(Err(Missed::Failed("the store is down".into()))).unwrap();
        await_state(&prefetcher, &[(3, Prefetched { ready: false, failure: Some("the store is down".into()) })]);
        assert_eq!(begins.recv().unwrap(), shard(3));
        end.send(Ok(())).unwrap();
        await_state(&prefetcher, &[(3, Prefetched { ready: true, failure: None })]);
        assert_eq!(begins.recv().unwrap(), shard(3), "it is not followed");
        end.send(Err(Missed::Failed("the broker is down".into()))).unwrap();
        // What lies there is still of use.
        await_state(&prefetcher, &[(3, Prefetched { ready: true, failure: Some("the broker is down".into()) })]);
        assert_eq!(begins.recv().unwrap(), shard(3));
        end.send(Err(Missed::Outrun)).unwrap();
        // Not in a row with those before.
        await_state(&prefetcher, &[(3, Prefetched { ready: true, failure: None })]);
        prefetcher.want(&BTreeSet::new());
        assert!(prefetcher.all().is_empty());
    }

    #[test]
    fn what_a_restore_will_need_is_downloaded_once_and_is_nobody_elses_matter() {
        let (prefetcher, begins, end) = scripted();
        prefetcher.download([shard(1)]);
        assert_eq!(begins.recv().unwrap(), shard(1));
        assert!(prefetcher.all().is_empty(), "it is told to the operator");
        prefetcher.want(&BTreeSet::new());
        assert!(prefetcher.wants(shard(1)), "the operator's orders end it");
        end.send(Err(Missed::Failed("the store is down".into()))).unwrap();
        let mut inner = prefetcher.inner();
        while inner.at_work_on.is_some() {
            inner = prefetcher.changed.wait(inner).unwrap();
        }
        assert!(inner.wanted.is_empty(), "it is tried again");
        drop(inner);
        prefetcher.download([shard(2)]);
        assert_eq!(begins.recv().unwrap(), shard(2));
        // Now it is to be followed too.
        prefetcher.want(&[shard(2)].into());
        end.send(Ok(())).unwrap();
        assert_eq!(begins.recv().unwrap(), shard(2));
        // Its owner is lost before it is ready: what the restore needs comes first, until that is not to come.
        prefetcher.download([shard(2)]);
        assert!(prefetcher.all().is_empty());
        prefetcher.cancel_download(shard(2));
        assert!(!prefetcher.wants(shard(2)));
        end.send(Ok(())).unwrap();
    }

    /// Method: a restore begins while its shard is fetched; it must not go on before the fetch has ended, and the shard must not be fetched again.
    #[test]
    fn a_restore_waits_until_its_folder_is_left_alone() {
        let (prefetcher, begins, end) = scripted();
        prefetcher.want(&[shard(1), shard(2)].into());
        let busy = begins.recv().unwrap();
        let other = if busy == shard(1) { shard(2) } else { shard(1) };
        let (left, leaves) = bounded(1);
        let own = prefetcher.clone();
        let restore = std::thread::spawn(move || {
            own.leave(busy);
            left.send(()).unwrap();
        });
        let mut inner = prefetcher.inner();
        while inner.wanted.contains_key(&busy) {
            drop(inner);
            std::thread::yield_now();
            inner = prefetcher.inner();
        }
        drop(inner);
        assert!(leaves.is_empty(), "the restore began while the folder was written");
        end.send(Ok(())).unwrap();
        leaves.recv().unwrap();
        restore.join().unwrap();
        assert_eq!(begins.recv().unwrap(), other);
        assert_eq!(prefetcher.all().keys().copied().collect::<Vec<_>>(), [other]);
        drop(end);
    }
}
