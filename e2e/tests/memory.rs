//! Promise: a worker never holds more memory than `--memory` says, whatever waits for it.

use std::fs;

use anyhow::{Result, ensure};
use forebay_e2e::flights::{Flights, every_second, records, replaced};
use forebay_e2e::in_folder;
use forebay_e2e::job::Process;
use forebay_e2e::kafka::Broker;
use forebay_e2e::s3::S3;

/// From here on the limit is kept to; see docs/cli.md.
const MEMORY_MIB: u64 = 256;

/// Method: the flights of a year wait when the job is started. Then it loses its disk: since there was no checkpoint all of the journal is read again,
/// while as many records wait once more. The kernel tells the most that either process held.
#[test]
fn a_backlog_and_a_long_journal_take_no_more_memory_than_was_granted() -> Result<()> {
    in_folder("memory", |folder| {
        let s3 = S3::of_environment()?;
        let flights = Flights::new(folder, Broker::of_environment()?, &s3, |manifest| replaced(manifest, "interval: 30s", "interval: 1h"))?;
        let records = records(336_776)?;
        let half = records.len() / 2;
        flights.feed(&records[..half])?;
        work_off(&flights, half)?;
        fs::remove_dir_all(flights.state_dir("one"))?;
        flights.feed(&records[half..])?;
        work_off(&flights, records.len())?;
        flights.check(&records, &["one"])
    })
}

/// Method: the same in one go with checkpoints every second, and of every hundred and twenty records one has 100 KB.
#[test]
fn large_records_and_checkpoints_take_no_more_memory_than_was_granted() -> Result<()> {
    in_folder("large", |folder| {
        let flights = Flights::new(folder, Broker::of_environment()?, &S3::of_environment()?, every_second)?;
        let filler = format!(", \"filler\": \"{}\"}}", "x".repeat(100 << 10));
        let mut records = records(60_000)?;
        for record in records.iter_mut().step_by(120) {
            if let Some(opened) = record.value.strip_suffix('}') {
                record.value = format!("{opened}{filler}");
            }
        }
        flights.feed(&records)?;
        work_off(&flights, records.len())?;
        flights.check(&records, &["one"])
    })
}

fn work_off(flights: &Flights, records: usize) -> Result<()> {
    let memory = format!("{MEMORY_MIB}Mi");
    let job: Process = flights.forebay.run("one", &flights.state_dir("one"), &["--memory", &memory])?;
    job.wait_until_metric("forebay_records_total", records as f64)?;
    let peak_mib = job.peak_memory_bytes()? >> 20;
    job.stop()?;
    println!("peak memory: {peak_mib} MiB of {MEMORY_MIB}");
    ensure!(peak_mib < MEMORY_MIB, "it held {peak_mib} MiB, {MEMORY_MIB} were granted");
    Ok(())
}
