//! Whether a shard keeps up with its input, from a few looks at its lag, and how much of it becomes dead letters. A lag that is large says nothing: the job may have
//! begun with it. One that grows does, if it goes on growing.

use std::collections::VecDeque;
use std::time::Duration;

/// A lag that has grown in so many windows one after another is taken to grow without end. A burst makes it grow in one or two.
pub const WINDOWS: u32 = 3;
/// What is looked at in each window: its two ends would do for one window, but not for the next look's.
const SAMPLES_PER_WINDOW: u32 = 12;
/// In percent of what comes in: what a lag must grow by, for less may be by chance.
const GROWTH_PERCENT_MIN: u64 = 10;
/// In windows: whoever is behind by more than comes in meanwhile was so before, and nobody knows whether it would have kept up with it. A move of the
/// shard costs less.
const BACKLOG_WINDOWS: u32 = 2;

/// One look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When, by any clock that does not go back.
    pub at: Duration,
    /// The records that waited.
    pub lag_records: u64,
    /// The records that had been taken in, ever.
    pub records_in: u64,
    /// Those of them that had become dead letters.
    pub rejected: u64,
}

impl Sample {
    fn taken(&self) -> Taken {
        Taken { records: self.records_in, rejected: self.rejected }
    }
}

/// Records that were taken in, and those of them that became dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// All of them.
    pub records: u64,
    /// The dead letters.
    pub rejected: u64,
}

impl Taken {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self { records: self.records + other.records, rejected: self.rejected + other.rejected }
    }

    /// What has come since then.
    pub fn since(self, before: Self) -> Self {
        Self { records: self.records.saturating_sub(before.records), rejected: self.rejected.saturating_sub(before.rejected) }
    }

    /// The share of the dead letters.
    pub fn permille(self) -> u64 {
        (self.rejected * 1000).checked_div(self.records).unwrap_or(0)
    }
}

/// The last looks, the oldest first. Never more than are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trend(VecDeque<Sample>);

/// What they tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It has not been looked at for a whole window.
    Unknown,
    /// It does not fall behind, as far as can be told.
    KeepsUp,
    /// Its lag has grown in each of the last windows: how many, how many records waited before, and how many do now.
    FallsBehind(u32, u64, u64),
}

impl Trend {
    /// Adds a look, and forgets those that lie too far back.
    pub fn add(&mut self, sample: Sample, window: Duration) {
        let spacing = window / SAMPLES_PER_WINDOW;
        // The last one is of now; those before have their distance.
        if self.0.len() >= 2 && self.0[self.0.len() - 1].at < self.0[self.0.len() - 2].at + spacing {
            self.0.pop_back();
        }
        self.0.push_back(sample);
        while self.0.len() >= 2 && self.0[1].at + window * WINDOWS <= sample.at {
            self.0.pop_front();
        }
    }

    /// What can be said by now.
    pub fn course(&self, window: Duration) -> Course {
        let Some(now) = self.0.back() else { return Course::Unknown };
        let mut ends = (0..=WINDOWS).map_while(|number| self.before(now.at.checked_sub(window * number)?));
        let (Some(mut newer), mut grew, mut is_known) = (ends.next(), 0, false) else { return Course::Unknown };
        let last = newer;
        for older in ends {
            is_known = true;
            if !has_grown(older, newer) {
                break;
            }
            (newer, grew) = (older, grew + 1);
        }
        match (is_known, grew) {
            (false, _) => Course::Unknown,
            (true, 0) => Course::KeepsUp,
            (true, _) if is_backlog(newer, last, window) => Course::KeepsUp,
            (true, grew) => Course::FallsBehind(grew, newer.lag_records, last.lag_records),
        }
    }

    /// The first look and the last one that are remembered; between them lie three windows at most.
    pub fn span(&self) -> Option<(Duration, Duration)> {
        Some((self.0.front()?.at, self.0.back()?.at))
    }

    /// What had been taken in at a time between the looks, as if it had come evenly from one to the next. `origin`: what is known of a time before the first one.
    pub fn taken_at(&self, at: Duration, origin: Option<(Duration, Taken)>) -> Taken {
        let looks = || origin.into_iter().chain(self.0.iter().map(|sample| (sample.at, sample.taken())));
        let Some((from, until)) = looks()
            .take_while(|look| look.0 <= at)
            .last()
            .or_else(|| looks().next())
            .map(|from| (from, looks().find(|look| look.0 > at).unwrap_or(from)))
        else {
            return Taken::default();
        };
        let part = |from_count: u64, until_count: u64, done: Duration, all: Duration| {
            let more = u128::from(until_count.saturating_sub(from_count)) * done.as_millis() / all.as_millis().max(1);
            from_count + u64::try_from(more).unwrap_or(u64::MAX)
        };
        let (done, all) = (at.saturating_sub(from.0), until.0 - from.0);
        let between = |of: fn(Taken) -> u64| part(of(from.1), of(until.1), done, all);
        Taken { records: between(|taken| taken.records), rejected: between(|taken| taken.rejected) }
    }

    fn before(&self, at: Duration) -> Option<Sample> {
        self.0.iter().rev().find(|sample| sample.at <= at).copied()
    }
}

fn has_grown(older: Sample, newer: Sample) -> bool {
    let grown = newer.lag_records.saturating_sub(older.lag_records);
    grown > 0 && grown * 100 > came_in(older, newer) * GROWTH_PERCENT_MIN
}

fn came_in(older: Sample, newer: Sample) -> u64 {
    let grown = newer.lag_records.saturating_sub(older.lag_records);
    grown + newer.records_in.saturating_sub(older.records_in)
}

fn is_backlog(older: Sample, newer: Sample, window: Duration) -> bool {
    let backlog = u128::from(older.lag_records) * (newer.at - older.at).as_millis();
    backlog > u128::from(came_in(older, newer)) * (window * BACKLOG_WINDOWS).as_millis()
}

#[cfg(test)]
mod tests {
    //! Method: a shard gets so many records a second and takes so many; what is told of it is compared.

    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    /// Second by second: what waits at first, and what comes in and what can be taken by the second.
    fn trend(seconds: u64, backlog: u64, comes: impl Fn(u64) -> u64, takes: u64) -> Trend {
        let (mut trend, mut lag_records, mut records_in) = (Trend::default(), backlog, 1_000_000);
        for second in 0..=seconds {
            trend.add(Sample { at: Duration::from_secs(500 + second), lag_records, records_in, rejected: 0 }, WINDOW);
            lag_records += comes(second);
            let taken = takes.min(lag_records);
            (lag_records, records_in) = (lag_records - taken, records_in + taken);
        }
        assert!(trend.0.len() <= (WINDOWS * SAMPLES_PER_WINDOW + 2) as usize, "{trend:?}");
        trend
    }

    fn check(trend: &Trend, expected: Course) {
        assert_eq!(trend.course(WINDOW), expected, "{trend:?}");
    }

    #[test]
    fn a_lag_that_grows_on_and_on_is_told_from_one_that_is_large() {
        check(&Trend::default(), Course::Unknown);
        check(&trend(29, 0, |_| 100, 50), Course::Unknown);
        check(&trend(30, 0, |_| 100, 50), Course::FallsBehind(1, 0, 1500));
        check(&trend(90, 200, |_| 100, 50), Course::FallsBehind(3, 200, 4700));
        check(&trend(90, 0, |_| 100, 100), Course::KeepsUp);
        // Work that is done step by step leaves a remainder that is not always the same.
        check(&trend(90, 0, |second| 100 + second % 7, 110), Course::KeepsUp);
        check(&trend(90, 1_000_000, |_| 100, 500), Course::KeepsUp);
    }

    #[test]
    fn who_was_behind_before_is_not_to_blame() {
        check(&trend(90, 6000, |_| 100, 50), Course::FallsBehind(3, 6000, 10_500));
        check(&trend(90, 6100, |_| 100, 50), Course::KeepsUp);
    }

    #[test]
    fn what_was_taken_in_between_two_looks_is_a_part_of_what_came_meanwhile() {
        let taken = |records, rejected| Taken { records, rejected };
        let mut trend = Trend::default();
        for (at, records_in, rejected) in [(100, 1000, 10), (110, 2000, 110), (120, 2000, 110)] {
            trend.add(Sample { at: Duration::from_secs(at), lag_records: 0, records_in, rejected }, WINDOW);
        }
        let at = |seconds, origin| trend.taken_at(Duration::from_secs(seconds), origin);
        assert_eq!(
            [100, 105, 110, 119, 120, 130].map(|seconds| at(seconds, None)),
            [(1000, 10), (1500, 60), (2000, 110), (2000, 110), (2000, 110), (2000, 110)]
                .map(|(records, rejected)| taken(records, rejected))
        );
        // What was before the first look is known or not.
        assert_eq!(at(90, None), taken(1000, 10));
        let origin = Some((Duration::from_secs(80), taken(600, 0)));
        assert_eq!([70, 80, 90, 105].map(|seconds| at(seconds, origin)), [taken(600, 0), taken(600, 0), taken(800, 5), taken(1500, 60)]);
        assert_eq!(Trend::default().taken_at(Duration::ZERO, None), Taken::default());
    }

    #[test]
    fn a_burst_is_no_trend() {
        let burst = |at: u64| move |second| if second == at { 20_000 } else { 100 };
        check(&trend(90, 0, burst(85), 500), Course::FallsBehind(1, 0, 17_900));
        for later in 86..200 {
            let course = trend(later, 0, burst(85), 500).course(WINDOW);
            assert!(!matches!(course, Course::FallsBehind(2.., ..)), "{course:?} after {later} s");
        }
        check(&trend(140, 0, burst(85), 500), Course::KeepsUp);
    }
}
