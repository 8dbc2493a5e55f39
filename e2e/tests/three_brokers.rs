//! Promise: on a cluster of three brokers the loss of one costs nothing. The journal lies on all three and is written by two at least, and a job goes on
//! with those that are left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use forebay_e2e::flights::{Flights, SHARDS, every_second, records};
use forebay_e2e::job::{Line, Process};
use forebay_e2e::kafka::Record;
use forebay_e2e::s3::S3;
use forebay_e2e::stack::Instance;
use forebay_e2e::{PATIENCE, in_folder, until};

/// Where Kafka keeps its transactions. The leader of its only partition coordinates all of them.
const TRANSACTIONS: &str = "__transaction_state";

/// Method: twice a broker is killed in a commit while records come in: the one that coordinates transactions, and when that is back the one that leads
/// a journal. Each time the job must work off all there is while that broker is down.
#[test]
fn a_journal_has_three_replicas_and_a_broker_that_dies_in_a_commit_costs_nothing() -> Result<()> {
    in_folder("three", |folder| {
        let mut kafka = Instance::up("kafka-three", "three")?;
        let flights = Flights::new(folder, kafka.broker()?, &S3::of_environment()?, every_second)?;
        let records = records(120_000)?;
        let job = verbose(&flights)?;
        job.wait_until_running(SHARDS as usize)?;
        let journal = flights.journal();
        ensure!(flights.broker.replicas(&journal)? == [3; SHARDS as usize], "{journal}: {:?}", flights.broker.replicas(&journal)?);
        let least = flights.broker.setting(&journal, "min.insync.replicas")?;
        ensure!(least.as_deref() == Some("2"), "{journal} has min.insync.replicas={least:?}");

        let mut fed = 0;
        for led in [TRANSACTIONS, &journal] {
            fed += while_records_come_in(&flights, &records[fed..], || lose_the_leader(&kafka, &flights, &job, led))?;
            job.wait_until_worked_off(fed)?;
            flights.broker.wait_until_in_sync(2)?;
            kafka.start()?;
            flights.broker.wait_until_in_sync(3)?;
        }
        flights.feed(&records[fed..])?;
        job.wait_until_worked_off(records.len())?;
        let few = job.lines().into_iter().find(|line| line.text.contains("number of brokers is"));
        ensure!(few.is_none(), "three brokers were too few: {few:?}");
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// Method: the broker that coordinates transactions and another one are killed in a commit. Neither can that commit end nor another begin, until both are
/// back: what became of the first is then for the job to find out.
#[test]
fn a_job_waits_while_two_of_three_brokers_are_gone_and_goes_on_by_itself() -> Result<()> {
    in_folder("two-gone", |folder| {
        let mut kafka = Instance::up("kafka-three", "two-gone")?;
        let flights = Flights::new(folder, kafka.broker()?, &S3::of_environment()?, every_second)?;
        let records = records(60_000)?;
        let job = verbose(&flights)?;
        job.wait_until_running(SHARDS as usize)?;
        let first = flights.broker.leader(TRANSACTIONS, 0)?;
        let behind = job.lines().len();
        flights.feed(&records[..30_000])?;
        job.wait_for_after(behind, "a commit", commits_records)?;
        kafka.kill_node(first)?;
        kafka.kill_node(first % 3 + 1)?;
        job.wait_until_metric("forebay_incarnations_over_total", 1.0)?;
        kafka.start()?;
        flights.feed(&records[30_000..])?;
        job.wait_until_worked_off(records.len())?;
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// Method: the broker that coordinates transactions freezes in a commit: it takes connections and never answers, and the others take it for dead. The job
/// must work off all there is while it is frozen; then it wakes up in the belief that it leads what the others lead by now.
#[test]
fn a_broker_that_freezes_in_a_commit_is_left_alone() -> Result<()> {
    in_folder("one-frozen", |folder| {
        let kafka = Instance::up("kafka-three", "one-frozen")?;
        let flights = Flights::new(folder, kafka.broker()?, &S3::of_environment()?, every_second)?;
        let records = records(60_000)?;
        let job = verbose(&flights)?;
        job.wait_until_running(SHARDS as usize)?;
        let node = flights.broker.leader(TRANSACTIONS, 0)?;
        let behind = job.lines().len();
        flights.feed(&records[..30_000])?;
        job.wait_for_after(behind, "a commit", commits_records)?;
        let frozen = kafka.freeze_node(node)?;
        flights.feed(&records[30_000..45_000])?;
        job.wait_until_metric("forebay_incarnations_over_total", 1.0)?;
        job.wait_until_running(SHARDS as usize)?;
        job.wait_until_worked_off(45_000)?;
        drop(frozen);
        flights.feed(&records[45_000..])?;
        flights.broker.wait_until_in_sync(3)?;
        job.wait_until_worked_off(records.len())?;
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// Method: a journal has been cut when the broker that leads it is killed and comes back. Another leads it from then on, and it must be cut again there.
#[test]
fn a_journal_is_cut_after_its_leader_has_moved() -> Result<()> {
    in_folder("cut", |folder| {
        let mut kafka = Instance::up("kafka-three", "cut")?;
        let flights = Flights::new(folder, kafka.broker()?, &S3::of_environment()?, every_second)?;
        let records = records(336_776)?;
        let job = verbose(&flights)?;
        job.wait_until_running(SHARDS as usize)?;
        let fed = while_records_come_in(&flights, &records, || {
            wait_until_cut_behind(&flights, 0)?;
            lose_the_leader(&kafka, &flights, &job, &flights.journal())
        })?;
        kafka.start()?;
        flights.broker.wait_until_in_sync(3)?;
        let (_, end) = flights.broker.ranges(&flights.journal())?[0];
        let fed = fed + while_records_come_in(&flights, &records[fed..], || wait_until_cut_behind(&flights, end))?;
        flights.feed(&records[fed..])?;
        job.wait_until_worked_off(records.len())?;
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// Waits until the first partition of the journal begins behind an offset.
fn wait_until_cut_behind(flights: &Flights, offset: u64) -> Result<()> {
    until(&format!("the journal is cut behind {offset}"), PATIENCE, || {
        let (start, _) = flights.broker.ranges(&flights.journal())?[0];
        Ok((start > offset).then_some(()))
    })
}

fn verbose(flights: &Flights) -> Result<Process> {
    flights.forebay.clone().with("RUST_LOG", "info,forebay_worker=debug").run("one", &flights.state_dir("one"), &[])
}

/// Puts records in bit by bit until `body` has ended; returns how many.
fn while_records_come_in(flights: &Flights, records: &[Record], body: impl FnOnce() -> Result<()>) -> Result<usize> {
    let over = AtomicBool::new(false);
    let (fed, done) = thread::scope(|scope| {
        let feeder = scope.spawn(|| flights.feed_slowly(records, &over));
        let done = body();
        over.store(true, Ordering::SeqCst);
        (feeder.join().map_err(|_| anyhow!("the feeder panicked")), done)
    });
    done?;
    fed?
}

/// Kills the node that leads a topic's first partition in the middle of a commit, and waits until the job goes on.
fn lose_the_leader(kafka: &Instance, flights: &Flights, job: &Process, led: &str) -> Result<()> {
    job.wait_until_metric("forebay_records_total", 1.0)?;
    let node = flights.broker.leader(led, 0)?;
    job.wait_for_after(job.lines().len(), "a commit", commits_records)?;
    kafka.kill_node(node)?;
    println!("node {node}, which led {led}, is killed");
    let before = job.metric("forebay_records_total")?;
    job.wait_until_metric("forebay_records_total", before + 1.0).map(drop)
}

fn commits_records(line: &Line) -> bool {
    line.message() == "commit begins" && line.number("records").is_some_and(|records| records > 0)
}
