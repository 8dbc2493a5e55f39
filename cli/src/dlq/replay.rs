//! Putting dead letters back, each once.
//!
//! The letters of one step are put back in one pass over the dead-letter topic. In the transaction that puts letters back it commits how far it
//! has come, under a consumer group of that step. So a step's letters are never put back twice, and never passed over because another step was
//! asked for. Whoever replays first bars the replay before it: one that was killed has its open transaction aborted, one that still runs ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use clap::Args;
use forebay_engine::ids::{Incarnation, Offset, OutputId, Partition, Timestamp};
use forebay_engine::log::{InputPosition, JobTopics, Log, LogError, Producer, StartFrom, Transaction};
use forebay_engine::record::{Destination, Header, InputRecord, Outputs};
use indicatif::ProgressBar;
use serde::Serialize;

use super::{Common, LETTERS, each_to_end, header, step_of, topics};
use crate::job::Loaded;
use crate::output::Output;

/// The headers that a dead letter has besides the record's own.
const OWN_HEADERS: &str = "forebay.";
/// Bytes of one transaction of a replay: flushed in well under a second.
const BATCH_BYTES: usize = 4 << 20;
/// The same for every replay of a job, so that opening its producer ends whichever replay was before.
const INCARNATION: &str = "replay";

#[derive(Args)]
pub struct Replay {
    #[command(flatten)]
    pub(super) common: Common,
    /// Say what would be put back, and put nothing back
    #[arg(long)]
    dry_run: bool,
}

/// A line of `dlq replay`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StepRow<'a> {
    step: &'a str,
    letters: u64,
    dry_run: bool,
}

impl fmt::Display for StepRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} dead letters {}", self.step, self.letters, done(self.dry_run))
    }
}

/// The last line of `dlq replay`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Total {
    letters: u64,
    dry_run: bool,
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dead letters {}", self.letters, done(self.dry_run))
    }
}

fn done(dry_run: bool) -> &'static str {
    if dry_run { "would be put back" } else { "are put back" }
}

impl Replay {
    pub(super) fn replay<L: Log>(
        &self,
        loaded: &Loaded,
        output: Output,
        open: impl Fn(JobTopics) -> anyhow::Result<L>,
    ) -> anyhow::Result<()> {
        let steps = match &self.common.step {
            Some(step) => BTreeSet::from([step.clone()]),
            None => steps(&open(topics(loaded, ""))?)?,
        };
        let mut printer = output.printer();
        let mut total = Total { letters: 0, dry_run: self.dry_run };
        for step in &steps {
            let letters = self.pass(loaded, step, &open(topics(loaded, step))?)?;
            total.letters += letters;
            if letters > 0 {
                printer.print(&StepRow { step, letters, dry_run: self.dry_run })?;
            }
        }
        self.common.check_step(loaded, total.letters)?;
        printer.print(&total)?;
        printer.finish()
    }

    /// Puts one step's letters back. Returns how many.
    fn pass<L: Log>(&self, loaded: &Loaded, step: &str, log: &L) -> anyhow::Result<u64> {
        // First of all: what a replay before this one left open is aborted, so that the group's offsets are certain.
        let mut producer = if self.dry_run { None } else { Some(log.open_producer(&Incarnation::new(INCARNATION))?) };
        let from = replayed_to(log, &loaded.job.dead_letter)?;
        let mut batch = Batch::default();
        let bar = ProgressBar::new_spinner();
        let mut letters = 0;
        each_to_end(log, &from, |record| {
            batch.positions.insert(record.partition, record.offset.next());
            if step_of(record) == Some(step) {
                letters += 1;
                batch.add(loaded, record)?;
                bar.inc(1);
            }
            if batch.outputs.bytes() >= BATCH_BYTES { batch.commit(producer.as_mut()) } else { Ok(()) }
        })?;
        batch.commit(producer.as_mut())?;
        bar.finish_and_clear();
        Ok(letters)
    }
}

/// The steps that dead letters are of. Says how many records of the topic are none of Forebay's: they stay where they are.
fn steps<L: Log>(log: &L) -> anyhow::Result<BTreeSet<String>> {
    let (mut steps, mut strangers) = (BTreeSet::new(), 0);
    each_to_end(log, &log.start_positions(LETTERS, StartFrom::Earliest)?, |record| {
        match step_of(record) {
            Some(step) if !steps.contains(step) => drop(steps.insert(step.to_owned())),
            Some(_) => {}
            None => strangers += 1,
        }
        Ok(())
    })?;
    if strangers > 0 {
        eprintln!("{strangers} records have no header forebay.step: they were not put there by Forebay, and stay where they are");
    }
    Ok(steps)
}

/// What one transaction of a replay carries.
#[derive(Default)]
struct Batch {
    outputs: Outputs,
    positions: BTreeMap<Partition, Offset>,
}

impl Batch {
    fn add(&mut self, loaded: &Loaded, record: &InputRecord<'_>) -> anyhow::Result<()> {
        let place = format!("dead letter at {}-{} offset {}", loaded.job.dead_letter, record.partition, record.offset);
        let topic = header(record, "forebay.topic")
            .ok_or_else(|| anyhow::anyhow!("{place}: it has a step and no header forebay.topic; was it put there by Forebay?"))?;
        let output = loaded.job.inputs.iter().position(|input| input.topic == topic).ok_or_else(|| {
            anyhow::anyhow!("{place}: it came from topic {topic}, which is no input of this job; use the manifest that has it")
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
        let offsets = positions.into_iter().map(|(partition, next)| InputPosition { input: LETTERS, partition, next }).collect();
        let bytes = outputs.bytes();
        match producer.commit(&Transaction { outputs: vec![Arc::new(outputs)], journal: Vec::new(), offsets }) {
            Ok(_) => {
                tracing::debug!(bytes, "dead letters are put back");
                Ok(())
            }
            Err(LogError::Fenced { .. }) => anyhow::bail!("another replay of this job was started and goes on where this one ended"),
            Err(error) => anyhow::bail!("{error}; what was put back before is committed, call it again for the rest"),
        }
    }
}

/// Where the last replay stopped; the beginning for the first one. Says what retention has deleted since.
fn replayed_to<L: Log>(log: &L, topic: &str) -> anyhow::Result<Vec<InputPosition>> {
    let oldest = log.start_positions(LETTERS, StartFrom::Earliest)?;
    let mut positions = match log.start_positions(LETTERS, StartFrom::Group) {
        Err(LogError::Missing { .. }) => return Ok(oldest),
        found => found?,
    };
    for position in &mut positions {
        let Some(start) = oldest.iter().find(|start| start.partition == position.partition) else { continue };
        if position.next < start.next {
            eprintln!(
                "{topic}-{}: offsets {} to {} were deleted by the topic's retention before a replay came to them",
                position.partition,
                position.next,
                start.next.get() - 1
            );
            position.next = start.next;
        }
    }
    Ok(positions)
}
