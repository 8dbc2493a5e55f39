//! The end of a run: all is healed, one assignment wins, the input is worked off, everybody stops, everything is checked.

use forebay_engine::ids::Partition;

use super::World;
use crate::oracle::Violation;

/// Steps in which a healed job works off what is left; a run needs a tenth of that.
const STEPS_TO_CATCH_UP: usize = 40_000;

impl World {
    /// Heals, works off, stops, checks.
    pub fn finish(&mut self) -> Result<(), Violation> {
        self.heal();
        let mut steps = 0;
        while !self.is_caught_up() {
            steps += 1;
            if steps > STEPS_TO_CATCH_UP {
                let stuck = self.describe();
                self.no_progress(format!("after {steps} steps the job has not caught up: {stuck}"));
            }
            self.step()?;
        }
        (0..self.seats.len()).for_each(|seat| self.stop(seat));
        while !self.seats.iter().all(|seat| seat.process.as_ref().is_none_or(|process| process.stopped)) {
            steps += 1;
            if steps > 2 * STEPS_TO_CATCH_UP {
                let stuck = self.describe();
                self.no_progress(format!("workers do not stop: {stuck}"));
            }
            self.step()?;
        }
        while !self.markers().is_empty() || !self.orphans.is_empty() || !self.tasks.is_empty() {
            self.step()?;
        }
        self.oracle.at_the_end(&self.log, &self.store);
        self.verdict()
    }

    fn heal(&mut self) {
        self.note(|_| "    all is healed".into());
        self.healed = true;
        self.store_down = false;
        (self.refusing, self.offline) = (None, None);
        self.hanging.clear();
        self.letters.clear();
        self.tasks.values_mut().for_each(|task| task.slow_until = 0);
        for seat in 0..self.seats.len() {
            self.seats[seat].stalled = 0;
            if let Some(process) = &mut self.seats[seat].process {
                process.committer.slow_until = 0;
            }
            if self.seats[seat].process.as_ref().is_some_and(|process| process.stopping) {
                self.crash(seat, false);
            }
            if self.seats[seat].process.is_none() && (seat == 0 || self.rng.chance(0.7)) {
                self.seats[seat].kept = None;
                self.start(seat);
            }
        }
        if self.setup.above_all {
            // Without an operator a loser stays away until somebody starts it anew. All start at once, and of each shard exactly one must be owner
            // in the end.
            (0..self.seats.len()).for_each(|seat| self.crash(seat, false));
            self.letters.clear();
            (0..self.seats.len()).for_each(|seat| self.start(seat));
        }
        self.assign_all();
    }

    fn is_caught_up(&self) -> bool {
        let owned = self.shards().into_iter().all(|shard| self.owners(shard) == 1);
        self.letters.is_empty() && self.records_later == 0 && self.is_worked_off() && owned
    }

    /// Whether every record that is there is committed.
    pub fn is_worked_off(&self) -> bool {
        (0..self.log.inputs.len()).all(|partition| self.is_partition_worked_off(Partition::new(partition as u32)))
    }

    /// The same of one partition.
    pub fn is_partition_worked_off(&self, partition: Partition) -> bool {
        let group = self.log.group.get(&partition).map_or(0, |offset| offset.get() as usize);
        self.log.inputs[partition.get() as usize].iter().skip(group).all(Option::is_none)
    }

    fn owners(&self, shard: forebay_engine::ids::ShardId) -> usize {
        let runs = |seat: &&super::Seat| seat.process.as_ref().is_some_and(|process| process.worker.phase(shard) == Some("running"));
        self.seats.iter().filter(runs).count()
    }

    fn describe(&self) -> String {
        let seat = |number: usize| format!("{}: {:?}", self.seats[number].name, self.phases(number));
        let seats: Vec<String> = (0..self.seats.len()).map(seat).collect();
        format!("{}; actors {:?}", seats.join("; "), self.actors())
    }
}
