//! Checks of journals, of who may write them, and of receipts.

use super::*;
use forebay_engine::log::Producer;

const VIEWS: [View; 3] = [View::Uncommitted, View::CommittedSoFar, View::CommittedToEnd];

/// What was committed is seen in all views, from any offset on, per shard.
pub fn journal_records_come_back_in_every_view_from_any_offset(bench: &impl LogBench) {
    let job = Job::new(bench, 2, 2);
    let mut producer = job.producer("p");
    let mut starts = Vec::new();
    for chunks in [&["a", "b"][..], &[""], &["c"]] {
        let receipt = producer.commit(&journal_transaction(1, chunks)).unwrap();
        starts.push(receipt.journal[&ShardId::new(1)].0);
    }
    let bytes = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    // The committed end first: it waits until the last transaction is stable, which the other views do not.
    for view in VIEWS.into_iter().rev() {
        for (from, expected) in starts.iter().zip([&["a", "b", "", "c"][..], &["", "c"], &["c"]]) {
            let (entries, range) = job.journal(1, *from, view).unwrap();
            assert_eq!(entries, bytes(expected), "{view:?} from {from}");
            assert_eq!((range.start, job.journal(1, range.end, view).unwrap().0), (starts[0], vec![]), "{view:?}");
        }
        assert_eq!(job.journal(0, JournalOffset::new(0), view).unwrap().0, bytes(&[]), "{view:?}: the other shard's journal is its own");
    }
    let range = job.log.journal_range(ShardId::new(1)).unwrap();
    assert_eq!(range.end, job.journal(1, range.start, View::Uncommitted).unwrap().1.end);
    let ends = job.log.journal_ends(&[ShardId::new(1), ShardId::new(0)]).unwrap();
    assert_eq!(ends, [range.end, job.log.journal_range(ShardId::new(0)).unwrap().end], "many ends come at once");
}

/// The place of the first chunk, and behind the last: where the next reader goes on.
pub fn a_receipt_says_where_each_shards_records_lie(bench: &impl LogBench) {
    let job = Job::new(bench, 3, 3);
    let mut producer = job.producer("p");
    let chunks = |shard: u32, count: u8| (ShardId::new(shard), (0..count).map(|n| vec![shard as u8, n]).collect::<Vec<_>>());
    for _ in 0..2 {
        let transaction = Transaction { journal: vec![chunks(2, 3), chunks(0, 1)], ..Transaction::default() };
        let receipt = producer.commit(&transaction).unwrap();
        assert_eq!(receipt.journal.keys().copied().collect::<Vec<_>>(), vec![ShardId::new(0), ShardId::new(2)]);
        for (shard, chunks) in transaction.journal {
            let (first, behind) = receipt.journal[&shard];
            let (entries, range) = job.journal(shard.get(), first, View::CommittedToEnd).unwrap();
            assert_eq!(entries, chunks);
            assert!(first < behind && behind <= range.end, "{receipt:?} {range:?}");
            assert_eq!(job.journal(shard.get(), behind, View::CommittedToEnd).unwrap().0, Vec::<Vec<u8>>::new());
        }
    }
    assert_eq!(producer.commit(&Transaction::default()).unwrap().journal.len(), 0);
    // What comes behind a shard's first record does not count.
    let transaction = Transaction { journal: vec![chunks(2, 3), chunks(0, 1), chunks(2, 1)], ..Transaction::default() };
    let (first, behind) = producer.commit(&transaction).unwrap().journal[&ShardId::new(2)];
    assert_eq!(job.journal(2, first, View::CommittedToEnd).unwrap().0.len(), 4);
    assert_eq!(job.journal(2, behind, View::CommittedToEnd).unwrap().0, chunks(2, 1).1);
}

/// Making it twice is fine; a journal for another number of shards is not this job's.
pub fn a_journal_is_made_once_and_not_with_another_number_of_shards(bench: &impl LogBench) {
    let job = Job::without_journal(bench, 4, 2);
    let absent = job.log.journal_range(ShardId::new(0));
    assert!(matches!(absent, Err(LogError::Missing { .. })), "{absent:?}");
    job.log.ensure_journal().unwrap();
    job.producer("p").commit(&journal_transaction(1, &["kept"])).unwrap();
    job.log.ensure_journal().unwrap();
    assert_eq!(job.committed_journal(1), vec![b"kept".to_vec()]);
    let other = bench.open(&JobTopics { shards: 4, ..job.topics.clone() });
    assert!(other.ensure_journal().is_err(), "a journal of 2 partitions is not one for 4 shards");
}

/// `Cut` below the start, `Beyond` behind the end; cutting again is no error.
pub fn a_cut_journal_starts_later_and_says_what_is_gone(bench: &impl LogBench) {
    let job = Job::new(bench, 1, 1);
    let mut producer = job.producer("p");
    let mut places = Vec::new();
    for chunk in ["a", "b", "c"] {
        places.push(producer.commit(&journal_transaction(0, &[chunk])).unwrap().journal[&ShardId::new(0)]);
    }
    let cut = |before| job.log.cut_journal(ShardId::new(0), before).unwrap();
    cut(places[1].0);
    cut(places[0].0);
    let range = job.log.journal_range(ShardId::new(0)).unwrap();
    assert_eq!(range.start, places[1].0);
    for view in VIEWS {
        match job.journal(0, places[0].0, view) {
            Err(LogError::Cut { topic, partition, wanted, start, .. }) => {
                let expected = (job.topics.journal.clone(), 0, places[0].0.get(), places[1].0.get());
                assert_eq!((topic, partition, wanted, start), expected, "{view:?}");
            }
            other => panic!("{view:?}: {other:?}"),
        }
        match job.journal(0, range.end.next(), view) {
            Err(LogError::Beyond { topic, partition, wanted, .. }) => {
                assert_eq!((topic, partition, wanted), (job.topics.journal.clone(), 0, range.end.get() + 1), "{view:?}");
            }
            other => panic!("{view:?}: {other:?}"),
        }
    }
    assert_eq!(job.committed_journal(0), vec![b"b".to_vec(), b"c".to_vec()]);
    cut(range.end);
    assert_eq!(job.committed_journal(0), Vec::<Vec<u8>>::new());
    let behind = producer.commit(&journal_transaction(0, &["d"])).unwrap().journal[&ShardId::new(0)].0;
    assert!(behind >= range.end, "offsets go on behind a cut: {behind} {range:?}");
    assert_eq!(job.committed_journal(0), vec![b"d".to_vec()]);
}

/// Its next commit fails as `Fenced`, and nothing of it is ever seen: no journal record, no output, no offset.
pub fn a_barred_incarnation_never_commits_again(bench: &impl LogBench) {
    let job = Job::new(bench, 1, 1);
    bench.produce(&job.topics.inputs[0], 0, &RawRecord::of_all_kinds());
    let mut producer = job.producer("p");
    let transaction = |chunk: &str, next| Transaction {
        outputs: vec![outputs([(0, Some(0), &RawRecord::new(1, "k", chunk))])],
        offsets: vec![position(0, next)],
        ..journal_transaction(0, &[chunk])
    };
    producer.commit(&transaction("first", 1)).unwrap();
    // Whoever bars it is another process: a handle of its own.
    let other = bench.open(&job.topics);
    for _ in 0..2 {
        other.bar(&Incarnation::new("p")).unwrap();
    }
    let barred = producer.commit(&transaction("second", 2));
    assert!(matches!(barred, Err(LogError::Fenced { .. })), "{barred:?}");
    assert!(producer.commit(&transaction("third", 3)).is_err(), "barred for ever");
    assert_eq!(job.committed_journal(0), vec![b"first".to_vec()]);
    assert_eq!(of_partition(&job.read_topic(&job.topics.outputs[0], 1), 0), vec![RawRecord::new(1, "k", "first")]);
    assert_eq!(job.log.start_positions(InputId::new(0), StartFrom::Group).unwrap(), vec![position(0, 1)]);
}

/// Other incarnations of the job, and the same name in another job, commit on; barring what never was is no error.
pub fn barring_an_incarnation_leaves_the_others_alone(bench: &impl LogBench) {
    let (job, neighbour) = (Job::new(bench, 1, 1), Job::new(bench, 1, 1));
    let (mut one, mut other, mut namesake) = (job.producer("p1"), job.producer("p2"), neighbour.producer("p1"));
    one.commit(&journal_transaction(0, &["one"])).unwrap();
    job.log.bar(&Incarnation::new("p1")).unwrap();
    job.log.bar(&Incarnation::new("never was")).unwrap();
    other.commit(&journal_transaction(0, &["other"])).unwrap();
    namesake.commit(&journal_transaction(0, &["namesake"])).unwrap();
    assert_eq!(job.committed_journal(0), vec![b"one".to_vec(), b"other".to_vec()]);
    assert_eq!(neighbour.committed_journal(0), vec![b"namesake".to_vec()]);
}
