//! `forebay`: the one binary for users. It runs jobs, checks manifests, and looks into logs, state and snapshots.
//!
//! Exit codes: 0 done; 1 failed while at work; 2 wrong usage or a manifest that cannot work; 3 a shard was lost to another worker; 4 a shard
//! is stalled.

mod dlq;
mod fixtures;
mod job;
mod log;
mod places;
mod progress;
mod records;
mod run;
mod snapshot;
mod state;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Real-time ingestion, exactly once: from Kafka (or an embedded log) through a declared pipeline to Kafka, with state per entity.
#[derive(Parser)]
#[command(name = "forebay", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a job in this process: on an embedded log, or on Kafka and S3 by naming them
    Run(run::Run),
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
    /// Look at dead letters and put them back
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Print a job's books: how many records came in, and what became of them
    Books(state::BooksCommand),
}

/// Wrong usage, or a manifest that cannot work: exit code 2.
#[derive(Debug)]
struct Unusable(String);

/// A shard was lost to another worker: exit code 3.
#[derive(Debug)]
struct Lost(String);

/// A shard cannot go on without help: exit code 4.
#[derive(Debug)]
struct Stalled(String);

macro_rules! plain_error {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::error::Error for $name {}
    };
}
plain_error!(Unusable);
plain_error!(Lost);
plain_error!(Stalled);

fn main() -> ExitCode {
    if let Err(reason) = check_processor() {
        eprintln!("forebay: {reason}");
        return ExitCode::from(2);
    }
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Run(command) => command.execute(),
        Command::Validate(command) => command.execute(),
        Command::Test(command) => command.execute(),
        Command::Snapshot(command) => command.execute(),
        Command::Dlq(command) => command.execute(),
        Command::Log(command) => command.execute(),
        Command::State(command) => command.execute(),
        Command::Books(command) => command.execute(),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("forebay: {error:#}");
    let code = if error.is::<Unusable>() {
        2
    } else if error.is::<Lost>() {
        3
    } else if error.is::<Stalled>() {
        4
    } else {
        1
    };
    ExitCode::from(code)
}

/// The build uses instructions that every server processor since 2013 has; without them it would end as "illegal instruction".
fn check_processor() -> Result<(), String> {
    #[cfg(target_arch = "x86_64")]
    if !(std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("bmi2") && std::is_x86_feature_detected!("fma")) {
        return Err("this processor lacks AVX2, BMI2 or FMA; build with `-Ctarget-cpu=x86-64-v2` in .cargo/config.toml".into());
    }
    Ok(())
}
