//! One seed, one run; many seeds, one verdict.

use std::time::Duration;

use forebay_engine::journal::CHUNK_BYTES;

use crate::coverage::{Coverage, Fault};
use crate::mutant::{self, Mutant};
use crate::oracle::Violation;
use crate::rng::Rng;
use crate::world::{Setup, World};

/// Phases of the protocol, as [`World::phases`] names them. Every fault must have hit each, but where [`left_out`] says why it cannot.
pub const PHASES: &[(&str, Kind)] = &[
    ("reading-manifest", Kind::Shard),
    ("scanning", Kind::Shard),
    ("barring", Kind::Shard),
    ("claiming", Kind::Shard),
    ("reading-on", Kind::Shard),
    ("restoring", Kind::Shard),
    ("running", Kind::Running),
    ("releasing", Kind::Running),
    ("idle", Kind::Round),
    ("sealing", Kind::Round),
    ("committing", Kind::Committing),
    ("read-manifest", Kind::StoreRead),
    ("scan", Kind::LogRead),
    ("bar", Kind::LogWrite),
    ("open-producer", Kind::Opening),
    ("commit-begin", Kind::Beginning),
    ("commit-outputs", Kind::Outputs),
    ("commit-journal", Kind::InTransaction),
    ("commit-chunks", Kind::InTransaction),
    ("commit-offsets", Kind::InTransaction),
    ("commit-end", Kind::InTransaction),
    ("restore-range", Kind::LogRead),
    ("restore-journal", Kind::LogRead),
    ("restore-manifest", Kind::StoreRead),
    ("restore-download", Kind::Download),
    ("verify", Kind::LogRead),
    ("look", Kind::LogRead),
    ("snapshot-begin", Kind::Local),
    ("snapshot-list", Kind::StoreRead),
    ("snapshot-file", Kind::StoreWrite),
    ("snapshot-check", Kind::StoreRead),
    ("snapshot-manifest", Kind::StoreWrite),
    ("garbage-files", Kind::StoreRead),
    ("garbage-manifests", Kind::StoreRead),
    ("savepoint-read", Kind::StoreRead),
    ("savepoint-copy", Kind::Download),
    ("savepoint-write", Kind::StoreWrite),
    ("cut", Kind::LogWrite),
    ("delete", Kind::StoreWrite),
];

/// What a phase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A shard on its way to being owned.
    Shard,
    /// A shard that is owned.
    Running,
    /// A worker's round, of which no transaction is open.
    Round,
    /// A worker's round while its transaction is under way.
    Committing,
    /// The producer's first request.
    Opening,
    /// The one with which it begins a transaction.
    Beginning,
    /// A request of the producer within its transaction, that with outputs,
    Outputs,
    /// or another.
    InTransaction,
    /// A request that changes nothing at the log,
    LogRead,
    /// or something.
    LogWrite,
    /// The same at the store.
    StoreRead,
    /// The same at the store.
    StoreWrite,
    /// One that reads files of a checkpoint.
    Download,
    /// A helper at work on its own disk.
    Local,
}

/// Why a fault cannot hit a phase of this kind; `None`: it can, and some run must have met it.
pub fn left_out(kind: Kind, fault: Fault) -> Option<&'static str> {
    use Kind::*;
    let is_request = matches!(kind, Opening | Beginning | Outputs | InTransaction | LogRead | LogWrite | StoreRead | StoreWrite | Download);
    match fault {
        Fault::Crash | Fault::Wipe | Fault::Stall | Fault::Move => None,
        Fault::Barred => (kind == Opening).then_some("nobody knows an incarnation that is not opened yet"),
        Fault::Lost | Fault::Slow => (!is_request).then_some("it is no request: those that it makes are phases of their own"),
        Fault::ReplyLost | Fault::Late => match kind {
            LogRead | StoreRead | Download => Some("it changes nothing: without its reply it is as if it had been lost"),
            _ => (!is_request).then_some("it is no request: those that it makes are phases of their own"),
        },
        Fault::Twice => match kind {
            LogWrite | StoreWrite => None,
            Opening | Beginning | Outputs | InTransaction => Some("the broker takes what a producer sends once, by its sequence number"),
            LogRead | StoreRead | Download => Some("it changes nothing"),
            Shard | Running | Round | Committing | Local => Some("it is no request: those that it makes are phases of their own"),
        },
        Fault::StoreDown => (!matches!(kind, StoreRead | StoreWrite | Download)).then_some("it asks nothing of the store"),
        Fault::TimeOut => match kind {
            Committing | Outputs | InTransaction => None,
            Round | Opening => Some("no transaction is open"),
            Shard | Running | Beginning | LogRead | LogWrite | StoreRead | StoreWrite | Download | Local => {
                Some("it has no part in the transaction, and learns of it as it does of a barring")
            }
        },
        Fault::Refused => match kind {
            Running | Committing | Outputs => None,
            Shard | Round | Opening | Beginning | InTransaction | LogRead | LogWrite | StoreRead | StoreWrite | Download | Local => {
                Some("what is refused are outputs, which one request carries, and a shard that is owned has made")
            }
        },
        Fault::Damaged => (kind != Download).then_some("it reads no file: a restore and a copy do, in phases of their own"),
        Fault::ApplyFails | Fault::Panic => match kind {
            Running | Round | Committing => None,
            Shard => Some("it has no database that epochs are applied to, and processes nothing"),
            Opening | Beginning | Outputs | InTransaction | LogRead | LogWrite | StoreRead | StoreWrite | Download | Local => {
                Some("it is another thread's, which learns nothing of it but that its shard is gone, as in a move")
            }
        },
    }
}

/// All pairs of a phase and a fault that can hit it.
pub fn pairs() -> Vec<(&'static str, Fault)> {
    let of = |(phase, kind): &(&'static str, Kind)| {
        let (phase, kind) = (*phase, *kind);
        Fault::ALL.into_iter().filter(move |fault| left_out(kind, *fault).is_none()).map(move |fault| (phase, fault))
    };
    PHASES.iter().flat_map(of).collect()
}

/// What seeds go for: every pair, and those thrice whose phase few runs come to, even if they go for it.
fn aims() -> Vec<(&'static str, Fault)> {
    let pairs = pairs();
    let rare = pairs.iter().filter(|(phase, _)| matches!(*phase, "restore-download" | "delete")).copied();
    let thrice: Vec<_> = rare.clone().chain(rare).collect();
    pairs.into_iter().chain(thrice).collect()
}

/// Situations that the runs must have met.
pub const SITUATIONS: &[&str] = &[
    "a checkpoint is restored",
    "a checkpoint is uploaded",
    "a claim is given up after its record was committed",
    "a claim is given up before its record",
    "a commit's outcome is unknown, and it is committed",
    "a cut arrives late",
    "a damaged checkpoint is passed over",
    "a journal is cut",
    "a live incarnation is barred",
    "a local database is of another history, or too old",
    "a local database is used",
    "a manifest arrives late",
    "a producer is fenced",
    "a shard's transaction is refused",
    "a transaction of several shards is refused",
    "a producer's request arrives late",
    "a read to the end waits for an open transaction",
    "a savepoint is taken",
    "a shard fails",
    "a shard is restored from the journal alone",
    "a stale assignment arrives",
    "a transaction times out",
    "a wait for markers ends with what blocks it",
    "a worker stops in good order",
    "an idle owner sees that it was replaced",
    "chunks of a record follow each other",
    "garbage is deleted",
    "the inputs are cut before the committed offsets",
    "the journal is cut under a reader",
    "the store is down",
    "two workers are told the same version",
];

/// What a seed decides before the first step.
pub fn setup(seed: u64) -> Setup {
    let mut rng = Rng::new(seed ^ 0x0005_E70F_5EED);
    let aims = aims();
    let shards = 1 + rng.below(2) as u32;
    let above_all = rng.chance(0.08);
    // Each seed goes for one pair, so that all are met however rare they are.
    let aim = aims[seed as usize % aims.len()];
    let rare = ["restore-", "snapshot", "garbage", "savepoint", "cut", "delete"].iter().any(|prefix| aim.0.starts_with(prefix));
    Setup {
        workers: 2 + rng.below(2),
        shards,
        partitions: shards * (1 + rng.below(2) as u32),
        records: rng.below(30),
        records_later: 20 + rng.below(60),
        padding_max: *rng.pick(&[0, 0, 100, 3_000]),
        skew: *rng.pick(&[0.0, 0.0, 0.8]),
        steps: if rare { 800 } else { *rng.pick(&[150, 400, 800]) },
        checkpoints_retained: *rng.pick(&[2, 2, 3]),
        checkpoint_epochs: if rare { 1 } else { *rng.pick(&[1, 2, 5]) },
        grace: Duration::from_millis(if rare { 100 } else { *rng.pick(&[100, 2_000, 60_000]) }),
        heartbeat: Duration::from_millis(*rng.pick(&[400, 5_000, 86_400_000])),
        watch: Duration::from_millis(*rng.pick(&[300, 5_000])),
        epoch_bytes_max: *rng.pick(&[60, 900, 8_000]),
        journal_chunk_bytes: if aim.0 == "commit-chunks" { 60 } else { *rng.pick(&[60, 300, CHUNK_BYTES, CHUNK_BYTES]) },
        cache_bytes_max: *rng.pick(&[0, 400, 100_000]),
        call_faults: *rng.pick(&[0.0, 0.005, 0.03]),
        faults: *rng.pick(&[0.005, 0.02, 0.05]),
        above_all,
        directed: Some(aim),
    }
}

/// Runs one seed; what it covered, and the first violation.
pub fn run(seed: u64, mutant: Option<Mutant>) -> (Coverage, Result<(), Violation>) {
    mutant::set(mutant);
    let mut world = World::new(setup(seed), seed);
    let outcome = world.run();
    mutant::set(None);
    (std::mem::take(&mut world.coverage), outcome)
}

/// Runs one seed and keeps a line per step.
pub fn trace(seed: u64, mutant: Option<Mutant>) -> (Vec<String>, Result<(), Violation>) {
    mutant::set(mutant);
    let mut world = World::new(setup(seed), seed);
    world.trace = Some(vec![format!("seed {seed}: {:?}", world.setup)]);
    let outcome = world.run();
    mutant::set(None);
    (world.trace.take().unwrap_or_default(), outcome)
}
