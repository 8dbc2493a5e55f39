//! When checkpoints of a shard that has nothing to do are taken: tasks are run here, one by one, on an object store in memory.

use crossbeam_channel::{Receiver, unbounded};
use forebay_engine::ids::Epoch;
use forebay_engine::pipeline::{Entity, Verdict, Workspace};
use forebay_engine::record::InputRecord;
use forebay_engine::state::StateBatch;
use forebay_state::{RocksState, SharedMemory};

use super::*;
use crate::RuntimeOptions;
use crate::fetch::tests::{Objects, stamp};

#[derive(Clone)]
pub(crate) struct Nothing;

impl Entity for Nothing {
    fn encode(&self, _: &mut Vec<u8>) {}
    fn decode(_: &[u8]) -> Result<Self, String> {
        Ok(Self)
    }
    fn weight(&self) -> usize {
        0
    }
}

impl Pipeline for Nothing {
    type Entity = Self;
    fn process(&mut self, _: &InputRecord<'_>, _: &mut Workspace<'_, Self>) -> Result<Verdict, StateError> {
        unreachable!("no record comes")
    }
}

struct Scene {
    objects: Arc<Objects>,
    snapshots: Snapshots<RocksState>,
    tasks: Receiver<Task>,
    events: Receiver<Event>,
    dir: tempfile::TempDir,
    retained: Vec<RetainedCheckpoint>,
}

impl Scene {
    fn new() -> Self {
        Self::on(Arc::default(), Vec::new())
    }

    /// The process is started again: nothing is remembered but what lies in the object store.
    fn restart(self) -> Self {
        Self::on(self.objects, self.retained)
    }

    fn on(objects: Arc<Objects>, retained: Vec<RetainedCheckpoint>) -> Self {
        let (dir, (events, happened), (tasks, inbox)) = (tempfile::tempdir().unwrap(), unbounded(), unbounded());
        let pace = Pace { interval: Duration::ZERO, pause: Duration::ZERO };
        let snapshots =
            Snapshots::new(objects.clone(), dir.path().to_owned(), pace, RuntimeOptions::GARBAGE_GRACE, Arc::default(), events, tasks);
        Self { objects, snapshots, tasks: inbox, events: happened, dir, retained }
    }

    /// An idle shard at an epoch, with so many records in its books. Returns the epochs of the checkpoints that came of it: they count from then on.
    fn idle(&mut self, epoch: u64, records: u64) -> Vec<u64> {
        let mut head = stamp(Epoch::new(epoch));
        (head.books.records_in, head.books.processed) = (records, records);
        head.retained.clone_from(&self.retained);
        let folder = self.dir.path().join("database");
        RocksState::wipe(&folder).unwrap();
        let mut store = RocksState::create(&folder, &SharedMemory::new(8 << 20, 1).unwrap()).unwrap();
        store.apply(&StateBatch::default(), &head).unwrap();
        let shard = Shard::new(Nothing, store, head, 0);
        self.snapshots.idle(ShardId::new(0), Attempt::default(), &shard);
        self.tasks.try_iter().for_each(|task| task());
        let uploaded = self.events.try_iter().filter_map(|event| match event {
            Event::CheckpointUploaded(_, _, checkpoint) => Some(checkpoint),
            _ => None,
        });
        let uploaded: Vec<_> = uploaded.collect();
        self.retained.extend(uploaded.iter().cloned());
        uploaded.iter().map(|checkpoint| checkpoint.epoch.get()).collect()
    }
}

/// Method: epochs that only say which checkpoints count follow each upload, as they do in a worker.
#[test]
fn an_idle_shard_is_saved_once_for_all_its_records_and_then_comes_to_rest() {
    let mut scene = Scene::new();
    assert_eq!(scene.idle(1, 0), [1], "a shard without any checkpoint gets its first");
    assert_eq!(scene.idle(2, 0), [0; 0]);
    assert_eq!(scene.idle(7, 300), [7], "what came since is saved");
    assert_eq!(scene.idle(8, 300), [0; 0], "an epoch that says that it is has nothing to save");
    assert_eq!(scene.idle(9, 300), [0; 0]);
    let mut scene = scene.restart();
    assert_eq!(scene.idle(9, 300), [0; 0]);
    assert_eq!(scene.idle(10, 301), [10]);
}

#[test]
fn the_first_checkpoints_of_a_workers_shards_are_spread_over_the_interval() {
    for count in [2, 12, 100] {
        let interval = Duration::from_secs(30);
        let mut waits: Vec<_> =
            (0..count).map(|shard| first_wait(interval, ShardId::new(shard))).chain([Duration::ZERO, interval]).collect();
        waits.sort_unstable();
        let gaps = waits.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().max() <= Some(interval * 2 / count), "{waits:?}");
    }
}

#[test]
fn the_next_one_keeps_both_the_interval_and_the_pause() {
    let (began, second) = (Instant::now(), Duration::from_secs(1));
    let pace = Pace { interval: second * 30, pause: second * 10 };
    assert_eq!(pace.next(began, began + second * 5), began + second * 30);
    assert_eq!(pace.next(began, began + second * 25), began + second * 35);
}
