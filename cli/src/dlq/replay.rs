//! Putting dead letters back, each once.
//!
//! The letters of one step, of one revision of the job, or of the processes that were made from the same, are a [`Lane`]: they are put back in one pass over the dead-letter topic. In the transaction that
//! puts letters back it commits how far it has come, under a consumer group of that lane. So its letters are never put back twice, and never passed over
//! because another lane was asked for. A letter is in several lanes, that of its step and those of its revision and its process, and is left alone if any has passed it. Whoever replays first bars the replay before it: one that was killed has its open transaction aborted, one that still runs ends.

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
use crate::Unusable;
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
    /// Only those of this revision of the job, as the header forebay.revision names it
    #[arg(long, value_name = "REVISION", conflicts_with = "step")]
    revision: Option<String>,
    /// Only those of processes that were made from this, as the header forebay.template names it: the label forebay.dev/template of their pods
    #[arg(long, value_name = "NAME", conflicts_with_all = ["step", "revision"])]
    template: Option<String>,
    /// Say what would be put back, and put nothing back
    #[arg(long)]
    dry_run: bool,
}

/// Letters that are put back in one pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum Lane {
    /// Those of a step.
    Step(String),
    /// Those of a revision.
    Revision(String),
    /// Those of processes that were made from the same.
    Template(String),
}

impl Lane {
    /// The lanes that a letter is in. Empty: it was not put there by Forebay.
    fn of(record: &InputRecord<'_>) -> Vec<Self> {
        let Some(step) = step_of(record) else { return Vec::new() };
        let revision = header(record, "forebay.revision").map(|revision| Self::Revision(revision.to_owned()));
        let template = header(record, "forebay.template").map(|template| Self::Template(template.to_owned()));
        [Self::Step(step.to_owned())].into_iter().chain(revision).chain(template).collect()
    }

    /// The end of its group's name.
    fn group(&self) -> String {
        match self {
            Self::Step(step) => step.clone(),
            Self::Revision(revision) => format!("revision.{revision}"),
            Self::Template(template) => format!("template.{template}"),
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => f.write_str(step),
            Self::Revision(revision) => write!(f, "revision {revision}"),
            Self::Template(template) => write!(f, "template {template}"),
        }
    }
}

/// How far each lane has come, by the partitions of the dead-letter topic.
type Passed = BTreeMap<Lane, BTreeMap<Partition, Offset>>;

/// A line of `dlq replay`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(flatten)]
    lane: &'a Lane,
    letters: u64,
    dry_run: bool,
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} dead letters {}", self.lane, self.letters, done(self.dry_run))
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
        let all = {
            let log = open(topics(loaded, ""))?;
            if !self.dry_run {
                // First of all: a replay before this one ends, and what it left open is aborted, so that the groups' offsets are certain.
                drop(log.open_producer(&Incarnation::new(INCARNATION))?);
            }
            lanes(&log)?
        };
        self.check_revision(loaded, &all)?;
        let passed = passed(loaded, &all, &open)?;
        let lanes = match (&self.common.step, &self.revision, &self.template) {
            (Some(step), ..) => BTreeSet::from([Lane::Step(step.clone())]),
            (None, Some(revision), _) => BTreeSet::from([Lane::Revision(revision.clone())]),
            (None, None, Some(template)) => BTreeSet::from([Lane::Template(template.clone())]),
            (None, None, None) => all.into_iter().filter(|lane| matches!(lane, Lane::Step(_))).collect(),
        };
        let mut printer = output.printer();
        let mut total = Total { letters: 0, dry_run: self.dry_run };
        for lane in &lanes {
            let letters = self.pass(loaded, lane, &passed, &open(topics(loaded, &lane.group()))?)?;
            total.letters += letters;
            if letters > 0 {
                printer.print(&Row { lane, letters, dry_run: self.dry_run })?;
            }
        }
        self.common.check_step(loaded, total.letters)?;
        printer.print(&total)?;
        printer.finish()
    }

    /// No letter is of the wanted revision: is it that of the manifest, which may have none?
    fn check_revision(&self, loaded: &Loaded, lanes: &BTreeSet<Lane>) -> anyhow::Result<()> {
        let its_own = loaded.revision().to_string();
        let known = lanes.iter().filter_map(|lane| match lane {
            Lane::Revision(revision) => Some(revision.as_str()),
            Lane::Step(_) | Lane::Template(_) => None,
        });
        let known: Vec<&str> = known.collect();
        match self.revision.as_deref() {
            Some(wanted) if wanted != its_own && !known.contains(&wanted) => {
                let there =
                    if known.is_empty() { "there is none".to_owned() } else { format!("those of the letters are {}", known.join(", ")) };
                let what = format!("no dead letter is of a revision {wanted:?}, and the manifest's is {its_own}; {there}");
                Err(Unusable(what).into())
            }
            _ => Ok(()),
        }
    }

    /// Puts one lane's letters back. Returns how many.
    fn pass<L: Log>(&self, loaded: &Loaded, lane: &Lane, passed: &Passed, log: &L) -> anyhow::Result<u64> {
        let is_past = |lane: &Lane, record: &InputRecord<'_>| {
            passed.get(lane).and_then(|passed| passed.get(&record.partition)).is_some_and(|next| record.offset < *next)
        };
        let mut producer = if self.dry_run { None } else { Some(log.open_producer(&Incarnation::new(INCARNATION))?) };
        let from = replayed_to(log, &loaded.job.dead_letter)?;
        let mut batch = Batch::default();
        let bar = ProgressBar::new_spinner();
        let mut letters = 0;
        each_to_end(log, &from, |record| {
            batch.positions.insert(record.partition, record.offset.next());
            let its = Lane::of(record);
            if its.contains(lane) && !its.iter().any(|lane| is_past(lane, record)) {
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

/// The lanes that dead letters are in. Says how many records of the topic are none of Forebay's: they stay where they are.
fn lanes<L: Log>(log: &L) -> anyhow::Result<BTreeSet<Lane>> {
    let (mut lanes, mut strangers) = (BTreeSet::new(), 0);
    each_to_end(log, &log.start_positions(LETTERS, StartFrom::Earliest)?, |record| {
        let its = Lane::of(record);
        strangers += u64::from(its.is_empty());
        lanes.extend(its);
        Ok(())
    })?;
    if strangers > 0 {
        eprintln!("{strangers} records have no header forebay.step: they were not put there by Forebay, and stay where they are");
    }
    Ok(lanes)
}

fn passed<L: Log>(loaded: &Loaded, lanes: &BTreeSet<Lane>, open: &impl Fn(JobTopics) -> anyhow::Result<L>) -> anyhow::Result<Passed> {
    let mut passed = Passed::new();
    for lane in lanes {
        match open(topics(loaded, &lane.group()))?.start_positions(LETTERS, StartFrom::Group) {
            Err(LogError::Missing { .. }) => {}
            found => drop(passed.insert(lane.clone(), found?.into_iter().map(|position| (position.partition, position.next)).collect())),
        }
    }
    Ok(passed)
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
            Err(error) => Err(anyhow::Error::new(error).context("what was put back before is committed, call it again for the rest")),
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
