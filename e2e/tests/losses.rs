//! Promise: damaged checkpoints are survived; what is gone for good, or was made anew under its name, is said and never skipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, PARTITIONS, SHARDS, every_second, records, replaced};
use forebay_e2e::job::Process;
use forebay_e2e::kafka::{Broker, Record};
use forebay_e2e::s3::S3;
use forebay_e2e::{PATIENCE, in_folder, until};
use serde_json::Value;

/// The exit code of a process that was to work all off, and a shard of which needs help.
const STALLED: Option<i32> = Some(4);

/// Method: records that the job has not read yet are deleted from one partition.
#[test]
fn deleted_input_stops_its_shard_and_is_named() -> Result<()> {
    in_folder("deleted", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let records = records(20_000)?;
        flights.feed(&records[..10_000])?;
        flights.run_until_end("one")?;
        let before = flights.shards(&flights.state_dir("one"))?;
        let ends = flights.broker.ranges(&flights.input())?;
        let position = ends[3].1;
        flights.feed(&records[10_000..])?;
        let can_be_read = |partition: u32, offset: u64| partition % SHARDS != 3 || offset < ends[partition as usize].1;
        let input = flights.input_where(can_be_read)?;
        let end = flights.broker.ranges(&flights.input())?[3].1;
        ensure!(end > position + 10, "too few records for this test: {position} to {end}");
        flights.broker.delete_records(&flights.input(), 3, position + 10)?;

        let job = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        let said = job.wait_for("the shard's failure", |line| line.message() == "shard is stalled: it needs help")?;
        let reason = said.field("reason").unwrap_or_default().to_owned();
        for needed in [format!("{}-3", flights.input()), position.to_string(), (position + 10).to_string()] {
            ensure!(reason.contains(&needed), "{needed} is not named: {reason}");
        }
        // The other shards are held up by nothing.
        let ends = flights.broker.ranges(&flights.input())?;
        let others: u64 = (0..).zip(ends).filter(|(partition, _)| partition % SHARDS != 3).map(|(_, (_, end))| end).sum();
        job.wait_until_metric("forebay_records_total", others as f64)?;
        job.wait_until_metric_is("forebay_shard_running", f64::from(SHARDS - 1))?;
        job.wait_until_metric_is("forebay_shard_stalled", 1.0)?;
        let ready = job.http("/readyz")?;
        ensure!(ready.starts_with("HTTP/1.1 503") && ready.contains(&format!("shard 3 is stalled: {reason}")), "/readyz says: {ready}");
        let health = job.http("/healthz")?;
        ensure!(health.starts_with("HTTP/1.1 200"), "a shard that waits for help is no reason to start the process anew: {health}");
        job.stop()?;
        let mut to_the_end = flights.forebay.run("one", &flights.state_dir("one"), &["--until-end"])?;
        let code = to_the_end.exit()?;
        ensure!(code == STALLED, "it ended with {code:?} instead of {STALLED:?}:\n{}", to_the_end.tail());
        ensure!(to_the_end.tail().contains(&reason), "its last words do not name the reason: {}", to_the_end.tail());
        let after = flights.shards(&flights.state_dir("one"))?;
        ensure!(after.get(&3) == before.get(&3), "shard 3 went on: {:?}, before {:?}", after.get(&3), before.get(&3));
        ensure!((0..3).all(|shard| after.get(&shard) != before.get(&shard)), "a shard did not go on: {after:?}, before {before:?}");
        flights.check_some(&input, &["one"])
    })
}

/// Method: partitions are added to the input of a job that has state, and it is started again.
#[test]
fn partitions_that_were_added_stop_their_shards_and_are_named() -> Result<()> {
    in_folder("wider", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let records = records(5_000)?;
        flights.feed(&records)?;
        flights.run_until_end("one")?;
        let partitions = u32::try_from(flights.broker.ranges(&flights.input())?.len())?;
        flights.broker.add_partitions(&flights.input(), partitions + 1)?;

        let job = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        let said = job.wait_for("the shard's failure", |line| line.message() == "shard is stalled: it needs help")?;
        let reason = said.field("reason").unwrap_or_default().to_owned();
        for needed in [flights.input(), format!("partition {partitions} was not there"), "with another name".to_owned()] {
            ensure!(reason.contains(&needed), "{needed} is not said: {reason}");
        }
        ensure!(said.field("shard") == Some((partitions % SHARDS).to_string().as_str()), "another shard stopped: {reason}");
        job.wait_until_metric_is("forebay_shard_running", f64::from(SHARDS - 1))?;
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// Method: partitions are added to the input of a job that runs. All shards must stop before they miss a record, for keys have moved.
#[test]
fn partitions_that_are_added_while_the_job_runs_stop_it_and_are_named() -> Result<()> {
    in_folder("widened", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let records = records(5_000)?;
        flights.feed(&records)?;
        let job = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        job.wait_until_metric("forebay_records_total", records.len() as f64)?;
        flights.broker.add_partitions(&flights.input(), PARTITIONS + 1)?;
        let said = job.wait_for("the shards' failure", |line| line.message() == "shard is stalled: it needs help")?;
        let reason = said.field("reason").unwrap_or_default();
        let changed = format!("topic {} as it was ({PARTITIONS} partitions; there are {} now)", flights.input(), PARTITIONS + 1);
        ensure!(reason.contains(&changed) && reason.contains("start a job with another name"), "{changed:?} is not said: {reason}");
        job.wait_until_metric_is("forebay_shard_stalled", f64::from(SHARDS))?;
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// Method: of a job that takes no checkpoint the journal of one shard is cut by somebody else, and its disk is lost.
#[test]
fn a_journal_that_was_cut_by_others_stops_its_shard_and_is_named() -> Result<()> {
    in_folder("cut", |folder| {
        let s3 = S3::of_environment()?;
        let flights = Flights::new(folder, Broker::of_environment()?, &s3, |manifest| replaced(manifest, "interval: 30s", "interval: 1h"))?;
        let records = records(5_000)?;
        flights.feed(&records)?;
        flights.run_until_end("one")?;
        let end = flights.broker.ranges(&flights.journal())?[1].1;
        flights.broker.delete_records(&flights.journal(), 1, end)?;
        fs::rename(flights.state_dir("one"), flights.state_dir("lost"))?;

        let job = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        let said = job.wait_for("the shard's failure", |line| line.message() == "shard is stalled: it needs help")?;
        let reason = said.field("reason").unwrap_or_default();
        ensure!(said.field("shard") == Some("1") && reason.contains("journal"), "the journal of shard 1 is not named: {reason}");
        job.wait_until_metric_is("forebay_shard_running", f64::from(SHARDS - 1))?;
        job.stop()?;
        flights.check(&records, &["lost"])
    })
}

/// Method: an output takes no record any more while the job runs, and the records of one aircraft only go there. Its shard must stop and say so, the others
/// must go on, although all of them commit in the same transactions; and all must come out once the topic is mended.
#[test]
fn an_output_that_refuses_records_stops_the_shard_that_writes_to_it() -> Result<()> {
    in_folder("refusing", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let delayed = |record: &Record| {
            let flight: Option<Value> = serde_json::from_str(&record.value).ok();
            flight.is_some_and(|flight| flight["dep_delay"].as_i64().is_some_and(|minutes| minutes > 60))
        };
        let all = records(20_000)?;
        let late = all.iter().find(|record| record.key.is_some() && delayed(record)).context("a flight that was late")?.key.clone();
        let records: Vec<Record> = all.into_iter().filter(|record| record.key == late || !delayed(record)).collect();
        flights.broker.set(&flights.output("delayed"), &[("max.message.bytes", "100")])?;
        // A job that is started now is told so.
        let refused = flights.forebay.call(&["run", "--until-end"])?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(2) && said.contains("max.message.bytes"), "it ended with {:?}: {said}", refused.status);
        flights.broker.set(&flights.output("delayed"), &[("max.message.bytes", "1048588")])?;
        let job = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        job.wait_until_running(SHARDS as usize)?;
        flights.broker.set(&flights.output("delayed"), &[("max.message.bytes", "100")])?;
        flights.feed(&records)?;

        let said = job.wait_for("the shard's failure", |line| line.message() == "shard is stalled: it needs help")?;
        let reason = said.field("reason").unwrap_or_default();
        ensure!(reason.contains(&flights.output("delayed")), "the topic is not named: {reason}");
        let partition = flights.partition_of(&late)?;
        ensure!(said.field("shard") == Some((partition % SHARDS).to_string().as_str()), "another shard stopped: {reason}");
        job.wait_until_metric_is("forebay_shard_running", f64::from(SHARDS - 1))?;
        let ends = flights.broker.ranges(&flights.input())?;
        let others: u64 = (0..).zip(&ends).filter(|(at, _)| at % SHARDS != partition % SHARDS).map(|(_, (_, end))| end).sum();
        job.wait_until_metric("forebay_records_total", others as f64)?;
        ensure!(flights.counts()?[&flights.output("delayed")] == 0, "the topic took records after all");

        flights.broker.set(&flights.output("delayed"), &[("max.message.bytes", "1048588")])?;
        job.wait_until_metric_is("forebay_shard_running", f64::from(SHARDS))?;
        job.wait_until_metric("forebay_records_total", records.len() as f64)?;
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// Method: while the job runs the input is deleted and made anew under its name. Then the same records are put in, so that the offsets at which the
/// job stands are there again, and it is started once more.
#[test]
fn an_input_made_anew_under_its_name_stops_its_shards() -> Result<()> {
    in_folder("remade", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let records = records(10_000)?;
        flights.feed(&records)?;
        let job = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        job.wait_until_metric("forebay_records_total", records.len() as f64)?;
        let outputs = || -> Result<BTreeMap<String, u64>> {
            let counts = flights.counts()?.into_iter();
            Ok(counts.filter(|(topic, _)| *topic != flights.input()).collect())
        };
        let before = outputs()?;
        let input = flights.input_where(|_, _| true)?;
        let partitions = u32::try_from(flights.broker.ranges(&flights.input())?.len())?;
        flights.broker.remake_topic(&flights.input(), partitions)?;
        let said = |job: &Process| -> Result<String> {
            let line = job.wait_for("a shard that stops over it", |line| {
                line.message() == "shard is stalled: it needs help"
                    && line.field("reason").is_some_and(|reason| reason.contains("made anew"))
            })?;
            Ok(line.field("reason").unwrap_or_default().to_owned())
        };
        let reason = said(&job)?;
        ensure!(reason.contains(&flights.input()), "the topic is not named: {reason}");
        job.stop()?;
        flights.feed(&records)?;
        let again = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        said(&again)?;
        again.wait_until_metric_is("forebay_shard_running", 0.0)?;
        again.stop()?;
        let after = outputs()?;
        ensure!(after == before, "something of the new topic was processed: {after:?}, before {before:?}");
        flights.check_some(&input, &["one"])
    })
}

/// Method: the journal is deleted and made anew under a job that runs; then deleted under one that is stopped, which makes it anew when it is
/// started: once with its database on disk, once with nothing but its checkpoints.
#[test]
fn a_journal_made_anew_under_its_name_is_never_taken_for_an_empty_one() -> Result<()> {
    in_folder("journal", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let records = records(10_000)?;
        flights.feed(&records)?;
        flights.forebay.run("one", &flights.state_dir("one"), &["--until-end", "--checkpoint-on-stop"])?.success()?;
        let before = flights.counts()?;
        let start = || flights.forebay.run("one", &flights.state_dir("one"), &[]);
        let stalled = |job: &Process, shards: u32| -> Result<()> {
            for shard in 0..shards {
                job.wait_for(&format!("shard {shard} that stops over it"), |line| {
                    line.message() == "shard is stalled: it needs help"
                        && line.field("shard").is_some_and(|found| found == shard.to_string())
                        && line.field("reason").is_some_and(|reason| reason.contains("made anew") && reason.contains("journal"))
                })?;
            }
            job.wait_until_metric_is("forebay_shard_running", 0.0)
        };

        let job = start()?;
        job.wait_until_running(SHARDS as usize)?;
        flights.broker.remake_topic(&flights.journal(), SHARDS)?;
        stalled(&job, SHARDS)?;
        job.stop()?;

        flights.broker.delete_topic(&flights.journal())?;
        let job = start()?;
        stalled(&job, SHARDS)?;
        job.stop()?;

        fs::rename(flights.state_dir("one"), flights.state_dir("lost"))?;
        let mut to_the_end = flights.forebay.run("one", &flights.state_dir("one"), &["--until-end"])?;
        let code = to_the_end.exit()?;
        ensure!(code == STALLED, "it ended with {code:?} instead of {STALLED:?}:\n{}", to_the_end.tail());
        ensure!(flights.counts()? == before, "something was processed: {:?}, before {before:?}", flights.counts()?);
        flights.check(&records, &["lost"])
    })
}

/// Method: a job that takes no checkpoint loses its journal topic and its disk. What is left of it is its consumer group. Then what it left is deleted,
/// as the message says: it begins anew under its name, and all comes out once more.
#[test]
fn a_job_that_lost_its_journal_before_its_first_checkpoint_is_never_taken_for_a_new_one() -> Result<()> {
    in_folder("lost", |folder| {
        let s3 = S3::of_environment()?;
        let flights = Flights::new(folder, Broker::of_environment()?, &s3, |manifest| replaced(manifest, "interval: 30s", "interval: 1h"))?;
        let records = records(2_000)?;
        flights.feed(&records)?;
        flights.forebay.run("one", &flights.state_dir("one"), &["--until-end"])?.success()?;
        let before = flights.counts()?;

        flights.broker.delete_topic(&flights.journal())?;
        fs::rename(flights.state_dir("one"), flights.state_dir("lost"))?;
        let mut again = flights.forebay.run("one", &flights.state_dir("one"), &["--until-end"])?;
        let code = again.exit()?;
        ensure!(code == STALLED, "it ended with {code:?} instead of {STALLED:?}:\n{}", again.tail());
        ensure!(again.tail().contains("its journal and its checkpoints are gone"), "it does not say why:\n{}", again.tail());
        ensure!(flights.counts()? == before, "something was processed: {:?}, before {before:?}", flights.counts()?);
        flights.check(&records, &["lost"])?;

        flights.forebay.ask(&["cleanup", "--delete"])?;
        fs::remove_dir_all(flights.state_dir("one"))?;
        flights.run_until_end("one")?;
        let twice =
            before.iter().map(|(topic, count)| (topic.clone(), if *topic == flights.input() { *count } else { 2 * count })).collect();
        ensure!(flights.counts()? == twice, "after a new beginning: {:?}, before {before:?}", flights.counts()?);
        Ok(())
    })
}

/// A job that has processed the first 30,000 of 40,000 records, or is about to, with three checkpoints of each shard.
fn with_checkpoints(folder: &Path) -> Result<(Flights, S3, Vec<Record>, Process)> {
    let s3 = S3::of_environment()?;
    let flights = Flights::new(folder, Broker::of_environment()?, &s3, every_second)?;
    let records = records(40_000)?;
    let job = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
    job.wait_until_running(SHARDS as usize)?;
    flights.feed_until(&job, &records[..30_000], "forebay_checkpoints_total", f64::from(3 * SHARDS))?;
    Ok((flights, s3, records, job))
}

/// Method: of each shard's newest checkpoint that counts a file that no earlier one names is overwritten, and the local disk is lost.
#[test]
fn a_damaged_checkpoint_has_a_predecessor() -> Result<()> {
    in_folder("damaged", |folder| {
        let (flights, s3, records, job) = with_checkpoints(folder)?;
        job.stop()?;
        for (shard, newest) in newest_that_count(&flights)? {
            damage(&flights, &s3, shard, newest)?;
        }
        let verdict = flights.forebay.call(&["snapshot", "verify"])?;
        ensure!(verdict.status.code() == Some(1), "`snapshot verify` found nothing: {}", String::from_utf8_lossy(&verdict.stdout));

        fs::remove_dir_all(flights.state_dir("one"))?;
        flights.feed(&records[30_000..])?;
        let mut again = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        again.wait_until_metric("forebay_records_total", records.len() as f64)?;
        let counted = again.metric("forebay_restore_fallbacks_total")?;
        ensure!(counted == f64::from(SHARDS), "the metric counts {counted} checkpoints that could not be used");
        again.signal("TERM")?;
        again.success()?;
        let said = |message: &str| again.lines().iter().filter(|line| line.message() == message).count();
        let fell_back = said("checkpoint cannot be used; falling back to the one before");
        ensure!(fell_back == SHARDS as usize, "{fell_back} shards fell back to an earlier checkpoint");
        ensure!(said("restored from a checkpoint") == SHARDS as usize, "not all shards were restored from a checkpoint");
        flights.check(&records, &["one"])
    })
}

/// Method: behind checkpoints the journal was cut; every file of every checkpoint is overwritten, and the local disk is lost. Nobody can know the state then,
/// and a shard without it must not begin anew. With the files brought back the job goes on by itself.
#[test]
fn shards_without_any_usable_checkpoint_stand_still_until_the_files_are_back() -> Result<()> {
    in_folder("all-damaged", |folder| {
        let (flights, s3, records, job) = with_checkpoints(folder)?;
        job.wait_until_metric("forebay_records_total", 30_000.0)?;
        until("the journal of every shard is cut", PATIENCE, || {
            Ok(flights.broker.ranges(&flights.journal())?.iter().all(|(start, _)| *start > 0).then_some(()))
        })?;
        job.stop()?;
        fs::remove_dir_all(flights.state_dir("one"))?;
        let is_file = |key: &String| key.contains("/files/");
        let kept =
            s3.list(&flights.prefix())?.into_iter().filter(is_file).map(|key| Ok((s3.get(&key)?, key))).collect::<Result<Vec<_>>>()?;
        kept.iter().try_for_each(|(bytes, key)| s3.put(key, vec![0; bytes.len()]))?;

        flights.feed(&records[30_000..])?;
        let mut stalled = flights.forebay.run("one", &flights.state_dir("one"), &["--until-end"])?;
        let code = stalled.exit()?;
        ensure!(code == STALLED, "it ended with {code:?} instead of {STALLED:?}:\n{}", stalled.tail());
        let lines = stalled.lines();
        let reasons =
            lines.iter().filter(|line| line.message() == "shard is stalled: it needs help").filter_map(|line| line.field("reason"));
        let named = reasons
            .filter(|reason| reason.contains("retained checkpoints can be used") && reason.contains("bring back the checkpoints' files"));
        ensure!(named.count() >= SHARDS as usize, "not every shard says what it lacks:\n{}", stalled.tail());
        ensure!(flights.processed()? == 30_000, "{} records are processed by now", flights.processed()?);

        let job = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        job.wait_until_metric_is("forebay_shard_stalled", f64::from(SHARDS))?;
        kept.into_iter().try_for_each(|(bytes, key)| s3.put(&key, bytes))?;
        job.wait_until_metric("forebay_records_total", records.len() as f64)?;
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// Shard and epoch of its newest checkpoint that counts. One that was uploaded last may not: the epoch that says so was never committed.
fn newest_that_count(flights: &Flights) -> Result<BTreeMap<u64, u64>> {
    let forebay = flights.forebay.clone().with("FOREBAY_STATE_DIR", flights.state_dir("one").to_string_lossy());
    let mut newest = BTreeMap::new();
    for line in forebay.ask(&["state", "ls", "-o", "json"])?.lines() {
        let row: serde_json::Value = serde_json::from_str(line)?;
        if let (Some(shard), Some(epochs)) = (row["shard"].as_u64(), row["checkpoints"].as_array()) {
            let epoch = epochs.last().and_then(serde_json::Value::as_u64).with_context(|| format!("shard {shard} has no checkpoint"))?;
            newest.insert(shard, epoch);
        }
    }
    ensure!(newest.len() == SHARDS as usize, "`state ls` shows these shards only: {newest:?}");
    Ok(newest)
}

fn damage(flights: &Flights, s3: &S3, shard: u64, newest: u64) -> Result<()> {
    let keys = s3.list(&flights.prefix())?;
    let last = format!("/checkpoints/{shard}/{newest:020}");
    let counts = |key: &&String| key.find(&format!("/checkpoints/{shard}/")).is_some_and(|at| key[at..] <= *format!("{last}~"));
    let manifests: Vec<&String> = keys.iter().filter(counts).collect();
    ensure!(manifests.len() >= 2, "shard {shard} has these checkpoints only: {manifests:?}; all keys: {keys:?}");
    let mut files = Vec::new();
    for manifest in &manifests {
        let parsed: serde_json::Value = serde_json::from_slice(&s3.get(manifest)?)?;
        let named = parsed["files"].as_array().with_context(|| format!("{manifest} names no files"))?;
        let sizes = named.iter().filter_map(|file| Some((file["object"].as_str()?.to_owned(), file["size"].as_u64()?)));
        files.push(sizes.collect::<BTreeMap<_, _>>());
    }
    let newest = files.pop().unwrap_or_default();
    let own = newest.iter().filter(|(object, _)| !files.iter().any(|others| others.contains_key(*object)));
    let (own, _) = own.max_by_key(|(_, size)| **size).context("it shares all its files")?;
    let root = manifests[0].split("checkpoints/").next().unwrap_or_default();
    let key = format!("{root}{own}");
    let mut bytes = s3.get(&key)?;
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).with_context(|| format!("{key} is empty"))? ^= 0x40;
    s3.put(&key, bytes)
}
