//! `forebay dlq`: what a job could not process, and putting it back. The job may run meanwhile on Kafka, not on an embedded log.

mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand};
use forebay_crds::Step;
use forebay_engine::ids::{InputId, ShardId};
use forebay_engine::log::{InputPosition, InputReader, JobTopics, Log, StartFrom};
use forebay_engine::record::InputRecord;
use serde::Serialize;

use crate::Unusable;
use crate::job::{self, Loaded};
use crate::output::Output;
use crate::places::Places;
use crate::records::Line;
use crate::run::{open_kafka, open_local};
use replay::Replay;

/// The dead-letter topic is the only input of these commands.
const LETTERS: InputId = InputId::new(0);

/// What reading and putting back letters may use.
const KAFKA_MEMORY_BYTES: usize = 256 << 20;

#[derive(Subcommand)]
pub enum DlqCommand {
    /// List dead letters: where each came from, the step and the reason
    #[command(after_help = "\
Examples:
  forebay dlq ls -f job.yaml --step validate --limit 20
  forebay dlq ls -f job.yaml -o json | jq -r '.headers[\"forebay.error\"]' | sort | uniq -c")]
    Ls(Ls),
    /// Put dead letters back into the inputs that they came from; each once, however often this is called
    #[command(after_help = "\
Examples:
  forebay dlq replay -f job.yaml --dry-run           how many, of which step?
  forebay dlq replay -f job.yaml --step validate     those of one step; the others stay for later
  forebay dlq replay -f job.yaml --revision 8c2f0a31b9de   those of one revision of the job
  forebay dlq replay -f job.yaml --template 3f2a9c1e5a     those of pods with this label forebay.dev/template
  forebay dlq replay -f job.yaml

How far each step's letters are put back is kept by the consumer group <spec.consumerGroup>.dlq-replay.<step>, each revision's by \
<spec.consumerGroup>.dlq-replay.revision.<revision>, and each template's by <spec.consumerGroup>.dlq-replay.template.<template>, in the transaction that puts them back. A replay that was killed is called again; a second one ends the first.")]
    Replay(Replay),
}

#[derive(Args)]
pub struct Common {
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
    /// At most so many
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

impl Common {
    /// No letter was of the wanted step: is there such a step at all?
    fn check_step(&self, loaded: &Loaded, found: u64) -> anyhow::Result<()> {
        let names: BTreeSet<&str> = loaded.job.pipeline.iter().map(Step::name).collect();
        match &self.step {
            Some(step) if found == 0 && !names.contains(step.as_str()) => {
                let names: Vec<&str> = names.into_iter().collect();
                let what = format!("no dead letter is of a step {step:?}, and the job has none; its steps are {}", names.join(", "));
                Err(Unusable(what).into())
            }
            _ => Ok(()),
        }
    }
}

impl DlqCommand {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        let common = match self {
            Self::Ls(command) => &command.common,
            Self::Replay(command) => &command.common,
        };
        let loaded = job::load(&common.places.file)?;
        match common.places.cluster(&loaded.job)? {
            Some(cluster) => self.act(&loaded, output, |topics| open_kafka(&cluster, topics, KAFKA_MEMORY_BYTES)),
            None => self.act(&loaded, output, |topics| open_local(&common.places, topics)),
        }
    }

    fn act<L: Log>(&self, loaded: &Loaded, output: Output, open: impl Fn(JobTopics) -> anyhow::Result<L>) -> anyhow::Result<()> {
        match self {
            Self::Ls(command) => command.list(loaded, output, &open(topics(loaded, ""))?),
            Self::Replay(command) => command.replay(loaded, output, open),
        }
    }
}

/// The job's topics the other way round: dead letters in, the job's inputs out. `step` names the group that keeps how far its letters are put
/// back; of a revision that is `revision.` and its name, of a template likewise.
fn topics(loaded: &Loaded, step: &str) -> JobTopics {
    JobTopics {
        uid: format!("{}.dlq", loaded.uid()),
        inputs: vec![loaded.job.dead_letter.clone()],
        outputs: loaded.job.inputs.iter().map(|input| input.topic.clone()).collect(),
        journal: format!("forebay.{}.dlq", loaded.uid()),
        group: format!("{}.dlq-replay.{step}", loaded.job.consumer_group),
        shards: 1,
    }
}

/// A line of `dlq ls`: the whole record, for people in short.
#[derive(Serialize)]
#[serde(transparent)]
struct Letter {
    line: Line,
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |name: &str| self.line.headers.get(name).and_then(Option::as_ref).map_or_else(|| "?".to_owned(), ToString::to_string);
        let (topic, partition, offset) = (of("forebay.topic"), of("forebay.partition"), of("forebay.offset"));
        write!(f, "{topic}-{partition} at {offset}  {}: {}", of("forebay.step"), of("forebay.error"))
    }
}

impl Ls {
    fn list<L: Log>(&self, loaded: &Loaded, output: Output, log: &L) -> anyhow::Result<()> {
        let from = log.start_positions(LETTERS, StartFrom::Earliest)?;
        let mut printer = output.printer();
        let mut listed = 0;
        each_to_end(log, &from, |record| {
            let wanted = self.common.step.as_deref().is_none_or(|step| step_of(record) == Some(step));
            if wanted && listed < self.limit {
                listed += 1;
                printer.print(&Letter { line: Line::of(&loaded.job.dead_letter, record) })?;
            }
            Ok(())
        })?;
        printer.finish()?;
        self.common.check_step(loaded, listed as u64)?;
        eprintln!("{listed} dead letters");
        Ok(())
    }
}

/// Hands out the committed records of the dead-letter topic from these positions to its end as it is now.
fn each_to_end<L: Log>(
    log: &L,
    from: &[InputPosition],
    mut each: impl FnMut(&InputRecord<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let ends: BTreeMap<_, _> =
        log.start_positions(LETTERS, StartFrom::Latest)?.into_iter().map(|position| (position.partition, position.next)).collect();
    let mut input = log.open_input(ShardId::new(0), from)?;
    loop {
        let mut outcome = Ok(());
        input.poll(Duration::from_millis(100), 1000, &mut |record| {
            if outcome.is_ok() && record.offset < ends[&record.partition] {
                outcome = each(record);
            }
        })?;
        outcome?;
        if input.progress().iter().all(|progress| progress.position.next >= ends[&progress.position.partition]) {
            return Ok(());
        }
    }
}

fn step_of<'a>(record: &InputRecord<'a>) -> Option<&'a str> {
    header(record, "forebay.step")
}

fn header<'a>(record: &InputRecord<'a>, name: &str) -> Option<&'a str> {
    record.headers.iter().find(|header| header.name == name).and_then(|header| std::str::from_utf8(header.value?).ok())
}
