//! All orders in which a few claimants can take their steps: every schedule, every choice of an owner, every moment at which a cut arrives. What
//! is found here is no matter of luck, and what is not found is not there, within the bounds. A crash is a claimant that takes no more steps,
//! so every crash is among the schedules.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use forebay_engine::claim::VersionRule;

use super::{Budget, Claimant, Decide, Shared};

/// What was there to see.
#[derive(Clone, Copy, Debug, Default)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Of these, the ones in which nobody has anything left to do, or nobody can commit anything any more.
    pub ends: usize,
    /// Committed epochs, over all steps from one state to another.
    pub commits: usize,
}

/// Runs everything that these claimants can do. With `comes_back` one that is barred claims again under a new incarnation, and in every end exactly
/// one must own the shard. `Err` is the first violation.
pub fn explore(claimants: &[(VersionRule, Budget)], comes_back: bool) -> Result<Explored, String> {
    let versions = claimants.iter().filter_map(|(rule, _)| if let VersionRule::Exactly(version) = rule { Some(*version) } else { None });
    let world = Shared { version: versions.max().unwrap_or_default(), ..Shared::default() };
    let claimants =
        claimants.iter().enumerate().map(|(worker, (rule, budget))| Claimant::new(worker, *rule, *budget, comes_back)).collect();
    let mut search = Search { seen: BTreeSet::new(), left: Vec::new(), explored: Explored::default() };
    search.visit(Node { world, claimants });
    while let Some(node) = search.left.pop() {
        if !comes_back && !node.claimants.iter().any(|claimant| claimant.may_commit(&node.world)) {
            search.explored.ends += 1;
            continue;
        }
        let steps = search.follow(&node)?;
        if steps == 0 {
            search.explored.ends += 1;
            if comes_back {
                super::one_owner(&node.world, &node.claimants)?;
            }
        }
    }
    Ok(search.explored)
}

#[derive(Clone, Hash)]
struct Node {
    world: Shared,
    claimants: Vec<Claimant>,
}

struct Search {
    /// Hashes of states. Two that collide hide one of them: with a million states that is one chance in forty million.
    seen: BTreeSet<u64>,
    left: Vec<Node>,
    explored: Explored,
}

impl Search {
    /// Takes every step that can be taken; returns how many there were.
    fn follow(&mut self, node: &Node) -> Result<usize, String> {
        let mut steps = 0;
        for who in (0..node.claimants.len()).filter(|who| node.claimants[*who].is_live(&node.world)) {
            let mut script = Script::default();
            loop {
                let mut next = node.clone();
                next.claimants[who].step(&mut next.world, &mut script)?;
                steps += 1;
                self.explored.commits += next.world.history().len() - node.world.history().len();
                self.visit(next);
                if !script.advance() {
                    break;
                }
            }
        }
        for cut in 0..node.world.cuts.len() {
            let mut next = node.clone();
            next.world.cut(cut);
            steps += 1;
            self.visit(next);
        }
        Ok(steps)
    }

    fn visit(&mut self, node: Node) {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        if self.seen.insert(hasher.finish()) {
            self.explored.states += 1;
            self.left.push(node);
        }
    }
}

/// The choices of one step: first the first of each, then all others, like the digits of a number.
#[derive(Default)]
struct Script {
    /// What was chosen, of how many.
    chosen: Vec<(usize, usize)>,
    at: usize,
}

impl Script {
    /// The next combination; `false` when all were there.
    fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, of)) = self.chosen.pop() {
            if choice + 1 < of {
                self.chosen.push((choice + 1, of));
                return true;
            }
        }
        false
    }
}

impl Decide for Script {
    fn choose(&mut self, weights: &[f64]) -> usize {
        let possible: Vec<usize> = (0..weights.len()).filter(|index| weights[*index] > 0.0).collect();
        if self.at == self.chosen.len() {
            self.chosen.push((0, possible.len()));
        }
        self.at += 1;
        possible[self.chosen[self.at - 1].0]
    }
}
