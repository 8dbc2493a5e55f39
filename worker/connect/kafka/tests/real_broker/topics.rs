//! Topics, the preflight, and clusters that cannot be reached.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay_engine::ids::{Incarnation, OutputId, Timestamp};
use forebay_engine::log::{Log, LogError, Producer as _, TimestampLimits, TopicInfo, Transaction};
use forebay_engine::record::{Destination, Outputs};
use forebay_kafka::{KafkaLog, KafkaOptions, Severity};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::world::{PATIENCE, broker, to, topics, unique, world, world_with};

#[test]
fn topics_are_described_in_the_jobs_order_and_a_missing_one_is_named() {
    let Some(world) = world(2, 6) else { return };
    let names: Vec<_> = world.log.describe().unwrap().into_iter().map(|TopicInfo { name, partitions, .. }| (name, partitions)).collect();
    let job = &world.options.topics;
    assert_eq!(names, [(job.inputs[0].clone(), 6), (job.outputs[0].clone(), 6), (job.journal.clone(), 2)]);
    let mut options = world.options.clone();
    let absent = format!("{}.absent", unique());
    options.topics.outputs.push(absent.clone());
    let log = KafkaLog::open(options).unwrap();
    let error = log.describe().unwrap_err();
    assert!(matches!(&error, LogError::Missing { what, .. } if what.contains(&absent)), "{error}");
    log.ensure_outputs(3).unwrap();
    // Making it again changes nothing.
    log.ensure_outputs(5).unwrap();
    assert_eq!(log.describe().unwrap()[2].partitions, 3);
}

#[test]
fn a_topic_has_an_id_of_its_own_and_another_one_when_it_is_made_anew() {
    let Some(world) = world(1, 2) else { return };
    let ids = || world.log.describe().unwrap().into_iter().map(|topic| topic.id).collect::<Vec<_>>();
    let before = ids();
    assert!(before.iter().all(|id| id.len() == 22), "{before:?}");
    assert_eq!(ids(), before);
    world.remake_topic(&world.options.topics.inputs[0], 2);
    let after = ids();
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1..], before[1..]);
}

#[test]
fn a_journal_is_made_once_and_an_unfit_one_is_refused() {
    let Some(world) = world(4, 4) else { return };
    world.log.ensure_journal().unwrap();
    let mut other = world.options.clone();
    other.topics.shards = 2;
    let error = KafkaLog::open(other).unwrap().ensure_journal().unwrap_err();
    assert!(matches!(&error, LogError::Denied { reason, .. } if reason.contains("4 partitions") && reason.contains("2 shards")), "{error}");
    let sound = ("message.timestamp.type", "LogAppendTime");
    for (number, (unfit, mended)) in (0..).zip([
        ([("retention.ms", "60000"), sound], "retention.ms=-1"),
        ([("cleanup.policy", "compact"), sound], "cleanup.policy=delete"),
        ([("unclean.leader.election.enable", "true"), sound], "unclean.leader.election.enable=false"),
        ([("retention.ms", "-1"), ("message.timestamp.type", "CreateTime")], "message.timestamp.type=LogAppendTime"),
    ]) {
        let mut options = world.options.clone();
        options.topics.journal = format!("{}.unfit{number}", options.topics.journal);
        world.make_topic(&options.topics.journal, 4, &unfit);
        let error = KafkaLog::open(options).unwrap().ensure_journal().unwrap_err();
        assert!(matches!(&error, LogError::Denied { reason, .. } if reason.contains(mended)), "{error}");
    }
}

#[test]
fn time_stamps_within_an_outputs_limits_are_taken_and_others_are_not() {
    let Some(world) = world(1, 1) else { return };
    let mut options = world.options.clone();
    let outputs = [
        ("appended", &[("message.timestamp.type", "LogAppendTime")][..], TimestampLimits::NONE),
        ("created", &[], TimestampLimits { behind_millis_max: i64::MAX - 60_000, ahead_millis_max: 59 * 60_000 }),
        (
            "narrow",
            &[("message.timestamp.before.max.ms", "600000"), ("message.timestamp.after.max.ms", "80000")],
            TimestampLimits { behind_millis_max: 9 * 60_000, ahead_millis_max: 40_000 },
        ),
    ];
    options.topics.outputs.clear();
    for (name, settings, _) in outputs {
        let name = format!("{}.{name}", unique());
        world.make_topic(&name, 1, settings);
        options.topics.outputs.push(name);
    }
    let log = KafkaLog::open(options).unwrap();
    let limits = log.timestamp_limits().unwrap();
    assert_eq!(limits, outputs.map(|(_, _, limits)| limits));

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now = Timestamp::from_millis(i64::try_from(now).unwrap());
    let (long_ago, far) = (Timestamp::from_millis(1), Timestamp::from_millis(4_000_000_000_000));
    let commit = |name: &str, output: u16, timestamp: Timestamp| {
        let mut records = Outputs::default();
        records.push(Destination { output: OutputId::new(output), timestamp, ..to(Some(0), None) }, Some(b"v"), &[]);
        let transaction = Transaction { outputs: vec![Arc::new(records)], ..Transaction::default() };
        log.open_producer(&Incarnation::new(name)).unwrap().commit(&transaction).map(drop)
    };
    for (output, limits) in (0..).zip(limits) {
        for timestamp in [far, long_ago] {
            commit(&format!("nearest{output}.{}", timestamp.as_millis()), output, limits.nearest(timestamp, now)).unwrap();
        }
    }
    for (output, timestamp) in [(1, far), (2, far), (2, long_ago)] {
        let refused = commit(&format!("beyond{output}.{}", timestamp.as_millis()), output, timestamp);
        assert!(matches!(&refused, Err(LogError::Rejected { .. })), "{refused:?}");
    }
}

#[test]
fn the_preflight_finds_what_would_go_wrong() {
    let Some(world) = world(2, 4) else { return };
    let errors = |log: &KafkaLog| {
        let found = log.preflight().into_iter().filter(|finding| finding.severity == Severity::Error);
        found.map(|finding| finding.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(errors(&world.log), Vec::<String>::new());
    let mut options = world.options.clone();
    let narrow = format!("{}.narrow", unique());
    world.make_topic(&narrow, 2, &[]);
    let small = format!("{}.small", unique());
    world.make_topic(&small, 1, &[("max.message.bytes", "600000")]);
    options.topics.inputs.push(narrow);
    let absent = format!("{}.absent", unique());
    options.topics.outputs.extend([small, absent.clone()]);
    options.transaction_timeout = Duration::from_secs(3600);
    options.topics.journal = format!("{}.journal", unique());
    world.make_topic(&options.topics.journal, 2, &[("retention.ms", "60000"), ("message.timestamp.type", "LogAppendTime")]);
    let found = errors(&KafkaLog::open(options).unwrap());
    for expected in [
        format!("{absent} does not exist").as_str(),
        "has 4 partitions and input",
        "max.message.bytes=",
        "transaction.max.timeout.ms",
        "add-config retention.ms=-1",
    ] {
        assert!(found.iter().any(|finding| finding.contains(expected)), "{found:?} lacks {expected}");
    }
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn the_preflight_does_not_wait_for_what_a_dead_worker_left_open() {
    let Some(world) = world_with(1, 1, |mut options| {
        options.request_timeout = Duration::from_secs(5);
        options
    }) else {
        return;
    };
    let dead = world.foreign("w0.dead");
    world.leave_open(&dead, 0, b"");
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&world.options.topics.inputs[0], 0, Offset::Offset(0)).unwrap();
    let group: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &world.options.bootstrap_servers)
        .set("group.id", &world.options.topics.group)
        .create()
        .unwrap();
    dead.send_offsets_to_transaction(&offsets, &group.group_metadata().unwrap(), PATIENCE).unwrap();
    let found: Vec<_> = world.log.preflight().iter().map(ToString::to_string).collect();
    assert!(!found.iter().any(|finding| finding.contains("group")), "{found:?}");
}

#[test]
fn a_broker_that_is_not_there_is_named_within_the_time_given() {
    // Nothing listens on the discard port.
    let mut options = KafkaOptions::new("127.0.0.1:9", topics(&unique(), 1));
    options.request_timeout = Duration::from_secs(2);
    let error = KafkaLog::open(options).map(drop).unwrap_err();
    let LogError::Unavailable { action, reason } = &error else { panic!("{error}") };
    assert!(action.contains("127.0.0.1:9") && reason.contains("refused"), "{error}");
    assert!(reason.contains("check the address (`spec.kafka.bootstrapServers` or `--kafka`)"), "{error}");
}

#[test]
fn a_property_that_librdkafka_does_not_take_is_named() {
    let options = KafkaOptions::new("127.0.0.1:9", topics(&unique(), 1)).property("no.such.property", "secret");
    let error = KafkaLog::open(options).map(drop).unwrap_err().to_string();
    assert!(error.contains("no.such.property") && !error.contains("secret"), "{error}");
}

#[test]
fn tls_towards_a_plain_listener_is_told_so() {
    let Some(address) = broker() else { return };
    let mut options = KafkaOptions::new(address, topics(&unique(), 1)).property("security.protocol", "ssl");
    options.request_timeout = Duration::from_secs(2);
    let error = KafkaLog::open(options).map(drop).unwrap_err();
    assert!(matches!(&error, LogError::Unavailable { reason, .. } if reason.contains("SSL")), "{error}");
}

#[test]
fn a_foreign_member_of_the_jobs_group_is_found_before_it_makes_every_commit_fail() {
    let Some(world) = world(1, 1) else { return };
    let member: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &world.options.bootstrap_servers)
        .set("group.id", &world.options.topics.group)
        .create()
        .unwrap();
    member.subscribe(&[&world.options.topics.inputs[0]]).unwrap();
    let found = || world.log.preflight().into_iter().map(|finding| finding.to_string()).find(|finding| finding.contains("other consumers"));
    let deadline = Instant::now() + PATIENCE;
    while found().is_none() {
        assert!(Instant::now() < deadline, "the member is not found: {:?}", world.log.preflight());
        let _joining = member.poll(Duration::from_millis(100));
    }
}
