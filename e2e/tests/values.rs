//! Promise: an empty value, a null one and one that is far larger than Kafka's default limit become what the manifest declares, or what
//! docs/pipeline.md says of one that declares nothing; the records around them come to no harm, and the books balance.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use forebay_e2e::job::Forebay;
use forebay_e2e::kafka::{Broker, Feeder};
use forebay_e2e::s3::{BUCKET, S3};
use forebay_e2e::{in_folder, unique};
use rdkafka::message::{Headers, Message};
use serde_json::{Value, json};

const PARTITIONS: u32 = 4;

/// Flights of each aircraft.
const FLIGHTS: u64 = 20;
/// Of these, before the values that are no ordinary ones.
const FLIGHTS_BEFORE: u64 = 10;

/// The aircraft about which such a record comes, one each.
const EMPTY: &str = "N0EMPTY";
const NULL: &str = "N0NULL";
const LARGE: &str = "N0LARGE";

/// The id in the large record.
const LARGE_ID: &str = "large";
/// What it has at least.
const LARGE_BYTES: usize = 3 << 20;
/// What the input takes. All other topics have Kafka's default, a little more than 1 MiB.
const INPUT_BYTES_MAX: &str = "10485760";
/// A dead letter that is cut is cut as little as need be: its topic takes so much and more.
const LETTER_BYTES_MIN: usize = 1_000_000;

/// The time stamp of all records.
const TIME: i64 = 1_388_534_400_000;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Processed,
    Filtered,
    /// Its aircraft's state is gone.
    Removed,
    /// It is a dead letter: of which step, and part of the reason.
    Dead(&'static str, &'static str),
}

/// By the aircraft.
type Fates = BTreeMap<&'static str, Fate>;

/// A dead letter.
struct Letter {
    value: Option<Vec<u8>>,
    headers: BTreeMap<String, String>,
}

/// A job of its own on the shared servers.
struct Job {
    name: String,
    broker: Broker,
    forebay: Forebay,
}

impl Job {
    /// What stands behind `format` in `parse` and behind `topic` in `emit` is the test's.
    fn new(folder: &Path, parse: &str, emit: &str) -> Result<Self> {
        let (broker, s3, name) = (Broker::of_environment()?, S3::of_environment()?, unique("values"));
        let manifest = folder.join("job.yaml");
        let text = format!(
            "\
apiVersion: forebay.dev/v1alpha1
kind: IngestionJob
metadata: {{name: {name}, namespace: default}}
spec:
  inputs: [{{name: flights, topic: {name}}}]
  shards: 2
  commit: {{interval: 100ms}}
  deadLetter: {{topic: {name}.dead}}
  pipeline:
    - parse: {{format: json{parse}}}
    - upsert: {{table: aircraft, increment: {{flights: 1}}, emit: {{topic: {name}.updates}}}}
    - emit: {{topic: {name}.seen{emit}}}
"
        );
        fs::write(&manifest, text)?;
        let mut forebay = Forebay::new(&manifest, folder)
            .with("FOREBAY_KAFKA", &broker.address)
            .with("FOREBAY_STORE", format!("s3://{BUCKET}/{name}"))
            .with("FOREBAY_STATE_DIR", folder.join("state").to_string_lossy());
        for (variable, value) in s3.environment() {
            forebay = forebay.with(variable, value);
        }
        broker.create_topic_with(&name, PARTITIONS, &[("max.message.bytes", INPUT_BYTES_MAX)])?;
        for output in ["dead", "updates", "seen"] {
            broker.create_topic(&format!("{name}.{output}"), PARTITIONS)?;
        }
        Ok(Self { name, broker, forebay })
    }

    /// Puts the flights in, and the three records in the middle of them.
    fn feed(&self, large: &str) -> Result<()> {
        let feeder = Feeder::new(&self.broker, &self.name)?;
        let put = |aircraft: &str, value: Option<&[u8]>| feeder.put(Some(aircraft.as_bytes()), value, Some(TIME));
        for number in 0..FLIGHTS {
            if number == FLIGHTS_BEFORE {
                put(EMPTY, Some(b"".as_slice()))?;
                put(NULL, None)?;
                put(LARGE, Some(large.as_bytes()))?;
            }
            for aircraft in aircraft() {
                let flight = json!({"id": flight_id(&aircraft, number)}).to_string();
                put(&aircraft, Some(flight.as_bytes()))?;
            }
        }
        feeder.flush()
    }

    fn output(&self, which: &str) -> String {
        format!("{}.{which}", self.name)
    }

    /// Partition and offset of the three records in the input, which Kafka holds as they were put in.
    fn places(&self) -> Result<BTreeMap<&'static str, (String, String)>> {
        let mut places = BTreeMap::new();
        self.broker.read(&self.name, |record| {
            let aircraft = match record.payload() {
                Some([]) => EMPTY,
                None => NULL,
                Some(value) if value.len() > LARGE_BYTES => LARGE,
                Some(_) => return Ok(()),
            };
            ensure!(record.key() == Some(aircraft.as_bytes()), "the value of {:?} is not as it was put in", record.key());
            places.insert(aircraft, (record.partition().to_string(), record.offset().to_string()));
            Ok(())
        })?;
        Ok(places)
    }

    /// The dead letters by their keys.
    fn letters(&self) -> Result<BTreeMap<String, Letter>> {
        let mut letters = BTreeMap::new();
        self.broker.read(&self.output("dead"), |record| {
            let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
            let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
            let mut headers = BTreeMap::new();
            for header in record.headers().iter().flat_map(|headers| headers.iter()) {
                headers.insert(header.key.to_owned(), text(header.value));
            }
            let letter = Letter { value: record.payload().map(<[u8]>::to_vec), headers };
            ensure!(letters.insert(key.clone(), letter).is_none(), "{key} has two dead letters");
            Ok(())
        })?;
        Ok(letters)
    }

    /// Those that are dead letters are there with all that docs/formats.md says, and nothing else is.
    fn check_letters(&self, fates: &Fates, large: &str) -> Result<()> {
        let (letters, places) = (self.letters()?, self.places()?);
        let dead: Vec<&str> = fates.iter().filter(|(_, fate)| matches!(fate, Fate::Dead(..))).map(|(aircraft, _)| *aircraft).collect();
        let found: Vec<&str> = letters.keys().map(String::as_str).collect();
        ensure!(found == dead, "dead letters of {found:?} instead of {dead:?}");
        for (aircraft, fate) in fates {
            let Fate::Dead(step, reason) = fate else { continue };
            let letter = letters.get(*aircraft).with_context(|| format!("no dead letter of {aircraft}"))?;
            let (partition, offset) = places.get(aircraft).with_context(|| format!("{aircraft} is not in the input"))?;
            let (partition, offset) = (partition.as_str(), offset.as_str());
            let header = |name: &str| letter.headers.get(name).map(String::as_str);
            let said = &letter.headers;
            let place = [header("forebay.topic"), header("forebay.partition"), header("forebay.offset")];
            ensure!(place == [Some(&*self.name), Some(partition), Some(offset)], "{aircraft} lies at {partition} {offset}: {said:?}");
            ensure!(header("forebay.step") == Some(*step), "{aircraft} was not refused by {step}: {said:?}");
            ensure!(header("forebay.error").is_some_and(|error| error.contains(reason)), "{aircraft}, not for {reason:?}: {said:?}");
            let (value, whole) = (letter.value.as_deref(), header("forebay.value_bytes"));
            let left = value.map(<[u8]>::len);
            let is_right = match *aircraft {
                EMPTY => value == Some(&b""[..]) && whole.is_none(),
                NULL => value.is_none() && whole.is_none(),
                // Its topic has Kafka's default limit.
                _ => {
                    let is_cut = value.is_some_and(|value| large.as_bytes().starts_with(value) && value.len() < large.len());
                    is_cut && left >= Some(LETTER_BYTES_MIN) && whole == Some(large.len().to_string().as_str())
                }
            };
            ensure!(is_right, "the dead letter of {aircraft} has {left:?} bytes, and is not the value as it came: {said:?}");
        }
        Ok(())
    }

    /// Each record that was processed was seen once, its aircraft's state has it, and the books know all of them.
    fn check_rest(&self, fates: &Fates) -> Result<()> {
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        self.broker.read(&self.output("seen"), |record| {
            let value: Value = serde_json::from_slice(record.payload().context("an output without a value")?)?;
            let id = value.as_str().or_else(|| value["id"].as_str()).context("an output without an id")?;
            *seen.entry(id.to_owned()).or_default() += 1;
            Ok(())
        })?;
        let mut wanted: BTreeMap<String, u32> =
            aircraft().flat_map(|aircraft| (0..FLIGHTS).map(move |number| (flight_id(&aircraft, number), 1))).collect();
        let ordinary = wanted.len();
        if fates[LARGE] == Fate::Processed {
            wanted.insert(LARGE_ID.to_owned(), 1);
        }
        let wrong: Vec<&String> = seen.keys().chain(wanted.keys()).filter(|id| seen.get(*id) != wanted.get(*id)).collect();
        ensure!(wrong.is_empty(), "lost, too many or wrongly seen: {wrong:?}");

        let flights = |aircraft: &str| match fates.get(aircraft) {
            Some(Fate::Removed) => FLIGHTS - FLIGHTS_BEFORE,
            Some(Fate::Processed) => FLIGHTS + 1,
            Some(Fate::Filtered | Fate::Dead(..)) | None => FLIGHTS,
        };
        let wanted: BTreeMap<String, Value> =
            aircraft().map(|aircraft| (aircraft.clone(), json!({"flights": flights(&aircraft)}))).collect();
        let mut state = BTreeMap::new();
        for line in self.forebay.ask(&["state", "scan", "-o", "json"])?.lines() {
            let mut row: Value = serde_json::from_str(line)?;
            state.insert(row["key"].as_str().context("a key of text")?.to_owned(), row["value"].take());
        }
        ensure!(state == wanted, "the state is {state:?}");

        let count = |is_meant: fn(&Fate) -> bool| fates.values().filter(|fate| is_meant(fate)).count();
        let mut removed = Vec::new();
        let mut updates = 0;
        self.broker.read(&self.output("updates"), |record| {
            let delta: Value = serde_json::from_slice(record.payload().context("a delta without a value")?)?;
            updates += 1;
            if delta["remove"] == true {
                removed.push(delta["key"].as_str().context("a delta without a key")?.to_owned());
            }
            Ok(())
        })?;
        removed.sort();
        let gone: Vec<&str> = fates.iter().filter(|(_, fate)| **fate == Fate::Removed).map(|(aircraft, _)| *aircraft).collect();
        let processed = ordinary + count(|fate| matches!(fate, Fate::Processed | Fate::Removed));
        ensure!(removed == gone && updates == processed, "{updates} updates, of them removals of {removed:?}");
        let books: Value = serde_json::from_str(&self.forebay.ask(&["books", "-o", "json"])?)?;
        let (rejected, filtered) = (count(|fate| matches!(fate, Fate::Dead(..))), count(|fate| *fate == Fate::Filtered));
        let all = json!({
            "in": ordinary + fates.len(), "processed": processed, "rejected": rejected, "filtered": filtered, "duplicate": 0, "throttled": 0
        });
        ensure!(books == all, "the books say {books} instead of {all}");
        Ok(())
    }
}

/// The tail numbers, in the order in which their flights come.
fn aircraft() -> impl Iterator<Item = String> {
    [EMPTY, NULL, LARGE].into_iter().map(str::to_owned).chain((100..140).map(|number| format!("N{number}")))
}

fn flight_id(aircraft: &str, number: u64) -> String {
    format!("{aircraft}-{number}")
}

/// A flight with three MiB of which compression, which the broker's limit counts after, leaves more than its default allows: random digits.
fn large() -> String {
    let mut digits = String::with_capacity(LARGE_BYTES + 16);
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    while digits.len() < LARGE_BYTES {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        digits.push_str(&format!("{random:016x}"));
    }
    json!({"id": LARGE_ID, "digits": digits}).to_string()
}

/// Runs a job with this behind `format` in `parse`, and this behind `topic` in `emit`. The fates are those of the empty, the null and the large
/// value.
fn check(parse: &str, emit: &str, [empty, null, of_large]: [Fate; 3]) -> Result<()> {
    let run = |folder: &Path| {
        let job = Job::new(folder, parse, emit)?;
        let large = large();
        job.feed(&large)?;
        job.forebay.run("one", &folder.join("state"), &["--until-end"])?.success()?;
        let fates = Fates::from([(EMPTY, empty), (NULL, null), (LARGE, of_large)]);
        job.check_letters(&fates, &large)?;
        job.check_rest(&fates)
    };
    in_folder("values", run).with_context(|| format!("parse: {{format: json{parse}}}, emit: {{topic: seen{emit}}}"))
}

/// What is put out of a record, where that is little of it.
const ID: &str = ", value: .id";

const IS_EMPTY: Fate = Fate::Dead("parse", "the value is empty");
const IS_NULL: Fate = Fate::Dead("parse", "the record is a tombstone: its value is null");
const IS_LARGE: Fate = Fate::Dead("parse", "more than the 1048576 allowed");

/// Method: the manifest declares nothing. Once little is put out of each record, once all of it, which of the large one no topic with Kafka's default
/// limit takes.
#[test]
fn where_nothing_is_declared_only_what_cannot_be_put_out_is_a_dead_letter_for_its_size() -> Result<()> {
    check("", ID, [IS_EMPTY, IS_NULL, Fate::Processed])?;
    check("", "", [IS_EMPTY, IS_NULL, Fate::Dead("emit", "that a topic takes")])
}

/// Method: manifests in which each word that `parse` knows for such values comes once at least, and limits below and above the large one.
#[test]
fn empty_null_and_large_values_are_treated_as_declared() -> Result<()> {
    let all_rejected = ", tombstone: reject, empty: tombstone, sizeMax: 1Mi, oversized: reject";
    check(all_rejected, ID, [IS_NULL, IS_NULL, IS_LARGE])?;
    let all_skipped = ", tombstone: skip, empty: skip, sizeMax: 1Mi, oversized: skip";
    check(all_skipped, ID, [Fate::Filtered, Fate::Filtered, Fate::Filtered])?;
    check(", tombstone: removeEntity, empty: tombstone, sizeMax: 1Mi", ID, [Fate::Removed, Fate::Removed, IS_LARGE])?;
    check(", tombstone: skip, empty: reject, sizeMax: 4Mi", ID, [IS_EMPTY, Fate::Filtered, Fate::Processed])
}
