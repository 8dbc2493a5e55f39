//! Promise: processes that are given different shards of a job (`--shards`) share its work, and one of them can take over all of it.

use anyhow::{Result, ensure};
use forebay_e2e::flights::{Flights, SHARDS, records};
use forebay_e2e::job::Process;
use forebay_e2e::{PATIENCE, in_folder, until};

/// Method: two processes with half the shards each, started before and fed while they run. One is stopped; the other goes on with its own half
/// and leaves the rest alone, until it is started again with all shards. Both had released theirs, so that it need not bar anybody. The oracle judges
/// what both put out.
#[test]
fn two_processes_share_the_shards_of_a_job_and_one_takes_over_all() -> Result<()> {
    in_folder("sharing", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let records = records(30_000)?;
        flights.feed(&records[..10_000])?;
        let start = |name: &str, shards: &str| flights.forebay.run(name, &flights.state_dir(name), &["--shards", shards]);
        let (left, right) = (start("left", "0-1")?, start("right", "2-3")?);
        flights.feed(&records[10_000..20_000])?;
        worked_off(&flights, &left, 0..2)?;
        worked_off(&flights, &right, 2..4)?;
        ensure!(running(&left)? == 2.0 && running(&right)? == 2.0, "they do not run two shards each");

        left.stop()?;
        let before = flights.shards(&flights.state_dir("left"))?;
        flights.feed(&records[20_000..])?;
        worked_off(&flights, &right, 2..4)?;
        right.stop()?;
        let debug = flights.forebay.clone().with("RUST_LOG", "info,forebay_worker=debug");
        let mut all = debug.run("right", &flights.state_dir("right"), &["--shards", "0-3", "--until-end"])?;
        all.success()?;
        let said = |message: &str| all.lines().iter().filter(|line| line.message() == message).count();
        ensure!(said("claim begins") >= SHARDS as usize, "the log does not tell of claims");
        ensure!(said("bar begins") == 0, "an owner that had stopped in good order was barred: {}", all.tail());
        let (left, right) = (flights.shards(&flights.state_dir("left"))?, flights.shards(&flights.state_dir("right"))?);
        ensure!(left == before, "the process that was stopped went on: {left:?}, before {before:?}");
        ensure!(right.len() == SHARDS as usize, "the one that took over has the shards {:?} only", right.keys());
        flights.check(&records, &["left", "right"])
    })
}

/// Waits until a process has committed all records of its shards.
fn worked_off(flights: &Flights, process: &Process, shards: std::ops::Range<u32>) -> Result<()> {
    let ends = flights.broker.ranges(&flights.input())?;
    let records: u64 = (0..).zip(ends).filter(|(partition, _)| shards.contains(&(partition % SHARDS))).map(|(_, (_, end))| end).sum();
    process.wait_until_metric("forebay_records_total", records as f64)?;
    let found = process.metric("forebay_records_total")?;
    ensure!(found == records as f64, "it counts {found} records, its shards have {records}");
    Ok(())
}

fn running(process: &Process) -> Result<f64> {
    until("both shards run", PATIENCE, || Ok(Some(process.metric("forebay_shard_running")?).filter(|running| *running >= 2.0)))
}
