//! Topics and their settings: makes and checks the journal, makes outputs, cuts the journal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_engine::log::{LogError, TimestampLimits};
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use crate::block_on::block_on;
use crate::context::{ClientEvents, Heard};
use crate::errors::{creation, from_code, log_error};
use crate::journal::{Isolation, Readers, offset, signed};
use crate::native::{Described, describe_topics};
use crate::offsets;
use crate::options::KafkaOptions;

/// What a broker takes by default since Kafka 4.0.
const AHEAD_DEFAULT_MILLIS: i64 = 3_600_000;

/// How far the brokers' clocks may be from ours: so much nearer to our clock than a topic allows must a time stamp be, if it allows twice as
/// much.
const CLOCKS_APART_MILLIS: i64 = 60_000;

/// The administrative side of a cluster. The client is made when it is first needed.
pub(crate) struct Admin {
    options: Arc<KafkaOptions>,
    heard: Arc<Heard>,
    readers: Arc<Readers>,
    client: Mutex<Option<Arc<AdminClient<ClientEvents>>>>,
}

/// Settings that a journal must have, and what another value does.
pub(crate) const JOURNAL_SETTINGS: [(&str, &str, &str); 5] = [
    ("cleanup.policy", "delete", "loses state"),
    ("retention.ms", "-1", "loses state"),
    ("retention.bytes", "-1", "loses state"),
    ("unclean.leader.election.enable", "false", "loses state when a broker is lost"),
    ("message.timestamp.type", "LogAppendTime", "lets a machine whose clock runs ahead stop the job's time"),
];

/// The settings of a topic or broker by name; a value that the broker keeps to itself is missing. All of them are when this principal may not
/// see any: rdkafka does not pass that error on.
pub(crate) type Settings = BTreeMap<String, String>;

impl Admin {
    pub(crate) fn new(options: Arc<KafkaOptions>, heard: Arc<Heard>, readers: Arc<Readers>) -> Self {
        Self { options, heard, readers, client: Mutex::default() }
    }

    /// The number of partitions, or `None` when there is no such topic.
    pub(crate) fn partitions(&self, action: &str, topic: &str) -> Result<Option<u32>, LogError> {
        self.readers.with(Isolation::Uncommitted, |reader| {
            offsets::partition_count(reader, &self.heard, action, topic, self.options.request_timeout)
        })
    }

    /// Topics with their ids, in the order of their names; `None` in the place of one that does not exist.
    pub(crate) fn describe(&self, action: &str, topics: &[&str]) -> Result<Vec<Option<Described>>, LogError> {
        self.readers.with(Isolation::Uncommitted, |reader| {
            describe_topics(reader.client(), topics, self.options.request_timeout)
                .map_err(|code| from_code(action, &format!("topics {}", topics.join(", ")), code, &code.to_string(), &self.heard))
        })
    }

    /// On how many brokers each partition of a topic lies, at least.
    pub(crate) fn replicas(&self, action: &str, topic: &str) -> Result<usize, LogError> {
        self.readers.with(Isolation::Uncommitted, |reader| {
            let metadata = reader.fetch_metadata(Some(topic), self.options.request_timeout);
            let metadata = metadata.map_err(|e| log_error(action, &format!("topic {topic}"), &e, &self.heard))?;
            let partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
            Ok(partitions.map(|partition| partition.replicas().len()).min().unwrap_or_default())
        })
    }

    /// Whether the job's group lets itself be asked, and how many members it has: consumers that are none of ours. A reader of committed
    /// records would be kept waiting for what a dead worker left open.
    pub(crate) fn group_members(&self, action: &str) -> Result<usize, LogError> {
        let (group, limit) = (&self.options.topics.group, self.options.request_timeout);
        let places: Vec<_> = self.options.topics.inputs.iter().map(|topic| (topic.clone(), 0)).collect();
        self.readers.with(Isolation::Uncommitted, |reader| {
            offsets::committed(reader, &self.heard, action, group, &places, None, limit)?;
            let found = reader.fetch_group_list(Some(group), limit);
            let found = found.map_err(|e| log_error(action, &format!("group {group}"), &e, &self.heard))?;
            Ok(found.groups().iter().filter(|found| found.name() == group).map(|found| found.members().len()).sum())
        })
    }

    /// The ids of the brokers that are up.
    pub(crate) fn brokers(&self, action: &str) -> Result<Vec<i32>, LogError> {
        self.readers.with(Isolation::Uncommitted, |reader| {
            // Asking for one topic spares the cluster the list of all; the brokers come with it.
            let metadata = reader
                .fetch_metadata(Some(&self.options.topics.journal), self.options.request_timeout)
                .map_err(|e| log_error(action, "the brokers", &e, &self.heard))?;
            Ok(metadata.brokers().iter().map(rdkafka::metadata::MetadataBroker::id).collect())
        })
    }

    /// See [`forebay_engine::log::Log::ensure_journal`].
    pub(crate) fn ensure_journal(&self) -> Result<(), LogError> {
        let topic = &self.options.topics.journal;
        let action = format!("make the journal topic {topic}");
        let replicas = self.brokers(&action)?.len().clamp(1, 3);
        let mut settings: Vec<(&str, &str)> = JOURNAL_SETTINGS.iter().map(|(name, value, _)| (*name, *value)).collect();
        if replicas == 3 {
            settings.push(("min.insync.replicas", "2"));
        }
        let shards = self.options.topics.shards;
        if self.partitions(&action, topic)?.is_none() && self.create(&action, topic, shards, replicas, &settings)? {
            return Ok(());
        }
        self.check_journal(&action)
    }

    /// See [`crate::KafkaLog::journals`].
    pub(crate) fn journals(&self) -> Result<Vec<String>, LogError> {
        let action = "look for the job's journals";
        self.readers.with(Isolation::Uncommitted, |reader| {
            let metadata = reader.fetch_metadata(None, self.options.request_timeout);
            let metadata = metadata.map_err(|e| log_error(action, "the topics", &e, &self.heard))?;
            let names = metadata.topics().iter().map(rdkafka::metadata::MetadataTopic::name);
            let mut journals: Vec<String> = names.filter(|name| is_journal_of(&self.options.topics.uid, name)).map(str::to_owned).collect();
            journals.sort();
            Ok(journals)
        })
    }

    /// See [`crate::KafkaLog::delete_journals`].
    pub(crate) fn delete_journals(&self, topics: &[String]) -> Result<(), LogError> {
        if topics.is_empty() {
            return Ok(());
        }
        let action = format!("delete the journal {}", topics.join(", "));
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let client = self.client()?;
        for result in self.wait(&action, client.delete_topics(&topics, &self.limits()))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {}
                Err((name, code)) => return Err(from_code(&action, &format!("topic {name}"), code, &code.to_string(), &self.heard)),
            }
        }
        Ok(())
    }

    /// Deletes the job's consumer group, with all its offsets.
    pub(crate) fn delete_group(&self) -> Result<(), LogError> {
        let group = &self.options.topics.group;
        let action = format!("delete the consumer group {group}");
        let client = self.client()?;
        for result in self.wait(&action, client.delete_groups(&[group], &self.limits()))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => {}
                Err((name, code)) => return Err(from_code(&action, &format!("group {name}"), code, &code.to_string(), &self.heard)),
            }
        }
        Ok(())
    }

    /// Makes every output topic that is missing; those that are there stay as they are.
    pub(crate) fn ensure_outputs(&self, partitions: u32) -> Result<(), LogError> {
        let action = "make the output topics";
        let replicas = self.brokers(action)?.len().clamp(1, 3);
        for topic in &self.options.topics.outputs {
            if self.partitions(action, topic)?.is_none() {
                self.create(action, topic, partitions, replicas, &[])?;
            }
        }
        Ok(())
    }

    /// See [`forebay_engine::log::Log::cut_journal`]. More than there is cannot be cut, so the end is asked for first.
    pub(crate) fn cut_journal(&self, shard: u32, before: u64) -> Result<(), LogError> {
        let topic = &self.options.topics.journal;
        let action = format!("cut the journal of shard {shard} before offset {before}");
        let (low, high) = self.readers.watermarks(Isolation::Uncommitted, &action, topic, shard)?;
        if before <= low {
            return Ok(());
        }
        if before > high {
            return Err(LogError::Beyond { action, topic: topic.clone(), partition: shard, wanted: before, end: high });
        }
        let place = (topic.clone(), signed(shard));
        let what = format!("{topic}-{shard}");
        let list = offsets::offsets_of(std::iter::once((&place, Offset::Offset(offset(before)))));
        let list = list.map_err(|e| log_error(&action, &what, &e, &self.heard))?;
        for attempt in 0.. {
            let client = self.client()?;
            let answer = self.wait(&action, client.delete_records(&list, &self.limits()))?;
            let Some(Err(error)) = answer.find_partition(topic, place.1).map(|element| element.error()) else { break };
            // A client that has been told of another leader goes on asking the one that it knows, for as long as its metadata lasts: minutes.
            self.client.lock().unwrap_or_else(PoisonError::into_inner).take();
            if attempt > 0 || !(offsets::is_without_leader(&error) || offsets::is_unknown(&error)) {
                return Err(log_error(&action, &what, &error, &self.heard));
            }
        }
        Ok(())
    }

    /// The settings of topics, in their order.
    pub(crate) fn topic_settings(&self, action: &str, topics: &[&str]) -> Result<Vec<Settings>, LogError> {
        let wanted: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        self.settings(action, &wanted)
    }

    /// See [`forebay_engine::log::Log::timestamp_limits`].
    pub(crate) fn timestamp_limits(&self) -> Result<Vec<TimestampLimits>, LogError> {
        let outputs: Vec<&str> = self.options.topics.outputs.iter().map(String::as_str).collect();
        match self.topic_settings("look at the outputs' settings", &outputs) {
            Ok(all) => Ok(all.iter().map(timestamp_limits).collect()),
            Err(LogError::Denied { .. }) => Ok(vec![timestamp_limits(&Settings::new()); outputs.len()]),
            Err(error) => Err(error),
        }
    }

    /// The settings of a broker.
    pub(crate) fn broker_settings(&self, action: &str, broker: i32) -> Result<Settings, LogError> {
        Ok(self.settings(action, &[ResourceSpecifier::Broker(broker)])?.pop().unwrap_or_default())
    }

    fn check_journal(&self, action: &str) -> Result<(), LogError> {
        let (topic, shards) = (&self.options.topics.journal, self.options.topics.shards);
        let unfit = |reason: String| LogError::Denied { action: action.into(), reason };
        match self.partitions(action, topic)? {
            Some(found) if found == shards => {}
            found => {
                return Err(unfit(format!(
                    "it has {} partitions and the job {shards} shards; set the job's `shards` back to what it was at its first start, or delete the topic if no job uses it",
                    found.unwrap_or_default()
                )));
            }
        }
        let settings = match self.topic_settings(action, &[topic]) {
            Ok(mut settings) => settings.pop().unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, topic, "the journal's settings cannot be asked for");
                Settings::new()
            }
        };
        if settings.is_empty() {
            // A principal without DescribeConfigs may still own a sound journal; the preflight says that it was not checked.
            tracing::warn!(topic, "the journal's settings cannot be seen");
        }
        for (name, expected, harm) in JOURNAL_SETTINGS {
            match settings.get(name) {
                Some(found) if found != expected => {
                    return Err(unfit(format!(
                        "it exists with `{name}={found}`, which {harm}; `kafka-configs.sh --alter --topic {topic} --add-config {name}={expected}` mends it"
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a topic and waits until the brokers show it. False when somebody else was faster.
    fn create(&self, action: &str, topic: &str, partitions: u32, replicas: usize, settings: &[(&str, &str)]) -> Result<bool, LogError> {
        let replication = TopicReplication::Fixed(i32::try_from(replicas).unwrap_or(1));
        let mut new = NewTopic::new(topic, signed(partitions), replication);
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let client = self.client()?;
        let mut made = true;
        for result in self.wait(action, client.create_topics([&new], &self.limits()))? {
            match result {
                Ok(_) => {}
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => made = false,
                Err((name, code)) => return Err(from_code(action, &format!("topic {name}"), code, &code.to_string(), &self.heard)),
            }
        }
        self.wait_for(action, topic)?;
        Ok(made)
    }

    /// The controller knows a new topic before the brokers do; who asks too early is told that there is none.
    fn wait_for(&self, action: &str, topic: &str) -> Result<(), LogError> {
        let deadline = Instant::now() + self.options.request_timeout;
        while self.partitions(action, topic)?.is_none_or(|count| count == 0) {
            if Instant::now() >= deadline {
                let reason = format!("the brokers do not show the new topic {topic}{}", self.heard.explain());
                return Err(LogError::Unavailable { action: action.into(), reason });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn settings(&self, action: &str, wanted: &[ResourceSpecifier<'_>]) -> Result<Vec<Settings>, LogError> {
        let client = self.client()?;
        let answer = self.wait(action, client.describe_configs(wanted, &self.limits()))?;
        let resources: Result<Vec<ConfigResource>, _> = answer.into_iter().collect();
        let resources = resources.map_err(|code| from_code(action, "settings", code, &code.to_string(), &self.heard))?;
        let entries = |resource: ConfigResource| {
            resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect::<Settings>()
        };
        Ok(resources.into_iter().map(entries).collect())
    }

    fn wait<T>(&self, action: &str, answer: impl Future<Output = Result<T, KafkaError>>) -> Result<T, LogError> {
        // A little more than the request's own limit, whose error says more than ours.
        let limit = self.options.request_timeout + Duration::from_secs(1);
        match block_on(answer, limit) {
            Some(result) => result.map_err(|e| log_error(action, "the cluster", &e, &self.heard)),
            None => Err(LogError::Unavailable {
                action: action.into(),
                reason: format!("no answer in {} s{}", limit.as_secs(), self.heard.explain()),
            }),
        }
    }

    fn limits(&self) -> AdminOptions {
        let limit = Some(self.options.request_timeout);
        AdminOptions::new().request_timeout(limit).operation_timeout(limit)
    }

    fn client(&self) -> Result<Arc<AdminClient<ClientEvents>>, LogError> {
        let mut kept = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*kept {
            client.inner().context().log_in(client.inner());
            return Ok(client.clone());
        }
        let events = ClientEvents::new("admin", &self.heard);
        let made: AdminClient<_> = self.options.admin().create_with_context(events).map_err(|e| creation("open an admin client", &e))?;
        made.inner().context().log_in(made.inner());
        Ok(kept.insert(Arc::new(made)).clone())
    }
}

/// Settings that cannot be seen are taken for the defaults.
fn timestamp_limits(settings: &Settings) -> TimestampLimits {
    if settings.get("message.timestamp.type").is_some_and(|kind| kind == "LogAppendTime") {
        return TimestampLimits::NONE;
    }
    let limit = |name: &str, default: i64| {
        let limit = settings.get(name).and_then(|millis| millis.parse().ok()).unwrap_or(default);
        limit - CLOCKS_APART_MILLIS.min(limit / 2)
    };
    TimestampLimits {
        behind_millis_max: limit("message.timestamp.before.max.ms", i64::MAX),
        ahead_millis_max: limit("message.timestamp.after.max.ms", AHEAD_DEFAULT_MILLIS),
    }
}

/// Whether a topic is the journal of some timeline of a job.
fn is_journal_of(uid: &str, topic: &str) -> bool {
    let timeline = topic.strip_prefix("forebay.").and_then(|rest| rest.strip_prefix(uid)?.strip_prefix('.')?.strip_suffix(".journal"));
    timeline.is_some_and(|timeline| !timeline.is_empty() && timeline.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_are_told_from_those_of_jobs_with_similar_names() {
        for (topic, is_its) in [
            ("forebay.default.flights.0.journal", true),
            ("forebay.default.flights.12.journal", true),
            ("forebay.default.flights.1.0.journal", false),
            ("forebay.default.flights-2.0.journal", false),
            ("forebay.other.default.flights.0.journal", false),
            ("forebay.default.flights..journal", false),
            ("forebay.default.flights.0.journals", false),
        ] {
            assert_eq!(is_journal_of("default.flights", topic), is_its, "{topic}");
        }
    }
}
