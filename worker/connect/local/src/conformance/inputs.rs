//! Checks of input readers and of where they start.

use std::ops::ControlFlow;

use super::*;
use forebay_engine::log::Producer;
use forebay_engine::record::InputRecord;

/// Whatever parts of a record are null or empty, they come back as they were.
pub fn input_records_come_in_order_with_all_their_parts(bench: &impl LogBench) {
    let job = Job::new(bench, 2, 1);
    let records = RawRecord::of_all_kinds();
    bench.produce(&job.topics.inputs[0], 1, &records);
    let mut reader = job.log.open_input(ShardId::new(0), &[position(0, 0), position(1, 0)]).unwrap();
    let read = read(&mut reader, records.len());
    assert_eq!(of_partition(&read, 1), records);
    assert_eq!(of_partition(&read, 0), vec![]);
}

/// Polls with any limit hand out each record once; another reader goes on from a reader's position.
pub fn a_reader_goes_on_where_it_stopped_whatever_the_limit(bench: &impl LogBench) {
    let job = Job::new(bench, 1, 1);
    let records: Vec<_> = (0..40).map(|n| RawRecord::new(n, "k", &n.to_string())).collect();
    bench.produce(&job.topics.inputs[0], 0, &records[..25]);
    bench.produce(&job.topics.inputs[0], 0, &records[25..]);
    let mut reader = job.log.open_input(ShardId::new(0), &[position(0, 0)]).unwrap();
    let mut seen = Vec::new();
    for limit in [1, 2, 7, 10] {
        seen.extend(of_partition(&read(&mut reader, limit), 0));
    }
    let reached = reader.progress()[0].position;
    assert_eq!(reached.next.get(), 20);
    assert_eq!(read_some(&mut reader, WAIT, 0).unwrap(), vec![], "a limit of none");
    let mut reader = job.log.open_input(ShardId::new(0), &[reached]).unwrap();
    seen.extend(of_partition(&read(&mut reader, 20), 0));
    assert_eq!(seen, records);
    let progress = reader.progress()[0];
    assert_eq!((progress.position.next.get(), progress.end.get()), (40, 40));
}

/// Whatever partition the break comes in, nothing is handed out behind it, and nothing is left out or comes twice.
pub fn a_reader_that_is_asked_for_a_break_stops_behind_that_very_record(bench: &impl LogBench) {
    let job = Job::new(bench, 3, 1);
    let records: Vec<_> = (0..20).map(|n| RawRecord::new(n, "k", &n.to_string())).collect();
    (0..3).for_each(|partition| bench.produce(&job.topics.inputs[0], partition, &records));
    let mut reader = job.log.open_input(ShardId::new(0), &[position(0, 0), position(1, 0), position(2, 0)]).unwrap();
    let mut seen: Vec<(u32, u64)> = Vec::new();
    for wanted in (1..=5).cycle() {
        let before = seen.len();
        let mut each = |record: &InputRecord<'_>| {
            assert!(seen.len() < before + wanted, "a record came after the break");
            seen.push((record.partition.get(), record.offset.get()));
            if seen.len() == before + wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let count = reader.poll_while(WAIT, 1000, &mut each).unwrap();
        assert_eq!(count, seen.len() - before, "poll returns how many records it handed out");
        if seen.len() == 60 {
            break;
        }
    }
    for partition in 0..3 {
        let of = seen.iter().filter(|(of, _)| *of == partition).map(|(_, offset)| *offset);
        assert!(of.eq(0..20), "partition {partition}: {seen:?}");
    }
}

/// More than fits into one fetch, in several partitions: each record once, in order.
pub fn many_records_come_back_from_every_partition(bench: &impl LogBench) {
    let job = Job::new(bench, 3, 1);
    let value = "v".repeat(200);
    let records: Vec<_> = (0..6000).map(|n| RawRecord::new(n, &n.to_string(), &value)).collect();
    for partition in 0..3 {
        bench.produce(&job.topics.inputs[0], partition, &records[..1000 + 2000 * partition as usize]);
    }
    let positions = job.log.start_positions(InputId::new(0), StartFrom::Earliest).unwrap();
    let mut reader = job.log.open_input(ShardId::new(0), &positions).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 9000 {
        let some = read_some(&mut reader, WAIT, 700).unwrap();
        assert!(!some.is_empty(), "{} of 9000 records came", seen.len());
        seen.extend(some);
    }
    for partition in 0..3 {
        assert!(
            of_partition(&seen, partition) == records[..1000 + 2000 * partition as usize],
            "partition {partition} is not as it was produced"
        );
    }
}

/// A poll at the end waits, and returns as soon as there is something.
pub fn a_waiting_poll_gets_what_is_produced_meanwhile(bench: &impl LogBench) {
    let job = Job::new(bench, 1, 1);
    let mut reader = job.log.open_input(ShardId::new(0), &[position(0, 0)]).unwrap();
    assert_eq!(read_some(&mut reader, Duration::ZERO, 5).unwrap(), vec![], "an empty topic has no records");
    let record = RawRecord::new(1, "k", "v");
    let read = std::thread::scope(|threads| {
        let reading = threads.spawn(move || read(&mut reader, 1));
        bench.produce(&job.topics.inputs[0], 0, std::slice::from_ref(&record));
        reading.join().unwrap()
    });
    assert_eq!(of_partition(&read, 0), vec![record]);
}

/// A position that was deleted, before reading or during it, or that was never reached, is an error that names the offsets.
pub fn an_input_that_was_cut_or_is_beyond_the_end_says_so(bench: &impl LogBench) {
    let job = Job::new(bench, 1, 1);
    let records: Vec<_> = (0..10).map(|n| RawRecord::new(n, "k", "v")).collect();
    bench.produce(&job.topics.inputs[0], 0, &records);
    let poll = |next| job.log.open_input(ShardId::new(0), &[position(0, next)]).and_then(|mut reader| read_some(&mut reader, WAIT, 100));
    bench.delete_records(&job.topics.inputs[0], 0, 4);
    match poll(3) {
        Err(LogError::Cut { topic, partition, wanted, start, .. }) => {
            assert_eq!((topic, partition, wanted, start), (job.topics.inputs[0].clone(), 0, 3, 4));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(poll(4).unwrap().first().unwrap().offset, 4);
    match poll(11) {
        Err(LogError::Beyond { topic, partition, wanted, end, .. }) => {
            assert_eq!((topic, partition, wanted, end), (job.topics.inputs[0].clone(), 0, 11, 10));
        }
        other => panic!("{other:?}"),
    }
    let mut reader = job.log.open_input(ShardId::new(0), &[position(0, 10)]).unwrap();
    assert_eq!(read_some(&mut reader, Duration::ZERO, 5).unwrap(), vec![], "at the end there is nothing, and nothing wrong");
}

/// `Earliest`, `Latest` and `Timestamp`, also where records were deleted.
pub fn a_job_starts_at_the_oldest_the_newest_or_a_time_stamp(bench: &impl LogBench) {
    let job = Job::new(bench, 2, 1);
    // Not in order: the first record that is late enough counts.
    let records: Vec<_> = [10, 30, 20, 40].into_iter().map(|time| RawRecord::new(time, "k", "v")).collect();
    // In two batches: once the late record of the first is deleted, the search must go on to the second.
    bench.produce(&job.topics.inputs[0], 0, &records[..3]);
    bench.produce(&job.topics.inputs[0], 0, &records[3..]);
    let check = |from, expected: [u64; 2]| {
        let positions = job.log.start_positions(InputId::new(0), from).unwrap();
        assert_eq!(positions, vec![position(0, expected[0]), position(1, expected[1])], "{from:?}");
    };
    let at = |time| StartFrom::Timestamp(Timestamp::from_millis(time));
    check(StartFrom::Earliest, [0, 0]);
    check(StartFrom::Latest, [4, 0]);
    for (time, first) in [(0, 0), (10, 0), (11, 1), (30, 1), (31, 3), (40, 3), (41, 4)] {
        check(at(time), [first, 0]);
    }
    bench.delete_records(&job.topics.inputs[0], 0, 2);
    check(StartFrom::Earliest, [2, 0]);
    check(StartFrom::Latest, [4, 0]);
    check(at(15), [2, 0]);
    check(at(25), [3, 0]);
}

/// The group's offsets are those of the last commit, per partition; no commit at all is an error; another group's do not count.
pub fn a_job_starts_at_its_groups_offsets_as_last_committed(bench: &impl LogBench) {
    let job = Job::new(bench, 3, 1);
    for partition in 0..3 {
        bench.produce(&job.topics.inputs[0], partition, &RawRecord::of_all_kinds());
    }
    let of_group = || job.log.start_positions(InputId::new(0), StartFrom::Group);
    assert!(matches!(of_group(), Err(LogError::Missing { .. })), "{:?}", of_group());
    let mut producer = job.producer("p");
    let mut commit = |offsets: Vec<InputPosition>| producer.commit(&Transaction { offsets, ..Transaction::default() }).unwrap();
    commit(vec![position(0, 3), position(1, 5)]);
    assert_eq!(of_group().unwrap(), vec![position(0, 3), position(1, 5), position(2, 0)], "one never read starts at its oldest record");
    commit(vec![position(1, 6), position(0, 2)]);
    assert_eq!(of_group().unwrap(), vec![position(0, 2), position(1, 6), position(2, 0)]);
    let other = bench.open(&JobTopics { group: bench.unique("other"), ..job.topics.clone() });
    assert!(matches!(other.start_positions(InputId::new(0), StartFrom::Group), Err(LogError::Missing { .. })));
}

/// What does not exist is named.
pub fn a_missing_input_topic_or_partition_is_named(bench: &impl LogBench) {
    let job = Job::new(bench, 2, 1);
    let absent = bench.unique("absent");
    let log = bench.open(&JobTopics { inputs: vec![absent.clone()], ..job.topics.clone() });
    for error in [log.describe().err(), log.start_positions(InputId::new(0), StartFrom::Earliest).err()] {
        assert!(matches!(&error, Some(LogError::Missing { what, .. }) if what.contains(&absent)), "{error:?}");
    }
    let read = job.log.open_input(ShardId::new(0), &[position(2, 0)]).and_then(|mut reader| read_some(&mut reader, WAIT, 1));
    assert!(matches!(&read, Err(LogError::Missing { what, .. }) if what.contains(&job.topics.inputs[0])), "{read:?}");
}
