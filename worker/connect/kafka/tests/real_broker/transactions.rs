//! Commits, receipts, fencing, refusals.

use std::sync::Arc;
use std::time::SystemTime;

use forebay_engine::ids::{Incarnation, InputId, JournalOffset, Offset, Partition, ShardId};
use forebay_engine::log::{InputPosition, Log, LogError, Producer, StartFrom, Transaction, View};
use forebay_engine::record::{Header, Outputs};
use forebay_kafka::KafkaLog;
use rdkafka::producer::Producer as _;

use crate::world::{claim, committed, journal_of, next_offsets, outputs, poll, read, to, world};

#[test]
fn one_transaction_carries_outputs_journal_and_offsets_and_the_receipt_says_where_the_journal_lies() {
    let Some(world) = world(2, 2) else { return };
    let mut producer = world.producer("w0.1");
    committed(&mut producer, &journal_of(1, &[b"before"]));
    let position =
        |partition, next| InputPosition { input: InputId::new(0), partition: Partition::new(partition), next: Offset::new(next) };
    let transaction = Transaction {
        journal: vec![(ShardId::new(0), vec![b"a0".to_vec(), b"a1".to_vec(), b"a2".to_vec()]), (ShardId::new(1), vec![b"b0".to_vec()])],
        offsets: vec![position(0, 41), position(1, 7)],
        ..outputs(1, &["x", "y"])
    };
    let receipt = committed(&mut producer, &transaction);
    let place = |from, to| (JournalOffset::new(from), JournalOffset::new(to));
    // Shard 1 holds a record and its transaction's marker already.
    assert_eq!(receipt, [(ShardId::new(0), place(0, 3)), (ShardId::new(1), place(2, 3))].into());
    let (first, range) = world.journal(0, 0, View::CommittedToEnd).unwrap();
    assert_eq!(first, [(0, b"a0".to_vec()), (1, b"a1".to_vec()), (2, b"a2".to_vec())]);
    // A commit returns before its markers are written, so that the end that the read began with may lie before the marker or behind it.
    assert!(range.start.get() == 0 && (3..=4).contains(&range.end.get()), "{range:?}");
    assert_eq!(world.journal(1, 2, View::CommittedToEnd).unwrap().0, [(2, b"b0".to_vec())]);
    let group = world.log.start_positions(InputId::new(0), StartFrom::Group).unwrap();
    assert_eq!(next_offsets(&group), [41, 7]);
    // They are this job's own; to another job that reads the same group they are not.
    assert_eq!(world.log.own_positions(&[position(1, 0)]).unwrap(), [position(1, 7)]);
    let mut another = world.options.clone();
    another.topics.uid.push_str("-another");
    assert_eq!(KafkaLog::open(another).unwrap().own_positions(&[position(1, 0)]).unwrap(), []);
    let downstream = world.downstream();
    let starts = downstream.start_positions(InputId::new(0), StartFrom::Earliest).unwrap();
    let mut input = downstream.open_input(ShardId::new(0), &starts).unwrap();
    let values: Vec<_> = read(&mut input, 2).into_iter().map(|record| (record.partition, record.value.unwrap())).collect();
    assert_eq!(values, [(1, b"x".to_vec()), (1, b"y".to_vec())]);
}

#[test]
fn a_receipt_says_when_the_journal_was_appended_by_the_brokers_clock() {
    // Method: the broker runs on this machine, so that its clock is this process's.
    let Some(world) = world(1, 1) else { return };
    let now = || i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let mut producer = world.producer("w0.1");
    let sent = now();
    let appended = producer.commit(&journal_of(0, &[b"a", b"b"])).unwrap().appended.unwrap().as_millis();
    assert!((sent..=now()).contains(&appended), "sent at {sent}, appended at {appended}");
    // The time stamps of outputs are the job's own.
    assert_eq!(producer.commit(&outputs(0, &["x"])).unwrap().appended, None);
}

#[test]
fn keys_values_headers_and_time_stamps_arrive_as_they_were_sent_nulls_and_empty_ones_told_apart() {
    let Some(world) = world(1, 1) else { return };
    let mut batch = Outputs::default();
    let headers = [Header { name: "n", value: Some(b"1") }, Header { name: "n", value: None }, Header { name: "é", value: Some(b"") }];
    batch.push(to(Some(0), Some(b"k")), Some(b"v"), &headers);
    batch.push(to(Some(0), Some(b"")), Some(b""), &[]);
    batch.push(to(Some(0), None), None, &[]);
    world.upstream().commit(&Transaction { outputs: vec![Arc::new(batch)], ..Transaction::default() }).unwrap();
    let found = read(&mut world.input(StartFrom::Earliest), 3);
    let bytes = |bytes: &[u8]| Some(bytes.to_vec());
    let pairs: Vec<_> = found.iter().map(|record| (record.key.clone(), record.value.clone())).collect();
    assert_eq!(pairs, [(bytes(b"k"), bytes(b"v")), (bytes(b""), bytes(b"")), (None, None)]);
    assert_eq!(found[0].headers, [("n".to_owned(), bytes(b"1")), ("n".to_owned(), None), ("é".to_owned(), bytes(b""))]);
    assert!(found[1].headers.is_empty() && found[2].headers.is_empty());
    assert!(found.iter().all(|record| record.timestamp == 1_700_000_000_000), "{found:?}");
}

#[test]
fn equal_keys_go_where_java_clients_put_them() {
    let Some(world) = world(1, 7) else { return };
    // Kafka's own test vectors for murmur2 (org.apache.kafka.common.utils.UtilsTest).
    let vectors: [(&str, i32); 5] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("abc", 479_470_107),
    ];
    let mut batch = Outputs::default();
    for (key, _) in vectors {
        batch.push(to(None, Some(key.as_bytes())), Some(key.as_bytes()), &[]);
    }
    world.upstream().commit(&Transaction { outputs: vec![Arc::new(batch)], ..Transaction::default() }).unwrap();
    for record in read(&mut world.input(StartFrom::Earliest), vectors.len()) {
        let (key, hash) = vectors.iter().find(|(key, _)| record.key.as_deref() == Some(key.as_bytes())).unwrap();
        assert_eq!(record.partition, (hash & 0x7fff_ffff) as u32 % 7, "{key}");
    }
}

#[test]
fn a_barred_incarnation_commits_nothing_more() {
    let Some(world) = world(1, 1) else { return };
    let mut old = world.producer("w0.1");
    committed(&mut old, &journal_of(0, &[b"one"]));
    world.log.bar(&Incarnation::new("w0.1")).unwrap();
    for _ in 0..2 {
        let error = old.commit(&journal_of(0, &[b"zombie"])).unwrap_err();
        assert!(matches!(error, LogError::Fenced { .. }), "{error}");
    }
    let mut new = world.producer("w1.1");
    committed(&mut new, &journal_of(0, &[b"two"]));
    let values: Vec<_> = world.journal(0, 0, View::CommittedToEnd).unwrap().0.into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(values, [b"one".to_vec(), b"two".to_vec()]);
}

#[test]
fn barring_aborts_what_was_left_open_and_committed_readers_are_past_it_at_once() {
    let Some(world) = world(1, 1) else { return };
    let zombie = world.foreign("w0.1");
    world.leave_open(&zombie, 0, &claim(0, "w0.1"));
    assert_eq!(world.journal(0, 0, View::CommittedSoFar).unwrap().1.end.get(), 0);
    world.log.bar(&Incarnation::new("w0.1")).unwrap();
    let (entries, range) = world.journal(0, 0, View::CommittedSoFar).unwrap();
    // The record and the marker of its abort.
    assert_eq!((entries, range.end.get()), (vec![], 2));
    assert!(zombie.commit_transaction(crate::world::PATIENCE).is_err());
    assert_eq!(world.journal(0, 0, View::CommittedToEnd).unwrap().0, []);
}

#[test]
fn an_incarnation_that_never_was_can_be_barred() {
    let Some(world) = world(1, 1) else { return };
    world.log.bar(&Incarnation::new("never.1")).unwrap();
}

#[test]
fn a_record_too_large_is_rejected_by_name_and_its_producer_refuses_everything_after() {
    let Some(world) = world(1, 1) else { return };
    let mut producer = world.producer("w0.1");
    // Noise, which lz4 cannot make fit.
    let large: Vec<u8> = (0..3u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (at >> 7) as u8).collect();
    let mut batch = Outputs::default();
    batch.push(to(Some(0), Some(b"small")), Some(b"fits"), &[]);
    batch.push(to(Some(0), Some(b"whale")), Some(&large), &[]);
    let mut transaction = journal_of(0, &[b"epoch"]);
    transaction.outputs = vec![Arc::new(batch)];
    let error = producer.commit(&transaction).unwrap_err();
    let LogError::Rejected { reason, .. } = &error else { panic!("{error}") };
    for part in ["output 1 of 2", "whale", &world.options.topics.outputs[0], "max.message.bytes"] {
        assert!(reason.contains(part), "{reason} lacks {part}");
    }
    let error = producer.commit(&journal_of(0, &[b"next"])).unwrap_err();
    assert!(matches!(&error, LogError::Unavailable { reason, .. } if reason.contains("new incarnation")), "{error}");
    world.log.bar(&Incarnation::new("w0.1")).unwrap();
    assert_eq!(world.journal(0, 0, View::CommittedToEnd).unwrap().0, []);
}

#[test]
fn what_a_failed_transaction_sent_is_never_read() {
    let Some(world) = world(1, 1) else { return };
    let mut input = world.input(StartFrom::Earliest);
    let mut upstream = world.upstream();
    upstream.commit(&outputs(0, &["seen"])).unwrap();
    let mut broken = outputs(0, &["unseen"]);
    broken.outputs.push(outputs(9, &["no such partition"]).outputs.remove(0));
    let error = upstream.commit(&broken).unwrap_err();
    assert!(matches!(error, LogError::Missing { .. }), "{error}");
    drop(upstream);
    world.upstream().commit(&outputs(0, &["seen too"])).unwrap();
    let mut found = read(&mut input, 1);
    poll(&mut input, &mut found).unwrap();
    let values: Vec<_> = found.into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect();
    // The second one may still wait for the open transaction of the first producer to be over; what counts is what is never there.
    assert!(values == ["seen"] || values == ["seen", "seen too"], "{values:?}");
}
