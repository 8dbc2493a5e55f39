//! What the runs met: pairs of a phase of the protocol and a kind of fault, and named situations. A schedule that meets nothing proves nothing.

use std::collections::BTreeMap;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process dies; its disk is kept.
    Crash,
    /// The process dies and its disk is gone.
    Wipe,
    /// The process stands still while others go on.
    Stall,
    /// Somebody bars its incarnation.
    Barred,
    /// The operator takes a shard away.
    Move,
    /// A request is lost.
    Lost,
    /// A request is carried out and its reply lost.
    ReplyLost,
    /// A request is given up and carried out later.
    Late,
    /// A request is carried out twice: now, and later once more.
    Twice,
    /// The object store is away for a while.
    StoreDown,
    /// The coordinator of transactions ends those that are open.
    TimeOut,
    /// The database refuses the next epoch.
    ApplyFails,
    /// The log refuses the outputs of a partition for good, until somebody mends that.
    Refused,
    /// A step of the pipeline panics.
    Panic,
    /// A file of a checkpoint is torn or corrupt.
    Damaged,
    /// A request takes long, and is carried out and answered all the same.
    Slow,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Crash,
        Self::Wipe,
        Self::Stall,
        Self::Barred,
        Self::Move,
        Self::Lost,
        Self::ReplyLost,
        Self::Late,
        Self::Twice,
        Self::StoreDown,
        Self::TimeOut,
        Self::ApplyFails,
        Self::Refused,
        Self::Panic,
        Self::Damaged,
        Self::Slow,
    ];
}

/// Counts.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    pairs: BTreeMap<(&'static str, Fault), u64>,
    situations: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// A fault hit something in a phase.
    pub fn fault(&mut self, phase: &'static str, fault: Fault) {
        *self.pairs.entry((phase, fault)).or_default() += 1;
    }

    /// A situation that has a name.
    pub fn situation(&mut self, name: &'static str) {
        *self.situations.entry(name).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Coverage) {
        other.pairs.iter().for_each(|(pair, count)| *self.pairs.entry(*pair).or_default() += count);
        other.situations.iter().for_each(|(name, count)| *self.situations.entry(name).or_default() += count);
    }

    /// How often a pair was met.
    pub fn pair(&self, phase: &'static str, fault: Fault) -> u64 {
        self.pairs.get(&(phase, fault)).copied().unwrap_or(0)
    }

    /// How often a situation was met.
    pub fn met(&self, name: &'static str) -> u64 {
        self.situations.get(name).copied().unwrap_or(0)
    }

    /// A table to read.
    pub fn table(&self) -> String {
        let pairs = self.pairs.iter().map(|((phase, fault), count)| format!("{phase:>18} x {fault:?}: {count}\n"));
        let situations = self.situations.iter().map(|(name, count)| format!("{name}: {count}\n"));
        pairs.chain(situations).collect()
    }
}
