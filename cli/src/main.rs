//! `forebay`: the one binary for users. It runs jobs, checks manifests, and looks into logs, state and snapshots.
//!
//! Exit codes: 0 done; 1 failed while at work; 2 wrong usage or a manifest that cannot work; 3 a shard was lost to another worker; 4 a shard
//! is stalled; 75 a server was away, or the disk of an embedded log is full. Results go to standard output, as text or JSON ([`output`]), everything else to standard error.

mod adopt;
mod allocator;
mod cause;
mod cleanup;
mod databases;
mod dlq;
mod engine;
mod fixtures;
mod job;
mod log;
mod memory;
mod output;
mod places;
mod progress;
mod records;
mod rewind;
mod run;
mod savepoint;
mod snapshot;
mod state;
mod timelines;
mod worker;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};
use forebay_crds::Finding;

use crate::cause::{Cause, cause_of};
use crate::output::{Output, ReaderGone};
use crate::progress::AboveBar;

/// The system's cost a sixth of the executors' time. Linked in, it serves the C and C++ libraries too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Real-time ingestion, exactly once: from Kafka (or an embedded log) through a declared pipeline to Kafka, with state per entity.
#[derive(Parser)]
#[command(name = "forebay", version, max_term_width = 110, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// How results are printed on standard output; errors are text on standard error either way
    #[arg(short = 'o', long, global = true, value_name = "FORMAT", default_value = "text", env = "FOREBAY_OUTPUT")]
    output: Output,
}

const EXAMPLES: &str = "\
Examples:
  forebay validate -f job.yaml                      is the manifest right?
  forebay test -f job.yaml                          run the fixtures beside it, in memory
  forebay log produce --topic flights --partitions 12 --input records.jsonl
  forebay run -f job.yaml --until-end               on the embedded log in ./forebay-data
  forebay run -f job.yaml --kafka broker:9092 --store s3://bucket/prefix
  forebay state get -f job.yaml aircraft N14228     what is known of one entity
  forebay books -f job.yaml -o json                 what became of the records

Exit codes: 0 done; 1 failed while at work; 2 wrong usage, a manifest that cannot work, or something that is missing or refused; 3 a shard was lost to a later \
start; 4 a shard is stalled; 75 a server was not reached or gave no answer, or the disk of an embedded log is full: trying again may help; 130 ended at once by a signal, of `run` \
and `worker` by a second one; nothing is lost by it.";

#[derive(Subcommand)]
enum Command {
    /// Run a job in this process: on an embedded log, or on Kafka and S3 by naming them
    Run(run::Run),
    /// What a pod runs: like `run`, but an operator says which shards
    Worker(worker::Worker),
    /// Check a manifest: every error with its line, column and the way out
    Validate(job::Validate),
    /// Run fixtures through a job's pipeline in memory: input records in, expected outputs and state
    Test(fixtures::Test),
    /// Write and read the embedded log
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Look into the state of a job
    #[command(subcommand)]
    State(state::StateCommand),
    /// Look at the checkpoints of a job
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Copy a job's state to where it outlives the job
    #[command(subcommand)]
    Savepoint(savepoint::SavepointCommand),
    /// Have a job go on from an earlier state: from a savepoint, or from a point in time
    Rewind(rewind::Rewind),
    /// Look at dead letters and put them back
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Delete what a job that is over has left in Kafka and in the object store
    Cleanup(cleanup::Cleanup),
    /// Print a job's books: how many records came in, and what became of them
    Books(state::BooksCommand),
}

/// Wrong usage, or surroundings that cannot work: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unusable(String);

/// A manifest that cannot work: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("the manifest cannot work:\n{}", lines(.0))]
struct BadManifest(Vec<Finding>);

/// A shard was lost to another worker: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Lost(String);

/// A shard cannot go on without help: exit code 4.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Stalled(String);

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Without a handler the first process of a container does not hear the signal that asks it to end. What these commands do may end at any point.
fn hear_signals(command: &Command) {
    if matches!(command, Command::Savepoint(_) | Command::Rewind(_) | Command::Dlq(_) | Command::Cleanup(_)) {
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            let at_once = Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_shutdown(signal, 130, at_once).expect("these signals may have handlers");
        }
    }
}

fn main() -> ExitCode {
    if let Err(reason) = check_processor() {
        eprintln!("forebay: {reason}");
        return ExitCode::from(2);
    }
    let Arguments { command, output } = Arguments::parse();
    start_logging(&command);
    hear_signals(&command);
    let outcome = match command {
        Command::Run(command) => command.execute(output),
        Command::Worker(command) => command.execute(),
        Command::Validate(command) => command.execute(output),
        Command::Test(command) => command.execute(output),
        Command::Snapshot(command) => command.execute(output),
        Command::Savepoint(command) => command.execute(output),
        Command::Rewind(command) => command.execute(output),
        Command::Dlq(command) => command.execute(output),
        Command::Log(command) => command.execute(output),
        Command::State(command) => command.execute(output),
        Command::Cleanup(command) => command.execute(output),
        Command::Books(command) => command.execute(output),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if error.is::<ReaderGone>() {
        return ExitCode::SUCCESS;
    }
    eprintln!("forebay: {error:#}");
    let cause = cause_of(&error);
    let code = if error.is::<Unusable>() || error.is::<BadManifest>() || cause == Some(Cause::Refused) {
        2
    } else if error.is::<Lost>() {
        3
    } else if error.is::<Stalled>() {
        4
    } else if cause == Some(Cause::Away) {
        75
    } else {
        1
    };
    // Not by way of what libraries do at the end: OpenSSL frees what librdkafka's threads may be using, and a crash would hide the code.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    signal_hook::low_level::exit(code)
}

/// Above a job's progress bar: what the libraries warn of comes with every attempt of theirs, and what comes of it is said by us.
const ABOVE_BAR: &str = "warn,librdkafka=error,forebay_state::memory=error";

/// A job says what it does, unless somebody watches its progress bar; then it says what is amiss, as the other commands do.
fn start_logging(command: &Command) {
    let (usual, json) = match command {
        Command::Run(run) if std::io::stderr().is_terminal() => (ABOVE_BAR, run.log_json),
        Command::Run(run) => ("info", run.log_json),
        Command::Worker(worker) => ("info", worker.log_json),
        _ => ("warn", false),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| usual.into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| AboveBar).with_ansi(std::io::stderr().is_terminal());
    if json { builder.json().init() } else { builder.init() }
}

/// The build uses instructions that every server processor since 2013 has; without them it would end as "illegal instruction".
fn check_processor() -> Result<(), String> {
    #[cfg(target_arch = "x86_64")]
    if !(std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("bmi2") && std::is_x86_feature_detected!("fma")) {
        return Err("this processor lacks AVX2, BMI2 or FMA; build with `-Ctarget-cpu=x86-64-v2` in .cargo/config.toml".into());
    }
    Ok(())
}
