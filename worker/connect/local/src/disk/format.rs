//! The bytes on disk, all of them. Format 1:
//!
//! - A segment file is called `<number, 20 digits>.log`: [`SEGMENT_HEAD`], then frames. Its first frame holds a [`Change::Snapshot`] of
//!   everything but the records, so that any segment before it may be missing.
//! - A frame is one atomic step: marker, length of the body, CRC-32, body. The checksum also covers the segment's number and the frame's
//!   position, so that bytes of another place are never taken for a frame.
//! - A body is a row of entries: tag, length, payload. An entry is a [`Change`] in postcard or a batch: records of one partition.
//!
//! All numbers are little-endian. New variants and tags are appended; fields of old ones never change.

use forebay_engine::ids::Timestamp;
use forebay_engine::record::Header;
use serde::{Deserialize, Serialize};

/// How a segment file begins: the name and the format.
pub(crate) const SEGMENT_HEAD: [u8; 16] = *b"forebay-log\0\x01\0\0\0";

/// How a frame begins.
pub(crate) const MARKER: [u8; 4] = *b"FBf1";

/// Marker, length, checksum.
pub(crate) const FRAME_HEAD_BYTES: usize = 12;

/// Topic, partition, base offset, count, largest time stamp.
const BATCH_HEAD_BYTES: usize = 28;

/// Tag and length.
const ENTRY_HEAD_BYTES: usize = 5;

const TAG_CHANGE: u8 = 1;
const TAG_BATCH: u8 = 2;

/// A topic's number. Never used for another topic, even one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TopicNumber(u32);

impl TopicNumber {
    /// Before the first.
    pub(crate) const FIRST: Self = Self(0);

    /// The one that follows.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Topic, partition and a group's next offset in it.
pub(crate) type CommittedOffset = (TopicNumber, u32, u64);

/// A change of what is known beside the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// Everything that the frames before it made; a segment's first entry.
    Snapshot(Snapshot),
    /// A new topic, empty.
    TopicCreated { name: String, number: TopicNumber, id: String, partitions: u32 },
    /// A topic is gone with its records and its groups' offsets.
    TopicDeleted { number: TopicNumber },
    /// A topic has more partitions now, the new ones empty.
    PartitionsAdded { number: TopicNumber, partitions: u32 },
    /// A group's next offsets.
    OffsetsCommitted { group: String, offsets: Vec<CommittedOffset> },
    /// A transactional id can never commit again.
    Barred { transactional_id: String },
    /// The records of a partition before an offset are deleted.
    Cut { number: TopicNumber, partition: u32, before: u64 },
}

/// Everything but the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// The number that the next new topic gets.
    pub next_topic: TopicNumber,
    /// By number.
    pub topics: Vec<SnapshotTopic>,
    /// Group and its offsets, both sorted.
    pub groups: Vec<(String, Vec<CommittedOffset>)>,
    /// Barred transactional ids, sorted.
    pub barred: Vec<String>,
}

/// A topic in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotTopic {
    pub number: TopicNumber,
    pub name: String,
    pub id: String,
    /// Per partition the oldest offset and the next one.
    pub partitions: Vec<(u64, u64)>,
}

/// What a batch is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHead {
    pub number: TopicNumber,
    pub partition: u32,
    /// The first record's offset; the others follow without gaps.
    pub base: u64,
    pub count: u32,
    pub timestamp_max: i64,
}

/// An entry of a frame's body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Change(Change),
    /// A batch, and where its records lie in the body.
    Batch(BatchHead, std::ops::Range<usize>),
}

/// Bytes that cannot be what was written although their checksum is right, or that no checksum covers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FormatError(String);

/// The checksum of the frame at `position` of segment `segment`.
pub(crate) fn frame_crc(segment: u64, position: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&position.to_le_bytes());
    hasher.update(&(body.len() as u64).to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Fills in the head of a frame whose body lies behind the space that was left for it.
pub(crate) fn seal_frame(segment: u64, position: u64, frame: &mut [u8]) {
    let (head, body) = frame.split_at_mut(FRAME_HEAD_BYTES);
    let length = u32::try_from(body.len()).expect("a frame is limited far below 4 GiB before it is made");
    head[..4].copy_from_slice(&MARKER);
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..].copy_from_slice(&frame_crc(segment, position, body).to_le_bytes());
}

/// The length and checksum that a frame's head names; `None` if it is none.
pub(crate) fn frame_head(head: &[u8; FRAME_HEAD_BYTES]) -> Option<(u32, u32)> {
    let (marker, rest) = head.split_first_chunk()?;
    let (length, crc) = rest.split_first_chunk()?;
    let crc = crc.first_chunk()?;
    (*marker == MARKER).then(|| (u32::from_le_bytes(*length), u32::from_le_bytes(*crc)))
}

/// Appends a change to a body.
pub(crate) fn put_change(body: &mut Vec<u8>, change: &Change) {
    let payload = postcard::to_stdvec(change).expect("a change has no type that postcard cannot write");
    put_entry_head(body, TAG_CHANGE, payload.len());
    body.extend_from_slice(&payload);
}

/// Appends a batch to a body and returns where its records lie.
pub(crate) fn put_batch(body: &mut Vec<u8>, head: &BatchHead, records: &[u8]) -> std::ops::Range<usize> {
    put_entry_head(body, TAG_BATCH, BATCH_HEAD_BYTES + records.len());
    body.extend_from_slice(&head.number.0.to_le_bytes());
    body.extend_from_slice(&head.partition.to_le_bytes());
    body.extend_from_slice(&head.base.to_le_bytes());
    body.extend_from_slice(&head.count.to_le_bytes());
    body.extend_from_slice(&head.timestamp_max.to_le_bytes());
    let from = body.len();
    body.extend_from_slice(records);
    from..body.len()
}

/// The entries of a body, in order.
pub(crate) fn entries(body: &[u8]) -> Result<Vec<Entry>, FormatError> {
    let mut entries = Vec::new();
    let mut reader = Bytes { rest: body };
    while !reader.rest.is_empty() {
        let tag = reader.array::<1>("an entry's tag")?[0];
        let length = reader.u32("an entry's length")? as usize;
        let from = body.len() - reader.rest.len();
        let payload = reader.take(length, "an entry")?;
        entries.push(match tag {
            TAG_CHANGE => {
                Entry::Change(postcard::from_bytes(payload).map_err(|e| FormatError(format!("a change cannot be decoded: {e}")))?)
            }
            TAG_BATCH => Entry::Batch(batch_head(payload)?, from + BATCH_HEAD_BYTES..from + length),
            other => return Err(FormatError(format!("entry tag {other} is unknown to this version, which reads format 1"))),
        });
    }
    Ok(entries)
}

/// One record before it has an offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordParts<'a> {
    pub timestamp: Timestamp,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// Appends a record to a batch's records.
pub(crate) fn put_record(records: &mut Vec<u8>, record: &RecordParts<'_>, headers: &[Header<'_>]) {
    records.extend_from_slice(&record.timestamp.as_millis().to_le_bytes());
    put_nullable(records, record.key);
    put_nullable(records, record.value);
    put_length(records, headers.len());
    for header in headers {
        put_length(records, header.name.len());
        records.extend_from_slice(header.name.as_bytes());
        put_nullable(records, header.value);
    }
}

/// The bytes that [`put_record`] appends.
pub(crate) fn record_bytes(record: &RecordParts<'_>, headers: &[Header<'_>]) -> usize {
    let nullable = |bytes: Option<&[u8]>| 4 + bytes.map_or(0, <[u8]>::len);
    let headers: usize = headers.iter().map(|header| 4 + header.name.len() + nullable(header.value)).sum();
    8 + nullable(record.key) + nullable(record.value) + 4 + headers
}

/// Reads the record at the front of `records` and leaves what follows it; its headers replace those in `headers`.
pub(crate) fn take_record<'a>(records: &mut &'a [u8], headers: &mut Vec<Header<'a>>) -> Result<RecordParts<'a>, FormatError> {
    let mut reader = Bytes { rest: records };
    let timestamp = Timestamp::from_millis(i64::from_le_bytes(reader.array("a record's time stamp")?));
    let key = reader.nullable("a record's key")?;
    let value = reader.nullable("a record's value")?;
    headers.clear();
    for _ in 0..reader.u32("a record's header count")? {
        let length = reader.u32("a header's name")? as usize;
        let name =
            std::str::from_utf8(reader.take(length, "a header's name")?).map_err(|e| FormatError(format!("a header's name: {e}")))?;
        headers.push(Header { name, value: reader.nullable("a header's value")? });
    }
    *records = reader.rest;
    Ok(RecordParts { timestamp, key, value })
}

/// Stands for the length of null.
const NULL: u32 = u32::MAX;

fn put_entry_head(body: &mut Vec<u8>, tag: u8, length: usize) {
    body.reserve(ENTRY_HEAD_BYTES + length);
    body.push(tag);
    put_length(body, length);
}

fn put_nullable(bytes: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            put_length(bytes, value.len());
            bytes.extend_from_slice(value);
        }
        None => bytes.extend_from_slice(&NULL.to_le_bytes()),
    }
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("records and frames are limited far below 4 GiB before they are written");
    bytes.extend_from_slice(&length.to_le_bytes());
}

fn batch_head(payload: &[u8]) -> Result<BatchHead, FormatError> {
    let mut reader = Bytes { rest: payload };
    Ok(BatchHead {
        number: TopicNumber(reader.u32("a batch's topic")?),
        partition: reader.u32("a batch's partition")?,
        base: u64::from_le_bytes(reader.array("a batch's base offset")?),
        count: reader.u32("a batch's count")?,
        timestamp_max: i64::from_le_bytes(reader.array("a batch's time stamp")?),
    })
}

struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], FormatError> {
        let missing = || FormatError(format!("{what} of {length} bytes has only {} left", self.rest.len()));
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(missing)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FormatError> {
        Ok(*self.take(N, what)?.first_chunk().expect("exactly N bytes were taken"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, FormatError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn nullable(&mut self, what: &str) -> Result<Option<&'a [u8]>, FormatError> {
        match self.u32(what)? {
            NULL => Ok(None),
            length => self.take(length as usize, what).map(Some),
        }
    }
}

#[cfg(test)]
mod tests;
