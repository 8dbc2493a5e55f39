//! Promise: steps do on the engine what their documentation says, whenever the process is killed and its disk is lost. Those that no example uses:
//! `remove`, `remap`, `filter`, `parse: csv`, `dedup: within`, all of `upsert` and `emit`, tombstones that remove, a `ttl`.
//!
//! What must come out is computed by a model that knows nothing of the engine.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;

use forebay_engine::partitioner::partition_for_key;
use serde_json::{Map, Value, json};

use crate::support::{Watched, World};

/// Readings of devices, with all that a pipeline can do to an entity. Epochs are small, so that an entity is changed by many.
const DEVICES_JOB: &str = r#"
apiVersion: forebay.dev/v1alpha1
kind: IngestionJob
metadata: {name: devices, namespace: default}
spec:
  shards: 2
  inputs:
    - {name: readings, topic: readings}
  commit: {interval: 10ms, bytesMax: 64Ki}
  checkpoint: {interval: 1h}
  deadLetter: {topic: dead}
  state:
    tables:
      devices: {ttl: 3650d}
  pipeline:
    - parse: {format: json, tombstone: removeEntity}
    - dedup: {by: [.id, .kind], within: 3650d, withinRecordsMax: 8}
    - remap: |
        .site = upcase!(.site)
        .level = int!(.level) * 2 - 50
        del(.noise)
    - upsert:
        table: devices
        set: {site: .site, seen: .at}
        unset: [alarm]
        addToSet: {tags: .tags}
        increment: {readings: 1, total: .level, weight: .weight}
        min: {lowest: .level, first: .site}
        max: {highest: .level}
        append: {recent: {value: .id, cap: 5}}
        newerBy: .at
        emit: {topic: changes}
    - upsert:
        table: devices
        removeFromSet: {tags: .untag}
        max: {alarm: .alarm}
        emit: {topic: changes}
    - enrich: {table: devices, into: device, fields: [readings, tags, recent, alarm]}
    - filter: .kind != "ping"
    - emit:
        topic: told
        key: .site
        timestamp: .at
        partitioner: input
        headers: {origin: "%topic", kind: .kind, trace: "%headers.trace"}
    - remove: {table: devices, key: .replaces, emit: {topic: changes}}
    - emit: {topic: alarms, value: .alarm}
"#;

const PARTITIONS: u32 = 4;
const DEVICES: u64 = 240;
const READINGS: u64 = 6_000;

/// How many ids `dedup` remembers of a key.
const REMEMBERED: usize = 8;

/// Before the kill: is the disk with the databases lost? The line of the log that the process is killed at, and for the so-manieth time.
const KILLED_AT: [(bool, &str, usize); 7] = [
    (false, "commit begins", 2),
    (false, "apply begins", 3),
    (true, "seal begins", 4),
    (false, "commit ends", 4),
    (true, "restore ends", 2),
    (false, "apply begins", 5),
    (true, "commit begins", 3),
];

/// Before which of them a checkpoint of each shard is taken. What comes behind it lies in the journal alone.
const CHECKPOINT_BEFORE: usize = 3;

/// Method: before each start more readings come in. The model says what must lie in every partition of every output, in the state and in the books.
#[test]
fn every_step_counts_each_record_once_whenever_the_process_is_killed() {
    let world = World::new();
    world.write("job.yaml", DEVICES_JOB);
    let readings: Vec<Reading> = (0..READINGS).map(reading).collect();
    let mut parts = readings.chunks(readings.len().div_ceil(KILLED_AT.len() + 2));
    for (number, (disk_lost, line, times)) in KILLED_AT.into_iter().enumerate() {
        if number == CHECKPOINT_BEFORE {
            produce(&world, parts.next().unwrap());
            world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
        }
        produce(&world, parts.next().unwrap());
        if disk_lost {
            fs::remove_dir_all(world.path("data/state")).unwrap();
        }
        let log = kill(&world, line, times);
        let downloaded = log.contains("download begins") && log.contains("replay begins");
        assert_eq!(downloaded, disk_lost && number > CHECKPOINT_BEFORE, "kill {number}: {log}");
    }
    produce(&world, parts.next().unwrap());
    assert!(parts.next().is_none());
    world.ask(&["run", "--until-end"]);

    let mut model = Model::default();
    readings.iter().for_each(|reading| model.process(reading));
    check_variety(&model);
    assert_eq!(books(&world), model.books);
    check_outputs(&world, &model);
    check_state(&world, &model, &[]);
    fs::remove_dir_all(world.path("data/state")).unwrap();
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    check_state(&world, &model, &[]);
    check_state(&world, &model, &["--from-store"]);
}

/// Nothing that this test is about is missing from the readings.
fn check_variety(model: &Model) {
    let told: Vec<&Value> = model.outputs.iter().filter(|((topic, _), _)| topic != "dead").flat_map(|(_, rows)| rows).collect();
    let ids: BTreeSet<u64> = told.iter().filter_map(|row| row["value"]["id"].as_u64()).collect();
    let deltas = |part: &str| told.iter().filter(|row| row["value"].get(part).is_some()).count() as u64;
    let mut counts = model.books.clone();
    counts.extend(["set", "unset", "addToSet", "removeFromSet", "remove"].map(|part| (part.to_owned(), deltas(part))));
    counts.insert("forgotten by dedup".into(), deltas("id") - ids.len() as u64);
    assert!(counts.len() == 10 && counts.values().all(|count| *count > 50), "too few of a kind: {counts:?}");
}

/// A record of the input.
struct Reading {
    key: String,
    timestamp: i64,
    trace: Option<String>,
    /// `None`: a tombstone.
    value: Option<Value>,
}

/// The so-manieth record. One of eleven is an earlier one again, some of them one that `dedup` has forgotten.
fn reading(number: u64) -> Reading {
    let pick = |what: u64, below: u64| {
        let mixed = (number << 8 | what).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) % below
    };
    let back = 1 + pick(0, 4_000);
    if number % 11 == 10 && back <= number {
        return reading(number - back);
    }
    let letter = |what| json!(["a", "b", "c", "d", "e", "f"][usize::try_from(pick(what, 6)).unwrap()]);
    let letters = |what| match pick(what, 4) {
        0 => Value::Null,
        1 => letter(what + 1),
        _ => json!([letter(what + 1), letter(what + 2)]),
    };
    let key = device(pick(1, DEVICES));
    // Up to ten minutes late, while a device is heard of every four.
    let at = i64::try_from(1_357_000_000_000 + number * 1_000 - pick(2, 600_000)).unwrap();
    let kind = if pick(3, 5) == 0 { "ping" } else { "measured" };
    let site = ["Oslo", "lima", "Ōtsu"][usize::try_from(pick(4, 3)).unwrap()];
    let level = if pick(5, 25) == 0 { json!("low") } else { json!(pick(6, 100)) };
    let weight = if pick(7, 2) == 0 { json!(pick(8, 9)) } else { json!(f64::from(u32::try_from(pick(8, 9)).unwrap()) + 0.5) };
    let mut value = json!({
        "id": number, "at": at, "kind": kind, "site": site, "level": level, "weight": weight, "tags": letters(10), "untag": letters(20),
        "replaces": replaced(&key, pick(30, 40), pick(31, DEVICES)), "noise": "x".repeat(900),
    });
    if pick(32, 4) == 0 {
        value["alarm"] = json!(pick(33, 1_000));
    }
    let trace = (pick(34, 3) == 0).then(|| format!("trace-{number}"));
    Reading { key, timestamp: at + 5, trace, value: (pick(35, 16) > 0).then_some(value) }
}

fn device(number: u64) -> String {
    format!("device-{}", number % DEVICES)
}

fn partition(key: &str) -> u32 {
    partition_for_key(key.as_bytes(), PARTITIONS).get()
}

/// Whose place a device takes: mostly that of nobody in its partition. A few readings name none, or one in another partition.
fn replaced(key: &str, chance: u64, from: u64) -> Value {
    let is_near = |other: &String| partition(other) == partition(key);
    let named = match chance {
        0 => None,
        1 => (from..).map(device).find(|other| !is_near(other)),
        2..=6 => (from..).map(device).find(is_near),
        _ => (0..).map(|number| format!("nobody-{number}")).find(is_near),
    };
    named.map_or(Value::Null, Value::from)
}

/// What must have come of the readings.
#[derive(Default)]
struct Model {
    devices: BTreeMap<String, Device>,
    remembered: BTreeMap<String, VecDeque<Value>>,
    /// By topic and partition.
    outputs: BTreeMap<(String, u32), Vec<Value>>,
    books: BTreeMap<String, u64>,
}

#[derive(Clone, Default)]
struct Device {
    fields: Map<String, Value>,
    newest: Option<i64>,
}

/// What a reading does, unless it is refused.
struct Draft {
    device: Option<Device>,
    remembered: VecDeque<Value>,
    replaced: Option<String>,
    outputs: Vec<(&'static str, Value)>,
}

impl Model {
    fn process(&mut self, reading: &Reading) {
        let key = &reading.key;
        let (device, remembered) = (self.devices.get(key).cloned(), self.remembered.get(key).cloned().unwrap_or_default());
        let mut draft = Draft { device, remembered, replaced: None, outputs: vec![] };
        let outcome = self.steps(reading, &mut draft);
        *self.books.entry(outcome.unwrap_or("rejected").to_owned()).or_default() += 1;
        if let Err(step) = outcome {
            let mut headers = json!({"forebay.step": step});
            reading.trace.iter().for_each(|trace| headers["trace"] = json!(trace));
            draft.outputs = vec![("dead", row(key, reading.timestamp, headers, reading.value.clone().unwrap()))];
        } else {
            self.remembered.insert(key.clone(), draft.remembered);
            self.devices.remove(key);
            self.devices.extend(draft.device.map(|device| (key.clone(), device)));
            draft.replaced.iter().for_each(|replaced| drop(self.devices.remove(replaced)));
        }
        // Whatever comes of a record lies in its own partition here.
        for (topic, row) in draft.outputs {
            self.outputs.entry((topic.to_owned(), partition(key))).or_default().push(row);
        }
    }

    /// What becomes of the record; `Err`: the step that refuses it.
    fn steps(&self, reading: &Reading, draft: &mut Draft) -> Result<&'static str, &'static str> {
        let (key, timestamp) = (&reading.key, reading.timestamp);
        let change = |key: &str, delta: Value| ("changes", row(key, timestamp, json!({}), delta));
        let removal = |key: &str| change(key, json!({"table": "devices", "key": key, "remove": true}));
        let Some(mut document) = reading.value.clone() else {
            draft.outputs.extend(draft.device.take().map(|_| removal(key)));
            return Ok("processed");
        };
        if draft.remembered.contains(&document["id"]) {
            return Ok("duplicate");
        }
        draft.remembered.push_back(document["id"].clone());
        if draft.remembered.len() > REMEMBERED {
            draft.remembered.pop_front();
        }
        document["site"] = json!(document["site"].as_str().unwrap().to_uppercase());
        document["level"] = json!(document["level"].as_i64().ok_or("remap")? * 2 - 50);
        document.as_object_mut().unwrap().remove("noise");

        let device = draft.device.get_or_insert_default();
        for upsert in [Device::measured, Device::alarmed] {
            let mut delta = json!({"table": "devices", "key": key});
            upsert(device, &document, &mut delta);
            if delta.as_object().unwrap().len() > 2 {
                draft.outputs.push(change(key, delta));
            }
        }
        let shown = ["readings", "tags", "recent", "alarm"].into_iter();
        document["device"] = shown.filter_map(|field| Some((field.to_owned(), device.fields.get(field)?.clone()))).collect();
        if document["kind"] == "ping" {
            return Ok("filtered");
        }
        let mut headers = json!({"origin": "readings", "kind": document["kind"]});
        reading.trace.iter().for_each(|trace| headers["trace"] = json!(trace));
        draft.outputs.push(("told", row(document["site"].as_str().unwrap(), document["at"].as_i64().unwrap(), headers, document.clone())));
        let replaced = document["replaces"].as_str().filter(|replaced| partition(replaced) == partition(key)).ok_or("remove")?;
        if replaced == key || self.devices.contains_key(replaced) {
            draft.outputs.push(removal(replaced));
            draft.replaced = Some(replaced.to_owned());
        }
        draft.outputs.push(("alarms", row(key, timestamp, json!({}), document["alarm"].clone())));
        Ok("processed")
    }
}

impl Device {
    /// The first `upsert`.
    fn measured(&mut self, document: &Value, delta: &mut Value) {
        let at = document["at"].as_i64().unwrap();
        if self.newest.is_some_and(|newest| at <= newest) {
            return;
        }
        self.newest = Some(at);
        self.set("site", document["site"].clone(), delta);
        self.set("seen", document["at"].clone(), delta);
        for (field, by) in [("readings", &json!(1)), ("total", &document["level"]), ("weight", &document["weight"])] {
            let sum = self.fields.get(field).map_or(by.clone(), |number| add(number, by));
            self.set(field, sum, delta);
        }
        self.keep("lowest", &document["level"], Ordering::Less, delta);
        self.keep("first", &document["site"], Ordering::Less, delta);
        self.keep("highest", &document["level"], Ordering::Greater, delta);
        let mut recent = self.fields.get("recent").map_or(vec![], |recent| recent.as_array().unwrap().clone());
        recent.push(document["id"].clone());
        let cut = recent.len().saturating_sub(5);
        self.set("recent", recent.split_off(cut).into(), delta);
        if self.fields.remove("alarm").is_some() {
            delta["unset"] = json!(["alarm"]);
        }
        for tag in members(&document["tags"]) {
            let tags = self.fields.entry("tags").or_insert_with(|| json!([])).as_array_mut().unwrap();
            if !tags.contains(&tag) {
                tags.push(tag.clone());
                tell("addToSet", tag, delta);
            }
        }
    }

    /// The second one.
    fn alarmed(&mut self, document: &Value, delta: &mut Value) {
        if let Some(alarm) = document.get("alarm") {
            self.keep("alarm", alarm, Ordering::Greater, delta);
        }
        let Some(tags) = self.fields.get_mut("tags") else { return };
        let tags = tags.as_array_mut().unwrap();
        for tag in members(&document["untag"]) {
            if let Some(at) = tags.iter().position(|there| *there == tag) {
                tags.remove(at);
                tell("removeFromSet", tag, delta);
            }
        }
    }

    fn set(&mut self, field: &str, value: Value, delta: &mut Value) {
        if self.fields.get(field) != Some(&value) {
            delta["set"][field] = value.clone();
            self.fields.insert(field.to_owned(), value);
        }
    }

    fn keep(&mut self, field: &str, value: &Value, side: Ordering, delta: &mut Value) {
        let order = |there: &Value| (value.as_i64(), value.as_str()).cmp(&(there.as_i64(), there.as_str()));
        if self.fields.get(field).is_none_or(|there| order(there) == side) {
            self.set(field, value.clone(), delta);
        }
    }
}

fn add(one: &Value, other: &Value) -> Value {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => json!(one + other),
        _ => json!(one.as_f64().unwrap() + other.as_f64().unwrap()),
    }
}

fn members(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![],
        Value::Array(members) => members.clone(),
        one => vec![one.clone()],
    }
}

fn tell(part: &str, tag: Value, delta: &mut Value) {
    let told = &mut delta[part]["tags"];
    match told {
        Value::Array(told) => told.push(tag),
        _ => *told = json!([tag]),
    }
}

/// A record of an output.
fn row(key: &str, timestamp: i64, headers: Value, value: Value) -> Value {
    json!({"key": key, "timestamp": timestamp, "headers": headers, "value": value})
}

fn produce(world: &World, readings: &[Reading]) {
    let line = |reading: &Reading| {
        let (headers, value) = (reading.trace.iter().map(|trace| ("trace", trace)), reading.value.as_ref().map(Value::to_string));
        let headers: BTreeMap<_, _> = headers.collect();
        json!({"key": reading.key, "timestamp": reading.timestamp, "headers": headers, "value": value}).to_string() + "\n"
    };
    let file = world.write("part.jsonl", &readings.iter().map(line).collect::<String>());
    let partitions = PARTITIONS.to_string();
    world.ask(&["log", "produce", "--topic", "readings", "--partitions", &partitions, "--input", file.to_str().unwrap()]);
}

/// Runs the job until its log has such a line for the so-manieth time, and kills it there; returns what the log said.
fn kill(world: &World, line: &str, times: usize) -> String {
    let mut run = Watched::start(world.command(&["run", "--until-end"]).env("RUST_LOG", "info,forebay_worker=debug"));
    let found = (0..times).all(|_| run.until(line));
    assert!(found, "no {line:?} for the {times}th time came before it ended: {}", run.seen.join("\n"));
    // At once: it is about to end.
    run.child.kill().unwrap();
    let (code, log) = run.end();
    assert_eq!(code, None, "it was killed too late, at {line:?}: {log}");
    log
}

/// Without what is 0, and without the sum.
fn books(world: &World) -> BTreeMap<String, u64> {
    let books = world.ask_json(&["books"]).remove(0);
    let counts: BTreeMap<_, _> =
        books.as_object().unwrap().iter().map(|(verdict, count)| (verdict.clone(), count.as_u64().unwrap())).collect();
    assert_eq!(counts["in"], counts.iter().filter(|(verdict, _)| *verdict != "in").map(|(_, count)| count).sum::<u64>());
    counts.into_iter().filter(|(verdict, count)| verdict != "in" && *count > 0).collect()
}

/// Every partition of every output holds what the model has put there, in that order, and nothing else.
fn check_outputs(world: &World, model: &Model) {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for topic in ["changes", "told", "alarms", "dead"] {
        for record in world.records(topic) {
            let headers = record["headers"].as_object().cloned().unwrap_or_default().into_iter();
            let headers = headers.filter(|(name, _)| name == "forebay.step" || !name.starts_with("forebay.")).collect();
            let value = record["value"].as_str().map_or(Value::Null, |value| serde_json::from_str(value).unwrap());
            let row = row(record["key"].as_str().unwrap(), record["timestamp"].as_i64().unwrap(), headers, value);
            let partition = u32::try_from(record["partition"].as_u64().unwrap()).unwrap();
            found.entry((topic.to_owned(), partition)).or_default().push(row);
        }
    }
    assert!(found.keys().eq(model.outputs.keys()), "{:?}", found.keys());
    for (place, expected) in &model.outputs {
        for (number, (found, expected)) in found[place].iter().zip(expected).enumerate() {
            assert_eq!(found, expected, "{place:?}, record {number}");
        }
        assert_eq!(found[place].len(), expected.len(), "{place:?}");
    }
}

/// The state is the model's; of what `dedup` remembers, which is hashes and clocks, it is how many.
fn check_state(world: &World, model: &Model, source: &[&str]) {
    let place = |table: &str, key: &str| (table.to_owned(), key.to_owned(), u64::from(partition(key)));
    let mut found = BTreeMap::new();
    for entity in world.ask_json(&[&["state", "scan"], source].concat()) {
        let (table, key) = (entity["table"].as_str().unwrap(), entity["key"].as_str().unwrap());
        assert_eq!(entity["partition"], partition(key), "{entity}");
        let value = entity["value"]["within"].as_array().map_or(entity["value"].clone(), |seen| json!(seen.len()));
        assert!(found.insert(place(table, key), value).is_none(), "{entity} is there twice");
    }
    let devices = model.devices.iter().map(|(key, device)| (place("devices", key), json!(device.fields)));
    let remembered = model.remembered.iter().filter(|(_, ids)| !ids.is_empty()).map(|(key, ids)| (place("dedup", key), json!(ids.len())));
    let expected: BTreeMap<_, _> = devices.chain(remembered).collect();
    for (place, value) in &expected {
        assert_eq!(found.get(place), Some(value), "{place:?}");
    }
    assert!(found.keys().eq(expected.keys()), "{:?}", found.keys().filter(|place| !expected.contains_key(place)).collect::<Vec<_>>());

    let (there, device) = model.devices.iter().next().unwrap();
    let got = world.ask_json(&[&["state", "get", "devices", there], source].concat());
    assert_eq!(got[0]["value"], json!(device.fields));
    let gone = (0..DEVICES).map(self::device).find(|key| !model.devices.contains_key(key)).unwrap();
    let said = world.call(&[&["state", "get", "devices", &gone], source].concat());
    assert!(said.code == Some(1) && said.stderr.contains("has no entity"), "{said:?}");
}

const BILLS_JOB: &str = r#"
apiVersion: forebay.dev/v1alpha1
kind: IngestionJob
metadata: {name: bills, namespace: default}
spec:
  shards: 2
  inputs:
    - {name: bills, topic: bills}
  commit: {interval: 10ms, bytesMax: 64Ki}
  checkpoint: {interval: 1h}
  deadLetter: {topic: dead}
  pipeline:
    - parse:
        format: csv
        csv:
          delimiter: ";"
          columns:
            - {name: note}
            - {name: pieces, type: integer}
            - {name: price, type: number}
            - {name: paid, type: boolean}
    - upsert:
        table: customers
        set: {note: .note, paid: .paid}
        increment: {pieces: .pieces, price: .price}
    - enrich: {table: customers, into: customer}
    - emit: {topic: billed}
"#;

/// Method: lines with quotes, empty cells, wrong types and missing columns, a kill in the middle of them.
#[test]
fn lines_of_csv_count_once_when_the_process_is_killed() {
    let world = World::new();
    world.write("job.yaml", BILLS_JOB);
    let customer = |number: u64| format!("customer-{}", number % 31);
    world.produce("bills", (0..600).map(|number| (customer(number), bill(number).0)));
    kill(&world, "apply begins", 3);
    world.produce("bills", (600..1_200).map(|number| (customer(number), bill(number).0)));
    world.ask(&["run", "--until-end"]);

    let mut customers = BTreeMap::<String, Value>::new();
    let [mut billed, mut refused] = [(); 2].map(|()| BTreeMap::<String, Vec<Value>>::new());
    for number in 0..1_200 {
        let (line, document) = bill(number);
        let Some(mut document) = document else {
            refused.entry(customer(number)).or_default().push(line.into());
            continue;
        };
        let entity = customers.entry(customer(number)).or_insert(json!({}));
        (entity["note"], entity["paid"]) = (document["note"].clone(), document["paid"].clone());
        for field in ["pieces", "price"].into_iter().filter(|field| !document[field].is_null()) {
            entity[field] = entity.get(field).map_or(document[field].clone(), |number| add(number, &document[field]));
        }
        document["customer"] = entity.clone();
        billed.entry(customer(number)).or_default().push(document);
    }
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let scan = world.ask_json(&["state", "scan", "customers"]);
    assert_eq!(scan.iter().map(|entity| (text(&entity["key"]), entity["value"].clone())).collect::<BTreeMap<_, _>>(), customers);
    let by_key = |topic: &str, read: &dyn Fn(&Value) -> Value| {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        world.records(topic).iter().for_each(|record| found.entry(text(&record["key"])).or_default().push(read(record)));
        found
    };
    assert_eq!(by_key("billed", &|record| serde_json::from_str(record["value"].as_str().unwrap()).unwrap()), billed);
    assert_eq!(by_key("dead", &|letter| letter["value"].clone()), refused);
    assert!(world.records("dead").iter().all(|letter| letter["headers"]["forebay.step"] == "parse"));
    assert_eq!(books(&world), BTreeMap::from([("processed".to_owned(), 960), ("rejected".to_owned(), 240)]));
}

/// A line, and the document that it is; two of ten are refused.
fn bill(number: u64) -> (String, Option<Value>) {
    let note = format!("{number}; \"{}\"", "x".repeat(600));
    let quoted = format!("\"{}\"", note.replace('"', "\"\""));
    let half = f64::from(u32::try_from(number).unwrap()) + 0.5;
    let (rest, cells) = match number % 10 {
        0 => ("many;1;true".to_owned(), None),
        1 => (number.to_string(), None),
        2 => (format!("{number};;"), Some([json!(number), Value::Null, Value::Null])),
        3 => (format!("-{number};{half};false"), Some([json!(-i64::try_from(number).unwrap()), json!(half), json!(false)])),
        _ => (format!("{number};{number};true"), Some([json!(number), json!(number), json!(true)])),
    };
    (format!("{quoted};{rest}"), cells.map(|[pieces, price, paid]| json!({"note": note, "pieces": pieces, "price": price, "paid": paid})))
}

const VISITS_JOB: &str = "
apiVersion: forebay.dev/v1alpha1
kind: IngestionJob
metadata: {name: visits, namespace: default}
spec:
  shards: 2
  inputs:
    - {name: visits, topic: visits}
  checkpoint: {interval: 1h}
  deadLetter: {topic: dead}
  state: {tables: {visitors: {ttl: 1s}}}
  pipeline:
    - parse: {format: json}
    - dedup: {by: [.visit], within: 1s}
    - upsert: {table: visitors, increment: {visits: 1}, emit: {topic: counted}}
    - upsert: {table: regulars, increment: {visits: 1}, emit: {topic: counted}}
    - emit: {topic: clock, value: to_unix_timestamp(now())}
";

/// Method: the same visits again, once the epochs' clock, which the job itself puts out, has gone on by more than the second that they are
/// remembered for. The disk is lost before, and a process is killed in each round.
#[test]
fn what_is_over_stays_so_when_the_process_is_killed_and_its_disk_is_lost() {
    let world = World::new();
    world.write("job.yaml", VISITS_JOB);
    let visit = |number: u64| (format!("visitor-{number}"), format!("{{\"visit\": {number}}}"));
    world.produce("visits", (0..80).map(visit));
    kill(&world, "commit ends", 1);
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    let seconds = |record: &Value| record["value"].as_str().unwrap().parse::<u64>().unwrap();
    let clock = || world.records("clock").iter().map(seconds).max().unwrap();
    let begin = clock();
    let mut others = 1_000;
    // In whole seconds: two of them are more than one that has passed.
    while clock() < begin + 2 {
        world.produce("visits", [visit(others)]);
        world.ask(&["run", "--until-end"]);
        others += 1;
        assert!(others < 1_500, "the clock stands still");
    }
    fs::remove_dir_all(world.path("data/state")).unwrap();
    world.produce("visits", (0..40).map(visit));
    kill(&world, "apply begins", 1);
    world.ask(&["run", "--until-end"]);

    assert_eq!(books(&world), BTreeMap::from([("processed".to_owned(), 120 + others - 1_000)]));
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for record in world.records("counted") {
        let delta: Value = serde_json::from_str(record["value"].as_str().unwrap()).unwrap();
        let place = ["table", "key"].map(|part| delta[part].as_str().unwrap().to_owned());
        found.entry(place).or_default().push(delta["set"]["visits"].as_u64().unwrap());
    }
    for number in 0..80 {
        let counts = ["visitors", "regulars"].map(|table| found[&[table.to_owned(), visit(number).0]].clone());
        assert_eq!(counts, if number < 40 { [vec![1, 1], vec![1, 2]] } else { [vec![1], vec![1]] }, "visitor {number}");
    }
    for number in 40..50 {
        let codes = ["visitors", "regulars"].map(|table| world.call(&["state", "get", table, &visit(number).0]).code);
        assert_eq!(codes, [Some(1), Some(0)], "visitor {number}");
    }
}
