//! Where a reader of a topic starts.

use forebay_engine::ids::{InputId, Offset, Partition};
use forebay_engine::log::{InputPosition, LogError, StartFrom};

use super::format::{TopicNumber, take_record};
use super::state::{BatchPlace, PartitionIndex, State};
use super::{LogFolder, missing_topic};

/// A position that is known, or the batches in which it must be searched.
enum Found {
    At(u64),
    /// The first record of these batches, from `start` on, with this time stamp or a later one; else the end.
    Since {
        timestamp: i64,
        batches: Vec<BatchPlace>,
        start: u64,
        end: u64,
    },
}

impl LogFolder {
    /// Where to start in each partition of a topic. A partition that a group never read starts at its oldest record, so that nothing is
    /// skipped; a group that read none of them is an error.
    pub(crate) fn positions(&self, topic: &str, input: InputId, from: StartFrom, group: &str) -> Result<Vec<InputPosition>, LogError> {
        let action = || format!("find where to start in {topic}");
        let mut found = Vec::new();
        {
            let state = self.state();
            let (number, known) = state.topic(topic).ok_or_else(|| missing_topic(action(), topic))?;
            if from == StartFrom::Group && !state.group(group).any(|(of, _, _)| of == number) {
                let way_out = "name a group that has read this topic, or start at earliest, latest or a time stamp".to_owned();
                return Err(LogError::Missing { action: action(), what: format!("an offset of group {group} in {topic}"), way_out });
            }
            for (partition, index) in (0..).zip(&known.partitions) {
                found.push((partition, find(&state, index, (number, partition), from, group)));
            }
        }
        let mut positions = Vec::with_capacity(found.len());
        for (partition, found) in found {
            let next = match found {
                Found::At(at) => at,
                Found::Since { timestamp, batches, start, end } => {
                    let first = self.first_since(&batches, start, timestamp);
                    first.map_err(|reason| LogError::Unavailable { action: action(), reason })?.unwrap_or(end)
                }
            };
            positions.push(InputPosition { input, partition: Partition::new(partition), next: Offset::new(next) });
        }
        Ok(positions)
    }

    /// The first record of these batches, from `start` on, with this time stamp or a later one.
    fn first_since(&self, batches: &[BatchPlace], start: u64, timestamp: i64) -> Result<Option<u64>, String> {
        let mut bytes = Vec::new();
        for batch in batches {
            self.read_batch(batch, &mut bytes)?;
            let (mut rest, mut headers) = (bytes.as_slice(), Vec::new());
            for offset in batch.base..batch.end() {
                let record = take_record(&mut rest, &mut headers).map_err(|e| format!("record at offset {offset}: {e}"))?;
                if offset >= start && record.timestamp.as_millis() >= timestamp {
                    return Ok(Some(offset));
                }
            }
        }
        Ok(None)
    }
}

fn find(state: &State, index: &PartitionIndex, place: (TopicNumber, u32), from: StartFrom, group: &str) -> Found {
    match from {
        StartFrom::Earliest => Found::At(index.start),
        StartFrom::Latest => Found::At(index.next),
        StartFrom::Group => {
            Found::At(state.group(group).find(|(number, partition, _)| (*number, *partition) == place).map_or(index.start, |(.., at)| at))
        }
        // The first batch that reaches the time stamp has the record, unless what has it is deleted already; then the second has.
        StartFrom::Timestamp(timestamp) => {
            let timestamp = timestamp.as_millis();
            let batches = index.batches_since(timestamp).take(2).cloned().collect();
            Found::Since { timestamp, batches, start: index.start, end: index.next }
        }
    }
}
