//! Watching a run until its end: progress, signals, the goal of `--until-end`, the last checkpoints, and what is said of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_engine::ids::{Epoch, InputId, Offset, Partition, ShardId};
use forebay_engine::log::{Log, LogError, StartFrom};
use forebay_engine::shard::shard_of;
use forebay_engine::worker::Report;
use forebay_worker::status::Status;
use forebay_worker::{Runtime, RuntimeOptions};

use super::last_checkpoint::LastCheckpoint;
use crate::output::Output;
use crate::progress::Progress;
use crate::state::BooksRow;
use crate::{Lost, Stalled};

/// Until when `--until-end` runs: the inputs' ends at the start.
pub struct Goal {
    ends: BTreeMap<(InputId, Partition), Offset>,
    records: u64,
    shards: u32,
}

impl Goal {
    /// The ends of the partitions of this process's shards, as they are now.
    pub fn of<L: Log>(log: &L, options: &RuntimeOptions) -> anyhow::Result<Self> {
        let mut ends = BTreeMap::new();
        let mut records = 0;
        for (input, _) in (0..).map(InputId::new).zip(&options.start_from) {
            let starts: BTreeMap<_, _> =
                log.start_positions(input, StartFrom::Earliest)?.into_iter().map(|position| (position.partition, position.next)).collect();
            for end in log.start_positions(input, StartFrom::Latest)? {
                if options.assignment.1.contains(&shard_of(end.partition, options.shards)) {
                    ends.insert((input, end.partition), end.next);
                    records += end.next.get() - starts.get(&end.partition).map_or(0, |start| start.get());
                }
            }
        }
        tracing::info!(records, ?ends, "runs until the inputs' ends");
        Ok(Self { ends, records, shards: options.shards })
    }

    /// Whether all is worked off but for shards that cannot be: they are lost, or need help. One without a record has its first epoch too before the
    /// end: where it starts to read, with `startFrom: latest`, is certain only then.
    fn is_reached(&self, status: &Status, given_up: &BTreeSet<ShardId>) -> bool {
        let mut left = self.ends.clone();
        left.retain(|(_, partition), _| !given_up.contains(&shard_of(*partition, self.shards)));
        for (id, shard) in &status.shards() {
            if (shard.uncommitted_records > 0 || shard.epoch == Epoch::default()) && !given_up.contains(id) {
                return false;
            }
            for progress in &shard.progress {
                let place = (progress.position.input, progress.position.partition);
                if left.get(&place).is_some_and(|end| progress.position.next >= *end) {
                    left.remove(&place);
                }
            }
        }
        left.is_empty()
    }
}

/// What to do when the end has come.
pub struct Ending {
    /// Take a checkpoint of every shard first.
    pub checkpoint: bool,
    /// How to print the books.
    pub output: Output,
}

/// How far the end has come.
enum Stage {
    Working,
    Checkpointing(LastCheckpoint),
    Stopping,
}

/// What did not come to a good end: the log, or shards.
#[derive(Default)]
struct Losses {
    /// Why it takes nothing more.
    log: Option<LogError>,
    /// To which worker.
    lost: BTreeMap<ShardId, String>,
    /// Why.
    stalled: BTreeMap<ShardId, String>,
    /// Without the checkpoint that was asked for.
    unsaved: BTreeSet<ShardId>,
}

/// Shows progress until the goal is reached, a signal comes, every shard is lost, or the log is `broken`.
pub fn watch(
    runtime: Runtime,
    owned: &BTreeSet<ShardId>,
    goal: Option<Goal>,
    broken: &dyn Fn() -> Option<LogError>,
    ending: &Ending,
) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let mut progress = Progress::new(goal.as_ref().map(|goal| goal.records));
    let mut losses = Losses::default();
    let mut stage = Stage::Working;
    let status = runtime.status().clone();
    while !runtime.is_over() {
        std::thread::sleep(Duration::from_millis(50));
        // All of them are in the log; one decides how this ends.
        for report in status.take_reports() {
            if let Report::GaveUp(shard, gave_up) = report {
                losses.lost.insert(shard, format!("{} (version {})", gave_up.winner, gave_up.version));
            }
        }
        progress.show(&status, matches!(stage, Stage::Stopping));
        losses.log = losses.log.take().or_else(broken);
        let hopeless = losses.lost.len() == owned.len() || losses.log.is_some();
        let may_stop = match &mut stage {
            Stage::Working => {
                let reached = goal.as_ref().is_some_and(|goal| losses.note_and_judge(goal, &status));
                let done = reached || stop.load(Ordering::Relaxed) || hopeless;
                if done && ending.checkpoint && !hopeless {
                    progress.say("a checkpoint of every shard is taken before stopping");
                    stage = Stage::Checkpointing(LastCheckpoint::ask(&runtime));
                    false
                } else {
                    done
                }
            }
            Stage::Checkpointing(last) => {
                let over = hopeless || last.is_over(&runtime);
                losses.unsaved = last.missing(&status);
                over
            }
            Stage::Stopping => false,
        };
        if may_stop {
            stage = Stage::Stopping;
            runtime.stop();
        }
    }
    progress.finish(&status.books());
    runtime.join().map_err(|panic| anyhow::anyhow!("a thread panicked: {panic}"))?;
    ending.output.print(&BooksRow(status.books()))?;
    losses.verdict(owned.len())
}

impl Losses {
    /// Whether the goal is reached but for shards that are lost or need help; notes who needs it.
    fn note_and_judge(&mut self, goal: &Goal, status: &Status) -> bool {
        let needs_help = status.shards().into_iter().filter(|(_, shard)| shard.stalled);
        self.stalled = needs_help.map(|(shard, status)| (shard, status.failure.unwrap_or_default())).collect();
        let given_up: BTreeSet<ShardId> = self.lost.keys().chain(self.stalled.keys()).copied().collect();
        goal.is_reached(status, &given_up)
    }

    /// What the run ends with; `of`: the shards that it was to own.
    fn verdict(self, of: usize) -> anyhow::Result<()> {
        if let Some(error) = self.log {
            return Err(error.into());
        }
        if let Some((shard, winner)) = self.lost.first_key_value() {
            let count = self.lost.len();
            return Err(Lost(format!(
                "{count} of {of} shards were lost, shard {shard} to {winner}: the later start wins. Start one process per shard, or share them by \
                 --shards"
            ))
            .into());
        }
        if !self.stalled.is_empty() {
            let reasons: Vec<String> = self.stalled.iter().map(|(shard, reason)| format!("shard {shard}: {reason}")).collect();
            let (count, reasons) = (self.stalled.len(), reasons.join("\n"));
            return Err(Stalled(format!("{count} of {of} shards are stalled and need help; nothing of them was skipped\n{reasons}")).into());
        }
        let unsaved: Vec<String> = self.unsaved.iter().map(ToString::to_string).collect();
        anyhow::ensure!(
            unsaved.is_empty(),
            "no checkpoint of shards {} was taken before the stop, the reason is in the log; all is committed and released, and the next start \
             reads a longer journal",
            unsaved.join(", ")
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use forebay_engine::log::{InputPosition, InputProgress};

    use super::*;

    /// Method: a shard whose input has no record. Without an epoch, nothing says where it begins to read.
    #[test]
    fn a_shard_without_records_is_at_the_end_once_it_has_an_epoch() {
        let place = (InputId::new(0), Partition::new(0));
        let goal = Goal { ends: BTreeMap::from([(place, Offset::new(0))]), records: 0, shards: 1 };
        let (status, shard) = (Status::default(), ShardId::new(0));
        let position = InputPosition { input: place.0, partition: place.1, next: Offset::new(0) };
        status.update(shard, |status| status.progress = vec![InputProgress { position, end: Offset::new(0) }]);
        assert!(!goal.is_reached(&status, &BTreeSet::new()));
        assert!(goal.is_reached(&status, &BTreeSet::from([shard])));
        status.update(shard, |status| status.epoch = Epoch::new(1));
        assert!(goal.is_reached(&status, &BTreeSet::new()));
    }
}
