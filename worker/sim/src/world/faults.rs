//! What goes wrong, when nothing else is asked for: a little of everything at random, and the seed's own aim again and again.

use forebay_engine::ids::{Incarnation, Partition, ShardId, Timestamp};
use forebay_engine::manifest::manifest_key;

use super::calls::label;
use super::{Orphan, World};
use crate::coverage::Fault;
use crate::log::InputBody;
use crate::oracle::Invariant;

/// How requests go wrong that change nothing,
pub(super) const OF_READS: &[Fault] = &[Fault::Lost, Fault::Slow];
/// that change something,
pub(super) const OF_WRITES: &[Fault] = &[Fault::Lost, Fault::ReplyLost, Fault::Late, Fault::Twice, Fault::Slow];
/// and those of a producer, of which the broker takes each once, by its sequence number.
pub(super) const OF_PRODUCERS: &[Fault] = &[Fault::Lost, Fault::ReplyLost, Fault::Late, Fault::Slow];

impl World {
    /// Perhaps something goes wrong.
    pub(super) fn maybe_fault(&mut self) {
        // A scenario's hold has no end.
        for seat in self.seats.iter_mut().filter(|seat| seat.stalled < usize::MAX) {
            seat.stalled = seat.stalled.saturating_sub(1);
        }
        if let Some((phase, fault)) = self.setup.directed {
            self.aim(phase, fault);
        }
        if !self.rng.chance(self.setup.faults) {
            return;
        }
        let seat = self.rng.below(self.seats.len());
        if self.seats[seat].process.is_none() {
            return self.start(seat);
        }
        if self.seats[seat].process.as_ref().is_some_and(|process| process.stopped) {
            self.coverage.situation("a worker stops in good order");
            self.crash(seat, false);
            return self.start(seat);
        }
        match self.rng.below(21) {
            0 | 1 => self.crash(seat, false),
            2 => self.crash(seat, true),
            3..=6 => self.stall(seat),
            7..=10 if !self.setup.above_all => self.assign_some(),
            11 => self.stop(seat),
            12 => self.fail_apply(seat),
            13 => self.poison(seat),
            14 => self.store_down = !self.store_down,
            15 => self.damage(),
            16 | 17 => self.time_out_transactions(0.3),
            18 if self.rng.chance(0.5) => self.refuse_or_take(),
            18 => self.delete_used_input(),
            19 => self.savepoint(seat),
            _ => self.now += [500, 5_000, 60_000][self.rng.below(3)],
        }
    }

    fn aim(&mut self, phase: &'static str, fault: Fault) {
        // Restores from the store need a disk that is gone.
        if phase.starts_with("restore-") && self.rng.chance(0.012) {
            let seat = self.rng.below(self.seats.len());
            self.crash(seat, true);
        }
        if phase.starts_with("savepoint-") && self.rng.chance(0.02) {
            let seat = self.rng.below(self.seats.len());
            self.savepoint(seat);
        }
        let hit: Vec<usize> = (0..self.seats.len()).filter(|seat| self.phases(*seat).contains(&phase)).collect();
        // Of a store that is away little else is at work, and a restore's downloads are soon over.
        let chance = if fault == Fault::StoreDown || phase == "restore-download" { 0.3 } else { 0.06 };
        if hit.is_empty() || !self.rng.chance(chance) {
            return;
        }
        let seat = *self.rng.pick(&hit);
        match fault {
            Fault::Crash => self.crash(seat, false),
            Fault::Wipe => self.crash(seat, true),
            Fault::Stall => self.stall(seat),
            Fault::Move | Fault::Barred if !self.setup.above_all => self.assign_some(),
            // Calls have their faults where they are carried out.
            Fault::Move | Fault::Barred | Fault::Lost | Fault::ReplyLost | Fault::Late | Fault::Twice | Fault::Slow => {}
            // These are counted when they hit.
            Fault::StoreDown => self.store_down = !self.store_down,
            Fault::TimeOut => self.time_out_transactions(1.0),
            Fault::ApplyFails => self.fail_apply(seat),
            Fault::Refused => self.refuse_or_take(),
            Fault::Panic => self.poison(seat),
            Fault::Damaged => self.damage(),
        }
    }

    /// Whether a request goes wrong, and in which of these ways.
    pub(super) fn call_fault(&mut self, seat: usize, label: &'static str, possible: &[Fault]) -> Option<Fault> {
        if self.healed {
            return None;
        }
        if let Some((_, fault)) = self.forced.take_if(|(forced, _)| *forced == label) {
            return Some(fault);
        }
        let aimed = self.setup.directed.filter(|(phase, fault)| *phase == label && possible.contains(fault)).map(|(_, fault)| fault);
        let fault = match aimed {
            Some(fault) if self.rng.chance(0.3) => fault,
            _ if self.rng.chance(self.setup.call_faults) => *self.rng.pick(possible),
            _ => return None,
        };
        self.coverage.fault(label, fault);
        self.note(|world| format!("    {} of {}: {fault:?}", label, world.seats[seat].name));
        Some(fault)
    }

    /// When a request is carried out that takes long: within what whoever waits for markers waits.
    pub(super) fn slow_until(&mut self) -> i64 {
        self.now + [200, 2_000, 10_000][self.rng.below(3)]
    }

    /// The process dies. What it had sent may still arrive.
    pub fn crash(&mut self, seat: usize, wipe: bool) {
        self.cover(seat, if wipe { Fault::Wipe } else { Fault::Crash });
        self.note(|world| format!("    {} crashes{}", world.seats[seat].name, if wipe { ", its disk is gone" } else { "" }));
        let Some(mut process) = self.seats[seat].process.take() else { return };
        let rng = &mut self.rng;
        self.seats[seat].disk.crash(|epochs| rng.below(epochs + 1));
        let ids: Vec<u64> = self.tasks.iter().filter(|(_, task)| task.seat == seat).map(|(id, _)| *id).collect();
        for id in ids {
            let task = self.tasks.remove(&id).expect("just listed");
            if task.pending.writes() && !task.sent && self.rng.chance(0.5) {
                let orphan = self.id();
                self.orphans.insert(orphan, Orphan::Call(task.shard, task.pending.clone()));
            }
            self.pool.kill(task.link);
        }
        if let Some((incarnation, epoch, txn, part)) = process.committer.last_words()
            && self.rng.chance(0.5)
        {
            let orphan = self.id();
            self.orphans.insert(orphan, Orphan::Producer(incarnation, epoch, txn, part));
        }
        self.seats[seat].stalled = 0;
        if wipe {
            self.seats[seat].disk.wipe();
            self.seats[seat].kept = None;
        }
    }

    /// The process stands still for long.
    pub fn stall(&mut self, seat: usize) {
        self.cover(seat, Fault::Stall);
        self.note(|world| format!("    {} stands still", world.seats[seat].name));
        self.seats[seat].stalled = 20 + self.rng.below(300);
    }

    fn refuse_or_take(&mut self) {
        let partition = Partition::new(self.rng.below(self.log.inputs.len()) as u32);
        self.refuse(if self.refusing.is_some() { None } else { Some(partition) });
    }

    /// From now on the log takes no outputs for this partition.
    pub fn refuse(&mut self, partition: Option<Partition>) {
        self.note(|_| format!("    the log refuses the outputs of partition {partition:?}"));
        self.refusing = partition;
    }

    fn fail_apply(&mut self, seat: usize) {
        let shard = ShardId::new(self.rng.below(self.setup.shards as usize) as u32);
        self.seats[seat].disk.fail_apply(shard);
    }

    fn poison(&mut self, seat: usize) {
        let shard = ShardId::new(self.rng.below(self.setup.shards as usize) as u32);
        if let Some(process) = &mut self.seats[seat].process {
            process.executor(shard).poison = Some(shard);
        }
    }

    /// A savepoint of some shard is asked for, and this worker's machine makes it.
    fn savepoint(&mut self, seat: usize) {
        if self.seats[seat].process.is_some() {
            let shard = ShardId::new(self.rng.below(self.setup.shards as usize) as u32);
            self.take_savepoint(seat, shard);
        }
    }

    /// Retention: the inputs lose what lies before the group's offsets, which no owner needs any more.
    fn delete_used_input(&mut self) {
        self.coverage.situation("the inputs are cut before the committed offsets");
        for (partition, next) in &self.log.group {
            self.log.input_starts[partition.get() as usize] = next.get();
        }
    }

    /// The newest checkpoint of a shard is damaged; once per shard, so that one is always left.
    fn damage(&mut self) {
        let shard = ShardId::new(self.rng.below(self.setup.shards as usize) as u32);
        self.damage_of(shard);
    }

    pub(super) fn damage_of(&mut self, shard: ShardId) {
        if self.damaged.contains(&shard) {
            return;
        }
        let Some(newest) = self.oracle.head(shard).filter(|head| head.retained.len() >= 2).and_then(|head| head.retained.last().cloned())
        else {
            return;
        };
        let key = manifest_key(shard, newest.epoch, &newest.incarnation);
        // The file that is never reused: damage that spreads to later checkpoints is not survivable by anybody.
        let Some(object) = self.oracle.database_manifest(&key) else { return };
        self.damaged.insert(shard);
        let torn = self.rng.chance(0.5);
        self.store.damage(&object, torn);
    }

    /// The coordinator of transactions gives up on some that are open, as after `transaction.timeout.ms`.
    pub(super) fn time_out_transactions(&mut self, share: f64) {
        let open: Vec<_> = self.log.open().map(|(txn, owner)| (txn, owner.clone())).collect();
        for (txn, owner) in open {
            if self.rng.chance(share) {
                self.coverage.situation("a transaction times out");
                if let Some(seat) = self.seat_of(&owner) {
                    self.cover(seat, Fault::TimeOut);
                }
                self.log.time_out(txn);
            }
        }
    }

    /// Phases that a seat's process is in.
    pub fn phases(&self, seat: usize) -> Vec<&'static str> {
        let Some(process) = &self.seats[seat].process else { return Vec::new() };
        let shards = self.shards().into_iter().filter_map(|shard| process.worker.phase(shard));
        let tasks = self.tasks.values().filter(|task| task.seat == seat).map(label);
        let part = process.committer.next_part().map(super::commit::Part::name);
        shards.chain(tasks).chain(part).chain([process.worker.round_phase()]).collect()
    }

    /// Counts a fault for everything that the seat is at.
    pub(super) fn cover(&mut self, seat: usize, fault: Fault) {
        for phase in self.phases(seat) {
            self.coverage.fault(phase, fault);
        }
    }

    /// Time passes.
    pub(super) fn advance(&mut self) {
        self.now += [1, 10, 50, 120][self.rng.below(4)];
        // A dead owner's transactions end by their time-out, sooner or later.
        if self.healed {
            let dead: Vec<_> = self.log.open().filter(|(_, owner)| self.seat_of(owner).is_none()).map(|(txn, _)| txn).collect();
            dead.into_iter().for_each(|txn| self.log.time_out(txn));
        }
    }

    /// Who is this incarnation now.
    pub(super) fn seat_of(&self, incarnation: &Incarnation) -> Option<usize> {
        let is_it = |seat: &super::Seat| seat.process.as_ref().is_some_and(|process| process.committer.incarnation() == Some(incarnation));
        self.seats.iter().position(is_it)
    }

    /// Somebody produces a record, or leaves a gap as transactions do.
    pub(super) fn produce_record(&mut self) {
        let hot = self.rng.chance(self.setup.skew);
        let partition = if hot { 0 } else { self.rng.below(self.log.inputs.len()) };
        if self.rng.chance(0.15) {
            return self.log.inputs[partition].push(None);
        }
        // One in ten repeats the last id, which makes a duplicate if the key is the same.
        self.records_made += u64::from(self.rng.chance(0.9));
        let number = if hot { 0 } else { self.rng.below(6) as u8 };
        let key = if self.rng.chance(0.05) { None } else { Some(vec![b'k', number]) };
        let fate = *self.rng.pick(b"ccccccccfr-t");
        let padding = if self.rng.chance(0.2) { self.rng.below(self.setup.padding_max + 1) } else { 0 };
        let value = [&[fate][..], &self.records_made.to_be_bytes(), &vec![b'.'; padding]].concat();
        let record = InputBody { key, value: Some(value), timestamp: Timestamp::from_millis(self.now) };
        let twice = self.rng.chance(0.1);
        self.log.inputs[partition].push(Some(record.clone()));
        if twice {
            self.log.inputs[partition].push(Some(record));
        }
    }

    pub(super) fn produce_later(&mut self) {
        if self.records_later > 0 {
            self.records_later -= 1;
            self.produce_record();
        }
    }

    /// Notes that the run did not get anywhere.
    pub(super) fn no_progress(&mut self, what: String) {
        self.oracle.report(Invariant::Progress, what);
    }
}
