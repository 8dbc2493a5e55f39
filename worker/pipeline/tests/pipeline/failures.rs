//! What becomes of a record that a step refuses, and of a manifest that cannot be compiled.

use forebay_engine::ids::{Partition, Timestamp};
use forebay_engine::log::TimestampLimits;
use forebay_engine::pipeline::Verdict::{Processed, Rejected};
use forebay_pipeline::CompileContext;
use forebay_pipeline::fixture::FixtureRecord;

use crate::support::{DEAD, Job, compile_errors, header, record, steps};

#[test]
fn a_dead_letter_is_the_record_with_its_place_and_the_reason() {
    let job = Job::new("[{parse: {format: json}}, {validate: {fields: {n: {type: integer}}}}, {emit: {topic: out}}]");
    let text = |value: &str| Some(value.as_bytes().to_vec());
    let input = FixtureRecord {
        partition: Some(Partition::new(2)),
        headers: vec![("trace".into(), text("t")), ("forebay.error".into(), text("from the last time")), ("null".into(), None)],
        ..record("k", r#"{ "n" : "x" }"#, 1_234)
    };
    let run = job.run(&[FixtureRecord { value: text("{}"), ..input.clone() }, input.clone()]);
    assert_eq!(run.verdicts(), [Processed, Rejected]);
    let [dead] = run.records(DEAD)[..] else { panic!("one dead letter") };
    assert_eq!((&dead.key, &dead.value, dead.timestamp, dead.partition), (&input.key, &input.value, input.timestamp, None));
    let expected = [
        ("trace", text("t")),
        ("null", None),
        ("forebay.job", text("job")),
        ("forebay.topic", text("in")),
        ("forebay.partition", text("2")),
        ("forebay.offset", text("1")),
        ("forebay.timestamp", text("1234")),
        ("forebay.step", text("validate")),
        ("forebay.step_index", text("1")),
        ("forebay.error", text("n: \"x\" is not an integer of 64 bits")),
        ("forebay.revision", text("rev7")),
    ];
    assert_eq!(dead.headers, expected.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn a_dead_letter_names_what_its_process_was_made_from_where_that_is_known() {
    let steps = steps("[{parse: {format: json}}, {emit: {topic: out}}]");
    let job = Job::with(&steps, |context| CompileContext { template: Some("3f2a9c1e5a".into()), ..context });
    let run = job.run(&[record("k", "no JSON", 1)]);
    let dead = run.records(DEAD)[0];
    assert_eq!((header(dead, "forebay.template"), header(dead, "forebay.revision")), ("3f2a9c1e5a", "rev7"));
}

#[test]
fn a_record_that_a_later_step_refuses_leaves_nothing_behind() {
    let job = Job::new(
        "
- parse: {format: json}
- dedup: {by: [.id], last: 3}
- upsert: {table: t, increment: {n: 1}, addToSet: {s: .id}, emit: {topic: deltas}}
- remove: {table: other}
- upsert: {table: other, set: {id: .id}}
- emit: {topic: out}
- filter: .go > 0
- emit: {topic: last}
",
    );
    let good = r#"{"id":1,"go":1}"#;
    let bad = r#"{"id":2,"go":"?"}"#;
    let run = job.run_values(&[good, bad, bad, r#"{"id":2,"go":2}"#]);
    // The refused record is not remembered either: it may come again, mended.
    assert_eq!(run.verdicts(), [Processed, Rejected, Rejected, Processed]);
    assert_eq!(run.values("out"), [good, r#"{"id":2,"go":2}"#]);
    assert_eq!(
        run.values("deltas"),
        [r#"{"table":"t","key":"k","set":{"n":1},"addToSet":{"s":[1]}}"#, r#"{"table":"t","key":"k","set":{"n":2},"addToSet":{"s":[2]}}"#]
    );
    assert_eq!((run.state("t", "k"), run.state("other", "k")), (r#"{"n":2,"s":[1,2]}"#.into(), r#"{"id":2}"#.into()));
    assert_eq!(run.dead().len(), 2);
    // Also when it is the first that its entity ever saw.
    let run = job.run_values(&[bad]);
    assert_eq!((run.raw.state.len(), run.raw.outputs.len()), (0, 1));
}

#[test]
fn an_output_that_no_topic_takes_is_a_dead_letter_and_a_dead_letter_is_cut_to_fit() {
    let steps = steps(
        "[{parse: {format: json}}, {upsert: {table: t, append: {log: {value: .v, cap: 10}}, emit: {topic: deltas}}}, {emit: {topic: out}}]",
    );
    let job = Job::with(&steps, |context| CompileContext { record_bytes_max: 4_000, ..context });
    let value = |bytes: usize| format!("{{\"v\":\"{}\"}}", "x".repeat(bytes));
    let run = job.run_values(&[&value(2_500), &value(2_500), &value(10_000)]);
    assert_eq!(run.verdicts(), [Processed, Rejected, Rejected]);
    assert!(
        run.dead().iter().all(|(step, error)| *step == "upsert" && error.contains("more than the 4000 that a topic takes")),
        "{:?}",
        run.dead()
    );
    let dead = run.records(DEAD);
    // The second fits whole; the third is cut, and says how long it was.
    assert_eq!(dead[0].value.as_deref(), Some(value(2_500).as_bytes()));
    assert!(dead[0].headers.iter().all(|(name, _)| name != "forebay.value_bytes"));
    let cut = dead[1].value.as_deref().unwrap();
    assert!(value(10_000).as_bytes().starts_with(cut) && cut.len() > 2_000 && cut.len() < 4_000);
    assert_eq!(header(dead[1], "forebay.value_bytes"), "10008");
    assert_eq!(run.state("t", "k").len(), r#"{"log":[""]}"#.len() + 2_500);
}

#[test]
fn an_output_whose_time_stamp_its_topic_does_not_take_is_a_dead_letter_with_one_that_it_does() {
    let manifest =
        "[{parse: {format: json}}, {upsert: {table: t, increment: {n: 1}, emit: {topic: deltas}}}, {emit: {topic: out, timestamp: .at}}]";
    let limits = TimestampLimits { behind_millis_max: 100, ahead_millis_max: 50 };
    let job = Job::with(&steps(manifest), |context| {
        let mut timestamp_limits = vec![TimestampLimits::NONE; context.outputs.len()];
        for topic in ["deltas", "out", DEAD] {
            timestamp_limits[usize::from(context.outputs[topic].get())] = limits;
        }
        CompileContext { timestamp_limits, ..context }
    });
    // The input's own time stamp, that of the output, the clock; the step that refuses it, what it says, and the dead letter's time stamp.
    let check = |own: i64, at: i64, refused: Option<(&str, &str, i64)>| {
        let now = Some(Timestamp::from_millis(1_000));
        let run = job.run(&[FixtureRecord { now, ..record("k", &format!("{{\"at\":{at}}}"), own) }]);
        let Some((step, said, nearest)) = refused else {
            assert_eq!((run.verdicts(), run.records("out")[0].timestamp.as_millis()), (&[Processed][..], at));
            return;
        };
        assert_eq!(run.verdicts(), [Rejected], "{own} {at}");
        let [dead] = run.records(DEAD)[..] else { panic!("one dead letter") };
        assert_eq!((header(dead, "forebay.step"), dead.timestamp.as_millis()), (step, nearest));
        assert!(header(dead, "forebay.error").contains(said), "{}", header(dead, "forebay.error"));
        assert_eq!(header(dead, "forebay.timestamp"), own.to_string());
    };
    check(1_000, 1_050, None);
    // Records without a time stamp, and outputs: they get the time at which they are sent.
    check(-1, 1_000, None);
    check(1_000, 0, None);
    check(1_000, 900, None);
    check(1_000, 1_051, Some(("emit", "time stamp 1051 is newer than 1050, all that the topic takes (`message.timestamp.after", 1_000)));
    check(1_000, 899, Some(("emit", "time stamp 899 is older than 900, all that the topic takes (`message.timestamp.before", 1_000)));
    check(2_000, 1_000, Some(("upsert", "2000 is newer than 1050", 1_050)));
    check(500, 1_000, Some(("upsert", "500 is older than 900", 900)));
    // Without limits there are none.
    let run = Job::new(manifest).run_values(&[r#"{"at":4000000000000}"#]);
    assert_eq!(run.verdicts(), [Processed]);
}

#[test]
fn a_dead_letter_fits_its_topic_whatever_of_the_record_is_large() {
    let steps = steps("[{parse: {format: json}}, {emit: {topic: out}}]");
    let job = Job::with(&steps, |context| CompileContext { record_bytes_max: 4_000, ..context });
    // Key, value, headers: how many bytes, of how many headers; and what the letter says of them.
    let check = |[key, value, header_bytes, headers]: [usize; 4], expected: &[(&str, &str)]| {
        let header = ("h".to_owned(), Some(vec![b'h'; header_bytes]));
        let input = FixtureRecord { headers: vec![header.clone(); headers], ..record(&"k".repeat(key), &"v".repeat(value), 1) };
        let run = job.run(std::slice::from_ref(&input));
        let [dead] = run.records(DEAD)[..] else { panic!("one dead letter") };
        let (left_key, left_value) = (dead.key.as_deref().unwrap(), dead.value.as_deref().unwrap());
        // Two lengths of each header are more than any log needs.
        let bytes = dead.headers.iter().map(|(name, value)| 8 + name.len() + value.as_ref().map_or(0, Vec::len)).sum::<usize>();
        assert!(
            left_key.len() + left_value.len() + bytes <= 4_000,
            "{} bytes of key, {} of value, {bytes}",
            left_key.len(),
            left_value.len()
        );
        let cut = |(name, _): &&(String, Option<Vec<u8>>)| name.starts_with("forebay.") && name.ends_with("_bytes");
        let cuts: Vec<_> = dead.headers.iter().filter(cut).map(|(name, value)| (name.as_str(), value.as_deref().unwrap())).collect();
        assert_eq!(cuts, expected.iter().map(|(name, bytes)| (*name, bytes.as_bytes())).collect::<Vec<_>>());
        let is_cut = |part: &str| expected.iter().any(|(name, _)| *name == part);
        assert!(input.key.as_ref().unwrap().starts_with(left_key) && (left_key.len() < key) == is_cut("forebay.key_bytes"));
        assert!(input.value.as_ref().unwrap().starts_with(left_value) && (left_value.len() < value) == is_cut("forebay.value_bytes"));
        let left_headers = dead.headers.iter().filter(|there| **there == header).count();
        assert_eq!(left_headers, if is_cut("forebay.headers_bytes") { 0 } else { headers });
    };
    check([10, 1_000, 10, 10], &[]);
    check([10, 10_000, 10, 10], &[("forebay.value_bytes", "10000")]);
    check([10, 100, 100, 100], &[("forebay.headers_bytes", "10900")]);
    check([2_000, 100, 1_500, 1], &[("forebay.headers_bytes", "1509")]);
    check([10_000, 100, 0, 0], &[("forebay.key_bytes", "10000"), ("forebay.value_bytes", "100")]);
    check(
        [10_000, 10_000, 10, 200],
        &[("forebay.headers_bytes", "3800"), ("forebay.key_bytes", "10000"), ("forebay.value_bytes", "10000")],
    );
    // Many headers of next to nothing.
    check([10, 2_000, 0, 200], &[("forebay.value_bytes", "2000")]);
}

#[test]
fn an_entity_that_is_nested_in_itself_ends_as_dead_letters_before_it_is_too_deep_to_be_read() {
    // What a run leaves is read back from its bytes. With each record an entity gets two to four levels deeper.
    for nest in ["set: {last: '.'}", "append: {last: {value: '.', cap: 1}}", "set: {last: '[[.]]'}"] {
        let job = Job::new(&format!(
            "[{{parse: {{format: json}}}}, {{enrich: {{table: t, into: previous}}}}, {{upsert: {{table: t, {nest}}}}}, {{emit: {{topic: out, value: .a}}}}]"
        ));
        let run = job.run_values(&[r#"{"a":"b"}"#; 140]);
        let nested = run.verdicts().iter().take_while(|verdict| **verdict == Processed).count();
        assert!((60..140).contains(&nested), "{nest}: {nested} records nested it");
        assert!(run.verdicts()[nested..].iter().all(|verdict| *verdict == Rejected), "{nest}");
        let (_, error) = run.dead()[0];
        assert!(error.starts_with("last: ") && error.ends_with("is nested deeper than the 254 levels that an entity can hold"), "{error}");
    }
}

#[test]
fn a_reason_is_cut_between_characters() {
    let fields: Vec<_> = (0..200).map(|n| format!("é{n}: {{required: true}}")).collect();
    let run =
        Job::new(&format!("[{{parse: {{format: json}}}}, {{validate: {{fields: {{{}}}}}}}, {{emit: {{topic: out}}}}]", fields.join(", ")))
            .run_values(&["{}"]);
    let error = header(run.records(DEAD)[0], "forebay.error");
    assert!(error.len() <= 512 && error.len() > 500, "{error}");
}

#[test]
fn now_is_the_epochs_clock() {
    let job = Job::new("[{parse: {format: json}}, {emit: {topic: out, value: now()}}]");
    let at = |millis: i64| FixtureRecord { now: Some(Timestamp::from_millis(millis)), ..record("k", "{}", 5) };
    // The third clock lies before the second: it does not go back (I7).
    let run = job.run(&[at(1_700_000_000_123), at(1_700_000_001_000), at(1_600_000_000_000)]);
    assert_eq!(run.values("out"), [r#""2023-11-14T22:13:20.123Z""#, r#""2023-11-14T22:13:21Z""#, r#""2023-11-14T22:13:21Z""#]);
}

#[test]
fn a_manifest_that_makes_no_sense_is_refused_with_place_and_way_out() {
    let check = |yaml: &str, path: &str, message: &str| {
        let errors = compile_errors(yaml);
        let found = errors.iter().find(|error| error.path == path && error.message.contains(message));
        assert!(found.is_some_and(|error| !error.help.is_empty()), "{yaml}: {errors:#?}");
    };
    let with = |step: &str| format!("[{{parse: {{format: json}}}}, {step}, {{emit: {{topic: out}}}}]");
    check("[{emit: {topic: out}}]", "spec.pipeline", "first step must be parse");
    check("[{parse: {format: json}}]", "spec.pipeline", "puts nothing out");
    check(&with("{parse: {format: json}}"), "spec.pipeline[1].parse", "comes first");
    check(&with("{filter: .a >}"), "spec.pipeline[1].filter", "syntax");
    check(&with("{filter: .a = 1}"), "spec.pipeline[1].filter", "read-only");
    check(&with("{remap: .a = .a + 1}"), "spec.pipeline[1].remap", "unhandled fallible assignment");
    check(&with("{upsert: {table: t, set: {a: nope}}}"), "spec.pipeline[1].upsert.set.a", "undefined");
    check(&with("{upsert: {table: t, set: {a: .a}, increment: {a: 1}}}"), "spec.pipeline[1].upsert.increment.a", "two operations");
    check(&with("{upsert: {table: t}}"), "spec.pipeline[1].upsert", "changes nothing");
    check(&with("{upsert: {table: 'a b', set: {a: .a}}}"), "spec.pipeline[1].upsert.table", "no name for a table");
    check(&with("{upsert: {table: dedup, set: {a: .a}}}, {dedup: {by: [.a], last: 1}}"), "spec.pipeline", "used by dedup and by another");
    check(&with("{dedup: {by: [.a]}}"), "spec.pipeline[1].dedup", "not said how much");
    check(&with("{dedup: {by: [.a], last: 1, within: 1s}}"), "spec.pipeline[1].dedup", "exclude each other");
    check(&with("{dedup: {by: [.a], last: 1}}, {dedup: {by: [.b], last: 1}}"), "spec.pipeline[2].dedup.table", "another dedup");
    check(
        &with("{validate: {fields: {a: {type: string, pattern: '['}}}}"),
        "spec.pipeline[1].validate.fields.a.pattern",
        "no regular expression",
    );
    check(&with("{validate: {fields: {a: {min: 1}}}}"), "spec.pipeline[1].validate.fields.a.min", "min is for");
    check(&with("{validate: {fields: {a: {type: integer, min: 2, max: 1}}}}"), "spec.pipeline[1].validate.fields.a.min", "nothing passes");
    check(&with("{validate: {fields: {a..b: {type: integer}}}}"), "spec.pipeline[1].validate.fields.a..b", "no path");
    check(&with("{route: [{emit: {topic: a}}]}"), "spec.pipeline[1].route[0]", "either `when` or");
    check(
        &with("{route: [{otherwise: true, emit: {topic: a}}, {when: .a, emit: {topic: b}}]}"),
        "spec.pipeline[1].route[0]",
        "last of several",
    );
    check(&with("{enrich: {table: t, into: a.b}}"), "spec.pipeline[1].enrich.into", "not the name of a field");
    check("[{parse: {format: csv}}, {emit: {topic: out}}]", "spec.pipeline[0].parse", "needs its columns");
    check("[{parse: {format: json, tombstone: removeEntity}}, {emit: {topic: out}}]", "spec.pipeline[0].parse.tombstone", "no upsert");
    let errors = compile_errors(&with("{filter: '.abc == nope(1)'}"));
    assert_eq!(errors[0].offset, Some(8), "{errors:?}");
}

#[test]
fn a_step_with_an_unknown_field_or_of_no_known_name_is_refused() {
    let check = |yaml: &str, expected: &str| {
        let error = serde_saphyr::from_str::<Vec<forebay_crds::pipeline::Step>>(yaml).unwrap_err().to_string();
        assert!(error.contains(expected), "{yaml}: {error}");
    };
    check("[{parse: {format: json, fromat: x}}]", "fromat");
    check("[{prase: {format: json}}]", "prase");
    check("[{filter: 1.5}]", "put quotes around");
    check("[{dedup: {by: [.id], within: 10}}]", "10");
}
