//! What the port promises, one call at a time.

use forebay_engine::ids::{Partition, ShardId, TableId};
use forebay_engine::state::{StateBatch, StateError, StateStore};
use forebay_state::keys::KeyRange;
use forebay_state::{RocksState, StateReader};
use tempfile::tempdir;

use crate::model::{Model, apply, assert_same, dump, dump_folder, key, small_memory, stamp};

#[test]
fn a_get_sees_the_last_put_and_no_deleted_key_and_clears_the_callers_buffer() {
    let dir = tempdir().unwrap();
    let mut store = RocksState::create(&dir.path().join("db"), &small_memory()).unwrap();
    let mut buffer = b"left over".to_vec();
    assert!(!store.get(&key(1, 2, b"a"), &mut buffer).unwrap());
    assert_eq!(buffer, b"");
    let mut first = StateBatch::default();
    first.put(&key(1, 2, b"a"), b"1");
    first.put(&key(1, 2, b"a"), b"2");
    first.put(&key(1, 2, b"b"), b"");
    first.put(&key(1, 2, b"c"), b"3");
    first.delete(&key(1, 2, b"c"));
    store.apply(&first, &stamp(1)).unwrap();
    buffer.extend_from_slice(b"left over");
    let mut get = |name: &[u8]| store.get(&key(1, 2, name), &mut buffer).unwrap().then(|| buffer.clone());
    assert_eq!(get(b"a"), Some(b"2".to_vec()));
    assert_eq!(get(b"b"), Some(vec![]));
    assert_eq!(get(b"c"), None);
    // The same entity key in another table or partition is another key.
    assert!(!store.get(&key(2, 2, b"a"), &mut buffer).unwrap());
    assert!(!store.get(&key(1, 3, b"a"), &mut buffer).unwrap());
}

#[test]
fn a_database_is_opened_only_where_there_is_one_and_made_only_where_there_is_none() {
    let parent = tempdir().unwrap();
    let (dir, memory) = (parent.path().join("a/b"), small_memory());
    assert!(RocksState::open(&dir, &memory).unwrap().is_none());
    assert!(StateReader::open(&dir).unwrap().is_none());
    let store = RocksState::create(&dir, &memory).unwrap();
    assert_eq!(store.stamp().unwrap(), None);
    drop(store);
    assert!(matches!(RocksState::create(&dir, &memory), Err(StateError::Io { reason, .. }) if reason.contains("wipe it first")));
    assert_eq!(RocksState::open(&dir, &memory).unwrap().unwrap().stamp().unwrap(), None);
    // A creation that a crash interrupted before its last step, with something in the way.
    std::fs::remove_file(dir.join("CURRENT")).unwrap();
    std::fs::write(dir.join("half.download"), b"x").unwrap();
    assert!(RocksState::open(&dir, &memory).unwrap().is_none());
    let mut store = RocksState::create(&dir, &memory).unwrap();
    apply(&mut store, 1, 1);
    drop(store);
    RocksState::wipe(&dir).unwrap();
    assert!(!dir.exists());
    RocksState::wipe(&dir).unwrap();
}

#[test]
fn an_orderly_restart_opens_at_the_last_epoch_with_whose_it_is() {
    let dir = tempdir().unwrap();
    let (path, memory) = (dir.path().join("db"), small_memory());
    let mut store = RocksState::create(&path, &memory).unwrap();
    for epoch in 1..=30 {
        apply(&mut store, 7, epoch);
    }
    let mut foreign = stamp(31);
    foreign.owner.shard = ShardId::new(4);
    store.apply(&StateBatch::default(), &foreign).unwrap();
    drop(store);
    let store = RocksState::open(&path, &memory).unwrap().unwrap();
    assert_eq!(store.stamp().unwrap(), Some(foreign));
    assert_same(&dump(&store), &Model::at(7, 30).state, "after the restart");
}

#[test]
fn a_database_in_use_is_neither_opened_twice_nor_wiped_and_the_error_says_the_way_out() {
    let dir = tempdir().unwrap();
    let (path, memory) = (dir.path().join("db"), small_memory());
    let mut store = RocksState::create(&path, &memory).unwrap();
    apply(&mut store, 1, 1);
    let wiped_but = RocksState::wipe_but(&path, |_, _| true).unwrap_err();
    for error in [RocksState::open(&path, &memory).err().unwrap(), RocksState::wipe(&path).unwrap_err(), wiped_but] {
        assert!(matches!(&error, StateError::Io { reason, .. } if reason.contains("drop it")), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    apply(&mut store, 1, 2);
    assert_same(&dump(&store), &Model::at(1, 2).state, "after the refusals");
}

/// Method: what an interrupted call leaves: the links beside the folder, before and after that is gone.
#[test]
fn what_is_asked_for_outlives_a_wipe_and_is_no_database() {
    let dir = tempdir().unwrap();
    let (path, aside, memory) = (dir.path().join("db"), dir.path().join("db.kept"), small_memory());
    let mut store = RocksState::create(&path, &memory).unwrap();
    apply(&mut store, 1, 1);
    drop(store);
    let is_table = |name: &str, bytes: u64| name.ends_with(".sst") && bytes > 0;
    let left = || {
        assert!(RocksState::open(&path, &memory).unwrap().is_none(), "it is a database still");
        assert!(!aside.exists());
        let names = std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        names.map(|name| (std::fs::read(path.join(&name)).unwrap(), name)).collect::<Vec<_>>()
    };
    std::fs::create_dir(&aside).unwrap();
    std::fs::write(aside.join("000001.sst"), "of an interrupted call").unwrap();
    RocksState::wipe_but(&path, is_table).unwrap();
    let kept = left();
    assert!(kept.len() == 1 && is_table(&kept[0].1, kept[0].0.len() as u64), "{kept:?}");
    std::fs::rename(&path, &aside).unwrap();
    RocksState::wipe_but(&path, is_table).unwrap();
    assert_eq!(left(), kept);
    RocksState::wipe_but(&path, |_, _| false).unwrap();
    assert_eq!(left(), []);
    std::fs::remove_dir(&path).unwrap();
    RocksState::wipe_but(&path, |_, _| true).unwrap();
    assert!(!path.exists() && !aside.exists());
    // Nor does what is left keep its disk space for ever when the database is opened, or another one is made.
    std::fs::create_dir(&aside).unwrap();
    drop(RocksState::create(&path, &memory).unwrap());
    assert!(!aside.exists());
    std::fs::create_dir(&aside).unwrap();
    assert!(RocksState::open(&path, &memory).unwrap().is_some());
    assert!(!aside.exists());
}

#[test]
#[should_panic(expected = "I2")]
fn an_epoch_cannot_overwrite_what_the_store_keeps_for_itself() {
    let dir = tempdir().unwrap();
    let mut store = RocksState::create(&dir.path().join("db"), &small_memory()).unwrap();
    let mut changes = StateBatch::default();
    changes.put(forebay_state::keys::STAMP_KEY, b"x");
    let _ = store.apply(&changes, &stamp(1));
}

#[test]
fn scans_are_in_order_keep_to_range_and_limit_and_go_on_behind_a_key() {
    let dir = tempdir().unwrap();
    let mut store = RocksState::create(&dir.path().join("db"), &small_memory()).unwrap();
    let mut changes = StateBatch::default();
    for (table, partition, name) in [(0, 0, "x"), (1, 0, "ab"), (1, 0, "aa"), (1, 0, "b"), (1, 256, "aa"), (2, 0, "a")] {
        changes.put(&key(table, partition, name.as_bytes()), name.as_bytes());
    }
    store.apply(&changes, &stamp(1)).unwrap();
    let check = |range: KeyRange, limit: usize, expected: &[(u16, u32, &str)]| {
        let entries = store.scan(&range, limit).map(Result::unwrap);
        let found: Vec<_> = entries.map(|e| (e.table.get(), e.partition.get(), String::from_utf8(e.value).unwrap())).collect();
        let found: Vec<_> = found.iter().map(|(table, partition, value)| (*table, *partition, value.as_str())).collect();
        assert_eq!(found, expected);
    };
    let (t, p) = (TableId::new, Partition::new);
    check(KeyRange::all(), 9, &[(0, 0, "x"), (1, 0, "aa"), (1, 0, "ab"), (1, 0, "b"), (1, 256, "aa"), (2, 0, "a")]);
    check(KeyRange::all(), 2, &[(0, 0, "x"), (1, 0, "aa")]);
    check(KeyRange::all(), 0, &[]);
    check(KeyRange::table(t(1)), 9, &[(1, 0, "aa"), (1, 0, "ab"), (1, 0, "b"), (1, 256, "aa")]);
    check(KeyRange::partition(t(1), p(256)), 9, &[(1, 256, "aa")]);
    check(KeyRange::prefix(t(1), p(0), b"a"), 9, &[(1, 0, "aa"), (1, 0, "ab")]);
    check(KeyRange::table(t(1)).after(t(1), p(0), b"ab"), 1, &[(1, 0, "b")]);
    check(KeyRange::table(t(3)), 9, &[]);
}

#[test]
fn a_reader_beside_a_live_database_shows_some_applied_epoch_whole_and_leaves_no_trace() {
    let dir = tempdir().unwrap();
    let (path, memory) = (dir.path().join("db"), small_memory());
    let mut store = RocksState::create(&path, &memory).unwrap();
    let mut model = Model::new(5);
    let mut seen = 0;
    for epoch in 1..=400 {
        apply(&mut store, 5, epoch);
        if epoch % 40 == 0 {
            let reader = StateReader::open(&path).unwrap().unwrap();
            // Nothing before the first flush.
            if let Some(found) = reader.stamp().unwrap() {
                let (found_again, state) = dump_folder(&reader);
                assert_eq!(found, found_again);
                model.advance_to(found.epoch.get());
                assert_same(&state, &model.state, "read beside a live database");
                seen += 1;
            }
        }
    }
    assert!(seen > 0, "400 epochs never flushed: the memory of this test is too large");
    drop(store);
    let files = || std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>();
    let before = files();
    let (last, state) = dump_folder(&StateReader::open(&path).unwrap().unwrap());
    assert_eq!(last, stamp(400));
    assert_same(&state, &Model::at(5, 400).state, "read after the end");
    assert_eq!(files(), before);
}
