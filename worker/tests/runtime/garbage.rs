//! Promise: what no checkpoint names any more is deleted once it is old enough, and nothing else ever is.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_engine::manifest::{Manifest, manifest_key};
use forebay_worker::RuntimeOptions;

use crate::support::{SHARD, Scene, end, until, until_shard};

/// No checkpoint was ever on a list that names it.
const PLANTED: &str = "files/0/planted";

/// RocksDB merges its files after a few checkpoints; then those of before are named no more.
const CHECKPOINTS_MAX: usize = 50;

/// Two count; whoever takes one leaves alone what was on the list before it, too.
const KEPT: usize = 3;

/// Method: a first worker takes some checkpoints while nothing is old enough: all objects stay, one that was planted too. A second one, for which everything
/// is old, goes on until the newest checkpoints name a file no more that earlier ones named: that must vanish, with the planted one and the earlier
/// manifests, and what the newest name must stay. A third one, without a disk, comes up from it.
#[test]
fn what_no_checkpoint_names_vanishes_and_all_else_stays() {
    let scene = Scene::new();
    let mut taken = Vec::new();
    let usual = scene.start("one", RuntimeOptions::GARBAGE_GRACE);
    taken.push(scene.take_checkpoint(&usual));
    fs::write(scene.store.root().join(PLANTED), "").unwrap();
    taken.extend((0..3).map(|_| scene.take_checkpoint(&usual)));
    end(usual);
    let mut all = named(&taken);
    all.insert(PLANTED.into());
    assert_eq!(scene.objects(), all, "something was deleted before its time");

    let impatient = scene.start("two", Duration::from_millis(1));
    taken.push(scene.take_checkpoint(&impatient));
    while files(&taken).is_subset(&files(&taken[taken.len() - KEPT..])) {
        assert!(taken.len() < CHECKPOINTS_MAX, "the last checkpoints name all files that there ever were: {taken:?}");
        taken.push(scene.take_checkpoint(&impatient));
    }
    let kept = named(&taken[taken.len() - KEPT..]);
    until("what is not named is gone, and nothing else", || {
        let objects = scene.objects();
        if objects == kept { Ok(()) } else { Err(objects.symmetric_difference(&kept).cloned().collect::<Vec<_>>()) }
    });
    end(impatient);
    assert_eq!(scene.objects(), kept);

    fs::remove_dir_all(scene.state_dir()).unwrap();
    let after = scene.start("three", RuntimeOptions::GARBAGE_GRACE);
    let records = taken.last().unwrap().stamp.books.records_in;
    until_shard(after.status(), "the shard runs", |shard| shard.phase == "running" && shard.books.records_in == records);
    assert_eq!(after.status().counters.restore_fallbacks.load(Ordering::Relaxed), 0);
    end(after);
}

/// The manifests and all that they name.
fn named(manifests: &[Manifest]) -> BTreeSet<String> {
    let keys = manifests.iter().map(|manifest| manifest_key(SHARD, manifest.stamp.epoch, &manifest.taken_by));
    keys.chain(files(manifests)).collect()
}

fn files(manifests: &[Manifest]) -> BTreeSet<String> {
    manifests.iter().flat_map(|manifest| &manifest.files).map(|file| file.object.clone()).collect()
}
