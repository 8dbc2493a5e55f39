//! Promise: with `-o json` every command prints JSON documents, one a line, and nothing else on standard output; errors stay text on standard
//! error. All of it is configured by the environment, as in a container.

use std::process::Stdio;

use crate::support::{World, is_filled, json_lines, orders};
use serde_json::{Value, json};

const FIXTURES: &str = "\
cases:
  - name: an order is counted
    records: [{key: c, value: {amount: 2}}]
    expect: {state: {customers: {c: {orders: 1, amount: 2}}}}
  - name: a wrong expectation
    records: [{key: c, value: {amount: 2}}]
    expect: {books: {processed: 2}}
  - name: what is left out is not checked
    records: [{key: c, value: {amount: 2}}, {key: c, value: {amount: 3}}, {value: no JSON}]
    expect:
      outputs: {orders.good: [{value: {amount: 2}}, {key: c}], orders.dead: [{key: null}]}
      state: {customers: {d: null}}
  - name: what is not left out is
    records: [{key: c, value: {amount: 2}}]
    expect:
      outputs: {orders.good: [{key: null, value: null, headers: {trace: x}}]}
      state: {customers: {c: null, d: {orders: 1}}}
";

/// A job that has run over two customers' orders, a malformed one and an invalid one.
fn world() -> World {
    let world = World::new();
    world.produce("orders", orders("ann", [1, 2]));
    world.produce("orders", orders("bob", [4]));
    world.produce("orders", [("ann".to_owned(), "no JSON".to_owned()), ("bob".to_owned(), r#"{"amount": 0}"#.to_owned())]);
    world
}

#[test]
fn a_run_ends_with_its_books() {
    let world = world();
    let books = json!({"in": 5, "processed": 3, "rejected": 2, "duplicate": 0, "filtered": 0, "throttled": 0});
    assert_eq!(world.ask_json(&["run", "--until-end", "--checkpoint-on-stop"])[0], books);
    assert_eq!(world.ask(&["run", "--until-end"]), "5 in = 3 processed + 2 rejected\n");
    assert_eq!(world.ask_json(&["books"])[0], books);
    assert_eq!(world.ask_json(&["books", "--from-store"])[0], books);
    assert_eq!(world.ask(&["books"]), "5 in = 3 processed + 2 rejected\n");
}

#[test]
fn what_a_job_left_is_listed() {
    let world = world();
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);

    let topics = world.ask_json(&["log", "topics"]);
    let found = |name: &str| topics.iter().find(|topic| topic["topic"] == name).unwrap_or_else(|| panic!("{name} in {topics:?}")).clone();
    assert_eq!(found("orders")["partitions"], 4);
    assert_eq!(world.records("orders.good").len(), 3);

    for source in [&[][..], &["--from-store"]] {
        let listed = world.ask_json(&with(&["state", "ls"], source));
        assert_eq!(listed[0], json!({"table": "customers", "id": 0}));
        assert_eq!(listed.len(), 3, "a table and two shards: {listed:?}");
        assert!(listed[1]["epoch"].as_u64() > Some(0) && listed[1]["books"]["in"].is_u64(), "{listed:?}");
        let ann = world.ask_json(&with(&["state", "get", "customers", "ann"], source));
        assert_eq!((&ann[0]["key"], &ann[0]["value"]), (&json!("ann"), &json!({"orders": 2, "amount": 3})));
        assert_eq!(world.ask(&with(&["state", "get", "customers", "ann"], source)), "{\n  \"amount\": 3,\n  \"orders\": 2\n}\n");
        let mut keys: Vec<Value> = world.ask_json(&with(&["state", "scan"], source)).into_iter().map(|row| row["key"].clone()).collect();
        keys.sort_by_key(ToString::to_string);
        assert_eq!(keys, [json!("ann"), json!("bob")]);
    }

    let checkpoints = world.ask_json(&["snapshot", "ls"]);
    // One of a shard, or two where the first was on its way when the stop came.
    let newest = |shard: u64| checkpoints.iter().filter(|row| row["shard"] == shard).map(|row| row["epoch"].as_u64()).max();
    assert!(newest(0).is_some() && checkpoints.len() <= 4, "{checkpoints:?}");
    let inspected = world.ask_json(&["snapshot", "inspect", "--shard", "1"]);
    assert_eq!(Some(inspected[0]["stamp"]["epoch"].as_u64()), newest(1));
    let several = world.call(&["snapshot", "inspect"]);
    assert_eq!(several.code, Some(2), "{several:?}");
    assert!(several.stderr.contains("of several shards, 0, 1; name one of them by --shard"), "{several:?}");
    let verified = world.ask_json(&["snapshot", "verify"]);
    assert_eq!((&verified[0]["checkpoints"], &verified[0]["damaged"]), (&json!(checkpoints.len()), &json!(0)));

    let mut steps: Vec<Value> = world.ask_json(&["dlq", "ls"]).iter().map(|row| row["headers"]["forebay.step"].clone()).collect();
    steps.sort_by_key(ToString::to_string);
    assert_eq!(steps, [json!("parse"), json!("validate")]);
    assert_eq!(world.ask_json(&["dlq", "replay", "--dry-run"]).last().unwrap(), &json!({"letters": 2, "dryRun": true}));
}

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

#[test]
fn a_manifest_that_is_not_valid_is_told_as_json_and_as_text() {
    let world = World::new();
    let valid = world.ask_json(&["validate"]);
    assert_eq!((&valid[0]["valid"], &valid[0]["steps"], &valid[0]["findings"]), (&json!(true), &json!(4), &json!([])));
    world.change_job("min: 1", "mni: 1");
    let said = world.call(&["validate", "-o", "json"]);
    assert_eq!(said.code, Some(2));
    let verdict = &json_lines(&said.stdout)[0];
    let finding = &verdict["findings"][0];
    assert_eq!((&verdict["valid"], &finding["place"]["line"]), (&json!(false), &json!(14)), "{verdict}");
    assert!(finding["path"].as_str().unwrap().ends_with("amount.mni") && finding["help"].as_str().unwrap().contains("`min`"), "{finding}");
    assert!(said.stderr.contains("job.yaml:14:") && said.stderr.contains("did you mean `min`?"), "{}", said.stderr);
    let text = world.call(&["validate"]);
    assert_eq!((text.code, text.stdout.as_str(), text.stderr.as_str()), (Some(2), "", said.stderr.as_str()));
}

#[test]
fn fixtures_tell_each_case() {
    let world = World::new();
    world.write("job.test.yaml", FIXTURES);
    let said = world.call(&["test", "-o", "json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let rows = json_lines(&said.stdout);
    assert_eq!((&rows[0]["case"], &rows[0]["passed"]), (&json!("an order is counted"), &json!(true)));
    assert_eq!(rows[1]["differences"], json!(["books.processed: 2 expected, 1 came"]));
    assert_eq!((&rows[2]["passed"], &rows[2]["differences"]), (&json!(true), &json!([])));
    let differences = [
        r#"outputs.orders.good[0].key: nothing expected, "c" came"#,
        r#"outputs.orders.good[0].value: nothing expected, {"amount":2} came"#,
        r#"outputs.orders.good[0].headers.trace: "x" expected, nothing came"#,
        r#"state.customers.c: nothing expected, {"amount":2,"orders":1} came"#,
        r#"state.customers.d: {"orders":1} expected, nothing came"#,
    ];
    assert_eq!(rows[3]["differences"], json!(differences));
    assert_eq!(rows[4], json!({"casesPassed": 2, "casesFailed": 2}));
}

/// Method: what a command prints is read by somebody who has enough after one line.
#[test]
fn a_reader_that_leaves_is_no_error() {
    let world = World::new();
    world.produce("orders", orders("ann", 1..20_000));
    let mut command = world.command(&["log", "consume", "--topic", "orders", "--from-beginning"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let said = crate::support::said(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
}

/// Method: every flag of a run by its variable, and the same flags as arguments over them.
#[test]
fn the_environment_configures_a_run_and_arguments_override_it() {
    let world = world();
    let set = [
        ("FOREBAY_SHARDS", "0"),
        ("FOREBAY_THREADS", "1"),
        ("FOREBAY_MEMORY", "256Mi"),
        ("FOREBAY_UNTIL_END", "true"),
        ("FOREBAY_CHECKPOINT_ON_STOP", "yes"),
        ("FOREBAY_LOG_JSON", "1"),
        ("FOREBAY_OUTPUT", "json"),
        ("FOREBAY_WORKER", "w"),
        ("FOREBAY_METRICS", "127.0.0.1:0"),
        ("FOREBAY_STATE_DIR", world.path("elsewhere").to_str().unwrap()),
        ("FOREBAY_STORE", world.path("objects").to_str().unwrap()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let run = |arguments: &[&str]| crate::support::said(world.command(arguments).envs(set.clone()).output().unwrap());
    let said = run(&["run"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.lines().all(|line| line.starts_with('{')), "the log is not JSON: {}", said.stderr);
    assert!(said.stderr.contains("metrics are served") && said.stderr.contains("checkpoint uploaded"), "{}", said.stderr);
    assert!(is_filled(&world.path("elsewhere/shard-0")) && !world.path("elsewhere/shard-1").exists());
    assert!(is_filled(&world.path("objects/default/orders")));
    assert_eq!(json_lines(&said.stdout)[0]["in"], 5, "both customers are of shard 0");
    let said = run(&["run", "--shards", "1"]);
    assert_eq!(json_lines(&said.stdout)[0]["in"], 0, "{said:?}");

    let wrong = [("FOREBAY_THREADS", "0"), ("FOREBAY_CHECKPOINT_ON_STOP", "perhaps"), ("FOREBAY_MEMORY", "much"), ("FOREBAY_SHARDS", "7")];
    for (name, value) in wrong {
        let said = crate::support::said(
            world.command(&["run", "--until-end"]).env("FOREBAY_STORE", world.path("objects")).env(name, value).output().unwrap(),
        );
        let flag = name.trim_start_matches("FOREBAY_").to_lowercase().replace('_', "-");
        assert_eq!(said.code, Some(2), "{name}={value}: {said:?}");
        assert!(said.stderr.contains(&format!("--{flag}")) && said.stderr.contains(value), "{name}={value}: {said:?}");
    }
}
