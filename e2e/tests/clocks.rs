//! Promise: a machine whose clock runs ahead leaves no time in the future behind, at which a shard's later owners would be stuck.

use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, SHARDS, records, replaced};
use forebay_e2e::in_folder;
use forebay_e2e::kafka::Broker;
use forebay_e2e::s3::S3;

/// Method: libfaketime sets the first worker's clock ahead by an hour, and the broker's it leaves alone. The epochs' clocks are read from the
/// checkpoints' manifests, before and after a worker with the right time has gone on.
#[test]
fn a_clock_that_is_an_hour_ahead_does_not_stop_the_jobs_time() -> Result<()> {
    in_folder("clock", |folder| {
        let s3 = S3::of_environment()?;
        let every_second = |manifest: String| replaced(manifest, "interval: 30s", "interval: 1s");
        let flights = Flights::new(folder, Broker::of_environment()?, &s3, every_second)?;
        let records = records(20_000)?;
        flights.feed(&records[..10_000])?;
        let begun = unix_millis();
        let ahead = flights.forebay.clone().with("LD_PRELOAD", libfaketime()?).with("FAKETIME", "+1h").with("DONT_FAKE_MONOTONIC", "1");
        let job = ahead.run("ahead", &flights.state_dir("ahead"), &[])?;
        job.wait_for("the warning", |line| line.message().starts_with("this machine's clock runs ahead"))?;
        job.wait_until_metric("forebay_records_total", 10_000.0)?;
        job.wait_until_metric("forebay_checkpoints_total", f64::from(SHARDS))?;
        job.stop()?;
        let clocks = clocks(&flights, &s3)?;
        // What is taken off is short of the truth by the time that a commit takes to arrive.
        let now = unix_millis();
        ensure!(
            !clocks.is_empty() && clocks.iter().all(|clock| (begun..=now + 10_000).contains(clock)),
            "not within {begun}..={now}: {clocks:?}"
        );

        flights.feed(&records[10_000..])?;
        let job = flights.forebay.run("right", &flights.state_dir("right"), &[])?;
        job.wait_until_metric("forebay_records_total", records.len() as f64)?;
        job.stop()?;
        flights.check(&records, &["right"])
    })
}

/// The epoch clocks of all checkpoints, in milliseconds since 1970.
fn clocks(flights: &Flights, s3: &S3) -> Result<Vec<i64>> {
    let keys = s3.list(&flights.prefix())?;
    let of = |key: &String| -> Result<i64> {
        let manifest: serde_json::Value = serde_json::from_slice(&s3.get(key)?)?;
        manifest["stamp"]["clock"].as_i64().with_context(|| format!("{key} has no clock: {manifest}"))
    };
    keys.iter().filter(|key| key.contains("/checkpoints/")).map(of).collect()
}

fn unix_millis() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// What the command `faketime` would have the loader load.
fn libfaketime() -> Result<String> {
    let output = Command::new("faketime").args(["-m", "-f", "+1h", "printenv", "LD_PRELOAD"]).output();
    let output = output.context("call faketime; `scripts/bootstrap.sh` installs it")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
