//! Records on their way in and out. Both borrow or share one arena, so that a record costs no allocation of its own.

use std::ops::Range;

use crate::ids::{InputId, Offset, OutputId, Partition, Timestamp};

/// One header of a record, as Kafka has them: names may repeat, values may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The header's name.
    pub name: &'a str,
    /// Its bytes; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
}

/// One record of an input, borrowed from the reader's buffer.
#[derive(Clone, Copy, Debug)]
pub struct InputRecord<'a> {
    /// The input it came from.
    pub input: InputId,
    /// The partition it lies in.
    pub partition: Partition,
    /// Its place in the partition.
    pub offset: Offset,
    /// The record's own time stamp, as the log has it.
    pub timestamp: Timestamp,
    /// `None` is Kafka's null key.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// In the order of the log.
    pub headers: &'a [Header<'a>],
}

/// One record to put out, borrowed from [`Outputs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord<'a> {
    /// The topic, as an index into the job's outputs.
    pub output: OutputId,
    /// `None`: the producer's partitioner decides by the key (murmur2, as Java clients do).
    pub partition: Option<Partition>,
    /// The time stamp that the log is to give it.
    pub timestamp: Timestamp,
    /// `None` is a null key.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// In order.
    pub headers: Vec<Header<'a>>,
}

/// Where an output goes: everything but its value and headers.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The topic, as an index into the job's outputs.
    pub output: OutputId,
    /// `None`: by the key.
    pub partition: Option<Partition>,
    /// The time stamp that the log is to give it.
    pub timestamp: Timestamp,
    /// `None` is a null key.
    pub key: Option<&'a [u8]>,
}

/// The outputs of one shard's part of an epoch, in order, in one arena.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    arena: Vec<u8>,
    headers: Vec<(Range<u32>, Option<Range<u32>>)>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    output: OutputId,
    partition: Option<Partition>,
    timestamp: Timestamp,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
    headers: Range<u32>,
}

/// A place in [`Outputs`] to go back to: the record that is being processed starts there.
#[derive(Clone, Copy, Debug)]
pub struct OutputMark {
    arena: usize,
    headers: usize,
    entries: usize,
}

impl Outputs {
    /// Adds a record; everything is copied into the arena.
    pub fn push(&mut self, to: Destination<'_>, value: Option<&[u8]>, headers: &[Header<'_>]) {
        match value {
            Some(value) => self.push_with(to, headers, |buffer| buffer.extend_from_slice(value)),
            None => {
                let (key, headers) = self.place(&to, headers);
                self.entries.push(Entry { output: to.output, partition: to.partition, timestamp: to.timestamp, key, value: None, headers });
            }
        }
    }

    /// Adds a record whose value `write` appends to the arena, so that it is built only once. `write` must only append.
    pub fn push_with(&mut self, to: Destination<'_>, headers: &[Header<'_>], write: impl FnOnce(&mut Vec<u8>)) {
        let (key, headers) = self.place(&to, headers);
        let from = self.arena.len();
        write(&mut self.arena);
        let value = Some(range(from, self.arena.len()));
        self.entries.push(Entry { output: to.output, partition: to.partition, timestamp: to.timestamp, key, value, headers });
    }

    /// The place to go back to if the record that follows fails.
    pub fn mark(&self) -> OutputMark {
        OutputMark { arena: self.arena.len(), headers: self.headers.len(), entries: self.entries.len() }
    }

    /// Takes back everything behind the mark.
    pub fn rewind(&mut self, mark: OutputMark) {
        self.arena.truncate(mark.arena);
        self.headers.truncate(mark.headers);
        self.entries.truncate(mark.entries);
    }

    /// Forgets all records and keeps the memory.
    pub fn clear(&mut self) {
        self.rewind(OutputMark { arena: 0, headers: 0, entries: 0 });
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys, values and headers together.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The records in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = OutputRecord<'_>> {
        let slice = |range: &Range<u32>| &self.arena[range.start as usize..range.end as usize];
        self.entries.iter().map(move |entry| OutputRecord {
            output: entry.output,
            partition: entry.partition,
            timestamp: entry.timestamp,
            key: entry.key.as_ref().map(slice),
            value: entry.value.as_ref().map(slice),
            headers: self.headers[entry.headers.start as usize..entry.headers.end as usize]
                .iter()
                .map(|(name, value)| Header {
                    name: std::str::from_utf8(slice(name)).expect("a header's name was copied from a str"),
                    value: value.as_ref().map(slice),
                })
                .collect(),
        })
    }

    fn place(&mut self, to: &Destination<'_>, headers: &[Header<'_>]) -> (Option<Range<u32>>, Range<u32>) {
        let key = to.key.map(|key| self.copy(key));
        let from = self.headers.len();
        for header in headers {
            let name = self.copy(header.name.as_bytes());
            let value = header.value.map(|value| self.copy(value));
            self.headers.push((name, value));
        }
        (key, range(from, self.headers.len()))
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<u32> {
        let from = self.arena.len();
        self.arena.extend_from_slice(bytes);
        range(from, self.arena.len())
    }
}

/// An epoch's bytes are limited far below 4 GiB (I9), so offsets of 32 bits do.
fn range(from: usize, to: usize) -> Range<u32> {
    u32::try_from(from).expect("an epoch's outputs are far below 4 GiB")..u32::try_from(to).expect("an epoch's outputs are far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(key: Option<&[u8]>) -> Destination<'_> {
        Destination { output: OutputId::new(1), partition: None, timestamp: Timestamp::from_millis(7), key }
    }

    #[test]
    fn outputs_come_back_as_they_were_put_and_a_rewind_takes_back_the_last_record_whole() {
        let mut outputs = Outputs::default();
        let headers = [Header { name: "a", value: Some(b"1") }, Header { name: "b", value: None }];
        outputs.push(to(Some(b"k")), Some(b"v"), &headers);
        let mark = outputs.mark();
        outputs.push(to(None), None, &headers);
        outputs.push_with(to(Some(b"x")), &[], |buffer| buffer.extend_from_slice(b"built"));
        let all: Vec<_> = outputs.iter().collect();
        assert_eq!((all[0].key, all[0].value, all[0].headers.as_slice()), (Some(&b"k"[..]), Some(&b"v"[..]), &headers[..]));
        assert_eq!((all[1].key, all[1].value, all[1].headers.len()), (None, None, 2));
        assert_eq!((all[2].key, all[2].value), (Some(&b"x"[..]), Some(&b"built"[..])));
        outputs.rewind(mark);
        assert_eq!((outputs.len(), outputs.bytes()), (1, 1 + 1 + 1 + 1 + 1));
    }
}
