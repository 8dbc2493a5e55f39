//! The one source of randomness of a run: everything that a seed decides comes from here, in the order in which it is asked for.

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// Random numbers from a seed.
#[derive(Debug)]
pub struct Rng(SmallRng);

impl Rng {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// True once in so many.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.0.random::<f64>() < probability
    }

    /// A number below `end`; `end` must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        self.0.random::<f64>()
    }

    /// One of several things; there must be one.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
