//! Reading inputs: positions, starts, what is gone, progress at rest.

use std::sync::Arc;
use std::time::Instant;

use forebay_engine::ids::{InputId, Offset, Partition, ShardId, Timestamp};
use forebay_engine::log::{InputPosition, InputReader, Log, LogError, Producer, StartFrom, Transaction};
use forebay_kafka::KafkaInput;
use rdkafka::producer::Producer as _;

use crate::world::{PATIENCE, World, next_offsets, outputs, poll, read, read_error, world};

fn at(partition: u32, next: u64) -> InputPosition {
    InputPosition { input: InputId::new(0), partition: Partition::new(partition), next: Offset::new(next) }
}

/// Puts `counts[p]` records into partition `p` by one transaction; each partition gets a marker behind them.
fn fill(world: &World, counts: &[usize]) {
    let values: Vec<String> = (0..counts.iter().copied().max().unwrap_or(0)).map(|number| number.to_string()).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let parts = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let outputs = parts.map(|(partition, count)| outputs(u32::try_from(partition).unwrap(), &values[..*count]).outputs.remove(0)).collect();
    world.upstream().commit(&Transaction { outputs, ..Transaction::default() }).unwrap();
}

/// Polls until every partition stands at these offsets and knows them for its end. A commit returns before its markers are written, so that
/// an earlier end may be true for a moment.
fn rest(input: &mut KafkaInput, expected: &[u64]) {
    let deadline = Instant::now() + PATIENCE;
    let expected: Vec<_> = expected.iter().map(|offset| (*offset, *offset)).collect();
    loop {
        poll(input, &mut Vec::new()).unwrap();
        let progress: Vec<_> = input.progress().iter().map(|p| (p.position.next.get(), p.end.get())).collect();
        if progress == expected {
            return;
        }
        assert!(Instant::now() < deadline, "still at {progress:?}, not at {expected:?}");
    }
}

#[test]
fn records_come_once_in_order_within_their_partitions() {
    let Some(world) = world(1, 3) else { return };
    fill(&world, &[500, 300, 0]);
    let found = read(&mut world.input(StartFrom::Earliest), 800);
    for (partition, count) in [(0, 500), (1, 300), (2, 0)] {
        let offsets: Vec<u64> = found.iter().filter(|record| record.partition == partition).map(|record| record.offset).collect();
        assert_eq!(offsets, (0..count).collect::<Vec<u64>>(), "partition {partition}");
    }
}

#[test]
fn progress_reaches_the_end_at_rest_although_a_marker_is_last() {
    let Some(world) = world(1, 2) else { return };
    fill(&world, &[10, 0]);
    let mut input = world.input(StartFrom::Earliest);
    read(&mut input, 10);
    rest(&mut input, &[11, 0]);
    // An aborted transaction moves the position too, with no record to show for it.
    let foreign = world.foreign("w7.3");
    world.leave_open_in(&foreign, &world.options.topics.inputs[0], 1, b"never seen");
    foreign.abort_transaction(PATIENCE).unwrap();
    rest(&mut input, &[11, 2]);
}

#[test]
fn the_end_is_news_before_the_records_are_polled() {
    let Some(world) = world(1, 1) else { return };
    let mut input = world.input(StartFrom::Earliest);
    fill(&world, &[5]);
    let deadline = Instant::now() + PATIENCE;
    while input.progress()[0].end.get() < 6 {
        assert!(Instant::now() < deadline, "{:?}", input.progress());
        std::thread::yield_now();
    }
    assert_eq!(input.progress()[0].position.next.get(), 0, "nothing was polled");
}

/// Method: a reader that has found nothing is not polled again before it rings; then a record must be there. Rings without reason are allowed.
#[test]
fn a_reader_that_has_found_nothing_rings_when_records_come() {
    let Some(world) = world(1, 2) else { return };
    let mut input = world.input(StartFrom::Earliest);
    let (bell, rings) = std::sync::mpsc::channel();
    assert!(input.ring(Arc::new(move || bell.send(()).unwrap_or_default())));
    for round in 1..=3 {
        let mut found = Vec::new();
        poll(&mut input, &mut found).unwrap();
        assert!(found.is_empty(), "before round {round}: {found:?}");
        fill(&world, &[0, 1]);
        while found.is_empty() {
            rings.recv_timeout(PATIENCE).unwrap();
            poll(&mut input, &mut found).unwrap();
        }
        assert_eq!((found.len(), found[0].partition), (1, 1), "round {round}");
    }
}

#[test]
fn an_input_opened_again_further_back_reads_again_from_there() {
    let Some(world) = world(1, 2) else { return };
    fill(&world, &[20, 20]);
    let mut input = world.input(StartFrom::Earliest);
    read(&mut input, 40);
    rest(&mut input, &[21, 21]);
    for _ in 0..5 {
        drop(input);
        input = world.log.open_input(ShardId::new(0), &[at(0, 5), at(1, 20)]).unwrap();
        assert_eq!(input.progress().iter().map(|p| p.position.next.get()).collect::<Vec<_>>(), [5, 20], "a position of the last reader");
        let offsets: Vec<_> = read(&mut input, 15).iter().map(|record| (record.partition, record.offset)).collect();
        assert_eq!(offsets, (5..20).map(|offset| (0, offset)).collect::<Vec<_>>());
        rest(&mut input, &[21, 21]);
    }
}

#[test]
fn two_shards_read_their_own_partitions_at_the_same_time() {
    let Some(world) = world(2, 2) else { return };
    let mut even = world.log.open_input(ShardId::new(0), &[at(0, 0)]).unwrap();
    let mut odd = world.log.open_input(ShardId::new(1), &[at(1, 0)]).unwrap();
    fill(&world, &[100, 50]);
    assert!(read(&mut even, 100).iter().all(|record| record.partition == 0));
    drop(even);
    fill(&world, &[1, 50]);
    assert!(read(&mut odd, 100).iter().all(|record| record.partition == 1));
}

#[test]
fn an_open_transaction_hides_its_records_until_it_is_over() {
    let Some(world) = world(1, 1) else { return };
    fill(&world, &[2]);
    let mut input = world.input(StartFrom::Earliest);
    assert_eq!(read(&mut input, 2).len(), 2);
    rest(&mut input, &[3]);
    let foreign = world.foreign("w7.3");
    world.leave_open_in(&foreign, &world.options.topics.inputs[0], 0, b"hidden");
    let mut seen = Vec::new();
    poll(&mut input, &mut seen).unwrap();
    assert_eq!(seen, []);
    foreign.commit_transaction(PATIENCE).unwrap();
    assert_eq!(read(&mut input, 1)[0].offset, 3);
    rest(&mut input, &[5]);
}

#[test]
fn starts_are_found_by_end_time_and_group() {
    let Some(world) = world(1, 2) else { return };
    fill(&world, &[4, 0]);
    rest(&mut world.input(StartFrom::Earliest), &[5, 0]);
    let starts = |from| world.log.start_positions(InputId::new(0), from);
    assert_eq!(next_offsets(&starts(StartFrom::Earliest).unwrap()), [0, 0]);
    assert_eq!(next_offsets(&starts(StartFrom::Latest).unwrap()), [5, 0]);
    let time = |millis| StartFrom::Timestamp(Timestamp::from_millis(millis));
    assert_eq!(next_offsets(&starts(time(1_600_000_000_000)).unwrap()), [0, 0]);
    assert_eq!(next_offsets(&starts(time(4_000_000_000_000)).unwrap()), [5, 0]);
    let error = starts(StartFrom::Group).unwrap_err();
    assert!(
        matches!(&error, LogError::Missing { what, way_out, .. } if what.contains(&world.options.topics.group) && way_out.contains("startFrom")),
        "{error}"
    );
    world.producer("w0.1").commit(&Transaction { offsets: vec![at(0, 2)], ..Transaction::default() }).unwrap();
    assert_eq!(
        next_offsets(&starts(StartFrom::Group).unwrap()),
        [2, 0],
        "a partition that the group never read starts at its oldest record"
    );
    world.delete_records(&world.options.topics.inputs[0], 0, 3);
    assert_eq!(next_offsets(&starts(StartFrom::Earliest).unwrap()), [3, 0]);
}

#[test]
fn positions_that_are_gone_are_said_at_the_start() {
    let Some(world) = world(1, 1) else { return };
    fill(&world, &[10]);
    rest(&mut world.input(StartFrom::Earliest), &[11]);
    world.delete_records(&world.options.topics.inputs[0], 0, 4);
    let open = |next| world.log.open_input(ShardId::new(0), &[at(0, next)]).map(drop);
    let error = open(3).unwrap_err();
    assert!(
        matches!(&error, LogError::Cut { wanted: 3, start: 4, partition: 0, topic, .. } if *topic == world.options.topics.inputs[0]),
        "{error}"
    );
    let error = open(12).unwrap_err();
    assert!(matches!(error, LogError::Beyond { wanted: 12, end: 11, .. }), "{error}");
    open(4).unwrap();
    open(11).unwrap();
}

#[test]
fn partitions_beyond_the_memory_for_them_are_refused_until_others_are_given_back() {
    let with_room_for_two = |mut options: forebay_kafka::KafkaOptions| {
        options.prefetch_bytes = 64 << 10;
        options
    };
    let Some(world) = crate::world::world_with(2, 4, with_room_for_two) else { return };
    let first = world.log.open_input(ShardId::new(0), &[at(0, 0), at(2, 0)]).unwrap();
    let more = || world.log.open_input(ShardId::new(1), &[at(1, 0)]);
    let error = more().map(drop).unwrap_err();
    assert!(matches!(&error, LogError::Denied { reason, .. } if reason.contains("enough for 2") && reason.contains("--memory")), "{error}");
    drop(first);
    more().unwrap();
}

#[test]
fn records_that_vanish_while_reading_stop_the_shard() {
    // One record fills the queue's smallest budget, so that the reader cannot have all of them in memory when they vanish.
    let Some(world) = crate::world::world_with(1, 1, |mut options| {
        options.prefetch_bytes = 1;
        options.property("queued.min.messages", "1")
    }) else {
        return;
    };
    let value = "x".repeat(100_000);
    let values = vec![value.as_str(); 8];
    let mut upstream = world.upstream();
    for _ in 0..8 {
        upstream.commit(&outputs(0, &values)).unwrap();
    }
    let mut input = world.input(StartFrom::Earliest);
    let mut last = None;
    input.poll(PATIENCE, 1, &mut |record| last = Some(record.offset.get())).unwrap();
    assert_eq!(last, Some(0));
    world.delete_records(&world.options.topics.inputs[0], 0, 71);
    let error = read_error(&mut input);
    assert!(matches!(&error, LogError::Unavailable { reason, .. } if reason.contains("opened again")), "{error}");
    drop(input);
    let error = world.log.open_input(ShardId::new(0), &[at(0, 1)]).map(drop).unwrap_err();
    assert!(matches!(error, LogError::Cut { start: 71, partition: 0, .. }), "{error}");
}

#[test]
fn a_topic_made_anew_under_its_name_stops_its_reader_although_the_offsets_are_there_again() {
    // Method: the new topic has more records than the old one had. Left alone, librdkafka goes on in it where it stood in the old one.
    let Some(world) = world(1, 1) else { return };
    fill(&world, &[5]);
    let mut input = world.input(StartFrom::Earliest);
    read(&mut input, 5);
    let positions = vec![at(0, 6)];
    world.remake_topic(&world.options.topics.inputs[0], 1);
    fill(&world, &[20]);
    let said = read_error(&mut input);
    drop(input);
    let again = world.log.open_input(ShardId::new(0), &positions).map(drop).unwrap_err();
    // The client may notice first that the old topic's offset is not there: its shard is opened again then, and learns the rest.
    let for_now = matches!(&said, LogError::Unavailable { reason, .. } if reason.contains("opened again"));
    assert!(is_made_anew(&said) || for_now, "reading: {said}");
    assert!(is_made_anew(&again), "opening: {again}");
}

fn is_made_anew(error: &LogError) -> bool {
    matches!(error, LogError::Missing { what, .. } if what.contains("made anew"))
}
