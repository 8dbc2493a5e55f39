//! Promise: a shard has one owner. Who starts later wins, the other says so and ends; a process that slept through its own end does no harm.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use forebay_e2e::flights::{Flights, SHARDS, records, replaced};
use forebay_e2e::job::{Line, Process};
use forebay_e2e::kafka::{Broker, Record};
use forebay_e2e::s3::S3;
use forebay_e2e::{PATIENCE, in_folder, until};

/// The exit code of a process that lost its shards.
const LOST: Option<i32> = Some(3);

/// Method: a second process claims all shards of a first one while records come in all the time: the first one's next commit is refused.
#[test]
fn the_later_start_wins_and_the_loser_names_it() -> Result<()> {
    in_folder("owners", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let records = records(120_000)?;
        let mut first = flights.forebay.run("first", &flights.state_dir("first"), &[])?;
        let over = AtomicBool::new(false);
        let (fed, second) = thread::scope(|scope| {
            let feeder = scope.spawn(|| flights.feed_slowly(&records, &over));
            let second = replace_at_work(&flights, &mut first);
            over.store(true, Ordering::SeqCst);
            (feeder.join().map_err(|_| anyhow!("the feeder panicked")), second)
        });
        let (fed, second) = (fed??, second?);
        ensure!(fed < records.len(), "the records ran out: the first process was idle when it lost its shards");
        second.wait_until_running(SHARDS as usize)?;
        flights.feed(&records[fed..])?;
        wait_until_worked_off(&second, &records)?;
        second.stop()?;
        flights.check(&records, &["first", "second"])
    })
}

/// Method: the same, and the first process has worked off everything and has nothing to commit: no commit tells it. Checkpoints are rare, since they
/// would lead to commits.
#[test]
fn a_process_that_is_idle_notices_that_a_later_one_took_its_shards() -> Result<()> {
    in_folder("idle", |folder| {
        let s3 = S3::of_environment()?;
        let every_hour = |manifest| replaced(manifest, "interval: 30s", "interval: 1h");
        let flights = Flights::new(folder, Broker::of_environment()?, &s3, every_hour)?;
        let records = records(20_000)?;
        flights.feed(&records[..10_000])?;
        let mut first = flights.forebay.run("first", &flights.state_dir("first"), &[])?;
        wait_until_worked_off(&first, &records[..10_000])?;
        let second = flights.forebay.run("second", &flights.state_dir("second"), &[])?;
        ensure_lost_to(&mut first, "second")?;
        second.wait_until_running(SHARDS as usize)?;
        flights.feed(&records[10_000..])?;
        wait_until_worked_off(&second, &records)?;
        second.stop()?;
        flights.check(&records, &["first", "second"])
    })
}

/// Method: a process is stopped in the middle of a transaction, the broker ends that by its time-out, another process takes over and works on;
/// then the first one wakes up in the belief that it still owns all.
#[test]
fn a_process_that_wakes_up_after_it_was_replaced_does_no_harm() -> Result<()> {
    in_folder("zombie", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let records = records(60_000)?;
        let mut zombie = start_and_stop_in_a_transaction(&flights, &records[..30_000])?;
        let other = flights.forebay.run("other", &flights.state_dir("other"), &[])?;
        other.wait_until_running(SHARDS as usize)?;
        flights.feed(&records[30_000..45_000])?;
        wait_until_worked_off(&other, &records[..45_000])?;
        zombie.signal("CONT")?;
        flights.feed(&records[45_000..])?;
        ensure_lost_to(&mut zombie, "other")?;
        wait_until_worked_off(&other, &records)?;
        other.stop()?;
        flights.check(&records, &["zombie", "other"])
    })
}

/// Method: the same, and nobody else is there: what was in the aborted transaction must be done again, once.
#[test]
fn a_process_that_slept_past_its_transaction_goes_on_by_itself() -> Result<()> {
    in_folder("sleeper", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let records = records(60_000)?;
        let sleeper = start_and_stop_in_a_transaction(&flights, &records[..30_000])?;
        sleeper.signal("CONT")?;
        sleeper.wait_until_metric("forebay_incarnations_over_total", 1.0)?;
        flights.feed(&records[30_000..])?;
        wait_until_worked_off(&sleeper, &records)?;
        sleeper.stop()?;
        flights.check(&records, &["zombie"])
    })
}

/// Starts the process `second` when `first` has begun to work, and waits until `first` has lost all its shards.
fn replace_at_work(flights: &Flights, first: &mut Process) -> Result<Process> {
    first.wait_until_metric("forebay_records_total", 1_000.0)?;
    let second = flights.forebay.run("second", &flights.state_dir("second"), &[])?;
    ensure_lost_to(first, "second")?;
    Ok(second)
}

/// Starts a worker `zombie`, puts these records in bit by bit, and stops it while it has a transaction open; returns once the broker has aborted
/// that. All the records are in then.
fn start_and_stop_in_a_transaction(flights: &Flights, records: &[Record]) -> Result<Process> {
    let zombie = flights.forebay.clone().with("RUST_LOG", "info,forebay_worker=debug").run("zombie", &flights.state_dir("zombie"), &[])?;
    zombie.wait_until_running(SHARDS as usize)?;
    let mut behind = zombie.lines().len();
    let (mut chunks, mut tries) = (records.chunks(500), 0);
    loop {
        flights.feed(chunks.next().context("no stop hit an open transaction")?)?;
        let with_records = |line: &Line| line.message() == "commit begins" && line.number("records").is_some_and(|records| records > 0);
        (_, behind) = zombie.wait_for_after(behind, "a commit", with_records)?;
        // Records are on their way some milliseconds later. Too early or too late only costs another try, with another delay.
        std::thread::sleep(Duration::from_millis(3 * (tries % 10)));
        zombie.signal("STOP")?;
        // A transaction that is about to end does so within this time, one that is open lives for thirty seconds.
        let settles =
            until("it settles", Duration::from_secs(3), || Ok(flights.broker.is_settled(&flights.output("enriched"))?.then_some(())));
        if settles.is_err() {
            break;
        }
        zombie.signal("CONT")?;
        tries += 1;
    }
    chunks.try_for_each(|chunk| flights.feed(chunk))?;
    until("the broker aborts the transaction", PATIENCE, || Ok(flights.broker.is_settled(&flights.output("enriched"))?.then_some(())))?;
    Ok(zombie)
}

fn ensure_lost_to(loser: &mut Process, winner: &str) -> Result<()> {
    let code = loser.exit()?;
    ensure!(code == LOST, "the loser ended with {code:?} instead of {LOST:?}:\n{}", loser.tail());
    let last = loser.lines().pop().context("it said nothing")?;
    ensure!(last.text.contains(&format!("to {winner} ")) && last.text.contains("the later start wins"), "its last words: {}", last.text);
    Ok(())
}

fn wait_until_worked_off(process: &Process, records: &[Record]) -> Result<()> {
    process.wait_until_metric("forebay_records_total", records.len() as f64).map(drop)
}
