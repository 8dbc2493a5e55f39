//! A real broker as a test sees it: makes topics, puts records in, gets out what was committed. Shares no code with the adapter under test
//! besides the client library.

mod replicas;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::{PATIENCE, until};

/// One record to put in; a line of a records file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `None`: without a key.
    pub key: Option<String>,
    /// The payload.
    pub value: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

/// Of every topic as many as its cluster has by default: one on a single broker, three on three.
const REPLICAS: TopicReplication<'_> = TopicReplication::Fixed(-1);

/// The largest record that [`Feeder`] puts in. By default a client refuses by itself what has more than 1 MB, whatever the topic takes.
const RECORD_BYTES_MAX: &str = "4194304";

/// One broker, or a cluster of them.
pub struct Broker {
    /// `host:port`; of a cluster all of them, with commas between.
    pub address: String,
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl Broker {
    /// The one that the environment names.
    pub fn of_environment() -> Result<Self> {
        Self::at(&crate::variable("FOREBAY_TEST_KAFKA")?)
    }

    /// The one at an address.
    pub fn at(address: &str) -> Result<Self> {
        let admin = config(address).create().context("open an admin client")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { address: address.to_owned(), admin, runtime })
    }

    /// Makes a topic that keeps records whatever their age: the flights are of 2013, and a broker goes by their time stamps.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<()> {
        self.create_topic_with(name, partitions, &[])
    }

    /// The same with these settings besides.
    pub fn create_topic_with(&self, name: &str, partitions: u32, settings: &[(&str, &str)]) -> Result<()> {
        let kept = NewTopic::new(name, i32::try_from(partitions)?, REPLICAS).set("retention.ms", "-1");
        let topic = settings.iter().fold(kept, |topic, (setting, value)| topic.set(setting, value));
        let made = self.runtime.block_on(self.admin.create_topics([&topic], &limits()))?;
        ensure!(made.iter().all(std::result::Result::is_ok), "make topic {name}: {made:?}");
        // A broker knows a topic a moment after its controller does, and each at another one.
        self.each_alone(|broker| {
            until(&format!("topic {name} is there"), PATIENCE, || {
                let metadata = broker.fetch_metadata(Some(name), PATIENCE)?;
                Ok((metadata.topics()[0].partitions().len() == partitions as usize).then_some(()))
            })
        })
    }

    /// The names of all topics.
    pub fn topics(&self) -> Result<Vec<String>> {
        let metadata = self.admin.inner().fetch_metadata(None, PATIENCE)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Deletes a topic and makes one of the same name, with no records.
    pub fn remake_topic(&self, name: &str, partitions: u32) -> Result<()> {
        self.delete_topic(name)?;
        self.create_topic(name, partitions)
    }

    /// Deletes a topic, and waits until it is gone.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let deleted = self.runtime.block_on(self.admin.delete_topics(&[name], &limits()))?;
        ensure!(deleted.iter().all(std::result::Result::is_ok), "delete topic {name}: {deleted:?}");
        until(&format!("topic {name} is gone"), PATIENCE, || {
            let metadata = self.admin.inner().fetch_metadata(Some(name), PATIENCE)?;
            Ok(metadata.topics()[0].partitions().is_empty().then_some(()))
        })
    }

    /// Gives a topic more partitions: so many in all.
    pub fn add_partitions(&self, name: &str, partitions: u32) -> Result<()> {
        let wider = NewPartitions::new(name, partitions as usize);
        let done = self.runtime.block_on(self.admin.create_partitions([&wider], &limits()))?;
        ensure!(done.iter().all(std::result::Result::is_ok), "add partitions to topic {name}: {done:?}");
        until(&format!("topic {name} has {partitions} partitions"), PATIENCE, || {
            let metadata = self.admin.inner().fetch_metadata(Some(name), PATIENCE)?;
            Ok((metadata.topics()[0].partitions().len() == partitions as usize).then_some(()))
        })
    }

    /// Gives a topic these settings, and no others but that it keeps its records; waits until the broker knows them.
    pub fn set(&self, topic: &str, settings: &[(&str, &str)]) -> Result<()> {
        let kept = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("retention.ms", "-1");
        let config = settings.iter().fold(kept, |config, (name, value)| config.set(name, value));
        let done = self.runtime.block_on(self.admin.alter_configs([&config], &limits()))?;
        ensure!(done.iter().all(std::result::Result::is_ok), "set {settings:?} of topic {topic}: {done:?}");
        until(&format!("topic {topic} has {settings:?}"), PATIENCE, || {
            let described = self.runtime.block_on(self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &limits()))?;
            let found = described.into_iter().next().context("an answer for the topic")?.map_err(|code| anyhow!("{topic}: {code}"))?;
            let has = |(name, value): &(&str, &str)| found.get(name).is_some_and(|entry| entry.value.as_deref() == Some(*value));
            Ok(settings.iter().all(has).then_some(()))
        })
    }

    /// Deletes the records of a partition before an offset, as retention would.
    pub fn delete_records(&self, topic: &str, partition: u32, before: u64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, i32::try_from(partition)?, Offset::Offset(i64::try_from(before)?))?;
        self.runtime.block_on(self.admin.delete_records(&list, &limits()))?;
        Ok(())
    }

    /// The first offset and the one behind the last, per partition, of committed and uncommitted records alike.
    pub fn ranges(&self, topic: &str) -> Result<Vec<(u64, u64)>> {
        // The default, `read_committed`, gives the last stable offset as the end, for clients of any kind.
        self.ranges_for(topic, "read_uncommitted")
    }

    /// Whether no transaction is open on a topic: what readers of committed records may see reaches its end.
    pub fn is_settled(&self, topic: &str) -> Result<bool> {
        Ok(self.ranges_for(topic, "read_committed")? == self.ranges(topic)?)
    }

    /// Reads so many records of a topic as an ordinary member of a consumer group, commits how far it has come, and leaves. Returns the group's
    /// offset per partition; `None` where it read nothing.
    pub fn consume_as(&self, group: &str, topic: &str, records: usize) -> Result<Vec<Option<u64>>> {
        let mut config = config(&self.address);
        config.set("group.id", group).set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = config.create()?;
        consumer.subscribe(&[topic])?;
        let deadline = Instant::now() + PATIENCE;
        let mut read = 0;
        while read < records {
            ensure!(Instant::now() < deadline, "{read} of {records} records of {topic} came to group {group}");
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                message.with_context(|| format!("read topic {topic} as group {group}"))?;
                read += 1;
            }
        }
        consumer.commit_consumer_state(CommitMode::Sync)?;
        self.group_offsets(group, topic)
    }

    /// A consumer group's offset per partition of a topic; `None` where it has none.
    pub fn group_offsets(&self, group: &str, topic: &str) -> Result<Vec<Option<u64>>> {
        let mut config = config(&self.address);
        let consumer: BaseConsumer = config.set("group.id", group).create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, i32::try_from(self.ranges(topic)?.len())? - 1);
        let committed = consumer.committed_offsets(list, PATIENCE)?;
        let offset = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(at) => u64::try_from(at).ok(),
            _ => None,
        };
        Ok(committed.elements().into_iter().map(offset).collect())
    }

    fn ranges_for(&self, topic: &str, isolation: &str) -> Result<Vec<(u64, u64)>> {
        let asker: BaseConsumer = reader(&self.address).set("isolation.level", isolation).create()?;
        let metadata = asker.fetch_metadata(Some(topic), PATIENCE)?;
        let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        ensure!(count > 0, "there is no topic {topic}");
        let range = |partition: usize| -> Result<(u64, u64)> {
            let (low, high) = asker.fetch_watermarks(topic, i32::try_from(partition)?, PATIENCE)?;
            Ok((u64::try_from(low)?, u64::try_from(high)?))
        };
        (0..count).map(range).collect()
    }

    /// Writes the committed records of a topic, as `forebay log consume` prints them. Exact to the end: it waits for transactions that are
    /// still open. Returns how many there are.
    pub fn dump(&self, topic: &str, path: &Path, is_meant: impl Fn(u32, u64) -> bool) -> Result<u64> {
        let mut out = BufWriter::new(File::create(path)?);
        let mut count = 0;
        self.read(topic, |message| {
            if !is_meant(u32::try_from(message.partition())?, u64::try_from(message.offset())?) {
                return Ok(());
            }
            count += 1;
            serde_json::to_writer(&mut out, &printed(message))?;
            out.write_all(b"\n")?;
            Ok(())
        })?;
        out.flush()?;
        Ok(count)
    }

    /// Hands out the committed records of a topic to its end.
    pub fn read(&self, topic: &str, mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<()>) -> Result<()> {
        let ranges = self.ranges(topic)?;
        let consumer: BaseConsumer = reader(&self.address).create()?;
        let mut list = TopicPartitionList::new();
        for (partition, (start, _)) in (0..).zip(&ranges) {
            list.add_partition_offset(topic, partition, Offset::Offset(i64::try_from(*start)?))?;
        }
        consumer.assign(&list)?;
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            match consumer.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => {
                    each(&message)?;
                    deadline = Instant::now() + PATIENCE;
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => return Err(error).with_context(|| format!("read topic {topic}")),
            }
            // Behind the last record lie the markers of transactions: only the position tells that they were passed.
            let positions = consumer.position()?;
            let is_read = |(partition, (start, end)): (i32, &(u64, u64))| {
                let position = positions.find_partition(topic, partition).map(|element| element.offset());
                start == end || matches!(position, Some(Offset::Offset(at)) if u64::try_from(at).unwrap_or(0) >= *end)
            };
            if (0..).zip(&ranges).all(is_read) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "topic {topic} cannot be read to its end {ranges:?}, stuck at {positions:?}: is a transaction hanging?"
            );
        }
    }
}

/// Puts records into one topic, in order per key, each once.
pub struct Feeder {
    producer: ThreadedProducer<FirstError>,
    topic: String,
}

impl Feeder {
    /// Opens a producer.
    pub fn new(broker: &Broker, topic: &str) -> Result<Self> {
        let mut config = config(&broker.address);
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("queue.buffering.max.messages", "1000000");
        // As Kafka's own clients do it: the job checks that a key is in the partition that it belongs to.
        config.set("partitioner", "murmur2_random").set("compression.type", "zstd").set("message.max.bytes", RECORD_BYTES_MAX);
        let producer = config.create_with_context(FirstError::default()).context("open a producer")?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// Puts records in and waits until the broker has them.
    pub fn feed(&self, records: &[Record]) -> Result<()> {
        for record in records {
            self.put(record.key.as_ref().map(String::as_bytes), Some(record.value.as_bytes()), Some(record.timestamp))?;
        }
        self.flush()
    }

    /// Puts one record in, of any bytes; [`Feeder::flush`] waits for it.
    pub fn put(&self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: Option<i64>) -> Result<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic);
        (record.key, record.payload, record.timestamp) = (key, value, timestamp);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => record = refused,
                Err((error, _)) => return Err(error).context("put a record in"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the broker has all.
    pub fn flush(&self) -> Result<()> {
        self.producer.flush(PATIENCE).context("put records in")?;
        match &*self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(error) => bail!("a record was not taken: {error}"),
        }
    }
}

/// Keeps the first record that the broker refused.
#[derive(Clone, Default)]
struct FirstError(Arc<Mutex<Option<String>>>);

impl rdkafka::ClientContext for FirstError {}

impl ProducerContext for FirstError {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
        }
    }
}

fn config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    config
}

fn reader(address: &str) -> ClientConfig {
    let mut config = config(address);
    config.set("group.id", "forebay-e2e").set("enable.auto.commit", "false").set("auto.offset.reset", "error");
    config.set("isolation.level", "read_committed").set("enable.partition.eof", "true").set("fetch.wait.max.ms", "20");
    config
}

fn limits() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

fn printed(message: &BorrowedMessage<'_>) -> serde_json::Value {
    let text = |bytes: Option<&[u8]>| {
        bytes.map(|bytes| match std::str::from_utf8(bytes) {
            Ok(text) => serde_json::Value::from(text),
            Err(_) => serde_json::json!({"base64": BASE64_STANDARD.encode(bytes)}),
        })
    };
    let mut headers = serde_json::Map::new();
    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
        headers.insert(header.key.to_owned(), text(header.value).into());
    }
    serde_json::json!({
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp().to_millis(),
        "key": text(message.key()),
        "value": text(message.payload()),
        "headers": headers,
    })
}
