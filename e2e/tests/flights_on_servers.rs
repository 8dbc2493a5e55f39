//! Promise: the flights job comes out right to the record on a real Kafka and S3; running it again changes nothing; a lost disk is restored;
//! what it cannot process is kept, listed and put back once.

use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, SHARDS, records};
use forebay_e2e::in_folder;
use forebay_e2e::kafka::Feeder;
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

fn listed(flights: &Flights) -> Result<Vec<Value>> {
    let printed = flights.forebay.ask(&["dlq", "ls", "-o", "json"])?;
    printed.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
