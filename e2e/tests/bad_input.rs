//! Promise: what cannot work ends soon, with a documented exit code and a message that names the field, the value and the way out; nothing that
//! is there is touched.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, records, replaced};
use forebay_e2e::in_folder;
use forebay_e2e::job::Forebay;
use forebay_e2e::kafka::Broker;
use forebay_e2e::s3::BUCKET;

/// Wrong usage, or a manifest that cannot work.
const UNUSABLE: Option<i32> = Some(2);
/// A server was not reached, or gave no answer.
const AWAY: Option<i32> = Some(75);

/// Longer than any time-out of a first contact: 15 s for brokers, three attempts for S3.
const SOON: Duration = Duration::from_secs(60);

/// Runs the job; it must end soon, with this exit code, and say all this.
fn check(forebay: &Forebay, arguments: &[&str], code: Option<i32>, said: &[&str]) -> Result<()> {
    let began = Instant::now();
    let output = forebay.call(&[&["run", "--until-end"], arguments].concat())?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == code, "it ended with {:?} instead of {code:?}: {text}", output.status);
    ensure!(began.elapsed() < SOON, "it took {} s to say: {text}", began.elapsed().as_secs());
    for needed in said {
        ensure!(text.contains(needed), "{needed:?} is not in what it said: {text}");
    }
    Ok(())
}

/// The same with one place of the manifest changed.
fn check_changed(flights: &Flights, from: &str, to: &str, code: Option<i32>, said: &[&str]) -> Result<()> {
    let changed = flights.manifest.with_extension("changed.yaml");
    fs::write(&changed, replaced(fs::read_to_string(&flights.manifest)?, from, to)?)?;
    check(&flights.forebay.clone().with_manifest(&changed), &[], code, said).with_context(|| format!("{from:?} changed to {to:?}"))
}

#[test]
fn a_manifest_that_makes_no_sense_is_refused_with_its_place() -> Result<()> {
    in_folder("manifest", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        check_changed(&flights, "  commit:", "  comit:", UNUSABLE, &["changed.yaml:15:", "spec.comit", "did you mean `commit`"])?;
        check_changed(&flights, "shards: 4", "shards: four", UNUSABLE, &["changed.yaml:14:", "spec.shards", "\"four\"", "whole number"])?;
        check_changed(&flights, "shards: 4", "shards: 0", UNUSABLE, &["changed.yaml:14:", "spec.shards", "0"])?;
        check_changed(&flights, "interval: 100ms", "interval: fast", UNUSABLE, &["spec.commit.interval", "fast"])?;
        check_changed(&flights, "retained: 2", "retained: 1", UNUSABLE, &["spec.checkpoint.retained", "1"])?;
        check_changed(&flights, ".dep_delay > 60", ".dep_delay >", UNUSABLE, &["changed.yaml:", "when"])?;
        let gone = flights.forebay.clone().with_manifest(&folder.join("no-such.yaml"));
        check(&gone, &[], UNUSABLE, &["no-such.yaml", "-f"])?;
        check(&flights.forebay, &["--shards", "2-9"], UNUSABLE, &["--shards 2-9", "0 to 3"])?;
        check(&flights.forebay, &["--kafka-property", "nonsense"], UNUSABLE, &["--kafka-property nonsense", "NAME=VALUE"])
    })
}

#[test]
fn topics_that_do_not_fit_are_named() -> Result<()> {
    in_folder("topics", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let input = flights.input();
        let missing = format!("{input}.missing");
        check_changed(
            &flights,
            &format!("topic: {input}\n"),
            &format!("topic: {missing}\n"),
            UNUSABLE,
            &["changed.yaml:12:", "spec.inputs[0].topic: ", &missing, "create it"],
        )?;
        let delayed = flights.output("delayed");
        check_changed(
            &flights,
            &format!("topic: {delayed}\n"),
            &format!("topic: {missing}\n"),
            UNUSABLE,
            &["spec.pipeline[6].route[0].emit.topic: ", &missing, "create it"],
        )?;
        let narrow = format!("{input}.narrow");
        flights.broker.create_topic(&narrow, 6)?;
        let two = format!("      startFrom: earliest\n    - name: narrow\n      topic: {narrow}\n");
        let uneven = ["spec.inputs[1].topic: ", &input, "12 partitions", &narrow, "6"];
        check_changed(&flights, "      startFrom: earliest\n", &two, UNUSABLE, &uneven)?;
        let as_input = format!("topic: {narrow}\n            partitioner: input\n");
        let said = ["changed.yaml:", "spec.pipeline[6].route[0].emit.partitioner", &narrow, "12", "it has 6", "--alter"];
        check_changed(&flights, &format!("topic: {delayed}\n"), &as_input, UNUSABLE, &said)
    })
}

#[test]
fn servers_that_do_not_answer_or_refuse_are_named() -> Result<()> {
    in_folder("servers", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let with = |name: &str, value: &str| flights.forebay.clone().with(name, value);
        let no_broker = ["connect to 127.0.0.1:1: no broker answered", "check the address (`spec.kafka.bootstrapServers` or `--kafka`)"];
        check(&with("FOREBAY_KAFKA", "127.0.0.1:1"), &[], AWAY, &no_broker)?;
        let tls = ["--kafka-property", "security.protocol=SSL"];
        let said = [flights.broker.address.as_str(), "`security.protocol` (`spec.kafka.properties`", "`--kafka-property`"];
        check(&flights.forebay, &tls, AWAY, &said)?;
        let own = ["--kafka-property", "isolation.level=read_uncommitted"];
        let said = ["`isolation.level`", "remove the property from `spec.kafka.properties`", "`--kafka-property`"];
        check(&flights.forebay, &own, UNUSABLE, &said)?;
        let store = format!("s3://{BUCKET}/{}", flights.name);
        let said = [store.as_str(), "refused", "give credentials that the store knows", "AWS_SECRET_ACCESS_KEY", "spec.workers.envFrom"];
        check(&with("AWS_SECRET_ACCESS_KEY", "wrong"), &[], UNUSABLE, &said)?;
        let gone = format!("{BUCKET}-that-is-not-there");
        let nowhere = format!("s3://{gone}/x");
        let create = format!("create the bucket {gone}, or correct its name (spec.state.store.s3.bucket or --store)");
        check(&with("FOREBAY_STORE", &nowhere), &[], UNUSABLE, &[&nowhere, &create])?;
        let said = [
            store.as_str(),
            "no answer",
            "see to it that the endpoint http://127.0.0.1:1 is reached from here",
            "correct spec.state.store.s3.endpoint or --s3-endpoint",
        ];
        check(&with("FOREBAY_S3_ENDPOINT", "http://127.0.0.1:1"), &[], AWAY, &said)?;
        check(&with("FOREBAY_STORE", "ftp://x/y"), &[], UNUSABLE, &["--store ftp://x/y", "write s3://BUCKET/PREFIX"])
    })
}

/// Method: a job runs; then other jobs are started on its state folder, on its object store, or as it with other shards. It must come out right
/// afterwards as if nothing had been tried.
#[test]
fn what_a_job_has_is_not_touched_by_another() -> Result<()> {
    in_folder("others", |folder| {
        let (flights, s3) = Flights::on_shared_servers(folder)?;
        let records = records(10_000)?;
        flights.feed(&records[..5_000])?;
        flights.run_until_end("one")?;
        let folder_of_other = folder.join("other");
        fs::create_dir(&folder_of_other)?;
        let other = Flights::new(&folder_of_other, Broker::of_environment()?, &s3, Ok)?;
        other.feed(&records[..1_000])?;
        let state_dir = flights.state_dir("one");
        let state_dir = state_dir.to_str().context("a path of text")?;
        let before = flights.shards(&flights.state_dir("one"))?;
        let names = [state_dir, &format!("default.{}", flights.name), "--state-dir"];
        check(&other.forebay.clone().with("FOREBAY_STATE_DIR", state_dir), &[], UNUSABLE, &names)?;

        let same_state = flights.forebay.clone().with("FOREBAY_STATE_DIR", state_dir);
        let changed = flights.manifest.with_extension("changed.yaml");
        fs::write(&changed, replaced(fs::read_to_string(&flights.manifest)?, "shards: 4", "shards: 6")?)?;
        check(&same_state.with_manifest(&changed), &[], UNUSABLE, &["spec.shards", "4", "6"])?;

        ensure!(flights.shards(&flights.state_dir("one"))? == before, "the state was touched");
        flights.feed(&records[5_000..])?;
        let mut again = flights.forebay.run("one", &flights.state_dir("one"), &["--until-end"])?;
        again.success()?;
        let local = again.lines().iter().filter(|line| line.message() == "the local database is used").count();
        ensure!(local == before.len(), "{local} of {} databases were used", before.len());
        flights.check(&records, &["one"])
    })
}
