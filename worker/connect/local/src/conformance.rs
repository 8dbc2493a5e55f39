//! The log port's contract as checks that any adapter can run: implement [`LogBench`], then `log_conformance!(bench)`.
//!
//! The checks know nothing of an adapter. Offsets are taken to grow, not to be dense: in Kafka transaction markers have some, too. What an
//! aborted transaction leaves in the uncommitted view is left open: Kafka keeps its records, others have none.
#![allow(clippy::unwrap_used, reason = "checks are tests, wherever they are compiled")]

mod inputs;
mod journals;
mod outputs;

use std::sync::Arc;
use std::time::Duration;

use forebay_engine::ids::{Incarnation, InputId, JournalOffset, Offset, OutputId, Partition, ShardId, Timestamp};
use forebay_engine::log::{InputPosition, InputReader, JobTopics, JournalRange, Log, LogError, StartFrom, Transaction, View};
use forebay_engine::record::{Destination, Header, Outputs};

pub use inputs::*;
pub use journals::*;
pub use outputs::*;

/// A log that topics can be made in, and filled, from outside.
pub trait LogBench {
    /// The adapter.
    type Log: Log;

    /// A name for a topic, group or job that no other test has.
    fn unique(&self, name: &str) -> String;

    /// One job's view of the log. Makes no topics.
    fn open(&self, topics: &JobTopics) -> Self::Log;

    /// Makes a topic that is not there.
    fn create_topic(&self, topic: &str, partitions: u32);

    /// Deletes a topic.
    fn delete_topic(&self, topic: &str);

    /// Puts records into a partition, in order, outside of any transaction.
    fn produce(&self, topic: &str, partition: u32, records: &[RawRecord]);

    /// Deletes a partition's records before an offset.
    fn delete_records(&self, topic: &str, partition: u32, before: u64);
}

/// A record and all that a log keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// Milliseconds.
    pub timestamp: i64,
    /// `None` is null.
    pub key: Option<Vec<u8>>,
    /// `None` is null.
    pub value: Option<Vec<u8>>,
    /// In order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// Where it lay.
    pub partition: u32,
    /// Where in it.
    pub offset: u64,
    /// What it was.
    pub record: RawRecord,
}

/// Makes a `#[test]` of each check. `$bench` is an expression that makes a [`LogBench`]; it is evaluated once per check.
#[macro_export]
macro_rules! log_conformance {
    ($bench:expr) => {
        $crate::log_conformance! { $bench;
            input_records_come_in_order_with_all_their_parts
            a_reader_goes_on_where_it_stopped_whatever_the_limit
            a_reader_that_is_asked_for_a_break_stops_behind_that_very_record
            many_records_come_back_from_every_partition
            a_waiting_poll_gets_what_is_produced_meanwhile
            an_input_that_was_cut_or_is_beyond_the_end_says_so
            a_job_starts_at_the_oldest_the_newest_or_a_time_stamp
            a_job_starts_at_its_groups_offsets_as_last_committed
            a_missing_input_topic_or_partition_is_named
            journal_records_come_back_in_every_view_from_any_offset
            a_receipt_says_where_each_shards_records_lie
            a_journal_is_made_once_and_not_with_another_number_of_shards
            a_cut_journal_starts_later_and_says_what_is_gone
            a_barred_incarnation_never_commits_again
            barring_an_incarnation_leaves_the_others_alone
            outputs_come_back_in_order_with_all_their_parts
            a_transaction_of_many_outputs_is_there_whole
            keys_fall_into_the_partitions_that_java_clients_choose
            records_without_a_key_go_to_some_partition
            topics_are_described_in_the_jobs_order
            a_topic_that_was_made_anew_has_another_id
        }
    };
    ($bench:expr; $($check:ident)*) => {
        $(
            #[test]
            fn $check() {
                $crate::conformance::$check(&$bench);
            }
        )*
    };
}

impl RawRecord {
    /// A record with a value, at time `timestamp`.
    pub fn new(timestamp: i64, key: &str, value: &str) -> Self {
        let bytes = |text: &str| Some(text.as_bytes().to_vec());
        Self { timestamp, key: bytes(key), value: bytes(value), headers: Vec::new() }
    }

    /// Its headers, as the engine takes them.
    pub fn headers(&self) -> Vec<Header<'_>> {
        self.headers.iter().map(|(name, value)| Header { name, value: value.as_deref() }).collect()
    }

    /// Records with every part null, empty and there, and names of headers that repeat.
    fn of_all_kinds() -> Vec<Self> {
        let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
        let headers = vec![header("a", Some(b"1")), header("a", Some(b"")), header("", None), header("ü", Some(&[0, 255]))];
        let mut records = Vec::new();
        for key in [None, Some(Vec::new()), Some(b"key".to_vec())] {
            for value in [None, Some(Vec::new()), Some(vec![0, 159, 146, 150])] {
                for headers in [Vec::new(), headers.clone()] {
                    let timestamp = 1_700_000_000_000 - records.len() as i64;
                    records.push(Self { timestamp, key: key.clone(), value: value.clone(), headers });
                }
            }
        }
        records
    }
}

/// How long a check waits for what must come; a poll that finds it returns at once.
const WAIT: Duration = Duration::from_secs(30);

/// A job of its own, with empty topics.
struct Job<'a, B: LogBench> {
    bench: &'a B,
    topics: JobTopics,
    log: B::Log,
}

impl<'a, B: LogBench> Job<'a, B> {
    /// A job with one input and two outputs of `partitions` partitions, and a journal.
    fn new(bench: &'a B, partitions: u32, shards: u32) -> Self {
        let job = Self::without_journal(bench, partitions, shards);
        job.log.ensure_journal().unwrap();
        job
    }

    fn without_journal(bench: &'a B, partitions: u32, shards: u32) -> Self {
        let topics = JobTopics {
            uid: bench.unique("uid"),
            inputs: vec![bench.unique("input")],
            outputs: vec![bench.unique("output"), bench.unique("dead")],
            journal: bench.unique("journal"),
            group: bench.unique("group"),
            shards,
        };
        for topic in topics.inputs.iter().chain(&topics.outputs) {
            bench.create_topic(topic, partitions);
        }
        let log = bench.open(&topics);
        Self { bench, topics, log }
    }

    fn producer(&self, incarnation: &str) -> <B::Log as Log>::Producer {
        self.log.open_producer(&Incarnation::new(incarnation)).unwrap()
    }

    /// A shard's journal from `from` on, as bytes.
    fn journal(&self, shard: u32, from: JournalOffset, view: View) -> Result<(Vec<Vec<u8>>, JournalRange), LogError> {
        let mut entries = Vec::new();
        let mut last = None;
        let range = self.log.read_journal(ShardId::new(shard), from, view, &mut |entry| {
            assert!(entry.offset >= from && last.is_none_or(|last| last < entry.offset), "{entry:?} after {last:?}, from {from}");
            last = Some(entry.offset);
            entries.push(entry.bytes);
        })?;
        assert!(last.is_none_or(|last| last < range.end), "{last:?} lies behind {range:?}");
        Ok((entries, range))
    }

    /// A shard's committed journal, from its start to its end.
    fn committed_journal(&self, shard: u32) -> Vec<Vec<u8>> {
        let start = self.log.journal_range(ShardId::new(shard)).unwrap().start;
        self.journal(shard, start, View::CommittedToEnd).unwrap().0
    }

    /// Reads `count` records of a topic from its start, and makes sure that no more come.
    fn read_topic(&self, topic: &str, count: usize) -> Vec<ReadRecord> {
        let topics = JobTopics { inputs: vec![topic.to_owned()], outputs: Vec::new(), ..self.topics.clone() };
        let log = self.bench.open(&topics);
        let positions = log.start_positions(InputId::new(0), StartFrom::Earliest).unwrap();
        let mut reader = log.open_input(ShardId::new(0), &positions).unwrap();
        let records = read(&mut reader, count);
        assert_eq!(read_some(&mut reader, Duration::ZERO, 1).unwrap(), vec![], "more than {count} records of {topic}");
        records
    }
}

/// A transaction that puts chunks into the journal of `shard` and nothing else.
fn journal_transaction(shard: u32, chunks: &[&str]) -> Transaction {
    let chunks = chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect();
    Transaction { journal: vec![(ShardId::new(shard), chunks)], ..Transaction::default() }
}

/// The next `count` records of a reader, however many polls they take.
fn read(reader: &mut impl InputReader, count: usize) -> Vec<ReadRecord> {
    let mut records = Vec::new();
    while records.len() < count {
        let some = read_some(reader, WAIT, count - records.len()).unwrap();
        assert!(!some.is_empty(), "{} of {count} records came: {records:?}", records.len());
        records.extend(some);
    }
    records
}

/// What one poll hands out.
fn read_some(reader: &mut impl InputReader, wait: Duration, limit: usize) -> Result<Vec<ReadRecord>, LogError> {
    let mut records = Vec::new();
    let count = reader.poll(wait, limit, &mut |record| {
        let headers = record.headers.iter().map(|header| (header.name.to_owned(), header.value.map(<[u8]>::to_vec))).collect();
        let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
        let raw = RawRecord { timestamp: record.timestamp.as_millis(), key, value, headers };
        records.push(ReadRecord { partition: record.partition.get(), offset: record.offset.get(), record: raw });
    })?;
    assert_eq!(count, records.len(), "poll returns how many records it handed out");
    assert!(count <= limit, "{count} records are more than the limit {limit}");
    Ok(records)
}

/// The records of one partition, in the order in which they came, without their places.
fn of_partition(records: &[ReadRecord], partition: u32) -> Vec<RawRecord> {
    let of = records.iter().filter(|record| record.partition == partition);
    let offsets: Vec<_> = of.clone().map(|record| record.offset).collect();
    assert!(offsets.is_sorted_by(|one, next| one < next), "offsets of partition {partition} go back: {offsets:?}");
    of.map(|record| record.record.clone()).collect()
}

fn position(partition: u32, next: u64) -> InputPosition {
    InputPosition { input: InputId::new(0), partition: Partition::new(partition), next: Offset::new(next) }
}

/// Outputs as a shard gathers them: topic, partition, record.
fn outputs<'r>(records: impl IntoIterator<Item = (u16, Option<u32>, &'r RawRecord)>) -> Arc<Outputs> {
    let mut outputs = Outputs::default();
    for (output, partition, record) in records {
        let to = Destination {
            output: OutputId::new(output),
            partition: partition.map(Partition::new),
            timestamp: Timestamp::from_millis(record.timestamp),
            key: record.key.as_deref(),
        };
        outputs.push(to, record.value.as_deref(), &record.headers());
    }
    Arc::new(outputs)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_check_is_in_the_macro() {
        let here = include_str!("conformance.rs");
        let (_, list) = here.split_once("$bench;\n").unwrap();
        let listed: Vec<_> = list.split('}').next().unwrap().split_whitespace().collect();
        let files =
            [include_str!("conformance/inputs.rs"), include_str!("conformance/journals.rs"), include_str!("conformance/outputs.rs")];
        let checks: Vec<_> =
            files.iter().flat_map(|file| file.split("pub fn ").skip(1)).map(|rest| rest.split(['(', '<']).next().unwrap()).collect();
        assert!(checks.len() > 10, "{checks:?}");
        assert_eq!(listed, checks);
    }
}
