//! What people and tools do with a log beside running a job: make topics, put records in, read them, look at groups.

use forebay_engine::ids::{InputId, Offset, Partition, Timestamp};
use forebay_engine::log::{LogError, StartFrom, TopicInfo};
use forebay_engine::partitioner::partition_for_key;
use forebay_engine::record::Header;
use uuid::Uuid;

use super::draft::Draft;
use super::format::{Change, RecordParts, TopicNumber};
use super::{LogFolder, check_record, missing_topic, topic_info};
use crate::log::LocalInput;

/// Records of a writer that become one frame. Large enough that its fsync costs little, small enough to be held in memory.
const WRITER_BYTES: usize = 4 << 20;

/// A record to put into a topic.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// `None`: by the key, as Kafka's Java client does; records without one in turn.
    pub partition: Option<Partition>,
    /// Its own time stamp.
    pub timestamp: Timestamp,
    /// `None` is a null key.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// In order.
    pub headers: &'a [Header<'a>],
}

/// A consumer group's place in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: Partition,
    /// The next record to read.
    pub next: Offset,
}

/// Puts records into a topic, outside of any transaction: about 4 MiB at a time become visible and durable together.
#[must_use = "records are written by `push` when there are many, and the last ones by `finish`"]
pub struct TopicWriter {
    folder: LogFolder,
    topic: String,
    number: TopicNumber,
    partitions: u32,
    draft: Draft,
    pushed: u64,
}

impl LogFolder {
    /// All topics, in the order in which they were made.
    pub fn topics(&self) -> Vec<TopicInfo> {
        self.state().topics().map(topic_info).collect()
    }

    /// Makes a topic, unless it is there with this many partitions. `Rejected` when it has another number of them, or its name could not be
    /// one in Kafka.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<TopicInfo, LogError> {
        let action = format!("make topic {name} with {partitions} partitions");
        check_topic(&action, name, partitions)?;
        self.append(&action, Draft::default(), |state, draft| match state.topic(name) {
            Some((_, topic)) if topic.partitions.len() == partitions as usize => Ok(()),
            Some((_, topic)) => {
                let reason =
                    format!("it is there with {} partitions; name another topic, or delete it with its records", topic.partitions.len());
                Err(LogError::Rejected { action: action.clone(), reason })
            }
            None => {
                let id = Uuid::new_v4().to_string();
                draft.changes.push(Change::TopicCreated { name: name.to_owned(), number: state.next_topic(), id, partitions });
                Ok(())
            }
        })?;
        self.topic(&action, name)
    }

    /// Adds partitions to a topic, until there are this many. Keys move: `Rejected` only when there are more already.
    pub fn add_partitions(&self, name: &str, partitions: u32) -> Result<TopicInfo, LogError> {
        let action = format!("raise the partitions of topic {name} to {partitions}");
        check_topic(&action, name, partitions)?;
        self.append(&action, Draft::default(), |state, draft| {
            let (number, topic) = state.topic(name).ok_or_else(|| missing_topic(action.clone(), name))?;
            let there = topic.partitions.len() as u32;
            if partitions < there {
                return Err(LogError::Rejected {
                    action: action.clone(),
                    reason: format!("it has {there}, and partitions cannot be taken away"),
                });
            }
            if partitions > there {
                draft.changes.push(Change::PartitionsAdded { number, partitions });
            }
            Ok(())
        })?;
        self.topic(&action, name)
    }

    /// Deletes a topic with its records and all groups' offsets in it. One of the same name that is made later has another id.
    pub fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        let action = format!("delete topic {name}");
        self.append(&action, Draft::default(), |state, draft| {
            let (number, _) = state.topic(name).ok_or_else(|| missing_topic(action.clone(), name))?;
            draft.changes.push(Change::TopicDeleted { number });
            Ok(())
        })?;
        Ok(())
    }

    /// A writer to a topic, which must be there.
    pub fn writer(&self, topic: &str) -> Result<TopicWriter, LogError> {
        let state = self.state();
        let (number, known) = state.topic(topic).ok_or_else(|| missing_topic(format!("write to {topic}"), topic))?;
        let partitions = known.partitions.len() as u32;
        Ok(TopicWriter { folder: self.clone(), topic: topic.to_owned(), number, partitions, draft: Draft::default(), pushed: 0 })
    }

    /// Puts records into a topic; durable when it returns. Returns how many.
    pub fn produce<'a>(&self, topic: &str, records: impl IntoIterator<Item = NewRecord<'a>>) -> Result<u64, LogError> {
        let mut writer = self.writer(topic)?;
        for record in records {
            writer.push(&record)?;
        }
        writer.finish()
    }

    /// A reader of all partitions of a topic. Its records say that they are of input 0. `group` counts for [`StartFrom::Group`] only.
    pub fn consume(&self, topic: &str, from: StartFrom, group: &str) -> Result<LocalInput, LogError> {
        let input = InputId::new(0);
        let positions = self.positions(topic, input, from, group)?;
        LocalInput::open(self, &[topic.to_owned()], &positions)
    }

    /// Deletes the records of a partition before an offset. What is gone already is no error; `Beyond` behind the end.
    pub fn delete_records(&self, topic: &str, partition: Partition, before: Offset) -> Result<(), LogError> {
        self.cut(&format!("delete records of {topic}-{partition} before {before}"), topic, partition.get(), before.get())
    }

    /// The offsets of a consumer group, by topic and partition.
    pub fn group_offsets(&self, group: &str) -> Vec<GroupOffset> {
        let state = self.state();
        let named = state.group(group).filter_map(|(number, partition, next)| {
            let topic = state.topic_numbered(number)?.name.clone();
            Some(GroupOffset { topic, partition: Partition::new(partition), next: Offset::new(next) })
        });
        named.collect()
    }

    /// Sets offsets of a consumer group, for a job to start from.
    pub fn set_group_offsets(&self, group: &str, offsets: &[GroupOffset]) -> Result<(), LogError> {
        let action = format!("set offsets of group {group}");
        self.append(&action, Draft::default(), |state, draft| {
            let mut changes = Vec::new();
            for offset in offsets {
                let (number, _) = state.topic(&offset.topic).ok_or_else(|| missing_topic(action.clone(), &offset.topic))?;
                changes.push((number, offset.partition.get(), offset.next.get()));
            }
            if !changes.is_empty() {
                draft.changes.push(Change::OffsetsCommitted { group: group.to_owned(), offsets: changes });
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Deletes a partition's records before an offset.
    pub(crate) fn cut(&self, action: &str, topic: &str, partition: u32, before: u64) -> Result<(), LogError> {
        self.append(action, Draft::default(), |state, draft| {
            let (number, known) = state.topic(topic).ok_or_else(|| missing_topic(action.to_owned(), topic))?;
            let index = known.partitions.get(partition as usize).ok_or_else(|| missing_partition(action, topic, partition))?;
            if before > index.next {
                let (action, topic) = (action.to_owned(), topic.to_owned());
                return Err(LogError::Beyond { action, topic, partition, wanted: before, end: index.next });
            }
            if before > index.start {
                draft.changes.push(Change::Cut { number, partition, before });
            }
            Ok(())
        })?;
        Ok(())
    }

    fn topic(&self, action: &str, name: &str) -> Result<TopicInfo, LogError> {
        self.state().topic(name).map(|(_, topic)| topic_info(topic)).ok_or_else(|| missing_topic(action.to_owned(), name))
    }
}

impl TopicWriter {
    /// Adds a record. Writes what was gathered when that is enough.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), LogError> {
        let NewRecord { timestamp, key, value, .. } = *record;
        let parts = RecordParts { timestamp, key, value };
        check_record(|| format!("write to {}", self.topic), &self.topic, &parts, record.headers)?;
        let partition = match (record.partition, key) {
            (Some(partition), _) if partition.get() < self.partitions => partition.get(),
            (Some(partition), _) => return Err(missing_partition(&format!("write to {}", self.topic), &self.topic, partition.get())),
            (None, Some(key)) => partition_for_key(key, self.partitions).get(),
            (None, None) => (self.pushed % u64::from(self.partitions)) as u32,
        };
        self.draft.push(self.number, partition, &parts, record.headers);
        self.pushed += 1;
        if self.draft.bytes() >= WRITER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what was gathered; it is durable and visible when this returns.
    pub fn flush(&mut self) -> Result<(), LogError> {
        let draft = std::mem::take(&mut self.draft);
        self.folder.append(&format!("write to {}", self.topic), draft, |_, _| Ok(()))?;
        Ok(())
    }

    /// Writes the rest. Returns how many records were pushed in all.
    pub fn finish(mut self) -> Result<u64, LogError> {
        self.flush()?;
        Ok(self.pushed)
    }
}

/// What a partition that is not there is called in errors.
pub(crate) fn missing_partition(action: &str, topic: &str, partition: u32) -> LogError {
    let way_out = "name one that it has, or give the topic more partitions".to_owned();
    LogError::Missing { action: action.to_owned(), what: format!("partition {topic}-{partition}"), way_out }
}

/// Kafka's rules for names, so that what runs here runs there, and a limit on what one topic costs in memory.
fn check_topic(action: &str, name: &str, partitions: u32) -> Result<(), LogError> {
    const PARTITIONS_MAX: u32 = 10_000;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(legal) {
        "a topic's name has 1 to 249 of the characters a-z A-Z 0-9 . _ -".to_owned()
    } else if partitions == 0 || partitions > PARTITIONS_MAX {
        format!("a topic has 1 to {PARTITIONS_MAX} partitions")
    } else {
        return Ok(());
    };
    Err(LogError::Rejected { action: action.to_owned(), reason })
}
