//! What a real broker does only now and then, brought about on purpose: librdkafka's own mock broker answers with errors when told to. It proves
//! nothing about transactions; what it is good for here is silence and refusal.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use forebay_engine::ids::{Incarnation, InputId, Offset, OutputId, Partition, ShardId, Timestamp};
use forebay_engine::log::{InputPosition, JobTopics, Log, LogError, Producer, StartFrom, Transaction};
use forebay_engine::record::{Destination, Outputs};
use forebay_kafka::{KafkaLog, KafkaOptions};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

/// How long anything that must happen may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A job with one partition of everything, on a broker that does as it is told.
fn job() -> (MockCluster<'static, DefaultProducerContext>, KafkaOptions) {
    let cluster = MockCluster::new(1).expect("a mock broker starts");
    let topics = JobTopics {
        uid: "u".into(),
        inputs: vec!["in".into()],
        outputs: vec!["out".into()],
        journal: "journal".into(),
        group: "group".into(),
        shards: 1,
    };
    for topic in ["in", "out", "journal"] {
        cluster.create_topic(topic, 1, 1).expect("a mock broker makes topics");
    }
    let options = KafkaOptions::new(cluster.bootstrap_servers(), topics);
    (cluster, options)
}

#[test]
fn a_topic_whose_leader_is_being_elected_is_asked_again() {
    let (cluster, options) = job();
    let log = KafkaLog::open(options).unwrap();
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 3]);
    let positions = log.start_positions(InputId::new(0), StartFrom::Earliest).unwrap();
    assert_eq!(positions, [InputPosition { input: InputId::new(0), partition: Partition::new(0), next: Offset::new(0) }]);
}

#[test]
fn a_commit_that_hangs_commits_nothing_when_it_comes_back() {
    // Method: the broker says that it does not know the group's coordinator, as one does that has just started. librdkafka's producer asks three times
    // and no fourth time, and waits for ever, whatever its call's time-out; other clients of the process may ask too. A connection that is lost
    // and made again wakes it.
    let (cluster, mut options) = job();
    options.transaction_timeout = Duration::from_secs(2);
    let log = KafkaLog::open(options).unwrap();
    let mut producer = log.open_producer(&Incarnation::new("w.1")).unwrap();

    cluster.request_errors(RDKafkaApiKey::FindCoordinator, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE; 100]);
    let (answer, answers) = channel();
    let committing = std::thread::spawn(move || {
        let _ = answer.send(producer.commit(&transaction()));
        let again = producer.commit(&transaction());
        assert!(matches!(again, Err(LogError::Unavailable { .. })), "a spent producer commits again: {again:?}");
    });
    let early = answers.recv_timeout(log.deadlines().commit + Duration::from_secs(2));
    assert!(
        matches!(early, Err(RecvTimeoutError::Timeout)),
        "librdkafka's call came back by itself: {early:?}. If that is so for good, the worker's watchdog has lost its main reason"
    );

    cluster.clear_request_errors(RDKafkaApiKey::FindCoordinator);
    cluster.broker_down(1).unwrap();
    cluster.broker_up(1).unwrap();
    let late = answers.recv_timeout(PATIENCE).expect("the call comes back with the connection");
    let message = late.expect_err("a commit past its deadline").to_string();
    assert!(message.contains("deadline is over"), "{message}");
    committing.join().unwrap();
}

#[test]
fn a_full_queue_of_the_producer_holds_the_commit_up_and_loses_nothing() {
    // Method: ten times as many bytes as librdkafka may hold, to a broker that takes its time. The commit waits for room again and again.
    let (cluster, mut options) = job();
    options.produce_bytes = 1 << 20;
    cluster.broker_round_trip_time(1, Duration::from_millis(10)).unwrap();
    // One that reads the output tells its end.
    let mut reading = options.clone();
    reading.topics.inputs = vec!["out".into()];
    let log = KafkaLog::open(options).unwrap();
    let mut producer = log.open_producer(&Incarnation::new("w.1")).unwrap();
    let value = vec![7; 50_000];
    let mut outputs = Outputs::default();
    for number in 0..210 {
        let timestamp = Timestamp::from_millis(1 + number);
        let destination = Destination { output: OutputId::new(0), partition: Some(Partition::new(0)), timestamp, key: Some(b"k") };
        outputs.push(destination, Some(&value), &[]);
    }
    let receipt = producer.commit(&Transaction { outputs: vec![Arc::new(outputs)], ..transaction() }).unwrap();
    assert!(receipt.journal.contains_key(&ShardId::new(0)), "{receipt:?}");
    let ends = KafkaLog::open(reading).unwrap().start_positions(InputId::new(0), StartFrom::Latest).unwrap();
    assert_eq!(ends[0].next, Offset::new(210), "the broker took that many");
}

fn transaction() -> Transaction {
    let mut outputs = Outputs::default();
    let (output, partition, timestamp) = (OutputId::new(0), Some(Partition::new(0)), Timestamp::from_millis(1));
    outputs.push(Destination { output, partition, timestamp, key: Some(b"k") }, Some(b"v"), &[]);
    let next = InputPosition { input: InputId::new(0), partition: Partition::new(0), next: Offset::new(1) };
    Transaction { outputs: vec![Arc::new(outputs)], journal: vec![(ShardId::new(0), vec![b"epoch".to_vec()])], offsets: vec![next] }
}
