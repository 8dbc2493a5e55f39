//! What a claim needs to know of a piece of journal.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{AssignmentVersion, Incarnation, JournalOffset, WorkerName};
use crate::journal::{ChunkHead, Kind};

/// The heads of a piece of journal, folded: bounded by the number of incarnations, not of records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scan {
    pub(super) seen: BTreeMap<Incarnation, Seen>,
}

/// What was seen of an incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    pub worker: WorkerName,
    /// The highest of its records.
    pub assignment: AssignmentVersion,
    /// Its last record.
    pub last: (JournalOffset, Kind),
}

impl Scan {
    /// Takes the next record.
    pub fn add(&mut self, offset: JournalOffset, head: &ChunkHead) {
        let owner = &head.owner;
        let last = (offset, head.kind);
        let seen = self.seen.entry(owner.incarnation.clone()).or_insert_with(|| Seen {
            worker: owner.worker.clone(),
            assignment: owner.assignment,
            last,
        });
        seen.last = last;
        seen.assignment = seen.assignment.max(owner.assignment);
    }

    /// Whether anybody's last record is a release mark, of which it matters whether it is committed.
    pub(super) fn has_release(&self) -> bool {
        self.seen.values().any(|seen| seen.last.1 == Kind::Release)
    }

    /// Incarnations whose last record, of all, is a release that `committed` shows too.
    pub(super) fn released(&self, committed: &Scan) -> BTreeSet<Incarnation> {
        let is_committed = |incarnation: &Incarnation, seen: &Seen| committed.seen.get(incarnation).is_some_and(|c| c.last == seen.last);
        self.seen.iter().filter(|(i, seen)| seen.last.1 == Kind::Release && is_committed(i, seen)).map(|(i, _)| i.clone()).collect()
    }

    /// A worker whose record was met and who wrote it under another incarnation than this one.
    pub fn stranger(&self, me: &Incarnation) -> Option<&WorkerName> {
        self.seen.iter().find(|(incarnation, _)| *incarnation != me).map(|(_, seen)| &seen.worker)
    }

    /// Whether somebody else wrote at or behind `offset`.
    pub(super) fn foreign_behind(&self, me: &Incarnation, offset: JournalOffset) -> bool {
        self.seen.iter().any(|(incarnation, seen)| incarnation != me && seen.last.0 > offset)
    }
}
