//! The operator: tells workers which shards are theirs, under versions that grow; its letters may be slow, repeated or contradict each other.

use std::collections::BTreeSet;

use forebay_engine::claim::VersionRule;
use forebay_engine::ids::{AssignmentVersion, ShardId};
use forebay_engine::worker::Event;

use super::World;

/// An assignment on its way.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Under which version.
    pub rule: VersionRule,
    /// These shards and no others.
    pub shards: BTreeSet<ShardId>,
}

impl Letter {
    pub(super) fn event(&self) -> Event {
        Event::Assigned(self.rule, self.shards.clone())
    }
}

impl World {
    /// The next version: above all that were given out or met.
    pub fn next_version(&mut self) -> AssignmentVersion {
        self.version = self.version.max(self.version_seen).next();
        self.version
    }

    /// Sends an assignment; it arrives when it arrives.
    pub fn send(&mut self, seat: usize, letter: Letter) {
        let id = self.id();
        self.letters.insert(id, (seat, letter));
    }

    /// Every shard goes to somebody, everybody is told.
    pub fn assign_all(&mut self) {
        if self.setup.above_all {
            return;
        }
        let alive: Vec<usize> = (0..self.seats.len()).filter(|seat| !self.healed || self.seats[*seat].process.is_some()).collect();
        let mut sets = vec![BTreeSet::new(); self.seats.len()];
        for shard in self.shards() {
            sets[*self.rng.pick(&alive)].insert(shard);
        }
        let rule = VersionRule::Exactly(self.next_version());
        for (seat, shards) in sets.into_iter().enumerate() {
            self.send(seat, Letter { rule, shards });
        }
    }

    /// Moves some shards: tells those who get them, and those who lose them sooner, later or never.
    pub(super) fn assign_some(&mut self) {
        let equal = self.rng.chance(0.2);
        let rule = VersionRule::Exactly(if equal { self.version } else { self.next_version() });
        let mut moved: BTreeSet<ShardId> = self.shards().into_iter().filter(|_| self.rng.chance(0.6)).collect();
        if moved.is_empty() {
            moved = self.shards();
        }
        let to = self.rng.below(self.seats.len());
        if equal {
            self.coverage.situation("two workers are told the same version");
        }
        for seat in 0..self.seats.len() {
            let mut shards = self.seats[seat].kept.as_ref().map(|letter| letter.shards.clone()).unwrap_or_default();
            if seat == to {
                shards.extend(moved.iter().copied());
            } else {
                shards.retain(|shard| !moved.contains(shard));
            }
            let told = seat == to || self.rng.chance(0.6);
            if told {
                self.send(seat, Letter { rule, shards });
            }
        }
    }

    /// A letter arrives.
    pub(super) fn deliver(&mut self, id: u64) {
        let Some((seat, letter)) = self.letters.remove(&id) else { return };
        let lost = self.seats[seat].kept.as_ref().is_some_and(|kept| kept.shards.iter().any(|shard| !letter.shards.contains(shard)));
        if lost && self.seats[seat].process.is_some() {
            self.cover(seat, crate::coverage::Fault::Move);
        }
        self.note(|world| format!("    {} is told {letter:?}", world.seats[seat].name));
        let state = &mut self.seats[seat];
        if let Some(process) = &mut state.process {
            process.inbox.push_back(letter.event());
            state.kept = Some(letter.clone());
        }
        // A letter may come twice, and the second time late.
        if !self.healed && self.rng.chance(0.05) {
            self.coverage.situation("a stale assignment arrives");
            self.send(seat, letter);
        }
    }
}
