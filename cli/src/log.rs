//! `forebay log`: the embedded log, to put records in and get them out.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use forebay_engine::ids::{Partition, Timestamp};
use forebay_engine::log::{InputReader, StartFrom};
use forebay_engine::record::Header;
use forebay_local::{LogFolder, NewRecord};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::Unusable;
use crate::output::Output;
use crate::places::WorkingFolder;
use crate::records::{Line, Text};

#[derive(Subcommand)]
pub enum LogCommand {
    /// Put records into a topic of the embedded log, which is made if it is not there
    #[command(after_help = "\
Examples:
  forebay log produce --topic flights --partitions 12 --input records.jsonl
  echo '{\"key\": \"k\", \"value\": \"text\"}' | forebay log produce --topic flights

A line is one record: {\"key\": …, \"value\": …, \"timestamp\": milliseconds, \"partition\": 0, \"headers\": {…}}; all may be left out, \
and without value it is a tombstone. Keys and values are text, or {\"base64\": \"…\"}.")]
    Produce(Produce),
    /// Print the committed records of a topic, one line of JSON each
    #[command(after_help = "\
Examples:
  forebay log consume --topic enriched --from-beginning --until-end | head
  forebay log consume --topic delayed                    wait for what comes")]
    Consume(Consume),
    /// List the topics
    #[command(after_help = "\
Examples:
  forebay log topics
  forebay log topics --dir forebay-data -o json")]
    Topics(Topics),
}

#[derive(Args)]
pub struct Produce {
    #[command(flatten)]
    working: WorkingFolder,
    /// The topic
    #[arg(long)]
    topic: String,
    /// Partitions of a topic that is made; one that is there keeps its own
    #[arg(long, default_value_t = 1)]
    partitions: u32,
    /// A file with one record a line: {"key": "k", "value": "text", "timestamp": 1357034400000, "headers": {}}; - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
}

#[derive(Args)]
pub struct Consume {
    #[command(flatten)]
    working: WorkingFolder,
    /// The topic
    #[arg(long)]
    topic: String,
    /// Start at the oldest record; otherwise at the end
    #[arg(long)]
    from_beginning: bool,
    /// With --from-beginning: stop at the end; otherwise wait for more
    #[arg(long, requires = "from_beginning")]
    until_end: bool,
}

#[derive(Args)]
pub struct Topics {
    #[command(flatten)]
    working: WorkingFolder,
}

impl LogCommand {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Produce(command) => command.execute(output),
            Self::Consume(command) => command.execute(output),
            Self::Topics(command) => command.execute(output),
        }
    }
}

/// What `log produce` prints.
#[derive(Serialize)]
struct Produced<'a> {
    topic: &'a str,
    records: u64,
}

impl fmt::Display for Produced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records were put into topic {}", self.records, self.topic)
    }
}

/// A line of `log topics`.
#[derive(Serialize)]
struct TopicRow<'a> {
    topic: &'a str,
    partitions: u32,
    id: &'a str,
}

impl fmt::Display for TopicRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{} partitions\t{}", self.topic, self.partitions, self.id)
    }
}

impl Produce {
    fn execute(&self, output: Output) -> anyhow::Result<()> {
        let folder = LogFolder::open(&self.working.log_dir())?;
        if !folder.topics().iter().any(|topic| topic.name == self.topic) {
            folder.create_topic(&self.topic, self.partitions)?;
        }
        let name = self.input.display().to_string();
        let source: Box<dyn std::io::Read> = if name == "-" {
            Box::new(std::io::stdin())
        } else {
            Box::new(File::open(&self.input).with_context(|| format!("open {name}"))?)
        };
        let bar = ProgressBar::new_spinner();
        let mut writer = folder.writer(&self.topic)?;
        for (number, line) in BufReader::with_capacity(1 << 20, source).lines().enumerate() {
            let line = line.with_context(|| format!("read {name}"))?;
            if line.trim().is_empty() {
                continue;
            }
            let place = |error: &dyn fmt::Display| Unusable(format!("{name}:{}: not a record: {error}", number + 1));
            let line: Line = serde_json::from_str(&line).map_err(|error| place(&error))?;
            let bytes = |text: &Option<Text>| text.as_ref().map(Text::bytes).transpose().map_err(|error| place(&format!("{error:#}")));
            let (key, value) = (bytes(&line.key)?, bytes(&line.value)?);
            let mut headers = Vec::new();
            for (name, value) in &line.headers {
                headers.push((name.as_str(), bytes(value)?));
            }
            let headers: Vec<_> = headers.iter().map(|(name, value)| Header { name, value: value.as_deref() }).collect();
            writer.push(&NewRecord {
                partition: line.partition.map(Partition::new),
                timestamp: line.timestamp.map_or_else(forebay_worker::clock::now, Timestamp::from_millis),
                key: key.as_deref(),
                value: value.as_deref(),
                headers: &headers,
            })?;
            bar.inc(1);
        }
        let written = writer.finish()?;
        bar.finish_and_clear();
        output.print(&Produced { topic: &self.topic, records: written })
    }
}

impl Consume {
    fn execute(&self, output: Output) -> anyhow::Result<()> {
        let folder = LogFolder::open(&self.working.log_dir())?;
        let from = if self.from_beginning { StartFrom::Earliest } else { StartFrom::Latest };
        let mut input = folder.consume(&self.topic, from, "forebay.log.consume")?;
        let mut printer = output.printer();
        loop {
            let mut outcome = Ok(());
            let read = input.poll(Duration::from_millis(if self.until_end { 0 } else { 500 }), 10_000, &mut |record| {
                if outcome.is_ok() {
                    outcome = printer.print(&Line::of(&self.topic, record));
                }
            })?;
            outcome?;
            if read == 0 {
                printer.flush()?;
                if self.until_end && input.progress().iter().all(|progress| progress.position.next >= progress.end) {
                    return Ok(());
                }
            }
        }
    }
}

impl Topics {
    fn execute(&self, output: Output) -> anyhow::Result<()> {
        let mut printer = output.printer();
        for topic in LogFolder::open(&self.working.log_dir())?.topics() {
            printer.print(&TopicRow { topic: &topic.name, partitions: topic.partitions, id: &topic.id })?;
        }
        printer.finish()
    }
}
