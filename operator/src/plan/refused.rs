//! Pods that the API server does not take: what it says, and for how long that is listened to.

use std::time::Duration;

/// For so long the API server is asked again for a pod that it may take another time: a quota may have room when another pod has ended, which takes
/// seconds.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(20);

/// What the API server has against an object that was to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its own words.
    pub message: String,
    /// Whether it may take the very same another time: there is no room in a quota, say.
    pub may_pass: bool,
}

/// That the API server refuses pods, all of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it has against the last one.
    pub refusal: Refusal,
    /// For how long it has not taken any, as far as this operator has tried.
    pub since: Duration,
}

impl Refused {
    /// Whether trying on makes no sense.
    pub fn is_final(&self) -> bool {
        !self.refusal.may_pass || self.since >= REFUSED_TIMEOUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_for_a_while() {
        let is_final = |may_pass, seconds| {
            let refusal = Refusal { message: "no".into(), may_pass };
            Refused { refusal, since: Duration::from_secs(seconds) }.is_final()
        };
        assert!(is_final(false, 0));
        assert!(!is_final(true, 19) && is_final(true, 20));
    }
}
