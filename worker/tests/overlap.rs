//! Promise: while an epoch is committed the next one is processed; nothing of it is committed out of turn.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use forebay_engine::claim::VersionRule;
use forebay_engine::ids::{Epoch, Incarnation, InputId, JournalOffset, Partition, Revision, ShardId, Timeline, Timestamp, WorkerName};
use forebay_engine::lifetimes::Lifetimes;
use forebay_engine::log::{
    Deadlines, InputPosition, JobTopics, JournalEntry, JournalRange, Log, LogError, Producer, Receipt, StartFrom, TopicInfo, Transaction,
    View,
};
use forebay_engine::pipeline::{Entity, Pipeline, Verdict, Workspace};
use forebay_engine::record::InputRecord;
use forebay_engine::state::StateError;
use forebay_engine::worker::WorkerOptions;
use forebay_local::{FolderStore, LocalInput, LocalLog, LocalLogOptions, LocalProducer, LogFolder, NewRecord};
use forebay_worker::status::{ShardStatus, Status};
use forebay_worker::{Engine, Runtime, RuntimeOptions};

const SHARD: ShardId = ShardId::new(0);

/// Longer than anybody could want to wait for a test that fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// Commits wait here while it is closed.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn set_closed(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }

    fn wait_until_somebody_waits(&self) {
        let waited = self.changed.wait_timeout_while(self.state.lock().unwrap(), PATIENCE, |state| state.1 == 0).unwrap();
        assert!(!waited.1.timed_out(), "no commit came");
    }
}

/// The embedded log with a gate before each commit.
struct Gated {
    log: LocalLog,
    gate: Arc<Gate>,
}

struct GatedProducer {
    producer: LocalProducer,
    gate: Arc<Gate>,
}

impl Producer for GatedProducer {
    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, LogError> {
        self.gate.pass();
        self.producer.commit(transaction)
    }
}

impl Log for Gated {
    type Producer = GatedProducer;
    type Input = LocalInput;

    fn deadlines(&self) -> Deadlines {
        Deadlines { open: Duration::MAX, commit: Duration::MAX, read: Duration::MAX }
    }
    fn open_producer(&self, incarnation: &Incarnation) -> Result<GatedProducer, LogError> {
        Ok(GatedProducer { producer: self.log.open_producer(incarnation)?, gate: self.gate.clone() })
    }
    fn describe(&self) -> Result<Vec<TopicInfo>, LogError> {
        self.log.describe()
    }
    fn ensure_journal(&self) -> Result<(), LogError> {
        self.log.ensure_journal()
    }
    fn start_positions(&self, input: InputId, from: StartFrom) -> Result<Vec<InputPosition>, LogError> {
        self.log.start_positions(input, from)
    }
    fn bar(&self, incarnation: &Incarnation) -> Result<(), LogError> {
        self.log.bar(incarnation)
    }
    fn read_journal(
        &self,
        shard: ShardId,
        from: JournalOffset,
        view: View,
        each: &mut dyn FnMut(JournalEntry),
    ) -> Result<JournalRange, LogError> {
        self.log.read_journal(shard, from, view, each)
    }
    fn journal_range(&self, shard: ShardId) -> Result<JournalRange, LogError> {
        self.log.journal_range(shard)
    }
    fn journal_ends(&self, shards: &[ShardId]) -> Result<Vec<JournalOffset>, LogError> {
        self.log.journal_ends(shards)
    }
    fn cut_journal(&self, shard: ShardId, before: JournalOffset) -> Result<(), LogError> {
        self.log.cut_journal(shard, before)
    }
    fn open_input(&self, shard: ShardId, positions: &[InputPosition]) -> Result<LocalInput, LogError> {
        self.log.open_input(shard, positions)
    }
}

/// Counts its records in the books, and does nothing else.
#[derive(Clone)]
struct Counting;

impl Entity for Counting {
    fn encode(&self, _: &mut Vec<u8>) {}
    fn decode(_: &[u8]) -> Result<Self, String> {
        Ok(Self)
    }
    fn weight(&self) -> usize {
        0
    }
}

impl Pipeline for Counting {
    type Entity = Self;
    fn process(&mut self, _: &InputRecord<'_>, _: &mut Workspace<'_, Self>) -> Result<Verdict, StateError> {
        Ok(Verdict::Processed)
    }
}

/// Method: a commit is held up on its way to the log. What comes in meanwhile must be processed, and wait; then the commit goes through.
#[test]
fn while_an_epoch_is_committed_the_next_one_is_processed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open(&dir.path().join("log")).unwrap();
    folder.create_topic("in", 1).unwrap();
    let gate = Arc::<Gate>::default();
    let runtime = start(dir.path(), &gate);
    let status = runtime.status().clone();

    produce(&folder, 10);
    let before = until(&status, "the first records are committed", |shard| shard.books.records_in == 10 && shard.uncommitted_records == 0);
    gate.set_closed(true);
    produce(&folder, 10);
    gate.wait_until_somebody_waits();
    produce(&folder, 20);
    let meanwhile = until(&status, "all that has come meanwhile is processed", |shard| shard.uncommitted_records == 30);
    assert_eq!((meanwhile.epoch, meanwhile.books.records_in), (before.epoch, 10), "something was committed through a closed gate");

    gate.set_closed(false);
    let after = until(&status, "all is committed", |shard| shard.books.records_in == 40 && shard.uncommitted_records == 0);
    assert!(after.epoch > Epoch::new(before.epoch.get() + 1), "the commit that was held up took what had come later with it");
    runtime.stop();
    runtime.join().unwrap();
}

fn start(dir: &Path, gate: &Arc<Gate>) -> Runtime {
    let topics = JobTopics {
        uid: "u".into(),
        inputs: vec!["in".into()],
        outputs: vec!["out".into()],
        journal: "journal".into(),
        group: "group".into(),
        shards: 1,
    };
    let log = LocalLog::open(LocalLogOptions { dir: dir.join("log"), topics, auto_create: true }).unwrap();
    let engine = Engine {
        log: Arc::new(Gated { log, gate: gate.clone() }),
        store: Arc::new(FolderStore::open(&dir.join("store")).unwrap()),
        pipeline: Arc::new(|_| Counting),
    };
    let options = RuntimeOptions {
        worker: WorkerOptions {
            worker: WorkerName::new("w"),
            timeline: Timeline::new(0),
            commit_interval: Duration::from_millis(10),
            commit_interval_behind: Duration::from_millis(10),
            checkpoints_retained: 2,
            heartbeat: Duration::from_secs(24 * 3600),
            watch: Duration::from_secs(3600),
            retry: Duration::from_millis(200),
        },
        process: "p".into(),
        assignment: (VersionRule::AboveAll, BTreeSet::from([SHARD])),
        shards: 1,
        revision: Revision::new("r"),
        start_from: vec![StartFrom::Earliest],
        state_dir: dir.join("state"),
        executors: 1,
        epoch_bytes_max: 1 << 20,
        checkpoint_interval: Duration::from_secs(3600),
        checkpoint_pause: Duration::ZERO,
        checkpoints_concurrent: 1,
        lifetimes: Lifetimes::default(),
        memory_bytes_max: 256 << 20,
    };
    Runtime::start(engine, options).unwrap()
}

fn produce(folder: &LogFolder, records: usize) {
    let mut writer = folder.writer("in").unwrap();
    for _ in 0..records {
        let partition = Some(Partition::new(0));
        writer
            .push(&NewRecord { partition, timestamp: Timestamp::from_millis(1), key: Some(b"k"), value: Some(b"v"), headers: &[] })
            .unwrap();
    }
    writer.finish().unwrap();
}

/// Looks at the shard until it is as it must become.
fn until(status: &Status, what: &str, holds: impl Fn(&ShardStatus) -> bool) -> ShardStatus {
    let began = Instant::now();
    loop {
        let shard = status.shards().remove(&SHARD).unwrap_or_default();
        if holds(&shard) {
            return shard;
        }
        assert!(began.elapsed() < PATIENCE, "never: {what}; {shard:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
