//! A job's topics on the broker that `FOREBAY_TEST_KAFKA` names, made anew for each test, and what tests do with them.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use forebay_engine::ids::{
    AssignmentVersion, Incarnation, InputId, JournalOffset, OutputId, Partition, ShardId, Timeline, Timestamp, WorkerName,
};
use forebay_engine::journal::{self, Owner};
use forebay_engine::log::{InputPosition, InputReader, JobTopics, JournalRange, Log, LogError, Producer, StartFrom, Transaction, View};
use forebay_engine::record::{Destination, Header, Outputs};
use forebay_kafka::{KafkaInput, KafkaLog, KafkaOptions, KafkaProducer};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// How long anything that must happen may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub log: KafkaLog,
    pub options: KafkaOptions,
    admin: AdminClient<DefaultClientContext>,
}

/// One record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub partition: u32,
    pub offset: u64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The broker's address, or a loud word that a test did not run.
pub fn broker() -> Option<String> {
    let address = std::env::var("FOREBAY_TEST_KAFKA").ok().filter(|address| !address.is_empty());
    if address.is_none() {
        not_tested("set FOREBAY_TEST_KAFKA=host:port to run this against a real broker");
    }
    address
}

/// Says it past the harness, which keeps to itself what a test that passes has printed.
pub fn not_tested(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    std::io::stderr().write_all(format!("NOT TESTED: {test}: {why}\n").as_bytes()).unwrap();
}

/// A job with one input of `partitions` partitions, one output of as many, and a journal of `shards`.
pub fn world(shards: u32, partitions: u32) -> Option<World> {
    world_with(shards, partitions, |options| options)
}

/// The same with other options.
pub fn world_with(shards: u32, partitions: u32, change: impl FnOnce(KafkaOptions) -> KafkaOptions) -> Option<World> {
    let address = broker()?;
    let options = change(KafkaOptions::new(&address, topics(&unique(), shards)));
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", &address).create().unwrap();
    let world = World { log: KafkaLog::open(options.clone()).unwrap(), options, admin };
    for topic in world.options.topics.inputs.iter().chain(&world.options.topics.outputs) {
        world.make_topic(topic, partitions, &[]);
    }
    world.log.ensure_journal().unwrap();
    Some(world)
}

pub fn topics(name: &str, shards: u32) -> JobTopics {
    JobTopics {
        uid: name.to_owned(),
        inputs: vec![format!("{name}.in")],
        outputs: vec![format!("{name}.out")],
        journal: format!("{name}.journal"),
        group: format!("{name}.group"),
        shards,
    }
}

/// A name that no other test has, not even one of another run on the same broker.
pub fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    format!("t{now}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst))
}

impl World {
    pub fn make_topic(&self, name: &str, partitions: u32, settings: &[(&str, &str)]) {
        // The records' time stamps are years old; without this the broker would delete them within a second.
        let mut topic = NewTopic::new(name, i32::try_from(partitions).unwrap(), TopicReplication::Fixed(1));
        if !settings.iter().any(|(name, _)| *name == "retention.ms") {
            topic = topic.set("retention.ms", "-1");
        }
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        let made = finish(self.admin.create_topics([&topic], &AdminOptions::new())).unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        let deadline = Instant::now() + PATIENCE;
        // A broker knows a topic a moment after its controller does.
        while self.admin.inner().fetch_metadata(Some(name), PATIENCE).unwrap().topics()[0].partitions().len() != partitions as usize {
            assert!(Instant::now() < deadline, "{name} does not appear");
        }
    }

    /// Deletes a topic and makes one of the same name.
    pub fn remake_topic(&self, name: &str, partitions: u32) {
        let deleted = finish(self.admin.delete_topics(&[name], &AdminOptions::new())).unwrap();
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        let deadline = Instant::now() + PATIENCE;
        while !self.admin.inner().fetch_metadata(Some(name), PATIENCE).unwrap().topics()[0].partitions().is_empty() {
            assert!(Instant::now() < deadline, "{name} does not go away");
        }
        self.make_topic(name, partitions, &[]);
    }

    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
        finish(self.admin.delete_records(&list, &AdminOptions::new())).unwrap();
    }

    /// A producer of the job, of an incarnation with this name.
    pub fn producer(&self, name: &str) -> KafkaProducer {
        self.log.open_producer(&Incarnation::new(name)).unwrap()
    }

    /// A log whose output is this one's input: what a test commits there can be read here.
    pub fn upstream(&self) -> KafkaProducer {
        let mut topics = topics(&unique(), 1);
        topics.outputs.clone_from(&self.options.topics.inputs);
        KafkaLog::open(KafkaOptions { topics, ..self.options.clone() }).unwrap().open_producer(&Incarnation::new("source.1")).unwrap()
    }

    /// A log that reads what this one puts out.
    pub fn downstream(&self) -> KafkaLog {
        let mut topics = topics(&unique(), 1);
        topics.inputs.clone_from(&self.options.topics.outputs);
        KafkaLog::open(KafkaOptions { topics, ..self.options.clone() }).unwrap()
    }

    /// A foreign producer under an incarnation's transactional id: it may leave its transaction open.
    pub fn foreign(&self, incarnation: &str) -> BaseProducer {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.options.bootstrap_servers)
            .set("transactional.id", format!("forebay.{}.{incarnation}", self.options.topics.uid))
            .set("linger.ms", "0")
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer
    }

    /// Begins a transaction with one journal record and leaves it open.
    pub fn leave_open(&self, producer: &BaseProducer, shard: i32, bytes: &[u8]) {
        self.leave_open_in(producer, &self.options.topics.journal, shard, bytes);
    }

    /// The same in any topic.
    pub fn leave_open_in(&self, producer: &BaseProducer, topic: &str, partition: i32, bytes: &[u8]) {
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(bytes)).unwrap();
        producer.flush(PATIENCE).unwrap();
    }

    pub fn journal(&self, shard: u32, from: u64, view: View) -> Result<(Vec<(u64, Vec<u8>)>, JournalRange), LogError> {
        let mut entries = Vec::new();
        let mut each = |entry: forebay_engine::log::JournalEntry| entries.push((entry.offset.get(), entry.bytes));
        let range = self.log.read_journal(ShardId::new(shard), JournalOffset::new(from), view, &mut each)?;
        Ok((entries, range))
    }

    /// Opens all partitions of the input at a start.
    pub fn input(&self, from: StartFrom) -> KafkaInput {
        let positions = self.log.start_positions(InputId::new(0), from).unwrap();
        self.log.open_input(ShardId::new(0), &positions).unwrap()
    }
}

/// A claim of an incarnation, as bytes of a journal record.
pub fn claim(shard: u32, incarnation: &str) -> Vec<u8> {
    journal::encode_claim(&Owner {
        timeline: Timeline::new(0),
        shard: ShardId::new(shard),
        worker: WorkerName::new("w7"),
        incarnation: Incarnation::new(incarnation),
        assignment: AssignmentVersion::new(1),
    })
    .remove(0)
}

/// A transaction of journal records only.
pub fn journal_of(shard: u32, chunks: &[&[u8]]) -> Transaction {
    let chunks = chunks.iter().map(|chunk| chunk.to_vec()).collect();
    Transaction { journal: vec![(ShardId::new(shard), chunks)], ..Transaction::default() }
}

/// Outputs for one partition.
pub fn outputs(partition: u32, values: &[&str]) -> Transaction {
    let mut outputs = Outputs::default();
    for value in values {
        outputs.push(to(Some(partition), None), Some(value.as_bytes()), &[]);
    }
    Transaction { outputs: vec![Arc::new(outputs)], ..Transaction::default() }
}

pub fn to(partition: Option<u32>, key: Option<&[u8]>) -> Destination<'_> {
    Destination {
        output: OutputId::new(0),
        partition: partition.map(Partition::new),
        timestamp: Timestamp::from_millis(1_700_000_000_000),
        key,
    }
}

/// Polls until `count` records were handed out.
pub fn read(input: &mut KafkaInput, count: usize) -> Vec<Read> {
    let mut found = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while found.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records came", found.len());
        poll(input, &mut found).unwrap();
    }
    found
}

pub fn poll(input: &mut KafkaInput, found: &mut Vec<Read>) -> Result<usize, LogError> {
    input.poll(Duration::from_millis(100), 10_000, &mut |record| {
        let header = |header: &Header<'_>| (header.name.to_owned(), header.value.map(<[u8]>::to_vec));
        found.push(Read {
            partition: record.partition.get(),
            offset: record.offset.get(),
            timestamp: record.timestamp.as_millis(),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(header).collect(),
        });
    })
}

/// Polls until an error comes.
pub fn read_error(input: &mut KafkaInput) -> LogError {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no error came");
        if let Err(error) = poll(input, &mut Vec::new()) {
            return error;
        }
    }
}

pub fn next_offsets(positions: &[InputPosition]) -> Vec<u64> {
    positions.iter().map(|position| position.next.get()).collect()
}

pub fn committed(producer: &mut KafkaProducer, transaction: &Transaction) -> BTreeMap<ShardId, (JournalOffset, JournalOffset)> {
    producer.commit(transaction).unwrap().journal
}

/// The admin client's own thread completes its answers; asking again is all there is to do.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        assert!(Instant::now() < deadline, "the broker does not answer");
        std::thread::yield_now();
    }
}
