//! Checks of the invariants I1 to I9 (design.md section 9). It watches what the log and the store do, epoch by epoch, and compares it with the
//! model; it knows nothing of what the workers believe.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use forebay_engine::changes::Changes;
use forebay_engine::ids::{Epoch, Incarnation, JournalOffset, Offset, Partition, ShardId, Timestamp};
use forebay_engine::journal::{Assembler, JournalRecord, Stamp};
use forebay_engine::log::JournalEntry;
use forebay_engine::manifest::{Manifest, RetainedCheckpoint, manifest_key};
use forebay_engine::state::StateError;

use crate::log::{OutputBody, SimLog, Target, TxnId};
use crate::model::{Expected, Model, digest_of};
use crate::pipeline::DEAD_LETTERS;
use crate::store::SimStore;

mod end;
mod snapshots;

/// What must always hold; the last two are the simulator's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Every committed record has its outputs exactly once, no other has any.
    I1ExactlyOnce,
    /// State at an epoch is what the committed epochs up to it made of it.
    I2State,
    /// Outputs of one key are in the order of its inputs.
    I3Order,
    /// Two owners' epochs never interleave.
    I4Owners,
    /// A snapshot exists only for a committed epoch, and never changes.
    I5Snapshots,
    /// Nothing that a retained checkpoint or a savepoint needs is deleted.
    I6Garbage,
    /// Nothing committed is recomputed; the clock never goes back.
    I7Clock,
    /// The books balance.
    I8Books,
    /// Memory is bounded.
    I9Memory,
    /// Once all is healed, the job gets on.
    Progress,
    /// An assertion of the engine failed.
    Assertion,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.what)
    }
}

#[derive(Debug, Default)]
struct Truth {
    model: Model,
    positions: BTreeMap<Partition, u64>,
    /// Stamp and state digest of each committed epoch, from epoch 1.
    epochs: Vec<(Stamp, u64)>,
    /// The state as the journal's changes make it.
    journal_state: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Its digest.
    journal_digest: u64,
    /// Where each incarnation's last committed claim lies.
    claims: BTreeMap<Incarnation, JournalOffset>,
    /// The claim of whoever committed the last epoch.
    owner: Option<(Incarnation, JournalOffset)>,
}

impl Truth {
    /// Applies an epoch's changes to what the journal made so far.
    fn follow(&mut self, changes: &Changes) -> Result<(), StateError> {
        let batch = changes.resolve(|key, into| {
            let old = self.journal_state.get(key);
            into.extend_from_slice(old.map_or(&[], Vec::as_slice));
            Ok(old.is_some())
        })?;
        for (key, value) in batch.iter() {
            let old = match value {
                Some(value) => self.journal_state.insert(key.to_vec(), value.to_vec()),
                None => self.journal_state.remove(key),
            };
            let digest = |value: Option<&[u8]>| value.map_or(0, |value| digest_of(key, value));
            self.journal_digest = self.journal_digest.wrapping_sub(digest(old.as_deref())).wrapping_add(digest(value));
        }
        Ok(())
    }

    fn retained(&self) -> &[RetainedCheckpoint] {
        self.epochs.last().map_or(&[], |(stamp, _)| &stamp.retained)
    }
}

/// The watcher.
#[derive(Debug)]
pub struct Oracle {
    shards: Vec<Truth>,
    checkpoints_retained: usize,
    manifests: BTreeMap<String, Manifest>,
    /// Everything that a committed epoch named as garbage.
    garbage: BTreeSet<String>,
    /// The manifests of savepoints, by their names.
    savepoints: BTreeMap<String, Manifest>,
    /// Objects that a fault took away.
    lost: BTreeSet<String>,
    violations: Vec<Violation>,
}

impl Oracle {
    /// For a job that has done nothing yet.
    pub fn new(shards: u32, checkpoints_retained: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Truth::default()).collect(),
            checkpoints_retained,
            manifests: BTreeMap::new(),
            garbage: BTreeSet::new(),
            savepoints: BTreeMap::new(),
            lost: BTreeSet::new(),
            violations: Vec::new(),
        }
    }

    /// What went wrong so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Notes a violation.
    pub fn report(&mut self, invariant: Invariant, what: impl Into<String>) {
        self.violations.push(Violation { invariant, what: what.into() });
    }

    fn demand(&mut self, holds: bool, invariant: Invariant, what: impl FnOnce() -> String) {
        if !holds {
            self.report(invariant, what());
        }
    }

    /// A fault took an object away: it is not missed.
    pub fn lose(&mut self, key: &str) {
        self.lost.insert(key.to_owned());
    }

    /// The object that holds the file that is no table, of a checkpoint.
    pub fn database_manifest(&self, key: &str) -> Option<String> {
        self.manifests.get(key)?.files.iter().find(|file| !file.immutable).map(|file| file.object.clone())
    }

    /// The last committed epoch of a shard.
    pub fn head(&self, shard: ShardId) -> Option<&Stamp> {
        self.shards[shard.get() as usize].epochs.last().map(|(stamp, _)| stamp)
    }

    /// Committed epochs of all shards.
    pub fn epochs(&self) -> usize {
        self.shards.iter().map(|truth| truth.epochs.len()).sum()
    }

    /// A transaction was decided to commit.
    pub fn committed(&mut self, txn: TxnId, log: &SimLog, store: &SimStore) {
        let mut outputs: BTreeMap<Partition, [Vec<OutputBody>; 2]> = BTreeMap::new();
        let mut journals = Vec::new();
        for target in log.touched(txn) {
            match target {
                Target::Output(output, partition) => {
                    let bodies = log.outputs[&(output, partition)].of(txn).map(|(_, body)| body.clone()).collect();
                    outputs.entry(partition).or_default()[usize::from(output == DEAD_LETTERS)] = bodies;
                }
                Target::Journal(shard) => journals.push(shard),
                Target::Group => {}
            }
        }
        let mut offsets: BTreeMap<Partition, Offset> = log.txn(txn).offsets.iter().map(|p| (p.partition, p.next)).collect();
        for shard in journals {
            let mut assembler = Assembler::default();
            for (offset, bytes) in log.journals[shard.get() as usize].of(txn) {
                let offset = JournalOffset::new(offset);
                match assembler.push(&JournalEntry { offset, bytes: bytes.clone() }) {
                    Ok(Some(JournalRecord::Claim(owner))) => {
                        self.shards[shard.get() as usize].claims.insert(owner.incarnation, offset);
                    }
                    Ok(Some(JournalRecord::Epoch(stamp, changes))) => {
                        for position in &stamp.positions {
                            let committed = offsets.remove(&position.partition);
                            self.demand(committed == Some(position.next), Invariant::I1ExactlyOnce, || {
                                format!(
                                    "epoch {} of shard {shard}: the group's offset is {committed:?}, the epoch's {position:?}",
                                    stamp.epoch
                                )
                            });
                        }
                        self.epoch(shard, &stamp, &changes, log, &mut outputs);
                        self.list(shard, &stamp, store);
                        self.garbage.extend(stamp.garbage.iter().cloned());
                        self.shards[shard.get() as usize].epochs.last_mut().expect("just added").0 = *stamp;
                    }
                    Ok(Some(JournalRecord::Release(_)) | None) => {}
                    Err(error) => self.report(Invariant::I2State, error.to_string()),
                }
            }
        }
        self.demand(outputs.is_empty() && offsets.is_empty(), Invariant::I1ExactlyOnce, || {
            format!("outputs {outputs:?} or offsets {offsets:?} without an epoch")
        });
    }

    fn epoch(
        &mut self,
        shard: ShardId,
        stamp: &Stamp,
        changes: &Changes,
        log: &SimLog,
        outputs: &mut BTreeMap<Partition, [Vec<OutputBody>; 2]>,
    ) {
        let mut found = Vec::new();
        let truth = &mut self.shards[shard.get() as usize];
        let who = format!("epoch {} of shard {shard} by {}", stamp.epoch, stamp.owner.incarnation);
        let mut demand = |holds: bool, invariant, what: String| {
            if !holds {
                found.push((invariant, format!("{who}: {what}")))
            }
        };
        let last = truth.epochs.len() as u64;
        demand(stamp.epoch == Epoch::new(last + 1), Invariant::I4Owners, format!("the last one was {last}"));
        let claim = truth.claims.get(&stamp.owner.incarnation).copied();
        let stands = match (&truth.owner, claim) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some((owner, floor)), Some(claim)) => claim > *floor || (*owner == stamp.owner.incarnation && claim == *floor),
        };
        demand(stands, Invariant::I4Owners, format!("its claim lies at {claim:?}, the last owner is {:?}", truth.owner));
        truth.owner = claim.map(|claim| (stamp.owner.incarnation.clone(), claim));
        let clock = truth.epochs.last().map_or(Timestamp::default(), |(stamp, _)| stamp.clock);
        demand(stamp.clock >= clock, Invariant::I7Clock, format!("its clock {:?} lies before {clock:?}", stamp.clock));
        for position in &stamp.positions {
            let (partition, next) = (position.partition, position.next.get());
            let from = truth.positions.insert(partition, next).unwrap_or(0);
            let input = &log.inputs[partition.get() as usize];
            demand(
                from <= next && next <= input.len() as u64,
                Invariant::I7Clock,
                format!("partition {partition} goes from {from} to {next} of {}", input.len()),
            );
            let mut expected = Vec::new();
            for (offset, record) in
                input.iter().zip(0u64..).map(|(record, offset)| (offset, record)).take(next as usize).skip(from as usize)
            {
                if let Some(record) = record {
                    truth.model.apply(partition, offset, record, &mut expected);
                }
            }
            let actual = outputs.remove(&partition).unwrap_or_default();
            if let Err((invariant, what)) = compare(&expected, &actual, stamp.clock) {
                demand(false, invariant, format!("partition {partition}, {from} to {next}: {what}"));
            }
        }
        demand(
            stamp.books == truth.model.books && stamp.books.balance(),
            Invariant::I8Books,
            format!("{:?} instead of {:?}", stamp.books, truth.model.books),
        );
        if let Err(error) = truth.follow(changes) {
            demand(false, Invariant::I2State, error.to_string());
        }
        let digest = truth.journal_digest;
        demand(digest == truth.model.digest, Invariant::I2State, "the journal's changes do not give the model's state".into());
        // The stamp's list is put in by the caller, once it was compared with the one before.
        let before = truth.retained().to_vec();
        truth.epochs.push((Stamp { retained: before, ..stamp.clone() }, digest));
        found.into_iter().for_each(|(invariant, what)| self.report(invariant, what));
    }

    /// The list of retained checkpoints: only whole checkpoints of committed epochs join it, at its end; it is shortened at its beginning.
    fn list(&mut self, shard: ShardId, stamp: &Stamp, store: &SimStore) {
        let truth = &self.shards[shard.get() as usize];
        let (old, new) = (truth.retained(), &stamp.retained);
        let kept = new.iter().filter(|checkpoint| old.contains(checkpoint)).count();
        let ordered = old[old.len() - kept.min(old.len())..] == new[..kept] && new.windows(2).all(|pair| pair[0].journal < pair[1].journal);
        let bounded = new.len() <= self.checkpoints_retained.max(old.len()) && new.len() >= old.len().min(self.checkpoints_retained);
        let (old, new) = (format!("{old:?}"), new.clone());
        self.demand(ordered && bounded, Invariant::I6Garbage, || {
            format!("shard {shard}, epoch {}: the list goes from {old} to {new:?}", stamp.epoch)
        });
        for checkpoint in new {
            let key = manifest_key(shard, checkpoint.epoch, &checkpoint.incarnation);
            let files = self.manifests.get(&key).map(|manifest| manifest.files.iter().map(|file| file.object.clone()).collect::<Vec<_>>());
            let missing = files
                .map_or(vec![key.clone()], |files| files.into_iter().chain([key.clone()]).filter(|key| store.get(key).is_none()).collect());
            let missing: Vec<_> = missing.into_iter().filter(|key| !self.lost.contains(key)).collect();
            self.demand(missing.is_empty(), Invariant::I6Garbage, || {
                format!("shard {shard}, epoch {}: listed, but not there: {missing:?}", stamp.epoch)
            });
        }
    }

    /// A journal is cut.
    pub fn cut(&mut self, shard: ShardId, before: JournalOffset) {
        let retained = self.shards[shard.get() as usize].retained().to_vec();
        let allowed = retained.len() >= 2 && before <= retained[0].journal;
        self.demand(allowed, Invariant::I6Garbage, || {
            format!("the journal of shard {shard} is cut before {before} while the list is {retained:?}")
        });
    }

    /// A shard was restored: what its database holds.
    pub fn restored(&mut self, shard: ShardId, held: Option<(Stamp, u64)>) {
        let Some((stamp, digest)) = held else { return };
        let known = stamp.epoch.get().checked_sub(1).and_then(|at| self.shards[shard.get() as usize].epochs.get(at as usize));
        let holds = known.is_some_and(|known| *known == (stamp.clone(), digest));
        self.demand(holds, Invariant::I2State, || format!("shard {shard} is restored to a state of {stamp:?} that never was"));
    }

    /// An owner begins to process: it must stand at the end of what was committed.
    pub fn started(&mut self, shard: ShardId, stamp: Option<&Stamp>) {
        let head = self.head(shard).cloned();
        self.demand(head.as_ref() == stamp, Invariant::I4Owners, || {
            format!("shard {shard} starts from {stamp:?}, but {head:?} is committed")
        });
    }
}

fn compare(expected: &[Expected], actual: &[Vec<OutputBody>; 2], clock: Timestamp) -> Result<(), (Invariant, String)> {
    for (dead, bodies) in [false, true].into_iter().zip(actual) {
        let wanted: Vec<&OutputBody> = expected.iter().filter(|e| e.dead == dead).map(|e| &e.body).collect();
        let mut stripped = Vec::with_capacity(bodies.len());
        for body in bodies {
            let mut body = body.clone();
            if let Some(value) = &mut body.value {
                let at = value.split_off(value.len() - 8);
                if at != clock.as_millis().to_be_bytes() {
                    return Err((Invariant::I7Clock, format!("an output's clock {at:?} is not the epoch's {clock:?}")));
                }
            }
            stripped.push(body);
        }
        if stripped.iter().eq(wanted.iter().copied()) {
            continue;
        }
        let sorted = |mut all: Vec<&OutputBody>| {
            all.sort_by(|a, b| (&a.key, &a.value).cmp(&(&b.key, &b.value)));
            all.into_iter().cloned().collect::<Vec<_>>()
        };
        let same_set = sorted(wanted.clone()) == sorted(stripped.iter().collect());
        let invariant = if same_set { Invariant::I3Order } else { Invariant::I1ExactlyOnce };
        return Err((invariant, format!("{} outputs {stripped:?} instead of {wanted:?}", if dead { "dead-letter" } else { "result" })));
    }
    Ok(())
}
