//! The one consumer behind all of a worker's inputs. Each shard polls the queues of its own partitions; a thread of this feed serves the
//! consumer's own queue (errors, log lines) and keeps asking where the partitions end.
//!
//! Partitions are only ever assigned by hand. The consumer bears the job's group id to commit offsets under it, and never joins the group.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use forebay_engine::log::LogError;
use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;

use crate::context::{ClientEvents, Heard};
use crate::errors::{creation, from_code, log_error};
use crate::journal::{Isolation, Readers, check_range, offset};
use crate::native::{Described, describe_topics};
use crate::offsets::{self, Place, Which};
use crate::options::KafkaOptions;

/// How old a partition's known end may get: half of the second within which lag must be right.
const ENDS_EVERY: Duration = Duration::from_millis(500);

/// How often the topics' ids are asked for, the journal's among them, and their partitions. librdkafka goes on at the same offset in a topic that was
/// deleted and made anew under its name, and writes to it.
const TOPICS_EVERY: Duration = Duration::from_secs(2);

/// How long the feed's thread waits for an answer: long enough for a busy broker. A missed one is asked for again.
const ASK: Duration = Duration::from_secs(2);

/// How long one look at the consumer's queue lasts; the feed's thread stops within it.
const POLL: Duration = Duration::from_millis(100);

/// What the feed's thread and a shard share about one partition.
#[derive(Default)]
pub(crate) struct Slot {
    /// The last stable offset, as last heard.
    end: AtomicU64,
    /// Why the shard must not read on.
    trouble: OnceLock<Trouble>,
}

/// What makes the records of a partition's queue worthless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A record went to the consumer's own queue: the shard has missed it.
    Stray,
    /// The topic, or the journal's, is another than it was.
    Changed(Changed),
}

/// What a topic was when it was first seen, and what it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    topic: String,
    before: Known,
    now: Known,
}

/// What must stay as it is while the topic is read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    id: String,
    partitions: u32,
}

impl Slot {
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    pub(crate) fn raise_end(&self, end: u64) {
        self.end.fetch_max(end, Ordering::Relaxed);
    }

    pub(crate) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.get()
    }
}

impl Changed {
    pub(crate) fn error(&self, action: &str) -> LogError {
        let Self { topic, before, now } = self;
        let (what, way_out) = if before.id == now.id {
            let what = format!("topic {topic} as it was ({} partitions; there are {} now)", before.partitions, now.partitions);
            (what, "keys go to other partitions than their state: start a job with another name from the beginning of the topic")
        } else {
            let what = format!("topic {topic} as it was (id {}; it was deleted and made anew under its name, id {})", before.id, now.id);
            (what, "its offsets mean other records now: start the job anew under another name")
        };
        LogError::Missing { action: action.into(), what, way_out: way_out.into() }
    }
}

/// The topics as they were when this process first read them.
struct Topics {
    known: Mutex<BTreeMap<String, Known>>,
    /// The journal's: more partitions than there are shards mean nothing.
    journal: String,
}

impl Topics {
    fn new(journal: &str) -> Self {
        Self { known: Mutex::default(), journal: journal.to_owned() }
    }

    /// Compares what the brokers say now, and keeps what was not known before. Topics that are not there at the moment say nothing.
    fn compare(&self, described: Vec<Option<Described>>) -> BTreeMap<String, Changed> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = BTreeMap::new();
        for Described { name, id, partitions, .. } in described.into_iter().flatten().filter(|topic| !topic.id.is_empty()) {
            let now = Known { id, partitions };
            match known.get(&name) {
                Some(before) if before.id != now.id || (before.partitions != now.partitions && name != self.journal) => {
                    changed.insert(name.clone(), Changed { topic: name, before: before.clone(), now });
                }
                Some(_) => {}
                None => {
                    known.insert(name, now);
                }
            }
        }
        changed
    }
}

type Slots = Mutex<BTreeMap<Place, Arc<Slot>>>;

/// The shared consumer.
pub(crate) struct Feed {
    pub consumer: Arc<BaseConsumer<ClientEvents>>,
    pub readers: Arc<Readers>,
    pub heard: Arc<Heard>,
    pub options: Arc<KafkaOptions>,
    /// How many partitions fit into the memory for them.
    partitions_max: usize,
    slots: Arc<Slots>,
    topics: Arc<Topics>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// `partitions`: how many the worker may have to hold at once.
    pub(crate) fn open(options: Arc<KafkaOptions>, readers: Arc<Readers>, heard: Arc<Heard>, partitions: usize) -> Result<Self, LogError> {
        let events = ClientEvents::new("input", &heard);
        let consumer: BaseConsumer<_> =
            options.input(partitions).create_with_context(events).map_err(|e| creation("open the input consumer", &e))?;
        consumer.client().context().log_in(consumer.client());
        let consumer = Arc::new(consumer);
        let (slots, stop) = (Arc::<Slots>::default(), Arc::new(AtomicBool::new(false)));
        let topics = Arc::new(Topics::new(&options.topics.journal));
        let watch =
            Watch { consumer: consumer.clone(), slots: slots.clone(), topics: topics.clone(), heard: heard.clone(), stop: stop.clone() };
        let spawned = thread::Builder::new().name("kafka-input".into()).spawn(move || watch.run());
        let thread = spawned.map_err(|e| LogError::Unavailable { action: "start the input thread".into(), reason: e.to_string() })?;
        let partitions_max = options.partitions_max(partitions);
        Ok(Self { consumer, readers, heard, options, partitions_max, slots, topics, stop, thread: Some(thread) })
    }

    /// Starts to fetch partitions at positions that are checked before. A queue and a slot per partition, in the order of `starts`.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        action: &str,
        starts: &[(Place, u64)],
    ) -> Result<Vec<(PartitionQueue<ClientEvents>, Arc<Slot>)>, LogError> {
        let places: Vec<Place> = starts.iter().map(|(place, _)| place.clone()).collect();
        self.check_memory(action, &places)?;
        // At the same time, for a shard that moves stands still meanwhile.
        let (topics, ends) = thread::scope(|scope| {
            let topics = scope.spawn(|| self.check_topics(action, &places));
            let ends = self.check(action, starts, &places);
            (topics.join(), ends)
        });
        topics.unwrap_or_else(|panic| resume_unwind(panic))?;
        let ends = ends?;
        let mut acquired = Vec::with_capacity(starts.len());
        for (place, _) in starts {
            // Split off before it is assigned: not one record can then go to the consumer's own queue.
            let queue = self.consumer.split_partition_queue(&place.0, place.1).ok_or_else(|| LogError::Missing {
                action: action.into(),
                what: format!("{}-{}", place.0, place.1),
                way_out: "check the topic's partitions".into(),
            })?;
            let slot = Arc::new(Slot::default());
            slot.raise_end(ends.get(place).copied().unwrap_or_default());
            acquired.push((queue, slot));
        }
        let list = offsets::offsets_of(starts.iter().map(|(place, at)| (place, Offset::Offset(offset(*at)))));
        let assigned = list.and_then(|list| self.consumer.incremental_assign(&list));
        assigned.map_err(|e| log_error(action, "the shard's partitions", &e, &self.heard))?;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.extend(places.into_iter().zip(acquired.iter().map(|(_, slot)| slot.clone())));
        Ok(acquired)
    }

    /// Stops fetching partitions.
    pub(crate) fn release(&self, places: &[Place]) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|place, _| !places.contains(place));
        drop(slots);
        let list = offsets::offsets_of(places.iter().map(|place| (place, Offset::Invalid)));
        if let Err(error) = list.and_then(|list| self.consumer.incremental_unassign(&list)) {
            tracing::warn!(%error, "input partitions could not be given back; opening them again will fail");
        }
    }

    /// Refuses what would not fit: one shard that waits for help is better than a process that the kernel ends.
    fn check_memory(&self, action: &str, places: &[Place]) -> Result<(), LogError> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, more) = (slots.len(), places.iter().filter(|place| !slots.contains_key(*place)).count());
        if read + more <= self.partitions_max {
            return Ok(());
        }
        let most = self.partitions_max;
        let reason = format!(
            "this process reads {read} partitions, and its memory is enough for {most}, not for {more} more: give it more (`--memory`, \
             `spec.state.memory`), or share the shards among more workers"
        );
        Err(LogError::Denied { action: action.into(), reason })
    }

    fn check_topics(&self, action: &str, places: &[Place]) -> Result<(), LogError> {
        let topics = watched_topics(places, &self.options.topics.journal);
        let described = describe_topics(self.consumer.client(), &topics, self.options.request_timeout)
            .map_err(|code| from_code(action, &format!("topics {}", topics.join(", ")), code, &code.to_string(), &self.heard))?;
        match self.topics.compare(described).first_key_value() {
            Some((_, changed)) => Err(changed.error(action)),
            None => Ok(()),
        }
    }

    /// Whether a partition still has a position. Asks for the high watermark only where the last stable offset does not settle it.
    fn check_position(&self, action: &str, place: &Place, at: u64) -> Result<(), LogError> {
        let partition = u32::try_from(place.1).unwrap_or_default();
        let range = self.readers.watermarks(Isolation::Uncommitted, action, &place.0, partition)?;
        check_range(action, &place.0, partition, at, range, INPUT_WAY_OUT)
    }

    fn check(&self, action: &str, starts: &[(Place, u64)], places: &[Place]) -> Result<BTreeMap<Place, u64>, LogError> {
        let limit = self.options.request_timeout;
        let ask = |which| offsets::list(&self.consumer, &self.heard, action, places, which, limit);
        let (lows, ends) = thread::scope(|scope| {
            let lows = scope.spawn(|| ask(Which::Earliest));
            let ends = ask(Which::Latest);
            (lows.join(), ends)
        });
        let (lows, ends) = (lows.unwrap_or_else(|panic| resume_unwind(panic))?, ends?);
        for (place, at) in starts {
            let (low, end) = (lows.get(place).copied().unwrap_or_default(), ends.get(place).copied().unwrap_or_default());
            if *at < low || *at > end {
                self.check_position(action, place, *at)?;
            }
        }
        Ok(ends)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the input thread panicked");
        }
    }
}

const INPUT_WAY_OUT: &str = "retention deleted records before they were read: lengthen the topic's retention, and make the job anew with \
                             `startFrom: earliest` to go on with what is left";

/// The feed's thread.
struct Watch {
    consumer: Arc<BaseConsumer<ClientEvents>>,
    slots: Arc<Slots>,
    topics: Arc<Topics>,
    heard: Arc<Heard>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    fn run(&self) {
        let (mut asked, mut compared) = (Instant::now(), Instant::now());
        while !self.stop.load(Ordering::SeqCst) {
            self.consumer.client().context().log_in(self.consumer.client());
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => self.stray(message.topic(), message.partition(), message.offset()),
                Some(Err(error)) => tracing::debug!(%error, "input consumer"),
                None => {}
            }
            if asked.elapsed() >= ENDS_EVERY {
                self.refresh();
                asked = Instant::now();
            }
            if compared.elapsed() >= TOPICS_EVERY {
                self.compare_topics();
                compared = Instant::now();
            }
        }
    }

    /// Cannot happen as long as queues are split off before they are assigned. If it does, the shard must not go on without the record.
    fn stray(&self, topic: &str, partition: i32, offset: i64) {
        tracing::error!(topic, partition, offset, "a record came to the wrong queue; its shard reads again");
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&(topic.to_owned(), partition)) {
            let _ = slot.trouble.set(Trouble::Stray);
        }
    }

    fn compare_topics(&self) {
        let watched = self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let places: Vec<Place> = watched.keys().cloned().collect();
        let described = match describe_topics(self.consumer.client(), &watched_topics(&places, &self.topics.journal), ASK) {
            Ok(described) => described,
            Err(error) => return tracing::debug!(%error, "what the topics are now is not known"),
        };
        for (topic, changed) in self.topics.compare(described) {
            for (_, slot) in watched.iter().filter(|((name, _), _)| *name == topic || self.topics.journal == topic) {
                let _ = slot.trouble.set(Trouble::Changed(changed.clone()));
            }
        }
    }

    fn refresh(&self) {
        let watched = self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let places: Vec<Place> = watched.keys().cloned().collect();
        match offsets::list(&self.consumer, &self.heard, "ask for the ends of the inputs", &places, Which::Latest, ASK) {
            Ok(ends) => {
                ends.iter().filter_map(|(place, end)| Some((watched.get(place)?, end))).for_each(|(slot, end)| slot.raise_end(*end))
            }
            Err(error) => tracing::debug!(%error, "the ends of the inputs are not known"),
        }
    }
}

/// Each topic once, and the journal.
fn watched_topics<'a>(places: &'a [Place], journal: &'a str) -> Vec<&'a str> {
    let mut topics: Vec<&str> = places.iter().map(|(topic, _)| topic.as_str()).chain([journal]).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_made_anew_is_told_from_one_that_is_merely_away() {
        let topic = |id: &str| Some(Described { name: "in".into(), id: id.into(), partitions: 1, operations: None });
        let topics = Topics::new("journal");
        for quiet in [None, topic(""), topic("A"), topic("A"), None, topic("")] {
            assert_eq!(topics.compare(vec![quiet]), BTreeMap::new());
        }
        let remade = topics.compare(vec![None, topic("B")]);
        let message = remade["in"].error("read").to_string();
        assert_eq!(
            message,
            "read: topic in as it was (id A; it was deleted and made anew under its name, id B) does not exist; its offsets mean other records \
             now: start the job anew under another name"
        );
    }

    #[test]
    fn partitions_that_are_added_are_seen_but_for_the_journals() {
        let topic = |name: &str, partitions| Some(Described { name: name.into(), id: "A".into(), partitions, operations: None });
        let topics = Topics::new("journal");
        assert_eq!(topics.compare(vec![topic("in", 2), topic("journal", 2)]), BTreeMap::new());
        let widened = topics.compare(vec![topic("in", 3), topic("journal", 3)]);
        assert_eq!(widened.keys().collect::<Vec<_>>(), ["in"]);
        assert_eq!(
            widened["in"].error("read").to_string(),
            "read: topic in as it was (2 partitions; there are 3 now) does not exist; keys go to other partitions than their state: start a job \
             with another name from the beginning of the topic"
        );
    }
}
