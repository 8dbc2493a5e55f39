//! The loop that somebody would write by hand: consume, work, produce, and commit offsets and outputs in one transaction. One thread, next to
//! librdkafka's own; it neither keeps a journal nor takes snapshots, so it is the limit that an engine comes close to.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::kafka::{partitions_of, reader};
use crate::librdkafka::{Consumed, Consumer, Outgoing, Producer};

/// How long to wait for a full batch of records.
const WAIT_MS: i32 = 5;

#[derive(clap::Args)]
pub struct Loop {
    /// The input
    #[arg(long)]
    input: String,
    /// The outputs, in the order in which the work names them
    #[arg(long = "output", required = true)]
    outputs: Vec<String>,
    /// Milliseconds between two commits
    #[arg(long, default_value_t = 100)]
    commit_ms: u64,
    /// How long librdkafka gathers records for a batch
    #[arg(long, default_value_t = 10)]
    linger_ms: u64,
    /// The folder for the state, if there is some
    #[arg(long)]
    pub state: Option<PathBuf>,
}

/// What is done with each record.
pub trait Work {
    /// Puts what comes of the record into `outgoing`, one for each output.
    fn process(&mut self, record: &Consumed<'_>, outgoing: &mut [Outgoing]);

    /// Called before each commit: writes the state that has changed.
    fn save(&mut self) -> Result<()>;
}

impl Loop {
    /// Runs until it is killed.
    pub fn run(&self, kafka: &str, work: &mut impl Work) -> Result<()> {
        let partitions = partitions_of(&reader(kafka, true)?, &self.input)?;
        let mut consumer = Consumer::open(&self.consumer_settings(kafka), &self.input, partitions)?;
        let linger = self.linger_ms.to_string();
        let id = format!("by-hand-{}", self.input);
        let producer = Producer::open(&producer_settings(kafka, &id, &linger), &self.outputs)?;
        let mut outgoing: Vec<Outgoing> = self.outputs.iter().map(|_| Outgoing::default()).collect();
        let mut next = vec![0; usize::try_from(partitions)?];
        let interval = Duration::from_millis(self.commit_ms);
        let (mut last, mut is_dirty) = (Instant::now(), false);
        producer.begin()?;
        loop {
            for record in consumer.take(WAIT_MS) {
                let record = record?;
                next[usize::try_from(record.partition)?] = record.offset + 1;
                is_dirty = true;
                work.process(&record, &mut outgoing);
            }
            for (topic, outgoing) in outgoing.iter_mut().enumerate().filter(|(_, outgoing)| !outgoing.is_empty()) {
                producer.send(topic, outgoing)?;
            }
            if is_dirty && last.elapsed() >= interval {
                work.save()?;
                producer.commit(&consumer, &self.input, &next)?;
                producer.begin()?;
                (last, is_dirty) = (Instant::now(), false);
            }
        }
    }

    fn consumer_settings<'s>(&self, kafka: &'s str) -> [(&'s str, &'s str); 10] {
        [
            ("bootstrap.servers", kafka),
            ("group.id", "by-hand"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("isolation.level", "read_committed"),
            ("fetch.wait.max.ms", "50"),
            // With the default of a second a partition rests that long whenever its queue is full.
            ("fetch.queue.backoff.ms", "5"),
            ("queued.min.messages", "20000"),
            ("queued.max.messages.kbytes", "32768"),
            ("check.crcs", "false"),
        ]
    }
}

fn producer_settings<'s>(kafka: &'s str, id: &'s str, linger_ms: &'s str) -> [(&'s str, &'s str); 9] {
    [
        ("bootstrap.servers", kafka),
        ("transactional.id", id),
        ("transaction.timeout.ms", "60000"),
        ("compression.codec", "lz4"),
        ("linger.ms", linger_ms),
        ("batch.size", "262144"),
        ("batch.num.messages", "10000"),
        ("queue.buffering.max.messages", "400000"),
        ("queue.buffering.max.kbytes", "262144"),
    ]
}

/// Puts out what comes in.
pub struct Forward;

impl Work for Forward {
    fn process(&mut self, record: &Consumed<'_>, outgoing: &mut [Outgoing]) {
        outgoing[0].push(record.partition, record.key, |into| into.extend_from_slice(record.value));
    }

    fn save(&mut self) -> Result<()> {
        Ok(())
    }
}
