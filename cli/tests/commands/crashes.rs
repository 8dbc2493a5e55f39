//! Promise: on the embedded log, too, each record counts once, whenever the process is killed: the flights example is worked off by processes that
//! are killed in the middle of their work, and its oracle judges what came out.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Watched, World};

const FLIGHTS: usize = 40_000;

/// What a process is killed at: when its log has such a line for the so-manieth time. Of an epoch, a claim, a restore and a checkpoint.
const KILLED_AT: [(&str, usize); 18] = [
    ("seal begins", 1),
    ("commit begins", 2),
    ("apply begins", 1),
    ("upload begins", 1),
    ("claim begins", 3),
    ("bar begins", 1),
    ("commit begins", 1),
    ("replay begins", 2),
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

/// Before which kills the disk with the databases is lost: there is a checkpoint to go on from by then.
const DISK_LOST_BEFORE: [usize; 2] = [7, 13];

/// Method: before each start more flights come in. Then the process is killed as its log says, the last one works off what is left.
#[test]
fn flights_on_the_embedded_log_come_out_right_whenever_the_process_is_killed() {
    let world = World::new();
    let example = fs::read_to_string(flights("job.yaml")).unwrap();
    assert_eq!(example.matches("interval: 30s").count(), 1);
    world.write("job.yaml", &example.replace("interval: 30s", "interval: 1s"));
    let all = world.path("records.jsonl");
    python("prepare.py", &["--limit", &FLIGHTS.to_string(), "--output", all.to_str().unwrap()]);
    let records = fs::read_to_string(&all).unwrap();
    let records: Vec<&str> = records.lines().collect();

    let mut parts = records.chunks(records.len().div_ceil(KILLED_AT.len() + 1));
    let mut more = || {
        let part = world.write("part.jsonl", &(parts.next().unwrap().join("\n") + "\n"));
        world.ask(&["log", "produce", "--topic", "flights", "--partitions", "12", "--input", part.to_str().unwrap()]);
    };
    for (number, (line, times)) in KILLED_AT.into_iter().enumerate() {
        more();
        if DISK_LOST_BEFORE.contains(&number) {
            fs::remove_dir_all(world.path("data/state")).unwrap();
        }
        let mut run = Watched::start(world.command(&["run"]).env("RUST_LOG", "info,forebay_worker=debug"));
        let found = (0..times).all(|_| run.until(line));
        assert!(found, "kill {number}: no {line:?} came before it ended: {}", run.seen.join("\n"));
        run.signal("KILL");
        assert_eq!(run.end().0, None, "kill {number} came too late");
    }
    more();
    world.ask(&["run", "--until-end"]);
    judge(&world);
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
