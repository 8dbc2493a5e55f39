//! Many short runs in an order that a seed decides.

use std::collections::BTreeMap;

use forebay_engine::claim::VersionRule;

use super::{Budget, Claimant, Decide, Shared, WORKERS_MAX};
use crate::rng::Rng;

impl Decide for Rng {
    fn choose(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        let last = weights.iter().rposition(|weight| *weight > 0.0).expect("something is possible");
        let found = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0 && *weight > 0.0
        });
        found.unwrap_or(last)
    }
}

/// Who is next: in bursts with picks at random, or by priorities that change, so that one stands still for long while others run far ahead.
struct Order {
    seed: u64,
    change: f64,
    priorities: BTreeMap<usize, f64>,
}

impl Order {
    fn new(seed: u64, rng: &mut Rng) -> Self {
        Self { seed, change: *rng.pick(&[0.05, 0.12, 0.3]), priorities: BTreeMap::new() }
    }

    fn next(&mut self, live: &[usize], step: usize, rng: &mut Rng) -> usize {
        if self.seed.is_multiple_of(2) {
            return if rng.chance(0.4) { *rng.pick(live) } else { live[(step / 9 + self.seed as usize) % live.len()] };
        }
        if rng.chance(self.change) {
            let whom = *rng.pick(live);
            let priority = rng.unit();
            self.priorities.insert(whom, priority);
        }
        for claimant in live {
            let priority = rng.unit();
            self.priorities.entry(*claimant).or_insert(priority);
        }
        *live.iter().max_by(|a, b| self.priorities[a].total_cmp(&self.priorities[b])).expect("not empty")
    }
}

/// One run of owners that come, work, cut, release and go. Returns the number of committed epochs, or what went wrong.
pub fn run(seed: u64) -> Result<usize, String> {
    let mut rng = Rng::new(seed);
    let mut world = Shared::default();
    let mut claimants: Vec<Claimant> = Vec::new();
    let (spawn, cut) = (*rng.pick(&[0.04, 0.08, 0.15]), *rng.pick(&[0.05, 0.1, 0.3]));
    let mut order = Order::new(seed, &mut rng);
    for step in 0..60 + rng.below(340) {
        if claimants.len() < WORKERS_MAX && (claimants.is_empty() || rng.chance(spawn)) {
            // Sometimes two are told the same version, or one a stale one.
            let version = if rng.chance(0.7) { world.next_version() } else { world.version };
            claimants.push(Claimant::new(claimants.len(), VersionRule::Exactly(version), Budget::ENDLESS, false));
        }
        if !world.cuts.is_empty() && rng.chance(cut) {
            world.cut(rng.below(world.cuts.len()));
        }
        let live: Vec<usize> = (0..claimants.len()).filter(|c| claimants[*c].is_live(&world)).collect();
        if !live.is_empty() {
            let who = order.next(&live, step, &mut rng);
            claimants[who].step(&mut world, &mut rng)?;
        }
    }
    Ok(world.history().len())
}

/// What became of some starts.
#[derive(Clone, Copy, Debug)]
pub struct Starts {
    /// How many there were.
    pub workers: usize,
    /// How often one was barred and claimed again.
    pub again: usize,
}

/// Starts without an operator, several at a time, that may not see each other; each works a little. `Err` when it never ends, or when in the end
/// not exactly one has the shard.
pub fn starts(seed: u64) -> Result<Starts, String> {
    /// A start takes some thirty steps, and each may be barred a few times by the others.
    const STEPS_MAX: usize = 5_000;
    let mut rng = Rng::new(seed);
    let mut world = Shared::default();
    let budget = Budget {
        epochs: rng.below(3) as u8,
        uploads: rng.below(2) as u8,
        cuts: rng.below(2) as u8,
        releases: 0,
        returns: false,
        aborts: false,
    };
    let mut claimants: Vec<_> = (0..2 + rng.below(3)).map(|worker| Claimant::new(worker, VersionRule::AboveAll, budget, true)).collect();
    let mut order = Order::new(seed, &mut rng);
    let unfair = rng.below(300);
    for step in 0..STEPS_MAX {
        if !world.cuts.is_empty() && rng.chance(0.1) {
            world.cut(0);
        }
        let live: Vec<usize> = (0..claimants.len()).filter(|c| claimants[*c].is_live(&world)).collect();
        if live.is_empty() {
            super::one_owner(&world, &claimants)?;
            let incarnations: usize = claimants.iter().map(Claimant::incarnations).sum();
            return Ok(Starts { workers: claimants.len(), again: incarnations - claimants.len() });
        }
        let who = if step < unfair { order.next(&live, step, &mut rng) } else { live[step % live.len()] };
        claimants[who].step(&mut world, &mut rng)?;
    }
    Err(format!("after {STEPS_MAX} steps nobody has won"))
}
