//! Promise: while a broker, the object store or the disk is away nothing is lost, and work goes on by itself when it is back.

use std::os::unix::fs::symlink;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Result, ensure};
use forebay_e2e::disk::Disk;
use forebay_e2e::flights::{Flights, SHARDS, every_second, records};
use forebay_e2e::job::{Line, Process};
use forebay_e2e::kafka::Broker;
use forebay_e2e::s3::S3;
use forebay_e2e::stack::Instance;
use forebay_e2e::{PATIENCE, in_folder, not_tested, until};

/// From here on `--memory` is kept to; see docs/cli.md.
const MEMORY_MIB: u64 = 256;

/// One after the other, half a second apart, that find nothing moved: a slow machine rests for one or two now and then.
const LOOKS_AT_REST: u32 = 6;

/// Of meeting a moment that nothing tells from outside.
const ATTEMPTS: u32 = 5;

/// Method: a broker of the test's own is killed in the middle of a commit, and started again on its data.
#[test]
fn a_broker_that_dies_and_comes_back_loses_nothing() -> Result<()> {
    in_folder("broker", |folder| {
        let mut kafka = Instance::up("kafka", "outage")?;
        let flights = Flights::new(folder, kafka.broker()?, &S3::of_environment()?, Ok)?;
        let records = records(60_000)?;
        flights.feed(&records[..30_000])?;
        let job = flights.forebay.clone().with("RUST_LOG", "info,forebay_worker=debug").run("one", &flights.state_dir("one"), &[])?;
        let (_, behind) = job.wait_for_after(0, "a shard of its own", |line| line.message() == "shard is owned")?;
        job.wait_for_after(behind, "a commit", |line| line.message() == "commit begins")?;
        kafka.kill()?;
        kafka.start()?;
        flights.feed(&records[30_000..])?;
        job.wait_until_worked_off(records.len())?;
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// Method: a broker of the test's own freezes in the middle of a commit, while far more than memory takes waits in the input. The job must come to rest
/// with what it has, within what it was granted, and go on by itself once the broker answers again.
#[test]
fn a_broker_that_freezes_in_a_commit_holds_the_job_back() -> Result<()> {
    in_folder("frozen", |folder| {
        let kafka = Instance::up("kafka", "frozen")?;
        let flights = Flights::new(folder, kafka.broker()?, &S3::of_environment()?, every_second)?;
        let records = records(336_776)?;
        let memory = format!("{MEMORY_MIB}Mi");
        flights.feed(&records)?;
        let verbose = flights.forebay.clone().with("RUST_LOG", "info,forebay_worker=debug");
        let job = verbose.run("one", &flights.state_dir("one"), &["--memory", &memory])?;
        let with_records = |line: &Line| line.message() == "commit begins" && line.number("records").is_some_and(|records| records > 0);
        job.wait_for("a commit", with_records)?;
        let frozen = kafka.freeze()?;
        wait_until_at_rest(&job)?;
        drop(frozen);
        job.wait_until_worked_off(records.len())?;
        let peak_mib = job.peak_memory_bytes()? >> 20;
        job.stop()?;
        ensure!(peak_mib < MEMORY_MIB, "it held {peak_mib} MiB, {MEMORY_MIB} were granted");
        flights.check(&records, &["one"])
    })
}

/// Method: the disk with the state takes no more writes from a moment on, while far more waits in the input than the buffers of RocksDB take. The job
/// must come to rest with what it has, and go on by itself once the disk answers again.
#[test]
fn a_state_disk_that_hangs_holds_the_job_back() -> Result<()> {
    in_folder("hanging", |folder| {
        let disk = match Disk::new(folder, 512) {
            Ok(disk) => disk,
            Err(why) => {
                let why = format!("a disk cannot be made here, which needs root: {why:#}");
                return not_tested("a_state_disk_that_hangs_holds_the_job_back", &why);
            }
        };
        let flights = Flights::new(folder, Broker::of_environment()?, &S3::of_environment()?, every_second)?;
        let records = records(336_776)?;
        symlink(disk.path(), flights.state_dir("one"))?;
        let job = flights.forebay.run("one", &flights.state_dir("one"), &["--memory", "64Mi"])?;
        flights.feed(&records[..1_000])?;
        job.wait_until_worked_off(1_000)?;
        let frozen = disk.freeze()?;
        flights.feed(&records[1_000..])?;
        wait_until_at_rest(&job)?;
        let (taken, lag) = (job.metric("forebay_records_total")?, job.metric("forebay_shard_lag_records")?);
        ensure!(lag > 0.0, "the disk hung, and all was worked off");
        println!("at rest after {taken} records, {lag} behind");
        drop(frozen);
        job.wait_until_worked_off(records.len())?;
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// Method: a process without a disk has begun to read its journals when the broker freezes: it takes connections and never answers. That must be an
/// error that says what was attempted, and all must go on by itself once the broker answers again. Where the freeze meets something else, such as the
/// claim of another shard, that is the end of the incarnation; all must go on likewise, and it is tried once more.
#[test]
fn a_broker_that_never_answers_ends_a_restore_with_an_error_and_not_in_a_hang() -> Result<()> {
    in_folder("silent", |folder| {
        let kafka = Instance::up("kafka", "silent")?;
        let flights = Flights::new(folder, kafka.broker()?, &S3::of_environment()?, Ok)?;
        let records = records(120_000)?;
        let mut fed = 100_000;
        flights.feed(&records[..fed])?;
        flights.run_until_end("one")?;
        for attempt in 1.. {
            // Something is to be committed, whatever the freeze meets.
            let more = fed + 20_000 / ATTEMPTS as usize;
            flights.feed(&records[fed..more])?;
            fed = more;
            fs::remove_dir_all(flights.state_dir("one"))?;
            let job = flights.forebay.clone().with("RUST_LOG", "info,forebay_worker=debug").run("one", &flights.state_dir("one"), &[])?;
            job.wait_for("a restore", |line| line.message() == "restore begins")?;
            let frozen = kafka.freeze()?;
            let is_read = |line: &Line| line.field("reason").is_some_and(|reason| reason.contains("read the journal of shard"));
            let is_end = |line: &Line| line.message() == "incarnation is over; all shards are claimed again";
            let end = job.wait_for("the end of what it met", |line| (line.message() == "shard failed" && is_read(line)) || is_end(line))?;
            drop(frozen);
            job.wait_until_worked_off(fed)?;
            job.stop()?;
            if is_read(&end) {
                break;
            }
            ensure!(attempt < ATTEMPTS, "it never met a read: {}", end.text);
        }
        flights.check(&records[..fed], &["one"])
    })
}

/// Method: an S3 server of the test's own is killed; the job must go on, count what it cannot upload, and upload again once it can.
#[test]
fn work_goes_on_while_the_object_store_is_down() -> Result<()> {
    in_folder("store", |folder| {
        let mut server = Instance::up("s3", "outage")?;
        let flights = Flights::new(folder, Broker::of_environment()?, &server.s3()?, every_second)?;
        let records = records(60_000)?;
        flights.feed(&records[..20_000])?;
        let job = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        job.wait_until_worked_off(20_000)?;
        flights.feed_until(&job, &records[20_000..30_000], "forebay_checkpoints_total", f64::from(SHARDS))?;
        server.kill()?;
        flights.feed_until(&job, &records[30_000..40_000], "forebay_checkpoint_failures_total", 1.0)?;
        job.wait_until_worked_off(40_000)?;
        job.wait_for("a word about it", |line| line.message().contains("the journal grows until one succeeds"))?;
        let journal = job.metric("forebay_shard_journal_records")?;
        flights.feed_until(&job, &records[40_000..45_000], "forebay_shard_journal_records", journal + 1.0)?;
        server.start()?;
        let before = job.metric("forebay_checkpoints_total")?;
        flights.feed_until(&job, &records[45_000..], "forebay_checkpoints_total", before + f64::from(SHARDS))?;
        job.wait_until_worked_off(records.len())?;
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// Waits until nothing moves any more while something is to be committed.
fn wait_until_at_rest(job: &Process) -> Result<()> {
    let (mut before, mut looks) = ((0.0, 0.0), 0);
    until("the job is at rest", PATIENCE, || {
        let now = (job.metric("forebay_records_total")?, job.metric("forebay_shard_uncommitted_records")?);
        looks = if now == before && now.1 > 0.0 { looks + 1 } else { 0 };
        before = now;
        thread::sleep(Duration::from_millis(500));
        Ok((looks == LOOKS_AT_REST).then_some(()))
    })
}
