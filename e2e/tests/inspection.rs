//! Promise: what a job has can be looked at while it runs and afterwards, here and from S3 alone; a planned stop leaves next to no journal; dead
//! letters are put back once, however often the replay is killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, SHARDS, records};
use forebay_e2e::kafka::Feeder;
use forebay_e2e::{PATIENCE, in_folder, until};
use rdkafka::message::Message;
use serde_json::{Value, json};

/// Records of a journal that come behind a checkpoint before its owner has stopped: the list that names it, garbage that it found, the release,
/// each with the marker of its transaction, and an epoch that was open.
const JOURNAL_BEHIND_CHECKPOINT_MAX: u64 = 12;

/// What a replay says that finds nothing to do.
const NONE_PUT_BACK: &str = "0 dead letters are put back";

fn json_lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn sum(rows: &[Value], field: &str) -> u64 {
    rows.iter().filter_map(|row| row["books"][field].as_u64()).sum()
}

/// Method: every command that looks at a job, on its running process, after its end, and on a machine that has nothing but the bucket. Then the
/// job is started there.
#[test]
fn a_job_is_looked_at_while_it_runs_and_from_elsewhere_afterwards() -> Result<()> {
    in_folder("inspection", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let records = records(20_000)?;
        flights.feed(&records)?;
        let here = flights.state_dir("one");
        let at_home = flights.forebay.clone().with("FOREBAY_STATE_DIR", here.to_str().context("a path of text")?);
        let elsewhere = flights.forebay.clone().with("FOREBAY_STATE_DIR", folder.join("nothing").to_str().context("a path of text")?);

        let running = flights.forebay.run("one", &here, &["--checkpoint-on-stop"])?;
        running.wait_until_metric("forebay_records_total", records.len() as f64)?;
        let shards = json_lines(&at_home.ask(&["state", "ls", "-o", "json"])?)?;
        ensure!(shards.iter().any(|row| row["table"] == "aircraft"), "{shards:?}");
        at_home.ask(&["state", "scan", "--limit", "1"])?;
        at_home.ask(&["books"])?;
        at_home.ask(&["snapshot", "ls"])?;
        at_home.ask(&["snapshot", "verify"])?;
        let rejected = running.labelled_metric("forebay_records_total", "verdict=\"rejected\"")? as u64;
        // The broker writes a transaction's markers a moment after it has confirmed it, and until then committed readers do not see its records.
        until(&format!("{rejected} dead letters are listed"), PATIENCE, || {
            let letters = json_lines(&at_home.ask(&["dlq", "ls", "-o", "json"])?)?.len() as u64;
            ensure!(letters <= rejected, "{letters} dead letters are listed, {rejected} records were rejected");
            Ok((letters == rejected).then_some(()))
        })?;
        let dry = json_lines(&at_home.ask(&["dlq", "replay", "--dry-run", "-o", "json"])?)?;
        ensure!(dry.last() == Some(&json!({"letters": rejected, "dryRun": true})), "{dry:?}");
        running.stop()?;

        let books: Value = serde_json::from_str(&at_home.ask(&["books", "-o", "json"])?)?;
        ensure!(books["in"] == records.len() && books["rejected"] == rejected, "{books}");
        let from_store: Value = serde_json::from_str(&elsewhere.ask(&["books", "--from-store", "-o", "json"])?)?;
        ensure!(from_store == books, "the checkpoints say {from_store}, the databases {books}");
        let scan = |forebay: &forebay_e2e::job::Forebay, more: &[&str]| -> Result<Vec<String>> {
            let printed = forebay.ask(&[&["state", "scan", "-o", "json"], more].concat())?;
            let mut rows: Vec<String> = printed.lines().map(str::to_owned).collect();
            rows.sort();
            Ok(rows)
        };
        let rows = scan(&at_home, &[])?;
        ensure!(!rows.is_empty() && rows == scan(&elsewhere, &["--from-store"])?, "the checkpoints hold another state than the databases");
        let first = json_lines(&rows.iter().find(|row| row.contains("\"aircraft\"")).context("an aircraft")?.clone())?.remove(0);
        let key = first["key"].as_str().context("a key")?;
        let got = json_lines(&elsewhere.ask(&["state", "get", "aircraft", key, "--from-store", "-o", "json"])?)?;
        ensure!(got == [first], "{got:?}");

        let checkpoints = json_lines(&elsewhere.ask(&["snapshot", "ls", "-o", "json"])?)?;
        let newest: BTreeMap<u64, u64> =
            checkpoints.iter().filter_map(|row| Some((row["shard"].as_u64()?, row["journal"].as_u64()?))).collect();
        let ends = flights.broker.ranges(&format!("forebay.default.{}.0.journal", flights.name))?;
        for (shard, journal) in newest {
            let behind = ends[usize::try_from(shard)?].1 - journal;
            ensure!(behind <= JOURNAL_BEHIND_CHECKPOINT_MAX, "shard {shard} has {behind} journal offsets behind its last checkpoint");
        }
        ensure!(sum(&checkpoints, "in") >= records.len() as u64, "{checkpoints:?}");
        elsewhere.ask(&["snapshot", "inspect", "--shard", "2", "-o", "json"])?;

        let mut moved = flights.forebay.run("two", &flights.state_dir("two"), &["--until-end"])?;
        moved.success()?;
        let restored = moved.lines().iter().filter(|line| line.message() == "restored from a checkpoint").count();
        ensure!(restored == SHARDS as usize, "{restored} shards were restored from a checkpoint");
        flights.check(&records, &["two"])
    })
}

/// Method: a job that is over is cleaned up, first said and then done, as JSON; the broker and the bucket tell what is left.
#[test]
fn what_a_job_has_left_is_said_and_then_deleted() -> Result<()> {
    in_folder("cleanup", |folder| {
        let (flights, s3) = Flights::on_shared_servers(folder)?;
        flights.feed(&records(2_000)?)?;
        flights.forebay.run("one", &flights.state_dir("one"), &["--until-end", "--checkpoint-on-stop"])?.success()?;
        flights.forebay.ask(&["savepoint", "take", "--name", "before"])?;
        let counts = flights.counts()?;
        let cleanup = |more: &[&str]| -> Result<Value> {
            Ok(serde_json::from_str(&flights.forebay.ask(&[&["cleanup", "-o", "json"], more].concat())?)?)
        };
        let (kept, its): (Vec<_>, Vec<_>) = s3.list(&flights.prefix())?.into_iter().partition(|key| key.contains("/savepoints/"));
        ensure!(!kept.is_empty() && !its.is_empty(), "{kept:?} {its:?}");
        let bytes = its.iter().map(|key| Ok(s3.get(key)?.len())).sum::<Result<usize>>()?;
        let mut left = json!({
            "journals": [flights.journal()],
            "group": format!("forebay.default.{}", flights.name),
            "objects": its.len(),
            "bytes": bytes,
            "others": [],
            "deleted": false,
        });
        let said = cleanup(&[])?;
        ensure!(said == left, "it says {said} and not {left}");
        left["deleted"] = json!(true);
        let said = cleanup(&["--delete"])?;
        ensure!(said == left, "it says {said} and not {left}");
        let nothing = json!({"journals": [], "group": null, "objects": 0, "bytes": 0, "others": [], "deleted": false});
        let said = cleanup(&[])?;
        ensure!(said == nothing, "it left {said}");
        ensure!(s3.list(&flights.prefix())? == kept, "the bucket holds {:?}", s3.list(&flights.prefix())?);
        ensure!(flights.processed()? == 0, "the group has offsets");
        ensure!(flights.counts()? == counts, "inputs and outputs are {:?}", flights.counts()?);
        Ok(())
    })
}

/// Method: many transactions' worth of letters of two steps; replays are killed in the middle, each after one more transaction, the last one
/// runs through. Each letter must be in the input twice then: as it came, and put back. The job works them off, and the oracle judges.
#[test]
fn a_replay_that_is_killed_puts_each_letter_back_once() -> Result<()> {
    in_folder("replay", |folder| {
        let flights = with_letters(folder)?;
        let mut kills = 0;
        for (transactions, arguments) in [(1, &["--step", "validate"][..]), (1, &[]), (2, &[])] {
            kills += usize::from(kill_replay(&flights, transactions, arguments)?);
        }
        ensure!(kills == 3, "the letters were too few for all kills: {kills}");
        flights.forebay.ask(&["dlq", "replay"])?;
        ensure!(flights.forebay.ask(&["dlq", "replay"])?.trim() == NONE_PUT_BACK, "a repeated replay put something back");
        each_letter_is_there_twice(&flights)?;
        // To the job the letters that were put back are records like others, of which it makes letters once more.
        flights.run_until_end("one")?;
        flights.check_some(&flights.input_where(|_, _| true)?, &["one"])
    })
}

/// Method: a replay is stopped after its first transaction, as by a machine that hangs; another one runs from there to its end; then the first one is
/// woken, and must say that it was overtaken.
#[test]
fn of_two_replays_at_once_the_later_one_goes_on_and_each_letter_is_put_back_once() -> Result<()> {
    in_folder("replays", |folder| {
        let flights = with_letters(folder)?;
        let (mut first, mut said, committed) = begin_replay(&flights, 1, &["--step", "parse"])?;
        ensure!(committed == 1, "it ended before its first transaction");
        let signal = |name: &str| Command::new("kill").args([format!("-{name}"), first.id().to_string()]).status();
        ensure!(signal("STOP")?.success());
        let second = flights.forebay.ask(&["dlq", "replay", "--step", "parse"]);
        ensure!(signal("CONT")?.success());
        ensure!(second?.trim() != NONE_PUT_BACK, "the first one had put all back");
        let mut rest = String::new();
        said.read_to_string(&mut rest)?;
        let code = first.wait()?.code();
        // It may have slept past its own deadline.
        let words = ["another replay of this job was started", "call it again for the rest"];
        ensure!(code != Some(0) && words.iter().any(|words| rest.contains(words)), "the first one ended with {code:?}: {rest}");
        flights.forebay.ask(&["dlq", "replay"])?;
        each_letter_is_there_twice(&flights)
    })
}

/// A job that has made 240 dead letters, of two steps, too large for one transaction.
fn with_letters(folder: &Path) -> Result<Flights> {
    let (flights, _s3) = Flights::on_shared_servers(folder)?;
    let feeder = Feeder::new(&flights.broker, &flights.input())?;
    let filler = "x".repeat(100 << 10);
    for number in 0..120 {
        feeder.put(Some(b"N14228"), Some(format!("no JSON {number} {filler}").as_bytes()), Some(1_388_534_400_000))?;
        let invalid = format!(r#"{{"id": "{number}", "tailnum": "N14228", "filler": "{filler}"}}"#);
        feeder.put(Some(b"N14228"), Some(invalid.as_bytes()), Some(1_388_534_400_000))?;
    }
    feeder.flush()?;
    flights.run_until_end("one")?;
    Ok(flights)
}

/// Each letter of [`with_letters`]: as it came, and put back.
fn each_letter_is_there_twice(flights: &Flights) -> Result<()> {
    let mut found: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    flights.broker.read(&flights.input(), |message| {
        *found.entry(message.payload().unwrap_or_default()[..40].to_vec()).or_default() += 1;
        Ok(())
    })?;
    ensure!(found.len() == 240, "{} letters", found.len());
    ensure!(found.values().all(|count| *count == 2), "{:?}", found.values().collect::<Vec<_>>());
    Ok(())
}

/// Starts a replay and waits for so many transactions, or its end; returns how many there were, and what it says from there on.
fn begin_replay(flights: &Flights, transactions: usize, arguments: &[&str]) -> Result<(Child, BufReader<ChildStderr>, usize)> {
    let mut command: Command = flights.forebay.command(&[&["dlq", "replay"], arguments].concat())?;
    let mut child = command.env("RUST_LOG", "forebay=debug").stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut stderr = BufReader::new(child.stderr.take().context("a pipe was asked for")?);
    let lines = stderr.by_ref().lines().map_while(std::result::Result::ok);
    let committed = lines.filter(|line| line.contains("dead letters are put back")).take(transactions).count();
    Ok((child, stderr, committed))
}

/// Kills a replay right after so many transactions; false when it ended before.
fn kill_replay(flights: &Flights, transactions: usize, arguments: &[&str]) -> Result<bool> {
    let (mut child, _said, committed) = begin_replay(flights, transactions, arguments)?;
    let alive = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    Ok(alive && committed == transactions)
}
