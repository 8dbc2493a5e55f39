//! Questions about offsets, for many partitions in one request per broker. What "end" means depends on the consumer that asks: a committed
//! one is told the last stable offset, an uncommitted one the high watermark.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use forebay_engine::log::LogError;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionListElem};

use crate::context::{ClientEvents, Heard};
use crate::errors::{describe, from_code, log_error};

/// A topic's name and a partition's number, as librdkafka has it.
pub(crate) type Place = (String, i32);

/// Which offset of a partition is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    /// The oldest record's.
    Earliest,
    /// The end.
    Latest,
    /// The first record's with this time stamp (milliseconds) or a later one; the answer lacks partitions that have none.
    Since(i64),
}

/// How long a partition without a leader gets before it is asked for again.
const ELECTION: Duration = Duration::from_millis(50);

/// Asks the brokers for one offset per partition (ListOffsets). A partition whose leader is being elected, as one of a new topic is, gets
/// until the limit to have one.
pub(crate) fn list(
    consumer: &BaseConsumer<ClientEvents>,
    heard: &Heard,
    action: &str,
    places: &[Place],
    which: Which,
    limit: Duration,
) -> Result<BTreeMap<Place, u64>, LogError> {
    if places.is_empty() {
        return Ok(BTreeMap::new());
    }
    // librdkafka passes what stands in the offset field on as the request's time stamp; -2 and -1 mean earliest and latest there too.
    let wanted = match which {
        Which::Earliest => Offset::Beginning,
        Which::Latest => Offset::End,
        Which::Since(millis) => Offset::Offset(millis.max(0)),
    };
    let asked = offsets_of(places.iter().map(|place| (place, wanted))).map_err(|e| log_error(action, "offsets", &e, heard))?;
    let deadline = Instant::now() + limit;
    loop {
        let (what, error) = match consumer.offsets_for_times(asked.clone(), limit) {
            Ok(answer) => match refused(&answer) {
                None => return Ok(found_in(&answer)),
                Some(refused) => refused,
            },
            Err(error) => (describe_places(places), error),
        };
        let is_new = is_unknown(&error) && places.iter().all(|(topic, partition)| is_shown(consumer, heard, topic, *partition, limit));
        if !is_new && !is_without_leader(&error) {
            return Err(log_error(action, &what, &error, heard));
        }
        if Instant::now() >= deadline {
            return Err(LogError::Unavailable { action: action.into(), reason: format!("{what}: {}", describe(&error)) });
        }
        thread::sleep(ELECTION);
    }
}

/// An error about a partition. One that its leader does not know, though the cluster shows it, is not missing: the leader has become it just now.
pub(crate) fn partition_error(
    consumer: &BaseConsumer<ClientEvents>,
    heard: &Heard,
    action: &str,
    (topic, partition): (&str, i32),
    error: &KafkaError,
    limit: Duration,
) -> LogError {
    let what = format!("{topic}-{partition}");
    if is_unknown(error) && is_shown(consumer, heard, topic, partition, limit) {
        return LogError::Unavailable { action: action.into(), reason: format!("{what}: its leader does not know it yet") };
    }
    log_error(action, &what, error, heard)
}

/// Whether the cluster's metadata has a partition.
fn is_shown(consumer: &BaseConsumer<ClientEvents>, heard: &Heard, topic: &str, partition: i32, limit: Duration) -> bool {
    let count = partition_count(consumer, heard, "look for a topic", topic, limit);
    count.ok().flatten().is_some_and(|count| i64::from(partition) < i64::from(count))
}

/// The first partition that an answer has an error for.
fn refused(answer: &TopicPartitionList) -> Option<(String, KafkaError)> {
    answer.elements().iter().find_map(|element| Some((format!("{}-{}", element.topic(), element.partition()), element.error().err()?)))
}

fn found_in(answer: &TopicPartitionList) -> BTreeMap<Place, u64> {
    let at = |offset| if let Offset::Offset(at) = offset { u64::try_from(at).ok() } else { None };
    answer.elements().iter().filter_map(|found| Some((place_of(found), at(found.offset())?))).collect()
}

/// Whether whoever was asked does not know the partition.
pub(crate) fn is_unknown(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(error.rdkafka_error_code(), Some(Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopic))
}

/// Whether whoever was asked does not lead the partition, or nobody does at the moment.
pub(crate) fn is_without_leader(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable | Code::UnknownLeaderEpoch | Code::FencedLeaderEpoch)
    )
}

/// The committed offsets of the consumer's group, of those `by` this job if its mark is given; the answer lacks partitions that have none.
pub(crate) fn committed(
    consumer: &BaseConsumer<ClientEvents>,
    heard: &Heard,
    action: &str,
    group: &str,
    places: &[Place],
    by: Option<&str>,
    limit: Duration,
) -> Result<BTreeMap<Place, u64>, LogError> {
    let asked = offsets_of(places.iter().map(|place| (place, Offset::Invalid))).map_err(|e| log_error(action, group, &e, heard))?;
    let what = format!("group {group}");
    let answer = consumer.committed_offsets(asked, limit).map_err(|error| {
        // The call only says that it timed out; what the coordinator said to it lies in the consumer's queue. A handful holds all there can be.
        let refused = (0..32).filter_map(|_| consumer.poll(Duration::ZERO)?.err()).find(is_about_the_group);
        log_error(action, &what, refused.as_ref().unwrap_or(&error), heard)
    })?;
    match refused(&answer) {
        Some((_, error)) => Err(log_error(action, &what, &error, heard)),
        None => {
            let mut found = found_in(&answer);
            if let Some(mark) = by {
                let own: BTreeSet<Place> = answer.elements().iter().filter(|e| e.metadata() == mark).map(place_of).collect();
                found.retain(|place, _| own.contains(place));
            }
            Ok(found)
        }
    }
}

fn place_of(element: &TopicPartitionListElem<'_>) -> Place {
    (element.topic().to_owned(), element.partition())
}

fn is_about_the_group(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed)
}

/// A list of partitions with their offsets, as librdkafka takes it.
pub(crate) fn offsets_of<'a>(places: impl Iterator<Item = (&'a Place, Offset)>) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in places {
        list.add_partition_offset(topic, *partition, offset)?;
    }
    Ok(list)
}

/// The number of partitions of a topic; `None` when there is no such topic.
pub(crate) fn partition_count(
    consumer: &BaseConsumer<ClientEvents>,
    heard: &Heard,
    action: &str,
    topic: &str,
    limit: Duration,
) -> Result<Option<u32>, LogError> {
    let metadata = consumer.fetch_metadata(Some(topic), limit).map_err(|e| log_error(action, &format!("topic {topic}"), &e, heard))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(Some(u32::try_from(found.partitions().len()).unwrap_or(u32::MAX))),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(None),
        Some(code) => Err(from_code(action, &format!("topic {topic}"), code, &code.to_string(), heard)),
    }
}

/// Partitions in words.
pub(crate) fn describe_places(places: &[Place]) -> String {
    match places {
        [] => "no partition".into(),
        [(topic, partition)] => format!("{topic}-{partition}"),
        [(topic, partition), rest @ ..] => format!("{topic}-{partition} and {} more partitions", rest.len()),
    }
}
