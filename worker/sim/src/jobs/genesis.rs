//! Where a job begins that has neither journal nor checkpoint.

use std::collections::BTreeMap;

use forebay_engine::claim::Claimed;
use forebay_engine::failure::Failure;
use forebay_engine::ids::{Epoch, InputId, JournalOffset, Offset, Partition, Revision, Timestamp};
use forebay_engine::journal::{Books, Stamp};
use forebay_engine::log::{InputPosition, TopicInfo};
use forebay_engine::shard::shard_of;

use super::REVISION;

/// What the log says when a restore begins.
#[derive(Clone, Debug)]
pub struct LogFacts {
    /// The one input.
    pub input: TopicInfo,
    /// The journal.
    pub journal: TopicInfo,
    /// The group's offsets: all are of this job's own transactions.
    pub group: BTreeMap<Partition, Offset>,
}

/// A job that has never committed anything starts at the beginning of its inputs. One that has, and of which nothing is left, stalls.
pub(super) fn genesis(claimed: &Claimed, log: &LogFacts, shards: u32, topic_ids: Vec<String>) -> Result<Stamp, Failure> {
    let shard = claimed.owner().shard;
    let own = (0..log.input.partitions).map(Partition::new).filter(|partition| shard_of(*partition, shards) == shard);
    let positions: Vec<_> = own.map(|partition| InputPosition { input: InputId::new(0), partition, next: Offset::new(0) }).collect();
    if let Some(partition) = positions.iter().map(|position| position.partition).find(|partition| log.group.contains_key(partition)) {
        let reason =
            format!("shard {shard}: its journal and its checkpoints are gone, and yet it has committed offsets of partition {partition}");
        return Err(Failure::Lasting(reason));
    }
    Ok(Stamp {
        owner: claimed.owner().clone(),
        epoch: Epoch::default(),
        revision: Revision::new(REVISION),
        clock: Timestamp::default(),
        positions,
        topic_ids,
        books: Books::default(),
        retained: Vec::new(),
        garbage: Vec::new(),
        journal: JournalOffset::default(),
    })
}
