//! Levers for scenarios: a world in which nothing goes wrong but what the scenario asks for.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_engine::claim::VersionRule;
use forebay_engine::ids::{AssignmentVersion, JournalOffset, ShardId};

use super::{Letter, Setup, World};
use crate::coverage::Fault;
use crate::oracle::Violation;

/// Steps after which something that a scenario waits for will not come any more.
const PATIENCE: usize = 20_000;

impl Setup {
    /// Two workers, one shard, a steady input, a checkpoint at every other epoch; no faults.
    pub fn quiet() -> Self {
        Self {
            workers: 2,
            shards: 1,
            partitions: 1,
            records: 10,
            records_later: 0,
            steps: 0,
            checkpoints_retained: 2,
            checkpoint_epochs: 2,
            grace: Duration::from_millis(100),
            heartbeat: Duration::from_secs(3600),
            epoch_bytes_max: 900,
            cache_bytes_max: 600,
            call_faults: 0.0,
            faults: 0.0,
            above_all: false,
            directed: None,
        }
    }
}

impl World {
    /// Steps on until something holds. Panics when it never does, or when an invariant breaks.
    pub fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) {
        for _ in 0..PATIENCE {
            if holds(self) {
                return;
            }
            self.step().unwrap_or_else(|violation| panic!("while waiting until {what}: {violation}"));
        }
        panic!("never: {what}; {:?}", (0..self.seats.len()).map(|seat| self.phases(seat)).collect::<Vec<_>>());
    }

    /// More input, then steps until all of it is committed.
    pub fn work_off(&mut self, records: usize) {
        for _ in 0..records {
            self.produce_record();
        }
        self.until("the input is worked off", World::is_worked_off);
    }

    /// More input.
    pub fn produce(&mut self, records: usize) {
        (0..records).for_each(|_| self.produce_record());
    }

    /// All shards are one worker's, and only it is told.
    pub fn assign(&mut self, seat: usize, version: AssignmentVersion) {
        let shards = self.shards();
        self.send(seat, Letter { rule: VersionRule::Exactly(version), shards });
    }

    /// No shard is this worker's any more.
    pub fn unassign(&mut self, seat: usize, version: AssignmentVersion) {
        self.send(seat, Letter { rule: VersionRule::Exactly(version), shards: BTreeSet::new() });
    }

    /// A worker stands still until it is woken.
    pub fn hold(&mut self, seat: usize) {
        self.seats[seat].stalled = usize::MAX;
    }

    /// It goes on.
    pub fn wake(&mut self, seat: usize) {
        self.seats[seat].stalled = 0;
    }

    /// The next request of this kind goes wrong in this way.
    pub fn force(&mut self, label: &'static str, fault: Fault) {
        self.forced = Some((label, fault));
    }

    /// Whether the forced fault has not happened yet.
    pub fn is_forced(&self) -> bool {
        self.forced.is_some()
    }

    /// The object store goes down, or comes back.
    pub fn set_store_down(&mut self, down: bool) {
        self.store_down = down;
    }

    /// The newest checkpoint of a shard is damaged.
    pub fn damage_newest(&mut self, shard: ShardId) {
        self.damage_of(shard);
    }

    /// Somebody else cuts a journal.
    pub fn cut_by_hand(&mut self, shard: ShardId, before: JournalOffset) {
        self.log.journals[shard.get() as usize].cut(before.get());
    }

    /// Whether a seat runs a shard.
    pub fn runs(&self, seat: usize, shard: ShardId) -> bool {
        self.seats[seat].process.as_ref().is_some_and(|process| process.worker.phase(shard) == Some("running"))
    }

    /// Whether a seat is in a phase.
    pub fn is_at(&self, seat: usize, phase: &str) -> bool {
        self.phases(seat).contains(&phase)
    }

    /// A panicking step: the next record that a shard of this worker reads.
    pub fn poison_shard(&mut self, seat: usize, shard: ShardId) {
        if let Some(process) = &mut self.seats[seat].process {
            process.executor(shard).poison = Some(shard);
        }
    }

    /// A worker's committer hangs in its request, or goes on.
    pub fn delay_commits(&mut self, seat: usize, delay: bool) {
        if let Some(process) = &mut self.seats[seat].process {
            process.committer.hangs = delay;
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        self.now += time.as_millis() as i64;
    }

    /// Open transactions time out.
    pub fn time_out(&mut self) {
        self.time_out_transactions(1.1);
    }

    /// Heals and checks everything.
    pub fn end(&mut self) {
        self.finish().unwrap_or_else(|violation: Violation| panic!("{violation}"));
    }
}
