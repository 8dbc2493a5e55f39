//! The round: all shards with something to say seal their epochs, and one transaction carries them. While it commits, the shards process
//! the next epoch; it is sealed when the commit is known.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Action, Attempt, Contribution, Phase, Producer, Worker, after};
use crate::claim::ClaimEvent;
use crate::ids::{Epoch, Incarnation, ShardId, Timestamp};
use crate::log::Receipt;
use crate::manifest::RetainedCheckpoint;
use crate::shard::SealedEpoch;

#[derive(Debug)]
pub(super) enum Round {
    /// No transaction is open; the last one began at `last`.
    Idle { last: Timestamp },
    /// Waits for shards to hand in what they sealed.
    Sealing { began: Timestamp, waiting: BTreeSet<ShardId>, contribution: Contribution, sealed: Vec<SealedMark> },
    /// The transaction is on its way.
    Committing { began: Timestamp, claims: Vec<(ShardId, Attempt)>, releases: Vec<ShardId>, sealed: Vec<SealedMark> },
}

/// What is to be done about a shard when the round is committed.
#[derive(Debug)]
pub(super) struct SealedMark {
    pub(super) shard: ShardId,
    attempt: Attempt,
    epoch: Epoch,
    retained: Option<Vec<RetainedCheckpoint>>,
    garbage: Vec<String>,
}

impl Round {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Round::Idle { .. } => "idle",
            Round::Sealing { .. } => "sealing",
            Round::Committing { .. } => "committing",
        }
    }

    /// The list of checkpoints that a shard's epoch in this round brings.
    pub(super) fn list_of(&self, shard: ShardId, attempt: Attempt) -> Option<&Vec<RetainedCheckpoint>> {
        match self {
            Round::Idle { .. } => None,
            Round::Sealing { sealed, .. } | Round::Committing { sealed, .. } => {
                sealed.iter().find(|mark| mark.shard == shard && mark.attempt == attempt)?.retained.as_ref()
            }
        }
    }
}

impl Worker {
    /// Whether a transaction would carry anything.
    pub(super) fn has_work(&self) -> bool {
        matches!(self.producer, Producer::Ready(_))
            && self.shards.values().any(|state| state.dirty && matches!(state.phase, Phase::Running(_)) || state.is_urgent())
    }

    /// From the beginning of one round to that of the next. A single shard at the head sets the pace for all.
    pub(super) fn interval(&self) -> Duration {
        let at_head = |state: &super::ShardState| state.dirty && !state.behind && matches!(state.phase, Phase::Running(_));
        if self.shards.values().any(at_head) { self.options.commit_interval } else { self.options.commit_interval_behind }
    }

    pub(super) fn begin_round_if_due(&mut self) {
        let Round::Idle { last } = self.round else { return };
        let urgent = self.shards.values().any(super::ShardState::is_urgent);
        let due = after(last, self.interval()) <= self.now;
        if !self.has_work() && after(last, self.options.heartbeat) <= self.now {
            return self.beat();
        }
        if !self.has_work() || !(due || urgent) {
            return;
        }
        let mut waiting = BTreeSet::new();
        let mut sealed = Vec::new();
        let mut contribution = Contribution::default();
        let alone = self.alone();
        for (shard, state) in self.shards.iter_mut().filter(|(shard, _)| alone.is_none_or(|alone| alone == **shard)) {
            let owner = match &state.phase {
                Phase::ClaimDue(claim) => {
                    contribution.claims.push(claim.owner().clone());
                    continue;
                }
                Phase::ReleaseDue(owner) => {
                    contribution.releases.push(owner.clone());
                    continue;
                }
                Phase::Running(claim) if state.dirty => claim.owner().clone(),
                Phase::Releasing(owner) => owner.clone(),
                Phase::Running(_) | Phase::Waiting | Phase::Claiming(_) | Phase::Restoring(_) | Phase::Failed(_) | Phase::Left => continue,
            };
            waiting.insert(*shard);
            (state.dirty, state.full) = (false, false);
            let annotations = std::mem::take(&mut state.annotations);
            sealed.push(SealedMark {
                shard: *shard,
                attempt: state.attempt,
                epoch: Epoch::default(),
                retained: annotations.retained.clone(),
                garbage: annotations.garbage.clone(),
            });
            self.out.push(Action::Seal(*shard, state.attempt, owner, annotations));
        }
        self.round = Round::Sealing { began: self.now, waiting, contribution, sealed };
        self.commit_if_sealed();
    }

    /// Whether there is anything to keep fresh.
    pub(super) fn has_heart(&self) -> bool {
        matches!(self.producer, Producer::Ready(_)) && self.shards.values().any(|state| matches!(state.phase, Phase::Running(_)))
    }

    /// Keeps the broker's memory of this incarnation fresh: one shard's claim record once more, which changes nothing.
    fn beat(&mut self) {
        let owner = self
            .shards
            .values()
            .find_map(|state| if let Phase::Running(claim) = &state.phase { Some(claim.owner().clone()) } else { None });
        if let (Some(owner), Producer::Ready(_)) = (owner, &self.producer) {
            let contribution = Contribution { claims: vec![owner], ..Contribution::default() };
            self.round = Round::Sealing { began: self.now, waiting: BTreeSet::new(), contribution, sealed: Vec::new() };
            self.commit_if_sealed();
        }
    }

    pub(super) fn sealed(&mut self, shard: ShardId, attempt: Attempt, epoch: Option<SealedEpoch>) {
        let Round::Sealing { waiting, contribution, sealed, .. } = &mut self.round else { return };
        let Some(state) = self.shards.get_mut(&shard).filter(|state| state.attempt == attempt) else { return };
        if !waiting.remove(&shard) {
            return;
        }
        match epoch {
            Some(epoch) => {
                for mark in sealed.iter_mut().filter(|mark| mark.shard == shard) {
                    mark.epoch = epoch.epoch;
                }
                contribution.epochs.push(epoch);
            }
            None => sealed.retain(|mark| mark.shard != shard),
        }
        // It may have been told to leave since it was asked: then this epoch is its last one.
        if let Phase::Releasing(owner) = &state.phase {
            contribution.releases.push(owner.clone());
        }
        self.commit_if_sealed();
    }

    /// A shard that failed holds up nobody: its part is left out, unless it is on its way already.
    pub(super) fn leave_round(&mut self, shard: ShardId) {
        if let Round::Sealing { waiting, contribution, sealed, .. } = &mut self.round {
            waiting.remove(&shard);
            contribution.epochs.retain(|epoch| epoch.shard != shard);
            contribution.claims.retain(|owner| owner.shard != shard);
            sealed.retain(|mark| mark.shard != shard);
            self.commit_if_sealed();
        }
    }

    fn commit_if_sealed(&mut self) {
        let Round::Sealing { began, waiting, contribution, sealed } = &mut self.round else { return };
        if !waiting.is_empty() {
            return;
        }
        let (began, contribution, sealed) = (*began, std::mem::take(contribution), std::mem::take(sealed));
        let Producer::Ready(incarnation) = &self.producer else { panic!("a round is only open while there is a producer") };
        if contribution.is_empty() {
            self.round = Round::Idle { last: began };
            return;
        }
        let shards = |owners: &[crate::journal::Owner]| owners.iter().map(|owner| owner.shard).collect();
        let claims = contribution.claims.iter().map(|owner| (owner.shard, self.shards[&owner.shard].attempt)).collect();
        self.round = Round::Committing { began, claims, releases: shards(&contribution.releases), sealed };
        for shard in contribution.claims.iter().map(|owner| owner.shard) {
            let state = self.shards.get_mut(&shard).expect("it contributed");
            // From here on the claim waits for its own record; a retry of the round would need a new incarnation anyway.
            state.phase = match std::mem::replace(&mut state.phase, Phase::Left) {
                Phase::ClaimDue(claim) => Phase::Claiming(claim),
                other => other,
            };
        }
        self.out.push(Action::Commit(incarnation.clone(), contribution));
    }

    pub(super) fn committed(&mut self, incarnation: &Incarnation, receipt: &Receipt) {
        if !matches!(&self.producer, Producer::Ready(current) if current == incarnation) {
            return;
        }
        let began = match &self.round {
            Round::Committing { began, .. } => *began,
            Round::Idle { .. } | Round::Sealing { .. } => panic!("a commit of {incarnation} is reported that was never asked for"),
        };
        let Round::Committing { claims, releases, sealed, .. } = std::mem::replace(&mut self.round, Round::Idle { last: began }) else {
            unreachable!("checked above")
        };
        // A claim that is committed shows nothing: the epoch behind it may be what is refused.
        let is_heartbeat = |(shard, _): &(ShardId, Attempt)| matches!(self.shards[shard].phase, Phase::Running(_));
        if !sealed.is_empty() || claims.iter().all(is_heartbeat) {
            self.producer_failures = 0;
        }
        for mark in sealed {
            self.confirm(mark, receipt);
        }
        for shard in releases {
            let state = self.shards.get_mut(&shard).expect("it contributed");
            if matches!(state.phase, Phase::Releasing(_) | Phase::ReleaseDue(_)) {
                state.phase = state.released();
                state.attempt = Attempt(state.attempt.0 + 1);
                self.out.push(Action::Close(shard));
            }
        }
        // A heartbeat's record, or one of an attempt that failed meanwhile, is nobody's answer.
        for (shard, attempt) in claims {
            let (first, _) = receipt.journal[&shard];
            self.claim_event(shard, attempt, ClaimEvent::Claimed(first));
        }
    }

    fn confirm(&mut self, mark: SealedMark, receipt: &Receipt) {
        let shard = mark.shard;
        self.suspects.remove(&shard);
        let state = self.shards.get_mut(&shard).expect("it contributed");
        if state.attempt != mark.attempt {
            return; // it failed meanwhile, and learns of this epoch from its journal
        }
        state.failures = 0;
        let (_, end) = receipt.journal[&shard];
        state.known = end;
        self.out.push(Action::Confirm(shard, mark.epoch, end));
        let before = mark.retained.as_ref().filter(|retained| retained.len() >= 2).map(|retained| retained[0].journal);
        if let Some(retained) = mark.retained {
            state.retained = retained;
        }
        if before.is_some() || !mark.garbage.is_empty() {
            self.out.push(Action::Discard { shard, before, objects: mark.garbage });
        }
    }
}

impl super::ShardState {
    /// Worth a transaction at once, whatever the interval.
    fn is_urgent(&self) -> bool {
        match self.phase {
            Phase::ClaimDue(_) | Phase::Releasing(_) | Phase::ReleaseDue(_) => true,
            Phase::Running(_) => self.full,
            Phase::Waiting | Phase::Claiming(_) | Phase::Restoring(_) | Phase::Failed(_) | Phase::Left => false,
        }
    }
}

#[cfg(test)]
mod tests;
