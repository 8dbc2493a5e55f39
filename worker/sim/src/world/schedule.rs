//! Who acts next. Two ways, by the seed: at random with bursts, or by priorities that change now and then, so that one stands still for long
//! while others run far ahead.

use std::collections::BTreeMap;

use super::World;
use crate::log::{Target, TxnId};
use crate::rng::Rng;

/// Somebody, or something under way, that can do a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// A worker's coordinator takes its next event.
    Coordinator(usize),
    /// A worker's committer does its next request.
    Committer(usize),
    /// An executor obeys its next command, or reads a few records.
    Executor(usize, usize),
    /// A helper task's request is carried out.
    Task(u64),
    /// A marker is written.
    Marker(TxnId, Target),
    /// A request arrives whose sender has given it up.
    Orphan(u64),
    /// An assignment arrives.
    Letter(u64),
    /// Time passes.
    Clock,
    /// Somebody produces input.
    Source,
}

/// The seed's way to choose.
#[derive(Debug)]
pub struct Schedule {
    by_priority: bool,
    change: f64,
    priorities: BTreeMap<Key, f64>,
    last: Option<Actor>,
    burst: f64,
}

/// What has a priority of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Seat(usize),
    Actor(Actor),
    Markers,
}

impl Schedule {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let by_priority = rng.chance(0.6);
        Self {
            by_priority,
            change: *rng.pick(&[0.02, 0.06, 0.15]),
            priorities: BTreeMap::new(),
            last: None,
            burst: *rng.pick(&[0.0, 0.5, 0.8]),
        }
    }
}

impl World {
    /// Everybody who can act.
    pub fn actors(&self) -> Vec<Actor> {
        let mut all = Vec::with_capacity(32);
        for (number, seat) in self.seats.iter().enumerate() {
            let Some(process) = seat.process.as_ref().filter(|_| seat.stalled == 0) else { continue };
            if process.can_coordinate(self.now) {
                all.push(Actor::Coordinator(number));
            }
            if process.can_commit(&self.log, self.now) {
                all.push(Actor::Committer(number));
            }
            let executors = (0..process.executors.len()).filter(|e| process.can_execute(*e, &self.log));
            all.extend(executors.map(|e| Actor::Executor(number, e)));
        }
        let awake = |seat: usize| self.seats[seat].stalled == 0;
        all.extend(self.tasks.iter().filter(|(_, task)| awake(task.seat) && self.can_answer(task)).map(|(id, _)| Actor::Task(*id)));
        if !self.markers_held {
            all.extend(self.markers().into_iter().map(|(txn, target)| Actor::Marker(txn, target)));
        }
        all.extend(self.orphans.keys().map(|id| Actor::Orphan(*id)));
        let mut receivers = Vec::new();
        for (id, (seat, _)) in &self.letters {
            if awake(*seat) && !receivers.contains(seat) {
                receivers.push(*seat);
                all.push(Actor::Letter(*id));
            }
        }
        if self.records_later > 0 {
            all.push(Actor::Source);
        }
        all
    }

    pub(super) fn choose(&mut self) -> Option<Actor> {
        let all = self.actors();
        if all.is_empty() || self.rng.chance(0.08) {
            return Some(Actor::Clock);
        }
        if self.healed {
            // Fair: nobody waits for ever.
            return Some(*self.rng.pick(&all));
        }
        let chosen = if self.schedule.by_priority { self.by_priority(&all) } else { self.in_bursts(&all) };
        self.schedule.last = Some(chosen);
        Some(chosen)
    }

    fn in_bursts(&mut self, all: &[Actor]) -> Actor {
        match self.schedule.last {
            Some(last) if all.contains(&last) && self.rng.chance(self.schedule.burst) => last,
            _ => *self.rng.pick(all),
        }
    }

    fn by_priority(&mut self, all: &[Actor]) -> Actor {
        // A little chance for everybody, or a low priority would be a stall without end.
        if self.rng.chance(0.05) {
            return *self.rng.pick(all);
        }
        if self.rng.chance(self.schedule.change) {
            let whom = *self.rng.pick(all);
            let (seat, actor) = self.keys(whom);
            let key = if self.rng.chance(0.5) { seat } else { actor };
            let priority = self.rng.unit();
            self.schedule.priorities.insert(key, priority);
        }
        let mut best = (f64::MIN, all[0]);
        for actor in all {
            let (seat, own) = self.keys(*actor);
            let rng = &mut self.rng;
            let seat = *self.schedule.priorities.entry(seat).or_insert_with(|| rng.unit());
            let own = *self.schedule.priorities.entry(own).or_insert_with(|| rng.unit());
            let priority = 0.6 * seat + 0.4 * own;
            if priority > best.0 {
                best = (priority, *actor);
            }
        }
        best.1
    }

    fn keys(&self, actor: Actor) -> (Key, Key) {
        let seat = match actor {
            Actor::Coordinator(seat) | Actor::Committer(seat) | Actor::Executor(seat, _) => Key::Seat(seat),
            Actor::Task(id) => Key::Seat(self.tasks[&id].seat),
            Actor::Letter(id) => Key::Seat(self.letters[&id].0),
            Actor::Marker(..) => return (Key::Markers, Key::Markers),
            Actor::Orphan(_) | Actor::Clock | Actor::Source => Key::Actor(actor),
        };
        (seat, Key::Actor(actor))
    }
}
