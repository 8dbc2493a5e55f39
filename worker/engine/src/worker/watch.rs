//! The watch of an idle owner. That an incarnation was barred is told by its next commit; with nothing to commit it would never be told. So it looks
//! at its journals now and then: whoever claims a shard writes a record there.
//!
//! A look decides nothing about who owns what: I4 rests on barring alone. It ends an incarnation that is as good as over, and the claims that
//! follow meet whoever has the better right.

use std::collections::BTreeSet;

use super::{Action, Attempt, Phase, Producer, Round, Worker, after};
use crate::claim::Scan;
use crate::failure::Failure;
use crate::ids::{JournalOffset, ShardId, Timestamp};
use crate::mutants::{self, Bug};

/// A journal to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The shard.
    pub shard: ShardId,
    /// Its attempt.
    pub attempt: Attempt,
    /// What lies before this offset is known. If the journal ends here, nothing needs to be read.
    pub from: JournalOffset,
}

/// What a look showed.
#[derive(Debug)]
pub enum Sight {
    /// The journal ends where it did, or nobody answered: the next look will tell.
    Nothing,
    /// What lies between [`Look::from`] and this end; nothing but transaction markers, often.
    Records(Scan, JournalOffset),
    /// What was to be read is deleted. An owner's own cuts never reach so far.
    Cut,
}

/// When the last look was, and what is still to be answered.
#[derive(Debug, Default)]
pub(super) struct Watch {
    last: Timestamp,
    pending: BTreeSet<ShardId>,
}

impl Worker {
    /// When the next look is due; `None` while there is nothing to watch, or commits do it.
    pub(super) fn look_due_at(&self) -> Option<Timestamp> {
        let Round::Idle { last } = self.round else { return None };
        let watches = self.has_heart() && self.watch.pending.is_empty() && !mutants::is(Bug::Unwatchful);
        watches.then(|| after(last.max(self.watch.last), self.options.watch))
    }

    pub(super) fn look_if_due(&mut self) {
        if self.look_due_at().is_none_or(|at| at > self.now) {
            return;
        }
        let running = self.shards.iter().filter(|(_, state)| matches!(state.phase, Phase::Running(_)));
        let looks: Vec<Look> = running.map(|(shard, state)| Look { shard: *shard, attempt: state.attempt, from: state.known }).collect();
        self.watch = Watch { last: self.now, pending: looks.iter().map(|look| look.shard).collect() };
        self.out.push(Action::Look(looks));
    }

    pub(super) fn looked(&mut self, shard: ShardId, attempt: Attempt, sight: Sight) {
        self.watch.pending.remove(&shard);
        // A transaction that has begun meanwhile tells better: it is refused, or this incarnation is not barred.
        let (Producer::Ready(incarnation), Round::Idle { .. }) = (&self.producer, &self.round) else { return };
        let incarnation = incarnation.clone();
        let Some(state) = self.shards.get_mut(&shard).filter(|state| state.attempt == attempt) else { return };
        if !matches!(state.phase, Phase::Running(_)) {
            return;
        }
        let reason = match sight {
            Sight::Nothing => return,
            Sight::Cut => format!("the journal of shard {shard} was cut by somebody else"),
            Sight::Records(scan, end) => match scan.stranger(&incarnation) {
                Some(worker) => format!("worker {worker} wrote to the journal of shard {shard}: it claims the shard"),
                None => {
                    state.known = state.known.max(end);
                    return;
                }
            },
        };
        self.producer_failed(&incarnation, &Failure::Passing(reason));
    }
}
