//! `forebay log`: the embedded log, to put records in and get them out.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use forebay_engine::ids::{Partition, Timestamp};
use forebay_engine::log::{InputReader, StartFrom};
use forebay_engine::record::Header;
use forebay_local::{LogFolder, NewRecord};
use indicatif::ProgressBar;

use crate::Unusable;
use crate::records::Line;

#[derive(Subcommand)]
pub enum LogCommand {
    /// Put records into a topic of the embedded log, which is made if it is not there
    Produce(Produce),
    /// Print the committed records of a topic, one line of JSON each
    Consume(Consume),
    /// List the topics
    Topics(Topics),
}

#[derive(Args)]
pub struct Produce {
    /// Folder of the embedded log
    #[arg(long, value_name = "FOLDER", default_value = "forebay-data/log")]
    dir: PathBuf,
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
    /// Folder of the embedded log
    #[arg(long, value_name = "FOLDER", default_value = "forebay-data/log")]
    dir: PathBuf,
    /// The topic
    #[arg(long)]
    topic: String,
    /// Start at the oldest record; otherwise at the end
    #[arg(long)]
    from_beginning: bool,
    /// Stop at the end; otherwise wait for more
    #[arg(long)]
    until_end: bool,
}

#[derive(Args)]
pub struct Topics {
    /// Folder of the embedded log
    #[arg(long, value_name = "FOLDER", default_value = "forebay-data/log")]
    dir: PathBuf,
}

impl LogCommand {
    pub fn execute(&self) -> anyhow::Result<()> {
        match self {
            Self::Produce(command) => command.execute(),
            Self::Consume(command) => command.execute(),
            Self::Topics(command) => command.execute(),
        }
    }
}

impl Produce {
    fn execute(&self) -> anyhow::Result<()> {
        let folder = LogFolder::open(&self.dir)?;
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
            let line: Line = serde_json::from_str(&line)
                .map_err(|error| Unusable(format!("{name}:{}: not a record: {error}; write {{\"key\": …, \"value\": …}}", number + 1)))?;
            let (key, value) =
                (line.key.as_ref().map(|key| key.bytes()).transpose()?, line.value.as_ref().map(|value| value.bytes()).transpose()?);
            let mut headers = Vec::new();
            for (name, value) in &line.headers {
                headers.push((name.as_str(), value.as_ref().map(|value| value.bytes()).transpose()?));
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
        eprintln!("{written} records are in topic {}", self.topic);
        Ok(())
    }
}

impl Consume {
    fn execute(&self) -> anyhow::Result<()> {
        let folder = LogFolder::open(&self.dir)?;
        let from = if self.from_beginning { StartFrom::Earliest } else { StartFrom::Latest };
        let mut input = folder.consume(&self.topic, from, "forebay.log.consume")?;
        let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
        loop {
            let mut outcome = Ok(());
            let read = input.poll(Duration::from_millis(if self.until_end { 0 } else { 500 }), 10_000, &mut |record| {
                if outcome.is_ok() {
                    outcome = write_line(&mut out, &self.topic, record);
                }
            })?;
            match outcome {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                other => other?,
            }
            if read == 0 {
                out.flush()?;
                if self.until_end && input.progress().iter().all(|progress| progress.position.next >= progress.end) {
                    return Ok(());
                }
            }
        }
    }
}

fn write_line(out: &mut impl Write, topic: &str, record: &forebay_engine::record::InputRecord<'_>) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, &Line::of(topic, record))?;
    out.write_all(b"\n")
}

impl Topics {
    fn execute(&self) -> anyhow::Result<()> {
        for topic in LogFolder::open(&self.dir)?.topics() {
            println!("{}\t{} partitions\t{}", topic.name, topic.partitions, topic.id);
        }
        Ok(())
    }
}
