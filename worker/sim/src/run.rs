//! One seed, one run; many seeds, one verdict.

use std::time::Duration;

use crate::coverage::{Coverage, Fault};
use crate::mutant::{self, Mutant};
use crate::oracle::Violation;
use crate::rng::Rng;
use crate::world::{Setup, World};

/// Phases of the protocol, as [`World::phases`] names them, with the faults that must have hit each.
pub const PAIRS: &[(&str, &[Fault])] = &[
    ("reading-manifest", PROCESS),
    ("scanning", PROCESS),
    ("barring", PROCESS),
    ("claiming", PROCESS),
    ("reading-on", PROCESS),
    ("restoring", PROCESS),
    ("running", RUNNING),
    ("releasing", &[Fault::Crash, Fault::Stall, Fault::Barred, Fault::Refused]),
    ("idle", PROCESS),
    ("sealing", PROCESS),
    ("committing", COMMITTING),
    ("read-manifest", STORE_READ),
    ("scan", CALL_READ),
    ("bar", CALL_WRITE),
    ("open-producer", CALL_WRITE),
    ("commit-begin", CALL_WRITE),
    ("commit-outputs", &[Fault::Crash, Fault::Stall, Fault::Lost, Fault::ReplyLost, Fault::Late, Fault::TimeOut, Fault::Refused]),
    ("commit-journal", IN_TRANSACTION),
    ("commit-offsets", IN_TRANSACTION),
    ("commit-end", IN_TRANSACTION),
    ("restore-range", CALL_READ),
    ("restore-journal", CALL_READ),
    ("restore-manifest", STORE_READ),
    ("restore-download", STORE_READ),
    ("verify", CALL_READ),
    ("look", CALL_READ),
    ("snapshot-begin", &[Fault::Crash, Fault::Stall]),
    ("snapshot-list", STORE_READ),
    ("snapshot-file", STORE_WRITE),
    ("snapshot-check", STORE_READ),
    ("snapshot-manifest", STORE_WRITE),
    ("garbage", STORE_READ),
    ("cut", CALL_WRITE),
    ("delete", STORE_WRITE),
];

const PROCESS: &[Fault] = &[Fault::Crash, Fault::Wipe, Fault::Stall, Fault::Barred, Fault::Move];
const CALL_READ: &[Fault] = &[Fault::Crash, Fault::Stall, Fault::Lost];
const RUNNING: &[Fault] = &[Fault::Crash, Fault::Wipe, Fault::Stall, Fault::Barred, Fault::Move, Fault::ApplyFails];
const COMMITTING: &[Fault] =
    &[Fault::Crash, Fault::Wipe, Fault::Stall, Fault::Barred, Fault::Move, Fault::ApplyFails, Fault::TimeOut, Fault::Refused];
const IN_TRANSACTION: &[Fault] = &[Fault::Crash, Fault::Stall, Fault::Lost, Fault::ReplyLost, Fault::Late, Fault::TimeOut];
const STORE_READ: &[Fault] = &[Fault::Crash, Fault::Stall, Fault::Lost, Fault::StoreDown];
const STORE_WRITE: &[Fault] = &[Fault::Crash, Fault::Stall, Fault::Lost, Fault::ReplyLost, Fault::Late, Fault::StoreDown];
const CALL_WRITE: &[Fault] = &[Fault::Crash, Fault::Stall, Fault::Lost, Fault::ReplyLost, Fault::Late];

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
    "a shard fails",
    "a shard is restored from the journal alone",
    "a stale assignment arrives",
    "a transaction times out",
    "a worker stops in good order",
    "an idle owner sees that it was replaced",
    "garbage is deleted",
    "the journal is cut under a reader",
    "the store is down",
    "two workers are told the same version",
];

/// What a seed decides before the first step.
pub fn setup(seed: u64) -> Setup {
    let mut rng = Rng::new(seed ^ 0x0005_E70F_5EED);
    let pairs: Vec<(&'static str, Fault)> = PAIRS.iter().flat_map(|(phase, faults)| faults.iter().map(|fault| (*phase, *fault))).collect();
    let shards = 1 + rng.below(2) as u32;
    let above_all = rng.chance(0.08);
    // Each seed goes for one pair, so that all are met however rare they are.
    let aim = pairs[seed as usize % pairs.len()];
    let rare = ["restore-", "snapshot", "garbage", "cut", "delete"].iter().any(|prefix| aim.0.starts_with(prefix));
    Setup {
        workers: 2 + rng.below(2),
        shards,
        partitions: shards * (1 + rng.below(2) as u32),
        records: rng.below(30),
        records_later: 20 + rng.below(60),
        steps: if rare { 800 } else { *rng.pick(&[150, 400, 800]) },
        checkpoints_retained: *rng.pick(&[2, 2, 3]),
        checkpoint_epochs: if rare { 1 } else { *rng.pick(&[1, 2, 5]) },
        grace: Duration::from_millis(if rare { 100 } else { *rng.pick(&[100, 2_000, 60_000]) }),
        heartbeat: Duration::from_millis(*rng.pick(&[400, 5_000, 86_400_000])),
        watch: Duration::from_millis(*rng.pick(&[300, 5_000])),
        epoch_bytes_max: *rng.pick(&[60, 900, 8_000]),
        cache_bytes_max: *rng.pick(&[0, 600, 100_000]),
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
