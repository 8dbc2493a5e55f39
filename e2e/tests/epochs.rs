//! Promise: transactions grow with what waits, and no further than they may: a backlog is worked off in few large ones, at the head of the input they
//! are many and small, and no shard's part of one holds more than `spec.commit.bytesMax`.

use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};
use forebay_e2e::flights::{Flights, SHARDS, records, replaced};
use forebay_e2e::job::Process;
use forebay_e2e::kafka::Broker;
use forebay_e2e::s3::S3;
use forebay_e2e::{PATIENCE, in_folder, until};
use rdkafka::message::{Headers, Message};

/// What `spec.commit.bytesMax` is if the manifest does not say it, and the least that it may be.
const BYTES_MAX: u64 = 8 << 20;
const BYTES_MAX_LEAST: u64 = 64 << 10;

/// So many times larger is the commit of a record in the backlog than that of one at the head, at least: on a machine with nothing else to do it is
/// fifty times that, and on a busy one the commits at the head grow.
const TIMES: u64 = 2;

/// An input record is put out so often at most: as a delta, enriched, and delayed.
const OUTPUTS_OF_A_RECORD: u64 = 3;

/// Starts the job, whose log then tells of each commit. So much memory leaves `bytesMax` as it is.
fn start(flights: &Flights) -> Result<Process> {
    let verbose = flights.forebay.clone().with("RUST_LOG", "info,forebay_worker=debug");
    verbose.run("one", &flights.state_dir("one"), &["--memory", "1Gi"])
}

/// Waits until so many input records are committed; returns how many records each commit so far has put out, without those that put out none.
fn commits_of(job: &Process, input_records: usize) -> Result<Vec<u64>> {
    job.wait_until_metric("forebay_records_total", input_records as f64)?;
    let put_out = job.metric("forebay_output_records_total")?;
    // The log comes by way of a pipe, and may be a little behind the metrics.
    until("the log tells of every commit", PATIENCE, || {
        let lines = job.lines();
        let begun = lines.iter().filter(|line| line.message() == "commit begins").filter_map(|line| line.number("records"));
        let commits: Vec<u64> = begun.filter(|records| *records > 0).collect();
        Ok((commits.iter().sum::<u64>() as f64 >= put_out).then_some(commits))
    })
}

/// How large the commit of a record is: half of all records were in one of this size or larger.
fn typical(commits: &[u64]) -> u64 {
    let half = commits.iter().sum::<u64>().div_ceil(2);
    let mut sorted = commits.to_vec();
    sorted.sort_unstable();
    let mut seen = 0;
    let reaches_half = |records: &u64| {
        seen += *records;
        seen >= half
    };
    sorted.into_iter().rev().find(reaches_half).unwrap_or_default()
}

/// No commit put out more than fits. A shard's epoch ends with the record by which it comes to `bytes_max`, and what was put out before that one is
/// less; all of it might be records as small as the smallest in the topics. A commit has one epoch of each shard.
fn check_bounds(flights: &Flights, commits: &[u64], bytes_max: u64) -> Result<()> {
    let mut smallest = usize::MAX;
    for output in ["updates", "enriched", "delayed", "dead"] {
        flights.broker.read(&flights.output(output), |record| {
            let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
            let headers: usize = headers.map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum();
            let content = record.key().map_or(0, <[u8]>::len) + record.payload().map_or(0, <[u8]>::len);
            smallest = smallest.min(content + headers);
            Ok(())
        })?;
    }
    let most = u64::from(SHARDS) * (bytes_max / smallest.max(1) as u64 + OUTPUTS_OF_A_RECORD);
    let largest = commits.iter().copied().max().unwrap_or_default();
    println!("the largest of {} commits put out {largest} records; {most} might fit, the smallest has {smallest} bytes", commits.len());
    ensure!(largest <= most, "a commit put out {largest} records, of which only {most} fit into {bytes_max} bytes of each shard");
    Ok(())
}

/// Method: 100,000 records wait when the job is started; when they are worked off, others come in bit by bit. The log tells what each commit put out.
/// A record of the backlog must have shared its commit with twice as many as one that came later, at least. The oracle judges what came out.
#[test]
fn epochs_are_large_in_a_backlog_and_small_at_the_head() -> Result<()> {
    in_folder("epochs", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let records = records(120_000)?;
        let (backlog, later) = records.split_at(100_000);
        flights.feed(backlog)?;
        let job = start(&flights)?;
        let in_backlog = commits_of(&job, backlog.len())?;
        let fed = flights.feed_slowly(later, &AtomicBool::new(false))?;
        let all = commits_of(&job, backlog.len() + fed)?;
        job.stop()?;
        let at_head = &all[in_backlog.len()..];
        let (large, small) = (typical(&in_backlog), typical(at_head));
        println!("{} commits of the backlog, typically of {large} records; {} at the head, of {small}", in_backlog.len(), at_head.len());
        ensure!(large >= TIMES * small, "the commits of the backlog are not that much larger: {in_backlog:?}, at the head {at_head:?}");
        check_bounds(&flights, &all, BYTES_MAX)?;
        flights.check(&records, &["one"])
    })
}

/// Method: a backlog again, and as few bytes per epoch as a manifest may say. With the default they would all be in a few commits, each many times
/// larger than it may be.
#[test]
fn no_epoch_of_a_backlog_holds_more_than_the_manifest_allows() -> Result<()> {
    in_folder("bounds", |folder| {
        let least = |manifest| replaced(manifest, "    interval: 100ms\n", "    interval: 100ms\n    bytesMax: 64Ki\n");
        let flights = Flights::new(folder, Broker::of_environment()?, &S3::of_environment()?, least)?;
        let records = records(30_000)?;
        flights.feed(&records)?;
        let job = start(&flights)?;
        let commits = commits_of(&job, records.len())?;
        job.stop()?;
        check_bounds(&flights, &commits, BYTES_MAX_LEAST)?;
        flights.check(&records, &["one"])
    })
}
