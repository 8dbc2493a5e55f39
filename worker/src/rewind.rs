//! The end of one history of a job, and the first checkpoints of the next one out of what it left: of an earlier moment when a job is rewound, of its end when
//! another job adopts its state, or a savepoint is taken while nobody works. A program that does one thing and ends; no worker of the job need run meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use forebay_engine::claim::{Claim, ClaimAction, ClaimEvent, GaveUp, VersionRule};
use forebay_engine::ids::{AssignmentVersion, Incarnation, JournalOffset, ShardId, Timeline, WorkerName};
use forebay_engine::journal::{Owner, Stamp, encode_claim};
use forebay_engine::log::{Log, LogError, Producer, TopicInfo, Transaction, View};
use forebay_engine::restore::{RestoreError, Until, restore_until};
use forebay_engine::store::{ObjectStore, StoreError};
use forebay_state::{MEMORY_BYTES_MIN, SharedMemory};

use crate::restorer::{ShardPorts, newest_mark};
use crate::savepoint::{self, SavedShard, SavepointError, seed_with};
use crate::status::Status;
use crate::watchdog::Watchdog;
use crate::watched::{ScanError, Watched};

/// Why it was not done. The job is as it was, but for claims that its workers make anew.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A journal.
    #[error("{0}")]
    Journal(String),
    /// The object store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state as it was.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The first checkpoint of the new history.
    #[error(transparent)]
    Seed(#[from] SavepointError),
    /// Somebody claims the job's shards at the same time.
    #[error(
        "end the history of shard {shard}: {winner} has claimed it with a better right meanwhile; stop the job's workers, and try again"
    )]
    Outbid {
        /// The shard.
        shard: ShardId,
        /// Whose right it is.
        winner: WorkerName,
    },
}

impl From<ScanError> for RewindError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Log(error) => error.into(),
            ScanError::Journal(error) => Self::Journal(error.to_string()),
        }
    }
}

/// A job's history as it is before the rewind.
pub struct History<L> {
    log: Watched<L>,
    producers: Arc<L>,
    store: Arc<dyn ObjectStore>,
    timeline: Timeline,
    worker: WorkerName,
    status: Arc<Status>,
    topics: Vec<TopicInfo>,
}

/// The claims that ended a history.
pub struct Ended {
    incarnation: Incarnation,
    /// Where they lie.
    claims: BTreeMap<ShardId, JournalOffset>,
}

impl<L: Log> History<L> {
    /// The one that `log` and `store` are of, for `worker`: by that name its shards are claimed.
    pub fn new(log: Arc<L>, store: Arc<dyn ObjectStore>, timeline: Timeline, worker: WorkerName) -> Result<Self, RewindError> {
        let status = Arc::new(Status::default());
        let watched = Watched::new(log.clone(), Arc::new(Watchdog::new(status.clone())));
        let topics = watched.ask("look at the job's topics", Log::describe)?;
        Ok(Self { log: watched, producers: log, store, timeline, worker, status, topics })
    }

    /// Whether its journal is there.
    pub fn has_journal(&self) -> bool {
        self.topics.last().is_some_and(|journal| journal.partitions > 0)
    }

    /// Makes the first checkpoint of a shard's next history: its state at a moment of this one, of which only the end may still change. Returns what it
    /// holds; `None` if the shard has never committed anything. Nothing of this history changes.
    pub fn seed(
        &self,
        shard: ShardId,
        until: Until,
        inputs: usize,
        next: (&dyn ObjectStore, Timeline),
        by: &Incarnation,
        scratch: &Path,
    ) -> Result<Option<Stamp>, RewindError> {
        let topic_ids = self.topics[..inputs].iter().chain(self.topics.last()).map(|topic| topic.id.clone()).collect();
        let mut ports = ShardPorts {
            log: self.log.clone(),
            store: self.store.clone(),
            folder: scratch.join("database"),
            memory: SharedMemory::new(MEMORY_BYTES_MIN, 2).map_err(RestoreError::State)?,
            shard,
            timeline: self.timeline,
            topic_ids,
            status: self.status.clone(),
            quiet: false,
            is_wanted: Arc::new(|| true),
        };
        let restored = restore_until(&mut ports, shard, until)?;
        let Some(head) = restored.head else { return Ok(None) };
        Ok(Some(seed_with(restored.store, head, next, by, &scratch.join("checkpoint"))?))
    }

    /// Puts into a savepoint what a shard holds at the end of this history; `None` if it has never committed anything. Nothing of this history changes.
    pub fn save(
        &self,
        shard: ShardId,
        inputs: usize,
        to: &dyn ObjectStore,
        by: &Incarnation,
        scratch: &Path,
    ) -> Result<Option<SavedShard>, RewindError> {
        let Some(head) = self.seed(shard, Until::End, inputs, (to, self.timeline), by, scratch)? else { return Ok(None) };
        Ok(Some(savepoint::find(to, shard, head.epoch, by)?))
    }

    /// Ends this history: claims every shard as its owners do, and never processes anything. Whoever still runs is barred, and gives up when it claims again,
    /// for it meets the higher version. A history without a journal has nobody who could go on with it.
    pub fn end(&self, shards: impl Iterator<Item = ShardId>, process: &str) -> Result<Ended, RewindError> {
        let incarnation = Incarnation::new(format!("{}.{process}.0", self.worker));
        let mut claims = BTreeMap::new();
        if self.has_journal() {
            // A busy broker may not answer in time, and nothing is done yet.
            let mut producer = match self.producers.open_producer(&incarnation) {
                Err(LogError::Unavailable { .. }) => self.producers.open_producer(&incarnation)?,
                opened => opened?,
            };
            for shard in shards {
                claims.extend(self.claim(shard, &incarnation, &mut producer)?.map(|at| (shard, at)));
            }
        }
        Ok(Ended { incarnation, claims })
    }

    /// Who has written behind the claims that ended it: somebody who is alive, and has met them.
    pub fn stranger(&self, ended: &Ended) -> Result<Option<(ShardId, WorkerName)>, RewindError> {
        for (shard, at) in &ended.claims {
            let (scan, _) = self.log.scan(*shard, *at, View::Uncommitted)?;
            if let Some(worker) = scan.stranger(&ended.incarnation) {
                return Ok(Some((*shard, worker.clone())));
            }
        }
        Ok(None)
    }

    fn claim(&self, shard: ShardId, incarnation: &Incarnation, producer: &mut L::Producer) -> Result<Option<JournalOffset>, RewindError> {
        let owner = Owner {
            timeline: self.timeline,
            shard,
            worker: self.worker.clone(),
            incarnation: incarnation.clone(),
            assignment: AssignmentVersion::default(),
        };
        let (mut claim, first) = Claim::start(owner, VersionRule::AboveAll);
        let mut todo = first;
        while let Some(action) = todo.pop() {
            let event = match action {
                ClaimAction::ReadManifest => ClaimEvent::Manifest(newest_mark(&*self.store, shard)?),
                ClaimAction::Scan { from, view } => self.scan(shard, from, view)?,
                ClaimAction::Bar(other) => {
                    self.log.bar(&other)?;
                    ClaimEvent::Barred(other)
                }
                ClaimAction::CommitClaim(owner) => ClaimEvent::Claimed(put(producer, shard, &owner)?),
                ClaimAction::Restore(claimed) => {
                    let (behind, _) = self.log.scan(shard, claimed.offset(), View::Uncommitted)?;
                    todo.extend(claim.verify(&behind).err().unwrap_or_default());
                    continue;
                }
                ClaimAction::GiveUp(GaveUp { winner, .. }) => return Err(RewindError::Outbid { shard, winner }),
                // Nothing is left that anybody could go on with but the disk of a worker, and those have been stopped.
                ClaimAction::Stall { .. } => continue,
            };
            todo.extend(claim.step(event));
        }
        Ok(claim.last_claim())
    }

    fn scan(&self, shard: ShardId, from: JournalOffset, view: View) -> Result<ClaimEvent, RewindError> {
        match self.log.scan(shard, from, view) {
            Ok((scan, range)) => Ok(ClaimEvent::Scanned(scan, range)),
            Err(ScanError::Log(LogError::Cut { start, .. })) => Ok(ClaimEvent::Cut(JournalOffset::new(start))),
            Err(error) => Err(error.into()),
        }
    }
}

fn put<P: Producer>(producer: &mut P, shard: ShardId, owner: &Owner) -> Result<JournalOffset, RewindError> {
    let transaction = Transaction { journal: vec![(shard, encode_claim(owner))], ..Transaction::default() };
    let receipt = producer.commit(&transaction)?;
    let (at, _) = receipt.journal.get(&shard).expect("a receipt names all that its transaction carried");
    Ok(*at)
}
