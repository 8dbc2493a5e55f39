//! Promise: however often and wherever workers are killed, nothing is lost and nothing comes twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use forebay_e2e::flights::{Flights, every_second, records};
use forebay_e2e::in_folder;
use forebay_e2e::job::Line;
use forebay_e2e::kafka::Broker;
use forebay_e2e::s3::S3;

/// Kills of each of the two workers.
const KILLS: usize = 30;
/// What a worker may be doing when it is killed, beside processing.
const PHASES: [&str; 4] = ["commit", "claim", "restore", "checkpoint"];

/// Method: two workers share the shards, checkpoints come every second, records come in all the time. Each worker is killed as soon as its log
/// says that the wanted phase has begun, or a few milliseconds later; its disk is lost now and then. What it was doing when it died is read
/// off its log afterwards, and each phase must have been hit. Then all is worked off, and the oracle judges.
#[test]
fn nothing_is_lost_or_doubled_by_sixty_kills() -> Result<()> {
    in_folder("kills", |folder| {
        let s3 = S3::of_environment()?;
        let flights = Flights::new(folder, Broker::of_environment()?, &s3, every_second)?;
        let records = records(336_776)?;
        let workers = [("a", "0-1"), ("b", "2-3")];
        let over = AtomicBool::new(false);
        let (fed, deaths) = thread::scope(|scope| {
            let feeder = scope.spawn(|| flights.feed_slowly(&records, &over));
            let killers = workers.map(|(name, shards)| scope.spawn(|| kill(&flights, name, shards)));
            let deaths: Vec<_> = killers.into_iter().map(|killer| killer.join().map_err(|_| anyhow!("a killer panicked"))).collect();
            over.store(true, Ordering::SeqCst);
            (feeder.join().map_err(|_| anyhow!("the feeder panicked")), deaths)
        });
        let fed = fed??;
        let mut hits: BTreeMap<&str, usize> = BTreeMap::new();
        let mut killed = 0;
        for death in deaths {
            for phases in death?? {
                killed += 1;
                phases.into_iter().for_each(|phase| *hits.entry(phase).or_default() += 1);
            }
        }
        println!("{killed} kills while {fed} records came in; of these during: {hits:?}");
        ensure!(killed == 2 * KILLS, "{killed} kills");
        for phase in PHASES {
            ensure!(hits.contains_key(phase), "no kill hit a {phase}: {hits:?}");
        }
        ensure!(fed < records.len(), "the records ran out before the kills: the last ones hit idle workers");

        let start = |(name, shards)| flights.forebay.run(name, &flights.state_dir(name), &["--shards", shards, "--until-end"]);
        let mut running = workers.map(start).into_iter().collect::<Result<Vec<_>>>()?;
        running.iter_mut().try_for_each(|process| process.success())?;
        flights.check(&records[..fed], &["a", "b"])
    })
}

/// Starts and kills one worker again and again; returns what it was doing at each death.
fn kill(flights: &Flights, name: &str, shards: &str) -> Result<Vec<BTreeSet<&'static str>>> {
    let state_dir = flights.state_dir(name);
    let mut random = Random(name.bytes().map(u64::from).sum());
    let mut deaths = Vec::new();
    for number in 0..KILLS {
        let process = flights.forebay.clone().with("RUST_LOG", "info,forebay_worker=debug").run(name, &state_dir, &["--shards", shards])?;
        let phase = PHASES[number % PHASES.len()];
        // Commits come all the time, the other phases for each of the two shards at least once in a life.
        let turn = if phase == "commit" { 1 + random.below(12) } else { 1 + random.below(2) };
        let (begin, mut behind) = (format!("{phase} begins"), 0);
        for _ in 0..turn {
            (_, behind) =
                process.wait_for_after(behind, &begin, |line| line.message() == begin).with_context(|| format!("before kill {number}"))?;
        }
        // A commit, a claim or an upload takes tens of milliseconds: this spreads the kills over them.
        thread::sleep(Duration::from_micros(random.below(20_000)));
        deaths.push(phases(&process.kill()?));
        if random.below(4) == 0 && state_dir.exists() {
            fs::remove_dir_all(&state_dir)?;
        }
    }
    Ok(deaths)
}

/// What was going on at the end of a log.
fn phases(lines: &[Line]) -> BTreeSet<&'static str> {
    let mut open: BTreeSet<(&'static str, String)> = BTreeSet::new();
    for line in lines {
        let shard = || line.field("shard").unwrap_or_default().to_owned();
        match line.message() {
            "commit begins" if has_records(line) => drop(open.insert(("commit", String::new()))),
            "commit begins" => drop(open.insert(("commit of a claim", String::new()))),
            "commit ends" => open.retain(|(phase, _)| !phase.starts_with("commit")),
            "claim begins" => drop(open.insert(("claim", shard()))),
            "restore begins" => {
                open.remove(&("claim", shard()));
                open.insert(("restore", shard()));
            }
            "restore ends" => drop(open.remove(&("restore", shard()))),
            "checkpoint begins" => drop(open.insert(("checkpoint", shard()))),
            "checkpoint ends" => drop(open.remove(&("checkpoint", shard()))),
            // Whatever was claimed or restored is given up with it, and begins again.
            "incarnation is over; all shards are claimed again" => open.retain(|(phase, _)| *phase == "checkpoint"),
            "shard failed" | "shard is stalled: it needs help" => open.retain(|(phase, of)| phase.starts_with("commit") || *of != shard()),
            _ => {}
        }
    }
    open.into_iter().map(|(phase, _)| phase).collect()
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
