//! Where a cluster of several brokers keeps a topic.

use anyhow::{Context, Result, anyhow};
use rdkafka::admin::ResourceSpecifier;
use rdkafka::consumer::BaseConsumer;

use super::{Broker, limits, reader};
use crate::{PATIENCE, until};

impl Broker {
    /// The node that leads a partition. Waits while none does.
    pub fn leader(&self, topic: &str, partition: usize) -> Result<i32> {
        until(&format!("partition {partition} of {topic} has a leader"), PATIENCE, || {
            let metadata = self.admin.inner().fetch_metadata(Some(topic), PATIENCE)?;
            let found = metadata.topics()[0].partitions().iter().find(|found| usize::try_from(found.id()).ok() == Some(partition));
            Ok(found.map(rdkafka::metadata::MetadataPartition::leader).filter(|leader| *leader >= 0))
        })
    }

    /// How many replicas each partition of a topic has.
    pub fn replicas(&self, topic: &str) -> Result<Vec<usize>> {
        let metadata = self.admin.inner().fetch_metadata(Some(topic), PATIENCE)?;
        Ok(metadata.topics()[0].partitions().iter().map(|partition| partition.replicas().len()).collect())
    }

    /// Waits until every partition of every topic is in sync on just so many nodes.
    pub fn wait_until_in_sync(&self, nodes: usize) -> Result<()> {
        until(&format!("all partitions are in sync on {nodes} nodes"), PATIENCE, || {
            let metadata = self.admin.inner().fetch_metadata(None, PATIENCE)?;
            let mut partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
            Ok(partitions.all(|partition| partition.isr().len() == nodes).then_some(()))
        })
    }

    /// Hands out a client of each broker that has not talked to any other, and asks that one as long as it needs none.
    pub(super) fn each_alone(&self, each: impl Fn(&BaseConsumer) -> Result<()>) -> Result<()> {
        self.address.split(',').try_for_each(|address| each(&reader(address).create().context("open a client")?))
    }

    /// A topic's setting; `None` if there is none of this name.
    pub fn setting(&self, topic: &str, name: &str) -> Result<Option<String>> {
        let described = self.runtime.block_on(self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &limits()))?;
        let found = described.into_iter().next().context("an answer for the topic")?.map_err(|code| anyhow!("{topic}: {code}"))?;
        Ok(found.get(name).and_then(|entry| entry.value.clone()))
    }
}
