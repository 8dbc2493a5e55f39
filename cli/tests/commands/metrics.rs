//! Promise: the metrics of a process are true: what they say is what the topics, the checkpoints and the books say.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Watched, World};

/// Longer than anybody could want to wait for a test that fails.
const PATIENCE: Duration = Duration::from_secs(120);

const SHARDS: [u32; 2] = [0, 1];

/// Method: a job whose shards have a checkpoint each works off a backlog, in a process whose metrics are read all the while. When all is done it takes a
/// checkpoint of that very epoch and stops, and what it had said is compared with what is left of it. (worker/src/http.rs sees that no metric shows
/// another's value.)
#[test]
fn metrics_are_what_topics_and_checkpoints_say() {
    let world = World::new();
    world.produce("orders", orders(1_000));
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    let before = Left::by(&world);
    world.produce("orders", orders(200_000));
    let began = Instant::now();
    let mut command = world.command(&["run", "--threads", "1", "--metrics", "127.0.0.1:0", "--checkpoint-on-stop"]);
    command.env("RUST_LOG", "info,forebay_worker::committer=debug").stdout(Stdio::null());
    let mut run = Watched::start(&mut command);
    let metrics = Metrics::of(&mut run);
    let scrapes =
        metrics.read_until(|scrape| scrape.sum("forebay_records_total") == 201_000 && scrape.sum("forebay_shard_uncommitted_records") == 0);
    assert_eq!(metrics.get("/readyz"), (200, "ready\n".to_owned()));
    let elapsed = began.elapsed().as_secs_f64();
    run.signal("TERM");
    let (code, log) = run.end();
    assert_eq!(code, Some(0), "{log}");

    let (after, last) = (Left::by(&world), scrapes.last().unwrap());
    let bytes = |left: &Left| left.outputs.iter().map(bytes_of).sum::<u64>();
    assert_eq!(last.sum("forebay_output_records_total"), (after.outputs.len() - before.outputs.len()) as u64);
    assert_eq!(last.sum("forebay_output_bytes_total"), bytes(&after) - bytes(&before));
    let (log, _) = log.split_once("a checkpoint of every shard is taken before stopping").unwrap();
    assert_eq!(last.sum("forebay_transactions_total"), log.matches("commit ends committed=true").count() as u64, "{log}");
    assert_eq!(last.sum("forebay_restores_total"), 2);
    let committing = last.0["forebay_commit_seconds_total"];
    assert!(committing > 0.0 && committing < elapsed, "{committing} seconds of {elapsed}");
    let written: u64 = SHARDS.iter().map(|shard| check_shard(*shard, last, &before, &after, elapsed)).sum();
    assert_eq!(last.sum("forebay_journal_bytes_total"), written);
    check_lag(&scrapes);
}

/// What a shard's metrics say, against what was there before the process and what it left. Returns the bytes that it wrote to its journal.
fn check_shard(shard: u32, last: &Scrape, before: &Left, after: &Left, elapsed: f64) -> u64 {
    let of = |name: &str| last.0[&format!("forebay_shard_{name}{{shard=\"{shard}\"}}")];
    let number = |value: &Value| value.as_u64().unwrap();
    // It made a checkpoint of the epoch that it stood at; on a slow machine one more may have come after it, for those were long in coming.
    let (old, new) = (&before.newest(shard), &after.at(shard, of("epoch") as u64));
    assert_eq!(of("running"), 1.0);
    assert_eq!(of("checkpoint_epoch"), number(&old["epoch"]) as f64);
    assert_eq!(of("journal_records"), (number(&new["journal"]) - number(&old["journal"])) as f64);
    assert!(of("checkpoint_age_seconds") <= elapsed);
    assert!(of("cache_bytes") > 0.0);
    assert_eq!(of("lag_records"), 0.0);
    for verdict in ["processed", "rejected"] {
        let name = format!("forebay_records_total{{shard=\"{shard}\",verdict=\"{verdict}\"}}");
        assert_eq!(last.0[&name], number(&new["books"][verdict]) as f64, "{name}");
    }
    let end = before.journal_of(shard).map(|record| number(&record["offset"]) + 1).max().unwrap();
    let written: Vec<u64> = after
        .journal_of(shard)
        .filter(|record| (end..number(&new["journal"])).contains(&number(&record["offset"])))
        .map(bytes_of)
        .collect();
    // The first one is the claim, which is no epoch.
    assert_eq!(of("journal_bytes"), written[1..].iter().sum::<u64>() as f64, "{written:?}");
    written.iter().sum()
}

/// A record is in the books, or processed and not committed, or yet to be read.
fn check_lag(scrapes: &[Scrape]) {
    let sum = |scrape: &Scrape, shard: u32| {
        let label = format!("{{shard=\"{shard}\"");
        let names = ["forebay_records_total", "forebay_shard_uncommitted_records", "forebay_shard_lag_records"];
        let counts = |name: &&str| name.split_once(&label).is_some_and(|(name, _)| names.contains(&name));
        scrape.0.iter().filter(|(name, _)| counts(&name.as_str())).map(|(_, value)| value).sum::<f64>()
    };
    for shard in SHARDS {
        let lag = format!("forebay_shard_lag_records{{shard=\"{shard}\"}}");
        let behind: Vec<_> = scrapes.iter().filter(|scrape| scrape.0.get(&lag).is_some_and(|lag| *lag > 0.0)).collect();
        assert!(!behind.is_empty(), "shard {shard} was never seen behind");
        for scrape in behind {
            assert_eq!(sum(scrape, shard), sum(scrapes.last().unwrap(), shard), "shard {shard}: {scrape:?}");
        }
    }
}

/// Every tenth is rejected.
fn orders(count: u64) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|number| (format!("c{}", number % 100), format!("{{\"amount\": {}}}", number % 10)))
}

/// What is left of a job that has stopped.
struct Left {
    outputs: Vec<Value>,
    journal: Vec<Value>,
    checkpoints: Vec<Value>,
}

impl Left {
    fn by(world: &World) -> Self {
        let topics = world.ask_json(&["log", "topics"]);
        let journal = topics.iter().map(|topic| topic["topic"].as_str().unwrap()).find(|topic| topic.ends_with(".journal")).unwrap();
        let outputs = [world.records("orders.good"), world.records("orders.dead")].concat();
        Self { outputs, journal: world.records(journal), checkpoints: world.ask_json(&["snapshot", "ls"]) }
    }

    fn newest(&self, shard: u32) -> Value {
        let of_shard = self.checkpoints.iter().filter(|row| row["shard"] == shard);
        of_shard.max_by_key(|row| row["epoch"].as_u64()).unwrap().clone()
    }

    fn at(&self, shard: u32, epoch: u64) -> Value {
        let row = self.checkpoints.iter().find(|row| row["shard"] == shard && row["epoch"] == epoch);
        row.unwrap_or_else(|| panic!("shard {shard} has no checkpoint of epoch {epoch}: {:?}", self.checkpoints)).clone()
    }

    fn journal_of(&self, shard: u32) -> impl Iterator<Item = &Value> {
        self.journal.iter().filter(move |record| record["partition"] == shard)
    }
}

/// Bytes of a record's key, value and headers, names included.
fn bytes_of(record: &Value) -> u64 {
    let length = |text: &Value| match (text, text["base64"].as_str()) {
        (Value::String(text), _) => text.len(),
        (_, Some(base64)) => base64.trim_end_matches('=').len() * 3 / 4,
        _ => 0,
    };
    let headers = record["headers"].as_object().into_iter().flatten().map(|(name, value)| name.len() + length(value));
    (length(&record["key"]) + length(&record["value"]) + headers.sum::<usize>()) as u64
}

/// Where a process serves its metrics.
struct Metrics {
    address: String,
}

impl Metrics {
    /// As its log says.
    fn of(run: &mut Watched) -> Self {
        assert!(run.until("metrics are served"), "it ended: {:?}", run.seen);
        let (_, address) = run.seen.last().unwrap().rsplit_once("address=").unwrap();
        Self { address: address.to_owned() }
    }

    /// Status and body of an answer.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Reads all metrics until they are as they must become; returns all that was read.
    fn read_until(&self, holds: impl Fn(&Scrape) -> bool) -> Vec<Scrape> {
        let began = Instant::now();
        let mut scrapes = Vec::new();
        while !scrapes.last().is_some_and(&holds) {
            assert!(began.elapsed() < PATIENCE, "{:?}", scrapes.last());
            let (code, body) = self.get("/metrics");
            assert_eq!(code, 200, "{body}");
            let lines = body.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
            scrapes.push(Scrape(lines.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()));
        }
        scrapes
    }
}

/// Values by name and labels, as they were read at once.
#[derive(Debug)]
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Over all labels.
    fn sum(&self, name: &str) -> u64 {
        self.0.iter().filter(|(line, _)| line.split('{').next() == Some(name)).map(|(_, value)| value).sum::<f64>() as u64
    }
}
