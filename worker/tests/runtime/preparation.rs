//! Promise: a shard that somebody else owns is prepared however long its download takes.

use std::collections::BTreeSet;

use forebay_engine::claim::VersionRule;
use forebay_engine::ids::WorkerName;
use forebay_engine::log::Log;
use forebay_engine::manifest::Manifest;
use forebay_worker::RuntimeOptions;

use crate::support::{SHARD, Scene, Slow, end, log, options, start_with, until};

/// Method: while the first download waits, the owner takes checkpoints until the journal is cut behind the one that is being downloaded. The attempt is for
/// nothing; the next one must come to its end, and ask for nothing that the first one has brought.
#[test]
fn what_newer_checkpoints_replace_while_it_is_downloaded_is_not_downloaded_again() {
    let scene = Scene::new();
    let owner = scene.start("one", RuntimeOptions::GARBAGE_GRACE);
    let first = scene.take_checkpoint(&owner);

    let slow = Slow::over(&scene.store);
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
    let asked = slow.asked();
    let expected: BTreeSet<String> = named(&first).union(&named(&newest)).cloned().collect();
    assert_eq!(asked.len(), expected.len(), "{asked:?}");
    assert_eq!(BTreeSet::from_iter(asked), expected);
    end(preparing);
    end(owner);
}
