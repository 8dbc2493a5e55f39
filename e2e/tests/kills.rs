//! Promise: however often and wherever workers are killed, nothing is lost and nothing comes twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use forebay_e2e::flights::{Flights, every_second, records};
use forebay_e2e::job::Line;
use forebay_e2e::kafka::Broker;
use forebay_e2e::s3::S3;
use forebay_e2e::{PATIENCE, in_folder, until};

/// Kills of each of the two workers, and as many more as it takes until every phase was hit and the rival has met each of its ends.
const KILLS: usize = 30;
/// But no more than these.
const KILLS_MAX: usize = 120;

/// What a worker may be doing when it is killed: of an epoch, a claim, a restore, a checkpoint and what follows from that. The log has a line `… begins` for
/// each but the listing, which lasts from the end of an upload to the commit that says that the checkpoint counts. An epoch is one that takes in records: it
/// lasts from the first of them until it is sealed. Objects are deleted ten minutes after nobody needs them: the simulator kills there.
const PHASES: [&str; 17] = [
    EPOCH,
    "seal",
    "commit",
    "apply",
    "claim",
    "scan",
    "bar",
    CLAIM_COMMIT,
    READ_ON,
    "opening",
    "download",
    "replay",
    "last look",
    "checkpoint",
    "upload",
    LISTING,
    "cut",
];
const EPOCH: &str = "epoch";
/// Its line is that of a scan, behind the claim's own commit.
const READ_ON: &str = "read on";
/// Its line is that of a commit, without records.
const CLAIM_COMMIT: &str = "commit of a claim";
const LISTING: &str = "listing";

/// How lives of a third worker end: the others take its shards back, it is killed, or it wakes up after its transaction was over and loses its shards then.
const ENDS: [&str; 3] = [RIVAL_LOST, RIVAL_KILLED, RIVAL_STOPPED];
const RIVAL_LOST: &str = "the rival lost its shards";
const RIVAL_KILLED: &str = "the rival was killed";
const RIVAL_STOPPED: &str = "the rival was stopped";

const GIVEN_UP: &str = "shard is given up to a worker with a better right";

/// The exit code of a process that lost its shards.
const LOST: Option<i32> = Some(3);
/// A transaction lasts for 30 s at most.
const PAST_TRANSACTION: Duration = Duration::from_secs(31);

/// How often each phase was hit, by both workers, and how often the rival met each of its ends.
type Hits = Mutex<BTreeMap<&'static str, usize>>;

/// Method: two workers share the shards, checkpoints come every second, records come in all the time. Each worker is killed as soon as its log
/// says that the wanted phase has begun, or a few milliseconds later; its disk is lost now and then. What it was doing when it died is read
/// off its log afterwards, and each phase must have been hit. A third one claims a shard of each again and again, is killed as well, or stopped in a
/// commit for longer than its transaction may last. Then all is worked off, and the oracle judges.
#[test]
fn nothing_is_lost_or_doubled_by_sixty_kills() -> Result<()> {
    in_folder("kills", |folder| {
        let s3 = S3::of_environment()?;
        let flights = Flights::new(folder, Broker::of_environment()?, &s3, every_second)?;
        let records = records(336_776)?;
        let workers = [("a", "0-1"), ("b", "2-3")];
        let (over, hits) = (AtomicBool::new(false), Hits::default());
        let (fed, kills, rival) = thread::scope(|scope| {
            let feeder = scope.spawn(|| flights.feed_slowly(&records, &over));
            // Whoever fails ends all of them.
            let killer = |name, shards| kill(&flights, name, shards, &over, &hits).inspect_err(|_| over.store(true, Ordering::SeqCst));
            let killers = workers.map(|(name, shards)| scope.spawn(move || killer(name, shards)));
            let rival = scope.spawn(|| claim_again_and_again(&flights, &over, &hits).inspect_err(|_| over.store(true, Ordering::SeqCst)));
            let kills: Vec<_> = killers.into_iter().map(|killer| killer.join().map_err(|_| anyhow!("a killer panicked"))).collect();
            over.store(true, Ordering::SeqCst);
            (feeder.join().map_err(|_| anyhow!("the feeder panicked")), kills, rival.join().map_err(|_| anyhow!("the rival panicked")))
        });
        let kills = kills.into_iter().map(Result::flatten).sum::<Result<usize>>()?;
        let fed = fed??;
        rival??;
        println!("{kills} kills while {fed} records came in; of these during: {:?}", counts(&hits));
        let left = [missing(&PHASES, &hits), missing(&ENDS, &hits)].concat();
        ensure!(left.is_empty(), "there was none of {left:?}: {:?}", counts(&hits));
        ensure!(fed < records.len(), "the records ran out before the kills: the last ones hit idle workers");

        let start = |(name, shards)| flights.forebay.run(name, &flights.state_dir(name), &["--shards", shards, "--until-end"]);
        let mut running = workers.map(start).into_iter().collect::<Result<Vec<_>>>()?;
        running.iter_mut().try_for_each(|process| process.success())?;
        flights.check(&records[..fed], &["a", "b", "c"])
    })
}

/// Starts a worker that takes a shard from each of the others; they take it back whenever they start again. It ends by that, by a kill in a commit,
/// or sleeps through one.
fn claim_again_and_again(flights: &Flights, over: &AtomicBool, hits: &Hits) -> Result<()> {
    let verbose = flights.forebay.clone().with("RUST_LOG", "info,forebay_worker=debug");
    for number in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let mut process = verbose.run("c", &flights.state_dir("c"), &["--shards", "1-2"])?;
        // It may lose its shards before it has any records.
        let works = process.wait_for("a commit", |line| begins("commit", line)).is_ok();
        let ending = match number % 3 {
            _ if !works => RIVAL_LOST,
            0 => {
                process.kill()?;
                note(hits, [RIVAL_KILLED]);
                continue;
            }
            1 => {
                process.signal("STOP")?;
                thread::sleep(PAST_TRANSACTION);
                process.signal("CONT")?;
                RIVAL_STOPPED
            }
            _ => RIVAL_LOST,
        };
        let is_over = || Ok((over.load(Ordering::SeqCst) || process.check_alive().is_err()).then_some(()));
        until("the rival loses its shards", PATIENCE, is_over)?;
        if over.load(Ordering::SeqCst) {
            // Nobody takes them from it any more.
            break;
        }
        let code = process.exit()?;
        ensure!(code == LOST, "the rival ended with {code:?}:\n{}", process.tail());
        note(hits, [ending]);
    }
    Ok(())
}

fn counts(hits: &Hits) -> BTreeMap<&'static str, usize> {
    hits.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn note(hits: &Hits, what: impl IntoIterator<Item = &'static str>) {
    let mut hits = hits.lock().unwrap_or_else(PoisonError::into_inner);
    what.into_iter().for_each(|what| *hits.entry(what).or_default() += 1);
}

fn missing(of: &[&'static str], hits: &Hits) -> Vec<&'static str> {
    let counts = counts(hits);
    of.iter().copied().filter(|what| !counts.contains_key(what)).collect()
}

/// Starts and kills one worker again and again, until enough was hit or it is over; returns how often.
fn kill(flights: &Flights, name: &str, shards: &str, over: &AtomicBool, hits: &Hits) -> Result<usize> {
    let state_dir = flights.state_dir(name);
    let mut random = Random(name.bytes().map(u64::from).sum());
    for number in 0..KILLS_MAX {
        let mut wanted = missing(&PHASES, hits);
        let is_enough = number >= KILLS && wanted.is_empty() && missing(&ENDS, hits).is_empty();
        if is_enough || over.load(Ordering::SeqCst) {
            return Ok(number);
        }
        if number < KILLS || wanted.is_empty() {
            wanted = PHASES.to_vec();
        }
        let phase = wanted[number % wanted.len()];
        // Without a disk there is something to download.
        if (phase == "download" || random.below(4) == 0) && state_dir.exists() {
            fs::remove_dir_all(&state_dir)?;
        }
        let process = flights.forebay.clone().with("RUST_LOG", "info,forebay_worker=debug").run(name, &state_dir, &["--shards", shards])?;
        let turn = match phase {
            // These come all the time,
            EPOCH | "seal" | "commit" | "apply" => 1 + random.below(12),
            // these for each of the two shards,
            "claim" | "scan" | READ_ON | "opening" | "replay" | "last look" | "checkpoint" | "upload" => 1 + random.below(2),
            // and these may come for both at once.
            _ => 1,
        };
        // Where no checkpoint counts yet, there is nothing to download; and a shard that the rival has taken goes through no further phase.
        let comes =
            |line: &Line| begins(phase, line) || line.message() == GIVEN_UP || (phase == "download" && line.message() == "restore ends");
        let mut behind = 0;
        for _ in 0..turn {
            (_, behind) = process.wait_for_after(behind, phase, comes).with_context(|| format!("before kill {number}"))?;
        }
        // Most phases take tens of milliseconds: this spreads the kills over them. The others are over by then.
        if !matches!(phase, "seal" | "apply" | "scan" | READ_ON | "opening" | "bar" | "last look" | "cut") {
            thread::sleep(Duration::from_micros(random.below(20_000)));
        }
        note(hits, phases(&process.kill()?));
    }
    Ok(KILLS_MAX)
}

/// Whether a phase begins with this line.
fn begins(phase: &str, line: &Line) -> bool {
    match phase {
        "commit" => line.message() == "commit begins" && has_records(line),
        CLAIM_COMMIT => line.message() == "commit begins" && !has_records(line),
        LISTING => line.message() == "checkpoint uploaded",
        READ_ON => line.message() == "scan begins" && is_read_on(line),
        "scan" => line.message() == "scan begins" && !is_read_on(line),
        phase => line.message().strip_suffix(" begins") == Some(phase),
    }
}

/// What was going on at the end of a log.
fn phases(lines: &[Line]) -> BTreeSet<&'static str> {
    /// A shard is claimed and restored in these steps; the next one ends the one before.
    const STEPS: [&str; 7] = ["claim", "scan", READ_ON, "opening", "download", "replay", "last look"];
    let mut open: BTreeSet<(&'static str, String)> = BTreeSet::new();
    for line in lines {
        let of = line.field("shard").or(line.field("incarnation")).unwrap_or_default();
        let is_step_of = |entry: &(&str, String)| STEPS.contains(&entry.0) && entry.1 == of;
        match line.message() {
            // Whatever was claimed or restored is given up with it, and begins again.
            "incarnation is over; all shards are claimed again" => {
                open.retain(|(phase, _)| matches!(*phase, "checkpoint" | "upload" | "cut"));
            }
            "shard failed" | "shard is stalled: it needs help" | GIVEN_UP => {
                open.retain(|(phase, shard)| phase.starts_with("commit") || *phase == "cut" || shard != of);
            }
            "restore begins" | "restore ends" => open.retain(|entry| !is_step_of(entry) && *entry != (EPOCH, of.to_owned())),
            "commit ends" => open.retain(|(phase, _)| !phase.starts_with("commit") && *phase != LISTING),
            message => {
                if let Some(ended) = message.strip_suffix(" ends") {
                    open.retain(|(phase, shard)| *phase != ended && (ended, *phase) != ("checkpoint", "upload") || shard != of);
                }
                let Some(begun) = PHASES.into_iter().find(|phase| begins(phase, line)) else { continue };
                match begun {
                    "seal" => open.retain(|(phase, shard)| *phase != EPOCH || shard != of),
                    // Of whichever shard: rather one too few.
                    "bar" | CLAIM_COMMIT => open.retain(|(phase, _)| !matches!(*phase, "claim" | "scan")),
                    LISTING => open.retain(|(phase, shard)| *phase != "upload" || shard != of),
                    _ if STEPS.contains(&begun) => open.retain(|entry| !is_step_of(entry)),
                    _ => {}
                }
                open.insert((begun, of.to_owned()));
            }
        }
    }
    open.into_iter().map(|(phase, _)| phase).collect()
}

fn is_read_on(line: &Line) -> bool {
    line.field("phase") == Some("reading-on")
}

/// Whether a commit carries records, not claims alone.
fn has_records(line: &Line) -> bool {
    line.number("records").is_some_and(|records| records > 0)
}

/// The same numbers in every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
