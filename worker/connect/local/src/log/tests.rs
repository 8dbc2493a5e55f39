//! A job's view of the embedded log, beyond what the port's conformance tests ask.

use super::*;
use crate::conformance::{LogBench, RawRecord};
use crate::disk::NewRecord;
use forebay_engine::ids::{Offset, OutputId, Partition};
use forebay_engine::log::InputReader;
use forebay_engine::record::Destination;
use std::time::Duration;

/// The local log, in a folder that is removed with it.
struct LocalBench {
    dir: tempfile::TempDir,
}

impl LocalBench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn folder(&self) -> LogFolder {
        LogFolder::open(self.dir.path()).unwrap()
    }
}

impl LogBench for LocalBench {
    type Log = LocalLog;

    fn unique(&self, name: &str) -> String {
        // Each check has a bench, and a folder, of its own; names differ by the topics that are there and by what they are for.
        format!("{name}-{}", self.folder().topics().len())
    }

    fn open(&self, topics: &JobTopics) -> LocalLog {
        LocalLog::open(LocalLogOptions { dir: self.dir.path().to_owned(), topics: topics.clone(), auto_create: false }).unwrap()
    }

    fn create_topic(&self, topic: &str, partitions: u32) {
        self.folder().create_topic(topic, partitions).unwrap();
    }

    fn delete_topic(&self, topic: &str) {
        self.folder().delete_topic(topic).unwrap();
    }

    fn produce(&self, topic: &str, partition: u32, records: &[RawRecord]) {
        let mut writer = self.folder().writer(topic).unwrap();
        for record in records {
            let (key, value, headers) = (record.key.as_deref(), record.value.as_deref(), record.headers());
            let timestamp = Timestamp::from_millis(record.timestamp);
            writer.push(&NewRecord { partition: Some(Partition::new(partition)), timestamp, key, value, headers: &headers }).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), records.len() as u64);
    }

    fn delete_records(&self, topic: &str, partition: u32, before: u64) {
        self.folder().delete_records(topic, Partition::new(partition), Offset::new(before)).unwrap();
    }
}

mod conformance {
    use super::LocalBench;
    crate::log_conformance!(LocalBench::new());
}

fn topics() -> JobTopics {
    JobTopics {
        uid: "u".into(),
        inputs: vec!["in".into()],
        outputs: vec!["out".into(), "dead".into()],
        journal: "journal".into(),
        group: "group".into(),
        shards: 2,
    }
}

fn open(dir: &tempfile::TempDir) -> LocalLog {
    LocalLog::open(LocalLogOptions { dir: dir.path().to_owned(), topics: topics(), auto_create: true }).unwrap()
}

fn transaction(value: &str, next: u64) -> Transaction {
    let mut outputs = Outputs::default();
    let to = Destination { output: OutputId::new(0), partition: None, timestamp: Timestamp::from_millis(5), key: Some(b"k") };
    outputs.push(to, Some(value.as_bytes()), &[]);
    Transaction {
        outputs: vec![Arc::new(outputs)],
        journal: vec![(ShardId::new(1), vec![value.as_bytes().to_vec()])],
        offsets: vec![InputPosition { input: InputId::new(0), partition: Partition::new(2), next: Offset::new(next) }],
    }
}

/// What a reader finds after a transaction: journal records, outputs, the group's offset.
fn found(log: &LocalLog) -> (Vec<String>, Vec<String>, u64) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut journal, mut outputs) = (Vec::new(), Vec::new());
    let start = log.journal_range(ShardId::new(1)).unwrap().start;
    log.read_journal(ShardId::new(1), start, View::CommittedToEnd, &mut |entry| journal.push(text(&entry.bytes))).unwrap();
    let mut reader = log.folder().consume("out", StartFrom::Earliest, "").unwrap();
    while reader.poll(Duration::ZERO, 10, &mut |record| outputs.push(text(record.value.unwrap()))).unwrap() > 0 {}
    let offsets = log.folder().group_offsets("group");
    (journal, outputs, offsets.first().map_or(0, |offset| offset.next.get()))
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn outputs_are_made_like_the_input_only_when_asked_and_never_without_an_input() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = |auto_create| LocalLog::open(LocalLogOptions { dir: dir.path().to_owned(), topics: topics(), auto_create });
    let Err(LocalLogError::Topics(LogError::Missing { what, way_out, .. })) = attempt(true) else { panic!("there is no input") };
    assert!(what.contains("in") && way_out.contains("--partitions"), "{what} {way_out}");
    // Kept open: the folder would be given up, and opened again, in between.
    let folder = LogFolder::open(dir.path()).unwrap();
    folder.create_topic("in", 3).unwrap();
    let Err(LogError::Missing { what, .. }) = attempt(false).unwrap().describe() else { panic!("there are no outputs") };
    assert_eq!(what, "topic out");
    let partitions: Vec<_> = attempt(true).unwrap().describe().unwrap().iter().map(|topic| topic.partitions).collect();
    assert_eq!(partitions, [3, 3, 3, 0]);
}

#[test]
fn everything_is_there_after_the_log_was_closed_and_opened_again_and_the_barred_stay_barred() {
    let dir = tempfile::tempdir().unwrap();
    LogFolder::open(dir.path()).unwrap().create_topic("in", 3).unwrap();
    let log = open(&dir);
    log.ensure_journal().unwrap();
    let (barred, alive) = (Incarnation::new("barred"), Incarnation::new("alive"));
    log.open_producer(&barred).unwrap().commit(&transaction("a", 1)).unwrap();
    log.bar(&barred).unwrap();
    log.cut_journal(ShardId::new(1), JournalOffset::new(1)).unwrap();
    let described = log.describe().unwrap();
    drop(log);

    let log = open(&dir);
    assert_eq!(log.describe().unwrap(), described);
    assert_eq!(found(&log), (texts(&[]), texts(&["a"]), 1));
    assert!(matches!(log.open_producer(&barred), Err(LogError::Fenced { .. })));
    let receipt = log.open_producer(&alive).unwrap().commit(&transaction("b", 2)).unwrap();
    assert_eq!(receipt.journal[&ShardId::new(1)], (JournalOffset::new(1), JournalOffset::new(2)));
    drop(log);
    assert_eq!(found(&open(&dir)), (texts(&["b"]), texts(&["a", "b"]), 2));
}

#[test]
fn a_second_producer_of_an_incarnation_fences_the_first() {
    let dir = tempfile::tempdir().unwrap();
    LogFolder::open(dir.path()).unwrap().create_topic("in", 3).unwrap();
    let log = open(&dir);
    log.ensure_journal().unwrap();
    let mut first = log.open_producer(&Incarnation::new("p")).unwrap();
    let mut second = log.open_producer(&Incarnation::new("p")).unwrap();
    let fenced = first.commit(&transaction("first", 1));
    assert!(matches!(fenced, Err(LogError::Fenced { .. })), "{fenced:?}");
    second.commit(&transaction("second", 2)).unwrap();
    assert_eq!(found(&log), (texts(&["second"]), texts(&["second"]), 2));
}

#[test]
fn a_producer_is_useless_after_any_error_and_nothing_of_the_refused_transaction_is_there() {
    let dir = tempfile::tempdir().unwrap();
    LogFolder::open(dir.path()).unwrap().create_topic("in", 3).unwrap();
    let log = open(&dir);
    log.ensure_journal().unwrap();
    let mut producer = log.open_producer(&Incarnation::new("p")).unwrap();
    let too_large = "x".repeat(crate::RECORD_BYTES_MAX);
    let refused = producer.commit(&transaction(&too_large, 1));
    assert!(matches!(refused, Err(LogError::Rejected { .. })), "{refused:?}");
    let again = producer.commit(&transaction("small", 1));
    assert!(matches!(again, Err(LogError::Unavailable { .. })), "{again:?}");
    let mut other = log.open_producer(&Incarnation::new("q")).unwrap();
    let absent = Transaction { journal: vec![(ShardId::new(2), vec![vec![1]])], ..transaction("x", 1) };
    let absent = other.commit(&absent);
    assert!(matches!(&absent, Err(LogError::Missing { what, .. }) if what == "partition journal-2"), "{absent:?}");
    assert_eq!(found(&log), (texts(&[]), texts(&[]), 0));
}

#[test]
fn one_busy_partition_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open(dir.path()).unwrap();
    folder.create_topic("in", 2).unwrap();
    let record = |partition| NewRecord {
        partition: Some(Partition::new(partition)),
        timestamp: Timestamp::from_millis(1),
        key: None,
        value: Some(b"v"),
        headers: &[],
    };
    folder.produce("in", (0..100).map(|_| record(0)).chain([record(1)])).unwrap();
    let mut reader = folder.consume("in", StartFrom::Earliest, "").unwrap();
    let mut partitions = Vec::new();
    assert_eq!(reader.poll(Duration::ZERO, 10, &mut |record| partitions.push(record.partition.get())).unwrap(), 10);
    assert_eq!(partitions.iter().filter(|partition| **partition == 1).count(), 1, "{partitions:?}");
}

#[test]
fn reading_a_topic_that_was_deleted_says_so_also_when_one_of_its_name_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open(dir.path()).unwrap();
    folder.create_topic("in", 1).unwrap();
    let mut reader = folder.consume("in", StartFrom::Earliest, "").unwrap();
    folder.delete_topic("in").unwrap();
    folder.create_topic("in", 1).unwrap();
    let gone = reader.poll(Duration::from_secs(30), 1, &mut |_| {});
    assert!(matches!(gone, Err(LogError::Missing { .. })), "{gone:?}");
}

#[test]
fn a_transaction_whose_frame_was_torn_is_not_there_at_all_and_the_one_before_it_is_there_whole() {
    let dir = tempfile::tempdir().unwrap();
    LogFolder::open(dir.path()).unwrap().create_topic("in", 3).unwrap();
    let segment = dir.path().join(format!("{:020}.log", 0));
    let log = open(&dir);
    log.ensure_journal().unwrap();
    let mut producer = log.open_producer(&Incarnation::new("p")).unwrap();
    producer.commit(&transaction("first", 1)).unwrap();
    let before = std::fs::metadata(&segment).unwrap().len() as usize;
    producer.commit(&transaction("second", 2)).unwrap();
    drop((log, producer));
    let whole = std::fs::read(&segment).unwrap();
    for end in before..whole.len() {
        std::fs::write(&segment, &whole[..end]).unwrap();
        assert_eq!(found(&open(&dir)), (texts(&["first"]), texts(&["first"]), 1), "cut at {end}");
    }
    std::fs::write(&segment, &whole).unwrap();
    assert_eq!(found(&open(&dir)), (texts(&["first", "second"]), texts(&["first", "second"]), 2));
}
