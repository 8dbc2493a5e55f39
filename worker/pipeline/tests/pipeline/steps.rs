//! Each step by itself: what it does, and what it refuses.

use crate::support::{Job, record, steps};
use forebay_engine::ids::{Partition, Timestamp};
use forebay_engine::pipeline::Verdict::{self, Duplicate, Filtered, Processed, Rejected};
use forebay_pipeline::fixture::FixtureRecord;

const UPSERT_ALL: &str = "
- parse: {format: json}
- upsert:
    table: t
    set: {a: .a}
    unset: [gone]
    addToSet: {tags: .tags}
    increment: {n: .n, one: 1}
    min: {low: .x}
    max: {high: .x}
    append: {log: {value: .log, cap: 2}}
    emit: {topic: deltas}
- upsert:
    table: t
    removeFromSet: {tags: .untag}
    set: {gone: .gone}
";

#[test]
fn each_operation_changes_its_field_and_the_delta_says_what_changed() {
    let run = Job::new(UPSERT_ALL).run_values(&[
        r#"{"a":{"b":[1]},"tags":["x","y","x"],"n":2,"x":5,"log":"l1","gone":1}"#,
        r#"{"a":{"b":[1]},"tags":"y","n":0.5,"x":7,"log":"l2"}"#,
        r#"{"tags":["z",null],"n":null,"x":1.5,"log":["l3"],"untag":["x","none"]}"#,
    ]);
    assert_eq!(run.verdicts(), [Processed; 3]);
    assert_eq!(
        run.values("deltas"),
        [
            r#"{"table":"t","key":"k","set":{"a":{"b":[1]},"n":2,"one":1,"low":5,"high":5,"log":["l1"]},"addToSet":{"tags":["x","y"]}}"#,
            r#"{"table":"t","key":"k","set":{"n":2.5,"one":2,"high":7,"log":["l1","l2"]},"unset":["gone"]}"#,
            r#"{"table":"t","key":"k","set":{"a":null,"one":3,"low":1.5,"log":["l2",["l3"]]},"unset":["gone"],"addToSet":{"tags":["z"]}}"#,
        ]
    );
    assert_eq!(run.state("t", "k"), r#"{"a":null,"n":2.5,"one":3,"low":1.5,"high":7,"log":["l2",["l3"]],"tags":["y","z"],"gone":null}"#);
}

#[test]
fn a_field_is_found_behind_one_that_was_removed() {
    // The removed field lies before the one that was found last, and its length decides what the bytes there would be read as.
    for old in ["1", "300", r#""a text of some length""#] {
        let job = Job::new(
            "
- parse: {format: json}
- upsert: {table: t, set: {a: .a, b: 1}, addToSet: {tags: .x}}
- upsert: {table: t, set: {b: 2}, unset: [a], addToSet: {tags: .y}, emit: {topic: deltas}}
",
        );
        let run = job.run_values(&[&format!(r#"{{"a":{old},"x":"x","y":"y"}}"#)]);
        assert_eq!((run.verdicts(), run.state("t", "k").as_str()), (&[Processed][..], r#"{"b":2,"tags":["x","y"]}"#), "{old}");
    }
}

#[test]
fn a_set_part_of_a_delta_lists_what_was_removed() {
    let job = Job::new(
        "
- parse: {format: json}
- upsert: {table: t, removeFromSet: {tags: .untag}, emit: {topic: deltas}}
- upsert: {table: t, addToSet: {tags: .tag}, emit: {topic: deltas}}
",
    );
    let run = job.run_values(&[r#"{"tag":["a","b","c"]}"#, r#"{"untag":["c","a","q"]}"#, r#"{"untag":"b"}"#, r#"{"untag":"b"}"#]);
    assert_eq!(
        run.values("deltas"),
        [
            r#"{"table":"t","key":"k","addToSet":{"tags":["a","b","c"]}}"#,
            r#"{"table":"t","key":"k","removeFromSet":{"tags":["c","a"]}}"#,
            r#"{"table":"t","key":"k","removeFromSet":{"tags":["b"]}}"#,
        ]
    );
    assert_eq!(run.state("t", "k"), r#"{"tags":[]}"#);
}

#[test]
fn an_upsert_that_changes_nothing_puts_nothing_out_and_makes_no_entity() {
    let job =
        Job::new("[{parse: {format: json}}, {upsert: {table: t, addToSet: {s: .s}, max: {m: .m}, unset: [u], emit: {topic: deltas}}}]");
    let run = job.run_values(&["{}", r#"{"s":[null,[]],"m":null}"#]);
    assert_eq!(run.verdicts(), [Processed; 2]);
    assert_eq!(run.values("deltas"), [r#"{"table":"t","key":"k","addToSet":{"s":[[]]}}"#]);
    let run = job.run_values(&["{}", "{}"]);
    assert_eq!((run.values("deltas").len(), run.state("t", "k").as_str()), (0, "none"));
}

#[test]
fn an_operand_that_does_not_fit_the_field_is_refused() {
    let check = |upsert: &str, values: &[&str], expected: &str| {
        let job = Job::new(&format!(
            "[{{parse: {{format: json}}}}, {{upsert: {{table: t, set: {{f: .f}}}}}}, {{upsert: {{table: t, {upsert}}}}}]"
        ));
        let run = job.run_values(values);
        assert_eq!(run.dead(), [("upsert", expected)], "{upsert}");
    };
    check("increment: {n: .n}", &[r#"{"n":"1"}"#], "n: cannot be incremented by \"1\"");
    check("increment: {f: .n}", &[r#"{"f":"text","n":1}"#], "f: the entity holds a string there, which cannot be incremented");
    check(
        "increment: {f: .n}",
        &[r#"{"f":9223372036854775807,"n":1}"#],
        "f: 9223372036854775807 incremented by 1 does not fit into 64 bits",
    );
    check("increment: {f: .n}", &[r#"{"f":1.7e308,"n":1.7e308}"#], "f: the sum is too large");
    check("max: {f: .n}", &[r#"{"f":"text","n":1}"#], "f: the entity holds a string there, which cannot be compared with 1");
    check("min: {n: .n}", &[r#"{"n":[1]}"#], "n: an array is neither a number nor a string, so it has no order");
    check("addToSet: {f: .n}", &[r#"{"f":7,"n":1}"#], "f: the entity holds an integer there, no array");
    check("removeFromSet: {f: .n}", &[r#"{"f":7,"n":1}"#], "f: the entity holds an integer there, no array");
    check("append: {f: {value: .n, cap: 3}}", &[r#"{"f":{},"n":1}"#], "f: the entity holds an object there, no array");
}

#[test]
fn min_and_max_order_strings_too_and_a_field_that_is_null_counts_as_missing() {
    let job = Job::new("[{parse: {format: json}}, {upsert: {table: t, min: {low: .s}, max: {high: .s}, increment: {n: .n}}}]");
    let run = job.run_values(&[r#"{"s":"b"}"#, r#"{"s":"a"}"#, r#"{"s":"c","n":1}"#]);
    assert_eq!(run.state("t", "k"), r#"{"low":"a","high":"c","n":1}"#);
}

#[test]
fn newer_by_applies_an_upsert_only_if_it_is_newer() {
    let job =
        Job::new("[{parse: {format: json}}, {upsert: {table: t, set: {v: .v}, increment: {n: 1}, newerBy: .at, emit: {topic: deltas}}}]");
    let run = job.run_values(&[
        r#"{"v":1,"at":"2024-01-01T00:00:00Z"}"#,
        r#"{"v":2,"at":"2024-01-01T01:00:00+02:00"}"#,
        r#"{"v":3,"at":"2024-01-01T00:00:00Z"}"#,
        r#"{"v":4,"at":"2024-01-01T00:00:00.000001Z"}"#,
        r#"{"v":5,"at":"yesterday"}"#,
        r#"{"v":6}"#,
    ]);
    assert_eq!(run.verdicts(), [Processed, Processed, Processed, Processed, Rejected, Rejected]);
    assert_eq!(run.values("deltas"), [r#"{"table":"t","key":"k","set":{"v":1,"n":1}}"#, r#"{"table":"t","key":"k","set":{"v":4,"n":2}}"#]);
    assert_eq!(run.dead()[0].1, "newerBy: \"yesterday\" is no time: neither RFC 3339 nor an integer");
    assert_eq!(run.dead()[1].1, "newerBy: null is no time: neither RFC 3339 nor an integer");
}

#[test]
fn newer_by_removes_an_entity_only_if_it_is_newer() {
    let job = Job::new(
        "
- parse: {format: json}
- route:
    - {when: .gone, emit: {topic: gone}}
    - {otherwise: true, emit: {topic: here}}
- remove: {table: t, newerBy: 'if .gone == true { .at } else { 0 }', emit: {topic: deltas}}
- filter: .gone != true
- upsert: {table: t, set: {v: .v}, newerBy: .at, emit: {topic: deltas}}
",
    );
    let upsert = |v: u32| format!(r#"{{"table":"t","key":"k","set":{{"v":{v}}}}}"#);
    let removed = r#"{"table":"t","key":"k","remove":true}"#.to_owned();
    let check = |records: &[&str], deltas: &[String]| {
        assert_eq!(job.run_values(records).values("deltas"), deltas, "{records:?}");
    };
    check(&[r#"{"v":1,"at":10}"#, r#"{"gone":true,"at":9}"#], &[upsert(1)]);
    check(&[r#"{"v":1,"at":10}"#, r#"{"gone":true,"at":10}"#], &[upsert(1)]);
    check(&[r#"{"v":1,"at":10}"#, r#"{"gone":true,"at":11}"#], &[upsert(1), removed.clone()]);
    // Nothing is left that could tell that this one is older than the removal.
    check(&[r#"{"v":1,"at":10}"#, r#"{"gone":true,"at":12}"#, r#"{"v":2,"at":11}"#], &[upsert(1), removed, upsert(2)]);
    let run = job.run_values(&[r#"{"gone":true}"#]);
    assert_eq!(run.dead(), [("remove", "newerBy: null is no time: neither RFC 3339 nor an integer")]);
}

/// Partition 0 of 4 by murmur2: `21` and `b`; not `a`.
#[test]
fn an_entity_of_another_partition_is_refused() {
    let job = Job::new("[{parse: {format: json}}, {upsert: {table: t, key: .id, set: {v: .v}, emit: {topic: deltas}}}]");
    let at = |partition: u32, value: &str| FixtureRecord { partition: Some(Partition::new(partition)), ..record("other", value, 1) };
    let own = forebay_engine::partitioner::partition_for_key(b"21", 4).get();
    let foreign = (own + 1) % 4;
    let run = job.run(&[
        at(own, r#"{"id":"21","v":1}"#),
        at(own, r#"{"id":21,"v":2}"#),
        at(foreign, r#"{"id":"21","v":3}"#),
        at(own, r#"{"v":4}"#),
    ]);
    assert_eq!(run.verdicts(), [Processed, Processed, Rejected, Rejected]);
    assert_eq!(run.values("deltas"), [r#"{"table":"t","key":"21","set":{"v":1}}"#, r#"{"table":"t","key":"21","set":{"v":2}}"#]);
    assert_eq!(run.records("deltas")[0].key.as_deref(), Some(&b"21"[..]));
    let expected = format!("key: \"21\" belongs to partition {own}, but the record came in partition {foreign}: key the input by it");
    assert_eq!(run.dead(), [("upsert", expected.as_str()), ("upsert", "key: .id is null or empty")]);
}

#[test]
fn a_record_without_a_key_has_no_entity_and_a_key_that_is_no_text_is_told_in_base64() {
    let job = Job::new("[{parse: {format: json}}, {upsert: {table: t, set: {v: .v}, emit: {topic: deltas}}}]");
    let unkeyed = FixtureRecord { key: None, ..record("", r#"{"v":1}"#, 1) };
    let binary = FixtureRecord { key: Some(vec![0xff, 0xfe]), ..record("", r#"{"v":1}"#, 1) };
    let run = job.run(&[unkeyed, binary]);
    assert_eq!(run.dead(), [("upsert", "the record has no key, so there is no entity to speak of")]);
    assert_eq!(run.values("deltas"), [r#"{"table":"t","key":{"base64":"//4="},"set":{"v":1}}"#]);
}

#[test]
fn an_entity_is_removed_once() {
    let job = Job::new(
        "
- parse: {format: json}
- upsert: {table: t, set: {v: .v}, emit: {topic: deltas}}
- remove: {table: t, emit: {topic: deltas}}
- remove: {table: t, emit: {topic: deltas}}
- enrich: {table: t, into: e}
- emit: {topic: out}
",
    );
    let run = job.run_values(&[r#"{"v":1}"#]);
    assert_eq!(run.values("deltas"), [r#"{"table":"t","key":"k","set":{"v":1}}"#, r#"{"table":"t","key":"k","remove":true}"#]);
    assert_eq!(run.values("out"), [r#"{"v":1,"e":null}"#]);
    assert_eq!(run.raw.state.len(), 0);
}

#[test]
fn enrich_adds_an_object_behind_the_document_or_in_place_of_a_field() {
    let job = Job::new(
        "
- parse: {format: json}
- upsert: {table: t, set: {a: .a}, increment: {n: 1}}
- enrich: {table: t, into: all}
- enrich: {table: t, into: some, fields: [n, none]}
- route: [{when: .some.n == 2, emit: {topic: second}}]
- emit: {topic: out}
",
    );
    let run = job.run_values(&["{}", r#"{"some":{"n":17},"a":"é\n"}"#]);
    assert_eq!(run.values("out"), [r#"{"all":{"a":null,"n":1},"some":{"n":1}}"#, r#"{"a":"é\n","all":{"a":"é\n","n":2},"some":{"n":2}}"#]);
    assert_eq!(run.values("second"), &run.values("out")[1..]);
}

#[test]
fn remap_changes_the_document_and_keeps_its_order() {
    let job = Job::new(
        r#"
- parse: {format: json}
- remap: |
    .c = { "new": true, "b": .c.b, "a": 1 }
    del(.x)
    .added = upcase(string!(.a)) + "-" + string!(%key)
    .list[1] = 9
- upsert: {table: t, set: {added: .added}}
- enrich: {table: t, into: e}
- emit: {topic: out}
- emit: {topic: again}
"#,
    );
    let run = job.run_values(&[r#"{"z":1.0,"c":{"b":2,"a":0},"x":1,"a":"q","list":[1,2]}"#]);
    assert_eq!(run.dead(), []);
    let expected = r#"{"z":1.0,"c":{"b":2,"a":1,"new":true},"a":"q","list":[1,9],"added":"Q-k","e":{"added":"Q-k"}}"#;
    assert_eq!((run.values("out"), run.values("again")), (vec![expected], vec![expected]));
}

#[test]
fn a_remap_that_fails_or_leaves_no_object_is_refused() {
    let check = |program: &str, expected: &str| {
        let run = Job::new(&format!("[{{parse: {{format: json}}}}, {{remap: '{program}'}}, {{emit: {{topic: out}}}}]"))
            .run_values(&[r#"{"a":"x"}"#]);
        let dead = run.dead();
        assert!(dead.len() == 1 && dead[0].0 == "remap" && dead[0].1.contains(expected), "{dead:?}");
        assert_eq!(run.values("out").len(), 0);
    };
    check(".a = to_int!(.a)", "invalid digit");
    check("abort \"no good\"", "no good");
    check(". = [1]", "must leave an object");
}

/// Method: programs before and behind a step that writes where they look, over records of different texts, one of which fails in the midst of a program.
#[test]
fn programs_see_each_record_as_the_steps_before_them_have_left_it() {
    let job = Job::new(
        "
- parse: {format: json}
- remap: |
    .seen = upcase(string!(.name))
    .n = to_int!(.n)
- upsert: {table: t, set: {last: .name}, increment: {times: 1}}
- enrich: {table: t, into: name}
- remap: .then = downcase(.seen) + string!(.name.last)
- filter: length(string!(.then)) > 2
- emit: {topic: out}
",
    );
    let run = job.run_values(&[r#"{"name":"ann","n":"1"}"#, r#"{"n":"no","name":"bob"}"#, r#"{ "n": "2", "name": "eve" }"#]);
    assert_eq!(run.verdicts(), [Processed, Rejected, Processed]);
    let expected = [
        r#"{"n":1,"seen":"ANN","name":{"last":"ann","times":1},"then":"annann"}"#,
        r#"{"n":2,"seen":"EVE","name":{"last":"eve","times":2},"then":"eveeve"}"#,
    ];
    assert_eq!(run.values("out"), expected);
}

#[test]
fn filter_leaves_out_what_is_not_true() {
    let run = Job::new("[{parse: {format: json}}, {filter: .n > 1}, {emit: {topic: out}}]").run_values(&[r#"{"n":2}"#, r#"{"n":1}"#, "{}"]);
    assert_eq!(run.verdicts(), [Processed, Filtered, Rejected]);
    assert_eq!(run.dead(), [("filter", ".n > 1: null cannot be compared with 1")]);
}

#[test]
fn routes_apply_each_by_itself_and_otherwise_when_none_did() {
    let job = Job::new(
        "
- parse: {format: json}
- route:
    - {when: .n > 1, emit: {topic: more}}
    - {when: .n > 2, emit: {topic: many, value: .n}}
    - {otherwise: true, emit: {topic: few}}
- emit: {topic: all}
",
    );
    let run = job.run_values(&[r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#]);
    assert_eq!(run.values("more"), [r#"{"n":2}"#, r#"{"n":3}"#]);
    assert_eq!(run.values("many"), ["3"]);
    assert_eq!(run.values("few"), [r#"{"n":1}"#]);
    assert_eq!(run.values("all").len(), 3);
}

#[test]
fn emit_takes_key_time_headers_partition_and_value_from_expressions() {
    let job = Job::new(
        r#"
- parse: {format: json}
- emit:
    topic: out
    key: .key
    timestamp: .at
    partitioner: input
    headers: {kind: '"flight"', n: .n, none: .none, from: '%topic'}
    value: '{"n": .n, "list": [.key, null]}'
- emit: {topic: plain}
"#,
    );
    let input = FixtureRecord {
        headers: vec![("trace".into(), Some(b"1".to_vec()))],
        ..record("k", r#"{"key":"K","at":"1970-01-01T00:00:02Z","n":1.5}"#, 1)
    };
    let unkeyed = record("k", r#"{"key":null,"at":77,"n":2}"#, 2);
    let run = job.run(&[input.clone(), unkeyed]);
    let out = run.records("out");
    assert_eq!((out[0].key.as_deref(), out[0].timestamp), (Some(&b"K"[..]), Timestamp::from_millis(2000)));
    assert_eq!((out[1].key.as_deref(), out[1].timestamp), (None, Timestamp::from_millis(77)));
    let own = forebay_engine::partitioner::partition_for_key(b"k", 4);
    assert_eq!(out[0].partition, Some(own));
    let text = |value: &str| Some(value.as_bytes().to_vec());
    assert_eq!(out[0].headers, [("from".to_owned(), text("in")), ("kind".to_owned(), text("flight")), ("n".to_owned(), text("1.5"))]);
    assert_eq!(run.values("out"), [r#"{"list":["K",null],"n":1.5}"#, r#"{"list":[null,null],"n":2}"#]);
    let plain = run.records("plain")[0];
    assert_eq!((&plain.key, &plain.value, plain.timestamp, plain.headers.len()), (&input.key, &input.value, input.timestamp, 0));
}

#[test]
fn emit_refuses_what_is_no_key_time_or_header_and_null_is_a_tombstone() {
    let check = |emit: &str, expected: &str| {
        let run =
            Job::new(&format!("[{{parse: {{format: json}}}}, {{emit: {{topic: out, {emit}}}}}]")).run_values(&[r#"{"o":{},"s":"x"}"#]);
        assert_eq!(run.dead(), [("emit", expected)], "{emit}");
    };
    check("key: .o", "key: an object cannot be written as plain text");
    check("headers: {h: .o}", "header h: an object cannot be written as plain text");
    check("timestamp: .s", "timestamp: \"x\" is neither RFC 3339 nor milliseconds since 1970");
    check("timestamp: -1", "timestamp: -1 is neither RFC 3339 nor milliseconds since 1970");
    let run = Job::new("[{parse: {format: json}}, {emit: {topic: out, value: .gone}}]").run_values(&["{}"]);
    assert_eq!(run.records("out")[0].value, None);
}

#[test]
fn dedup_within_a_time_forgets_by_the_epochs_clock() {
    let job = Job::new("[{parse: {format: json}}, {dedup: {by: [.a, .b], within: 10s}}, {emit: {topic: out}}]");
    let at =
        |seconds: i64, key: &str, value: &str| FixtureRecord { now: Some(Timestamp::from_millis(seconds * 1000)), ..record(key, value, 5) };
    let one = r#"{"a":1,"b":"x"}"#;
    let run = job.run(&[
        at(100, "k", one),
        at(109, "k", one),
        at(109, "other", one),
        at(109, "k", r#"{"a":1.0,"b":"x"}"#),
        at(109, "k", r#"{"a":"1","b":"x"}"#),
        at(110, "k", one),
        at(110, "k", r#"{"a":1}"#),
    ]);
    assert_eq!(run.verdicts(), [Processed, Duplicate, Processed, Processed, Processed, Processed, Rejected]);
    assert_eq!(run.dead(), [("dedup", ".b is null, so the record cannot be told from others")]);
}

#[test]
fn dedup_within_a_time_is_bounded_and_records_without_a_key_share_a_memory() {
    let job = Job::new("[{parse: {format: json}}, {dedup: {by: [.a], within: 10s, withinRecordsMax: 2}}, {emit: {topic: out}}]");
    let unkeyed = |value: &str| FixtureRecord { key: None, ..record("", value, 5) };
    let run = job.run(&[unkeyed(r#"{"a":1}"#), unkeyed(r#"{"a":2}"#), unkeyed(r#"{"a":1}"#), unkeyed(r#"{"a":3}"#), unkeyed(r#"{"a":1}"#)]);
    assert_eq!(run.verdicts(), [Processed, Processed, Duplicate, Processed, Processed]);
}

#[test]
fn tombstones_empty_and_oversized_values_are_treated_as_declared() {
    let check = |parse: &str, value: Option<&str>, verdict: Verdict| {
        let job = Job::new(&format!(
            "[{{parse: {{format: json, {parse}}}}}, {{upsert: {{table: t, set: {{v: .v}}, emit: {{topic: deltas}}}}}}, {{emit: {{topic: out}}}}]"
        ));
        let last = FixtureRecord { value: value.map(|value| value.as_bytes().to_vec()), ..record("k", "", 2) };
        let run = job.run(&[record("k", r#"{"v":1}"#, 1), last]);
        assert_eq!(run.verdicts()[1], verdict, "{parse} {value:?}");
        let removed = run.state("t", "k") == "none";
        let told = run.values("deltas").last() == Some(&r#"{"table":"t","key":"k","remove":true}"#);
        assert_eq!((removed, told), (verdict == Processed, verdict == Processed), "{parse} {value:?}");
        assert_eq!((run.values("out").len(), run.dead().len()), (1, usize::from(verdict == Rejected)), "{parse} {value:?}");
    };
    check("tombstone: reject", None, Rejected);
    check("tombstone: skip", None, Filtered);
    check("tombstone: removeEntity", None, Processed);
    check("empty: reject", Some(""), Rejected);
    check("empty: skip", Some(""), Filtered);
    check("empty: tombstone", Some(""), Rejected);
    check("empty: tombstone, tombstone: removeEntity", Some(""), Processed);
    check("sizeMax: '7', oversized: reject", Some(r#"{"v": 2}"#), Rejected);
    check("sizeMax: '7', oversized: skip", Some(r#"{"v": 2}"#), Filtered);
}

#[test]
fn csv_is_read_into_a_document_with_types() {
    let job = Job::new(
        "
- parse:
    format: csv
    csv: {columns: [{name: id}, {name: n, type: integer}], delimiter: ';'}
- upsert: {table: t, increment: {sum: .n}}
- enrich: {table: t, into: t}
- emit: {topic: out}
",
    );
    let run = job.run_values(&["a;1", "\"b;\"\"\";2", "c;x", "d"]);
    assert_eq!(run.values("out"), [r#"{"id":"a","n":1,"t":{"sum":1}}"#, r#"{"id":"b;\"","n":2,"t":{"sum":3}}"#]);
    assert_eq!(run.dead(), [("parse", "column n: \"x\" is not an integer"), ("parse", "the line has fewer columns instead of 2")]);
}

#[test]
fn validate_checks_every_kind_of_rule() {
    let check = |rule: &str, value: &str, expected: Option<&str>| {
        let job = Job::new(&format!("[{{parse: {{format: json}}}}, {{validate: {{fields: {{o.f: {rule}}}}}}}, {{emit: {{topic: out}}}}]"));
        let run = job.run_values(&[&format!("{{\"o\":{{\"f\":{value}}}}}")]);
        let expected: Vec<_> = expected.map(|reason| ("validate", format!("o.f: {reason}"))).into_iter().collect();
        let dead: Vec<_> = run.dead().into_iter().map(|(step, error)| (step, error.to_owned())).collect();
        assert_eq!(dead, expected, "{rule} {value}");
    };
    check("{type: number, min: -1.5, max: 2}", "2.0", None);
    check("{type: number, min: -1.5, max: 2}", "-2", Some("-2 is below the minimum -1.5"));
    check("{type: number, min: -1.5, max: 2}", "2.5", Some("2.5 is above the maximum 2"));
    check("{type: boolean}", "1", Some("1 is not true or false"));
    check("{type: boolean}", "false", None);
    check("{type: array, minLength: 1, maxLength: 2}", "[]", Some("has 0 elements, fewer than 1"));
    check("{type: array, minLength: 1, maxLength: 2}", "[1,[2,3]]", None);
    check("{type: object}", "{}", None);
    check("{type: object}", "[]", Some("an array is not an object"));
    check("{type: string, maxLength: 2}", "\"éé\"", None);
    check("{type: integer}", "18446744073709551615", Some("18446744073709552000 is not an integer of 64 bits"));
    check("{oneOf: [a, 2]}", "2", None);
    check("{oneOf: [a, 2]}", "\"2\"", Some("\"2\" is not among the 2 allowed values"));
    check("{required: true}", "null", Some("is required, but missing or null"));
    check("{type: string}", "null", None);
    for (time, fits) in [
        ("2013-01-01T05:00:00Z", true),
        ("2013-01-01 05:00:00.123456789+05:30", true),
        ("2013-01-01t05:00:00z", true),
        ("2013-01-01T05:00:00", false),
        ("2013-01-01", false),
        ("2013-02-30T05:00:00Z", false),
        ("2013-01-01T05:00Z", false),
        ("2013-01-01T05:00:00+05", false),
        ("2013-01-01T05:00:00+05:00[Europe/Paris]", false),
        ("1357016400", false),
    ] {
        let reason = format!("\"{time}\" is not a time as RFC 3339 has it");
        check("{type: timestamp}", &format!("\"{time}\""), (!fits).then_some(reason.as_str()));
    }
}

#[test]
fn a_manifest_keeps_its_meaning_when_it_is_written_back() {
    let all = steps(UPSERT_ALL);
    let back: Vec<_> = serde_json::from_str(&serde_json::to_string(&all).unwrap()).unwrap();
    assert_eq!(all, back);
}
