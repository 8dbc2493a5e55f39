//! Identities against jobs that changed a little.

use super::*;
use crate::{Manifest, validate::ValidatedJob};

fn job(change: impl Fn(String) -> String) -> ValidatedJob {
    let yaml = "
apiVersion: forebay.dev/v1alpha1
kind: IngestionJob
metadata: {name: rides}
spec:
  inputs:
    - {name: rides, topic: rides}
    - {name: fares, topic: fares}
  shards: 4
  deadLetter: {topic: rides.dead}
  pipeline:
    - parse: {format: json}
    - upsert: {table: riders, increment: {rides: 1}}
    - dedup: {by: [.id], last: 10}
    - upsert: {table: drivers, increment: {rides: 1}}
";
    Manifest::parse(&change(yaml.to_owned()), "job.yaml").unwrap().validate().unwrap()
}

fn identity() -> JobIdentity {
    JobIdentity::new("uid-1", 4, &job(|yaml| yaml)).unwrap()
}

#[test]
fn what_the_state_is_bound_to_may_not_change() {
    // One change at a time; each is refused with the difference.
    let check = |from: &str, to: &str, expected: &[&str]| {
        let findings = changed(&identity(), &job(|yaml| yaml.replace(from, to)));
        let findings: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(findings, expected, "{from} -> {to}");
    };
    check(
        "shards: 4",
        "shards: 8",
        &[
            "spec.shards: was 4, is 8: the number of shards is frozen at the first start; set it back, or start a job with another name (or an empty state)",
        ],
    );
    check(
        "topic: fares",
        "topic: fares2",
        &[
            "spec.inputs[1].topic: was \"fares\", is \"fares2\": the state holds offsets of the old topic; set it back, or start a job with another name (or an empty state)",
        ],
    );
    check(
        "    - {name: fares, topic: fares}\n",
        "",
        &[
            "spec.inputs: input \"fares\" (topic \"fares\") is gone, and the state holds its offsets; put it back, or start a job with another name (or an empty state)",
        ],
    );
    check(
        "    - {name: fares, topic: fares}\n",
        "    - {name: fares, topic: fares}\n    - {name: tips, topic: tips}\n",
        &[
            "spec.inputs[2].name: input \"tips\" was not there when the state began; delete it, or start a job with another name (or an empty state)",
        ],
    );
    check(
        "{name: rides}",
        "{name: trips}",
        &[
            "metadata.name: the state is of a job with name \"rides\", this one has \"trips\"; give this job a state folder of its own, or set it back",
        ],
    );
    check(
        "{name: rides}",
        "{name: rides, uid: uid-2}",
        &["metadata: the state is of the job with uid uid-1, this one has uid-2; give this job a state folder of its own"],
    );
}

#[test]
fn a_table_keeps_what_it_holds() {
    let check = |from: &str, to: &str, expected: &[&str]| {
        let findings = changed(&identity(), &job(|yaml| yaml.replace(from, to)));
        let findings: Vec<_> = findings.iter().map(ToString::to_string).collect();
        let way_out = "set the step back, or give it a table that has never been used, which begins empty";
        let expected: Vec<_> = expected.iter().map(|finding| format!("{finding}; {way_out}")).collect();
        assert_eq!(findings, expected, "{from} -> {to}");
    };
    let memory = "the records that `dedup` has seen";
    check("last: 10", "last: 20", &[]);
    check("last: 10", "within: 1h", &[]);
    check(
        "    - dedup: {by: [.id], last: 10}\n    - upsert: {table: drivers",
        "    - upsert: {table: dedup",
        &[&format!("spec.pipeline[2].upsert.table: table \"dedup\" holds {memory}, and this step would look for entities")],
    );
    check(
        "    - upsert: {table: riders, increment: {rides: 1}}\n    - dedup: {by: [.id], last: 10}",
        "    - dedup: {by: [.id], last: 10, table: riders}",
        &[&format!("spec.pipeline[1].dedup.table: table \"riders\" holds entities, and this step would look for {memory}")],
    );
}

#[test]
fn what_tables_hold_is_taken_up_where_it_was_not_known() {
    let mut identity = identity();
    identity.kinds.clear();
    let other =
        job(|yaml| yaml.replace("upsert: {table: drivers", "upsert: {table: dedup").replace("last: 10", "last: 10, table: drivers"));
    assert!(identity.assign_tables(&other).unwrap());
    assert_eq!(changed(&identity, &job(|yaml| yaml)).len(), 2, "they hold the other kind now");
}

#[test]
fn the_keys_of_tables_are_taken_up_where_they_were_not_known() {
    let mut identity = identity();
    identity.keys.clear();
    let by_id = job(|yaml| yaml.replace("table: riders", "table: riders, key: .id"));
    assert_eq!(contradictions(&identity, &by_id), []);
    assert!(identity.assign_tables(&by_id).unwrap());
    assert_eq!(contradictions(&identity, &by_id), []);
    assert_eq!(contradictions(&identity, &job(|yaml| yaml)).len(), 1, "riders are found by their ids now");
}

#[test]
fn what_the_state_does_not_depend_on_may_change() {
    let check = |from: &str, to: &str| {
        assert_eq!(changed(&identity(), &job(|yaml| yaml.replace(from, to))), [], "{from} -> {to}");
    };
    check("", "");
    check("upsert: {table: riders", "upsert: {table: riders, key: .rider");
    check("  shards: 4\n", "");
    check("{name: rides}", "{name: rides, uid: uid-1}");
    check("    - upsert: {table: riders, increment: {rides: 1}}\n", "");
    check("topic: rides.dead", "topic: rides.refused");
    check("shards: 4", "shards: 4\n  commit: {interval: 1s}");
}

#[test]
fn inputs_keep_their_ids_when_the_manifest_reorders_them() {
    let reordered = job(|yaml| {
        let yaml = yaml.replace("    - {name: rides, topic: rides}\n", "");
        yaml.replace("    - {name: fares, topic: fares}\n", "    - {name: fares, topic: fares}\n    - {name: rides, topic: rides}\n")
    });
    assert_eq!(reordered.inputs[0].name, "fares");
    assert_eq!(changed(&identity(), &reordered), []);
    let names: Vec<_> = identity().inputs_by_id(&reordered).iter().map(|input| input.name.clone()).collect();
    assert_eq!(names, ["rides", "fares"]);
}

#[test]
fn a_table_id_is_given_once_and_never_again() {
    // Remove a table, add another, bring the first back.
    let mut identity = identity();
    let ids = |identity: &JobIdentity| identity.tables().map(|(name, id)| (name.to_owned(), id)).collect::<Vec<_>>();
    let pair = |name: &str, id: u16| (name.to_owned(), id);
    assert_eq!(ids(&identity), [pair("dedup", 1), pair("drivers", 2), pair("riders", 0)]);
    assert!(!identity.assign_tables(&job(|yaml| yaml)).unwrap(), "nothing is new");
    assert!(identity.assign_tables(&job(|yaml| yaml.replace("table: riders", "table: cars"))).unwrap());
    assert_eq!(ids(&identity), [pair("cars", 3), pair("dedup", 1), pair("drivers", 2), pair("riders", 0)]);
    assert!(!identity.assign_tables(&job(|yaml| yaml)).unwrap());
    assert_eq!((identity.table("riders"), identity.table("bikes")), (Some(0), None));
}

#[test]
fn no_table_gets_an_id_when_all_are_given_out() {
    let mut identity = identity();
    identity.next_table = u16::MAX;
    let error = identity.assign_tables(&job(|yaml| yaml.replace("table: riders", "table: cars"))).unwrap_err();
    assert_eq!(error.to_string(), "give table \"cars\" an id: all 65535 are used; start a new job");
    assert_eq!(identity.table("cars"), None);
}

#[test]
fn an_identity_survives_its_file_and_no_other_file_passes_for_one() {
    let identity = identity();
    assert_eq!(JobIdentity::decode(&identity.encode()).unwrap(), identity);
    let text = String::from_utf8(identity.encode()).unwrap();
    insta::assert_snapshot!(text, @r#"
    {
      "format": 1,
      "uid": "uid-1",
      "name": "rides",
      "namespace": "default",
      "shards": 4,
      "inputs": [
        {
          "name": "rides",
          "topic": "rides",
          "partitioner": "murmur2"
        },
        {
          "name": "fares",
          "topic": "fares",
          "partitioner": "murmur2"
        }
      ],
      "tables": {
        "dedup": 1,
        "drivers": 2,
        "riders": 0
      },
      "kinds": {
        "dedup": "seen",
        "drivers": "entities",
        "riders": "entities"
      },
      "keys": {
        "drivers": [
          null
        ],
        "riders": [
          null
        ]
      },
      "nextTable": 3
    }
    "#);
    let check = |from: &str, to: &str, expected: &str| {
        let error = JobIdentity::decode(text.replace(from, to).as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("\"format\": 1", "\"format\": 2", "format 2 is unknown");
    check("\"riders\": 0", "\"riders\": 1", "two tables have one id");
    check("\"nextTable\": 3", "\"nextTable\": 2", "two tables have one id");
    check("\"shards\": 4", "\"shards\": \"4\"", "invalid type");
    check("{", "", "restore the file");
}

/// Method: the keys of a table's upserts through two changes. One that is replaced is refused; one that joins, goes, or belongs to another table is not. What
/// nobody wrote in between has the keys that it had.
#[test]
fn the_key_of_a_tables_entities_may_not_change() {
    let with = |steps: &[&str]| {
        let steps: String =
            steps.iter().map(|step| format!("    - upsert: {{{step}, increment: {rides}}}\n", rides = "{rides: 1}")).collect();
        job(|yaml| format!("{}{steps}", yaml.split("    - upsert: {table: riders").next().unwrap()))
    };
    let check = |manifests: [&[&str]; 3], expected: &[&str]| {
        let [first, second, third] = manifests.map(with);
        let mut identity = JobIdentity::new("uid-1", 4, &first).unwrap();
        assert_eq!(contradictions(&identity, &second), [], "{manifests:?}");
        identity.assign_tables(&second).unwrap();
        let identity = JobIdentity::decode(&identity.encode()).unwrap();
        let findings: Vec<_> = contradictions(&identity, &third).iter().map(ToString::to_string).collect();
        let way_out = "holds entities under the old key, which none of its records would find; set it back, or give it a table that has never been used, \
                       which begins empty; or make a job of another name, which reads the inputs from the start and makes the entities anew";
        let expected: Vec<_> = expected.iter().map(|finding| format!("spec.pipeline[{finding} {way_out}")).collect();
        assert_eq!(findings, expected, "{manifests:?}");
    };
    let (plain, by_rider, by_driver) = ("table: riders", "table: riders, key: .rider", "table: riders, key: .driver");
    let drivers = "table: drivers, key: .driver";
    let one = |old: &str, new: &str, expected: &[&str]| check([&[old], &[old], &[new]], expected);
    one(by_rider, by_rider, &[]);
    one(by_rider, "table: riders, key: ' .rider '", &[]);
    one(by_rider, by_driver, &["1].upsert.key: was `.rider`, is `.driver`: table \"riders\""]);
    one(plain, by_driver, &["1].upsert.key: was the record's key, is `.driver`: table \"riders\""]);
    one(by_driver, plain, &["1].upsert.key: was `.driver`, is the record's key: table \"riders\""]);
    one(by_rider, drivers, &[]);
    check([&[plain], &["table: others", plain], &[plain, by_driver]], &[]);
    check([&[plain], &[plain, by_driver], &[by_driver]], &[]);
    check([&[plain], &[plain, by_rider], &[by_driver, plain]], &["1].upsert.key: was `.rider`, is `.driver`: table \"riders\""]);
    check([&[by_rider], &[drivers], &[drivers, by_driver]], &["2].upsert.key: was `.rider`, is `.driver`: table \"riders\""]);
    check([&[by_rider], &[drivers], &[drivers, by_rider]], &[]);
    check([&[plain, by_rider], &[by_rider], &[by_rider, by_driver]], &[]);
}
