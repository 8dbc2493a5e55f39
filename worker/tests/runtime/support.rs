//! What the tests of a whole worker share: one shard of a job on the embedded log and a folder, and a pipeline that counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use forebay_engine::claim::VersionRule;
use forebay_engine::ids::{Partition, Revision, ShardId, Timeline, Timestamp, WorkerName};
use forebay_engine::lifetimes::Lifetimes;
use forebay_engine::log::{JobTopics, Log, StartFrom};
use forebay_engine::manifest::{Manifest, manifest_prefix, parse_manifest_key};
use forebay_engine::pipeline::{Entity, Pipeline, Verdict, Workspace};
use forebay_engine::record::InputRecord;
use forebay_engine::state::StateError;
use forebay_engine::store::{Body, Downloaded, ObjectInfo, ObjectStore, Put, StoreError};
use forebay_engine::worker::WorkerOptions;
use forebay_local::{FolderStore, LocalLog, LocalLogOptions, LogFolder, NewRecord};
use forebay_worker::runtime::ensure_journal;
use forebay_worker::status::{ShardStatus, Status};
use forebay_worker::{Engine, Runtime, RuntimeOptions};

pub const SHARD: ShardId = ShardId::new(0);

/// Longer than anybody could want to wait for a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A question for a checkpoint is not heard while the one before is at its very end.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Counts its records in the books, and does nothing else.
#[derive(Clone)]
pub struct Counting;

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

/// The log of a job of one shard in a folder, which may be made just now.
pub fn log(dir: &Path) -> LocalLog {
    log_of(dir, 1)
}

/// The same of so many shards.
pub fn log_of(dir: &Path, shards: u32) -> LocalLog {
    let topics = JobTopics {
        uid: "u".into(),
        inputs: vec!["in".into()],
        outputs: vec!["out".into()],
        journal: "journal".into(),
        group: "group".into(),
        shards,
    };
    LocalLog::open(LocalLogOptions { dir: dir.join("log"), topics, auto_create: true }).unwrap()
}

/// Takes no checkpoint by itself.
pub fn options(dir: &Path, process: &str) -> RuntimeOptions {
    RuntimeOptions {
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
        process: process.into(),
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
        garbage_grace: RuntimeOptions::GARBAGE_GRACE,
        lifetimes: Lifetimes::default(),
        memory_bytes_max: 256 << 20,
        give_back: || {},
    }
}

pub fn start<L: Log>(dir: &Path, log: L, options: RuntimeOptions) -> Runtime {
    start_with(Arc::new(FolderStore::open(&dir.join("store")).unwrap()), log, options)
}

pub fn start_with<L: Log>(store: Arc<dyn ObjectStore>, log: L, options: RuntimeOptions) -> Runtime {
    ensure_journal(&log).unwrap();
    Runtime::start(Engine { log: Arc::new(log), store, pipeline: Arc::new(|_| Counting) }, options).unwrap()
}

/// Puts records into the input; a topic of one partition is made for the first ones.
pub fn produce(folder: &LogFolder, records: usize) {
    if folder.topics().is_empty() {
        folder.create_topic("in", 1).unwrap();
    }
    let mut writer = folder.writer("in").unwrap();
    for _ in 0..records {
        let partition = Some(Partition::new(0));
        writer
            .push(&NewRecord { partition, timestamp: Timestamp::from_millis(1), key: Some(b"k"), value: Some(b"v"), headers: &[] })
            .unwrap();
    }
    writer.finish().unwrap();
}

/// Looks until there is what must come. `Err` is what is there instead.
pub fn until<T, E: Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(began.elapsed() < PATIENCE, "never: {what}; {seen:?}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The same for the shard.
pub fn until_shard(status: &Status, what: &str, mut holds: impl FnMut(&ShardStatus) -> bool) -> ShardStatus {
    until(what, || {
        let shard = status.shards().remove(&SHARD).unwrap_or_default();
        if holds(&shard) { Ok(shard) } else { Err(Box::new(shard)) }
    })
}

/// A job in a folder, and its checkpoints.
pub struct Scene {
    dir: tempfile::TempDir,
    input: LogFolder,
    pub store: FolderStore,
}

impl Scene {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (input, store) = (LogFolder::open(&dir.path().join("log")).unwrap(), FolderStore::open(&dir.path().join("store")).unwrap());
        produce(&input, 1);
        Self { dir, input, store }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn state_dir(&self) -> PathBuf {
        options(self.path(), "").state_dir
    }

    pub fn start(&self, process: &str, garbage_grace: Duration) -> Runtime {
        let runtime = start(self.path(), log(self.path()), RuntimeOptions { garbage_grace, ..options(self.path(), process) });
        until_shard(runtime.status(), "the shard runs", |shard| shard.phase == "running");
        runtime
    }

    /// Some more records, and a checkpoint that has them and counts.
    pub fn take_checkpoint(&self, runtime: &Runtime) -> Manifest {
        let status = runtime.status();
        let before = status.shards()[&SHARD].books.records_in;
        produce(&self.input, 10);
        let now = until_shard(status, "more is committed", |shard| shard.books.records_in >= before + 10 && shard.uncommitted_records == 0);
        let count = || status.counters.checkpoints.load(Ordering::Relaxed);
        let (mut asked, earlier) = (None::<Instant>, count());
        let epoch = until_shard(status, "a checkpoint counts", |shard| {
            let cut = shard.cut.map(|(epoch, _)| epoch);
            let begun = shard.cut != now.cut;
            if !begun && asked.is_none_or(|at| at.elapsed() > ASK_AGAIN) {
                asked = Some(Instant::now());
                runtime.checkpoint(BTreeMap::from([(SHARD, now.epoch)]));
            }
            begun && shard.checkpoint == cut && count() > earlier
        });
        let epoch = epoch.checkpoint.unwrap();
        let keys = self.store.list(&manifest_prefix(SHARD)).unwrap();
        let key = keys.iter().find(|object| parse_manifest_key(&object.key).is_some_and(|(of, _)| of == epoch)).unwrap();
        Manifest::decode(&self.store.get(&key.key).unwrap()).unwrap()
    }

    pub fn objects(&self) -> BTreeSet<String> {
        self.store.list("").unwrap().into_iter().map(|object| object.key).collect()
    }
}

/// A store whose uploads and downloads wait until they may, and are noted. Uploads come to nothing then.
pub struct Slow {
    store: FolderStore,
    /// Whether they may, and what was asked for.
    state: Mutex<(bool, Vec<String>)>,
    changed: Condvar,
}

impl Slow {
    pub fn over(store: &FolderStore) -> Arc<Self> {
        let store = FolderStore::open(store.root()).unwrap();
        Arc::new(Self { store, state: Mutex::default(), changed: Condvar::new() })
    }

    pub fn wait_until_somebody_waits(&self) {
        let waited = self.changed.wait_timeout_while(self.state.lock().unwrap(), PATIENCE, |state| state.1.is_empty()).unwrap();
        assert!(!waited.1.timed_out(), "nothing was asked for");
    }

    pub fn let_go(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().1.clone()
    }

    fn pass(&self, key: &str) {
        let mut state = self.state.lock().unwrap();
        state.1.push(key.to_owned());
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.0).unwrap());
    }
}

impl ObjectStore for Slow {
    fn put(&self, key: &str, _: &Body) -> Result<Put, StoreError> {
        self.pass(key);
        Err(StoreError::Unavailable { action: "put", key: key.to_owned(), reason: "told to".to_owned() })
    }
    fn get(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        self.store.get(key)
    }
    fn download(&self, key: &str, to: &Path) -> Result<Downloaded, StoreError> {
        self.pass(key);
        self.store.download(key, to)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.store.list(prefix)
    }
    fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.store.delete(keys)
    }
}

pub fn end(runtime: Runtime) {
    runtime.stop();
    runtime.join().unwrap();
}
