//! Sections 3, "Restore" and "Journal length", and 4: checkpoints, restores, garbage.

use forebay_engine::manifest::manifest_key;
use forebay_sim::coverage::Fault;

use crate::*;

#[test]
fn a_zombies_manifest_that_arrives_late_is_on_no_list() {
    let mut world = owned(Setup::quiet());
    world.produce(5);
    world.until("a manifest is about to be put", |world| world.is_at(0, "snapshot-manifest"));
    world.hold(0);
    let put = world.coverage.met("a manifest is put");
    take_over(&mut world);
    for _ in 0..6 {
        world.work_off(3);
    }
    world.wake(0);
    world.until("the manifest arrives", |world| world.coverage.met("a manifest is put") > put && !world.is_at(0, "snapshot-manifest"));
    world.work_off(3);
    let head = world.oracle.head(SHARD).expect("it has epochs");
    assert!(head.retained.iter().all(|checkpoint| checkpoint.incarnation.as_str().starts_with("w1")), "{:?}", head.retained);
    world.end();
}

#[test]
fn with_the_store_down_work_goes_on_the_journal_grows_and_claims_wait() {
    let mut world = owned(Setup::quiet());
    world.set_store_down(true);
    let (start, epochs) = (start_of(&world), world.oracle.epochs());
    for _ in 0..6 {
        world.work_off(3);
    }
    assert!(world.oracle.epochs() >= epochs + 6);
    assert_eq!(start_of(&world), start);
    let version = world.next_version();
    world.assign(1, version);
    world.until("worker 1's claim fails", |world| world.is_at(1, "failed"));
    world.set_store_down(false);
    world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
    world.end();
}

#[test]
fn a_local_database_that_is_behind_is_brought_along_by_the_journal() {
    let mut world = owned(Setup { checkpoint_epochs: 1000, ..Setup::quiet() });
    for _ in 0..4 {
        world.work_off(3);
    }
    world.crash(0, false);
    world.start(0);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    assert_eq!(world.coverage.met("a checkpoint is restored"), 0);
    world.end();
}

#[test]
fn a_local_database_whose_epoch_was_cut_off_gives_way_to_a_checkpoint() {
    let mut world = owned(Setup::quiet());
    let version = world.next_version();
    world.unassign(0, version);
    world.until("the release is committed", |world| world.is_at(0, "left"));
    take_over(&mut world);
    for _ in 0..12 {
        world.work_off(3);
    }
    assert!(start_of(&world) > JournalOffset::new(0));
    let version = world.next_version();
    world.unassign(1, version);
    world.until("the release is committed", |world| world.is_at(1, "left"));
    // The other worker's own restore may have begun with one too.
    let before = world.coverage.met("a checkpoint is restored");
    let version = world.next_version();
    world.assign(0, version);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    assert!(world.coverage.met("a local database is of another history, or too old") > 0);
    assert_eq!(world.coverage.met("a checkpoint is restored"), before + 1);
    world.end();
}

/// "The local RocksDB if its timeline ... equal": after a rewind it is of the old history, and no reason to stall.
#[test]
fn a_local_database_of_another_timeline_is_not_used_and_stands_in_nobodys_way() {
    let mut world = owned(Setup { checkpoint_epochs: 1000, ..Setup::quiet() });
    let version = world.next_version();
    world.unassign(0, version);
    world.until("the release is committed", |world| world.is_at(0, "left"));
    quiet(&mut world);
    (0..2).for_each(|seat| world.crash(seat, false));
    world.rewind();
    world.start(0);
    let version = world.next_version();
    world.assign(0, version);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    assert_eq!(world.coverage.met("a local database is of another history, or too old"), 1);
    world.work_off(5);
    let head = world.oracle.head(SHARD).expect("it has epochs");
    assert_eq!(head.owner.timeline, Timeline::new(1));
    world.end();
}

/// The same with the bug that it guards against.
#[test]
fn a_local_database_of_another_timeline_that_counts_is_found() {
    let scenario = a_local_database_of_another_timeline_is_not_used_and_stands_in_nobodys_way;
    fails_with(Bug::TimelineIgnored, scenario, "never: worker 0 owns the shard");
}

#[test]
fn a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_a_longer_journal() {
    let mut world = owned(Setup::quiet());
    for _ in 0..8 {
        world.work_off(3);
    }
    assert_eq!(retained(&world), 2);
    world.damage_newest(SHARD);
    world.crash(0, true);
    take_over(&mut world);
    assert_eq!(world.coverage.met("a damaged checkpoint is passed over"), 1);
    assert_eq!(world.coverage.met("a checkpoint is restored"), 1);
    world.end();
}

/// The owner stands still with a commit on its way, after so many epochs; another one takes over. Whether all objects are still there then.
fn zombie_keeps_all(epochs: usize) -> bool {
    let mut world = owned(Setup::quiet());
    for _ in 0..epochs {
        world.work_off(3);
    }
    world.produce(4);
    world.until("worker 0 commits", |world| world.is_at(0, "commit-end"));
    world.hold(0);
    let objects: Vec<String> = world.store.keys().cloned().collect();
    take_over(&mut world);
    let all = objects.iter().all(|key| world.store.get(key).is_some());
    world.wake(0);
    world.end();
    all
}

/// Method: after some numbers of epochs the commit that is on its way names garbage. That it does is proved by the mutant that deletes it at once.
#[test]
fn garbage_of_a_zombie_whose_epoch_never_commits_is_not_deleted() {
    for epochs in 2..14 {
        assert!(zombie_keeps_all(epochs), "after {epochs} epochs");
    }
    mutant::set(Some(Mutant::DeleteAtOnce));
    let found = (2..14).any(|epochs| panics::caught(|| zombie_keeps_all(epochs)).map_or(true, |all| !all));
    mutant::set(None);
    assert!(found, "no commit named garbage: nothing was tested");
}

#[test]
fn while_there_is_one_checkpoint_only_the_journal_is_not_cut() {
    let mut world = owned(Setup { checkpoint_epochs: 6, ..Setup::quiet() });
    while retained(&world) < 2 {
        assert_eq!(start_of(&world), JournalOffset::new(0));
        world.work_off(2);
    }
    for _ in 0..8 {
        world.work_off(2);
    }
    assert!(start_of(&world) > JournalOffset::new(0));
    world.end();
}

#[test]
fn an_upload_whose_reply_is_lost_and_that_is_tried_again_is_an_upload() {
    let mut world = owned(Setup::quiet());
    for _ in 0..3 {
        for part in ["snapshot-file", "snapshot-manifest"] {
            world.force(part, Fault::ReplyLost);
            world.produce(4);
            while world.is_forced() {
                world.work_off(2);
            }
        }
    }
    for _ in 0..6 {
        world.work_off(2);
    }
    assert_eq!(retained(&world), 2);
    world.end();
}

/// "Else the journal from its beginning if none of it was cut."
#[test]
fn a_disk_that_is_lost_before_the_first_checkpoint_is_made_anew_from_the_journal() {
    let mut world = owned(Setup { checkpoint_epochs: 1000, ..Setup::quiet() });
    world.crash(0, true);
    take_over(&mut world);
    assert_eq!(world.coverage.met("a shard is restored from the journal alone"), 2, "the job's first start is one, too");
    world.end();
}

/// "Without one: `Stalled`": every checkpoint on the list is unusable, and the journal before them is cut.
#[test]
fn a_shard_none_of_whose_checkpoints_can_be_used_stalls_and_runs_again_when_they_are_back() {
    let mut world = owned(Setup::quiet());
    while start_of(&world) == JournalOffset::new(0) {
        world.work_off(3);
    }
    quiet(&mut world);
    world.crash(0, true);
    let lost = world.lose_files();
    world.start(0);
    let version = world.next_version();
    world.assign(0, version);
    world.until("it stalls", |world| world.is_at(0, "stalled"));
    assert_eq!(world.coverage.met("a shard fails"), 0, "it is not said to heal by itself");
    world.bring_back(lost);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    world.end();
}

/// "The snapshot names the epoch that lies in its files; processing goes on."
#[test]
fn epochs_that_are_committed_during_an_upload_are_not_in_its_manifest() {
    let mut world = owned(Setup { checkpoint_epochs: 1, ..Setup::quiet() });
    world.hold_calls(Some("snapshot-file"));
    let epochs = world.oracle.epochs() as u64;
    world.produce(2);
    world.until("an upload begins", |world| world.is_at(0, "snapshot-file"));
    for _ in 0..5 {
        world.work_off(3);
    }
    world.hold_calls(None);
    world.until("it is on the list", |world| retained(world) > 0);
    let head = world.oracle.head(SHARD).expect("it has epochs");
    assert!(head.retained[0].epoch.get() <= epochs + 2, "{:?} after {epochs} epochs and five more", head.retained);
    world.crash(0, true);
    take_over(&mut world);
    world.end();
}

/// "The manifest last": files of an upload that did not get so far belong to nobody, and are deleted after the grace period.
#[test]
fn files_of_an_upload_that_never_got_its_manifest_become_garbage() {
    let mut world = owned(Setup { checkpoint_epochs: 1, ..Setup::quiet() });
    world.produce(2);
    world.until("the manifest is about to be put", |world| world.is_at(0, "snapshot-manifest"));
    let uploaded: Vec<String> = world.store.keys().filter(|key| key.starts_with("files/")).cloned().collect();
    assert!(!uploaded.is_empty());
    world.crash(0, true);
    take_over(&mut world);
    world.pass(Duration::from_secs(1));
    for _ in 0..12 {
        world.work_off(3);
    }
    assert!(uploaded.iter().all(|key| world.store.get(key).is_none()), "some are still there");
    world.end();
}

/// "Cutting the journal, dropping a checkpoint and deleting files happen only after that": the epoch that says so is lost.
#[test]
fn a_list_whose_epoch_is_not_committed_cuts_and_deletes_nothing() {
    let mut world = owned(Setup::quiet());
    while retained(&world) < 2 {
        world.work_off(3);
    }
    quiet(&mut world);
    let (start, list) = (start_of(&world), world.oracle.head(SHARD).expect("it has epochs").retained.clone());
    let put = world.coverage.met("a manifest is put");
    let is_put = move |world: &World| world.coverage.met("a manifest is put") > put;
    while !is_put(&world) {
        world.produce(1);
        world.until("all is quiet, or a third manifest is put", |world| world.actors().is_empty() || is_put(world));
    }
    world.until("the epoch that puts it on the list is about to be committed", |world| world.is_at(0, "commit-end"));
    world.force("commit-end", Fault::Lost);
    world.until("it is lost", |world| world.coverage.met("an incarnation is over") == 1);
    assert_eq!((start_of(&world), &world.oracle.head(SHARD).expect("it has epochs").retained), (start, &list));
    take_over(&mut world);
    world.end();
}

/// "A corrupt *or missing* file falls back": the same as for a damaged one, and the journal is long enough for it.
#[test]
fn a_database_that_was_lost_with_its_newest_checkpoint_loses_no_record() {
    let mut world = owned(Setup::quiet());
    for _ in 0..8 {
        world.work_off(3);
    }
    let newest = world.oracle.head(SHARD).and_then(|head| head.retained.last().cloned()).expect("there are two");
    let manifest = manifest_key(SHARD, newest.epoch, &newest.incarnation);
    world.store.delete(&manifest);
    world.oracle.lose(&manifest);
    world.crash(0, true);
    take_over(&mut world);
    assert_eq!(world.coverage.met("a damaged checkpoint is passed over"), 1);
    world.work_off(5);
    world.end();
}

/// "After a grace period (age by the store's clock)": what an upload left behind may still be on its way. The workers' own clocks differ from the
/// store's, and nobody goes by them.
#[test]
fn garbage_that_is_young_by_the_stores_clock_is_kept() {
    let grace = Duration::from_secs(3600);
    let mut world = owned(Setup { checkpoint_epochs: 1, grace, ..Setup::quiet() });
    world.produce(2);
    world.until("the manifest is about to be put", |world| world.is_at(0, "snapshot-manifest"));
    let uploaded: Vec<String> = world.store.keys().filter(|key| key.starts_with("files/")).cloned().collect();
    assert!(!uploaded.is_empty());
    world.crash(0, true);
    take_over(&mut world);
    for _ in 0..12 {
        world.work_off(3);
    }
    assert!(uploaded.iter().all(|key| world.store.get(key).is_some()), "some are gone before their time");
    world.pass(grace);
    for _ in 0..12 {
        world.work_off(3);
    }
    assert!(uploaded.iter().any(|key| world.store.get(key).is_none()), "all are still there");
    world.end();
}

/// The same with the bug that it guards against.
#[test]
fn garbage_that_is_deleted_however_young_is_found() {
    fails_with(Bug::NoGrace, garbage_that_is_young_by_the_stores_clock_is_kept, "some are gone before their time");
}

/// "Files listed before manifests": a zombie puts its manifest between the two listings. It is on no list, and neither is what it names.
#[test]
fn a_manifest_that_is_put_between_the_listings_of_files_and_manifests_changes_nothing() {
    let mut world = owned(Setup { checkpoint_epochs: 1, ..Setup::quiet() });
    world.produce(2);
    world.until("a manifest is about to be put", |world| world.is_at(0, "snapshot-manifest"));
    world.hold(0);
    take_over(&mut world);
    world.hold_calls(Some("garbage-manifests"));
    world.produce(2);
    world.until("worker 1 has listed the files", |world| world.is_at(1, "garbage-manifests"));
    let put = world.coverage.met("a manifest is put");
    world.wake(0);
    world.until("the manifest arrives", |world| world.coverage.met("a manifest is put") > put);
    world.hold_calls(None);
    world.pass(Duration::from_secs(1));
    for _ in 0..12 {
        world.work_off(3);
    }
    let head = world.oracle.head(SHARD).expect("it has epochs");
    assert!(head.retained.iter().all(|checkpoint| checkpoint.incarnation.as_str().starts_with("w1")), "{:?}", head.retained);
    world.end();
}

/// The owner stands still with its files uploaded, after so many epochs; another one takes over, and what was there then is collected. Whether a
/// manifest comes of the upload.
fn overtaken_upload_ends_with_a_manifest(epochs: usize) -> bool {
    let mut world = owned(Setup { checkpoint_epochs: 1, ..Setup::quiet() });
    for _ in 0..epochs {
        world.work_off(3);
    }
    world.produce(2);
    world.until("its files are about to be looked for", |world| world.is_at(0, "snapshot-check"));
    world.hold(0);
    take_over(&mut world);
    world.pass(Duration::from_secs(1));
    for _ in 0..12 {
        world.work_off(3);
    }
    world.wake(0);
    world.until("they are looked for", |world| !world.is_at(0, "snapshot-check"));
    let goes_on = world.is_at(0, "snapshot-manifest");
    world.end();
    goes_on
}

/// "A local copy of a file that was collected in the meantime must not be named again": nor one that was uploaded and collected.
#[test]
fn an_upload_whose_files_were_collected_meanwhile_comes_to_nothing() {
    for epochs in 0..10 {
        assert!(!overtaken_upload_ends_with_a_manifest(epochs), "after {epochs} epochs");
    }
}

/// The same with the bug that it guards against: the manifest names what is gone. It is on no list, so that it harms nobody; but that the look is what
/// stops it is proved.
#[test]
fn an_upload_that_does_not_look_for_its_files_goes_on() {
    mutant::set(Some(Mutant::Engine(Bug::FilesUnchecked)));
    let outcome = panics::caught(|| overtaken_upload_ends_with_a_manifest(5));
    mutant::set(None);
    assert_eq!(outcome, Ok(true));
}

/// "A claimant reuses none of it": the dead owner's epoch has named garbage, whose deletion arrives when the claimant has long gone on. The claimant
/// was owner once, and has local copies of those files.
#[test]
fn what_a_dead_owners_epoch_named_as_garbage_is_not_used_again() {
    let mut world = owned(Setup { checkpoint_epochs: 1, ..Setup::quiet() });
    for _ in 0..3 {
        world.work_off(3);
    }
    take_over(&mut world);
    world.pass(Duration::from_secs(1));
    world.hold_calls(Some("delete"));
    while !world.is_at(1, "delete") {
        world.work_off(1);
    }
    // Its request is on its way; the worker sleeps, and is as good as dead.
    world.hold(1);
    let version = world.next_version();
    world.assign(0, version);
    world.until("worker 0 owns the shard", |world| world.runs(0, SHARD));
    for _ in 0..4 {
        world.work_off(3);
    }
    let deleted = world.coverage.met("garbage is deleted");
    world.wake(1);
    world.hold_calls(None);
    world.until("the deletion arrives", |world| !world.is_at(1, "delete") && world.coverage.met("garbage is deleted") > deleted);
    world.crash(0, true);
    take_over(&mut world);
    world.work_off(3);
    world.end();
}

/// A checkpoint is uploaded while an epoch is on its way that does not list it yet. Once that one is committed the next checkpoint begins, from a list
/// without the first one; and the first has come of age when garbage is looked for.
fn a_checkpoint_joins_the_list_while_garbage_is_looked_for() {
    let mut world = owned(Setup { checkpoint_epochs: 1, checkpoints_retained: 6, ..Setup::quiet() });
    quiet(&mut world);
    world.pass(Duration::from_secs(1));
    world.hold_calls(Some("snapshot-begin"));
    world.produce(2);
    world.until("a checkpoint is about to begin", |world| world.is_at(0, "snapshot-begin"));
    world.produce(2);
    world.until("the next epoch is on its way", |world| world.is_at(0, "commit-end"));
    world.delay_commits(0, true);
    let (listed, uploaded) = (retained(&world), world.coverage.met("a checkpoint is uploaded"));
    world.hold_calls(None);
    quiet(&mut world);
    assert_eq!((world.coverage.met("a checkpoint is uploaded"), retained(&world)), (uploaded + 1, listed), "it is there, and on no list");
    let first = world.store.keys().filter(|key| key.starts_with("checkpoints/")).max().cloned().expect("there are checkpoints");
    world.pass(Duration::from_secs(1));
    world.hold_calls(Some("garbage-files"));
    world.delay_commits(0, false);
    world.until("the next checkpoint is uploaded, and garbage looked for", |world| world.is_at(0, "garbage-files"));
    world.until("the first has joined the list", move |world| {
        let head = world.oracle.head(SHARD).expect("it has epochs");
        head.retained.iter().any(|checkpoint| manifest_key(SHARD, checkpoint.epoch, &checkpoint.incarnation) == first)
    });
    // No other checkpoint is uploaded before an epoch is committed that could name it.
    world.hold_calls(Some("snapshot-begin"));
    quiet(&mut world);
    world.hold_calls(None);
    quiet(&mut world);
    world.crash(0, true);
    take_over(&mut world);
    world.end();
}

/// "What was found before another checkpoint joined the list does not count."
#[test]
fn garbage_that_was_listed_while_a_checkpoint_joined_the_list_does_not_count() {
    a_checkpoint_joins_the_list_while_garbage_is_looked_for();
}

/// The same with the bug that it guards against.
#[test]
fn garbage_that_counts_although_the_list_grew_is_found() {
    fails_with(Bug::StaleGarbage, a_checkpoint_joins_the_list_while_garbage_is_looked_for, "I6Garbage");
}

/// "Savepoints lie outside it ... self-contained copies": all that the one was made of is collected, and it is whole.
#[test]
fn a_savepoint_is_whole_when_all_that_it_was_made_of_is_collected() {
    let mut world = owned(Setup { checkpoint_epochs: 1, ..Setup::quiet() });
    quiet(&mut world);
    let made_of: Vec<String> = world.store.keys().cloned().collect();
    world.take_savepoint(1, SHARD);
    world.until("it is there", |world| world.coverage.met("a savepoint is taken") == 1);
    while made_of.iter().any(|key| world.store.get(key).is_some()) {
        world.pass(Duration::from_secs(1));
        world.work_off(5);
    }
    world.end();
}

/// A checkpoint that is collected while it is copied makes no savepoint.
#[test]
fn a_checkpoint_that_is_collected_while_it_is_copied_makes_no_savepoint() {
    let mut world = owned(Setup { checkpoint_epochs: 1, ..Setup::quiet() });
    quiet(&mut world);
    let made_of: Vec<String> = world.store.keys().filter(|key| key.starts_with("files/")).cloned().collect();
    world.hold_calls(Some("savepoint-copy"));
    world.take_savepoint(1, SHARD);
    world.until("it knows what to copy", |world| world.is_at(1, "savepoint-copy"));
    while made_of.iter().any(|key| world.store.get(key).is_some()) {
        world.pass(Duration::from_secs(1));
        world.work_off(5);
    }
    world.hold_calls(None);
    quiet(&mut world);
    assert_eq!(world.coverage.met("a savepoint is taken"), 0);
    world.end();
}
