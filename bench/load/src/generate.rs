//! Produces a workload's records. At a fixed rate each record carries the time at which it was due, whenever it is really sent: what waits in
//! here counts as latency (no coordinated omission).

use std::collections::BTreeMap;
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
use crate::lines::Lines;
use crate::records::{Records, Source};

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
    /// Each entity comes once before any comes again
    #[arg(long)]
    each_first: bool,
    /// Characters that make each valid record longer
    #[arg(long, default_value_t = 0)]
    pad: usize,
    /// The records themselves, instead of the workload's description of them
    #[arg(long, conflicts_with_all = ["ids", "zipf", "each_first", "pad"])]
    lines: Option<PathBuf>,
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
        let mut source = self.source()?;
        let mut bytes = 0;
        if self.count_only {
            (0..self.records).for_each(|_| source.advance(0));
            println!("{}", json!({"counts": self.counts(&*source)}));
            return Ok(());
        }
        let producer = self.producer(kafka)?;
        let (start, start_us) = (Instant::now(), now_us()?);
        for number in 0..self.records {
            let due_us = match self.rate {
                Some(rate) => start_us + wait_until_due(&producer, start, number * 1_000_000 / u64::from(rate)),
                None => now_us()?,
            };
            source.advance(due_us);
            bytes += source.value().len();
            self.send(&producer, &*source)?;
            if number.is_multiple_of(1000) {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(Duration::from_secs(120)).context("wait for the broker to take all records")?;
        let acknowledged = producer.context().0.load(Ordering::Relaxed);
        ensure!(acknowledged == self.records, "the broker took {acknowledged} of {} records", self.records);
        let seconds = start.elapsed().as_secs_f64();
        println!("{}", json!({"counts": self.counts(&*source), "bytes": bytes, "start_us": start_us, "seconds": seconds}));
        Ok(())
    }

    fn source(&self) -> Result<Box<dyn Source>> {
        if let Some(lines) = &self.lines {
            return Ok(Box::new(Lines::open(lines, self.seed)?));
        }
        Ok(Box::new(Records::open(&self.workload, self.seed, |description| {
            description.ids = self.ids.unwrap_or(description.ids);
            description.zipf = self.zipf.unwrap_or(description.zipf);
            description.each_first |= self.each_first;
            description.pad = self.pad;
            if self.no_duplicates {
                description.duplicates = None;
            }
        })?))
    }

    fn counts(&self, source: &dyn Source) -> BTreeMap<String, u64> {
        let mut counts = source.counts().clone();
        counts.insert("records".to_owned(), self.records);
        counts
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

    fn send(&self, producer: &BaseProducer<Acknowledged>, source: &dyn Source) -> Result<()> {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).payload(source.value());
        record.key = source.key();
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
