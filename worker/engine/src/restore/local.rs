//! The database that lies on the local disk: used if its stamp equals a record of the journal.

use super::{RestoreError, RestoreNote, RestorePorts, Restored, apply, check_journal, read};
use crate::ids::{JournalOffset, ShardId};
use crate::journal::{JournalRecord, Stamp};
use crate::mutants::{self, Bug};
use crate::state::{StateError, StateStore};

/// One that is still open, or that the disk does not give at the moment, is no reason to throw it away.
pub(super) fn open_local<P: RestorePorts>(ports: &mut P) -> Result<Option<P::Store>, StateError> {
    ports.open_local().or_else(|error| match error {
        StateError::Corrupt { .. } => {
            ports.note(RestoreNote::LocalUnusable(error.to_string()));
            Ok(None)
        }
        StateError::Io { .. } => Err(error),
    })
}

/// Reads the journal once: finds its last epoch, and brings the local database along if it turns out to belong to this history.
pub(super) fn follow_local<P: RestorePorts>(
    ports: &mut P,
    shard: ShardId,
    start: JournalOffset,
    local: Option<P::Store>,
) -> Result<(Option<Stamp>, Option<Restored<P::Store>>), RestoreError> {
    let mut follower = Follower { store: local, stamp: None, belongs: false, last: None, corrupt: None };
    if let Some(store) = &follower.store {
        follower.stamp = store.stamp()?;
    }
    let other = follower
        .stamp
        .as_ref()
        .map(|stamp| stamp.owner.timeline)
        .filter(|timeline| *timeline != ports.timeline() && !mutants::is(Bug::TimelineIgnored));
    if let Some(timeline) = other {
        ports.note(RestoreNote::LocalUnusable(format!("it is of timeline {timeline}, and the job is in another")));
        (follower.store, follower.stamp) = (None, None);
    }
    if let Some(stamp) = &follower.stamp {
        check_journal(ports, shard, stamp, "the local database")?;
    }
    read(ports, start, |record| follower.take(record))?;
    let Follower { store, stamp, belongs, last, corrupt } = follower;
    if let Some(last) = &last {
        check_journal(ports, shard, last, "the journal's last epoch")?;
    }
    if let Some(reason) = corrupt {
        ports.note(RestoreNote::LocalUnusable(reason));
    }
    match (store, stamp) {
        (Some(store), Some(stamp)) if belongs => {
            ports.note(RestoreNote::Local(stamp.epoch));
            Ok((last, Some(Restored { store, head: Some(stamp) })))
        }
        (Some(store), stamp) => {
            drop(store);
            let found = stamp.map_or("it holds no epoch".to_owned(), |s| format!("it holds epoch {} of {}", s.epoch, s.owner.incarnation));
            ports.note(RestoreNote::LocalUnusable(format!("{found}, which is not in the journal")));
            Ok((last, None))
        }
        (None, _) => Ok((last, None)),
    }
}

struct Follower<S> {
    store: Option<S>,
    stamp: Option<Stamp>,
    /// The store's stamp was met: what follows is applied to it.
    belongs: bool,
    last: Option<Stamp>,
    /// Why the store was given up on the way: a patch met a value that cannot be read, or another one than its own.
    corrupt: Option<String>,
}

impl<S: StateStore> Follower<S> {
    fn take(&mut self, record: JournalRecord) -> Result<(), RestoreError> {
        let JournalRecord::Epoch(epoch, changes) = record else { return Ok(()) };
        if let (Some(store), Some(stamp)) = (&mut self.store, &mut self.stamp) {
            if self.belongs && epoch.journal > stamp.journal {
                assert_eq!(epoch.epoch, stamp.epoch.next(), "I4: the journal of {:?} has a gap", epoch.owner.shard);
                match apply(store, &changes, &epoch) {
                    Ok(()) => *stamp = (*epoch).clone(),
                    Err(error @ StateError::Corrupt { .. }) => {
                        self.store = None;
                        self.corrupt = Some(error.to_string());
                    }
                    Err(error @ StateError::Io { .. }) => return Err(error.into()),
                }
            } else if *stamp == *epoch {
                self.belongs = true;
            }
        }
        self.last = Some(*epoch);
        Ok(())
    }
}
