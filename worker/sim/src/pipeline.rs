//! The job of the simulation: counts records per key, with every verdict there is, deletions, and records that fail after they changed state.

use forebay_engine::ids::{OutputId, TableId};
use forebay_engine::patch::PatchWriter;
use forebay_engine::pipeline::{Entity, Pipeline, Verdict, Workspace};
use forebay_engine::record::{Destination, InputRecord};
use forebay_engine::state::StateError;

use crate::model::{Fate, fate_of, mix, padding_of};

/// Where results go.
pub const RESULTS: OutputId = OutputId::new(0);
/// Where records go that failed.
pub const DEAD_LETTERS: OutputId = OutputId::new(1);
/// The one table.
pub const TALLIES: TableId = TableId::new(1);

/// What is kept of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records counted.
    pub count: u32,
    /// A hash over all of them, in order.
    pub digest: u64,
    /// The id of the one before the last.
    pub before: u64,
    /// The id of the last one.
    pub last: u64,
}

impl Entity for Tally {
    fn encode(&self, into: &mut Vec<u8>) {
        into.push(1);
        into.extend_from_slice(&self.count.to_be_bytes());
        into.extend_from_slice(&self.digest.to_be_bytes());
        into.extend_from_slice(&self.before.to_be_bytes());
        into.extend_from_slice(&self.last.to_be_bytes());
    }

    /// Mostly the last id moves to the place of the one before: a patch that meets another value than its own makes a wrong one.
    fn encode_patch(&self, old: &Self, patch: &mut PatchWriter<'_>) -> bool {
        patch.copy(1);
        patch.skip(12);
        patch.insert(|into| {
            into.extend_from_slice(&self.count.to_be_bytes());
            into.extend_from_slice(&self.digest.to_be_bytes());
        });
        patch.skip(8);
        if self.before == old.last {
            patch.copy(8);
        } else {
            patch.skip(8);
            patch.insert(|into| into.extend_from_slice(&self.before.to_be_bytes()));
        }
        patch.insert(|into| into.extend_from_slice(&self.last.to_be_bytes()));
        true
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let [1, rest @ ..] = bytes else { return Err("unknown format".into()) };
        let rest: &[u8; 28] = rest.try_into().map_err(|_| format!("{} bytes", rest.len()))?;
        let number = |from: usize| u64::from_be_bytes(rest[from..from + 8].try_into().expect("eight bytes"));
        let count = u32::from_be_bytes(rest[..4].try_into().expect("four bytes"));
        Ok(Self { count, digest: number(4), before: number(12), last: number(20) })
    }

    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

/// The pipeline. Fails on demand.
#[derive(Debug, Default)]
pub struct Counting;

impl Pipeline for Counting {
    type Entity = Tally;

    fn process(&mut self, record: &InputRecord<'_>, workspace: &mut Workspace<'_, Tally>) -> Result<Verdict, StateError> {
        let (now, value) = (workspace.now().as_millis(), record.value.unwrap_or_default());
        let to = |output| Destination { output, partition: Some(record.partition), timestamp: record.timestamp, key: record.key };
        let (fate, id) = fate_of(value);
        let Some(key) = record.key else {
            workspace.outputs().push(to(DEAD_LETTERS), Some(&result(record, 0, 0, now)), &[]);
            return Ok(Verdict::Rejected);
        };
        match fate {
            Fate::Filter => return Ok(Verdict::Filtered),
            Fate::Throttle => return Ok(Verdict::Throttled),
            Fate::Count | Fate::Fail | Fate::Remove => {}
        }
        if workspace.get(TALLIES, key)?.is_some_and(|tally| tally.last == id) {
            return Ok(Verdict::Duplicate);
        }
        let slot = workspace.update(TALLIES, key)?;
        let tally = slot.get_or_insert_default();
        (tally.count, tally.digest) = (tally.count + 1, mix(tally.digest, id));
        (tally.before, tally.last) = (tally.last, id);
        let (count, digest) = (tally.count, tally.digest);
        workspace.outputs().push(to(RESULTS), Some(&result(record, count, digest, now)), &[]);
        match fate {
            Fate::Fail => {
                workspace.undo();
                workspace.outputs().push(to(DEAD_LETTERS), Some(&result(record, 0, 0, now)), &[]);
                Ok(Verdict::Rejected)
            }
            Fate::Remove => {
                *workspace.update(TALLIES, key)? = None;
                workspace.outputs().push(to(RESULTS), None, &[]);
                Ok(Verdict::Processed)
            }
            Fate::Count | Fate::Filter | Fate::Throttle => Ok(Verdict::Processed),
        }
    }
}

/// An output's value: where the record came from, what was counted, what else was in the record, and the epoch's clock.
fn result(record: &InputRecord<'_>, count: u32, digest: u64, now: i64) -> Vec<u8> {
    let mut bytes = record.offset.get().to_be_bytes().to_vec();
    bytes.extend_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(&digest.to_be_bytes());
    bytes.extend_from_slice(padding_of(record.value.unwrap_or_default()));
    bytes.extend_from_slice(&now.to_be_bytes());
    bytes
}
