//! Promise: what cannot work is refused with the documented exit code and a message that names field, value and way out; what the job has is
//! not touched. Here on the embedded log; e2e/tests/bad_input.rs does the same on real servers.

use std::fs;

use crate::support::{Said, World, orders};

const UNUSABLE: Option<i32> = Some(2);
const FAILED: Option<i32> = Some(1);

fn check(said: &Said, code: Option<i32>, needed: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    for needed in needed {
        assert!(said.stderr.contains(needed), "{needed:?} is not in {said:?}");
    }
    assert!(!said.stderr.contains("panicked"), "{said:?}");
}

/// A job that has run over two orders.
fn world() -> World {
    let world = World::new();
    world.produce("orders", orders("ann", [1, 2]));
    world.ask(&["run", "--until-end"]);
    world
}

/// Method: the manifest changed in one place; then as it was, on the same state, which must be as before and go on.
#[test]
fn a_manifest_that_contradicts_the_state_is_refused_with_the_difference() {
    let world = world();
    let before = world.ask(&["state", "ls"]);
    for (from, to, needed) in [
        ("shards: 2", "shards: 4", &["job.yaml:5:11: spec.shards", "2", "4"][..]),
        ("topic: orders}", "topic: other}", &["job.yaml:7:29: spec.inputs[0].topic", "orders", "other"]),
        ("- {name: orders, topic: orders}", "- {name: other, topic: orders}", &["spec.inputs", "orders", "other"]),
        (
            "- {name: orders, topic: orders}",
            "- {name: orders, topic: orders}\n    - {name: more, topic: more}",
            &["spec.inputs[1]", "more"],
        ),
        (
            "    - upsert:\n        table: customers\n        increment: {orders: 1, amount: .amount}\n",
            "    - dedup: {by: [.amount], last: 10, table: customers}\n",
            &["spec.pipeline[2].dedup.table", "holds entities", "give it a table that has never been used"],
        ),
        (
            "table: customers\n",
            "table: customers\n        key: .customer\n",
            &["spec.pipeline[2].upsert.key: was the record's key, is `.customer`", "give it a table that has never been used"],
        ),
    ] {
        world.change_job(from, to);
        check(&world.call(&["run", "--until-end"]), UNUSABLE, &[&["the manifest cannot work"], needed].concat());
    }
    world.write("job.yaml", crate::support::JOB);
    assert_eq!(world.ask(&["state", "ls"]), before);
    world.produce("orders", orders("ann", [3]));
    assert_eq!(world.ask(&["run", "--until-end"]), "3 in = 3 processed\n");
}

/// Method: a job finds its entities by another key than the one whose savepoint it begins with; a table is written by nobody for a while, and then by another key.
/// With its own key each goes on.
#[test]
fn another_key_is_refused_to_an_heir_and_after_a_while_without_the_step() {
    let world = world();
    let (table, without) = ("    - upsert:\n        table: customers\n        increment: {orders: 1, amount: .amount}\n", "");
    let other_key = table.replace("customers\n", "customers\n        key: .customer\n");
    let refused = ["the manifest cannot work", "upsert.key: was the record's key, is `.customer`", "make a job of another name"];
    world.ask(&["savepoint", "take", "--name", "before", "--at-rest"]);

    world.change_job(table, without);
    world.produce("orders", orders("ann", [3]));
    assert_eq!(world.ask(&["run", "--until-end"]), "3 in = 3 processed\n");
    world.change_job(table, &other_key);
    check(&world.call(&["run", "--until-end"]), UNUSABLE, &refused);
    world.write("job.yaml", crate::support::JOB);
    assert_eq!(world.ask(&["run", "--until-end"]), "3 in = 3 processed\n");

    let heir = |table_of: &str| {
        let manifest = crate::support::JOB.replace("name: orders, namespace", "name: heirs, namespace").replace(table, table_of);
        world.write("job.yaml", &manifest.replace("spec:\n", "spec:\n  state: {fromSavepoint: default/orders/before}\n"));
        let state = world.path("heirs");
        world.call(&["run", "--until-end", "--state-dir", state.to_str().unwrap()])
    };
    check(&heir(&other_key), UNUSABLE, &refused);
    assert!(!world.path("data/store/default/heirs/identity").exists());
    assert_eq!(heir(table).stdout, "3 in = 3 processed\n");
}

/// Method: what the object store knows of the job is taken away, then all of the store, while the journal stays; and the pipeline has one more table in
/// front, so that the numbers of tables would mean others. With its objects back the job goes on.
#[test]
fn a_journal_of_a_job_that_the_store_does_not_know_is_refused() {
    let world = world();
    let before = world.ask(&["state", "ls"]);
    let (store, away) = (world.path("data/store"), world.path("away"));
    let refused = || {
        let table = "    - upsert: {table: sizes, max: {largest: .amount}}\n    - upsert:\n        table: customers";
        world.change_job("    - upsert:\n        table: customers", table);
        let needed =
            ["forebay.default.orders.0.journal has records", "identity/ is missing", "--store", "name another working folder, by --dir"];
        check(&world.call(&["run", "--until-end"]), UNUSABLE, &needed);
        world.write("job.yaml", crate::support::JOB);
    };
    for folder in ["default/orders/identity", "default"] {
        fs::rename(store.join(folder), &away).unwrap();
        refused();
        let _ = fs::remove_dir_all(store.join(folder));
        fs::rename(&away, store.join(folder)).unwrap();
    }
    assert_eq!(world.ask(&["state", "ls"]), before);
    world.produce("orders", orders("ann", [3]));
    assert_eq!(world.ask(&["run", "--until-end"]), "3 in = 3 processed\n");
}

/// Method: the same with a job that began with a savepoint, which outlives what the store knew of the job: it must not begin with it once more.
#[test]
fn a_journal_of_a_job_that_began_with_a_savepoint_is_refused_as_well() {
    let world = world();
    world.ask(&["savepoint", "take", "--name", "before", "--at-rest"]);
    let heir = crate::support::JOB.replace("name: orders, namespace", "name: heirs, namespace");
    world.write("job.yaml", &heir.replace("spec:\n", "spec:\n  state: {fromSavepoint: default/orders/before}\n"));
    let state = world.path("heirs");
    let run = ["run", "--until-end", "--state-dir", state.to_str().unwrap()];
    world.produce("orders", orders("ann", [3]));
    assert_eq!(world.ask(&run), "3 in = 3 processed\n");
    fs::remove_dir_all(world.path("data/store/default/heirs")).unwrap();
    check(&world.call(&run), UNUSABLE, &["forebay.default.heirs.0.journal has records", "identity/ is missing"]);
    assert!(!world.path("data/store/default/heirs/identity").exists());
}

/// Method: the journal is there and nothing else, as a process leaves it that dies when it has made it.
#[test]
fn an_empty_journal_is_that_of_a_job_that_has_never_run() {
    let world = World::new();
    world.produce("orders", orders("ann", [1, 2]));
    let mut produce = world.command(&["log", "produce", "--topic", "forebay.default.orders.0.journal", "--partitions", "2"]);
    assert!(produce.status().unwrap().success());
    assert_eq!(world.ask(&["run", "--until-end"]), "2 in = 2 processed\n");
}

/// Method: another pipeline, another table, another interval, a `startFrom`: all of it goes on with the state as it is.
#[test]
fn a_manifest_that_agrees_with_the_state_goes_on() {
    let world = world();
    world.change_job("min: 1}", "min: 3}");
    world.produce("orders", orders("ann", [2, 3]));
    assert_eq!(world.ask(&["run", "--until-end"]), "4 in = 3 processed + 1 rejected\n");
    world.change_job("    - emit: {topic: orders.good}\n", "    - upsert: {table: sizes, max: {largest: .amount}}\n");
    world.produce("orders", orders("ann", [9]));
    assert_eq!(world.ask(&["run", "--until-end"]), "5 in = 4 processed + 1 rejected\n");
    let value = |table: &str| world.ask_json(&["state", "get", table, "ann"])[0]["value"].clone();
    assert_eq!(value("customers"), serde_json::json!({"orders": 4, "amount": 15}));
    assert_eq!(value("sizes"), serde_json::json!({"largest": 9}));
    world.change_job("{name: orders, topic: orders}", "{name: orders, topic: orders, startFrom: latest}");
    assert_eq!(world.ask(&["run", "--until-end"]), "5 in = 4 processed + 1 rejected\n");
}

/// Method: two inputs change places under a job that has state. Each goes on where it was, and so it does when they are back in their places.
#[test]
fn inputs_that_change_places_go_on_where_they_were() {
    let world = World::new();
    let inputs = |first: &str, second: &str| {
        let line = |name: &str| format!("    - {{name: {name}, topic: {name}}}\n");
        world.change_job("    - {name: orders, topic: orders}\n", &format!("{}{}", line(first), line(second)));
    };
    inputs("orders", "returns");
    world.produce("orders", orders("ann", [1, 2, 3]));
    world.produce("returns", orders("ann", [10]));
    assert_eq!(world.ask(&["run", "--until-end"]), "4 in = 4 processed\n");
    let revision = || world.ask_json(&["validate"])[0]["revision"].clone();
    let before = revision();
    inputs("returns", "orders");
    assert_eq!(revision(), before, "the order of the inputs decides nothing");
    assert_eq!(world.ask(&["run", "--until-end"]), "4 in = 4 processed\n", "a record was read twice");
    world.produce("returns", orders("ann", [20, 30]));
    world.produce("orders", orders("ann", [4]));
    assert_eq!(world.ask(&["run", "--until-end"]), "7 in = 7 processed\n");
    inputs("orders", "returns");
    assert_eq!(world.ask(&["run", "--until-end"]), "7 in = 7 processed\n", "a record was read twice");
    assert_eq!(world.ask_json(&["state", "get", "customers", "ann"])[0]["value"], serde_json::json!({"orders": 7, "amount": 70}));
}

/// Method: a job that has never run, with an expression that does not compile, then with more shards than its memory has room for, each time with other shards and
/// another name of its input; then as it should be.
#[test]
fn a_job_that_has_never_run_may_be_repaired_in_what_is_frozen_later() {
    let world = World::new();
    world.produce("orders", orders("ann", [1, 2]));
    let other = |shards: &str, amount: &str| {
        let text = crate::support::JOB.replace("shards: 2", shards).replace("name: orders, topic", "name: other, topic");
        world.write("job.yaml", &text.replace("amount: .amount}", amount));
    };
    other("shards: 3", "amount: .amount +}");
    check(&world.call(&["run", "--until-end"]), UNUSABLE, &["spec.pipeline[2].upsert.increment.amount"]);
    other("shards: 1000", "amount: .amount}");
    check(&world.call(&["run", "--until-end", "--memory", "256Mi"]), UNUSABLE, &["1000 shards in one process need", "spec.shards"]);
    world.write("job.yaml", crate::support::JOB);
    assert_eq!(world.ask(&["run", "--until-end"]), "2 in = 2 processed\n");
}

/// Method: another job on the state folder, then on the whole working folder; then the first one again.
#[test]
fn a_state_folder_of_another_job_is_refused() {
    let world = world();
    let before = world.ask(&["state", "ls"]);
    world.change_job("name: orders, namespace", "name: others, namespace");
    check(&world.call(&["run", "--until-end"]), UNUSABLE, &["data/state", "job default.orders", "not of default.others", "--state-dir"]);
    check(&world.call(&["state", "ls"]), UNUSABLE, &["data/state", "job default.orders", "not of default.others", "--state-dir"]);
    check(&world.call(&["snapshot", "ls"]), UNUSABLE, &["default/others has never run", "--store", "--dir"]);
    let elsewhere = world.path("elsewhere");
    let elsewhere = elsewhere.to_str().unwrap();
    assert_eq!(world.ask(&["run", "--until-end", "--state-dir", elsewhere]), "2 in = 2 processed\n", "with a folder of its own it runs");
    world.write("job.yaml", crate::support::JOB);
    assert_eq!(world.ask(&["state", "ls"]), before);
}

/// Method: a byte of a checkpoint's largest file is changed, and the disk is lost. `verify` must tell it, and the restore fall back.
#[test]
fn a_corrupt_checkpoint_is_told_and_passed_over() {
    let world = world();
    for amount in 3..6 {
        world.produce("orders", orders("ann", [amount]));
        world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    }
    let newest =
        world.ask_json(&["snapshot", "ls"]).into_iter().max_by_key(|row| (row["books"]["in"].as_u64(), row["epoch"].as_u64())).unwrap();
    let (shard, epoch) = (newest["shard"].to_string(), newest["epoch"].to_string());
    let inspected = world.ask_json(&["snapshot", "inspect", "--shard", &shard, "--epoch", &epoch]);
    let files = inspected[0]["files"].as_array().unwrap();
    let table = files.iter().find(|file| file["name"].as_str().unwrap().ends_with(".sst")).unwrap();
    let object = world.path("data/store/default/orders/default.orders/0").join(table["object"].as_str().unwrap());
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&object).unwrap();
    fs::write(&object, bytes).unwrap();

    let verify = world.call(&["snapshot", "verify"]);
    check(&verify, FAILED, &["1 objects are damaged", "a restore falls back to the checkpoint before"]);
    assert!(verify.stdout.contains(&format!("shard {shard} epoch {epoch}: {}", table["object"].as_str().unwrap())), "{verify:?}");
    assert!(verify.stdout.contains("CRC-32"), "{verify:?}");

    // A manifest that cannot be read hides nothing of the rest.
    let folder = world.path("data/store/default/orders/default.orders/0/checkpoints").join(&shard);
    let unreadable = folder.join("00000000000000000001-nobody.json");
    fs::write(&unreadable, "{").unwrap();
    let verify = world.call(&["snapshot", "verify"]);
    check(&verify, FAILED, &["2 objects are damaged"]);
    let object = format!("checkpoints/{shard}/00000000000000000001-nobody.json");
    assert!(verify.stdout.contains(&format!("shard {shard} epoch 1: {object}: not a manifest")), "{verify:?}");
    assert!(verify.stdout.contains(&format!("shard {shard} epoch {epoch}: {}", table["object"].as_str().unwrap())), "{verify:?}");
    let listed = world.call(&["snapshot", "ls"]);
    check(&listed, FAILED, &[&object, "1 manifests cannot be read"]);
    assert!(listed.stdout.contains(&format!("shard {shard}  epoch {epoch}")), "{listed:?}");
    assert_eq!(world.ask_json(&["snapshot", "inspect", "--shard", &shard, "--epoch", &epoch]), inspected);
    fs::remove_file(unreadable).unwrap();

    fs::remove_dir_all(world.path("data/state")).unwrap();
    let run = world.call(&["run", "--until-end"]);
    check(&run, Some(0), &["checkpoint cannot be used; falling back to the one before", table["object"].as_str().unwrap()]);
    assert_eq!(run.stdout, "5 in = 5 processed\n");
    assert_eq!(world.ask_json(&["state", "get", "customers", "ann"])[0]["value"], serde_json::json!({"orders": 5, "amount": 15}));
}

#[test]
fn wrong_usage_names_what_to_write() {
    let world = world();
    let unusable = |arguments: &[&str], needed: &[&str]| check(&world.call(arguments), UNUSABLE, needed);
    unusable(&["run", "--shards", "1-9"], &["--shards 1-9", "0 to 1"]);
    unusable(&["run", "--store", "ftp://x/y"], &["ftp://x/y", "s3://BUCKET/PREFIX"]);
    unusable(&["run", "--s3-path-style=perhaps", "--store", "s3://b/p"], &["--s3-path-style", "perhaps"]);
    unusable(&["run", "--worker", "a/b"], &["--worker", "a/b", "letters, digits"]);
    unusable(&["worker", "--worker", ""], &["--worker", "letters, digits"]);
    unusable(&["run", "-f", "no-such.yaml"], &["no-such.yaml", "-f"]);
    unusable(&["state", "get", "nobody", "ann"], &["there is no table nobody", "customers"]);
    unusable(&["snapshot", "ls", "--shard", "7"], &["--shard 7", "0 to 1"]);
    unusable(&["snapshot", "inspect", "--epoch", "999999"], &["no such checkpoint", "snapshot ls"]);
    unusable(&["validate", "-o", "xml"], &["xml", "json"]);
    check(&world.call(&["state", "get", "customers", "nobody"]), FAILED, &["no entity nobody", "state scan"]);
    let consume = ["log", "consume", "--topic", "nothing", "--until-end"];
    unusable(&consume, &["--from-beginning"]);
    unusable(&[&consume[..], &["--from-beginning"]].concat(), &["topic nothing", "does not exist", "forebay log produce"]);
}

/// Method: a good record before each bad line; the topic has none of them afterwards.
#[test]
fn a_line_that_is_no_record_is_named_and_nothing_is_put() {
    let world = World::new();
    let path = world.path("records.jsonl");
    let produce = ["log", "produce", "--topic", "orders", "--input", path.to_str().unwrap()];
    for (line, needed) in [
        ("{", "EOF"),
        (r#"{"key": 5}"#, r#"keys and values are text, null, or {"base64": "…"} at line 1 column 10"#),
        (r#"{"value": "x", "time": 5}"#, "unknown field `time`, expected one of"),
        (r#"{"value": {"base64": "?"}}"#, r#""?" is not base64: Invalid symbol"#),
        (r#"{"value": "x", "headers": {"h": {"base64": "?"}}}"#, r#""?" is not base64: Invalid symbol"#),
    ] {
        fs::write(&path, format!("{{\"value\": \"good\"}}\n{line}\n")).unwrap();
        check(&world.call(&produce), UNUSABLE, &["records.jsonl:2: not a record: ", needed]);
    }
    let consume = ["log", "consume", "--topic", "orders", "--from-beginning", "--until-end"];
    assert_eq!(world.ask(&consume), "");
    // What is printed can be put again.
    fs::write(&path, r#"{"value": {"base64": "/w=="}, "key": "k", "timestamp": 5, "headers": {"h": null}}"#).unwrap();
    world.ask(&produce);
    let printed = world.ask(&consume);
    fs::write(&path, &printed).unwrap();
    world.ask(&produce);
    assert_eq!(world.ask(&consume), printed.clone() + &printed.replace("\"offset\":0", "\"offset\":1"));
}

/// Method: a job whose input is not there, then one that reads a topic with another number of partitions.
#[test]
fn topics_that_do_not_fit_are_named() {
    let world = World::new();
    let missing = ["spec.inputs[0].topic: ", "topic orders", "does not exist", "forebay log produce --topic orders"];
    check(&world.call(&["run", "--until-end"]), UNUSABLE, &missing);
    world.produce("orders", orders("ann", [1]));
    let narrow = world.command(&["log", "produce", "--topic", "narrow", "--partitions", "3"]).output().unwrap();
    assert!(narrow.status.success());
    world.change_job("- {name: orders, topic: orders}", "- {name: orders, topic: orders}\n    - {name: narrow, topic: narrow}");
    let uneven = ["job.yaml:8:", "spec.inputs[1].topic: topic narrow has 3 partitions and orders has 4", "equal counts"];
    check(&world.call(&["run", "--until-end"]), UNUSABLE, &uneven);
}
