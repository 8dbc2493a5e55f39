//! The one place where the machine's clock is read.
//!
//! A worker's clock is bounded by the log's: each commit tells when the broker appended the journal's records, and by how much this machine's
//! clock runs ahead at least. That much is taken off. Else one machine whose clock runs ahead would set a shard's epoch clock to a time that the
//! shard's next owners, who never go back (I7), would be stuck at until it has come.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay_engine::ids::Timestamp;

/// The time of day, as the machine has it. May go back.
pub fn now() -> Timestamp {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// Below this it is not worth a warning: clocks that are kept in step differ by milliseconds.
const NOTABLE: Duration = Duration::from_secs(10);

/// A worker's clock. Shared by its threads.
pub struct Clock {
    read: Box<dyn Fn() -> Timestamp + Send + Sync>,
    began: (Timestamp, Instant),
    /// How far it runs ahead of the log's, as the last commit has shown.
    ahead_millis: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(now)
    }
}

impl Clock {
    /// A clock that reads the time of day from elsewhere.
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let began = (read(), Instant::now());
        Self { read: Box::new(read), began, ahead_millis: AtomicI64::new(0) }
    }

    /// The time of day, less what it is known to be ahead. May go back; whoever needs more keeps the highest value.
    pub fn now(&self) -> Timestamp {
        let ahead = self.ahead_millis.load(Ordering::Relaxed);
        Timestamp::from_millis(self.read().as_millis().saturating_sub(ahead))
    }

    /// For pauses and deadlines: near the time of day when the worker began, never goes back, and is not set by anybody.
    pub(crate) fn steady(&self) -> Timestamp {
        let passed = i64::try_from(self.began.1.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.began.0.as_millis().saturating_add(passed))
    }

    /// The machine's own opinion, to be compared by [`Clock::compare`] later.
    pub(crate) fn read(&self) -> Timestamp {
        (self.read)()
    }

    /// What was sent at `sent` by [`Clock::read`] was appended at `appended` by the log's clock, and not before it was sent. A clock that has
    /// been set right meanwhile is believed again.
    pub(crate) fn compare(&self, sent: Timestamp, appended: Timestamp) {
        let ahead = sent.as_millis().saturating_sub(appended.as_millis()).max(0);
        let before = self.ahead_millis.swap(ahead, Ordering::Relaxed);
        let notable = i64::try_from(NOTABLE.as_millis()).unwrap_or(i64::MAX);
        if ahead >= notable && before < notable {
            tracing::warn!(ahead_seconds = ahead / 1000, "this machine's clock runs ahead of the brokers'; the difference is taken off");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn time(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// A clock that shows what the number says.
    fn clock_at(shown: &Arc<AtomicI64>) -> Clock {
        let shown = shown.clone();
        Clock::new(move || time(shown.load(Ordering::Relaxed)))
    }

    #[test]
    fn what_a_clock_is_proven_to_be_ahead_is_taken_off_until_it_is_set_right() {
        const HOUR: i64 = 3_600_000;
        let shown = Arc::new(AtomicI64::new(HOUR + 1_000));
        let clock = clock_at(&shown);
        assert_eq!(clock.now(), time(HOUR + 1_000), "nothing is known yet");
        // Sent at second 1 of the log's clock, appended 20 ms later.
        clock.compare(clock.read(), time(1_020));
        assert_eq!(clock.now(), time(1_020));
        shown.store(HOUR + 2_000, Ordering::Relaxed);
        assert_eq!(clock.now(), time(2_020), "it goes on from there");
        shown.store(3_000, Ordering::Relaxed);
        clock.compare(clock.read(), time(3_005));
        assert_eq!(clock.now(), time(3_000));
    }

    #[test]
    fn a_clock_that_runs_behind_is_left_alone() {
        let shown = Arc::new(AtomicI64::new(5_000));
        let clock = clock_at(&shown);
        clock.compare(clock.read(), time(9_000));
        assert_eq!(clock.now(), time(5_000));
    }

    #[test]
    fn pauses_are_measured_by_what_nobody_sets() {
        let shown = Arc::new(AtomicI64::new(9_000));
        let clock = clock_at(&shown);
        shown.store(1, Ordering::Relaxed);
        assert!(clock.steady() >= time(9_000));
    }
}
