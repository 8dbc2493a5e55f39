//! Promise: `--from-group` takes over where another consumer stopped, and the group then follows the job for everybody's tools.

use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, records, replaced};
use forebay_e2e::in_folder;
use forebay_e2e::kafka::{Broker, Feeder};
use forebay_e2e::s3::S3;
use serde_json::Value;

/// Method: an ordinary consumer reads part of the input as group G, commits and leaves; the job names G and starts with `--from-group`. It must
/// process what the group had not, all of it and nothing else, and move the group's offsets on. Started again it goes by its own journal.
#[test]
fn a_job_takes_over_a_consumer_group() -> Result<()> {
    in_folder("group", |folder| {
        let s3 = S3::of_environment()?;
        let group = forebay_e2e::unique("readers");
        let named = |manifest| replaced(manifest, "  shards: 4\n", &format!("  shards: 4\n  consumerGroup: {group}\n"));
        let flights = Flights::new(folder, Broker::of_environment()?, &s3, named)?;
        let records = records(6_000)?;
        flights.feed(&records[..5_000])?;

        let before_group = flights.forebay.call(&["run", "--until-end", "--from-group"])?;
        let said = String::from_utf8_lossy(&before_group.stderr);
        ensure!(before_group.status.code() == Some(2), "it ended with {:?}: {said}", before_group.status);
        ensure!(said.contains(&group) && said.contains("reset-offsets"), "a group that was never there is not named: {said}");
        let none = flights.broker.group_offsets(&group, &flights.input())?;
        ensure!(none.iter().all(Option::is_none), "a start that failed moved the group: {none:?}");

        let committed = flights.broker.consume_as(&group, &flights.input(), 2_000)?;
        let taken: u64 = committed.iter().flatten().sum();
        ensure!(taken == 2_000, "the group took {taken} records: {committed:?}");
        let forebay = flights.forebay.clone().with("FOREBAY_STATE_DIR", flights.state_dir("one").to_string_lossy());
        let run = ["run", "--until-end", "-o", "json", "--from-group"];
        let books: Value = serde_json::from_str(&forebay.ask(&run)?)?;
        ensure!(books["in"] == 3_000, "{books} came in of the 3000 that the group had not read");
        for letter in flights.forebay.ask(&["dlq", "ls", "-o", "json"])?.lines() {
            let letter: Value = serde_json::from_str(letter)?;
            let header = |name: &str| letter["headers"][name].as_str().and_then(|text| text.parse::<u64>().ok()).context("a place");
            let (partition, offset) = (header("forebay.partition")?, header("forebay.offset")?);
            let from = committed[usize::try_from(partition)?].unwrap_or(0);
            ensure!(offset >= from, "offset {offset} of partition {partition} was the old consumer's, it had come to {from}");
        }
        let ends: Vec<_> = flights.broker.ranges(&flights.input())?.into_iter().map(|(_, end)| Some(end)).collect();
        let after = flights.broker.group_offsets(&group, &flights.input())?;
        ensure!(
            after.iter().zip(&ends).all(|(at, end)| at == end || *end == Some(0)),
            "the group stands at {after:?}, the topic ends at {ends:?}"
        );

        Feeder::new(&flights.broker, &flights.input())?.feed(&records[5_000..])?;
        let in_all = records.len() - 2_000;
        let books: Value = serde_json::from_str(&forebay.ask(&run)?)?;
        ensure!(books["in"] == in_all, "started again it did not go on: {books}");
        fs::remove_dir_all(flights.state_dir("one"))?;
        let books: Value = serde_json::from_str(&forebay.ask(&run)?)?;
        ensure!(books["in"] == in_all, "without its disk it did not go on: {books}");
        let input = flights.input_where(|partition, offset| offset >= committed[partition as usize].unwrap_or(0))?;
        flights.check_some(&input, &["one"])
    })
}
