//! Checks of what a transaction puts out, and of the topics that it goes to.

use super::*;
use forebay_engine::log::Producer;
use forebay_engine::partitioner::partition_for_key;

/// Across the elements of a transaction, and across transactions.
pub fn outputs_come_back_in_order_with_all_their_parts(bench: &impl LogBench) {
    let job = Job::new(bench, 2, 1);
    let mut producer = job.producer("p");
    let records = RawRecord::of_all_kinds();
    let (first, rest) = records.split_at(5);
    let (second, third) = rest.split_at(5);
    let to = |output, partition, records| outputs(std::iter::repeat((output, Some(partition))).zip(records).map(|((o, p), r)| (o, p, r)));
    producer.commit(&Transaction { outputs: vec![to(0, 1, first), to(0, 1, second), to(1, 0, third)], ..Transaction::default() }).unwrap();
    producer.commit(&Transaction { outputs: vec![to(0, 1, third)], ..Transaction::default() }).unwrap();
    let read = job.read_topic(&job.topics.outputs[0], records.len());
    assert_eq!(of_partition(&read, 1), records);
    assert_eq!(of_partition(&read, 0), vec![]);
    assert_eq!(of_partition(&job.read_topic(&job.topics.outputs[1], third.len()), 0), third);
}

/// Far more than one batch, for each partition of a topic.
pub fn a_transaction_of_many_outputs_is_there_whole(bench: &impl LogBench) {
    let job = Job::new(bench, 3, 1);
    let value = "v".repeat(100);
    let records: Vec<_> = (0..9000).map(|n| RawRecord::new(n, &n.to_string(), &value)).collect();
    let all = outputs(records.iter().zip(0..).map(|(record, n)| (0, Some(n % 3), record)));
    job.producer("p").commit(&Transaction { outputs: vec![all], ..Transaction::default() }).unwrap();
    let read = job.read_topic(&job.topics.outputs[0], records.len());
    for partition in 0..3 {
        let expected: Vec<_> = records.iter().skip(partition as usize).step_by(3).cloned().collect();
        assert!(of_partition(&read, partition) == expected, "partition {partition} is not as it was put out");
    }
}

/// Murmur2; an empty key is a key.
pub fn keys_fall_into_the_partitions_that_java_clients_choose(bench: &impl LogBench) {
    let job = Job::new(bench, 7, 1);
    let mut records: Vec<_> = (0..50).map(|n| RawRecord::new(n, &format!("key-{n}"), "v")).collect();
    records.extend(["", "21", "foobar"].map(|key| RawRecord::new(0, key, "v")));
    let all = outputs(records.iter().map(|record| (0, None, record)));
    job.producer("p").commit(&Transaction { outputs: vec![all], ..Transaction::default() }).unwrap();
    for read in job.read_topic(&job.topics.outputs[0], records.len()) {
        let expected = partition_for_key(read.record.key.as_ref().unwrap(), 7);
        assert_eq!(read.partition, expected.get(), "{:?}", read.record);
    }
}

/// Which one is the adapter's choice, but none is lost.
pub fn records_without_a_key_go_to_some_partition(bench: &impl LogBench) {
    let job = Job::new(bench, 3, 1);
    let mut producer = job.producer("p");
    let records: Vec<_> = (0..20).map(|n| RawRecord { key: None, ..RawRecord::new(n, "", &n.to_string()) }).collect();
    for record in &records {
        producer.commit(&Transaction { outputs: vec![outputs([(1, None, record)])], ..Transaction::default() }).unwrap();
    }
    let mut read: Vec<_> = job.read_topic(&job.topics.outputs[1], records.len()).into_iter().map(|read| read.record).collect();
    read.sort_by_key(|record| record.timestamp);
    assert_eq!(read, records);
}

/// Inputs, outputs, journal. A journal that is not there yet has no id and no partitions.
pub fn topics_are_described_in_the_jobs_order(bench: &impl LogBench) {
    let job = Job::without_journal(bench, 3, 3);
    let names = [&job.topics.inputs[0], &job.topics.outputs[0], &job.topics.outputs[1], &job.topics.journal];
    let described = |partitions: [u32; 4]| {
        let topics = job.log.describe().unwrap();
        assert_eq!(topics.iter().map(|topic| &topic.name).collect::<Vec<_>>(), names);
        assert_eq!(topics.iter().map(|topic| topic.partitions).collect::<Vec<_>>(), partitions);
        topics
    };
    assert_eq!(described([3, 3, 3, 0])[3].id, "");
    job.log.ensure_journal().unwrap();
    let topics = described([3, 3, 3, 3]);
    assert_eq!(topics, described([3, 3, 3, 3]), "ids stay");
}

/// So that a job sees that its input, or its journal, is not what it was.
pub fn a_topic_that_was_made_anew_has_another_id(bench: &impl LogBench) {
    let job = Job::new(bench, 1, 1);
    let before = job.log.describe().unwrap();
    bench.produce(&job.topics.inputs[0], 0, &[RawRecord::new(1, "k", "v")]);
    bench.delete_topic(&job.topics.inputs[0]);
    bench.create_topic(&job.topics.inputs[0], 1);
    let after = job.log.describe().unwrap();
    assert_ne!(before[0].id, after[0].id);
    assert_eq!(before[1..], after[1..]);
    assert_eq!(job.log.start_positions(InputId::new(0), StartFrom::Latest).unwrap(), vec![position(0, 0)]);
}
