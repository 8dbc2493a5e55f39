//! Frames: what is written comes back, and torn or foreign bytes never do.

use super::*;

/// A frame with one entry of each kind, as format 1 has it. If this fails, logs that people have cannot be read any more.
const GOLDEN: &str = include_str!("golden.txt");

fn number(value: u32) -> TopicNumber {
    TopicNumber(value)
}

fn changes() -> Vec<Change> {
    let topic = SnapshotTopic { number: number(1), name: "t".into(), id: "i".into(), partitions: vec![(3, 300)] };
    vec![
        Change::Snapshot(Snapshot {
            next_topic: number(2),
            topics: vec![topic],
            groups: vec![("g".into(), vec![(number(1), 0, 7)])],
            barred: vec!["b".into()],
        }),
        Change::TopicCreated { name: "u".into(), number: number(2), id: "j".into(), partitions: 4 },
        Change::TopicDeleted { number: number(2) },
        Change::PartitionsAdded { number: number(1), partitions: 5 },
        Change::OffsetsCommitted { group: "g".into(), offsets: vec![(number(1), 4, 9)] },
        Change::Barred { transactional_id: "c".into() },
        Change::Cut { number: number(1), partition: 4, before: 8 },
    ]
}

fn frame() -> (Vec<u8>, BatchHead, Vec<u8>) {
    let mut frame = vec![0; FRAME_HEAD_BYTES];
    for change in changes() {
        put_change(&mut frame, &change);
    }
    let headers = [Header { name: "h", value: Some(b"1") }, Header { name: "h", value: None }];
    let mut records = Vec::new();
    put_record(&mut records, &RecordParts { timestamp: Timestamp::from_millis(-2), key: Some(b"k"), value: None }, &headers);
    put_record(&mut records, &RecordParts { timestamp: Timestamp::from_millis(5), key: None, value: Some(b"") }, &[]);
    let head = BatchHead { number: number(1), partition: 4, base: 8, count: 2, timestamp_max: 5 };
    put_batch(&mut frame, &head, &records);
    seal_frame(3, 16, &mut frame);
    (frame, head, records)
}

#[test]
fn format_1_does_not_change() {
    let hex: String = frame().0.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n").collect();
    assert_eq!(hex, GOLDEN);
}

#[test]
fn a_frame_comes_back_as_it_was_written() {
    let (frame, head, records) = frame();
    let (frame_head_bytes, body) = frame.split_first_chunk().unwrap();
    assert_eq!(frame_head(frame_head_bytes), Some((body.len() as u32, frame_crc(3, 16, body))));
    let mut entries = entries(body).unwrap();
    let Some(Entry::Batch(found, place)) = entries.pop() else { panic!("the last entry is a batch") };
    assert_eq!((found, &body[place]), (head, records.as_slice()));
    assert_eq!(entries, changes().into_iter().map(Entry::Change).collect::<Vec<_>>());
}

#[test]
fn a_checksum_is_good_for_one_place_only() {
    let crc = frame_crc(3, 16, b"body");
    for (segment, position, body) in [(4, 16, &b"body"[..]), (3, 17, b"body"), (3, 16, b"bodY"), (3, 16, b"body\0")] {
        assert_ne!(crc, frame_crc(segment, position, body), "{segment} {position} {body:?}");
    }
    assert_eq!(frame_head(&[0; FRAME_HEAD_BYTES]), None, "zeros are no frame");
}

#[test]
fn bytes_that_end_too_early_are_errors_and_never_a_panic() {
    let (frame, _, records) = frame();
    let body = &frame[FRAME_HEAD_BYTES..];
    let whole = entries(body).unwrap().len();
    for end in 0..body.len() {
        // Cut between two entries the rest is a shorter body.
        assert!(entries(&body[..end]).map_or(true, |entries| entries.len() < whole), "cut at {end}");
    }
    let mut rest = records.as_slice();
    take_record(&mut rest, &mut Vec::new()).unwrap();
    let first = records.len() - rest.len();
    for end in 0..first {
        assert!(take_record(&mut &records[..end], &mut Vec::new()).is_err(), "cut at {end}");
    }
    assert!(entries(&[9, 0, 0, 0, 0]).is_err(), "an unknown tag");
}

#[test]
fn a_records_size_is_known_before_it_is_written() {
    let headers = [Header { name: "name", value: Some(b"value") }, Header { name: "", value: None }];
    for (key, value, headers) in [(None, None, &headers[..]), (Some(&b"key"[..]), Some(&b"value"[..]), &[])] {
        let record = RecordParts { timestamp: Timestamp::from_millis(1), key, value };
        let mut bytes = Vec::new();
        put_record(&mut bytes, &record, headers);
        assert_eq!(bytes.len(), record_bytes(&record, headers));
    }
}
