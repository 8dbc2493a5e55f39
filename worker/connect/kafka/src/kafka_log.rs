//! One job's view of a Kafka cluster: the log port, carried out by the parts of this crate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay_engine::ids::{Incarnation, InputId, JournalOffset, Offset, Partition, ShardId};
use forebay_engine::log::{
    Deadlines, InputPosition, JobTopics, JournalEntry, JournalRange, Log, LogError, StartFrom, TimestampLimits, TopicInfo, View,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::admin::Admin;
use crate::context::{ClientEvents, Heard};
use crate::errors::{describe, from_code};
use crate::feed::Feed;
use crate::input::KafkaInput;
use crate::journal::{Isolation, Readers, signed};
use crate::login::{Login, TOKEN_FILE};
use crate::native::Described;
use crate::offsets::{self, Place, Which};
use crate::options::{BROKERS_FIELD, KafkaOptions, PROPERTIES_FIELD, offsets_mark};
use crate::preflight::{self, Finding};
use crate::producer::{self, KafkaProducer};

/// How long one try to reach the brokers lasts before the reason of its failure is looked at.
const TRY: Duration = Duration::from_secs(1);

/// One job's view of the log, over Kafka.
pub struct KafkaLog {
    options: Arc<KafkaOptions>,
    heard: Arc<Heard>,
    readers: Arc<Readers>,
    admin: Admin,
    /// Made when the first input is opened: its memory budget is divided by the number of partitions there are.
    feed: Mutex<Option<Arc<Feed>>>,
}

impl KafkaLog {
    /// Connects. `Denied` when the credentials, certificates or properties are refused, `Unavailable` when no broker answers within
    /// `request_timeout`; both name the bootstrap servers.
    pub fn open(options: KafkaOptions) -> Result<Self, LogError> {
        options.check()?;
        let heard = Arc::new(Heard::new(options.properties.get(TOKEN_FILE).map(Login::new)));
        let options = Arc::new(options);
        let readers = Arc::new(Readers::new(options.clone(), heard.clone()));
        readers.with(Isolation::Uncommitted, |reader| reach(reader, &options, &heard))?;
        let admin = Admin::new(options.clone(), heard.clone(), readers.clone());
        Ok(Self { options, heard, readers, admin, feed: Mutex::default() })
    }

    /// Makes the output topics that are missing, with the brokers' default settings.
    pub fn ensure_outputs(&self, partitions: u32) -> Result<(), LogError> {
        self.admin.ensure_outputs(partitions)
    }

    /// The topics of the job's journals, one of each of its timelines, as far as they are there, in the order of their names.
    pub fn journals(&self) -> Result<Vec<String>, LogError> {
        self.admin.journals()
    }

    /// Deletes topics of journals, with all that the job's checkpoints do not hold. One that is not there is no error.
    pub fn delete_journals(&self, topics: &[String]) -> Result<(), LogError> {
        self.admin.delete_journals(topics)
    }

    /// Whether the job has committed offsets to its consumer group: a new one of the same uid takes them for a sign that its journal was lost.
    pub fn has_offsets(&self) -> Result<bool, LogError> {
        let mut positions = Vec::new();
        for (input, topic) in (0..).map(InputId::new).zip(&self.options.topics.inputs) {
            let count = self.admin.partitions(&format!("look for the input {topic}"), topic)?.unwrap_or(0);
            positions.extend((0..count).map(|partition| InputPosition {
                input,
                partition: Partition::new(partition),
                next: Offset::new(0),
            }));
        }
        Ok(!self.own_positions(&positions)?.is_empty())
    }

    /// Deletes the job's consumer group, with the offsets that others have committed to it.
    pub fn delete_group(&self) -> Result<(), LogError> {
        self.admin.delete_group()
    }

    /// Looks for what would go wrong later, and says what to change. Never fails: what could not be looked at is a finding too. It opens a
    /// transactional producer under an id of the job that no worker has, and nothing by it.
    pub fn preflight(&self) -> Vec<Finding> {
        // Whether the brokers allow the job's transactions their time is looked up in their settings.
        let probe = KafkaOptions { transaction_timeout: Duration::from_secs(10), ..(*self.options).clone() };
        // A name of its own: two processes that start at once would bar each other.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let name = Incarnation::new(format!("preflight.{}.{now:x}", std::process::id()));
        let barred = producer::bar(&probe, &self.heard, &name);
        preflight::run(&self.admin, &self.options, barred)
    }

    fn feed(&self) -> Result<Arc<Feed>, LogError> {
        let mut kept = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = &*kept {
            return Ok(feed.clone());
        }
        let mut partitions = 0;
        for topic in &self.options.topics.inputs {
            partitions += self.admin.partitions("open the inputs", topic)?.unwrap_or_default() as usize;
        }
        let made = Feed::open(self.options.clone(), self.readers.clone(), self.heard.clone(), partitions)?;
        Ok(kept.insert(Arc::new(made)).clone())
    }

    fn missing(&self, action: &str, topic: &str) -> LogError {
        let way_out = format!("create it on {}, or correct the name in the job", self.options.bootstrap_servers);
        LogError::Missing { action: action.into(), what: format!("topic {topic}"), way_out }
    }

    /// Per partition the offset of the first record since a time. Where there is none, the end: asked for first, so that a record that comes
    /// in between is not skipped.
    fn since(&self, reader: &BaseConsumer<ClientEvents>, action: &str, places: &[Place], millis: i64) -> Result<Vec<u64>, LogError> {
        let limit = self.options.request_timeout;
        let ends = offsets::list(reader, &self.heard, action, places, Which::Latest, limit)?;
        let found = offsets::list(reader, &self.heard, action, places, Which::Since(millis), limit)?;
        places.iter().map(|place| found.get(place).or_else(|| ends.get(place)).copied().ok_or_else(|| no_answer(action, place))).collect()
    }

    /// A partition that the group never read starts at its oldest record, so that nothing is skipped; a group that read none of them is an
    /// error.
    fn of_group(&self, reader: &BaseConsumer<ClientEvents>, action: &str, places: &[Place]) -> Result<Vec<u64>, LogError> {
        let (group, limit) = (&self.options.topics.group, self.options.request_timeout);
        let found = offsets::committed(reader, &self.heard, action, group, places, None, limit)?;
        if found.is_empty() && !places.is_empty() {
            return Err(LogError::Missing {
                action: action.into(),
                what: format!("a committed offset of group {group} for {}", offsets::describe_places(places)),
                way_out: "commit one (`kafka-consumer-groups.sh --reset-offsets`), or use `startFrom: earliest`, `latest` or a time".into(),
            });
        }
        let unread: Vec<Place> = places.iter().filter(|place| !found.contains_key(*place)).cloned().collect();
        let oldest = offsets::list(reader, &self.heard, action, &unread, Which::Earliest, limit)?;
        places.iter().map(|place| found.get(place).or_else(|| oldest.get(place)).copied().ok_or_else(|| no_answer(action, place))).collect()
    }
}

impl Log for KafkaLog {
    type Producer = KafkaProducer;
    type Input = KafkaInput;

    fn deadlines(&self) -> Deadlines {
        let KafkaOptions { request_timeout, transaction_timeout, stable_timeout, .. } = *self.options;
        // A read that gets no further asks, before and afterwards, for the ends of the partition; other questions are two at the most.
        Deadlines { open: request_timeout, commit: transaction_timeout, read: stable_timeout + 2 * request_timeout }
    }

    fn describe(&self) -> Result<Vec<TopicInfo>, LogError> {
        let action = "look at the job's topics";
        let topics = &self.options.topics;
        let names: Vec<&str> = topics.inputs.iter().chain(&topics.outputs).chain([&topics.journal]).map(String::as_str).collect();
        let mut described = Vec::with_capacity(names.len());
        for (name, found) in names.iter().zip(self.admin.describe(action, &names)?) {
            match found {
                Some(Described { name, id, partitions, .. }) => described.push(TopicInfo { name, id, partitions }),
                None if *name == topics.journal => {
                    described.push(TopicInfo { name: topics.journal.clone(), id: String::new(), partitions: 0 });
                }
                None => return Err(self.missing(action, name)),
            }
        }
        Ok(described)
    }

    fn timestamp_limits(&self) -> Result<Vec<TimestampLimits>, LogError> {
        self.admin.timestamp_limits()
    }

    fn ensure_journal(&self) -> Result<(), LogError> {
        self.admin.ensure_journal()
    }

    fn start_positions(&self, input: InputId, from: StartFrom) -> Result<Vec<InputPosition>, LogError> {
        let topic = &self.options.topics.inputs[usize::from(input.get())];
        let action = format!("find where to start in topic {topic}");
        let count = self.admin.partitions(&action, topic)?.ok_or_else(|| self.missing(&action, topic))?;
        let places: Vec<Place> = (0..count).map(|partition| (topic.clone(), signed(partition))).collect();
        let limit = self.options.request_timeout;
        let offsets: Vec<u64> = self.readers.with(Isolation::Committed, |reader| match from {
            StartFrom::Earliest | StartFrom::Latest => {
                let which = if from == StartFrom::Earliest { Which::Earliest } else { Which::Latest };
                let found = offsets::list(reader, &self.heard, &action, &places, which, limit)?;
                places.iter().map(|place| found.get(place).copied().ok_or_else(|| no_answer(&action, place))).collect()
            }
            StartFrom::Timestamp(time) => self.since(reader, &action, &places, time.as_millis()),
            StartFrom::Group => self.of_group(reader, &action, &places),
        })?;
        let position = |(partition, next)| InputPosition { input, partition: Partition::new(partition), next: Offset::new(next) };
        Ok((0..count).zip(offsets).map(position).collect())
    }

    fn own_positions(&self, positions: &[InputPosition]) -> Result<Vec<InputPosition>, LogError> {
        let JobTopics { inputs, group, .. } = &self.options.topics;
        let place = |at: &InputPosition| (inputs[usize::from(at.input.get())].clone(), signed(at.partition.get()));
        let places: Vec<Place> = positions.iter().map(place).collect();
        let mark = offsets_mark(&self.options.topics.uid);
        let found = self.readers.with(Isolation::Committed, |reader| {
            let action = "look for offsets that this job has committed";
            offsets::committed(reader, &self.heard, action, group, &places, Some(&mark), self.options.request_timeout)
        })?;
        let own = |(at, place): (&InputPosition, &Place)| Some(InputPosition { next: Offset::new(*found.get(place)?), ..*at });
        Ok(positions.iter().zip(&places).filter_map(own).collect())
    }

    fn open_producer(&self, incarnation: &Incarnation) -> Result<Self::Producer, LogError> {
        let group = self.readers.with(Isolation::Uncommitted, |reader| {
            reader.group_metadata().ok_or_else(|| LogError::Unavailable {
                action: format!("open the producer of incarnation {incarnation}"),
                reason: "the client has no group; this is a bug".into(),
            })
        })?;
        KafkaProducer::open(&self.options, &self.heard, group, incarnation)
    }

    fn bar(&self, incarnation: &Incarnation) -> Result<(), LogError> {
        producer::bar(&self.options, &self.heard, incarnation)
    }

    fn read_journal(
        &self,
        shard: ShardId,
        from: JournalOffset,
        view: View,
        each: &mut dyn FnMut(JournalEntry),
    ) -> Result<JournalRange, LogError> {
        self.readers.read(shard, from, view, each)
    }

    fn journal_range(&self, shard: ShardId) -> Result<JournalRange, LogError> {
        let action = format!("ask for the journal of shard {shard}");
        let (low, high) = self.readers.watermarks(Isolation::Uncommitted, &action, &self.options.topics.journal, shard.get())?;
        Ok(JournalRange { start: JournalOffset::new(low), end: JournalOffset::new(high) })
    }

    fn journal_ends(&self, shards: &[ShardId]) -> Result<Vec<JournalOffset>, LogError> {
        let action = "ask for the ends of journals";
        let places: Vec<Place> = shards.iter().map(|shard| (self.options.topics.journal.clone(), signed(shard.get()))).collect();
        let limit = self.options.request_timeout;
        let list = |reader: &BaseConsumer<ClientEvents>| offsets::list(reader, &self.heard, action, &places, Which::Latest, limit);
        let ends = self.readers.with(Isolation::Uncommitted, list)?;
        places.iter().map(|place| ends.get(place).map(|end| JournalOffset::new(*end)).ok_or_else(|| no_answer(action, place))).collect()
    }

    fn cut_journal(&self, shard: ShardId, before: JournalOffset) -> Result<(), LogError> {
        self.admin.cut_journal(shard.get(), before.get())
    }

    fn open_input(&self, shard: ShardId, positions: &[InputPosition]) -> Result<Self::Input, LogError> {
        KafkaInput::open(self.feed()?, shard, positions)
    }
}

/// Asks for metadata until a broker answers. Ends at once when the answer would be the same for ever.
fn reach(reader: &BaseConsumer<ClientEvents>, options: &KafkaOptions, heard: &Heard) -> Result<(), LogError> {
    let action = format!("connect to {}", options.bootstrap_servers);
    let deadline = Instant::now() + options.request_timeout;
    loop {
        let error = match reader.fetch_metadata(Some(&options.topics.journal), TRY.min(options.request_timeout)) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // What librdkafka has heard meanwhile lies in its queue. One poll takes one event; a handful holds all reasons there can be.
        for _ in 0..32 {
            let _event = reader.poll(Duration::ZERO);
        }
        if let Some(reason) = heard.refused() {
            return Err(from_code(&action, "the brokers", RDKafkaErrorCode::Authentication, &reason, &Heard::default()));
        }
        if Instant::now() >= deadline {
            let waited = options.request_timeout.as_secs();
            let reason = format!(
                "no broker answered within {waited} s ({}){}; check the address ({BROKERS_FIELD}), the network and `security.protocol` \
                 ({PROPERTIES_FIELD})",
                describe(&error),
                heard.explain()
            );
            return Err(LogError::Unavailable { action, reason });
        }
    }
}

fn no_answer(action: &str, place: &Place) -> LogError {
    LogError::Unavailable {
        action: action.into(),
        reason: format!("no offset was given for {}-{}; is the partition offline", place.0, place.1),
    }
}
