//! Promise: the flights job comes out right to the record on a real Kafka and S3; running it again changes nothing; a lost disk is restored;
//! what it cannot process is kept, listed and put back once.

use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, SHARDS, records, replaced};
use forebay_e2e::in_folder;
use forebay_e2e::kafka::{Broker, Feeder};
use forebay_e2e::s3::S3;
use rdkafka::message::Message;
use serde_json::Value;

/// Method: the year's flights in three parts. After the first the job runs twice; before the last its disk is lost, so that it starts from S3
/// and the journal behind it. The oracle judges after each part.
#[test]
fn a_year_of_flights_comes_out_right_even_after_the_disk_was_lost() -> Result<()> {
    in_folder("flights", |folder| {
        let (flights, s3) = Flights::on_shared_servers(folder)?;
        let records = records(336_776)?;
        let (first, second) = (records.len() / 2, records.len() * 3 / 4);
        flights.feed(&records[..first])?;
        flights.run_until_end("one")?;
        flights.check(&records[..first], &["one"])?;

        let (counts, shards) = (flights.counts()?, flights.shards(&flights.state_dir("one"))?);
        flights.run_until_end("one")?;
        ensure!(flights.counts()? == counts, "a run with nothing to do put something out: {:?} instead of {counts:?}", flights.counts()?);
        ensure!(flights.shards(&flights.state_dir("one"))? == shards, "a run with nothing to do committed epochs");

        // Long enough for a checkpoint, which comes every 30 s.
        let running = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        running.wait_until_running(SHARDS as usize)?;
        let feeder = Feeder::new(&flights.broker, &flights.input())?;
        let mut fed = first;
        while running.metric("forebay_checkpoints_total")? < f64::from(SHARDS) || fed < second {
            let next = (fed + 500).min(records.len() - 1);
            feeder.feed(&records[fed..next])?;
            fed = next;
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        running.stop()?;
        ensure!(!s3.list(&flights.prefix())?.is_empty(), "nothing is in the bucket below {}", flights.prefix());

        fs::remove_dir_all(flights.state_dir("one"))?;
        flights.feed(&records[fed..])?;
        let mut again = flights.forebay.run("one", &flights.state_dir("one"), &["--until-end"])?;
        again.success()?;
        let restored = again.lines().iter().filter(|line| line.message() == "restored from a checkpoint").count();
        ensure!(restored == SHARDS as usize, "{restored} shards were restored from a checkpoint");
        flights.check(&records, &["one"])
    })
}

/// Method: records that no parser takes among good ones; then `dlq ls`, `replay --dry-run`, and `replay` twice, counting the input topic. The oracle judges
/// what came out of all that is in the input in the end.
#[test]
fn poison_is_kept_and_put_back_once() -> Result<()> {
    in_folder("poison", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let good = &records(2_000)?;
        let rejected_before = {
            flights.feed(good)?;
            flights.run_until_end("one")?;
            listed(&flights)?.len()
        };
        let feeder = Feeder::new(&flights.broker, &flights.input())?;
        let deep = [b"{\"id\":".repeat(50_000), b"1".to_vec(), b"}".repeat(50_000)].concat();
        let poison: [Option<&[u8]>; 4] = [Some(b"\xff\xfe\x00{"), None, Some(&deep), Some(b"\x00")];
        for value in poison {
            feeder.put(Some(b"N14228"), value, Some(1_388_534_400_000))?;
        }
        feeder.flush()?;
        flights.run_until_end("one")?;

        let dead = listed(&flights)?;
        ensure!(dead.len() == rejected_before + poison.len(), "{} dead letters, {rejected_before} before the poison", dead.len());
        ensure!(
            dead.iter().any(|letter| letter["value"]["base64"] == "//4Aew=="),
            "the bytes that are no text are not among the dead letters"
        );
        ensure!(
            dead.iter().any(|letter| letter["value"].is_null() && letter["key"] == "N14228"),
            "the record without a value is not among them"
        );

        let input = |flights: &Flights| -> Result<u64> { flights.counts()?.remove(&flights.input()).context("the input is counted") };
        let before = input(&flights)?;
        let all = format!("{} dead letters", dead.len());
        let dry = flights.forebay.ask(&["dlq", "replay", "--dry-run"])?;
        ensure!(dry.contains(&format!("{all} would be put back")), "{dry}");
        ensure!(input(&flights)? == before, "a dry run put something back");
        let wet = flights.forebay.ask(&["dlq", "replay"])?;
        ensure!(wet.contains(&format!("{all} are put back")), "{wet}");
        ensure!(input(&flights)? == before + dead.len() as u64, "{} records were put back", input(&flights)? - before);
        let again = flights.forebay.ask(&["dlq", "replay"])?;
        ensure!(again.contains("0 dead letters are put back"), "{again}");
        ensure!(input(&flights)? == before + dead.len() as u64, "a second replay put something back");

        // Nothing was mended, so all of them are refused once more, and none is lost.
        flights.run_until_end("one")?;
        let refused = listed(&flights)?;
        ensure!(refused.len() == 2 * dead.len(), "{} dead letters after the replay of {}", refused.len(), dead.len());
        let values =
            |letters: &[Value]| letters.iter().map(|letter| letter["value"].to_string()).collect::<std::collections::BTreeSet<_>>();
        ensure!(values(&refused) == values(&dead), "a replayed record is not what it was");
        let all = flights.input_where(|_, _| true)?;
        flights.check_some(&all, &["one"])
    })
}

/// Method: flights that are late get a time stamp of their own, those of more than five hours so far in the future that Kafka refuses them. These must be dead letters, and
/// all others come out.
#[test]
fn time_stamps_that_kafka_refuses_are_dead_letters() -> Result<()> {
    in_folder("future", |folder| {
        let stamped = |manifest| {
            let emit = "emit:\n            timestamp: if .dep_delay > 300 { 4000000000000 } else { .time }\n            topic: ";
            let manifest = replaced(manifest, "emit:\n            topic: ", emit)?;
            Ok(manifest)
        };
        let s3 = S3::of_environment()?;
        let flights = Flights::new(folder, Broker::of_environment()?, &s3, stamped)?;
        let records = records(20_000)?;
        flights.feed(&records)?;
        flights.run_until_end("one")?;
        let delays: Vec<Value> = records.iter().filter_map(|record| serde_json::from_str(&record.value).ok()).collect();
        let delayed = |range: std::ops::RangeInclusive<i64>| {
            let is_meant =
                |flight: &&Value| flight["tailnum"].is_string() && flight["dep_delay"].as_i64().is_some_and(|delay| range.contains(&delay));
            let mut ids: Vec<String> = delays.iter().filter(is_meant).map(|flight| flight["id"].to_string()).collect();
            ids.sort();
            ids
        };
        let mut refused = Vec::new();
        for letter in listed(&flights)?.iter().filter(|letter| letter["headers"]["forebay.step"] == "route") {
            let said = letter["headers"]["forebay.error"].as_str().unwrap_or_default();
            ensure!(said.contains("message.timestamp.after.max.ms") && said.contains("4000000000000"), "it says: {said}");
            let flight: Value = serde_json::from_str(letter["value"].as_str().context("a value of text")?)?;
            refused.push(flight["id"].to_string());
        }
        refused.sort();
        // Refused ones are not remembered, so that each repetition is refused again.
        let long = delayed(301..=3000);
        ensure!(!long.is_empty() && refused == long, "{} are refused, {} are that late", refused.len(), long.len());
        let mut put_out = Vec::new();
        flights.broker.read(&flights.output("delayed"), |record| {
            let flight: Value = serde_json::from_slice(record.payload().context("a value")?)?;
            put_out.push(flight["id"].to_string());
            Ok(())
        })?;
        put_out.sort();
        let mut late = delayed(61..=300);
        late.dedup();
        ensure!(put_out == late, "{} came out, {} are late", put_out.len(), late.len());
        Ok(())
    })
}

fn listed(flights: &Flights) -> Result<Vec<Value>> {
    let printed = flights.forebay.ask(&["dlq", "ls", "-o", "json"])?;
    printed.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
