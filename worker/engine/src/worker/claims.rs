//! The claims of all shards: begun, driven, restored, given up.

use super::{Action, Attempt, Phase, Producer, Report, Worker};
use crate::claim::{Claim, ClaimAction, ClaimEvent, Scan, VersionRule};
use crate::failure::Failure;
use crate::ids::{AssignmentVersion, Epoch, Incarnation, ShardId};
use crate::journal::{Owner, Stamp};

impl Worker {
    pub(super) fn claim_waiting(&mut self) {
        let Producer::Ready(incarnation) = &self.producer else { return };
        let incarnation = incarnation.clone();
        let waiting: Vec<_> =
            self.shards.iter().filter(|(_, state)| matches!(state.phase, Phase::Waiting)).map(|(shard, _)| *shard).collect();
        for shard in waiting {
            let owner = self.owner(shard, &incarnation);
            let state = self.shards.get_mut(&shard).expect("it was just listed");
            state.restart();
            let (claim, actions) = Claim::start(owner, state.rule);
            state.phase = Phase::Claiming(claim);
            self.do_claim(shard, actions);
        }
    }

    fn owner(&self, shard: ShardId, incarnation: &Incarnation) -> Owner {
        Owner {
            timeline: self.options.timeline,
            shard,
            worker: self.options.worker.clone(),
            incarnation: incarnation.clone(),
            assignment: AssignmentVersion::default(),
        }
    }

    pub(super) fn claim_event(&mut self, shard: ShardId, attempt: Attempt, event: ClaimEvent) {
        let Some(state) = self.shards.get_mut(&shard).filter(|state| state.attempt == attempt) else { return };
        let Phase::Claiming(claim) = &mut state.phase else { return };
        let actions = claim.step(event);
        // The version is settled by the first scan, and kept.
        if state.rule == VersionRule::AboveAll {
            state.rule = claim.rule();
        }
        self.do_claim(shard, actions);
    }

    fn do_claim(&mut self, shard: ShardId, actions: Vec<ClaimAction>) {
        for action in actions {
            let state = self.shards.get_mut(&shard).expect("a claim belongs to a shard of this worker");
            let attempt = state.attempt;
            let claim = match std::mem::replace(&mut state.phase, Phase::Left) {
                Phase::Claiming(claim) | Phase::ClaimDue(claim) | Phase::Restoring(claim) => claim,
                other => panic!("shard {shard}: a claim acts in phase {other:?}"),
            };
            state.phase = match action {
                ClaimAction::ReadManifest => {
                    self.out.push(Action::ReadManifest(shard, attempt));
                    Phase::Claiming(claim)
                }
                ClaimAction::Scan { from, view } => {
                    self.out.push(Action::Scan(shard, attempt, from, view));
                    Phase::Claiming(claim)
                }
                ClaimAction::Bar(incarnation) => {
                    self.barring.want(incarnation, shard, attempt, &mut self.out);
                    Phase::Claiming(claim)
                }
                ClaimAction::CommitClaim(_) => Phase::ClaimDue(claim),
                ClaimAction::Restore(claimed) => {
                    self.out.push(Action::Restore(shard, attempt, claimed));
                    Phase::Restoring(claim)
                }
                ClaimAction::GiveUp(gave_up) => {
                    let owner = claim.owner().clone();
                    // A higher version came while this one was being claimed.
                    state.wanted |= matches!(state.rule, VersionRule::Exactly(version) if version > owner.assignment);
                    self.out.extend([Action::Drop(shard), Action::Report(Report::GaveUp(shard, gave_up.clone()))]);
                    if gave_up.claimed {
                        Phase::ReleaseDue(owner)
                    } else {
                        self.out.push(Action::Close(shard));
                        state.released()
                    }
                }
                ClaimAction::Stall { start, wanted } => {
                    let reason = format!(
                        "claim shard {shard}: its journal starts at offset {start}, but no checkpoint reaches there (the newest needs it from \
                         {wanted}); restore a savepoint, or bring back the checkpoints under the job's prefix"
                    );
                    let again = state.again(self.now, self.options.retry, &Failure::Lasting(reason.clone()));
                    self.out.push(Action::Report(Report::Stalled(shard, reason)));
                    Phase::Failed(again)
                }
            };
        }
    }

    pub(super) fn restored(&mut self, shard: ShardId, attempt: Attempt, head: Stamp, behind: &Scan) {
        let Some(state) = self.shards.get_mut(&shard).filter(|state| state.attempt == attempt) else { return };
        let Phase::Restoring(claim) = &mut state.phase else { return };
        if let Err(actions) = claim.verify(behind) {
            self.out.push(Action::Drop(shard));
            self.do_claim(shard, actions);
            return;
        }
        if let Phase::Restoring(claim) = std::mem::replace(&mut state.phase, Phase::Left) {
            state.known = claim.last_claim().expect("a claim that is restored has a record");
            state.phase = Phase::Running(claim);
        }
        state.stalled = false;
        state.retained = head.retained;
        if head.epoch == Epoch::default() {
            // Where it starts to read is decided once: an empty epoch says so, before `latest` means something else.
            state.annotations.retained = Some(Vec::new());
            state.dirty = true;
        }
        self.out.push(Action::Start(shard, attempt));
        self.out.push(Action::Report(Report::Owned(shard, head.epoch)));
    }

    pub(super) fn restore_outrun(&mut self, shard: ShardId, attempt: Attempt) {
        let Some(state) = self.shards.get_mut(&shard).filter(|state| state.attempt == attempt) else { return };
        if let Phase::Restoring(claim) = &mut state.phase {
            let actions = claim.again();
            self.out.push(Action::Drop(shard));
            self.do_claim(shard, actions);
        }
    }
}
