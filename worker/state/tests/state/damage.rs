//! Whatever happens to a database's files, an answer is right or it is `Corrupt`: never wrong, never a panic.

use std::collections::BTreeSet;
use std::path::Path;

use forebay_engine::state::{StateError, StateStore};
use forebay_state::keys::KeyRange;
use forebay_state::{RocksState, SharedMemory, StateReader};
use tempfile::tempdir;

use crate::checkpoint::copy_folder;
use crate::model::{Model, apply, assert_same, collect, small_memory};

const SEED: u64 = 21;
const EPOCHS: u64 = 260;

#[derive(Clone, Copy, Debug)]
enum Damage {
    Removed,
    CutTo(usize),
    Flipped(usize),
    Zeroed(usize),
    Grown,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Corrupt,
    /// What is there is right for the epoch that it names.
    Right,
    Nothing,
}

#[test]
fn damage_to_any_file_is_seen_as_corrupt_or_leaves_right_answers() {
    let dir = tempdir().unwrap();
    let (origin, memory) = (dir.path().join("db"), small_memory());
    let mut store = RocksState::create(&origin, &memory).unwrap();
    for epoch in 1..=EPOCHS {
        apply(&mut store, SEED, epoch);
    }
    drop(store);
    // Until there are at least two table files, whatever compaction does: each closing adds one.
    let mut last = EPOCHS;
    while names_in(&origin).iter().filter(|name| name.ends_with(".sst")).count() < 2 {
        last += 1;
        assert!(last < EPOCHS + 10, "{:?}", names_in(&origin));
        apply(&mut RocksState::open(&origin, &memory).unwrap().unwrap(), SEED, last);
    }
    let all_keys: Vec<_> = Model::at(SEED, last).state.into_keys().collect();
    let mut outcomes = BTreeSet::new();
    for name in names_in(&origin) {
        let bytes = std::fs::read(origin.join(&name)).unwrap();
        for damage in damages(bytes.len()) {
            let scratch = dir.path().join("scratch");
            copy_folder(&origin, &scratch);
            inflict(damage, &scratch.join(&name), &bytes);
            let outcome = look(&scratch, &memory, &all_keys, &format!("{name} {damage:?}"));
            let outcome_of_reader = look_read_only(&scratch, &format!("{name} {damage:?}, read-only"));
            let essential = name.ends_with(".sst") || name.starts_with("MANIFEST") || name == "CURRENT";
            if essential && matches!(damage, Damage::Removed | Damage::CutTo(0)) {
                let expected = if name == "CURRENT" && matches!(damage, Damage::Removed) { Outcome::Nothing } else { Outcome::Corrupt };
                assert_eq!((&outcome, &outcome_of_reader), (&expected, &expected), "{name} {damage:?}");
            }
            outcomes.insert((essential, outcome));
            std::fs::remove_dir_all(&scratch).unwrap();
        }
    }
    assert!(outcomes.contains(&(true, Outcome::Corrupt)) && outcomes.contains(&(false, Outcome::Right)), "{outcomes:?}");
}

#[test]
fn a_database_that_was_found_damaged_by_a_read_is_not_opened_again() {
    // Or the shard would open it, meet the same block and fail, for ever. The block is one that opening does not read.
    let dir = tempdir().unwrap();
    let (folder, memory) = (dir.path().join("db"), small_memory());
    let mut store = RocksState::create(&folder, &memory).unwrap();
    (1..=EPOCHS).for_each(|epoch| apply(&mut store, SEED, epoch));
    store.compact();
    drop(store);
    let name = names_in(&folder).into_iter().filter(|name| name.ends_with(".sst"));
    let table = folder.join(name.max_by_key(|name| std::fs::metadata(folder.join(name)).unwrap().len()).unwrap());
    let bytes = std::fs::read(&table).unwrap();
    inflict(Damage::Flipped(bytes.len() / 2), &table, &bytes);
    let store = RocksState::open(&folder, &memory).unwrap().unwrap();
    let keys: Vec<_> = Model::at(SEED, EPOCHS).state.into_keys().collect();
    let failed = keys.iter().find_map(|key| store.get(key, &mut Vec::new()).err());
    assert!(matches!(failed, Some(StateError::Corrupt { .. })), "{failed:?}");
    drop(store);
    let again = RocksState::open(&folder, &memory).map(|store| store.is_some());
    assert!(matches!(&again, Err(StateError::Corrupt { reason, .. }) if reason.contains("found damaged before")), "{again:?}");
    RocksState::wipe(&folder).unwrap();
    RocksState::create(&folder, &memory).unwrap();
}

fn names_in(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn damages(len: usize) -> Vec<Damage> {
    let mut damages = vec![Damage::Removed, Damage::CutTo(0), Damage::Grown];
    if len > 1 {
        let places = (0..16).map(|n| n * (len - 1) / 15).collect::<BTreeSet<_>>();
        damages.extend([Damage::CutTo(len / 2), Damage::CutTo(len - 1)]);
        damages.extend(places.iter().map(|place| Damage::Flipped(*place)));
        damages.extend(places.iter().step_by(4).map(|place| Damage::Zeroed(*place)));
    }
    damages
}

fn inflict(damage: Damage, path: &Path, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    match damage {
        Damage::Removed => return std::fs::remove_file(path).unwrap(),
        Damage::CutTo(len) => bytes.truncate(len),
        Damage::Flipped(place) => bytes[place] ^= 0x55,
        // A page that never reached the disk.
        Damage::Zeroed(place) => bytes.iter_mut().skip(place).take(4096).for_each(|byte| *byte = 0),
        Damage::Grown => bytes.extend_from_slice(&[0xaa; 100]),
    }
    std::fs::write(path, bytes).unwrap();
}

/// Opens the database and reads all of it, by gets and by a scan, as the shard would.
fn look(dir: &Path, memory: &SharedMemory, all_keys: &[Vec<u8>], what: &str) -> Outcome {
    let attempt = || -> Result<Outcome, StateError> {
        let Some(store) = RocksState::open(dir, memory)? else {
            return Ok(Outcome::Nothing);
        };
        let Some(stamp) = store.stamp()? else {
            panic!("{what}: the database opened and has forgotten its stamp");
        };
        let model = Model::at(SEED, stamp.epoch.get());
        let mut value = Vec::new();
        for key in all_keys.iter().chain(model.state.keys()) {
            let found = store.get(key, &mut value)?.then_some(&value);
            assert_eq!(found, model.state.get(key), "{what}");
        }
        let entries: Vec<_> = store.scan(&KeyRange::all(), usize::MAX).collect::<Result<_, _>>()?;
        assert_same(&collect(entries.into_iter()), &model.state, what);
        Ok(Outcome::Right)
    };
    judge(attempt(), what)
}

fn look_read_only(dir: &Path, what: &str) -> Outcome {
    let attempt = || -> Result<Outcome, StateError> {
        let Some(reader) = StateReader::open(dir)? else {
            return Ok(Outcome::Nothing);
        };
        let Some(stamp) = reader.stamp()? else {
            panic!("{what}: the database opened and has forgotten its stamp");
        };
        let entries: Vec<_> = reader.scan(&KeyRange::all(), usize::MAX).collect::<Result<_, _>>()?;
        assert_same(&collect(entries.into_iter()), &Model::at(SEED, stamp.epoch.get()).state, what);
        Ok(Outcome::Right)
    };
    judge(attempt(), what)
}

fn judge(attempt: Result<Outcome, StateError>, what: &str) -> Outcome {
    match attempt {
        Ok(outcome) => outcome,
        Err(StateError::Corrupt { .. }) => Outcome::Corrupt,
        Err(error @ StateError::Io { .. }) => panic!("{what}: not seen as corrupt: {error}"),
    }
}
