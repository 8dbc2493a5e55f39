//! Promise: a run shows how far it is: a bar with rate, lag and books on a terminal; elsewhere lines of the log, the last one at its end.

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

/// Method: a run on a terminal that util-linux's `script` makes, until the bar says that all is read; then it is asked to stop.
#[test]
fn a_terminal_shows_a_bar() {
    let world = World::new();
    world.produce("orders", orders("ann", 1..5_000));
    let run = world.command(&["run"]);
    let line = std::iter::once(run.get_program()).chain(run.get_args()).map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let mut on_terminal = std::process::Command::new("script");
    on_terminal.args(["--quiet", "--return", "--flush", "--command", &format!("exec {line}"), "/dev/null"]);
    on_terminal.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
    on_terminal.stdin(std::process::Stdio::null());
    let mut shown = Watched::on_terminal(&mut on_terminal);
    assert!(shown.until("4999 in = 4999 processed"), "it ended: {:?}", shown.seen);
    let bar = shown.seen.last().unwrap().clone();
    for needed in ["2/2 shards", " records/s  lag "] {
        assert!(bar.contains(needed), "{needed} is not in {bar:?}");
    }
    assert!(!shown.seen.iter().any(|line| line.contains("INFO")), "the log is in the way: {:?}", shown.seen);
}
