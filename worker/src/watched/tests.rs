//! Questions and reads against a log that hangs, fails and panics when told to.

use std::sync::atomic::Ordering;

use super::*;
use crate::committer::tests::{Fake, fake};
use crate::status::Status;
use crate::watchdog::tests::impatient;

fn watched(impatient_with: &[&str]) -> (Watched<Fake>, Arc<Status>, crossbeam_channel::Sender<()>) {
    let status = Arc::<Status>::default();
    let (log, release, _) = fake(impatient_with);
    (Watched::new(Arc::new(log), Arc::new(impatient(&status))), status, release)
}

/// Reads a journal; returns what it was handed and how it ended.
fn read(log: &Watched<Fake>, shard: u32) -> (Vec<u64>, Result<JournalRange, String>) {
    let mut seen = Vec::new();
    let end =
        log.read_journal(ShardId::new(shard), JournalOffset::default(), View::Uncommitted, &mut |entry| seen.push(entry.offset.get()));
    (seen, end.map_err(|error| error.to_string()))
}

#[test]
fn a_read_that_stops_in_the_middle_is_given_up_as_an_error_that_passes() {
    // Method: the log hands out one record of shard 1 and hangs until the end of the test. Shard 0's is read meanwhile.
    let (log, status, release) = watched(&["read"]);
    let failed = log.read_journal(ShardId::new(1), JournalOffset::default(), View::Uncommitted, &mut |_| {}).unwrap_err();
    assert_eq!(
        failed.to_string(),
        "read the journal of shard 1 from offset 0: no answer in 0 s, and the call has a deadline of its own; it is given up"
    );
    assert!(matches!(Failure::from(failed), Failure::Passing(_)));
    assert_eq!(status.counters.calls_given_up.load(Ordering::Relaxed), 1);
    drop(release);
}

#[test]
fn all_records_of_a_read_arrive_in_order_and_its_end_is_the_logs() {
    let (log, ..) = watched(&[]);
    let (seen, end) = read(&log, 0);
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert_eq!(end.unwrap().end, JournalOffset::new(100));
    assert_eq!(read(&log, 2).1.unwrap_err(), "read: told to");
    assert_eq!(read(&log, 3).1.unwrap_err(), "read the journal of shard 3 from offset 0: its thread panicked");
}

#[test]
fn a_question_that_is_never_answered_is_given_up_too() {
    let (log, _, release) = watched(&["read"]);
    let failed = log.ask("look at the job's topics", Log::describe).unwrap_err();
    assert_eq!(failed.to_string(), "look at the job's topics: no answer in 0 s, and the call has a deadline of its own; it is given up");
    drop(release);
}
