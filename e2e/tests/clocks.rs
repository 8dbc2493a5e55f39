//! Promise: a machine whose clock is hours wrong harms nobody: what comes out is right, and the shards' time is bounded by the brokers', so that
//! the next owner is not stuck at a time that has not come yet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, SHARDS, records};
use forebay_e2e::in_folder;
use forebay_e2e::job::Forebay;
use forebay_e2e::s3::S3;

/// What a process on the other side of the same network may be late by, all in all.
const NEAR_MILLIS: i64 = 60_000;
const HOUR_SECONDS: i64 = 3600;

/// Builds what a process is given so that its time of day is wrong.
fn build_library(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clocks/offset.c"), folder.join("offset.so"));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let built = Command::new(&compiler).args(["-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl"]).output();
    let built = built.with_context(|| format!("run {compiler}; `scripts/bootstrap.sh build` installs it"))?;
    ensure!(built.status.success(), "{compiler} {source}: {}", String::from_utf8_lossy(&built.stderr));
    Ok(library)
}

/// The same on a machine whose time of day is wrong by so much; its steady clock is right, as that of a real one would be.
fn with_clock(forebay: &Forebay, library: &Path, offset_seconds: i64) -> Forebay {
    let library = library.to_string_lossy();
    forebay.clone().with("LD_PRELOAD", library).with("CLOCK_OFFSET_SECONDS", offset_seconds.to_string())
}

/// The clock of each shard's newest checkpoint.
fn clocks(flights: &Flights, s3: &S3) -> Result<Vec<i64>> {
    let keys = s3.list(&flights.prefix())?;
    let clock = |shard: u32| {
        let of_shard = |key: &&String| key.contains(&format!("/checkpoints/{shard}/"));
        let newest = keys.iter().filter(of_shard).max().with_context(|| format!("shard {shard} has no checkpoint"))?;
        let manifest: serde_json::Value = serde_json::from_slice(&s3.get(newest)?)?;
        manifest["stamp"]["clock"].as_i64().with_context(|| format!("{newest} has no clock"))
    };
    (0..SHARDS).map(clock).collect()
}

fn now() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

/// Method: three processes one after the other, whose clocks are six hours ahead, right, and six hours behind. After each the shards' clocks, as
/// their checkpoints have them, are compared with the real time; at the end the oracle judges.
#[test]
fn a_clock_that_is_hours_wrong_changes_nothing_that_comes_out_and_stops_nobodys_time() -> Result<()> {
    in_folder("clocks", |folder| {
        let (flights, s3) = Flights::on_shared_servers(folder)?;
        let library = build_library(folder)?;
        let records = records(30_000)?;
        let parts = records.chunks(records.len().div_ceil(3));
        let mut last = vec![0; SHARDS as usize];
        for (hours, part) in [6, 0, -6].into_iter().zip(parts) {
            flights.feed(part)?;
            let began = now()?;
            let forebay = with_clock(&flights.forebay, &library, hours * HOUR_SECONDS);
            let mut job = forebay.run("one", &flights.state_dir("one"), &["--until-end", "--checkpoint-on-stop"])?;
            job.success().with_context(|| format!("with a clock that is {hours} hours ahead"))?;
            let said = job.lines().iter().any(|line| line.message().contains("clock runs ahead of the brokers'"));
            ensure!(said == (hours > 0), "it says that its clock is ahead: {said}, and it is so by {hours} hours");
            let clocks = clocks(&flights, &s3)?;
            println!("{hours} hours ahead: {:?} ms from the real time", clocks.iter().map(|clock| clock - began).collect::<Vec<_>>());
            for (clock, last) in clocks.iter().zip(&last) {
                ensure!(*clock <= now()? + NEAR_MILLIS, "a shard's time is {} ms ahead", clock - now()?);
                ensure!(clock >= last, "a shard's time went back by {} ms", last - clock);
                ensure!(hours < 0 || *clock >= began - NEAR_MILLIS, "a shard's time is {} ms behind", began - clock);
            }
            last = clocks;
        }
        flights.check(&records, &["one"])
    })
}
