//! `forebay dlq`: what a job could not process, and putting it back.
//!
//! A replay puts each dead letter's original key, value and headers back into the partition that it came from, and commits, in the same
//! transaction, how far it has read the dead-letter topic: under the consumer group `<the job's group>.dlq-replay`. So a replay that is
//! repeated, or dies in the middle, puts nothing back twice.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use forebay_engine::ids::{Incarnation, InputId, OutputId, Partition, ShardId, Timestamp};
use forebay_engine::log::{InputPosition, InputReader, JobTopics, Log, LogError, Producer, StartFrom, Transaction};
use forebay_engine::record::{Destination, Header, InputRecord, Outputs};
use indicatif::ProgressBar;

use crate::job::{self, Loaded};
use crate::places::Places;
use crate::records::Line;
use crate::run::{open_kafka, open_local};
use crate::state::Output;

/// The headers that a dead letter has besides the record's own.
const OWN_HEADERS: &str = "forebay.";
/// Bytes of one transaction of a replay: flushed in well under a second.
const BATCH_BYTES: usize = 4 << 20;

#[derive(Subcommand)]
pub enum DlqCommand {
    /// List dead letters: where each came from, the step and the reason
    Ls(Ls),
    /// Put dead letters back into the inputs that they came from; each once, however often this is called
    Replay(Replay),
}

#[derive(Args)]
pub struct Common {
    /// The manifest
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    places: Places,
    /// Only those of this step, such as validate
    #[arg(long)]
    step: Option<String>,
}

#[derive(Args)]
pub struct Ls {
    #[command(flatten)]
    common: Common,
    /// How to print; json prints whole records
    #[arg(short = 'o', long, default_value = "text")]
    output: Output,
    /// At most so many
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

#[derive(Args)]
pub struct Replay {
    #[command(flatten)]
    common: Common,
    /// Say what would be put back, and put nothing back
    #[arg(long)]
    dry_run: bool,
}

impl DlqCommand {
    pub fn execute(&self) -> anyhow::Result<()> {
        let common = match self {
            Self::Ls(command) => &command.common,
            Self::Replay(command) => &command.common,
        };
        let loaded = job::load(&common.file)?;
        let topics = JobTopics {
            uid: format!("{}.dlq", loaded.uid()),
            inputs: vec![loaded.job.dead_letter.clone()],
            outputs: loaded.job.inputs.iter().map(|input| input.topic.clone()).collect(),
            journal: format!("forebay.{}.dlq", loaded.uid()),
            group: format!("{}.dlq-replay", loaded.job.consumer_group),
            shards: 1,
        };
        match common.places.cluster(&loaded.job)? {
            Some(cluster) => self.act(&loaded, &open_kafka(&cluster, topics)?),
            None => self.act(&loaded, &open_local(&common.places, topics)?),
        }
    }

    fn act<L: Log>(&self, loaded: &Loaded, log: &L) -> anyhow::Result<()> {
        match self {
            Self::Ls(command) => command.list(loaded, log),
            Self::Replay(command) => command.replay(loaded, log),
        }
    }
}

impl Common {
    fn wants(&self, record: &InputRecord<'_>) -> bool {
        self.step.as_ref().is_none_or(|step| header(record, "forebay.step") == Some(step.as_str()))
    }
}

impl Ls {
    fn list<L: Log>(&self, loaded: &Loaded, log: &L) -> anyhow::Result<()> {
        let from = log.start_positions(InputId::new(0), StartFrom::Earliest)?;
        let mut listed = 0;
        each_to_end(log, &from, |record| {
            if !self.common.wants(record) || listed >= self.limit {
                return Ok(());
            }
            listed += 1;
            match self.output {
                Output::Json => println!("{}", serde_json::to_string(&Line::of(&loaded.job.dead_letter, record))?),
                Output::Text => {
                    let of = |name| header(record, name).unwrap_or("?");
                    println!(
                        "{}-{} at {}  {}: {}",
                        of("forebay.topic"),
                        of("forebay.partition"),
                        of("forebay.offset"),
                        of("forebay.step"),
                        of("forebay.error")
                    );
                }
            }
            Ok(())
        })?;
        if self.output == Output::Text {
            eprintln!("{listed} dead letters");
        }
        Ok(())
    }
}

impl Replay {
    fn replay<L: Log>(&self, loaded: &Loaded, log: &L) -> anyhow::Result<()> {
        let from = replayed_to(log)?;
        // All partitions, those without dead letters too: where the next replay starts is known only if it is known of each.
        let mut batch = Batch { positions: from.iter().map(|position| (position.partition, position.next)).collect(), ..Batch::default() };
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let bar = ProgressBar::new_spinner();
        let mut producer = None;
        if !self.dry_run {
            let incarnation = Incarnation::new(format!("replay.{}", uuid::Uuid::new_v4().simple()));
            producer = Some(log.open_producer(&incarnation)?);
        }
        each_to_end(log, &from, |record| {
            if self.common.wants(record) {
                batch.add(loaded, record)?;
                *counts.entry(header(record, "forebay.step").unwrap_or("?").to_owned()).or_default() += 1;
            }
            batch.positions.insert(record.partition, record.offset.next());
            bar.inc(1);
            if batch.outputs.bytes() >= BATCH_BYTES { batch.commit(producer.as_mut()) } else { Ok(()) }
        })?;
        batch.commit(producer.as_mut())?;
        bar.finish_and_clear();
        let total: u64 = counts.values().sum();
        for (step, count) in &counts {
            println!("{step}: {count}");
        }
        println!("{total} dead letters {}", if self.dry_run { "would be put back" } else { "are put back" });
        Ok(())
    }
}

/// What one transaction of a replay carries.
#[derive(Default)]
struct Batch {
    outputs: Outputs,
    positions: BTreeMap<Partition, forebay_engine::ids::Offset>,
}

impl Batch {
    fn add(&mut self, loaded: &Loaded, record: &InputRecord<'_>) -> anyhow::Result<()> {
        let place = format!("dead letter at {}-{} offset {}", loaded.job.dead_letter, record.partition, record.offset);
        let topic = header(record, "forebay.topic")
            .ok_or_else(|| anyhow::anyhow!("{place}: it has no header forebay.topic; was it put there by Forebay?"))?;
        let output = loaded.job.inputs.iter().position(|input| input.topic == topic).ok_or_else(|| {
            anyhow::anyhow!(
                "{place}: it came from topic {topic}, which is no input of this job any more; name the steps to replay by --step"
            )
        })?;
        let number = |name| header(record, name).and_then(|text| text.parse::<i64>().ok());
        let partition = number("forebay.partition").and_then(|number| u32::try_from(number).ok()).map(Partition::new);
        let headers: Vec<Header<'_>> = record.headers.iter().filter(|header| !header.name.starts_with(OWN_HEADERS)).copied().collect();
        let to = Destination {
            output: OutputId::new(u16::try_from(output)?),
            partition,
            timestamp: number("forebay.timestamp").map_or(record.timestamp, Timestamp::from_millis),
            key: record.key,
        };
        self.outputs.push(to, record.value, &headers);
        Ok(())
    }

    fn commit<P: Producer>(&mut self, producer: Option<&mut P>) -> anyhow::Result<()> {
        let outputs = std::mem::take(&mut self.outputs);
        let positions = std::mem::take(&mut self.positions);
        let Some(producer) = producer.filter(|_| !positions.is_empty()) else { return Ok(()) };
        let offsets = positions.into_iter().map(|(partition, next)| InputPosition { input: InputId::new(0), partition, next }).collect();
        producer
            .commit(&Transaction { outputs: vec![Arc::new(outputs)], journal: Vec::new(), offsets })
            .map_err(|error| anyhow::anyhow!("{error}; what was put back before is committed, call it again for the rest"))?;
        Ok(())
    }
}

/// Where the last replay stopped; the beginning for the first one.
fn replayed_to<L: Log>(log: &L) -> anyhow::Result<Vec<InputPosition>> {
    match log.start_positions(InputId::new(0), StartFrom::Group) {
        Ok(positions) => Ok(positions),
        Err(LogError::Missing { .. }) => Ok(log.start_positions(InputId::new(0), StartFrom::Earliest)?),
        Err(error) => Err(error.into()),
    }
}

fn each_to_end<L: Log>(
    log: &L,
    from: &[InputPosition],
    mut each: impl FnMut(&InputRecord<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let ends: BTreeMap<_, _> =
        log.start_positions(InputId::new(0), StartFrom::Latest)?.into_iter().map(|position| (position.partition, position.next)).collect();
    let mut input = log.open_input(ShardId::new(0), from)?;
    loop {
        let mut outcome = Ok(());
        input.poll(Duration::from_millis(100), 1000, &mut |record| {
            if outcome.is_ok() {
                outcome = each(record);
            }
        })?;
        outcome?;
        if input.progress().iter().all(|progress| progress.position.next >= ends[&progress.position.partition]) {
            return Ok(());
        }
    }
}

fn header<'a>(record: &InputRecord<'a>, name: &str) -> Option<&'a str> {
    record.headers.iter().find(|header| header.name == name).and_then(|header| std::str::from_utf8(header.value?).ok())
}
