//! Deliberate bugs that the simulator switches on to prove that it finds them. Without the feature `mutants`, as in all that users run, there is
//! none, and every question after one is a constant: only the package `forebay-engine-mutants`, the simulator's build of these sources, has it.

/// A bug that has to sit inside the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A claim does not go back to step 3 after it had to bar somebody in step 4.
    NoBack,
    /// Records of others behind one's claim do not matter.
    Behind,
    /// The list of retained checkpoints is never shortened.
    ListNotTrimmed,
    /// It is shortened to one.
    ListTrimmedToOne,
    /// A file is taken for uploaded by its name alone.
    FileByName,
    /// The clock is the machine's, wherever that goes.
    ClockBack,
    /// A list of garbage counts although a checkpoint joined the list meanwhile.
    StaleGarbage,
    /// The journal holds what the last record changed of a value, not what the epoch did.
    PatchOfLastRecord,
    /// An incarnation counts as barred for a shard as soon as it is to be barred for another one.
    BarredTooSoon,
    /// A barring is believed for ever.
    BarredForEver,
    /// Garbage is deleted however young it is.
    NoGrace,
    /// After an upload nobody looks whether all files of the checkpoint are there.
    FilesUnchecked,
    /// Of two starts that settled on the same version both give up.
    BothYield,
    /// Neither does.
    NeitherYields,
    /// An idle owner does not look whether it was replaced.
    Unwatchful,
    /// The books do not count a record that was seen before.
    BooksUncounted,
    /// That an input was made anew under its name is not seen.
    InputIdIgnored,
    /// Nor that the journal was.
    JournalIdIgnored,
    /// A local database counts whatever timeline it is of.
    TimelineIgnored,
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches a bug on for this thread.
    pub fn set(bug: Option<Bug>) {
        BUG.with(|cell| cell.set(bug));
    }

    pub(crate) fn is(bug: Bug) -> bool {
        BUG.with(|cell| cell.get() == Some(bug))
    }
}

#[cfg(not(feature = "mutants"))]
mod switch {
    pub(crate) const fn is(_: super::Bug) -> bool {
        false
    }
}

pub(crate) use switch::is;
#[cfg(feature = "mutants")]
pub use switch::set;
