//! Who is to blame when the log refuses a transaction for good: a record that is too large, a topic that is gone. One shard's records must not stop the others, and the
//! log does not say whose they were. So the shards of a refused transaction commit alone, one after the other, until each has committed or was refused alone.

use std::collections::BTreeSet;

use super::round::Round;
use super::{Action, BACKOFF_MAX, Phase, Report, Worker, backoff};
use crate::failure::Failure;
use crate::ids::{ShardId, Timestamp};

impl Worker {
    /// The suspect that is to commit now, and nobody with it.
    pub(super) fn alone(&self) -> Option<ShardId> {
        let has_epoch = |shard: &&ShardId| {
            self.shards.get(shard).is_some_and(|state| match state.phase {
                Phase::Running(_) => state.dirty,
                Phase::Releasing(_) => true,
                Phase::Waiting
                | Phase::Claiming(_)
                | Phase::ClaimDue(_)
                | Phase::Restoring(_)
                | Phase::ReleaseDue(_)
                | Phase::Failed(_)
                | Phase::Left => false,
            })
        };
        self.suspects.iter().find(has_epoch).copied()
    }

    /// The shards whose epochs are in the transaction that is on its way.
    pub(super) fn in_transaction(&self) -> BTreeSet<ShardId> {
        match &self.round {
            Round::Committing { sealed, .. } => sealed.iter().map(|mark| mark.shard).collect(),
            Round::Idle { .. } | Round::Sealing { .. } => BTreeSet::new(),
        }
    }

    /// A transaction with the epochs of these shards was refused for good; all shards wait to be claimed again. Returns when to begin.
    pub(super) fn refused(&mut self, shards: BTreeSet<ShardId>, failure: &Failure) -> Timestamp {
        if shards.is_empty() {
            // No records, only what every shard needs: the right to the journal, or to the transactional id.
            for (shard, state) in self.shards.iter_mut().filter(|(_, state)| matches!(state.phase, Phase::Waiting)) {
                state.stalled = true;
                self.out.push(Action::Report(Report::Stalled(*shard, failure.reason().to_owned())));
            }
            return backoff(self.now, self.options.retry, BACKOFF_MAX);
        }
        if let (1, Some(shard)) = (shards.len(), shards.first())
            && let Some(state) = self.shards.get_mut(shard)
            && matches!(state.phase, Phase::Waiting)
        {
            state.phase = Phase::Failed(state.again(self.now, self.options.retry, failure));
            self.out.push(Action::Report(Report::Stalled(*shard, failure.reason().to_owned())));
        }
        self.suspects.extend(shards);
        backoff(self.now, self.options.retry, self.producer_failures)
    }
}
