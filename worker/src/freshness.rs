//! For how long the oldest record that is not processed yet has waited. Told without reading it: it came behind the last one that was read of its partition, and
//! after the partition was last seen to be at its end.

use std::collections::BTreeMap;

use forebay_engine::ids::{InputId, Partition, Timestamp};
use forebay_engine::log::InputProgress;

/// What is known of a shard's partitions.
#[derive(Default)]
pub(crate) struct Freshness {
    partitions: BTreeMap<(InputId, Partition), Known>,
}

/// The next record is not older than either of these.
#[derive(Default)]
struct Known {
    /// The time of the last record that was read.
    read: Option<Timestamp>,
    /// When nothing waited.
    at_end: Option<Timestamp>,
}

/// What a batch has read so far: per record a comparison is all that it costs.
#[derive(Default)]
pub(crate) struct Batch {
    read: Vec<((InputId, Partition), Timestamp)>,
}

impl Batch {
    /// A record was read.
    pub fn read(&mut self, input: InputId, partition: Partition, time: Timestamp) {
        match self.read.last_mut() {
            Some((place, last)) if *place == (input, partition) => *last = time,
            Some(_) | None => self.read.push(((input, partition), time)),
        }
    }
}

impl Freshness {
    /// After a batch: milliseconds that the oldest record waits, 0 if none does, `None` if nothing is known of those that do.
    pub fn after(&mut self, batch: &Batch, progress: &[InputProgress], now: Timestamp) -> Option<u64> {
        for (place, time) in &batch.read {
            // A record without a time says nothing.
            self.partitions.entry(*place).or_default().read = Some(*time).filter(|time| time.as_millis() >= 0);
        }
        let mut oldest = Some(now);
        for progress in progress {
            let position = &progress.position;
            let known = self.partitions.entry((position.input, position.partition)).or_default();
            if progress.end <= position.next {
                known.at_end = Some(now);
                continue;
            }
            oldest = oldest.zip(known.read.max(known.at_end)).map(|(oldest, since)| oldest.min(since));
        }
        oldest.map(|since| u64::try_from(now.as_millis().saturating_sub(since.as_millis())).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    //! Method: what was read and how far partitions reach is written down, and what is said of it compared.

    use forebay_engine::ids::Offset;
    use forebay_engine::log::InputPosition;

    use super::*;

    const INPUT: InputId = InputId::new(0);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// One partition: its number, and how many records wait.
    fn progress(partition: u32, waiting: u64) -> InputProgress {
        let position = InputPosition { input: INPUT, partition: Partition::new(partition), next: Offset::new(10) };
        InputProgress { position, end: Offset::new(10 + waiting) }
    }

    fn batch(read: &[(u32, i64)]) -> Batch {
        let mut batch = Batch::default();
        read.iter().for_each(|(partition, time)| batch.read(INPUT, Partition::new(*partition), at(*time)));
        batch
    }

    #[test]
    fn the_oldest_record_that_waits_is_as_old_as_the_last_one_that_was_read_before_it() {
        let mut freshness = Freshness::default();
        assert_eq!(freshness.after(&batch(&[(0, 5), (0, 7), (1, 2)]), &[progress(0, 3), progress(1, 0)], at(20)), Some(13_000));
        assert_eq!(freshness.after(&batch(&[]), &[progress(0, 3), progress(1, 0)], at(21)), Some(14_000));
        assert_eq!(freshness.after(&batch(&[(1, 4)]), &[progress(0, 0), progress(1, 0)], at(22)), Some(0));
    }

    #[test]
    fn what_comes_after_a_pause_has_not_waited_for_the_pause() {
        let mut freshness = Freshness::default();
        assert_eq!(freshness.after(&batch(&[(0, 5)]), &[progress(0, 0)], at(100)), Some(0));
        assert_eq!(freshness.after(&batch(&[]), &[progress(0, 1)], at(101)), Some(1_000));
        // Events of old times that are put in now are no older than that either.
        assert_eq!(freshness.after(&batch(&[(0, 6)]), &[progress(0, 1)], at(102)), Some(2_000));
    }

    #[test]
    fn what_is_not_known_is_not_said_and_a_time_to_come_is_no_age() {
        let mut freshness = Freshness::default();
        assert_eq!(freshness.after(&batch(&[]), &[progress(0, 3)], at(20)), None);
        assert_eq!(freshness.after(&batch(&[(0, -1)]), &[progress(0, 2)], at(20)), None);
        assert_eq!(freshness.after(&batch(&[(0, 90)]), &[progress(0, 1)], at(20)), Some(0));
        assert_eq!(freshness.after(&batch(&[(0, 15)]), &[progress(0, 1)], at(20)), Some(5_000));
    }
}
