//! An executor with two shards over a log whose calls hang when told to.

use forebay_engine::ids::Timestamp;
use forebay_state::{MEMORY_BYTES_MIN, RocksState, SharedMemory};

use super::*;
use crate::RuntimeOptions;
use crate::committer::tests::fake;
use crate::fetch::tests::{Objects, stamp};
use crate::helpers;
use crate::snapshots::Pace;
use crate::snapshots::tests::Nothing;
use crate::watchdog::tests::impatient;

/// Method: brokers do not answer for the input of shard 1. Shard 0, which is started behind it, must be asked for its epoch and answer. Then they answer: shard 1
/// must come to run.
#[test]
fn a_shard_whose_input_does_not_open_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (log, release, _) = fake(&[]);
    let (status, (events, heard), (tasks, _threads)) = (Arc::<Status>::default(), unbounded(), helpers::start("helper", 2));
    let pace = Pace { interval: Duration::from_secs(3600), pause: Duration::ZERO };
    let store = Arc::new(Objects::default());
    let snapshots =
        Snapshots::new(store, dir.path().to_owned(), pace, RuntimeOptions::GARBAGE_GRACE, status.clone(), events.clone(), tasks.clone());
    let shared = Arc::new(Shared {
        log: Watched::new(Arc::new(log), Arc::new(impatient(&status))),
        helpers: tasks,
        clock: Arc::new(Clock::new(|| Timestamp::from_millis(0))),
        status: status.clone(),
        events,
        snapshots,
        epoch_bytes_max: 1 << 20,
    });
    let (commands, _thread) = start::<_, Nothing, RocksState>(0, shared);
    let memory = SharedMemory::new(MEMORY_BYTES_MIN, 2).unwrap();
    let (attempt, owner) = (Attempt::default(), stamp(Epoch::new(1)).owner);
    for number in [1, 0] {
        let shard = ShardId::new(number);
        let database = RocksState::create(&dir.path().join(number.to_string()), &memory).unwrap();
        let state = Shard::new(Nothing, database, stamp(Epoch::new(1)), 1 << 20);
        commands.send(Command::Adopt(shard, attempt, Box::new(state))).unwrap();
        commands.send(Command::Start(shard, attempt)).unwrap();
    }
    commands.send(Command::Seal(ShardId::new(0), attempt, owner, Annotations::default())).unwrap();
    // As long as anybody could want to wait for a test that fails.
    let event = heard.recv_timeout(Duration::from_secs(60)).expect("shard 0 is held up");
    assert!(matches!(event, Event::Sealed(shard, _, None) if shard == ShardId::new(0)), "{event:?}");
    let phase = || status.shards().get(&ShardId::new(1)).map_or("", |shard| shard.phase);
    assert_eq!(phase(), "");

    drop(release);
    while phase() != "running" {
        std::thread::yield_now();
    }
}
