//! What a user says about the cluster, and the librdkafka configuration that each kind of client gets from it.
//!
//! Three layers: our defaults, the user's properties over them, and over both what the protocol's safety rests on. A property of the last
//! layer in the user's hands is an error rather than silently overruled.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use forebay_engine::ids::Incarnation;
use forebay_engine::log::{JobTopics, LogError};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use crate::login::TOKEN_FILE;

/// Where users name the brokers: the manifest's field and the flag that overrides it, as messages say them.
pub(crate) const BROKERS_FIELD: &str = "`spec.kafka.bootstrapServers` or `--kafka`";

/// The same of properties, secret ones among them.
pub(crate) const PROPERTIES_FIELD: &str = "`spec.kafka.properties`, `spec.kafka.propertiesFrom` or `--kafka-property`";

/// Set by this crate alone: exactly-once rests on them.
const OURS: [&str; 13] = [
    "auto.offset.reset",
    "delivery.report.only.error",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "partitioner",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Uncompressed bytes of one produced batch. The broker compares the compressed batch with `max.message.bytes` (1 MiB by default), so half
/// of that can never be refused there.
pub(crate) const BATCH_BYTES: usize = 512 << 10;

/// The largest single record that is tried. What a broker takes is its own business and is said by its refusal.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// Below this a partition's queue is empty more often than not.
const PARTITION_BYTES_MIN: usize = 32 << 10;

/// The cluster, the job's topics, and limits.
#[derive(Clone)]
pub struct KafkaOptions {
    /// `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// librdkafka properties, secrets already resolved: TLS, SASL, tuning. Never logged.
    pub properties: BTreeMap<String, String>,
    /// The job's topics.
    pub topics: JobTopics,
    /// How long the broker lets a transaction stay open, and with it the deadline of a commit.
    pub transaction_timeout: Duration,
    /// Deadline of every other call.
    pub request_timeout: Duration,
    /// How long [`forebay_engine::log::View::CommittedToEnd`] waits without getting any further. Longer than `transaction_timeout`, so that a
    /// transaction that its owner abandoned is over before.
    pub stable_timeout: Duration,
    /// Memory for input records that are fetched and not yet polled, all partitions of the job together.
    pub prefetch_bytes: usize,
    /// Memory for outputs on their way.
    pub produce_bytes: usize,
    /// How this process calls itself to the brokers.
    pub client_id: String,
}

impl KafkaOptions {
    /// The defaults for a job on a cluster.
    pub fn new(bootstrap_servers: impl Into<String>, topics: JobTopics) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            properties: BTreeMap::new(),
            topics,
            transaction_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(15),
            stable_timeout: Duration::from_secs(45),
            prefetch_bytes: 256 << 20,
            produce_bytes: 128 << 20,
            client_id: "forebay".into(),
        }
    }

    /// The same for a process that may use so much memory: a thirty-second of it for inputs, an eighth for outputs, and never more than pays.
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = (bytes / 32).min(self.prefetch_bytes);
        self.produce_bytes = (bytes / 8).min(self.produce_bytes);
        self
    }

    /// The same with one more librdkafka property.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// Refuses properties that would undo the protocol's safety.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        let denied = |reason: String| LogError::Denied { action: "read the Kafka properties".into(), reason };
        if let Some(name) = OURS.iter().find(|name| self.properties.contains_key(**name)) {
            return Err(denied(format!(
                "`{name}` is set by Forebay itself, exactly-once and the order of a key's records rest on it; remove the property from \
                 {PROPERTIES_FIELD}"
            )));
        }
        let by_token = ["sasl.mechanism", "sasl.mechanisms"]
            .iter()
            .any(|name| self.properties.get(*name).is_some_and(|value| value.eq_ignore_ascii_case("OAUTHBEARER")));
        if by_token != self.properties.contains_key(TOKEN_FILE) {
            let reason = "`sasl.mechanism=OAUTHBEARER` and `sasl.oauthbearer.token.file` belong together: the file holds the token, and whoever \
                          renews it writes it there; librdkafka's own ways to get one (`sasl.oauthbearer.method=oidc`, unsecured tokens) are not \
                          built in";
            return Err(denied(reason.into()));
        }
        Ok(())
    }

    /// Administration and nothing else.
    pub(crate) fn admin(&self) -> ClientConfig {
        let mut config = self.base(&[]);
        // Nobody polls an admin client's event queue, so that log lines would pile up in it.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    /// A consumer that reads journals and asks questions. It is assigned for the time of one read only, so its fetches may be impatient:
    /// the last one of a read is the one that finds nothing more.
    pub(crate) fn reader(&self, committed: bool) -> ClientConfig {
        let mut config = self.consumer(&[("fetch.wait.max.ms", "5".into()), ("fetch.queue.backoff.ms", "5".into())]);
        config.set("isolation.level", if committed { "read_committed" } else { "read_uncommitted" });
        config
    }

    /// The consumer of a worker's input partitions. `partitions` is how many it may have to hold at once (I9: the budget is divided by it).
    pub(crate) fn input(&self, partitions: usize) -> ClientConfig {
        let share = self.partition_bytes(partitions);
        // A fetch may overshoot the queue's limit by its own size: half for the queue, half for the fetch.
        let fetch = (share / 2).min(1 << 20);
        let queue = share - fetch;
        let mut config = self.consumer(&[
            // The default of 1 s starves a partition whose queue has once been full (measured: a fifth of the throughput).
            ("fetch.queue.backoff.ms", "5".into()),
            // Small responses cost more CPU than the records in them; 20 ms of waiting is a fifth of a commit interval.
            ("fetch.min.bytes", "16384".into()),
            ("fetch.wait.max.ms", "20".into()),
            ("fetch.message.max.bytes", fetch.to_string()),
            ("fetch.max.bytes", (self.prefetch_bytes / 4).clamp(2 << 20, 50 << 20).to_string()),
            ("queued.max.messages.kbytes", (queue >> 10).to_string()),
            // librdkafka spends about half a kilobyte on a record beside its bytes.
            ("queued.min.messages", (queue >> 9).clamp(100, 100_000).to_string()),
        ]);
        config.set("isolation.level", "read_committed");
        config
    }

    /// What one of so many partitions may hold.
    fn partition_bytes(&self, partitions: usize) -> usize {
        (self.prefetch_bytes / partitions.max(1)).clamp(PARTITION_BYTES_MIN, 64 << 20)
    }

    /// How many partitions fit into the memory for inputs, when a topic has so many.
    pub(crate) fn partitions_max(&self, partitions: usize) -> usize {
        (self.prefetch_bytes / self.partition_bytes(partitions)).max(1)
    }

    /// The transactional producer of an incarnation. Its `message.timeout.ms` is the transaction's.
    pub(crate) fn producer(&self, incarnation: &Incarnation) -> ClientConfig {
        let mut config = self.base(&[
            ("compression.codec", "lz4".into()),
            // A transaction's records come in one burst, so that batches fill anyway; what lingers is the last one of each partition.
            ("linger.ms", "2".into()),
            // A transaction that follows at once is told to wait while the markers of the one before are written, which takes some milliseconds. By the
            // default of 100 ms every sixth commit took as long (measured with commits every 20 ms). Less would gain nothing, and shorten the search for the
            // group's coordinator, which is given up after three answers.
            ("retry.backoff.ms", "20".into()),
            // It follows from the other if it is not said: then a leader that moves would be asked for all the time.
            ("topic.metadata.refresh.fast.interval.ms", "100".into()),
            ("batch.size", BATCH_BYTES.to_string()),
            ("message.max.bytes", RECORD_BYTES_MAX.to_string()),
            ("queue.buffering.max.messages", "400000".into()),
            ("queue.buffering.max.kbytes", (self.produce_bytes >> 10).max(1024).to_string()),
            ("partitioner", "murmur2_random".into()),
        ]);
        config.set("transactional.id", transactional_id(&self.topics.uid, incarnation));
        config.set("transaction.timeout.ms", self.transaction_timeout.as_millis().to_string());
        config.set("enable.idempotence", "true");
        config.set("delivery.report.only.error", "false");
        config
    }

    fn consumer(&self, defaults: &[(&str, String)]) -> ClientConfig {
        let mut config = self.base(defaults);
        config.set("group.id", &self.topics.group);
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "error");
        config
    }

    fn base(&self, defaults: &[(&str, String)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", &self.client_id);
        config.set("socket.keepalive.enable", "true");
        config.set("reconnect.backoff.max.ms", "2000");
        // It reads the clock and takes a lock for each record, for figures that few brokers collect.
        config.set("enable.metrics.push", "false");
        for (name, value) in defaults {
            config.set(*name, value);
        }
        for (name, value) in self.properties.iter().filter(|(name, _)| *name != TOKEN_FILE) {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config.set_log_level(crate::context::log_level());
        config
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

/// The transactional id that stands for an incarnation of a job's worker.
pub(crate) fn transactional_id(uid: &str, incarnation: &Incarnation) -> String {
    format!("forebay.{uid}.{incarnation}")
}

/// What a job's own offsets carry as metadata in its consumer group: it tells them from those of a group that was taken over, and from those of a
/// job that had this name before.
pub(crate) fn offsets_mark(uid: &str) -> String {
    format!("forebay.{uid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> KafkaOptions {
        let topics = JobTopics {
            uid: "u1".into(),
            inputs: vec!["in".into()],
            outputs: vec!["out".into()],
            journal: "journal".into(),
            group: "group".into(),
            shards: 2,
        };
        KafkaOptions::new("broker:9092", topics)
    }

    #[test]
    fn a_users_property_beats_a_default_and_never_what_safety_rests_on() {
        let tuned = options().property("retry.backoff.ms", "50").property("linger.ms", "50").property("fetch.min.bytes", "1");
        assert!(tuned.check().is_ok());
        let producer = tuned.producer(&Incarnation::new("w0.1"));
        assert_eq!((producer.get("linger.ms"), producer.get("retry.backoff.ms")), (Some("50"), Some("50")));
        assert_eq!(tuned.input(4).get("fetch.min.bytes"), Some("1"));
        for name in OURS {
            let message = options().property(name, "x").check().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn a_token_comes_from_a_file_and_from_nowhere_else() {
        let by_token = || options().property("sasl.mechanism", "OAUTHBEARER");
        let whole = by_token().property(TOKEN_FILE, "/run/token");
        assert!(whole.check().is_ok());
        assert_eq!(whole.producer(&Incarnation::new("w0.1")).get(TOKEN_FILE), None, "librdkafka does not know it");
        for half in [by_token(), options().property(TOKEN_FILE, "/run/token"), by_token().property("sasl.oauthbearer.method", "oidc")] {
            let message = half.check().unwrap_err().to_string();
            assert!(message.contains("sasl.oauthbearer.token.file"), "{message}");
        }
    }

    #[test]
    fn every_client_is_configured_as_the_protocol_needs() {
        let producer = options().producer(&Incarnation::new("w0.1"));
        assert_eq!(producer.get("transactional.id"), Some("forebay.u1.w0.1"));
        assert_eq!(producer.get("partitioner"), Some("murmur2_random"));
        for consumer in [options().reader(true), options().reader(false), options().input(8)] {
            assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
            assert_eq!(consumer.get("enable.auto.commit"), Some("false"));
            assert_eq!(consumer.get("fetch.queue.backoff.ms"), Some("5"), "a partition starves once its queue was full");
        }
        assert_eq!(options().reader(false).get("isolation.level"), Some("read_uncommitted"));
        assert_eq!(options().input(8).get("isolation.level"), Some("read_committed"));
    }

    #[test]
    fn prefetched_bytes_stay_within_the_budget_however_many_partitions_there_are() {
        // Of so many partitions, those that a worker with so much memory may read.
        for (memory_mib, partitions, expected) in
            [(256, 1, 1), (256, 12, 12), (256, 256, 256), (256, 2_000, 256), (1024, 600, 600), (1024, 10_000, 1024), (8192, 2_000, 2_000)]
        {
            let options = options().memory(memory_mib << 20);
            let config = options.input(partitions);
            let number = |name: &str| config.get(name).unwrap().parse::<usize>().unwrap();
            let read = options.partitions_max(partitions).min(partitions);
            assert_eq!(read, expected, "{partitions} partitions with {memory_mib} MiB");
            let held = read * ((number("queued.max.messages.kbytes") << 10) + number("fetch.message.max.bytes"));
            assert!(held <= options.prefetch_bytes, "{read} partitions may hold {held} bytes");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!("{:?}", options().property("sasl.password", "hunter2"));
        assert!(printed.contains("sasl.password") && !printed.contains("hunter2"), "{printed}");
    }
}
