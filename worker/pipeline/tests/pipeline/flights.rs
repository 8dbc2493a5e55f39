//! The example's own pipeline on a few records, with every output written out.

use crate::support::{DEAD, Job, record};
use forebay_crds::pipeline::Step;
use forebay_engine::ids::Timestamp;
use forebay_engine::pipeline::Verdict::{Duplicate, Processed, Rejected};
use forebay_pipeline::fixture::FixtureRecord;

#[derive(serde::Deserialize)]
struct Manifest {
    spec: Spec,
}

#[derive(serde::Deserialize)]
struct Spec {
    pipeline: Vec<Step>,
}

fn flights() -> Job {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flights/job.yaml");
    let manifest: Manifest = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    Job::from_steps(&manifest.spec.pipeline)
}

fn flight(id: &str, tailnum: &str, dest: &str, dep_delay: i32, distance: u32) -> String {
    format!(
        r#"{{"id":"{id}","time":"2013-01-01T10:00:00Z","carrier":"UA","origin":"EWR","dest":"{dest}","tailnum":"{tailnum}","flight":1545,"dep_delay":{dep_delay},"arr_delay":null,"air_time":227.5,"distance":{distance}}}"#
    )
}

#[test]
fn each_flight_changes_its_aircraft_and_goes_out_with_the_aircrafts_figures() {
    let values = [
        flight("F1", "N14228", "IAH", 2, 1400),
        flight("F2", "N14228", "ORD", 75, 719),
        flight("F1", "N14228", "IAH", 2, 1400),
        flight("F3", "N14228", "IAH", 60, 1400),
        flight("F4", "N668DN", "ATL", -6, 762),
    ];
    let keys = ["N14228", "N14228", "N14228", "N14228", "N668DN"];
    let records: Vec<_> = values.iter().zip(keys).zip(1_000..).map(|((value, key), at)| record(key, value, at)).collect();
    let run = flights().run(&records);
    assert_eq!(run.verdicts(), [Processed, Processed, Duplicate, Processed, Processed]);
    assert_eq!(
        run.values("updates"),
        [
            r#"{"table":"aircraft","key":"N14228","set":{"carrier":"UA","last_airport":"IAH","last_seen":"2013-01-01T10:00:00Z","distance":1400,"flights":1,"worst_delay":2},"addToSet":{"airports":["IAH"]}}"#,
            r#"{"table":"aircraft","key":"N14228","set":{"last_airport":"ORD","distance":2119,"flights":2,"worst_delay":75},"addToSet":{"airports":["ORD"]}}"#,
            r#"{"table":"aircraft","key":"N14228","set":{"last_airport":"IAH","distance":3519,"flights":3}}"#,
            r#"{"table":"aircraft","key":"N668DN","set":{"carrier":"UA","last_airport":"ATL","last_seen":"2013-01-01T10:00:00Z","distance":762,"flights":1,"worst_delay":-6},"addToSet":{"airports":["ATL"]}}"#,
        ]
    );
    let enriched = |value: &str, aircraft: &str| format!("{},\"aircraft\":{aircraft}}}", value.strip_suffix('}').unwrap());
    let second = enriched(&values[1], r#"{"flights":2,"distance":2119,"airports":["IAH","ORD"],"worst_delay":75}"#);
    assert_eq!(
        run.values("enriched"),
        [
            enriched(&values[0], r#"{"flights":1,"distance":1400,"airports":["IAH"],"worst_delay":2}"#),
            second.clone(),
            enriched(&values[3], r#"{"flights":3,"distance":3519,"airports":["IAH","ORD"],"worst_delay":75}"#),
            enriched(&values[4], r#"{"flights":1,"distance":762,"airports":["ATL"],"worst_delay":-6}"#),
        ]
    );
    assert_eq!(run.values("delayed"), [second]);
    assert_eq!(
        run.state("aircraft", "N14228"),
        r#"{"carrier":"UA","last_airport":"IAH","last_seen":"2013-01-01T10:00:00Z","distance":3519,"flights":3,"worst_delay":75,"airports":["IAH","ORD"]}"#
    );
    for topic in ["updates", "enriched", "delayed"] {
        for output in run.records(topic) {
            let input = records.iter().find(|record| record.timestamp == output.timestamp).unwrap();
            assert_eq!((&output.key, output.partition, &output.headers), (&input.key, None, &vec![]));
        }
    }
}

#[test]
fn what_is_not_a_flight_goes_to_the_dead_letter_topic_with_the_reason() {
    let good = flight("F1", "N14228", "IAH", 2, 1400);
    let mut unkeyed = record("", &good.replace("\"N14228\"", "null"), 2);
    unkeyed.key = None;
    let tombstone = FixtureRecord { value: None, ..record("N1", "", 7) };
    let records = [
        record("N14228", &good.replace("\"dep_delay\":2", "\"dep_delay\":null"), 1),
        unkeyed,
        record("N14228", "{\"id\": \"F9\", ", 3),
        record("N14228", "[1, 2]", 4),
        record("N14228", &good.replace("N14228", "n14228"), 5),
        record("N14228", &good.replace("2013-01-01T10:00:00Z", "2013-13-01T10:00:00Z").replace("IAH", "HOUSTON"), 6),
        tombstone,
        record("N14228", "", 8),
        record("N14228", &good.replace("1400", "0").replace("\"id\":\"F1\"", "\"id\":17"), 9),
        record("N14228", &good.replace("\"dep_delay\":2", "\"dep_delay\":2.0"), 10),
    ];
    let run = flights().run(&records);
    assert_eq!(run.verdicts(), [Rejected; 10]);
    assert_eq!(
        run.dead(),
        [
            ("validate", "dep_delay: is required, but missing or null"),
            ("validate", "tailnum: is required, but missing or null"),
            ("parse", "the value is not JSON: it ends where a name in quotes is expected"),
            ("parse", "the value is JSON, but an array and not an object"),
            ("validate", "tailnum: \"n14228\" does not match ^[A-Z0-9]{3,8}$"),
            ("validate", "dest: has 7 characters, more than 4; time: \"2013-13-01T10:00:00Z\" is not a time as RFC 3339 has it"),
            ("parse", "the record is a tombstone: its value is null"),
            ("parse", "the value is empty"),
            ("validate", "distance: 0 is below the minimum 1; id: 17 is not a string"),
            ("validate", "dep_delay: 2 is not an integer of 64 bits"),
        ]
    );
    let dead = run.records(DEAD);
    for (dead, input) in dead.iter().zip(&records) {
        assert_eq!((&dead.key, &dead.value, dead.timestamp), (&input.key, &input.value, input.timestamp));
    }
    assert_eq!(run.raw.outputs.len(), records.len());
    assert_eq!(run.raw.state.len(), 0);
}

#[test]
fn a_flight_is_passed_on_with_its_own_spelling() {
    let value = "  { \"id\" : \"F\\u0031\\/\",\n\t\"x\": 1.50e+2, \"big\": 123456789012345678901234567890, \"tailnum\": \"N14228\", \"dep_delay\": 61,\
                 \"dest\":\"IAH\", \"distance\":1, \"time\":\"2013-01-01T05:00:00-05:00\" } \r\n";
    let run = flights().run(&[record("N14228", value, 1)]);
    let expected = format!(
        "{},\"aircraft\":{{\"flights\":1,\"distance\":1,\"airports\":[\"IAH\"],\"worst_delay\":61}}}}",
        value.trim_end().strip_suffix('}').unwrap()
    );
    assert_eq!(run.values("enriched"), [expected.as_str()]);
    assert_eq!(run.values("delayed"), [expected.as_str()]);
}

#[test]
fn a_flight_comes_back_after_64_others_of_its_aircraft() {
    let flights_of =
        |ids: std::ops::Range<i64>| ids.map(|id| record("N1A", &flight(&format!("F{id}"), "N1A", "IAH", 0, 1), id)).collect::<Vec<_>>();
    let mut records = flights_of(0..65);
    records.push(FixtureRecord { timestamp: Timestamp::from_millis(100), ..records[1].clone() });
    records.push(FixtureRecord { timestamp: Timestamp::from_millis(101), ..records[0].clone() });
    let run = flights().run(&records);
    assert_eq!(run.verdicts()[65..], [Duplicate, Processed]);
    assert_eq!(run.raw.books.duplicate, 1);
}
