//! SIGKILL at random moments: what is left is some applied epoch, whole.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use forebay_engine::state::StateStore;
use forebay_state::{RocksState, StateReader};
use tempfile::tempdir;

use crate::checkpoint::table_files;
use crate::model::{Model, Random, apply, assert_same, dump, dump_folder, small_memory, stamp};

const SEED: u64 = 31;
const ROUNDS: u64 = 25;

/// Set for the child: the folder to work in.
const CHILD_DIR: &str = "FOREBAY_TEST_CRASH_DIR";

#[test]
fn a_killed_process_leaves_the_state_of_one_applied_epoch_whole() {
    // I2: a child applies epochs and takes checkpoints beside it until it is killed, again and again on one database; the model says what
    // must be left. The same for each checkpoint that it had finished, and a table file's name never stands for two contents.
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        run_until_killed(Path::new(&dir));
    }
    let dir = tempdir().unwrap();
    let mut random = Random(SEED);
    let (mut contents, mut reopened_at) = (BTreeMap::new(), Vec::new());
    for round in 0..ROUNDS {
        let (applied, checkpoints) = run_child(dir.path(), random.below(300));
        let mut durable = 0;
        for checkpoint in checkpoints {
            let (found, state) = dump_folder(&StateReader::open(&checkpoint).unwrap().unwrap());
            durable = found.epoch.get();
            assert_eq!(found, stamp(durable));
            assert_same(&state, &Model::at(SEED, durable).state, &format!("round {round}, {}", checkpoint.display()));
            for (name, bytes) in table_files(&checkpoint) {
                assert!(*contents.entry(name.clone()).or_insert_with(|| bytes.clone()) == bytes, "round {round}: {name} has changed");
            }
            std::fs::remove_dir_all(checkpoint).unwrap();
        }
        let Some(store) = RocksState::open(&dir.path().join("db"), &small_memory()).unwrap() else {
            assert_eq!((applied, durable), (0, 0), "round {round}: the database is gone");
            continue;
        };
        let epoch = store.stamp().unwrap().map_or(0, |stamp| stamp.epoch.get());
        assert!(durable <= epoch, "round {round}: at epoch {epoch}, but a checkpoint was finished at {durable}");
        assert!(epoch == 0 || store.stamp().unwrap() == Some(stamp(epoch)));
        assert_same(&dump(&store), &Model::at(SEED, epoch).state, &format!("round {round}, killed behind epoch {applied}"));
        reopened_at.push(epoch);
    }
    assert!(reopened_at.is_sorted() && reopened_at.last() > reopened_at.first(), "{reopened_at:?}");
}

/// Runs the child until it has reported `lines` lines, kills it there, and returns the last epoch that it had applied and its checkpoints.
fn run_child(dir: &Path, lines: u64) -> (u64, Vec<PathBuf>) {
    let name = "crash::a_killed_process_leaves_the_state_of_one_applied_epoch_whole";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut reports = Vec::new();
    let mut report = |line: String| {
        let report = line.split_once(' ').map(|(kind, what)| (kind.to_owned(), what.to_owned()));
        reports.extend(report.filter(|(kind, _)| kind == "applied" || kind == "checkpoint"));
        reports.len() as u64
    };
    while report(output.next().expect("the child runs until it is killed").unwrap()) < lines {}
    child.kill().unwrap();
    // What it had written before it died. A line is one write, far shorter than what a pipe takes at once, so none is cut.
    let rest: Vec<_> = output.map_while(Result::ok).collect();
    for line in rest {
        report(line);
    }
    child.wait().unwrap();
    let applied = reports.iter().filter(|(kind, _)| kind == "applied").filter_map(|(_, epoch)| epoch.parse().ok()).max();
    let checkpoints = reports.iter().filter(|(kind, _)| kind == "checkpoint").map(|(_, path)| PathBuf::from(path));
    (applied.unwrap_or(0), checkpoints.filter(|path| path.exists()).collect())
}

/// The child: goes on from whatever epoch it finds, as a restart with its journal would.
fn run_until_killed(dir: &Path) -> ! {
    let (path, memory) = (dir.join("db"), small_memory());
    let mut store = RocksState::open(&path, &memory).unwrap().unwrap_or_else(|| RocksState::create(&path, &memory).unwrap());
    let start = store.stamp().unwrap().map_or(0, |stamp| stamp.epoch.get());
    let (hand_over, checkpointers) = std::sync::mpsc::sync_channel::<forebay_engine::state::Checkpointer>(1);
    let (dir, process) = (dir.to_owned(), std::process::id());
    std::thread::spawn(move || {
        for (number, checkpointer) in checkpointers.into_iter().enumerate() {
            let to = dir.join(format!("checkpoint-{process}-{number}"));
            checkpointer(&to).unwrap();
            say(&format!("checkpoint {}", to.display()));
        }
    });
    for epoch in start + 1.. {
        apply(&mut store, SEED, epoch);
        say(&format!("applied {epoch}"));
        let _ = hand_over.try_send(store.checkpointer());
    }
    unreachable!("epochs have no end")
}

/// Past the test harness, which would hold it back; one write, so that lines of two threads do not mix.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}
