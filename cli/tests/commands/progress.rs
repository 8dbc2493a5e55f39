//! Promise: a run shows how far it is: a bar with rate, lag and books on a terminal, and what is amiss above it; elsewhere lines of the log, the last one at
//! its end.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Watched, World, orders};

/// Method: a run whose standard error is a file.
#[test]
fn without_a_terminal_the_log_has_a_line_of_it() {
    let world = World::new();
    world.produce("orders", orders("ann", 1..1_000));
    let said = world.call(&["run", "--until-end"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let line = said.stderr.lines().rfind(|line| line.contains(" records/s ")).unwrap_or_else(|| panic!("no line of it: {}", said.stderr));
    for needed in ["2/2 shards", "  lag ", " in = "] {
        assert!(line.contains(needed), "{needed} is not in {line}");
    }
}

/// Method: a run on a terminal, until the bar says that all is read; then it is asked to stop.
#[test]
fn a_terminal_shows_a_bar() {
    let world = World::new();
    world.produce("orders", orders("ann", 1..5_000));
    let mut shown = on_terminal(&world);
    assert!(shown.until("4999 in = 4999 processed"), "it ended: {:?}", shown.seen);
    let bar = shown.seen.last().unwrap().clone();
    for needed in ["2/2 shards", " records/s  lag "] {
        assert!(bar.contains(needed), "{needed} is not in {bar:?}");
    }
    assert!(!shown.seen.iter().any(|line| line.contains("INFO")), "the log is in the way: {:?}", shown.seen);
    interrupt(&mut shown);
    assert_eq!(shown.end().0, Some(0));
}

/// Method: the object store of a run on a terminal becomes unusable before the first checkpoint is due, by a file where uploads are to grow: nobody can make
/// one below it, not even root. Then it is interrupted by its keyboard.
#[test]
fn a_terminal_shows_above_the_bar_that_no_checkpoint_was_taken() {
    let world = World::new();
    // The first ones are due after two and six seconds.
    world.change_job("checkpoint: {interval: 1h}", "checkpoint: {interval: 10s}");
    world.produce("orders", (0..99).map(|number| (format!("c{number}"), r#"{"amount": 1}"#.to_owned())));
    let mut shown = on_terminal(&world);
    assert!(shown.until("99 in = 99 processed"), "it ended: {:?}", shown.seen);
    let uploads = world.path("data/store/default/orders/default.orders/0/.unfinished");
    fs::rename(&uploads, world.path("away")).unwrap();
    fs::write(&uploads, "").unwrap();
    assert!(shown.until("no checkpoint was taken; work goes on"), "it ended: {:?}", shown.seen);
    let warning = shown.seen.last().unwrap().clone();
    assert!(warning.contains("WARN") && warning.contains("Not a directory") && !warning.contains(" records/s "), "{warning:?}");
    assert!(shown.until("99 in = 99 processed"), "the bar is gone: {:?}", shown.seen);
    interrupt(&mut shown);
    let (code, all) = shown.end();
    assert_eq!(code, Some(0), "{all:?}");
    assert!(all.trim_end().ends_with("99 in = 99 processed"), "{all:?}");
}

/// By the keyboard: whoever only ends `script` leaves the run behind.
fn interrupt(shown: &mut Watched) {
    shown.child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
}

/// A run on a terminal that util-linux's `script` makes. Its standard input is the keyboard.
fn on_terminal(world: &World) -> Watched {
    let run = world.command(&["run"]);
    let line = std::iter::once(run.get_program()).chain(run.get_args()).map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let mut on_terminal = Command::new("script");
    on_terminal.args(["--quiet", "--return", "--flush", "--command", &format!("exec {line}"), "/dev/null"]);
    on_terminal.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
    Watched::on_terminal(on_terminal.stdin(Stdio::piped()))
}
