//! What happens at the limits: memory, and a disk that takes no more.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use forebay_engine::state::{StateBatch, StateError, StateStore};
use forebay_state::{RocksState, SharedMemory};
use tempfile::tempdir;

use crate::model::{Random, State, assert_same, dump, key, small_memory, stamp};

/// Set for the child: the folder to work in.
const CHILD_DIR: &str = "FOREBAY_TEST_FULL_DISK_DIR";

#[test]
fn far_more_state_than_there_is_memory_is_written_and_read_within_the_budget() {
    // I9: eight shards with some 48 MiB of incompressible state, on a budget of 8 MiB.
    const BUDGET: usize = 8 << 20;
    // A buffer's memory is RocksDB's arena: 2 KiB, then blocks of 128 KiB. It is full when it is past a sixteenth of the budget by six tenths of a
    // block, or has less than a quarter of one left there; the epoch of 105 KB that made it so lies in it too. Four blocks are a sixteenth.
    const WRITE_BUFFER_MAX: usize = (2 << 10) + 5 * (128 << 10);
    // Three for each shard, and two that the one thread that flushes has written and is about to free.
    const WRITE_BUFFERS_MAX: usize = (8 * 3 + 2) * WRITE_BUFFER_MAX;
    const { assert!(BUDGET / 16 == 4 * (128 << 10), "the blocks were counted for this budget") };
    let dir = tempdir().unwrap();
    let memory = SharedMemory::new(BUDGET, 2).unwrap();
    let mut random = Random(1);
    let mut value = vec![0; 1000];
    let mut stores: Vec<_> = (0..8).map(|n| RocksState::create(&dir.path().join(n.to_string()), &memory).unwrap()).collect();
    for epoch in 1..=60 {
        for store in &mut stores {
            let mut batch = StateBatch::default();
            for n in 0..100_u64 {
                value.fill_with(|| random.below(256) as u8);
                batch.put(&key(0, 0, &(epoch * 100 + n).to_be_bytes()), &value);
            }
            store.apply(&batch, &stamp(epoch)).unwrap();
            assert!(memory.usage().write_buffer_bytes <= WRITE_BUFFERS_MAX, "{:?}", memory.usage());
        }
    }
    // Empties the write buffers, as checkpoints do all the time.
    for (n, store) in stores.iter().enumerate() {
        store.checkpointer()(&dir.path().join(format!("checkpoint-{n}"))).unwrap();
    }
    let mut found = Vec::new();
    for store in &stores {
        for epoch in 1..=60_u64 {
            for n in 0..100_u64 {
                assert!(store.get(&key(0, 0, &(epoch * 100 + n).to_be_bytes()), &mut found).unwrap());
            }
        }
        assert!(memory.usage().cache_bytes <= BUDGET, "{:?}", memory.usage());
    }
    assert!(memory.usage().cache_bytes > BUDGET / 2, "reading 48 MiB filled no cache: {:?}", memory.usage());
}

#[test]
fn a_disk_that_takes_no_more_is_an_io_error_and_leaves_an_applied_epoch_whole() {
    // A limit on the size of files stands in for a full disk: it needs no privileges.
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        return apply_until_refused(Path::new(&dir));
    }
    let dir = tempdir().unwrap();
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg("limits::a_disk_that_takes_no_more_is_an_io_error_and_leaves_an_applied_epoch_whole")
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    check_left(dir.path());
}

/// Runs a test of this file once more, in a child whose folder is a disk of three megabytes, in a mount namespace of its own, and of a user who is
/// not root in a user namespace around that. Returns what it said; `None` where the system does not let us.
fn on_a_small_disk(test: &str) -> Option<String> {
    let dir = tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=3m none \"$FOREBAY_TEST_FULL_DISK_DIR\"";
    let apart = |way: &str, script: &str| {
        let mut command = Command::new("unshare");
        command.args([way, "sh", "-c", script]).env(CHILD_DIR, dir.path());
        command
    };
    let is_allowed = |way: &&str| apart(way, mount).output().is_ok_and(|output| output.status.success());
    let Some(way) = ["-m", "-Urm"].into_iter().find(is_allowed) else {
        // Not by `eprintln!`: the harness hides what a passing test prints.
        let why = format!("NOT TESTED: {test}: a small disk cannot be mounted here, which needs root or a user namespace\n");
        std::io::stderr().write_all(why.as_bytes()).unwrap();
        return None;
    };
    let script = format!("{mount} && exec \"$0\" --exact \"limits::$1\" --nocapture");
    let child = apart(way, &script).arg(std::env::current_exe().unwrap()).arg(test).output().unwrap();
    let output = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "{output}");
    Some(output)
}

#[test]
fn a_full_disk_is_an_io_error_that_says_the_way_out_and_all_goes_on_once_there_is_space() {
    // Ten times, for RocksDB's own recovery runs beside it: a version of it that waits for a writer who waits for it once hung here.
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        let (dir, ballast) = (Path::new(&dir), Path::new(&dir).join("ballast"));
        for _ in 0..10 {
            std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
            apply_until_refused(dir);
            std::fs::remove_file(&ballast).unwrap();
            check_left(dir);
            RocksState::wipe(&dir.join("db")).unwrap();
        }
        return;
    }
    let test = "a_full_disk_is_an_io_error_that_says_the_way_out_and_all_goes_on_once_there_is_space";
    let Some(output) = on_a_small_disk(test) else { return };
    assert_eq!(output.matches("enlarge the volume").count(), 10, "{output}");
}

#[test]
fn a_compaction_that_finds_no_room_loses_nothing_and_is_done_once_there_is_space() {
    // The database is filled to a third of the disk, and ballast leaves it less than it would have to write anew.
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        let (dir, ballast) = (Path::new(&dir).join("db"), Path::new(&dir).join("ballast"));
        let mut store = RocksState::create(&dir, &small_memory()).unwrap();
        (1..=100).for_each(|epoch| store.apply(&growth(epoch), &stamp(epoch)).unwrap());
        // What lies in files is what a compaction has to write anew.
        store.checkpointer()(&dir.with_file_name("first")).unwrap();
        std::fs::remove_dir_all(dir.with_file_name("first")).unwrap();
        // Files that a compaction of RocksDB's own has replaced are gone a moment later; until then there is less room.
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = std::fs::write(&ballast, vec![1; 1500 << 10]) {
            assert!(Instant::now() < deadline, "{error}");
        }
        let before = bytes_in(&dir);
        store.compact();
        let refusal = (101..10_000).find_map(|epoch| store.apply(&growth(epoch), &stamp(epoch)).err()).expect("200 MB do not fit");
        println!("{before} bytes before it, refused: {refusal}");
        drop(store);
        std::fs::remove_file(&ballast).unwrap();
        let mut store = RocksState::open(&dir, &small_memory()).unwrap().unwrap();
        let left = store.stamp().unwrap().unwrap().epoch.get();
        assert!(left >= 100, "what lay in files before it is gone: epoch {left}");
        assert_same(&dump(&store), &grown(left), "after the compaction that found no room");
        store.compact();
        store.apply(&growth(left + 1), &stamp(left + 1)).unwrap();
        assert_same(&dump(&store), &grown(left + 1), "going on");
        return;
    }
    let Some(output) = on_a_small_disk("a_compaction_that_finds_no_room_loses_nothing_and_is_done_once_there_is_space") else { return };
    assert!(output.contains("No space left on device") && output.contains("enlarge the volume"), "{output}");
}

fn bytes_in(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// The state after so many epochs of [`growth`].
fn grown(last: u64) -> State {
    let batches: Vec<_> = (1..=last).map(growth).collect();
    batches.iter().flat_map(StateBatch::iter).map(|(key, value)| (key.to_vec(), value.unwrap().to_vec())).collect()
}

/// An epoch that only adds to the state: 20 new keys.
fn growth(epoch: u64) -> StateBatch {
    let mut random = Random(epoch);
    let mut batch = StateBatch::default();
    for n in 0..20_u64 {
        let value: Vec<u8> = epoch.to_be_bytes().into_iter().chain((0..500).map(|_| random.below(256) as u8)).collect();
        batch.put(&key(0, 0, &(epoch * 20 + n).to_be_bytes()), &value);
    }
    batch
}

fn apply_until_refused(dir: &Path) {
    let mut store = RocksState::create(&dir.join("db"), &small_memory()).unwrap();
    let refusal = (1..10_000).find_map(|epoch| store.apply(&growth(epoch), &stamp(epoch)).err());
    let refusal = refusal.expect("200 MB do not fit");
    assert!(matches!(refusal, StateError::Io { .. }), "{refusal}");
    println!("refused: {refusal}");
    let checkpoint = store.checkpointer()(&dir.join("checkpoint"));
    assert!(matches!(checkpoint, Err(StateError::Io { .. })), "{checkpoint:?}");
}

/// Without the limit the database opens again, at some epoch, whole, and goes on.
fn check_left(dir: &Path) {
    let mut store = RocksState::open(&dir.join("db"), &small_memory()).unwrap().unwrap();
    let left = store.stamp().unwrap().map_or(0, |stamp| stamp.epoch.get());
    assert_same(&dump(&store), &grown(left), "after the full disk");
    for epoch in left + 1..=left + 20 {
        store.apply(&growth(epoch), &stamp(epoch)).unwrap();
    }
    assert_same(&dump(&store), &grown(left + 20), "going on");
}
