//! Clients of the broker for what is no contestant.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// For any answer of the broker. It shares its processors with the contestants.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What every client starts from.
pub fn config(kafka: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka);
    config
}

/// A consumer without a group to speak of; it is given partitions and keeps no offsets.
pub fn reader(kafka: &str, committed: bool) -> Result<BaseConsumer> {
    config(kafka)
        .set("group.id", "forebay-bench-reader")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", if committed { "read_committed" } else { "read_uncommitted" })
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "100")
        .create()
        .context("open a consumer")
}

/// The number of a topic's partitions.
pub fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).with_context(|| format!("look up topic {topic}"))?;
    let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    ensure!(count > 0, "there is no topic {topic}");
    Ok(i32::try_from(count)?)
}

/// A list of all partitions of a topic, each at the same place.
pub fn all_partitions(topic: &str, count: i32, at: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in 0..count {
        list.add_partition_offset(topic, partition, at)?;
    }
    Ok(list)
}

/// The offsets behind the last record of each partition, as a reader of this consumer's isolation sees them.
pub fn ends(consumer: &BaseConsumer, topic: &str, partitions: i32) -> Result<Vec<i64>> {
    let asked = all_partitions(topic, partitions, Offset::End)?;
    let found = consumer.offsets_for_times(asked, PATIENCE).with_context(|| format!("ask for the ends of topic {topic}"))?;
    let end = |partition| match found.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(end)) => Ok(end),
        other => anyhow::bail!("the broker says {other:?} for the end of {topic}-{partition}"),
    };
    (0..partitions).map(end).collect()
}
