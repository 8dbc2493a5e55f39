//! `kubectl forebay`: the common things that are done to jobs in a cluster, and what is seen of them, explained. kubectl finds it on the path as
//! `kubectl-forebay`. Arguments and wiring; [`cluster`] alone holds a client, and what is printed is made by pure functions.
//!
//! Exit codes: 0 done; 1 it could not be done, or did not come about; 2 wrong usage. Results go to standard output, everything else to standard error.

mod advice;
mod change;
mod cluster;
mod follow;
mod logs;
mod print;
mod savepoint;
mod show;
mod table;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::cluster::Cluster;
use crate::print::{Output, ReaderGone};

/// Ingestion jobs in this cluster: how they are, why, and the common things to do with them
#[derive(Parser)]
#[command(name = "kubectl-forebay", bin_name = "kubectl forebay", version, max_term_width = 110, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    place: Place,

    /// How results are printed on standard output; errors are text on standard error either way
    #[arg(short = 'o', long, global = true, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// Which cluster, and where in it.
#[derive(Args)]
struct Place {
    /// The job's namespace [default: that of the context]
    #[arg(short = 'n', long, global = true, value_name = "NAME")]
    namespace: Option<String>,

    /// A context of the kubeconfig (KUBECONFIG, or ~/.kube/config) [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,

    /// Where the operator runs: it is asked for what `status`, `assignments`, `plan` and `logs --shard` tell [default: what the job's status names]
    #[arg(long, global = true, value_name = "NAME", env = "FOREBAY_OPERATOR_NAMESPACE")]
    operator_namespace: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  kubectl forebay status flights                   how is it, what is in the way, and what to do about that
  kubectl forebay plan flights                     what does the operator do next, and what does it wait for?
  kubectl forebay logs flights --shard 3 -f        what does the worker say that has shard 3?
  kubectl forebay savepoint flights --wait         copy its state to where it outlives the job
  kubectl forebay suspend flights --wait           let it rest; `resume` has it go on where it stopped
  kubectl forebay restart flights -n production    replace its workers one by one
  kubectl forebay status flights -o json | jq .look.workers

Jobs are listed by `kubectl get ij`, and changed by applying their manifests. Exit codes: 0 done; 1 it could not be done, or did not come \
about; 2 wrong usage.";

#[derive(Subcommand)]
enum Command {
    /// How a job is: phase, workers, shards, savepoints; what is in the way, and what to do about it
    Status(show::Status),
    /// Which pod has which shards, and under which version
    Assignments(show::Assignments),
    /// What the operator saw and did at its last look, what it decided last, and what it waits for
    Plan(show::Plan),
    /// Take a savepoint: a copy of the job's state that outlives the job
    Savepoint(savepoint::Savepoint),
    /// Let a job rest: last checkpoints are taken, then its pods go; state, journal and offsets stay
    Suspend(change::Suspend),
    /// Have a suspended job go on where it stopped
    Resume(change::Resume),
    /// Replace all workers, one after another, as for any other change of the job
    Restart(change::Restart),
    /// Print the logs of a job's workers, or of the one that has a shard
    Logs(logs::Logs),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { command, place, output } = Arguments::parse();
    let done = async {
        let cluster = Cluster::connect(place.context.as_deref(), place.namespace, place.operator_namespace).await?;
        match command {
            Command::Status(command) => command.execute(&cluster, output).await,
            Command::Assignments(command) => command.execute(&cluster, output).await,
            Command::Plan(command) => command.execute(&cluster, output).await,
            Command::Savepoint(command) => command.execute(&cluster, output).await,
            Command::Suspend(command) => command.execute(&cluster, output).await,
            Command::Resume(command) => command.execute(&cluster, output).await,
            Command::Restart(command) => command.execute(&cluster, output).await,
            Command::Logs(command) => command.execute(&cluster).await,
        }
    };
    match done.await {
        Err(error) if !error.is::<ReaderGone>() => {
            eprintln!("kubectl forebay: {error:#}");
            ExitCode::FAILURE
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_make_sense_to_clap() {
        Arguments::command().debug_assert();
    }
}
