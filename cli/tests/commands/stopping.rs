//! Promise: a job that is asked to stop finishes its epoch and tells its exact books; with `--checkpoint-on-stop` a start without its disk has
//! next to nothing to read from the journal.

use std::fs;
use std::io::Write;

use crate::support::{Watched, World, json_lines, orders};

/// What a pipe holds on Linux.
const PIPE_BYTES: usize = 64 << 10;

/// Method: SIGTERM in the middle of a backlog. The books that are printed must be those that lie in the databases, and what was put out.
#[test]
fn the_books_that_a_stopped_run_prints_are_those_of_its_last_epoch() {
    let world = World::new();
    world.produce("orders", (0..200_000).map(|number| (format!("c{}", number % 100), r#"{"amount": 1}"#.to_owned())));
    let mut command = world.command(&["run", "-o", "json", "--threads", "1"]);
    let run = Watched::start(command.stdout(fs::File::create(world.path("stdout")).unwrap()));
    let started = until_running(run);
    started.signal("TERM");
    let (code, log) = started.end();
    assert_eq!(code, Some(0), "{log}");
    let printed = json_lines(&fs::read_to_string(world.path("stdout")).unwrap());
    assert_eq!(printed, world.ask_json(&["books"]));
    assert_eq!(printed[0]["processed"].as_u64().unwrap(), world.records("orders.good").len() as u64);
}

/// Method: a run that is asked to stop in the middle of a backlog, and that cannot end by itself: its standard output is a pipe that is full. What it had
/// committed must be all there, and nothing of it comes twice.
#[test]
fn a_second_signal_ends_a_run_at_once_and_nothing_is_lost_by_it() {
    let world = World::new();
    world.produce("orders", (0..200_000).map(|number| (format!("c{}", number % 100), r#"{"amount": 1}"#.to_owned())));
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'x'; PIPE_BYTES]).unwrap();
    let mut run = until_running(Watched::start(world.command(&["run", "--threads", "1", "--checkpoint-on-stop"]).stdout(writer)));
    run.signal("TERM");
    assert!(run.until("a checkpoint of every shard is taken before stopping"), "it does not hear the first signal: {:?}", run.seen);
    run.signal("INT");
    // So that one that goes on all the same ends, too, and not with this code.
    drop(reader);
    let (code, log) = run.end();
    assert_eq!(code, Some(130), "{log}");
    assert_eq!(world.ask(&["run", "--until-end"]), "200000 in = 200000 processed\n");
    assert_eq!(world.records("orders.good").len(), 200_000);
}

/// Method: a job with a checkpoint interval of an hour has worked off its input; it is started and stopped with `--checkpoint-on-stop`, and
/// loses its disk. (e2e/tests/inspection.rs stops one by SIGTERM.)
#[test]
fn a_planned_stop_leaves_a_checkpoint_of_the_last_epoch() {
    let world = World::new();
    world.produce("orders", orders("ann", 1..5_000));
    world.ask(&["run", "--until-end"]);
    assert_eq!(world.ask_json(&["snapshot", "ls"]).len(), 0, "no checkpoint is due yet");
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    let books = world.ask_json(&["books"]);
    assert_eq!(world.ask_json(&["books", "--from-store"]), books, "the checkpoints are not of the last epochs");

    fs::remove_dir_all(world.path("data/state")).unwrap();
    let said = world.call(&["run", "--until-end", "-o", "json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.stderr.matches("restored from a checkpoint").count(), 2, "{}", said.stderr);
    assert_eq!(json_lines(&said.stdout), books);
}

/// Method: the object store cannot be written to when the stop comes.
#[test]
fn a_stop_without_its_checkpoint_says_so_and_loses_nothing() {
    let world = World::new();
    // Both shards get some.
    world.produce("orders", (0..99).map(|number| (format!("c{number}"), r#"{"amount": 1}"#.to_owned())));
    // A file where the folder of all files is to be: nobody can make one below it, not even root.
    let files = world.path("data/store/default/orders/default.orders/0/files");
    fs::create_dir_all(files.parent().unwrap()).unwrap();
    fs::write(&files, "").unwrap();
    let said = world.call(&["run", "--until-end", "--checkpoint-on-stop"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), "99 in = 99 processed\n"), "{said:?}");
    let log = said.stderr;
    assert!(log.contains("no checkpoint of shards 0, 1 was taken before the stop") && log.contains("all is committed"), "{log}");
    fs::remove_file(&files).unwrap();
    let said = world.call(&["run", "--until-end"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "99 in = 99 processed\n"), "{said:?}");
}

/// Waits until both shards run.
fn until_running(mut run: Watched) -> Watched {
    let owned = (0..2).all(|_| run.until("shard is owned"));
    assert!(owned, "it ended: {:?}", run.seen);
    run
}
