//! Whether a restored shard may go on with the input topics as they are now: what the state says of them, compared with what the log says. Asks neither.

use crate::failure::Failure;
use crate::ids::{InputId, Partition, Revision};
use crate::journal::Stamp;
use crate::log::TopicInfo;
use crate::mutants::{self, Bug};
use crate::shard::shard_of;

/// The head from which a restored shard goes on, with this revision and these topics' ids ([`Stamp::topic_ids`]): they take effect with the next epoch.
/// `inputs` are the job's input topics as they are now, in the order of its inputs.
///
/// I1: an input that was made anew under its name has other records at the same offsets, and those below the committed ones would never be processed
/// (the restore has looked at the journal's id). I3: partitions that were added hold keys whose state, and whose records so far, lie elsewhere. Both
/// are [`Failure::Lasting`], with the topic and the way out.
pub fn go_on(mut head: Stamp, revision: &Revision, shards: u32, inputs: &[TopicInfo], topic_ids: Vec<String>) -> Result<Stamp, Failure> {
    check_ids(&head, inputs)?;
    check_partitions(&head, shards, inputs)?;
    head.revision = revision.clone();
    head.topic_ids = topic_ids;
    Ok(head)
}

fn check_ids(head: &Stamp, inputs: &[TopicInfo]) -> Result<(), Failure> {
    let shard = head.owner.shard;
    for (topic, was) in inputs.iter().zip(&head.topic_ids) {
        if *was != topic.id && !was.is_empty() && !topic.id.is_empty() && !mutants::is(Bug::InputIdIgnored) {
            return Err(Failure::Lasting(format!(
                "shard {shard}: input topic {} was deleted and made anew (id {was}, now {}); its offsets mean other records. Bring the topic back, \
                 or start the job anew under another name",
                topic.name, topic.id
            )));
        }
    }
    Ok(())
}

fn check_partitions(head: &Stamp, shards: u32, inputs: &[TopicInfo]) -> Result<(), Failure> {
    let shard = head.owner.shard;
    for (input, topic) in (0..).map(InputId::new).zip(inputs) {
        let is_known =
            |partition: &Partition| head.positions.iter().any(|position| (position.input, position.partition) == (input, *partition));
        let mut own = (0..topic.partitions).map(Partition::new).filter(|partition| shard_of(*partition, shards) == shard);
        if let Some(added) = own.find(|partition| !is_known(partition)) {
            return Err(Failure::Lasting(format!(
                "shard {shard}: topic {} has {} partitions, and partition {added} was not there when the state began. Its keys' state lies in other \
                 partitions: start a job with another name from the beginning of the topic",
                topic.name, topic.partitions
            )));
        }
    }
    Ok(())
}
