//! The checkpoints before a planned stop: with them a start elsewhere, without this machine's disk, has next to no journal to read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use forebay_engine::ids::{Epoch, ShardId};
use forebay_worker::Runtime;
use forebay_worker::status::{ShardStatus, Status};

/// A checkpoint that was on its way when ours was asked for may be of an earlier epoch: so it is asked for again.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits for a checkpoint of every shard that runs, work going on meanwhile. It ends for certain: an object store that does not answer makes
/// an attempt fail.
pub struct LastCheckpoint {
    /// What the shards stood at when it began.
    wanted: BTreeMap<ShardId, Wanted>,
    asked: Instant,
}

struct Wanted {
    epoch: Epoch,
    failures: u64,
}

impl LastCheckpoint {
    /// Asks for the checkpoints.
    pub fn ask(runtime: &Runtime) -> Self {
        let shards = runtime.status().shards().into_iter().filter(|(_, shard)| shard.phase == "running" && shard.epoch > Epoch::default());
        let wanted = shards.map(|(id, shard)| (id, Wanted { epoch: shard.epoch, failures: shard.checkpoint_failures })).collect();
        let this = Self { wanted, asked: Instant::now() };
        this.ask_again(runtime);
        this
    }

    /// Whether every shard has its checkpoint, or will not get one.
    pub fn is_over(&mut self, runtime: &Runtime) -> bool {
        if self.asked.elapsed() >= ASK_INTERVAL {
            self.asked = Instant::now();
            self.ask_again(runtime);
        }
        let shards = runtime.status().shards();
        self.wanted.iter().all(|(id, wanted)| shards.get(id).is_none_or(|shard| wanted.is_met(shard) || wanted.has_failed(shard)))
    }

    fn ask_again(&self, runtime: &Runtime) {
        runtime.checkpoint(self.wanted.iter().map(|(id, wanted)| (*id, wanted.epoch)).collect());
    }

    /// The shards that have none.
    pub fn missing(&self, status: &Status) -> BTreeSet<ShardId> {
        let shards = status.shards();
        let met = |id: &ShardId, wanted: &Wanted| shards.get(id).is_some_and(|shard| wanted.is_met(shard));
        self.wanted.iter().filter(|(id, wanted)| !met(id, wanted)).map(|(id, _)| *id).collect()
    }
}

impl Wanted {
    fn is_met(&self, shard: &ShardStatus) -> bool {
        shard.checkpoint.is_some_and(|checkpoint| checkpoint >= self.epoch)
    }

    fn has_failed(&self, shard: &ShardStatus) -> bool {
        shard.phase != "running" || shard.checkpoint_failures > self.failures
    }
}
