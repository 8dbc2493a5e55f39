//! Promise: a job goes on from an earlier state, once for each id, and one that cannot be gone back to says what can be.

use serde_json::Value;

use crate::support::{World, orders};

/// What is known of a customer.
fn customer(world: &World) -> (u64, u64) {
    let found = world.ask_json(&["state", "get", "customers", "c"]);
    let document = &found[0]["value"];
    (document["orders"].as_u64().unwrap(), document["amount"].as_u64().unwrap())
}

fn good(world: &World) -> usize {
    world.records("orders.good").len()
}

fn rewind(world: &World, id: &str, to: [&str; 2]) -> Value {
    world.ask_json(&["rewind", "--id", id, to[0], to[1]]).remove(0)
}

/// Method: a savepoint between two lots of orders. The state is that of then, the second lot comes out again, and what comes after is counted once. The same
/// id again changes nothing; another one goes back once more.
#[test]
fn a_job_goes_back_to_a_savepoint_once_for_each_id() {
    let world = World::new();
    // Of every shard.
    world.produce("orders", ('a'..='h').flat_map(|customer| orders(&customer.to_string(), [1])));
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    let taken = world.ask_json(&["savepoint", "take", "--name", "point"]).remove(0);
    let path = taken["path"].as_str().unwrap();
    world.produce("orders", orders("c", [10, 20]));
    world.ask(&["run", "--until-end"]);
    assert_eq!((customer(&world), good(&world)), ((3, 31), 10));

    let done = rewind(&world, "undo", ["--to-savepoint", path]);
    assert_eq!((&done["timeline"], &done["recordsIn"]), (&1.into(), &8.into()), "{done}");
    world.ask(&["run", "--until-end"]);
    assert_eq!((customer(&world), good(&world)), ((3, 31), 12));
    world.produce("orders", orders("c", [100]));
    world.ask(&["run", "--until-end"]);
    assert_eq!((customer(&world), good(&world)), ((4, 131), 13));

    let again = rewind(&world, "undo", ["--to-savepoint", path]);
    assert_eq!((&again["timeline"], &again["recordsIn"]), (&1.into(), &Value::Null), "{again}");
    let other = rewind(&world, "undo-more", ["--to-savepoint", path]);
    assert_eq!(other["timeline"], 2, "{other}");
    world.ask(&["run", "--until-end"]);
    assert_eq!((customer(&world), good(&world)), ((4, 131), 16));
}

/// Method: orders that no checkpoint holds, in the journal alone. A savepoint of the job as it rests holds them; one of its checkpoints does not.
#[test]
fn a_savepoint_of_a_job_at_rest_holds_all_that_it_has_committed() {
    let world = World::new();
    world.produce("orders", ('a'..='h').flat_map(|customer| orders(&customer.to_string(), [1])));
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    world.produce("orders", orders("c", [10, 20]));
    world.ask(&["run", "--until-end"]);
    let take = |name: &str, more: &[&str]| world.ask_json(&[&["savepoint", "take", "--name", name], more].concat()).remove(0);
    let records = |taken: &Value| taken["shards"].as_array().unwrap().iter().map(|shard| shard["recordsIn"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(records(&take("checkpoints", &[])), 8);
    let missing = world.call(&["savepoint", "take", "--name", "whole", "--existing"]);
    assert!(missing.code == Some(2) && missing.stderr.contains("savepoint default/orders/whole: there is none"), "{missing:?}");
    let whole = take("whole", &["--at-rest"]);
    assert_eq!(take("whole", &["--existing"]), whole);
    assert_eq!(records(&whole), 10, "{whole}");
    assert_eq!(take("whole", &["--at-rest"]), whole, "one that is there is left as it is");

    // Nothing comes out again.
    rewind(&world, "to-the-end", ["--to-savepoint", whole["path"].as_str().unwrap()]);
    world.ask(&["run", "--until-end"]);
    assert_eq!((customer(&world), good(&world)), ((3, 31), 10));
}

/// Method: what no rewind can do, each with a word of its way out; the job goes on as if nobody had asked.
#[test]
fn what_cannot_be_gone_back_to_is_refused_and_changes_nothing() {
    let world = World::new();
    let refused = |arguments: &[&str], why: &str| {
        let said = world.call(&[&["rewind", "--id", "r"], arguments].concat());
        assert!(said.code == Some(2) && said.stderr.contains(why), "{arguments:?}: {said:?}");
    };
    world.produce("orders", orders("c", [1]));
    refused(&["--to-time", "2026-01-01T00:00:00Z"], "has never run");
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    world.produce("orders", orders("c", [2]));
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    refused(&["--to-time", "9999-01-01T00:00:00Z"], "is still to come");
    refused(&["--to-savepoint", "default/orders/gone"], "there is none in this object store");
    refused(&[], "--to-savepoint");
    refused(&["--to-savepoint", "default/orders/gone", "--to-time", "2026-01-01T00:00:00Z"], "cannot be used with");
    world.produce("orders", orders("c", [3]));
    world.ask(&["run", "--until-end"]);
    assert_eq!((customer(&world), good(&world)), ((3, 6), 3));
}
