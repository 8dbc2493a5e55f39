//! `forebay-bench-load`: what the bench needs besides the contestants. It makes records, measures latency, watches progress, reads what came
//! out, and holds the two contestants that are written by hand on librdkafka. It shares no code with Forebay.

mod action;
mod by_hand;
mod generate;
mod kafka;
mod latency;
mod librdkafka;
mod lines;
mod records;
mod summarize;
mod topics;
mod transform;
mod watch;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// As a contestant that wants to be fast would have it; the other contestants bring their own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load, probes and hand-written contestants of Forebay's bench. Results go to standard output as JSON.
#[derive(Parser)]
struct Arguments {
    /// host:port,...
    #[arg(long, env = "BENCH_KAFKA")]
    kafka: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make topics, each as NAME:PARTITIONS
    Create {
        /// The topics
        topics: Vec<String>,
    },
    /// Delete topics, and whatever begins with one of these names
    Delete {
        /// The beginnings
        prefixes: Vec<String>,
    },
    /// Produce a workload's records, as fast as possible or at a fixed rate
    Generate(generate::Generate),
    /// Read committed records as they come, and say how old each was when it could be seen
    Latency(latency::Latency),
    /// Print how many offsets a topic has, again and again
    Watch(watch::Watch),
    /// Count the committed records of topics, and build a sample of the documents that the deltas in them make
    Summarize(summarize::Summarize),
    /// Contestant: consume and produce the same bytes, in transactions
    Forward(by_hand::Loop),
    /// Contestant: the whole workload `action`, written by hand
    Action(by_hand::Loop),
    /// Contestant: the whole workload `transform`, written by hand
    Transform(by_hand::Loop),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kafka = arguments.kafka;
    match arguments.command {
        Command::Create { topics } => topics::create(&kafka, &topics),
        Command::Delete { prefixes } => topics::delete(&kafka, &prefixes),
        Command::Generate(generate) => generate.run(&kafka),
        Command::Latency(latency) => latency.run(&kafka),
        Command::Watch(watch) => watch.run(&kafka),
        Command::Summarize(summarize) => summarize.run(&kafka),
        Command::Forward(forward) => forward.run(&kafka, &mut by_hand::Forward),
        Command::Action(action) => {
            let mut work = action::Action::open(action.state.as_deref())?;
            action.run(&kafka, &mut work)
        }
        Command::Transform(transform) => transform.run(&kafka, &mut transform::Transform),
    }
}
