//! The byte layouts, held fast by golden bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use forebay_engine::ids::{
    AssignmentVersion, Epoch, Incarnation, InputId, JournalOffset, Offset, Revision, ShardId, Timeline, Timestamp, WorkerName,
};
use forebay_engine::journal::{Books, Owner};
use forebay_engine::log::InputPosition;
use forebay_engine::manifest::RetainedCheckpoint;

use super::*;

/// What format 1 looked like when it was made. A build that cannot read it cannot restore old snapshots.
const STAMP_GOLDEN: &str = concat!(
    "\u{1}",
    r#"{"owner":{"timeline":1,"shard":7,"worker":"w-0","incarnation":"w-0.18f3","assignment":4},"epoch":812,"revision":"r1","#,
    r#""clock":1763800000000,"positions":[{"input":0,"partition":7,"next":18446744073709551615}],"topic_ids":["t1"],"#,
    r#""books":{"in":6,"processed":1,"rejected":2,"duplicate":1,"filtered":1,"throttled":1},"#,
    r#""retained":[{"epoch":790,"incarnation":"w-1.02aa","journal":1500}],"garbage":["files/7/w-1.02aa-3"],"journal":1640}"#,
);

fn stamp() -> Stamp {
    Stamp {
        owner: Owner {
            timeline: Timeline::new(1),
            shard: ShardId::new(7),
            worker: WorkerName::new("w-0"),
            incarnation: Incarnation::new("w-0.18f3"),
            assignment: AssignmentVersion::new(4),
        },
        epoch: Epoch::new(812),
        revision: Revision::new("r1"),
        clock: Timestamp::from_millis(1_763_800_000_000),
        positions: vec![InputPosition { input: InputId::new(0), partition: Partition::new(7), next: Offset::new(u64::MAX) }],
        topic_ids: vec!["t1".into()],
        books: Books { records_in: 6, processed: 1, rejected: 2, duplicate: 1, filtered: 1, throttled: 1 },
        retained: vec![RetainedCheckpoint {
            epoch: Epoch::new(790),
            incarnation: Incarnation::new("w-1.02aa"),
            journal: JournalOffset::new(1500),
        }],
        garbage: vec!["files/7/w-1.02aa-3".into()],
        journal: JournalOffset::new(1640),
    }
}

#[test]
fn a_stamp_of_format_1_is_written_and_read_as_the_golden_bytes_say() {
    assert_eq!(String::from_utf8(encode_stamp(&stamp())).unwrap(), STAMP_GOLDEN);
    assert_eq!(decode_stamp(STAMP_GOLDEN.as_bytes()), Ok(stamp()));
}

#[test]
fn a_stamp_that_is_cut_or_of_another_format_is_refused_with_the_reason() {
    let check = |bytes: &[u8], words: &str| {
        let reason = decode_stamp(bytes).unwrap_err();
        assert!(reason.contains(words), "{reason}");
    };
    check(b"", "empty");
    check(b"\x02{}", "format 2");
    for end in 1..STAMP_GOLDEN.len() {
        check(&STAMP_GOLDEN.as_bytes()[..end], "cannot be decoded");
    }
}

#[test]
fn no_state_key_equals_a_reserved_one_and_the_stamp_sorts_before_all_state() {
    let mut smallest = Vec::new();
    encode_key(TableId::new(0), Partition::new(0), b"", &mut smallest);
    assert_eq!(smallest, [0; STATE_KEY_BYTES_MIN]);
    assert!(STAMP_KEY < smallest.as_slice());
    assert!(is_state_key(&smallest) && !is_state_key(STAMP_KEY));
}

#[test]
fn ranges_hold_what_they_name_and_nothing_else() {
    let key = |table: u16, partition: u32, key: &[u8]| {
        let mut bytes = Vec::new();
        encode_key(TableId::new(table), Partition::new(partition), key, &mut bytes);
        bytes
    };
    let check = |range: KeyRange, inside: &[Vec<u8>], outside: &[Vec<u8>]| {
        let holds = |key: &Vec<u8>| range.from() <= key.as_slice() && range.to().is_none_or(|to| key.as_slice() < to);
        assert!(inside.iter().all(holds), "{range:?}");
        assert!(!outside.iter().any(holds), "{range:?}");
    };
    let (t, p) = (TableId::new, Partition::new);
    check(KeyRange::all(), &[key(0, 0, b""), key(u16::MAX, u32::MAX, b"\xff\xff")], &[]);
    check(KeyRange::table(t(1)), &[key(1, 0, b""), key(1, u32::MAX, b"\xff")], &[key(0, u32::MAX, b"\xff"), key(2, 0, b"")]);
    check(KeyRange::table(t(u16::MAX)), &[key(u16::MAX, u32::MAX, b"\xff")], &[key(u16::MAX - 1, u32::MAX, b"\xff")]);
    check(KeyRange::partition(t(1), p(255)), &[key(1, 255, b""), key(1, 255, b"\xff")], &[key(1, 254, b"\xff"), key(1, 256, b"")]);
    check(KeyRange::prefix(t(1), p(2), b"a\xff"), &[key(1, 2, b"a\xff"), key(1, 2, b"a\xff\xff")], &[key(1, 2, b"a\xfe"), key(1, 2, b"b")]);
    let rest = KeyRange::prefix(t(1), p(2), b"a").after(t(1), p(2), b"ab");
    check(rest, &[key(1, 2, b"ab\0"), key(1, 2, b"ac")], &[key(1, 2, b"ab"), key(1, 2, b"a"), key(1, 2, b"b")]);
    let all = KeyRange::table(t(1)).after(t(0), p(9), b"before the range");
    check(all, &[key(1, 0, b"")], &[key(0, 9, b"z")]);
}
