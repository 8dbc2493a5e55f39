//! Promise: several inputs of a job are one stream: one state, one set of books, offsets for each, whatever dies; and it begins where its manifest says.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Result, ensure};
use forebay_e2e::flights::{Flights, SHARDS, every_second, records, replaced};
use forebay_e2e::in_folder;
use forebay_e2e::kafka::{Broker, Feeder, Record};
use forebay_e2e::s3::{BUCKET, S3};
use rdkafka::message::Message;

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

/// Method: a job that starts at a time takes each partition's records from the first one of that time on, and goes by its state at its second start.
#[test]
fn a_job_begins_at_the_time_that_its_manifest_names() -> Result<()> {
    in_folder("time", |folder| {
        let (time, millis) = ("2013-01-03T12:00:00Z", 1_357_214_400_000);
        let from_then = |manifest| replaced(manifest, "startFrom: earliest", &format!("startFrom: {time}"));
        let flights = Flights::new(folder, Broker::of_environment()?, &S3::of_environment()?, from_then)?;
        let records = records(6_000)?;
        flights.feed(&records[..5_000])?;
        let mut firsts = BTreeMap::new();
        flights.broker.read(&flights.input(), |message| {
            if message.timestamp().to_millis() >= Some(millis) {
                firsts.entry(message.partition().unsigned_abs()).or_insert(message.offset().unsigned_abs());
            }
            Ok(())
        })?;
        flights.run_until_end("one")?;
        flights.feed(&records[5_000..])?;
        flights.run_until_end("one")?;
        let left_out = firsts.values().sum::<u64>();
        ensure!(left_out > 500 && left_out < 4_500, "{left_out} records lie before that time");
        flights
            .check_some(&flights.input_where(|partition, offset| firsts.get(&partition).is_some_and(|first| offset >= *first))?, &["one"])
    })
}

/// Method: a job that starts at the end takes nothing of what is there, and all that comes while it rests.
#[test]
fn a_job_begins_at_the_end_and_takes_what_comes_from_then_on() -> Result<()> {
    in_folder("latest", |folder| {
        let from_the_end = |manifest| replaced(manifest, "startFrom: earliest", "startFrom: latest");
        let flights = Flights::new(folder, Broker::of_environment()?, &S3::of_environment()?, from_the_end)?;
        let records = records(3_000)?;
        flights.feed(&records[..2_000])?;
        let ends: Vec<u64> = flights.broker.ranges(&flights.input())?.into_iter().map(|(_, end)| end).collect();
        flights.run_until_end("one")?;
        flights.feed(&records[2_000..])?;
        flights.run_until_end("one")?;
        flights.check_some(&flights.input_where(|partition, offset| offset >= ends[partition as usize])?, &["one"])
    })
}
