//! Promise: a shard that somebody else owns is prepared however long its download takes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use forebay_engine::claim::VersionRule;
use forebay_engine::ids::WorkerName;
use forebay_engine::log::Log;
use forebay_engine::manifest::Manifest;
use forebay_engine::store::{Body, Downloaded, ObjectInfo, ObjectStore, Put, StoreError};
use forebay_local::FolderStore;
use forebay_worker::RuntimeOptions;

use crate::support::{PATIENCE, SHARD, Scene, end, log, options, start_with, until};

/// A store whose downloads wait until they may; each is noted.
struct Slow {
    store: FolderStore,
    /// Whether they may, and what was asked for.
    state: Mutex<(bool, Vec<String>)>,
    changed: Condvar,
}

impl Slow {
    fn wait_until_somebody_waits(&self) {
        let waited = self.changed.wait_timeout_while(self.state.lock().unwrap(), PATIENCE, |state| state.1.is_empty()).unwrap();
        assert!(!waited.1.timed_out(), "nothing was asked for");
    }

    fn let_go(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }
}

impl ObjectStore for Slow {
    fn put(&self, key: &str, body: &Body) -> Result<Put, StoreError> {
        self.store.put(key, body)
    }
    fn get(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        self.store.get(key)
    }
    fn download(&self, key: &str, to: &Path) -> Result<Downloaded, StoreError> {
        let mut state = self.state.lock().unwrap();
        state.1.push(key.to_owned());
        self.changed.notify_all();
        while !state.0 {
            state = self.changed.wait(state).unwrap();
        }
        drop(state);
        self.store.download(key, to)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.store.list(prefix)
    }
    fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.store.delete(keys)
    }
}

/// Method: while the first download waits, the owner takes checkpoints until the journal is cut behind the one that is being downloaded. The attempt is for
/// nothing; the next one must come to its end, and ask for nothing that the first one has brought.
#[test]
fn what_newer_checkpoints_replace_while_it_is_downloaded_is_not_downloaded_again() {
    let scene = Scene::new();
    let owner = scene.start("one", RuntimeOptions::GARBAGE_GRACE);
    let first = scene.take_checkpoint(&owner);

    let store = FolderStore::open(scene.store.root()).unwrap();
    let slow = Arc::new(Slow { store, state: Mutex::default(), changed: Condvar::new() });
    let mut beside = options(scene.path(), "two");
    (beside.state_dir, beside.worker.worker) = (scene.path().join("beside"), WorkerName::new("v"));
    beside.assignment = (VersionRule::AboveAll, BTreeSet::new());
    let preparing = start_with(slow.clone(), log(scene.path()), beside);
    preparing.prefetcher().want(&BTreeSet::from([SHARD]));
    slow.wait_until_somebody_waits();

    // As many as are retained, so that the journal is cut behind the first.
    let [_, newest] = [scene.take_checkpoint(&owner), scene.take_checkpoint(&owner)];
    let journal = log(scene.path());
    until("the journal is cut", || match journal.journal_range(SHARD).unwrap().start {
        start if start > first.stamp.journal => Ok(()),
        start => Err(start),
    });
    let named = |manifest: &Manifest| manifest.files.iter().map(|file| file.object.clone()).collect::<BTreeSet<_>>();
    assert!(!named(&first).is_disjoint(&named(&newest)), "there is nothing that both need: {first:?} {newest:?}");

    slow.let_go();
    until("the shard is prepared", || match preparing.prefetcher().all().remove(&SHARD) {
        Some(shard) if shard.ready => Ok(()),
        other => Err(other),
    });
    let asked = slow.state.lock().unwrap().1.clone();
    let expected: BTreeSet<String> = named(&first).union(&named(&newest)).cloned().collect();
    assert_eq!(asked.len(), expected.len(), "{asked:?}");
    assert_eq!(BTreeSet::from_iter(asked), expected);
    end(preparing);
    end(owner);
}
