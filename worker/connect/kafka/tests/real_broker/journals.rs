//! The journal's views, its end, cuts, and what is gone.

use std::time::Duration;

use forebay_engine::ids::{JournalOffset, ShardId};
use forebay_engine::log::{Log, LogError, View};
use rdkafka::producer::Producer as _;

use crate::world::{PATIENCE, World, claim, committed, journal_of, world, world_with};

fn values(entries: Vec<(u64, Vec<u8>)>) -> Vec<String> {
    entries.into_iter().map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

/// A commit, or its opposite, is acknowledged before its marker lies in the partition.
fn await_end(world: &World, shard: u32, end: u64) {
    let asked = std::time::Instant::now();
    while world.log.journal_range(ShardId::new(shard)).unwrap().end.get() < end && asked.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
}

#[test]
fn views_differ_by_what_an_open_transaction_hides() {
    let Some(world) = world_with(1, 1, |mut options| {
        options.stable_timeout = Duration::from_secs(1);
        options
    }) else {
        return;
    };
    let mut producer = world.producer("w0.1");
    committed(&mut producer, &journal_of(0, &[b"first"]));
    await_end(&world, 0, 2);
    let foreign = world.foreign("w7.3");
    world.leave_open(&foreign, 0, &claim(0, "w7.3"));
    committed(&mut producer, &journal_of(0, &[b"behind it"]));
    await_end(&world, 0, 5);
    let (all, range) = world.journal(0, 0, View::Uncommitted).unwrap();
    assert_eq!(all.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 2, 3]);
    assert_eq!(range.end.get(), 5);
    let (so_far, range) = world.journal(0, 0, View::CommittedSoFar).unwrap();
    assert_eq!((values(so_far), range.end.get()), (vec!["first".to_owned()], 2));
    for from in [0, 5] {
        let error = world.journal(0, from, View::CommittedToEnd).unwrap_err();
        let LogError::Unavailable { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains("offset 2") && reason.contains("worker w7 (incarnation w7.3)"), "{reason}");
    }
    foreign.abort_transaction(PATIENCE).unwrap();
    await_end(&world, 0, 6);
    let (to_end, range) = world.journal(0, 0, View::CommittedToEnd).unwrap();
    assert_eq!((values(to_end), range.end.get()), (vec!["first".to_owned(), "behind it".to_owned()], 6));
    // Uncommitted readers go on seeing what was aborted.
    assert_eq!(world.journal(0, 0, View::Uncommitted).unwrap().0.len(), 3);
}

#[test]
fn reading_to_the_end_waits_for_an_open_transaction_and_then_sees_it() {
    let Some(world) = world(1, 1) else { return };
    let foreign = world.foreign("w7.3");
    world.leave_open(&foreign, 0, b"late");
    std::thread::scope(|scope| {
        let read = scope.spawn(|| world.journal(0, 0, View::CommittedToEnd).unwrap());
        foreign.commit_transaction(PATIENCE).unwrap();
        assert_eq!(values(read.join().unwrap().0), ["late"]);
    });
}

#[test]
fn each_read_of_a_kept_reader_begins_where_it_is_told() {
    let Some(world) = world(2, 1) else { return };
    let mut producer = world.producer("w0.1");
    for number in 0..5u8 {
        committed(&mut producer, &journal_of(0, &[&[number]]));
        committed(&mut producer, &journal_of(1, &[&[100 + number]]));
    }
    await_end(&world, 0, 10);
    await_end(&world, 1, 10);
    for view in [View::Uncommitted, View::CommittedSoFar, View::CommittedToEnd] {
        // Up, down, across shards, and from the end: a position left from the read before would show.
        for (shard, from, expected) in
            [(0, 0, vec![0, 1, 2, 3, 4]), (0, 8, vec![4]), (1, 0, vec![100, 101, 102, 103, 104]), (0, 10, vec![]), (0, 2, vec![1, 2, 3, 4])]
        {
            let (entries, range) = world.journal(shard, from, view).unwrap();
            assert_eq!(
                entries.into_iter().map(|(_, bytes)| bytes[0]).collect::<Vec<_>>(),
                expected,
                "{view:?} of shard {shard} from {from}"
            );
            assert_eq!(range.end.get(), 10);
        }
    }
}

#[test]
fn a_cut_journal_says_so_and_keeps_what_lies_behind() {
    let Some(world) = world(1, 1) else { return };
    let mut producer = world.producer("w0.1");
    for value in [b"a", b"b", b"c"] {
        committed(&mut producer, &journal_of(0, &[value]));
    }
    await_end(&world, 0, 6);
    let shard = ShardId::new(0);
    world.log.cut_journal(shard, JournalOffset::new(4)).unwrap();
    // Cutting again, or less, is no error.
    world.log.cut_journal(shard, JournalOffset::new(4)).unwrap();
    world.log.cut_journal(shard, JournalOffset::new(1)).unwrap();
    let range = world.log.journal_range(shard).unwrap();
    assert_eq!((range.start.get(), range.end.get()), (4, 6));
    assert_eq!(values(world.journal(0, 4, View::CommittedToEnd).unwrap().0), ["c"]);
    let error = world.journal(0, 3, View::CommittedToEnd).unwrap_err();
    assert!(
        matches!(&error, LogError::Cut { wanted: 3, start: 4, partition: 0, topic, .. } if *topic == world.options.topics.journal),
        "{error}"
    );
    let error = world.journal(0, 7, View::Uncommitted).unwrap_err();
    assert!(matches!(error, LogError::Beyond { wanted: 7, end: 6, .. }), "{error}");
    let error = world.log.cut_journal(shard, JournalOffset::new(7)).unwrap_err();
    assert!(matches!(error, LogError::Beyond { wanted: 7, end: 6, .. }), "{error}");
    // All of it may go.
    world.log.cut_journal(shard, JournalOffset::new(6)).unwrap();
    assert_eq!(world.journal(0, 6, View::CommittedToEnd).unwrap().0, []);
}

#[test]
fn a_shard_without_a_journal_partition_is_missing() {
    let Some(world) = world(1, 1) else { return };
    let error = world.journal(5, 0, View::Uncommitted).unwrap_err();
    assert!(matches!(error, LogError::Missing { .. }), "{error}");
}

#[test]
fn a_journal_of_many_large_chunks_is_read_whole() {
    let Some(world) = world(1, 1) else { return };
    let mut producer = world.producer("w0.1");
    let chunks: Vec<Vec<u8>> =
        (0..20u8).map(|number| (0..700_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ number).collect()).collect();
    let borrowed: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let receipt = committed(&mut producer, &journal_of(0, &borrowed));
    assert_eq!(receipt[&ShardId::new(0)], (JournalOffset::new(0), JournalOffset::new(20)));
    let (entries, _) = world.journal(0, 0, View::CommittedToEnd).unwrap();
    assert!(entries.into_iter().map(|(_, bytes)| bytes).eq(chunks), "the chunks differ");
}
