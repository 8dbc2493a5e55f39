//! Which of several operators acts, decided as Kubernetes' own components do it: by a Lease that the leader renews. Pure.
//!
//! The times written in the lease are for people. How long it has stood unchanged is measured by one's own clock, so clocks that differ do no harm;
//! and every write names the version that it was decided on, so of two that take it at once one is refused.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

/// A lease that stands unchanged for so long is up for anybody.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long does not act any more. The rest of the lease's duration is for what it has sent last to arrive.
pub const ACT_DURATION: Duration = Duration::from_secs(10);
/// How often the lease is looked at, and renewed: several times within [`ACT_DURATION`].
pub const RENEW_INTERVAL: Duration = Duration::from_secs(2);

/// What to write, if anything.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Somebody else leads.
    Wait,
    /// There is no lease yet: make this one.
    Create(Lease),
    /// Replace the lease that was read by this one.
    Replace(Lease),
}

/// What one candidate remembers of the lease.
#[derive(Debug)]
pub struct Election {
    me: String,
    /// What the lease said when it last changed, and when that was seen.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Election {
    /// A candidate by its name, which no other one has.
    pub fn new(me: String) -> Self {
        Self { me, seen: None }
    }

    /// What to do about the lease as it was read.
    pub fn step(&mut self, lease: Option<&Lease>, now: Instant, wall: Timestamp) -> Step {
        let Some(lease) = lease else { return Step::Create(self.taken(&Lease::default(), wall)) };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        if holder.as_ref() == Some(&self.me) {
            return Step::Replace(renewed(lease, wall));
        }
        let since = match &self.seen {
            Some((before, since)) if *before == spec => *since,
            _ => now,
        };
        // The holder knows best how long it means to act; one that does not say is one of ours.
        let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let is_up = now - since >= lasts.map_or(LEASE_DURATION, Duration::from_secs);
        self.seen = Some((spec, since));
        if holder.is_none() || is_up { Step::Replace(self.taken(lease, wall)) } else { Step::Wait }
    }

    /// The lease as one leaves it: the next one need not wait. `None` if it is another's.
    pub fn released(&self, lease: &Lease) -> Option<Lease> {
        let mut lease = lease.clone();
        let spec = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.me))?;
        spec.holder_identity = None;
        Some(lease)
    }

    fn taken(&self, lease: &Lease, wall: Timestamp) -> Lease {
        let transitions = lease.spec.as_ref().map_or(0, |spec| spec.lease_transitions.unwrap_or(0) + 1);
        let mut lease = lease.clone();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: Some(MicroTime(wall)),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        });
        lease
    }
}

fn renewed(lease: &Lease, wall: Timestamp) -> Lease {
    let mut lease = lease.clone();
    let spec = lease.spec.get_or_insert_default();
    spec.renew_time = Some(MicroTime(wall));
    spec.lease_duration_seconds = i32::try_from(LEASE_DURATION.as_secs()).ok();
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn written(step: Step) -> Lease {
        match step {
            Step::Create(lease) | Step::Replace(lease) => lease,
            Step::Wait => panic!("nothing was to be written"),
        }
    }

    fn holder(lease: &Lease) -> Option<&str> {
        lease.spec.as_ref().unwrap().holder_identity.as_deref()
    }

    #[test]
    fn the_first_one_takes_it_and_renews_it() {
        let (mut one, now) = (Election::new("one".into()), Instant::now());
        let step = one.step(None, now, wall(100));
        assert!(matches!(step, Step::Create(_)));
        let lease = written(step);
        assert_eq!(holder(&lease), Some("one"));
        let renewed = written(one.step(Some(&lease), now + RENEW_INTERVAL, wall(102)));
        let spec = renewed.spec.as_ref().unwrap();
        assert_eq!((spec.renew_time.clone(), spec.acquire_time.clone()), (Some(MicroTime(wall(102))), Some(MicroTime(wall(100)))));
        assert_eq!(spec.lease_transitions, Some(0));
    }

    #[test]
    fn another_takes_it_only_when_it_has_stood_unchanged_by_its_own_clock() {
        // The leader's clock is a day ahead, and then a day behind: it makes no difference.
        for wall_of_leader in [100 + 86_400, 100 - 86_400] {
            let (mut one, mut two, now) = (Election::new("one".into()), Election::new("two".into()), Instant::now());
            let first = written(one.step(None, now, wall(wall_of_leader)));
            assert_eq!(two.step(Some(&first), now, wall(100)), Step::Wait);
            assert_eq!(two.step(Some(&first), now + Duration::from_secs(14), wall(114)), Step::Wait);
            let second = written(one.step(Some(&first), now + Duration::from_secs(14), wall(wall_of_leader + 14)));
            assert_eq!(two.step(Some(&second), now + Duration::from_secs(16), wall(116)), Step::Wait);
            assert_eq!(two.step(Some(&second), now + Duration::from_secs(30), wall(130)), Step::Wait);
            let third = written(two.step(Some(&second), now + Duration::from_secs(31), wall(131)));
            assert_eq!((holder(&third), third.spec.as_ref().unwrap().lease_transitions), (Some("two"), Some(1)));
            assert_eq!(one.step(Some(&third), now + Duration::from_secs(31), wall(131)), Step::Wait);
        }
    }

    #[test]
    fn a_lease_that_was_released_is_taken_at_once() {
        let (mut one, mut two, now) = (Election::new("one".into()), Election::new("two".into()), Instant::now());
        let lease = written(one.step(None, now, wall(100)));
        assert_eq!(two.released(&lease), None);
        let released = one.released(&lease).unwrap();
        assert_eq!(holder(&written(two.step(Some(&released), now, wall(100)))), Some("two"));
    }

    #[test]
    fn a_write_names_the_version_that_was_read() {
        let (mut one, now) = (Election::new("one".into()), Instant::now());
        let mut lease = written(one.step(None, now, wall(100)));
        lease.metadata.resource_version = Some("7".into());
        assert_eq!(written(one.step(Some(&lease), now, wall(101))).metadata.resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn who_leads_stops_before_another_may_begin() {
        const { assert!(ACT_DURATION.as_secs() < LEASE_DURATION.as_secs() && RENEW_INTERVAL.as_secs() * 3 < ACT_DURATION.as_secs()) };
    }
}
