//! What all claimants share.

use std::collections::BTreeSet;

use forebay_engine::claim::Scan;
use forebay_engine::ids::{AssignmentVersion, Incarnation, JournalOffset, ShardId, Timeline, WorkerName};
use forebay_engine::journal::{ChunkHead, Kind, Owner};
use forebay_engine::log::{JournalRange, View};

use super::{INCARNATIONS_MAX, WORKERS_MAX};
use crate::mutant::{Mutant, is};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    Open,
    Committed,
    Aborted,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Record {
    pub by: usize,
    pub kind: Kind,
    pub state: State,
    pub version: AssignmentVersion,
}

#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Mark {
    pub position: usize,
    pub by: usize,
    pub version: AssignmentVersion,
}

/// What all share: one journal, the newest manifest, who is barred.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Shared {
    pub(super) journal: Vec<Record>,
    pub(super) start: usize,
    pub(super) manifest: Option<Mark>,
    pub(super) barred: BTreeSet<usize>,
    /// Cuts on their way.
    pub(super) cuts: Vec<usize>,
    pub(super) version: AssignmentVersion,
}

impl Shared {
    pub(super) fn append(&mut self, by: usize, kind: Kind, version: AssignmentVersion) -> usize {
        self.journal.push(Record { by, kind, state: State::Open, version });
        self.journal.len() - 1
    }

    pub(super) fn end(&mut self, by: usize, state: State) {
        self.journal.iter_mut().filter(|record| record.by == by && record.state == State::Open).for_each(|record| record.state = state);
    }

    pub(super) fn bar(&mut self, whom: usize) {
        self.barred.insert(whom);
        self.end(whom, State::Aborted);
    }

    pub(super) fn history(&self) -> Vec<usize> {
        let is_epoch = |record: &Record| record.kind == Kind::Epoch && record.state == State::Committed;
        (0..self.journal.len()).filter(|at| is_epoch(&self.journal[*at])).collect()
    }

    /// What a reader folds; `Err` is where the journal starts.
    pub(super) fn scan(&self, from: usize, view: View) -> Result<(Scan, JournalRange), JournalOffset> {
        let from = match self.start {
            start if start > from && is(Mutant::NoGap) => start,
            start if start > from => return Err(offset(start)),
            _ => from,
        };
        let open = (from..self.journal.len()).find(|at| self.journal[*at].state == State::Open);
        let view = if is(Mutant::ReleaseUncommitted) { View::Uncommitted } else { view };
        let end = if view == View::Uncommitted { self.journal.len() } else { open.unwrap_or(self.journal.len()) };
        let mut scan = Scan::default();
        for at in from..end {
            let record = &self.journal[at];
            if view == View::Uncommitted || record.state == State::Committed {
                scan.add(offset(at), &ChunkHead { kind: record.kind, chunk: 0, chunks: 1, owner: owner(record.by, record.version) });
            }
        }
        Ok((scan, JournalRange { start: offset(self.start), end: offset(end) }))
    }

    /// A cut arrives.
    pub(super) fn cut(&mut self, number: usize) {
        let before = self.cuts.swap_remove(number);
        self.start = self.start.max(before);
    }

    pub(super) fn next_version(&mut self) -> AssignmentVersion {
        self.version = self.version.next();
        self.version
    }
}

pub(super) fn offset(at: usize) -> JournalOffset {
    JournalOffset::new(at as u64)
}

pub(super) fn at(offset: JournalOffset) -> usize {
    offset.get() as usize
}

pub(super) fn owner(by: usize, assignment: AssignmentVersion) -> Owner {
    let (worker, incarnation) = NAMES.with(|names| names[by].clone());
    Owner { timeline: Timeline::new(0), shard: ShardId::new(0), worker, incarnation, assignment }
}

thread_local! {
    static NAMES: Vec<(WorkerName, Incarnation)> = (0..WORKERS_MAX * INCARNATIONS_MAX).map(names).collect();
}

fn names(by: usize) -> (WorkerName, Incarnation) {
    let worker = format!("w{}", by / INCARNATIONS_MAX);
    let incarnation = format!("{worker}.p.{}", by % INCARNATIONS_MAX);
    (WorkerName::new(worker), Incarnation::new(incarnation))
}

pub(super) fn number(incarnation: &Incarnation) -> usize {
    NAMES.with(|names| names.iter().position(|(_, name)| name == incarnation)).expect("only these are there")
}
