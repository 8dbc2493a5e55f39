//! Deliberate bugs: those that sit in the driver (what the worker runtime does around the engine), and those of the engine itself. A test
//! demands that the simulation finds each.

use std::cell::Cell;

use forebay_engine::mutants::Bug;

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Claim model: earlier owners are not barred.
    NoBar,
    /// Claim model: a cut journal goes unnoticed.
    NoGap,
    /// A release counts although its transaction is open or aborted.
    ReleaseUncommitted,
    /// Outputs are put out in a transaction of their own, before the epoch's.
    OutputsEarly,
    /// Garbage is deleted before the epoch that names it is committed.
    DeleteAtOnce,
    /// A checkpoint is taken of what is sealed and not committed.
    SnapshotUncommitted,
    /// The restored state is not checked against what came behind the claim. By itself nothing finds it, for the claim makes up for it, as it
    /// makes up for the claim's own: see the two below that lack both.
    NoVerify,
    /// A file's name in the store comes twice.
    FileIdTwice,
    /// A failed commit is tried again with the same producer.
    CommitAgain,
    /// What a failed commit had changed stays in the shard, which has its database open still when the next restore opens it.
    OverlayKept,
    /// The journal is cut before the list that allows it is committed.
    CutEarly,
    /// An epoch takes records however many bytes it has.
    EpochUnbounded,
    /// Claim model: no step back to 3; and nobody looks again after the restore, which makes up for most of it.
    NoBackUnverified,
    /// Claim model: records of others behind one's claim do not matter; and nobody looks again after the restore.
    BehindUnverified,
    /// An epoch's outputs are put out last one first.
    OutputsReversed,
    /// A file of a checkpoint is taken whatever its checksum.
    ChecksumIgnored,
    /// The clock of a machine that is ahead of the log's is taken as it is.
    ClockUnbounded,
    /// A bug of the engine.
    Engine(Bug),
}

thread_local! {
    static CURRENT: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Switches a mutant on for this thread, or all of them off.
pub fn set(mutant: Option<Mutant>) {
    CURRENT.with(|current| current.set(mutant));
    let bug = match mutant {
        Some(Mutant::Engine(bug)) => Some(bug),
        Some(Mutant::NoBackUnverified) => Some(Bug::NoBack),
        Some(Mutant::BehindUnverified) => Some(Bug::Behind),
        _ => None,
    };
    forebay_engine::mutants::set(bug);
}

/// The one that is on.
pub fn current() -> Option<Mutant> {
    CURRENT.with(Cell::get)
}

/// Whether this one is on.
pub fn is(mutant: Mutant) -> bool {
    current() == Some(mutant)
}
