//! Promise: a shard that was released is another worker's, whatever still goes on beside it here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use forebay_engine::ids::{AssignmentVersion, Epoch};

use crate::support::{SHARD, Scene, Slow, end, log, options, start_with, until, until_shard};

/// Method: the upload of a checkpoint waits while the shard is released, and fails then.
#[test]
fn a_checkpoint_that_fails_after_its_shard_was_released_does_not_bring_it_back() {
    let scene = Scene::new();
    let slow = Slow::over(&scene.store);
    let runtime = start_with(slow.clone(), log(scene.path()), options(scene.path(), "one"));
    let status = runtime.status().clone();
    until_shard(&status, "its record is committed", |shard| shard.books.records_in == 1 && shard.uncommitted_records == 0);
    runtime.checkpoint(BTreeMap::from([(SHARD, Epoch::new(1))]));
    slow.wait_until_somebody_waits();
    runtime.assigner()(AssignmentVersion::new(9), BTreeSet::new());
    let released = || if status.shards().is_empty() { Ok(()) } else { Err(status.shards()) };
    until("it is released", released);
    slow.let_go();
    end(runtime);
    assert_eq!(status.counters.checkpoint_failures.load(Ordering::Relaxed), 1);
    released().unwrap();
}
