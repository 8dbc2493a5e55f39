//! Restore: one path for start, restart, move, upgrade, rollback and resume. The committed journal to its end is the truth; the local
//! database is used if its stamp equals a record of it, else the newest retained snapshot that is whole.

mod inputs;
mod local;

use crate::changes::Changes;
use crate::ids::{Epoch, JournalOffset, ShardId, Timeline, Timestamp};
use crate::journal::{Assembler, JournalError, JournalRecord, Stamp};
use crate::log::{JournalEntry, JournalRange, LogError, View};
use crate::manifest::{Manifest, RetainedCheckpoint};
use crate::mutants::{self, Bug};
use crate::state::{StateError, StateStore};
use crate::store::StoreError;
pub use inputs::go_on;

/// What a restore reads and opens. Two implementations: the worker's and the simulator's.
pub trait RestorePorts {
    /// The state store to restore into.
    type Store: StateStore;

    /// The history that the job is in.
    fn timeline(&self) -> Timeline;

    /// The ids of the topics as they are now, like [`Stamp::topic_ids`].
    fn topic_ids(&self) -> &[String];

    /// See [`crate::log::Log::read_journal`]; always [`View::CommittedToEnd`] here.
    fn read_journal(&mut self, from: JournalOffset, view: View, each: &mut dyn FnMut(JournalEntry)) -> Result<JournalRange, LogError>;

    /// The oldest and the next offset of the journal.
    fn journal_range(&mut self) -> Result<JournalRange, LogError>;

    /// The newest manifest by name, if any: counts only where the journal says nothing.
    fn newest_manifest(&mut self) -> Result<Option<Manifest>, StoreError>;

    /// The manifest of a retained checkpoint.
    fn manifest(&mut self, checkpoint: &RetainedCheckpoint) -> Result<Manifest, StoreError>;

    /// Opens the local database; `None` when there is none. One that is corrupt is an error.
    fn open_local(&mut self) -> Result<Option<Self::Store>, StateError>;

    /// Wipes what is there and makes an empty database.
    fn create(&mut self) -> Result<Self::Store, StateError>;

    /// Replaces what is there by the manifest's files, which it downloads unless they are there already, checks their sizes and checksums, and opens
    /// them.
    fn import(&mut self, manifest: &Manifest) -> Result<Self::Store, ImportError>;

    /// Tells people what was found on the way: a corrupt snapshot, a local database of another history.
    fn note(&mut self, note: RestoreNote);
}

/// Why a snapshot could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The object store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file is not what the manifest says, or the database refuses it: fall back.
    #[error("{0}")]
    Damaged(String),
    /// The local disk.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What people want to know of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreNote {
    /// The local database cannot be used; why.
    LocalUnusable(String),
    /// The local database is used, from this epoch on.
    Local(Epoch),
    /// This checkpoint is damaged; why. The one before it is tried.
    Damaged(RetainedCheckpoint, String),
    /// This checkpoint is used.
    Snapshot(RetainedCheckpoint),
    /// Nothing but the journal, from its beginning.
    Journal,
}

/// How it ended.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Newer checkpoints have replaced the one that was restored, or the journal was cut under the restore: claim again.
    #[error("the journal was cut behind newer checkpoints meanwhile")]
    Outrun,
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The object store does not answer; try again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The local disk or database.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What is left begins later than the time that was asked for.
    #[error("restore shard {shard}: what is kept of it begins {} ms after 1970", oldest.as_millis())]
    Younger {
        /// The shard.
        shard: ShardId,
        /// The clock of the oldest epoch that it can be restored to.
        oldest: Timestamp,
    },
    /// Nothing is left to restore from.
    #[error("restore shard {shard}: {reason}")]
    Gone {
        /// The shard.
        shard: ShardId,
        /// What is missing, and the way out.
        reason: String,
    },
}

/// How far a restore goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// To the end of the committed journal.
    End,
    /// To the last epoch of this time or before, by the epochs' own clocks. The local database, which may be ahead of that, counts for nothing.
    Clock(Timestamp),
}

impl Until {
    fn excludes(self, epoch: &Stamp) -> bool {
        match self {
            Self::End => false,
            Self::Clock(time) => epoch.clock > time,
        }
    }
}

/// A restored shard: `head` is `None` for a job that has never committed an epoch.
#[derive(Debug)]
pub struct Restored<S> {
    /// Open, at `head`.
    pub store: S,
    /// The last committed epoch.
    pub head: Option<Stamp>,
}

/// Restores a shard to the end of its committed journal. Nobody else can write it: the caller holds the claim.
pub fn restore<P: RestorePorts>(ports: &mut P, shard: ShardId) -> Result<Restored<P::Store>, RestoreError> {
    restore_until(ports, shard, Until::End)
}

/// Restores a shard as far as `until` says. For a time in the past no claim is needed: what was committed by then stays as it is.
/// [`RestoreError::Younger`] when the checkpoints and the journal that are kept do not reach back so far.
pub fn restore_until<P: RestorePorts>(ports: &mut P, shard: ShardId, until: Until) -> Result<Restored<P::Store>, RestoreError> {
    let start = ports.journal_range()?.start;
    let local = if until == Until::End { local::open_local(ports)? } else { None };
    let (last, local) = local::follow_local(ports, shard, start, local)?;
    if let Some(restored) = local {
        return Ok(restored);
    }
    let listed = match &last {
        Some(last) => last.retained.clone(),
        // The journal holds no epoch: either there never was one, or all of them lie before a checkpoint.
        None => match ports.newest_manifest()? {
            Some(manifest) => manifest.stamp.retained.iter().cloned().chain([manifest.retained()]).collect(),
            None => Vec::new(),
        },
    };
    let mut oldest = None;
    for checkpoint in listed.iter().rev() {
        match from_checkpoint(ports, shard, checkpoint, start, until)? {
            Tried::Restored(restored) => return Ok(*restored),
            Tried::Younger(clock) => oldest = Some(clock),
            Tried::Unusable => {}
        }
    }
    match oldest {
        Some(oldest) if start > JournalOffset::default() => Err(RestoreError::Younger { shard, oldest }),
        None if start > JournalOffset::default() => {
            let reason = format!(
                "its journal starts at offset {start} and none of its {} retained checkpoints can be used; restore a savepoint, or bring back \
                 the checkpoints' files",
                listed.len()
            );
            Err(RestoreError::Gone { shard, reason })
        }
        Some(_) | None => {
            ports.note(RestoreNote::Journal);
            let store = ports.create()?;
            match replay(ports, store, None, start, until) {
                // It says the same tomorrow.
                Err(RestoreError::State(error @ StateError::Corrupt { .. })) => {
                    let reason = format!(
                        "its journal does not fit together ({error}), and none of its {} checkpoints can be used; restore a savepoint, or bring back the \
                         checkpoints' files",
                        listed.len()
                    );
                    Err(RestoreError::Gone { shard, reason })
                }
                outcome => outcome,
            }
        }
    }
}

/// A journal topic that was deleted and made anew says nothing of what was committed: it must never be taken for that of a job that has done
/// nothing yet, or has done no more than its checkpoints hold.
fn check_journal<P: RestorePorts>(ports: &P, shard: ShardId, stamp: &Stamp, whose: &str) -> Result<(), RestoreError> {
    let now = ports.topic_ids();
    let Some((was, is)) = stamp.topic_ids.get(now.len().saturating_sub(1)).zip(now.last()) else { return Ok(()) };
    if was == is || was.is_empty() || is.is_empty() || mutants::is(Bug::JournalIdIgnored) {
        return Ok(());
    }
    let reason = format!(
        "its journal topic was deleted and made anew (id {was}, now {is}), and what was committed since {whose} at epoch {} is gone with it. Bring the \
         topic back, or start the job anew under another name",
        stamp.epoch
    );
    Err(RestoreError::Gone { shard, reason })
}

/// What came of a checkpoint. Unless it was used, the one before it is tried.
enum Tried<S> {
    Restored(Box<Restored<S>>),
    /// It is of this time, which is too late.
    Younger(Timestamp),
    /// Damaged, or the journal behind it is gone.
    Unusable,
}

fn from_checkpoint<P: RestorePorts>(
    ports: &mut P,
    shard: ShardId,
    checkpoint: &RetainedCheckpoint,
    start: JournalOffset,
    until: Until,
) -> Result<Tried<P::Store>, RestoreError> {
    if checkpoint.journal < start {
        let reason = format!("it needs the journal from offset {}, which now starts at {start}", checkpoint.journal);
        ports.note(RestoreNote::Damaged(checkpoint.clone(), reason));
        return Ok(Tried::Unusable);
    }
    let imported = match ports.manifest(checkpoint) {
        Ok(manifest) => {
            check_journal(ports, shard, &manifest.stamp, "the checkpoint")?;
            if until.excludes(&manifest.stamp) {
                return Ok(Tried::Younger(manifest.stamp.clock));
            }
            ports.import(&manifest).map(|store| (store, manifest.stamp))
        }
        Err(error) => Err(ImportError::Store(error)),
    };
    let (store, stamp) = match imported {
        Ok(imported) => imported,
        Err(ImportError::State(error)) => return Err(error.into()),
        Err(ImportError::Store(error @ (StoreError::Unavailable { .. } | StoreError::Denied { .. }))) => return Err(error.into()),
        Err(error @ (ImportError::Damaged(_) | ImportError::Store(StoreError::NotFound { .. }))) => {
            // Newer ones have replaced it meanwhile, and what only it held is collected.
            if ports.journal_range()?.start > checkpoint.journal {
                return Err(RestoreError::Outrun);
            }
            ports.note(RestoreNote::Damaged(checkpoint.clone(), error.to_string()));
            return Ok(Tried::Unusable);
        }
    };
    ports.note(RestoreNote::Snapshot(checkpoint.clone()));
    let from = stamp.journal;
    match replay(ports, store, Some(stamp), from, until) {
        Err(RestoreError::State(error @ StateError::Corrupt { .. })) => {
            ports.note(RestoreNote::Damaged(checkpoint.clone(), error.to_string()));
            Ok(Tried::Unusable)
        }
        outcome => outcome.map(|restored| Tried::Restored(Box::new(restored))),
    }
}

fn replay<P: RestorePorts>(
    ports: &mut P,
    store: P::Store,
    stamp: Option<Stamp>,
    from: JournalOffset,
    until: Until,
) -> Result<Restored<P::Store>, RestoreError> {
    let mut restored = Restored { store, head: stamp };
    let mut excluded = None;
    read(ports, from, |record| {
        let JournalRecord::Epoch(epoch, changes) = record else { return Ok(()) };
        // Clocks never go back (I7): all that follows is excluded too.
        if until.excludes(&epoch) {
            excluded.get_or_insert((epoch.owner.shard, epoch.clock));
            return Ok(());
        }
        let before = restored.head.as_ref().map_or(Epoch::default(), |head| head.epoch);
        assert_eq!(epoch.epoch, before.next(), "I4: the journal of {:?} has a gap", epoch.owner.shard);
        apply(&mut restored.store, &changes, &epoch)?;
        restored.head = Some(*epoch);
        Ok(())
    })?;
    match excluded {
        Some((shard, oldest)) if restored.head.is_none() => Err(RestoreError::Younger { shard, oldest }),
        Some(_) | None => Ok(restored),
    }
}

/// The store holds the epoch before, so patches meet the values that they were made for.
fn apply<S: StateStore>(store: &mut S, changes: &Changes, epoch: &Stamp) -> Result<(), StateError> {
    let mut value = Vec::new();
    let batch = changes.resolve(|key, into| {
        let there = store.get(key, &mut value)?;
        into.extend_from_slice(&value);
        Ok(there)
    })?;
    store.apply(&batch, epoch)
}

/// Reads committed records to the end. The first error stops `each`, not the reading, and is returned.
fn read<P: RestorePorts>(
    ports: &mut P,
    from: JournalOffset,
    mut each: impl FnMut(JournalRecord) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let mut assembler = Assembler::default();
    let mut outcome = Ok(());
    let result = ports.read_journal(from, View::CommittedToEnd, &mut |entry| {
        if outcome.is_ok() {
            outcome = assembler.push(&entry).map_err(RestoreError::from).and_then(|record| record.map_or(Ok(()), &mut each));
        }
    });
    match result {
        Err(LogError::Cut { .. }) => Err(RestoreError::Outrun),
        Err(error) => Err(error.into()),
        Ok(_) => outcome,
    }
}

#[cfg(test)]
mod tests;
