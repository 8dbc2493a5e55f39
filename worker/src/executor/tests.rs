//! An executor with two shards over a log whose calls hang when told to.

use forebay_engine::ids::Timestamp;
use forebay_engine::pipeline::{Verdict, Workspace};
use forebay_engine::record::InputRecord;
use forebay_engine::state::StateError;
use forebay_state::{MEMORY_BYTES_MIN, RocksState, SharedMemory};

use super::*;
use crate::RuntimeOptions;
use crate::committer::tests::fake;
use crate::fetch::tests::{Objects, stamp};
use crate::helpers;
use crate::pressure::Pressure;
use crate::snapshots::Pace;
use crate::snapshots::tests::Nothing;
use crate::watchdog::tests::impatient;

/// As long as anybody could want to wait for a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pipeline that is dropped when its channel says so: it stands for a database that takes long to close.
struct Lingering(Receiver<()>);

impl Drop for Lingering {
    fn drop(&mut self) {
        let _ = self.0.recv_timeout(PATIENCE);
    }
}

impl Pipeline for Lingering {
    type Entity = Nothing;

    fn process(&mut self, _: &InputRecord<'_>, _: &mut Workspace<'_, Nothing>) -> Result<Verdict, StateError> {
        unreachable!("no record comes")
    }
}

/// An executor that has been told to start shard 1 and then shard 0.
struct Scene {
    _dir: tempfile::TempDir,
    status: Arc<Status>,
    commands: Sender<Command<Lingering, RocksState>>,
    heard: Receiver<Event>,
    /// The log's calls hang until this is dropped.
    answers: Option<Sender<()>>,
    /// And the shards' ends until this is.
    _ends: Sender<()>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (log, answers, _) = fake(&[]);
        let (status, (events, heard), (tasks, _)) = (Arc::<Status>::default(), unbounded(), helpers::start("helper", 2));
        let pace = Pace { interval: Duration::from_secs(3600), pause: Duration::ZERO };
        let store = Arc::new(Objects::default());
        let snapshots = Snapshots::new(
            store,
            dir.path().to_owned(),
            pace,
            RuntimeOptions::GARBAGE_GRACE,
            status.clone(),
            events.clone(),
            tasks.clone(),
        );
        let shared = Arc::new(Shared {
            log: Watched::new(Arc::new(log), Arc::new(impatient(&status))),
            helpers: tasks,
            clock: Arc::new(Clock::new(|| Timestamp::from_millis(0))),
            status: status.clone(),
            events,
            snapshots,
            pressure: Arc::new(Pressure::new(1 << 30, 1 << 20)),
        });
        let (commands, _) = start::<_, Lingering, RocksState>(0, shared);
        let memory = SharedMemory::new(MEMORY_BYTES_MIN, 2).unwrap();
        let (_ends, end) = bounded(0);
        for number in [1, 0] {
            let shard = ShardId::new(number);
            let database = RocksState::create(&dir.path().join(number.to_string()), &memory).unwrap();
            let state = Shard::new(Lingering(end.clone()), database, stamp(Epoch::new(1)), 1 << 20);
            commands.send(Command::Adopt(shard, Attempt::default(), Box::new(state))).unwrap();
            commands.send(Command::Start(shard, Attempt::default())).unwrap();
        }
        Self { _dir: dir, status, commands, heard, answers: Some(answers), _ends }
    }

    /// Asks shard 0 for its epoch, and waits for the answer.
    fn shard_0_answers(&self) {
        let owner = stamp(Epoch::new(1)).owner;
        self.commands.send(Command::Seal(ShardId::new(0), Attempt::default(), owner, Annotations::default())).unwrap();
        let event = self.heard.recv_timeout(PATIENCE / 2).expect("shard 0 is held up");
        assert!(matches!(event, Event::Sealed(shard, _, None) if shard == ShardId::new(0)), "{event:?}");
    }

    /// Lets the log answer, and waits until shard 1 runs.
    fn shard_1_runs(&mut self) {
        self.answers = None;
        while self.phase_of_shard_1() != "running" {
            std::thread::yield_now();
        }
    }

    /// Empty when nothing is known of it.
    fn phase_of_shard_1(&self) -> &'static str {
        self.status.shards().get(&ShardId::new(1)).map_or("", |shard| shard.phase)
    }
}

/// Method: brokers do not answer for the input of shard 1. Shard 0, which is started behind it, must answer. Then the brokers do: shard 1 must come to run.
#[test]
fn a_shard_whose_input_does_not_open_holds_up_no_other() {
    let mut scene = Scene::new();
    scene.shard_0_answers();
    assert_eq!(scene.phase_of_shard_1(), "");
    scene.shard_1_runs();
}

/// Method: shard 1 is released, and its database does not come to be closed. Shard 0 must answer, and nobody may take shard 1 for this worker's.
#[test]
fn a_shard_that_takes_long_to_close_holds_up_no_other() {
    let mut scene = Scene::new();
    scene.shard_1_runs();
    scene.commands.send(Command::Close(ShardId::new(1))).unwrap();
    scene.shard_0_answers();
    assert_eq!(scene.phase_of_shard_1(), "");
}
