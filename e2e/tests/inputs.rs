//! Promise: several inputs of a job are one stream: one state, one set of books, offsets for each, whatever dies.

use std::fs;

use anyhow::{Result, ensure};
use forebay_e2e::flights::{Flights, SHARDS, every_second, records, replaced};
use forebay_e2e::in_folder;
use forebay_e2e::kafka::{Broker, Feeder, Record};
use forebay_e2e::s3::{BUCKET, S3};

/// Method: every other aircraft's flights come by a second topic, so that the order of each key is known. A worker is killed in the middle, another one
/// without a disk goes on, and both topics get more while it runs. The oracle judges all of it, and the consumer group must stand at both ends. Where the
/// servers are stands in the manifest alone.
#[test]
fn two_inputs_are_one_stream_through_a_kill_and_a_lost_disk() -> Result<()> {
    in_folder("inputs", |folder| {
        let s3 = S3::of_environment()?;
        let second = forebay_e2e::unique("more");
        let broker = Broker::of_environment()?;
        let servers = format!(
            "spec:\n  kafka: {{bootstrapServers: \"{}\"}}\n  state: {{store: {{s3: {{bucket: {BUCKET}, prefix: {second}, endpoint: \"{}\", pathStyle: true}}}}}}\n",
            broker.address, s3.url
        );
        let with_two = |manifest| {
            let manifest = replaced(manifest, "spec:\n", &servers)?;
            let two = format!("      startFrom: earliest\n    - name: more\n      topic: {second}\n      startFrom: earliest\n");
            every_second(replaced(manifest, "      startFrom: earliest\n", &two)?)
        };
        let mut flights = Flights::new(folder, broker, &s3, with_two)?;
        flights.forebay =
            ["FOREBAY_KAFKA", "FOREBAY_STORE", "FOREBAY_S3_ENDPOINT"].iter().fold(flights.forebay, |forebay, name| forebay.without(name));
        flights.broker.create_topic(&second, u32::try_from(flights.broker.ranges(&flights.input())?.len())?)?;
        let records = records(60_000)?;
        let (other, own): (Vec<Record>, Vec<Record>) = records.iter().cloned().partition(|record| {
            let last = record.key.as_ref().and_then(|key| key.bytes().last());
            last.is_some_and(|byte| byte % 2 == 0)
        });
        ensure!(own.len().min(other.len()) > 10_000, "{} and {} records", own.len(), other.len());
        let feed = |from: usize, to: usize| {
            let part = |records: &[Record]| records.len() * from / 4..records.len() * to / 4;
            flights.feed(&own[part(&own)])?;
            Feeder::new(&flights.broker, &second)?.feed(&other[part(&other)])
        };
        feed(0, 2)?;
        let first = flights.forebay.run("first", &flights.state_dir("first"), &[])?;
        first.wait_until_metric("forebay_checkpoints_total", f64::from(SHARDS))?;
        feed(2, 3)?;
        first.wait_until_metric("forebay_records_total", 30_001.0)?;
        first.kill()?;
        fs::remove_dir_all(flights.state_dir("first"))?;

        let then = flights.forebay.run("then", &flights.state_dir("then"), &[])?;
        then.wait_until_running(SHARDS as usize)?;
        feed(3, 4)?;
        then.stop()?;
        let mut to_the_end = flights.forebay.run("then", &flights.state_dir("then"), &["--until-end"])?;
        to_the_end.success()?;
        let group = format!("forebay.default.{}", flights.name);
        for (topic, fed) in [(flights.input(), own.len()), (second.clone(), other.len())] {
            let stands: u64 = flights.broker.group_offsets(&group, &topic)?.into_iter().flatten().sum();
            ensure!(stands == fed as u64, "the group stands at {stands} of {topic}, {fed} are in it");
        }
        flights.check_with(&second, &["then"])
    })
}
