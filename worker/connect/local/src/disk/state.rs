//! What the frames of a log add up to: topics, where their batches lie, groups' offsets, barred ids. Pure memory; built by the same
//! changes when a log is opened and when it is written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::format::{BatchHead, Change, CommittedOffset, Snapshot, SnapshotTopic, TopicNumber};
use super::segment::Segment;

/// Everything that is known of a log.
#[derive(Default)]
pub(crate) struct State {
    next_topic: Option<TopicNumber>,
    topics: BTreeMap<TopicNumber, Topic>,
    groups: BTreeMap<String, BTreeMap<(TopicNumber, u32), u64>>,
    barred: BTreeSet<String>,
    segments: Segments,
    /// The newest opening of each transactional id in this process: an older one is fenced. Lives no longer than the process, nor do producers.
    producers: BTreeMap<String, u64>,
}

/// A topic.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) partitions: Vec<PartitionIndex>,
}

/// Where a partition's records lie.
#[derive(Default)]
pub(crate) struct PartitionIndex {
    pub(crate) start: u64,
    pub(crate) next: u64,
    /// In order and without gaps; the first may begin before `start`.
    batches: VecDeque<BatchPlace>,
}

/// Where a batch lies.
#[derive(Clone, Debug)]
pub(crate) struct BatchPlace {
    pub(crate) segment: Arc<Segment>,
    /// Of its records.
    pub(crate) position: u64,
    pub(crate) length: usize,
    pub(crate) base: u64,
    pub(crate) count: u32,
    pub(crate) timestamp_max: i64,
}

/// The segments that are there, each with the number of its batches that are still needed.
type Segments = BTreeMap<u64, (Arc<Segment>, usize)>;

impl BatchPlace {
    /// Behind its last record.
    pub(crate) fn end(&self) -> u64 {
        self.base + u64::from(self.count)
    }
}

impl PartitionIndex {
    /// The batch that holds the record at `offset`; `None` at the end. `offset` must not lie before the start.
    pub(crate) fn batch(&self, offset: u64) -> Option<&BatchPlace> {
        let at = self.batches.partition_point(|batch| batch.end() <= offset);
        self.batches.get(at)
    }

    /// The batches that may hold a record of this time or a later one, in order.
    pub(crate) fn batches_since(&self, timestamp: i64) -> impl Iterator<Item = &BatchPlace> {
        self.batches.iter().filter(move |batch| batch.timestamp_max >= timestamp)
    }

    fn cut(&mut self, before: u64, segments: &mut Segments) {
        self.start = self.start.max(before);
        while let Some(batch) = self.batches.pop_front_if(|batch| batch.end() <= self.start) {
            release(segments, &batch);
        }
    }
}

impl State {
    pub(crate) fn topic(&self, name: &str) -> Option<(TopicNumber, &Topic)> {
        // A log has a handful of topics.
        self.topics.iter().find(|(_, topic)| topic.name == name).map(|(number, topic)| (*number, topic))
    }

    pub(crate) fn topic_numbered(&self, number: TopicNumber) -> Option<&Topic> {
        self.topics.get(&number)
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    pub(crate) fn next_topic(&self) -> TopicNumber {
        self.next_topic.unwrap_or(TopicNumber::FIRST)
    }

    /// A group's offsets.
    pub(crate) fn group(&self, group: &str) -> impl Iterator<Item = CommittedOffset> {
        self.groups.get(group).into_iter().flatten().map(|((number, partition), next)| (*number, *partition, *next))
    }

    pub(crate) fn is_barred(&self, transactional_id: &str) -> bool {
        self.barred.contains(transactional_id)
    }

    /// Makes this the newest opening of a transactional id and returns its number.
    pub(crate) fn open_producer(&mut self, transactional_id: &str) -> u64 {
        let newest = self.producers.entry(transactional_id.to_owned()).or_default();
        *newest += 1;
        *newest
    }

    /// Whether this opening of a transactional id can still commit.
    pub(crate) fn may_commit(&self, transactional_id: &str, opening: u64) -> bool {
        !self.is_barred(transactional_id) && self.producers.get(transactional_id) == Some(&opening)
    }

    /// A segment is there.
    pub(crate) fn add_segment(&mut self, segment: &Arc<Segment>) {
        self.segments.insert(segment.number, (Arc::clone(segment), 0));
    }

    /// Forgets the segments that hold nothing that is needed, and returns them. The active one is always needed.
    pub(crate) fn take_dead_segments(&mut self, active: u64) -> Vec<Arc<Segment>> {
        self.segments.extract_if(..active, |_, (_, needed)| *needed == 0).map(|(_, (segment, _))| segment).collect()
    }

    /// Applies a change. `Err` says why it cannot follow what was there: the log is damaged.
    pub(crate) fn apply(&mut self, change: Change) -> Result<(), String> {
        match change {
            Change::Snapshot(snapshot) => self.restore(snapshot),
            Change::TopicCreated { name, number, id, partitions } => {
                if number != self.next_topic() || self.topic(&name).is_some() {
                    return Err(format!("topic {name} is created twice"));
                }
                self.next_topic = Some(number.next());
                let partitions = (0..partitions).map(|_| PartitionIndex::default()).collect();
                self.topics.insert(number, Topic { name, id, partitions });
                Ok(())
            }
            Change::TopicDeleted { number } => {
                let topic = self.topics.remove(&number).ok_or_else(|| unknown(number))?;
                self.groups.values_mut().for_each(|offsets| offsets.retain(|(of, _), _| *of != number));
                self.groups.retain(|_, offsets| !offsets.is_empty());
                topic.partitions.iter().flat_map(|partition| &partition.batches).for_each(|batch| release(&mut self.segments, batch));
                Ok(())
            }
            Change::PartitionsAdded { number, partitions } => {
                let topic = self.topics.get_mut(&number).ok_or_else(|| unknown(number))?;
                if topic.partitions.len() > partitions as usize {
                    return Err(format!("{} shrinks to {partitions} partitions", topic.name));
                }
                topic.partitions.resize_with(partitions as usize, PartitionIndex::default);
                Ok(())
            }
            Change::OffsetsCommitted { group, offsets } => {
                let known = self.groups.entry(group).or_default();
                known.extend(offsets.into_iter().map(|(number, partition, next)| ((number, partition), next)));
                Ok(())
            }
            Change::Barred { transactional_id } => {
                self.barred.insert(transactional_id);
                Ok(())
            }
            Change::Cut { number, partition, before } => {
                let topic = self.topics.get_mut(&number).ok_or_else(|| unknown(number))?;
                let index =
                    topic.partitions.get_mut(partition as usize).ok_or_else(|| format!("{} has no partition {partition}", topic.name))?;
                index.cut(before, &mut self.segments);
                Ok(())
            }
        }
    }

    /// Adds a batch whose records lie at `position`.
    pub(crate) fn add_batch(&mut self, head: &BatchHead, segment: &Arc<Segment>, position: u64, length: usize) -> Result<(), String> {
        let topic = self.topics.get_mut(&head.number).ok_or_else(|| unknown(head.number))?;
        let name = &topic.name;
        let index =
            topic.partitions.get_mut(head.partition as usize).ok_or_else(|| format!("{name} has no partition {}", head.partition))?;
        if index.next != head.base {
            return Err(format!("{name}-{}: offset {} follows {}", head.partition, head.base, index.next));
        }
        let BatchHead { base, count, timestamp_max, .. } = *head;
        index.next = base + u64::from(count);
        index.batches.push_back(BatchPlace { segment: Arc::clone(segment), position, length, base, count, timestamp_max });
        let (_, needed) = self.segments.get_mut(&segment.number).ok_or_else(|| format!("segment {} is unknown", segment.number))?;
        *needed += 1;
        Ok(())
    }

    /// Everything but the records.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let topics = self.topics.iter().map(|(number, topic)| SnapshotTopic {
            number: *number,
            name: topic.name.clone(),
            id: topic.id.clone(),
            partitions: topic.partitions.iter().map(|partition| (partition.start, partition.next)).collect(),
        });
        let groups = self.groups.keys().map(|group| (group.clone(), self.group(group).collect()));
        Snapshot {
            next_topic: self.next_topic(),
            topics: topics.collect(),
            groups: groups.collect(),
            barred: self.barred.iter().cloned().collect(),
        }
    }

    /// `Err` names a partition some of whose records are in no segment.
    pub(crate) fn check_complete(&self) -> Result<(), String> {
        for topic in self.topics.values() {
            for (number, partition) in topic.partitions.iter().enumerate() {
                let mut covered = partition.batches.front().map_or(partition.start, |first| first.base);
                let missing =
                    |at: u64| format!("records of {}-{number} from offset {at} on are missing: a segment file was removed", topic.name);
                if covered > partition.start {
                    return Err(missing(partition.start));
                }
                for batch in &partition.batches {
                    if batch.base != covered {
                        return Err(missing(covered));
                    }
                    covered = batch.end();
                }
                if covered != partition.next {
                    return Err(missing(covered));
                }
            }
        }
        Ok(())
    }

    /// Takes over a snapshot. Segments before it may be missing, when nothing in them was needed any more: then it says more than they do.
    fn restore(&mut self, snapshot: Snapshot) -> Result<(), String> {
        self.next_topic = Some(snapshot.next_topic);
        let mut before = std::mem::take(&mut self.topics);
        for topic in snapshot.topics {
            let batches = before.remove(&topic.number).map_or_else(Vec::new, |topic| topic.partitions);
            let mut batches = batches.into_iter().map(|partition| partition.batches);
            let partitions = topic.partitions.into_iter().map(|(start, next)| {
                let mut index = PartitionIndex { start, next, batches: batches.next().unwrap_or_default() };
                index.cut(start, &mut self.segments);
                index
            });
            let partitions = partitions.collect();
            self.topics.insert(topic.number, Topic { name: topic.name, id: topic.id, partitions });
        }
        for batch in before.values().flat_map(|topic| &topic.partitions).flat_map(|partition| &partition.batches) {
            release(&mut self.segments, batch);
        }
        let offsets =
            |offsets: Vec<CommittedOffset>| offsets.into_iter().map(|(number, partition, next)| ((number, partition), next)).collect();
        self.groups = snapshot.groups.into_iter().map(|(group, of)| (group, offsets(of))).collect();
        self.barred = snapshot.barred.into_iter().collect();
        Ok(())
    }
}

fn release(segments: &mut Segments, batch: &BatchPlace) {
    let (_, needed) = segments.get_mut(&batch.segment.number).expect("a segment stays as long as one of its batches is needed");
    *needed -= 1;
}

fn unknown(number: TopicNumber) -> String {
    format!("topic number {number:?} is unknown")
}
