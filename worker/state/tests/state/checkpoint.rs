//! Checkpoints hold exactly the epoch that they name, whatever goes on meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use forebay_engine::state::{StateError, StateStore};
use forebay_state::{RocksState, StateReader};
use tempfile::tempdir;

use crate::model::{Model, apply, assert_same, dump, dump_folder, small_memory, stamp};

#[test]
fn a_checkpoint_amid_applies_holds_the_epoch_of_its_stamp_and_nothing_later() {
    // I2, I5: one thread applies as fast as it can, another takes checkpoints; the model says what each must hold.
    const CHECKPOINTS: usize = 25;
    let dir = tempdir().unwrap();
    let mut store = RocksState::create(&dir.path().join("db"), &small_memory()).unwrap();
    let (stop, (applied, news)) = (AtomicBool::new(false), mpsc::channel());
    let stop = &stop;
    // Handed over one by one: a checkpointer is used once.
    let (hand_over, checkpointers) = mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (applied, hand_over) = (applied, hand_over);
            for epoch in 1.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                apply(&mut store, 11, epoch);
                let _ = applied.send(epoch);
                let _ = hand_over.try_send(store.checkpointer());
            }
        });
        // Also when this test fails: the scope waits for the other thread.
        let _stop = StopOnDrop(stop);
        let mut model = Model::new(11);
        let mut overtaken = 0;
        for number in 0..CHECKPOINTS {
            let checkpointer = checkpointers.recv().unwrap();
            let before = news.try_iter().last().unwrap_or(model.epoch);
            let to = dir.path().join(format!("checkpoint-{number}"));
            let checkpoint = checkpointer(&to).unwrap();
            let after = news.recv().unwrap();
            let epoch = checkpoint.stamp.epoch.get();
            assert!(before <= epoch, "the checkpoint is of epoch {epoch}, but epoch {before} was applied before it began");
            assert_eq!(checkpoint.stamp, stamp(epoch));
            overtaken += usize::from(news.try_iter().last().unwrap_or(after) > epoch);
            model.advance_to(epoch);
            let (found, state) = dump_folder(&StateReader::open(&to).unwrap().unwrap());
            assert_eq!(found, checkpoint.stamp);
            assert_same(&state, &model.state, "checkpoint");
        }
        assert!(overtaken > 0, "no epoch was applied while a checkpoint was taken: this test proves nothing");
    });
}

#[test]
fn a_checkpoint_lists_the_files_that_it_needs_and_opens_as_a_database_of_its_own() {
    let dir = tempdir().unwrap();
    let (memory, to) = (small_memory(), dir.path().join("checkpoint"));
    let mut store = RocksState::create(&dir.path().join("db"), &memory).unwrap();
    for epoch in 1..=50 {
        apply(&mut store, 2, epoch);
    }
    let checkpoint = store.checkpointer()(&to).unwrap();
    assert_eq!(checkpoint.stamp, stamp(50));
    let listed: BTreeMap<_, _> = checkpoint.files.iter().map(|file| (file.name.clone(), file.size)).collect();
    // Of what is there, all but what RocksDB makes anew.
    let needed: BTreeMap<_, _> =
        files_in(&to).into_iter().filter(|(name, _)| !name.starts_with("OPTIONS-") && name != "IDENTITY").collect();
    assert_eq!(listed, needed);
    assert!(checkpoint.files.iter().map(|file| &file.name).is_sorted());
    for file in &checkpoint.files {
        assert_eq!(file.immutable, file.name.ends_with(".sst"), "{file:?}");
    }
    assert!(checkpoint.files.iter().any(|file| file.immutable) && checkpoint.files.iter().any(|file| file.name == "CURRENT"));
    // Downloaded elsewhere, it goes on by itself, and the original does not notice.
    let copy = dir.path().join("copy");
    copy_folder(&to, &copy);
    let mut twin = RocksState::open(&copy, &memory).unwrap().unwrap();
    for epoch in 51..=60 {
        apply(&mut twin, 99, epoch);
    }
    assert_eq!(twin.stamp().unwrap(), Some(stamp(60)));
    assert_same(&dump(&store), &Model::at(2, 50).state, "the original");
    drop(store);
    assert_same(&dump_folder(&StateReader::open(&to).unwrap().unwrap()).1, &Model::at(2, 50).state, "the checkpoint");
}

#[test]
fn a_checkpoint_that_cannot_be_taken_says_why_and_leaves_nothing() {
    let dir = tempdir().unwrap();
    let mut store = RocksState::create(&dir.path().join("db"), &small_memory()).unwrap();
    let refused = |outcome: Result<_, StateError>, words: &str| {
        let error = outcome.err().unwrap();
        assert!(matches!(&error, StateError::Io { reason, .. } if reason.contains(words)), "{error}");
    };
    let to = dir.path().join("checkpoint");
    refused(store.checkpointer()(&to), "no epoch was applied");
    assert!(!to.exists());
    apply(&mut store, 1, 1);
    std::fs::create_dir(&to).unwrap();
    refused(store.checkpointer()(&to), "exists already");
    let late = store.checkpointer();
    drop(store);
    refused(late(&dir.path().join("late")), "closed");
    assert!(!dir.path().join("late").exists());
}

#[test]
fn a_table_files_name_keeps_its_content_within_a_database_but_not_between_two_of_one_origin() {
    let dir = tempdir().unwrap();
    let (path, memory) = (dir.path().join("db"), small_memory());
    let mut store = RocksState::create(&path, &memory).unwrap();
    let mut contents = BTreeMap::new();
    let mut epochs = 1..;
    // Many lives of one database: each compacts what the one before left.
    for round in 0..8 {
        for epoch in epochs.by_ref().take(60) {
            apply(&mut store, 3, epoch);
        }
        let to = dir.path().join(format!("checkpoint-{round}"));
        store.checkpointer()(&to).unwrap();
        for (name, bytes) in table_files(&to) {
            assert!(*contents.entry(name.clone()).or_insert_with(|| bytes.clone()) == bytes, "{name} has changed its content");
        }
        drop(store);
        store = RocksState::open(&path, &memory).unwrap().unwrap();
    }
    drop(store);
    // Two databases from one checkpoint give one name to two contents, and a mix of their files is refused. How many numbers compactions take in
    // between is a matter of time, so they go on until it has happened.
    let twins = ["a", "b"].map(|name| {
        let path = dir.path().join(name);
        copy_folder(&dir.path().join("checkpoint-7"), &path);
        RocksState::open(&path, &memory).unwrap().unwrap()
    });
    let mut twins: Vec<_> = twins.into_iter().zip([3, 4]).collect();
    let mut epochs = 481..1_000;
    let (a, b, name) = loop {
        let epoch = epochs.next().expect("two databases of one origin count files on from the same number");
        let taken = twins.iter_mut().map(|(store, seed)| {
            apply(store, *seed, epoch);
            let to = dir.path().join(format!("{seed}-at-{epoch}"));
            store.checkpointer()(&to).unwrap();
            to
        });
        let taken: Vec<_> = taken.collect();
        let (a, b) = (table_files(&taken[0]), table_files(&taken[1]));
        if let Some((name, _)) = a.into_iter().find(|(name, bytes)| b.get(name).is_some_and(|other| other != bytes)) {
            break (taken[0].clone(), taken[1].clone(), name);
        }
    };
    let both = dir.path().join("both");
    copy_folder(&b, &both);
    std::fs::copy(a.join(&name), both.join(&name)).unwrap();
    let mixed = RocksState::open(&both, &memory).map(|_| "opened");
    assert!(matches!(mixed, Err(StateError::Corrupt { .. })), "{mixed:?}");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for name in files_in(from).keys() {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn files_in(dir: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())).collect()
}

pub fn table_files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = files_in(dir).into_keys().filter(|name| name.ends_with(".sst"));
    names.map(|name| (name.clone(), std::fs::read(dir.join(name)).unwrap())).collect()
}
