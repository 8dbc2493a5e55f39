//! Whom this process has barred. Shards that were one worker's have its incarnations in all their journals: each is barred once, for all shards that
//! want it, and several at the same time.
//!
//! Why one barring is enough for the claims of all shards (I4): a claim needs that the other can commit nothing behind its claim record, in any
//! journal. What is barred is the transactional id, not its right to one journal; when the answer is there, what it had open is aborted in all of
//! them. That it happened for another shard's sake, or before this claim began, makes it only earlier.
//!
//! The answer is not believed for ever: the broker forgets a transactional id, and that it was barred, when nothing was heard of it for
//! `transactional.id.expiration.ms` (7 days by default, counted from the barring). The longest that it is believed here is a heartbeat, a day.

use std::collections::{BTreeMap, VecDeque};

use super::{Action, Attempt, Worker, after};
use crate::claim::ClaimEvent;
use crate::failure::Failure;
use crate::ids::{Incarnation, ShardId, Timestamp};
use crate::mutants::{self, Bug};

/// As many as are remembered: a worker that is killed each minute leaves 1440 a day. To bar one again costs a second and harms nobody.
const REMEMBERED_MAX: usize = 2_000;

#[derive(Debug, Default)]
pub(super) struct Barring {
    /// Asked for and not answered, and who waits.
    wanted: BTreeMap<Incarnation, Vec<(ShardId, Attempt)>>,
    /// Who waits for what is known already.
    answers: VecDeque<(ShardId, Attempt, Incarnation)>,
    /// When the answer came.
    barred: BTreeMap<Incarnation, Timestamp>,
}

impl Barring {
    /// A claim wants an incarnation barred: asks for it, unless somebody has.
    pub(super) fn want(&mut self, incarnation: Incarnation, shard: ShardId, attempt: Attempt, out: &mut Vec<Action>) {
        if self.barred.contains_key(&incarnation) {
            return self.answers.push_back((shard, attempt, incarnation));
        }
        let waiting = self.wanted.entry(incarnation.clone()).or_default();
        if waiting.is_empty() {
            out.push(Action::Bar(incarnation));
        } else if mutants::is(Bug::BarredTooSoon) {
            return self.answers.push_back((shard, attempt, incarnation));
        }
        waiting.push((shard, attempt));
    }

    /// It is barred.
    pub(super) fn done(&mut self, incarnation: Incarnation, now: Timestamp) {
        let waiting = self.wanted.remove(&incarnation).unwrap_or_default();
        self.answers.extend(waiting.into_iter().map(|(shard, attempt)| (shard, attempt, incarnation.clone())));
        if self.barred.len() >= REMEMBERED_MAX {
            let oldest = self.barred.iter().min_by_key(|(_, at)| **at).map(|(incarnation, _)| incarnation.clone());
            oldest.map(|oldest| self.barred.remove(&oldest));
        }
        self.barred.insert(incarnation, now);
    }
}

impl Worker {
    /// Hands answers to the claims that wait for them.
    pub(super) fn tell_barred(&mut self) {
        let (now, believed) = (self.now, self.options.heartbeat);
        self.barring.barred.retain(|_, at| after(*at, believed) > now || mutants::is(Bug::BarredForEver));
        while let Some((shard, attempt, incarnation)) = self.barring.answers.pop_front() {
            self.claim_event(shard, attempt, ClaimEvent::Barred(incarnation));
        }
    }

    /// Nobody is barred: all that waited for it fail and are tried again.
    pub(super) fn bar_failed(&mut self, incarnation: &Incarnation, failure: &Failure) {
        for (shard, attempt) in self.barring.wanted.remove(incarnation).unwrap_or_default() {
            self.shard_failed(shard, attempt, failure);
        }
    }
}
