//! The bytes of the journal, and what they mean. A record is a claim, an epoch or a release; large ones are cut into chunks that follow
//! each other. Format 1: version, kind, chunk number, chunk count, then the owner, then the payload's part, all in postcard. An epoch's state
//! changes ([`Changes`]) are the end of its payload.
//!
//! Every chunk names its owner, so that a claim can tell who wrote what without reading the payloads.

use serde::{Deserialize, Serialize};

use crate::changes::Changes;
use crate::ids::{AssignmentVersion, Epoch, Incarnation, JournalOffset, Revision, ShardId, Timeline, Timestamp, WorkerName};
use crate::log::{InputPosition, JournalEntry};
use crate::manifest::RetainedCheckpoint;
use crate::pipeline::Verdict;

/// The format that this engine writes, and the only one that it reads so far.
pub const FORMAT: u8 = 1;

/// Payload bytes of one chunk: well under Kafka's default `message.max.bytes` of 1 MiB, with room for the owner and the batch header.
pub const CHUNK_BYTES: usize = 768 << 10;

/// Who wrote a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The history it belongs to.
    pub timeline: Timeline,
    /// The shard, so that a record in the wrong partition is seen.
    pub shard: ShardId,
    /// The pod or process.
    pub worker: WorkerName,
    /// The run of it.
    pub incarnation: Incarnation,
    /// The assignment under which it claimed.
    pub assignment: AssignmentVersion,
}

/// The exact counts since the job's beginning (I8: `records_in` is the sum of the others).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// Records read.
    #[serde(rename = "in")]
    pub records_in: u64,
    /// Went through to the end.
    pub processed: u64,
    /// Went to the dead-letter output.
    pub rejected: u64,
    /// Seen before.
    pub duplicate: u64,
    /// Left out by a filter.
    pub filtered: u64,
    /// Over a limit.
    pub throttled: u64,
}

impl Books {
    /// Counts one record.
    pub fn count(&mut self, verdict: Verdict) {
        self.records_in += 1;
        match verdict {
            Verdict::Processed => self.processed += 1,
            Verdict::Rejected => self.rejected += 1,
            Verdict::Duplicate => self.duplicate += 1,
            Verdict::Filtered => self.filtered += 1,
            Verdict::Throttled => self.throttled += 1,
        }
    }

    /// Whether every record is accounted for.
    pub fn balance(&self) -> bool {
        self.records_in == self.processed + self.rejected + self.duplicate + self.filtered + self.throttled
    }

    /// The sum of two shards' books.
    #[must_use]
    pub fn plus(&self, other: &Books) -> Books {
        Books {
            records_in: self.records_in + other.records_in,
            processed: self.processed + other.processed,
            rejected: self.rejected + other.rejected,
            duplicate: self.duplicate + other.duplicate,
            filtered: self.filtered + other.filtered,
            throttled: self.throttled + other.throttled,
        }
    }
}

/// Everything that is true of a shard at an epoch, but its state itself. It lies in the journal record, in the local database and in the
/// manifest; all three being equal is what makes a local restore safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Who committed the epoch.
    pub owner: Owner,
    /// The epoch.
    pub epoch: Epoch,
    /// What the pipeline was.
    pub revision: Revision,
    /// The epoch's clock.
    pub clock: Timestamp,
    /// The next record of every input partition of the shard, sorted.
    pub positions: Vec<InputPosition>,
    /// Ids of the input topics, in the order of the job's inputs; behind them that of the journal, which states of earlier versions lack.
    pub topic_ids: Vec<String>,
    /// The counters up to and including this epoch.
    pub books: Books,
    /// The checkpoints that count, oldest first.
    pub retained: Vec<RetainedCheckpoint>,
    /// Objects that are on no list any more and may be deleted once this epoch is committed.
    pub garbage: Vec<String>,
    /// Behind this epoch's journal record. Zero inside the record itself, which cannot know it.
    pub journal: JournalOffset,
}

/// One record of the journal, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalRecord {
    /// From here on the shard is its writer's.
    Claim(Owner),
    /// One epoch.
    Epoch(Box<Stamp>, Changes),
    /// Its writer is done with the shard and need not be barred.
    Release(Owner),
}

/// What kind of record a chunk is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A claim.
    Claim,
    /// A chunk of an epoch.
    Epoch,
    /// A release mark.
    Release,
}

/// The part of a chunk that a claim needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkHead {
    /// What it is of.
    pub kind: Kind,
    /// Its number, from 0.
    pub chunk: u16,
    /// How many there are.
    pub chunks: u16,
    /// Who wrote it.
    pub owner: Owner,
}

/// Bytes in a journal that cannot be what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal record at offset {offset}: {reason}")]
pub struct JournalError {
    /// Where.
    pub offset: JournalOffset,
    /// What is wrong.
    pub reason: String,
}

/// Encodes a claim; one chunk.
pub fn encode_claim(owner: &Owner) -> Vec<Vec<u8>> {
    vec![chunk(Kind::Claim, 0, 1, owner, &[])]
}

/// Encodes a release mark; one chunk.
pub fn encode_release(owner: &Owner) -> Vec<Vec<u8>> {
    vec![chunk(Kind::Release, 0, 1, owner, &[])]
}

/// Encodes an epoch: as many chunks as its size needs. `stamp.journal` is not written.
pub fn encode_epoch(stamp: &Stamp, changes: &Changes) -> Vec<Vec<u8>> {
    encode_epoch_in(stamp, changes, CHUNK_BYTES)
}

/// The same with chunks of another size.
pub(crate) fn encode_epoch_in(stamp: &Stamp, changes: &Changes, chunk_bytes: usize) -> Vec<Vec<u8>> {
    let mut payload = Vec::with_capacity(512 + changes.as_bytes().len());
    let body = EpochBody {
        epoch: stamp.epoch,
        revision: &stamp.revision,
        clock: stamp.clock,
        positions: &stamp.positions,
        topic_ids: &stamp.topic_ids,
        books: stamp.books,
        retained: &stamp.retained,
        garbage: &stamp.garbage,
    };
    postcard::to_io(&body, &mut payload).expect("writing to memory cannot fail");
    payload.extend_from_slice(changes.as_bytes());
    let chunks = payload.len().div_ceil(chunk_bytes).max(1);
    let count = u16::try_from(chunks).expect("an epoch's bytes are limited far below 65535 chunks (I9)");
    (0..count)
        .map(|number| {
            let from = usize::from(number) * chunk_bytes;
            chunk(Kind::Epoch, number, count, &stamp.owner, &payload[from..payload.len().min(from + chunk_bytes)])
        })
        .collect()
}

/// Reads a chunk's head and leaves its payload alone.
pub fn head(entry: &JournalEntry) -> Result<ChunkHead, JournalError> {
    split(entry).map(|(head, _)| head)
}

/// Puts chunks together again. Feed it the committed records of one journal in order.
#[derive(Debug, Default)]
pub struct Assembler {
    pending: Option<(ChunkHead, Vec<u8>)>,
}

impl Assembler {
    /// Takes the next committed chunk; a record when it completes one. Chunks of one record follow each other in one transaction, so a gap
    /// between them is corruption. Another's claim or release may lie there: it was put by somebody who had not met, and so not barred, the writer.
    pub fn push(&mut self, entry: &JournalEntry) -> Result<Option<JournalRecord>, JournalError> {
        let (head, payload) = split(entry)?;
        let fail = |reason: String| JournalError { offset: entry.offset, reason };
        match head.kind {
            Kind::Claim | Kind::Release if self.pending.as_ref().is_some_and(|(pending, _)| pending.owner == head.owner) => {
                Err(fail("an epoch's last chunks are missing before it".into()))
            }
            Kind::Claim => Ok(Some(JournalRecord::Claim(head.owner))),
            Kind::Release => Ok(Some(JournalRecord::Release(head.owner))),
            Kind::Epoch => {
                let whole = match self.pending.take() {
                    None if head.chunk == 0 => payload.to_vec(),
                    Some((before, mut bytes))
                        if before.owner == head.owner && before.chunk + 1 == head.chunk && before.chunks == head.chunks =>
                    {
                        bytes.extend_from_slice(payload);
                        bytes
                    }
                    None | Some(_) => return Err(fail(format!("chunk {} of {} has no predecessor", head.chunk, head.chunks))),
                };
                if head.chunk + 1 < head.chunks {
                    self.pending = Some((head, whole));
                    return Ok(None);
                }
                let decoded = postcard::take_from_bytes::<EpochBodyOwned>(&whole);
                let (body, changes) = decoded.map_err(|e| fail(format!("cannot be decoded: {e}")))?;
                let changes = Changes::from_bytes(changes.to_vec());
                let stamp = Stamp {
                    owner: head.owner,
                    epoch: body.epoch,
                    revision: body.revision,
                    clock: body.clock,
                    positions: body.positions,
                    topic_ids: body.topic_ids,
                    books: body.books,
                    retained: body.retained,
                    garbage: body.garbage,
                    journal: entry.offset.next(),
                };
                Ok(Some(JournalRecord::Epoch(Box::new(stamp), changes)))
            }
        }
    }
}

#[derive(Serialize)]
struct EpochBody<'a> {
    epoch: Epoch,
    revision: &'a Revision,
    clock: Timestamp,
    positions: &'a [InputPosition],
    topic_ids: &'a [String],
    books: Books,
    retained: &'a [RetainedCheckpoint],
    garbage: &'a [String],
}

#[derive(Deserialize)]
struct EpochBodyOwned {
    epoch: Epoch,
    revision: Revision,
    clock: Timestamp,
    positions: Vec<InputPosition>,
    topic_ids: Vec<String>,
    books: Books,
    retained: Vec<RetainedCheckpoint>,
    garbage: Vec<String>,
}

fn chunk(kind: Kind, number: u16, count: u16, owner: &Owner, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 96);
    bytes.push(FORMAT);
    bytes.push(match kind {
        Kind::Claim => 1,
        Kind::Epoch => 2,
        Kind::Release => 3,
    });
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&count.to_be_bytes());
    postcard::to_io(owner, &mut bytes).expect("writing to memory cannot fail");
    bytes.extend_from_slice(payload);
    bytes
}

fn split(entry: &JournalEntry) -> Result<(ChunkHead, &[u8]), JournalError> {
    let fail = |reason: String| JournalError { offset: entry.offset, reason };
    let [format, kind, n0, n1, c0, c1, rest @ ..] = entry.bytes.as_slice() else {
        return Err(fail(format!("{} bytes are too few for a record", entry.bytes.len())));
    };
    if *format != FORMAT {
        return Err(fail(format!("format {format} is unknown to this version, which reads format {FORMAT}")));
    }
    let kind = match kind {
        1 => Kind::Claim,
        2 => Kind::Epoch,
        3 => Kind::Release,
        other => return Err(fail(format!("kind {other} is unknown"))),
    };
    let (owner, payload) = postcard::take_from_bytes::<Owner>(rest).map_err(|e| fail(format!("its owner cannot be decoded: {e}")))?;
    let head = ChunkHead { kind, chunk: u16::from_be_bytes([*n0, *n1]), chunks: u16::from_be_bytes([*c0, *c1]), owner };
    Ok((head, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::Change;
    use crate::ids::{InputId, Offset, Partition};

    fn owner(name: &str) -> Owner {
        Owner {
            timeline: Timeline::new(0),
            shard: ShardId::new(3),
            worker: WorkerName::new("w0"),
            incarnation: Incarnation::new(name),
            assignment: AssignmentVersion::new(4),
        }
    }

    fn stamp() -> Stamp {
        Stamp {
            owner: owner("w0.1"),
            epoch: Epoch::new(9),
            revision: Revision::new("r1"),
            clock: Timestamp::from_millis(5),
            positions: vec![],
            topic_ids: vec!["t".into()],
            books: Books { records_in: 3, processed: 1, rejected: 1, duplicate: 1, filtered: 0, throttled: 0 },
            retained: vec![],
            garbage: vec!["files/3/x".into()],
            journal: JournalOffset::new(0),
        }
    }

    fn entries(chunks: Vec<Vec<u8>>, from: u64) -> Vec<JournalEntry> {
        chunks.into_iter().zip(from..).map(|(bytes, offset)| JournalEntry { offset: JournalOffset::new(offset), bytes }).collect()
    }

    #[test]
    fn an_epoch_of_any_size_comes_back_whole_and_knows_where_it_ended() {
        for bytes in [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES] {
            let mut changes = Changes::default();
            changes.push(b"key", Change::Put(&vec![7; bytes]));
            let chunks = entries(encode_epoch(&stamp(), &changes), 40);
            let mut assembler = Assembler::default();
            let (last, first) = chunks.split_last().unwrap();
            for chunk in first {
                assert_eq!(assembler.push(chunk), Ok(None));
            }
            let expected = Stamp { journal: last.offset.next(), ..stamp() };
            assert_eq!(assembler.push(last), Ok(Some(JournalRecord::Epoch(Box::new(expected), changes))));
        }
    }

    #[test]
    fn missing_chunks_and_foreign_bytes_are_errors_and_never_a_record() {
        let mut changes = Changes::default();
        changes.push(b"key", Change::Put(&vec![7; 2 * CHUNK_BYTES]));
        let chunks = entries(encode_epoch(&stamp(), &changes), 0);
        let claim = &entries(encode_claim(&owner("w0.1")), 9)[0];
        assert!(Assembler::default().push(&chunks[1]).is_err());
        let mut assembler = Assembler::default();
        assembler.push(&chunks[0]).unwrap();
        assert!(assembler.push(&chunks[2]).is_err());
        let mut assembler = Assembler::default();
        assembler.push(&chunks[0]).unwrap();
        assert!(assembler.push(claim).is_err());
        for bytes in [vec![], vec![2, 1, 0, 0, 0, 1, 0], vec![1, 9, 0, 0, 0, 1, 0], vec![1, 1, 0, 0, 0, 1, 200]] {
            assert!(head(&JournalEntry { offset: JournalOffset::new(0), bytes }).is_err());
        }
    }

    #[test]
    fn claims_and_releases_of_others_may_lie_between_the_chunks_of_an_epoch() {
        let mut changes = Changes::default();
        changes.push(b"key", Change::Put(&vec![7; CHUNK_BYTES]));
        let other = owner("w1.1");
        let mut written = encode_epoch(&stamp(), &changes);
        written.splice(1..1, [encode_claim(&other), encode_release(&other)].concat());
        let mut assembler = Assembler::default();
        let read: Vec<_> = entries(written, 0).iter().filter_map(|entry| assembler.push(entry).unwrap()).collect();
        let epoch = JournalRecord::Epoch(Box::new(Stamp { journal: JournalOffset::new(4), ..stamp() }), changes);
        assert_eq!(read, vec![JournalRecord::Claim(other.clone()), JournalRecord::Release(other), epoch]);
    }

    /// A claim, an epoch with a value, a patch and a removal, and a release mark, a line of hexadecimal digits each.
    const GOLDEN: &str = include_str!("../golden/journal-1.txt");

    fn golden() -> (Stamp, Changes) {
        let position = InputPosition { input: InputId::new(0), partition: Partition::new(3), next: Offset::new(28_412) };
        let retained =
            RetainedCheckpoint { epoch: Epoch::new(7), incarnation: Incarnation::new("w0.0"), journal: JournalOffset::new(1583) };
        let mut changes = Changes::default();
        changes.push(b"\0\x01\0\0\0\x03a", Change::Put(b"\x01\x80"));
        changes.push(b"\0\x01\0\0\0\x03b", Change::Patch(&[5 << 2, 1 << 2 | 1, 1 << 2 | 2, 7]));
        changes.push(b"\0\x01\0\0\0\x03c", Change::Delete);
        (
            Stamp { positions: vec![position], retained: vec![retained], clock: Timestamp::from_millis(1_357_034_400_000), ..stamp() },
            changes,
        )
    }

    #[test]
    fn records_have_the_bytes_of_their_format_and_are_read_from_them() {
        let (stamp, changes) = golden();
        let written = [encode_claim(&owner("w0.1")), encode_epoch(&stamp, &changes), encode_release(&owner("w0.1"))].concat();
        let hex = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(written.iter().map(hex).collect::<Vec<_>>(), GOLDEN.lines().collect::<Vec<_>>());
        let mut assembler = Assembler::default();
        let read: Vec<_> = entries(written, 0).iter().map(|entry| assembler.push(entry).unwrap().unwrap()).collect();
        let epoch = JournalRecord::Epoch(Box::new(Stamp { journal: JournalOffset::new(2), ..stamp }), changes);
        assert_eq!(read, vec![JournalRecord::Claim(owner("w0.1")), epoch, JournalRecord::Release(owner("w0.1"))]);
    }
}
