//! What is to be written as one frame: changes, and records gathered into batches.

use std::collections::BTreeMap;

use forebay_engine::record::Header;

use super::format::{self, BatchHead, Change, FRAME_HEAD_BYTES, RecordParts, TopicNumber};

/// A batch is closed once it is this large: what a reader holds of each partition. Small enough for many partitions, large enough that
/// a read and its index entry cost little per record.
const BATCH_BYTES: usize = 128 << 10;

/// The parts of a frame that is not written yet.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) changes: Vec<Change>,
    batches: Vec<(BatchHead, Vec<u8>)>,
    /// The last batch of each partition.
    last: BTreeMap<(TopicNumber, u32), usize>,
    bytes: usize,
}

/// A frame, all but its head, and what it holds.
pub(crate) struct Frame {
    /// Room for the head, then the body.
    pub(crate) bytes: Vec<u8>,
    pub(crate) changes: Vec<Change>,
    /// Each batch and where its records lie in `bytes`.
    pub(crate) batches: Vec<(BatchHead, std::ops::Range<usize>)>,
}

impl Draft {
    /// Adds a record behind the others of its partition.
    pub(crate) fn push(&mut self, number: TopicNumber, partition: u32, record: &RecordParts<'_>, headers: &[Header<'_>]) {
        let place = (number, partition);
        let at = match self.last.get(&place) {
            Some(at) if self.batches[*at].1.len() < BATCH_BYTES => *at,
            Some(_) | None => {
                let head = BatchHead { number, partition, base: 0, count: 0, timestamp_max: i64::MIN };
                self.batches.push((head, Vec::new()));
                self.last.insert(place, self.batches.len() - 1);
                self.batches.len() - 1
            }
        };
        let (head, records) = &mut self.batches[at];
        let before = records.len();
        format::put_record(records, record, headers);
        head.count += 1;
        head.timestamp_max = head.timestamp_max.max(record.timestamp.as_millis());
        self.bytes += records.len() - before;
    }

    /// Bytes of records.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.batches.is_empty()
    }

    /// The partitions that it has records for.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (TopicNumber, u32)> {
        self.last.keys().copied()
    }

    /// Gives each batch its offsets: `ends` says where each of its partitions ends.
    pub(crate) fn into_frame(mut self, mut ends: BTreeMap<(TopicNumber, u32), u64>) -> Frame {
        let mut bytes = vec![0; FRAME_HEAD_BYTES];
        bytes.reserve(self.bytes + 64 * self.batches.len());
        for change in &self.changes {
            format::put_change(&mut bytes, change);
        }
        let mut batches = Vec::with_capacity(self.batches.len());
        for (head, records) in &mut self.batches {
            let end = ends.get_mut(&(head.number, head.partition)).expect("the end of every partition of the draft was looked up");
            head.base = *end;
            *end += u64::from(head.count);
            let place = format::put_batch(&mut bytes, head, records);
            batches.push((*head, place));
        }
        Frame { bytes, changes: self.changes, batches }
    }
}
