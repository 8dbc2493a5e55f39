//! How this worker brings a shard up: its ports, its restore behind a claim, its preparation without one, and where a shard begins that has no state yet.

use std::sync::Arc;

use forebay_engine::claim::Claimed;
use forebay_engine::failure::Failure;
use forebay_engine::ids::{Epoch, InputId, JournalOffset, ShardId, Timestamp};
use forebay_engine::journal::{Books, Stamp};
use forebay_engine::log::{InputPosition, Log, LogError, TopicInfo, View};
use forebay_engine::pipeline::Pipeline;
use forebay_engine::restore::{ImportError, RestoreError, go_on, restore};
use forebay_engine::shard::{Shard, shard_of};
use forebay_engine::worker::Attempt;
use forebay_state::{RocksState, SharedMemory};

use crate::coordinator::{Restoration, Restorer};
use crate::fetch::replace;
use crate::prefetch::{Missed, Prefetcher, Wanted, Work};
use crate::restorer::{ShardPorts, newest_manifest, shard_folder};
use crate::runtime::{Engine, RuntimeOptions};
use crate::status::Status;
use crate::turns::Turns;
use crate::watched::Watched;

/// What every restore needs.
pub(crate) struct Restores<L, P> {
    pub log: Watched<L>,
    pub engine: Engine<L, P>,
    pub options: RuntimeOptions,
    pub memory: SharedMemory,
    pub status: Arc<Status>,
}

impl<L: Log, P: 'static> Restores<L, P> {
    /// What prepares the shards of others.
    pub(crate) fn prefetcher(self: &Arc<Self>, turns: Arc<Turns>) -> Arc<Prefetcher> {
        let restores = self.clone();
        Prefetcher::start(move |shard, work, is_wanted| {
            let failed = |reason: String| Missed::Failed(reason);
            let _place = turns.enter_if_free(shard).ok_or_else(|| failed("a restore that nobody waits for is not over yet".into()))?;
            match work {
                Work::Follow => restores.prefetch(shard, is_wanted),
                Work::Download => restores.download(shard, &*is_wanted).map_err(|error| failed(error.to_string())),
            }
        })
    }

    /// The ports of one, and the topics of the job's inputs. Topics are asked for anew each time: one may have been made anew, or have got more
    /// partitions, since this process began.
    fn ports(&self, shard: ShardId, quiet: bool, is_wanted: Wanted) -> Result<(ShardPorts<L>, Vec<TopicInfo>), LogError> {
        let mut inputs = self.log.ask("look at the job's topics", Log::describe)?;
        let journal = inputs.last().map(|topic| topic.id.clone());
        inputs.truncate(self.options.start_from.len());
        let ports = ShardPorts {
            log: self.log.clone(),
            store: self.engine.store.clone(),
            folder: shard_folder(&self.options.state_dir, shard),
            memory: self.memory.clone(),
            shard,
            timeline: self.options.worker.timeline,
            topic_ids: inputs.iter().map(|topic| topic.id.clone()).chain(journal).collect(),
            status: self.status.clone(),
            quiet,
            is_wanted,
        };
        Ok((ports, inputs))
    }

    /// Brings the database of a shard that somebody else owns up to date, and closes it.
    fn prefetch(&self, shard: ShardId, is_wanted: Wanted) -> Result<(), Missed> {
        let (mut ports, _) = self.ports(shard, true, is_wanted).map_err(|error| Missed::Failed(error.to_string()))?;
        match restore(&mut ports, shard) {
            Ok(_) => Ok(()),
            Err(RestoreError::Outrun) => Err(Missed::Outrun),
            Err(error) => Err(Missed::Failed(error.to_string())),
        }
    }

    /// Puts the newest checkpoint where the restore looks for a database, unless there is one. The restore finds out what it is worth. The journal is not
    /// read: that would wait for the transaction that the owner before left open.
    fn download(&self, shard: ShardId, is_wanted: &(dyn Fn() -> bool + Sync)) -> Result<(), ImportError> {
        let folder = shard_folder(&self.options.state_dir, shard);
        if RocksState::is_in(&folder)? {
            return Ok(());
        }
        match newest_manifest(&*self.engine.store, shard)? {
            Some(manifest) => {
                tracing::debug!(%shard, "download begins");
                let outcome = replace(&*self.engine.store, &manifest, &folder, is_wanted);
                tracing::debug!(%shard, epoch = %manifest.stamp.epoch, complete = outcome.is_ok(), "download ends");
                outcome
            }
            None => Ok(()),
        }
    }
}

/// Brings shards up behind their claims.
pub(crate) fn restorer<L: Log, P: Pipeline + 'static>(
    restores: Arc<Restores<L, P>>,
    turns: Arc<Turns>,
    cache_bytes: usize,
) -> Restorer<P, RocksState> {
    Arc::new(move |shard: ShardId, attempt: Attempt, claimed: Claimed| {
        let Restores { log, engine, options, .. } = &*restores;
        let turns = turns.clone();
        let is_wanted = Arc::new(move || turns.is_wanted(shard, attempt));
        let (mut ports, inputs) = match restores.ports(shard, false, is_wanted) {
            Ok(ports) => ports,
            Err(error) => return Restoration::Failed(error.into()),
        };
        let topic_ids = ports.topic_ids.clone();
        let restored = match restore(&mut ports, shard) {
            Ok(restored) => restored,
            Err(RestoreError::Outrun) => return Restoration::Outrun,
            Err(error) => return Restoration::Failed(error.into()),
        };
        let head = match restored.head {
            // What this owner takes before its first epoch bears its own name.
            Some(head) => go_on(Stamp { owner: claimed.owner().clone(), ..head }, &options.revision, options.shards, &inputs, topic_ids),
            None => genesis(log, &claimed, options, topic_ids),
        };
        let head = match head {
            Ok(head) => head,
            Err(failure) => return Restoration::Failed(failure),
        };
        let state = Shard::new((engine.pipeline)(shard), restored.store, head, cache_bytes).with_lifetimes(options.lifetimes.clone());
        tracing::debug!(%shard, "last look begins");
        match log.scan(shard, claimed.offset(), View::Uncommitted) {
            Ok((behind, _)) => Restoration::Done(Box::new(state), behind),
            Err(error) => Restoration::Failed(error.into()),
        }
    })
}

/// The state before the first epoch.
fn genesis<L: Log>(log: &Watched<L>, claimed: &Claimed, options: &RuntimeOptions, topic_ids: Vec<String>) -> Result<Stamp, Failure> {
    let owner = claimed.owner().clone();
    let mut positions: Vec<InputPosition> = Vec::new();
    for (input, from) in (0..).map(InputId::new).zip(options.start_from.iter().copied()) {
        let all = log.ask(&format!("find where to start in input {input}"), move |log| log.start_positions(input, from))?;
        positions.extend(all.into_iter().filter(|position| shard_of(position.partition, options.shards) == owner.shard));
    }
    positions.sort();
    let asked = positions.clone();
    let own = log.ask("look for offsets that this job has committed", move |log| log.own_positions(&asked))?;
    if let Some(InputPosition { input, partition, next }) = own.first() {
        return Err(Failure::Lasting(format!(
            "shard {}: its journal and its checkpoints are gone: there are none, and yet this job has committed offset {next} of input {input}, \
             partition {partition}, to its consumer group. Bring the journal topic or the checkpoints back; to begin anew and process the input \
             again, stop the job and call `forebay cleanup --delete`",
            owner.shard
        )));
    }
    Ok(Stamp {
        owner,
        epoch: Epoch::default(),
        revision: options.revision.clone(),
        clock: Timestamp::default(),
        positions,
        topic_ids,
        books: Books::default(),
        retained: Vec::new(),
        garbage: Vec::new(),
        journal: JournalOffset::default(),
    })
}
