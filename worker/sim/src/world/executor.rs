//! An executor: owns shards, reads their inputs, processes, seals, applies. As in production, whatever goes wrong with one shard ends this shard's
//! attempt and nothing else; but here an assertion of the engine is a finding.

use std::collections::{BTreeMap, VecDeque};

use forebay_engine::failure::Failure;
use forebay_engine::ids::{Epoch, Incarnation, InputId, JournalOffset, Offset, Partition, ShardId, Timestamp};
use forebay_engine::journal::Owner;
use forebay_engine::log::InputPosition;
use forebay_engine::record::InputRecord;
use forebay_engine::shard::Annotations;
use forebay_engine::worker::{Attempt, Event};

use super::World;
use crate::coverage::Fault;
use crate::log::SimLog;
use crate::mutant::{Mutant, is};
use crate::oracle::Invariant;
use crate::task::SimShard;

/// A shard with more records before it than these is behind.
const BEHIND_RECORDS: usize = 5;

/// What an executor is told.
pub(super) enum Command {
    Adopt(ShardId, Attempt, Box<SimShard>),
    /// With the incarnation that claimed it, if that was still there when the coordinator said so.
    Start(ShardId, Attempt, Option<Incarnation>),
    Seal(ShardId, Attempt, Owner, Annotations),
    Confirm(ShardId, Epoch, JournalOffset),
    Drop(ShardId),
    Close(ShardId),
}

struct Slot {
    attempt: Attempt,
    shard: Box<SimShard>,
    /// Where reading stands, per partition; empty until it is started.
    reader: BTreeMap<Partition, usize>,
    dirty: bool,
    full: bool,
    behind: bool,
    /// The mutant applied the sealed epoch already.
    applied_early: bool,
}

/// The thread that it stands for.
#[derive(Default)]
pub struct Executor {
    pub(super) commands: VecDeque<Command>,
    slots: BTreeMap<ShardId, Slot>,
    /// The next record of this shard makes a step panic.
    pub(super) poison: Option<ShardId>,
}

impl Executor {
    pub(super) fn can_act(&self, log: &SimLog) -> bool {
        let readable = |slot: &Slot| !slot.full && slot.reader.iter().any(|(p, at)| log.has_input(*p, *at));
        !self.commands.is_empty() || self.slots.values().any(readable)
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = (ShardId, &SimShard)> {
        self.slots.iter().map(|(shard, slot)| (*shard, &*slot.shard))
    }

    pub(super) fn slot(&self, shard: ShardId) -> Option<(Attempt, &SimShard)> {
        self.slots.get(&shard).map(|slot| (slot.attempt, &*slot.shard))
    }
}

impl World {
    /// The next command, or a few records.
    pub(super) fn execute(&mut self, seat: usize, number: usize) {
        let Some(process) = &mut self.seats[seat].process else { return };
        match process.executors[number].commands.pop_front() {
            Some(command) => self.obey(seat, number, command),
            None => self.work(seat, number),
        }
    }

    fn obey(&mut self, seat: usize, number: usize, command: Command) {
        let process = self.seats[seat].process.as_mut().expect("it acts");
        let time = process.epoch_time(self.now);
        let executor = &mut process.executors[number];
        match command {
            Command::Adopt(shard, attempt, state) => {
                // The old slot goes first: two handles of one database must not be open at once.
                if is(Mutant::OverlayKept) && executor.slots.contains_key(&shard) {
                    executor.slots.entry(shard).and_modify(|slot| slot.attempt = attempt);
                    return;
                }
                executor.slots.remove(&shard);
                executor.slots.insert(
                    shard,
                    Slot { attempt, shard: state, reader: BTreeMap::new(), dirty: false, full: false, behind: false, applied_early: false },
                );
            }
            Command::Start(shard, attempt, incarnation) => self.begin(seat, number, shard, attempt, incarnation),
            Command::Seal(shard, attempt, owner, annotations) => {
                let Some(slot) = executor.slots.get_mut(&shard).filter(|slot| slot.attempt == attempt) else { return };
                for (partition, at) in &slot.reader {
                    slot.shard.reached(&InputPosition { input: InputId::new(0), partition: *partition, next: Offset::new(*at as u64) });
                }
                let sealed = crate::panics::caught(|| slot.shard.seal(&owner, time, annotations));
                (slot.dirty, slot.full) = (false, false);
                match sealed {
                    Ok(sealed) => {
                        let early = sealed
                            .as_ref()
                            .filter(|_| is(Mutant::SnapshotUncommitted))
                            .map(|sealed| (sealed.epoch, sealed.journal.len() as u64));
                        process.inbox.push_back(Event::Sealed(shard, attempt, sealed));
                        if let Some((epoch, chunks)) = early {
                            slot.applied_early = true;
                            let end = self.log.journal_range(shard).end;
                            let _ = slot.shard.committed(epoch, JournalOffset::new(end.get() + chunks));
                            self.consider_snapshot(seat, shard);
                        }
                    }
                    Err(panic) => self.shard_panicked(seat, number, shard, panic),
                }
            }
            Command::Confirm(shard, epoch, journal) => {
                let Some(slot) = executor.slots.get_mut(&shard) else { return };
                if std::mem::take(&mut slot.applied_early) {
                    return;
                }
                match crate::panics::caught(|| slot.shard.committed(epoch, journal).map(|_| ())) {
                    Ok(Ok(())) => self.consider_snapshot(seat, shard),
                    Ok(Err(error)) => {
                        self.cover(seat, Fault::ApplyFails);
                        self.shard_failed(seat, number, shard, error.into());
                    }
                    Err(panic) => self.shard_panicked(seat, number, shard, panic),
                }
            }
            Command::Drop(_) if is(Mutant::OverlayKept) => {}
            Command::Drop(shard) => {
                executor.slots.remove(&shard);
            }
            Command::Close(shard) => {
                executor.slots.remove(&shard);
            }
        }
    }

    fn begin(&mut self, seat: usize, number: usize, shard: ShardId, attempt: Attempt, incarnation: Option<Incarnation>) {
        let process = self.seats[seat].process.as_mut().expect("it acts");
        let Some(slot) = process.executors[number].slots.get_mut(&shard).filter(|slot| slot.attempt == attempt) else { return };
        slot.reader = slot.shard.positions().iter().map(|position| (position.partition, position.next.get() as usize)).collect();
        let head = Some(slot.shard.head()).filter(|head| head.epoch > Epoch::default());
        // One that was barred in the meantime may be behind: it can do no harm.
        if incarnation.is_some_and(|incarnation| self.log.is_live(&incarnation)) {
            self.oracle.started(shard, head);
        }
    }

    fn work(&mut self, seat: usize, number: usize) {
        let records_max = 1 + self.rng.below(4);
        let epoch_bytes_max = self.setup.epoch_bytes_max;
        let process = self.seats[seat].process.as_mut().expect("it acts");
        let time = process.epoch_time(self.now);
        let executor = &mut process.executors[number];
        let readable = |slot: &Slot| !slot.full && slot.reader.iter().any(|(p, at)| self.log.has_input(*p, *at));
        let ready: Vec<ShardId> = executor.slots.iter().filter(|(_, slot)| readable(slot)).map(|(shard, _)| *shard).collect();
        if ready.is_empty() {
            return;
        }
        let shard = *self.rng.pick(&ready);
        if executor.poison == Some(shard) {
            executor.poison = None;
            self.cover(seat, Fault::Panic);
            return self.shard_failed(seat, number, shard, Failure::Passing("a step panicked".into()));
        }
        let slot = executor.slots.get_mut(&shard).expect("it was just listed");
        let (log, inbox) = (&self.log, &mut process.inbox);
        let outcome = crate::panics::caught(|| read(slot, log, records_max, epoch_bytes_max, time));
        match outcome {
            Ok(Ok(records)) => {
                if records > 0 && !slot.dirty {
                    slot.dirty = true;
                    inbox.push_back(Event::Dirty(shard));
                }
                if slot.shard.open_bytes() >= epoch_bytes_max && !slot.full && !is(Mutant::EpochUnbounded) {
                    slot.full = true;
                    inbox.push_back(Event::Full(shard));
                }
                let left = |(p, at): (&Partition, &usize)| log.inputs[p.get() as usize].len() - at;
                let behind = slot.reader.iter().map(left).sum::<usize>() > BEHIND_RECORDS;
                if behind != slot.behind {
                    slot.behind = behind;
                    inbox.push_back(Event::Behind(shard, slot.attempt, behind));
                }
            }
            Ok(Err(error)) => self.shard_failed(seat, number, shard, error),
            Err(panic) => self.shard_panicked(seat, number, shard, panic),
        }
    }

    fn shard_failed(&mut self, seat: usize, number: usize, shard: ShardId, failure: Failure) {
        let process = self.seats[seat].process.as_mut().expect("it acts");
        if let Some(slot) = process.executors[number].slots.remove(&shard) {
            process.inbox.push_back(Event::ShardFailed(shard, slot.attempt, failure));
        }
    }

    fn shard_panicked(&mut self, seat: usize, number: usize, shard: ShardId, panic: String) {
        self.oracle.report(Invariant::Assertion, format!("shard {shard}: {panic}"));
        self.shard_failed(seat, number, shard, Failure::Passing(panic));
    }
}

fn read(slot: &mut Slot, log: &SimLog, records_max: usize, epoch_bytes_max: usize, time: Timestamp) -> Result<usize, Failure> {
    let mut records = 0;
    for (partition, at) in &mut slot.reader {
        log.look_at_input(*partition, *at)?;
        let input = &log.inputs[partition.get() as usize];
        let has_room = |slot: &SimShard| slot.open_bytes() < epoch_bytes_max || is(Mutant::EpochUnbounded);
        while *at < input.len() && records < records_max && has_room(&slot.shard) {
            let offset = Offset::new(*at as u64);
            *at += 1;
            let Some(body) = &input[*at - 1] else { continue };
            records += 1;
            let (key, value) = (body.key.as_deref(), body.value.as_deref());
            let record =
                InputRecord { input: InputId::new(0), partition: *partition, offset, timestamp: body.timestamp, key, value, headers: &[] };
            slot.shard.process(&record, time)?;
        }
    }
    Ok(records)
}
