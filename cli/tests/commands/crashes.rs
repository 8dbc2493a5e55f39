//! Promise: on the embedded log, too, each record counts once, whenever the process is killed: the flights example is worked off by processes that
//! are killed in the middle of their work, and its oracle judges what came out.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Watched, World};

const FLIGHTS: usize = 80_000;
/// So many come in before a process that is to be killed is started: on a fast machine, for several commits.
const PART: usize = 2000;

/// What a process is killed at: when its log has such a line for the so-manieth time. Of an epoch, a claim, a restore and a checkpoint.
const KILLED_AT: [(&str, usize); 18] = [
    ("seal begins", 1),
    ("commit begins", 2),
    ("apply begins", 1),
    ("upload begins", 1),
    ("claim begins", 3),
    ("bar begins", 1),
    ("commit begins", 1),
    ("replay begins", 1),
    ("seal begins", 4),
    ("commit begins", 3),
    ("commit ends", 2),
    ("checkpoint uploaded", 2),
    ("scan begins", 2),
    ("download begins", 1),
    ("apply begins", 3),
    ("checkpoint begins", 3),
    ("restore ends", 2),
    ("commit begins", 4),
];

/// These come within the interval of the checkpoints, also when all is worked off by then: the process must still be there.
const COMES_LATER: [&str; 3] = ["upload begins", "checkpoint begins", "checkpoint uploaded"];
/// Before these the disk with the databases is lost: there is a checkpoint to go on from by then.
const ON_A_NEW_DISK: [&str; 2] = ["replay begins", "download begins"];

/// Method: before each start more flights come in. Then the process is killed as its log says, and the last one works off what is left. One that
/// worked off all that there was before it came so far, on a slow machine, is followed by another one, with twice as many flights.
#[test]
fn flights_on_the_embedded_log_come_out_right_whenever_the_process_is_killed() {
    let world = World::new();
    let example = fs::read_to_string(flights("job.yaml")).unwrap();
    assert_eq!(example.matches("interval: 30s").count(), 1);
    let checkpoint_every =
        |interval: &str| drop(world.write("job.yaml", &example.replace("interval: 30s", &format!("interval: {interval}"))));
    let all = world.path("records.jsonl");
    python("prepare.py", &["--limit", &FLIGHTS.to_string(), "--output", all.to_str().unwrap()]);
    let records = fs::read_to_string(&all).unwrap();
    let records: Vec<&str> = records.lines().collect();

    let mut left = records.as_slice();
    let mut is_killed = |line: &str, times: usize, flights: usize| {
        assert!(!left.is_empty(), "no flights are left, and no process came as far as {line:?} for the {times}th time");
        let (part, rest) = left.split_at(flights.min(left.len()));
        produce(&world, part);
        left = rest;
        let command: &[&str] = if COMES_LATER.contains(&line) { &["run"] } else { &["run", "--until-end"] };
        let mut run = Watched::start(world.command(command).env("RUST_LOG", "info,forebay_worker=debug"));
        let found = (0..times).all(|_| run.until(line));
        run.signal("KILL");
        match run.end() {
            (None, _) => found,
            (code, log) => {
                assert_eq!(code, Some(0), "{log}");
                false
            }
        }
    };
    for (line, times) in KILLED_AT {
        for doubled in 0.. {
            // What has no checkpoint is replayed.
            if line == "replay begins" {
                checkpoint_every("1h");
                while !is_killed("commit ends", 1, PART) {}
            }
            if ON_A_NEW_DISK.contains(&line) {
                fs::remove_dir_all(world.path("data/state")).unwrap();
            }
            checkpoint_every("1s");
            if is_killed(line, times, PART << doubled) {
                break;
            }
        }
    }
    produce(&world, left);
    world.ask(&["run", "--until-end"]);
    judge(&world);
}

fn produce(world: &World, records: &[&str]) {
    let part = world.write("part.jsonl", &(records.join("\n") + "\n"));
    world.ask(&["log", "produce", "--topic", "flights", "--partitions", "12", "--input", part.to_str().unwrap()]);
}

/// Hands all that came out to the oracle.
fn judge(world: &World) {
    let dump = |name: &str, arguments: &[&str]| world.write(name, &world.ask(arguments)).to_str().unwrap().to_owned();
    let consume = |topic: &str| dump(topic, &["log", "consume", "--topic", topic, "--from-beginning", "--until-end"]);
    let records = world.path("records.jsonl");
    let files = [
        ("--records", records.to_str().unwrap().to_owned()),
        ("--input", consume("flights")),
        ("--updates", consume("updates")),
        ("--enriched", consume("enriched")),
        ("--delayed", consume("delayed")),
        ("--dead", consume("flights.dead")),
        ("--state", dump("state.jsonl", &["state", "scan", "-o", "json"])),
        ("--books", dump("books.json", &["books", "-o", "json"])),
    ];
    let arguments: Vec<&str> = files.iter().flat_map(|(flag, file)| [*flag, file.as_str()]).collect();
    python("oracle.py", &arguments);
}

fn flights(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/flights").join(name)
}

/// Runs one of the example's scripts, which must succeed.
fn python(script: &str, arguments: &[&str]) {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(python).arg(flights(script)).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}: {}{}", text(&output.stdout), text(&output.stderr));
}
