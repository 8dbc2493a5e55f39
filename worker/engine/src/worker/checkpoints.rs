//! What a shard's next epoch is to say about checkpoints: the list of those that count, and garbage. Nothing of it counts before that epoch is
//! committed.

use super::{Attempt, Phase, Worker};
use crate::ids::ShardId;
use crate::manifest::RetainedCheckpoint;
use crate::mutants::{self, Bug};

impl Worker {
    pub(super) fn checkpoint_uploaded(&mut self, shard: ShardId, attempt: Attempt, checkpoint: RetainedCheckpoint) {
        let keep = self.options.checkpoints_retained;
        let Some(mut retained) = self.list_to_be(shard, attempt) else { return };
        // Two uploads of one epoch are one checkpoint: counted twice, they would let the journal be cut behind the only one.
        if retained.last().is_some_and(|last| last.journal >= checkpoint.journal) {
            return;
        }
        retained.push(checkpoint);
        let keep = if mutants::is(Bug::ListTrimmedToOne) { 1 } else { keep };
        let drop = if mutants::is(Bug::ListNotTrimmed) { 0 } else { retained.len().saturating_sub(keep) };
        retained.drain(..drop);
        let state = self.shards.get_mut(&shard).expect("it has a list");
        state.annotations.retained = Some(retained);
        // I6: what was found before this checkpoint joined may be a file of it.
        state.annotations.garbage.clear();
        state.dirty = true;
    }

    /// I6: garbage counts only if whoever found it knew of every checkpoint that is on the list, or about to be.
    pub(super) fn garbage_found(&mut self, shard: ShardId, attempt: Attempt, named: &[RetainedCheckpoint], garbage: Vec<String>) {
        let Some(list) = self.list_to_be(shard, attempt) else { return };
        let knew = list.iter().all(|checkpoint| named.contains(checkpoint)) || mutants::is(Bug::StaleGarbage);
        if !garbage.is_empty() && knew {
            let state = self.shards.get_mut(&shard).expect("it has a list");
            state.annotations.garbage = garbage;
            state.dirty = true;
        }
    }

    /// The list of checkpoints of a running shard, once all is committed that is on its way; `None` when this attempt does not run.
    fn list_to_be(&self, shard: ShardId, attempt: Attempt) -> Option<Vec<RetainedCheckpoint>> {
        let state = self.shards.get(&shard).filter(|state| state.attempt == attempt && matches!(state.phase, Phase::Running(_)))?;
        let latest = state.annotations.retained.as_ref().or_else(|| self.round.list_of(shard, attempt));
        Some(latest.unwrap_or(&state.retained).clone())
    }
}
