//! Produces a workload's records. At a fixed rate each record carries the time at which it was due, whenever it is really sent: what waits in
//! here counts as latency (no coordinated omission).

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use serde_json::json;

use crate::kafka::config;
use crate::records::{Kind, Records};

/// Between two looks at the clock at a fixed rate.
const TICK: Duration = Duration::from_micros(500);

#[derive(clap::Args)]
pub struct Generate {
    /// The workload's folder
    #[arg(long)]
    workload: PathBuf,
    /// The topic
    #[arg(long)]
    topic: String,
    /// How many records
    #[arg(long)]
    records: u64,
    /// Records per second; as fast as possible without
    #[arg(long)]
    rate: Option<u32>,
    /// What decides the records
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Entities, instead of the workload's
    #[arg(long)]
    ids: Option<u64>,
    /// Skew, instead of the workload's
    #[arg(long)]
    zipf: Option<f64>,
    /// No duplicates: a copy carries the time of its original, which no probe of latency can tell
    #[arg(long)]
    no_duplicates: bool,
    /// Produce nothing, only say what would be made
    #[arg(long)]
    count_only: bool,
}

/// Counts what the broker has taken.
#[derive(Default)]
struct Acknowledged(AtomicU64);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => eprintln!("generate: a record was not taken: {error}"),
        }
    }
}

impl Generate {
    /// Prints how many records there are of each kind: what contestants must find.
    pub fn run(&self, kafka: &str) -> Result<()> {
        let mut records = Records::open(&self.workload, self.seed, |description| {
            description.ids = self.ids.unwrap_or(description.ids);
            description.zipf = self.zipf.unwrap_or(description.zipf);
            if self.no_duplicates {
                description.duplicates = None;
            }
        })?;
        let (mut counts, mut bytes) = ([0_u64; 3], 0);
        if self.count_only {
            (0..self.records).for_each(|_| counts[records.next(0) as usize] += 1);
            println!("{}", self.summary(counts));
            return Ok(());
        }
        let producer = self.producer(kafka)?;
        let (start, start_us) = (Instant::now(), now_us()?);
        for number in 0..self.records {
            let due_us = match self.rate {
                Some(rate) => start_us + wait_until_due(&producer, start, number * 1_000_000 / u64::from(rate)),
                None => now_us()?,
            };
            counts[records.next(due_us) as usize] += 1;
            bytes += records.value_bytes.len();
            self.send(&producer, &records)?;
            if number.is_multiple_of(1000) {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(Duration::from_secs(120)).context("wait for the broker to take all records")?;
        let acknowledged = producer.context().0.load(Ordering::Relaxed);
        ensure!(acknowledged == self.records, "the broker took {acknowledged} of {} records", self.records);
        let mut summary = self.summary(counts);
        (summary["bytes"], summary["start_us"]) = (json!(bytes), json!(start_us));
        summary["seconds"] = json!(start.elapsed().as_secs_f64());
        println!("{summary}");
        Ok(())
    }

    fn summary(&self, counts: [u64; 3]) -> serde_json::Value {
        json!({
            "records": self.records, "processed": counts[Kind::Processed as usize], "rejected": counts[Kind::Rejected as usize],
            "duplicate": counts[Kind::Duplicate as usize],
        })
    }

    fn producer(&self, kafka: &str) -> Result<BaseProducer<Acknowledged>> {
        // In bulk, large batches; at a rate, batches that do not wait.
        let linger = if self.rate.is_some() { "2" } else { "50" };
        config(kafka)
            .set("compression.type", "lz4")
            .set("partitioner", "murmur2_random")
            .set("enable.idempotence", "true")
            .set("linger.ms", linger)
            .set("batch.size", "262144")
            .set("batch.num.messages", "10000")
            .set("queue.buffering.max.messages", "300000")
            .set("queue.buffering.max.kbytes", "400000")
            .create_with_context(Acknowledged::default())
            .context("open a producer")
    }

    fn send(&self, producer: &BaseProducer<Acknowledged>, records: &Records) -> Result<()> {
        let mut record = BaseRecord::to(&self.topic).key(records.key_bytes.as_slice()).payload(records.value_bytes.as_slice());
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    record = refused;
                    producer.poll(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error).with_context(|| format!("send a record to {}", self.topic)),
            }
        }
    }
}

/// Returns the time given, when it has come. A record that is late already is not waited for.
fn wait_until_due(producer: &BaseProducer<Acknowledged>, start: Instant, due_us: u64) -> u64 {
    let due = Duration::from_micros(due_us);
    while start.elapsed() < due {
        producer.poll(Duration::ZERO);
        thread::sleep(TICK.min(due.saturating_sub(start.elapsed())));
    }
    due_us
}

fn now_us() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}
