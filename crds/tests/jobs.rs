//! From a good manifest to a validated job, its revision, and places in the file.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::time::Duration;

use forebay_crds::job::{InputPartitioner, StartFrom, StoreSpec};
use forebay_crds::validate::{Input, Property};
use forebay_crds::{Finding, IngestionJob, Locator, Manifest, Path, ValidatedJob, parse, revision, validate};

fn flights() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/job.yaml")).unwrap()
}

fn validated(yaml: &str) -> ValidatedJob {
    Manifest::parse(yaml, "job.yaml").unwrap().validate().unwrap()
}

#[test]
fn the_flights_job_is_read_with_its_defaults() {
    let job = validated(&flights());
    assert_eq!((job.name.as_str(), job.namespace.as_str(), job.uid.as_deref()), ("flights", "default", None));
    let input =
        Input { name: "flights".into(), topic: "flights".into(), start_from: StartFrom::Earliest, partitioner: InputPartitioner::Murmur2 };
    assert_eq!(job.inputs, [input]);
    assert_eq!(job.shards, Some(4));
    assert_eq!(job.consumer_group, "forebay.default.flights");
    assert_eq!((job.commit.interval, job.commit.bytes_max), (Duration::from_millis(100), 8 << 20));
    let checkpoint = job.checkpoint;
    assert_eq!((checkpoint.interval, checkpoint.min_pause), (Duration::from_secs(30), Duration::ZERO));
    assert_eq!((checkpoint.concurrent_max, checkpoint.retained), (2, 2));
    assert_eq!(job.output_topics, ["updates", "enriched", "delayed", "flights.dead"]);
    assert_eq!(job.tables, ["dedup", "aircraft"]);
    assert_eq!((job.pipeline.len(), job.workers.replicas), (7, 1));
    assert_eq!((job.kafka, job.store, job.state_memory_bytes), (None, None, None));
}

#[test]
fn everything_that_can_be_said_is_understood() {
    let yaml = flights().replace(
        "  shards: 4\n",
        r#"
  consumerGroup: old-flights
  kafka:
    bootstrapServers: "a:9092, b:9092"
    properties: {security.protocol: SASL_SSL}
    propertiesFrom:
      sasl.username: {env: KAFKA_USER}
      sasl.password: {secretKeyRef: {name: kafka, key: password}}
      ssl.key.pem: {file: /tls/key.pem}
  state:
    memory: 512Mi
    store:
      s3: {bucket: snapshots, prefix: a/b, endpoint: "https://s3.example.org", region: r1, pathStyle: true, caFile: /ca.pem, sseKmsKeyId: k}
  workers: {replicas: 3}
"#,
    );
    let yaml = yaml
        .replace("startFrom: earliest", "startFrom: 2013-01-01T00:00:00Z")
        .replace("retained: 2", "retained: 3\n    minPause: 5s\n    maxConcurrent: 4");
    let job = validated(&yaml);
    assert_eq!(job.consumer_group, "old-flights");
    let kafka = job.kafka.unwrap();
    assert_eq!(kafka.bootstrap_servers, "a:9092, b:9092");
    assert_eq!(kafka.properties["security.protocol"], Property::Value("SASL_SSL".into()));
    assert_eq!(kafka.properties["sasl.username"], Property::Env("KAFKA_USER".into()));
    assert_eq!(kafka.properties["sasl.password"], Property::Secret { name: "kafka".into(), key: "password".into() });
    assert_eq!(kafka.properties["ssl.key.pem"], Property::File("/tls/key.pem".into()));
    assert_eq!(job.state_memory_bytes, Some(512 << 20));
    let Some(StoreSpec::S3(s3)) = job.store else { panic!("{:?}", job.store) };
    assert_eq!((s3.bucket.as_str(), s3.prefix.as_deref(), s3.path_style), ("snapshots", Some("a/b"), true));
    assert_eq!(job.inputs[0].start_from.to_string(), "2013-01-01T00:00:00Z");
    assert_eq!((job.shards, job.workers.replicas, job.checkpoint.retained, job.checkpoint.concurrent_max), (None, 3, 3, 4));
}

#[test]
fn a_job_survives_the_way_through_the_api_server() {
    // What is written as JSON reads back as the same job, and names no default that the user did not name.
    let job = parse(&flights(), "job.yaml").unwrap();
    let json = serde_json::to_string(&job).unwrap();
    assert_eq!(serde_json::from_str::<IngestionJob>(&json).unwrap(), job);
    assert_eq!(parse(&json, "job.json").unwrap(), job);
    assert!(!json.contains("partitioner") && !json.contains("workers") && !json.contains("null"), "{json}");
}

#[test]
fn a_job_from_the_api_server_is_validated_without_a_file() {
    let mut job = parse(&flights(), "job.yaml").unwrap();
    job.spec.shards = Some(0);
    let findings = validate(&job).unwrap_err();
    assert_eq!(findings.iter().map(ToString::to_string).collect::<Vec<_>>(), ["spec.shards: 0 is too small; write 1 or more"]);
}

#[test]
fn the_revision_changes_with_the_results_and_with_nothing_else() {
    let original = revision(&validated(&flights()));
    assert!(original.len() == 12 && original.bytes().all(|byte| byte.is_ascii_hexdigit()), "{original}");
    // Stored beside the state: another value for the same job is a change of format.
    assert_eq!(original, "df960954adfa");
    let check = |from: &str, to: &str, same: bool| {
        assert!(flights().contains(from), "{from}");
        let changed = revision(&validated(&flights().replace(from, to)));
        assert_eq!(changed == original, same, "{from} -> {to}");
    };
    check("interval: 100ms", "interval: 1s", true);
    check("  shards: 4\n", "", true);
    check("startFrom: earliest", "startFrom: latest", true);
    check("      topic: flights\n", "      topic: flights\n      partitioner: murmur2\n", true);
    check(
        "          carrier: .carrier\n          last_airport: .dest\n",
        "          last_airport: .dest # a note\n          carrier: \".carrier\"\n",
        true,
    );
    check("last: 64", "last: 65", false);
    check("last_airport: .dest", "last_airport: .origin", false);
    check("topic: updates", "topic: updates2", false);
    check("topic: flights.dead", "topic: flights.refused", false);
    check("      topic: flights\n", "      topic: flights2\n", false);
    check("table: aircraft", "table: planes", false);
}

#[test]
fn the_order_of_the_inputs_does_not_change_the_revision() {
    let with = |inputs: &str| revision(&validated(&flights().replace("  shards: 4\n", inputs)));
    let (a, b) = ("    - {name: a, topic: ta}\n", "    - {name: b, topic: tb}\n");
    assert_eq!(with(&format!("{a}{b}")), with(&format!("{b}{a}")));
    assert_ne!(with(&format!("{a}{b}")), with(a));
}

/// Where byte `offset` of the text at spec.x stands: line, column.
fn place_within(yaml: &str, offset: usize) -> (u32, u32) {
    let place = Locator::new(yaml, "f").unwrap().place(&Path::spec().key("x"), Some(offset));
    (place.line, place.column)
}

#[test]
fn an_offset_in_a_text_leads_to_its_place_however_yaml_wrote_it() {
    // The text is searched for `@`; the place must be that of the `@` in the source.
    let check = |yaml: &str, text: &str| {
        let offset = text.find('@').unwrap();
        let (index, line) = yaml.lines().enumerate().find(|(_, line)| line.contains('@')).unwrap();
        let column = line.chars().position(|c| c == '@').unwrap();
        assert_eq!(place_within(yaml, offset), (index as u32 + 1, column as u32 + 1), "{yaml}");
        let read: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
        assert_eq!(read["spec"]["x"], text, "the test's own text is wrong");
    };
    check("spec:\n  x: ab@c\n", "ab@c");
    check("spec: {x: ab@c}\n", "ab@c");
    check("spec:\n  x: 'it''s @'\n", "it's @");
    check("spec:\n  x: \"a\\n\\u00e9\\\"@\"\n", "a\né\"@");
    check("spec:\n  x: äöü @\n", "äöü @");
    check("spec:\n  x: one two\n    three @\n", "one two three @");
    check("spec:\n  x: 'one\n\n    three @'\n", "one\nthree @");
    check("spec:\n  x: \"one \\\n    two @\"\n", "one two @");
    check("spec:\n  x: |\n    one\n      two\n\n    @ = 3\n", "one\n  two\n\n@ = 3\n");
    check("spec:\n  x: |-\n    @\n", "@");
    check("spec:\n  x: |2\n      one\n    @\n", "  one\n@\n");
    check("spec:\n  x: |\n\n    one\n    @\n", "\none\n@\n");
    check("spec:\n  x: >\n    one\n    two @\n\n    three\n", "one two @\nthree\n");
    check("spec:\n  x: >-\n    one\n\n    two @\n", "one\ntwo @");
    check("spec:\n  x: |\r\n    one\r\n    @\r\n", "one\n@\n");
}

#[test]
fn an_offset_at_the_end_of_a_text_has_a_place_too() {
    assert_eq!(place_within("spec:\n  x: abc\n", 3), (2, 9));
    assert_eq!(place_within("spec:\n  x: |\n    abc", 3), (3, 8));
    assert_eq!(place_within("spec:\n  x: ''\n", 0), (2, 7));
}

#[test]
fn findings_of_later_phases_get_their_place_by_path() {
    // A path that is in the file, one with a dotted key, one that the file lacks.
    let yaml = flights().replace("          id: {type", "          user.address.zip: {type");
    let locator = Locator::new(&yaml, "job.yaml").unwrap();
    let step = |index| Path::spec().key("pipeline").index(index);
    let line_of = |text: &str| yaml.lines().position(|line| line.contains(text)).unwrap() as u32 + 1;
    let mut findings = vec![
        Finding::new(&step(5).key("emit").key("key"), "a", ""),
        Finding::new(&step(3).key("upsert").key("set").key("last_airport"), "b", ""),
        Finding::new(&step(1).key("validate").key("fields").key("user").key("address").key("zip").key("type"), "c", ""),
        Finding::new(&step(1).key("validate").key("fields").key("user.address.zip"), "d", ""),
    ];
    locator.locate(&mut findings);
    let found: Vec<_> = findings.iter().map(|f| (f.message.as_str(), f.place.as_ref().unwrap().line)).collect();
    let zip = line_of("user.address.zip");
    assert_eq!(found, [("d", zip), ("c", zip), ("b", line_of("last_airport: .dest")), ("a", line_of("- emit:"))]);
    let column = findings[2].place.as_ref().unwrap().column as usize;
    assert_eq!(yaml.lines().nth(line_of("last_airport: .dest") as usize - 1).unwrap().find(".dest"), Some(column - 1));
}

#[test]
fn aliases_are_read_and_bombs_are_not() {
    let yaml = flights().replace("by: [.id]", "by: &by [.id]").replace("fields: [flights, distance, airports, worst_delay]", "fields: *by");
    assert!(parse(&yaml, "job.yaml").is_ok());
    let mut bomb = "a0: &a0 x\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
    }
    let findings = parse(&bomb, "job.yaml").unwrap_err();
    assert!(findings[0].message.contains("aliases make this manifest too large"), "{findings:?}");
}

#[test]
fn the_example_of_a_savepoint_is_one() {
    let yaml = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/savepoint.yaml")).unwrap();
    let savepoint: forebay_crds::IngestionSavepoint = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!((savepoint.spec.job.as_str(), savepoint.spec.deadline().as_secs()), ("flights", 600));
}

#[test]
fn a_savepoint_to_begin_with_is_named_by_namespace_job_and_name() {
    let with = |path: &str| flights().replace("  shards: 4\n", &format!("  shards: 4\n  state: {{fromSavepoint: {path}}}\n"));
    assert_eq!(validated(&with("default/flights.eu/before-3f2a9c")).from_savepoint.as_deref(), Some("default/flights.eu/before-3f2a9c"));
    for wrong in ["before", "default/flights", "default/flights/a/b", "default/flights/A", "default//a"] {
        let job = parse(&with(wrong), "job.yaml").unwrap();
        let findings = validate(&job).unwrap_err();
        assert!(findings[0].to_string().contains("write NAMESPACE/JOB/NAME"), "{findings:?}");
    }
    // It decides where the state begins, and no result after that.
    assert_eq!(revision(&validated(&with("default/flights/a"))), revision(&validated(&flights())));
}

/// The flights job with something under `workers`.
fn with_workers(workers: &str) -> IngestionJob {
    parse(&flights().replace("  shards: 4\n", &format!("  shards: 4\n  workers: {workers}\n")), "job.yaml").unwrap()
}

#[test]
fn what_is_added_to_pods_is_read_by_kubernetes_own_types() {
    let job = with_workers(
        r#"{podTemplate: {metadata: {labels: {team: air}}, spec: {tolerations: [{key: spot, operator: Exists}], containers: [{name: worker, env: [{name: A, value: b}]}]}},
            volumeClaimTemplate: {spec: {storageClassName: fast, resources: {requests: {storage: 10Gi}}}}}"#,
    );
    let workers = validate(&job).unwrap().workers;
    let template = workers.pod_template.unwrap();
    assert_eq!(template.metadata.unwrap().labels.unwrap()["team"], "air");
    let spec = template.spec.unwrap();
    assert_eq!(spec.tolerations.unwrap()[0].operator.as_deref(), Some("Exists"));
    assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].value.as_deref(), Some("b"));
    let claim = workers.volume_claim_template.unwrap().spec;
    assert_eq!(claim.storage_class_name.as_deref(), Some("fast"));
    assert_eq!(claim.access_modes.unwrap(), ["ReadWriteOnce"]);
    assert_eq!(validate(&with_workers("{podTemplate: {}}")).unwrap().workers.pod_template, None);
    // No result depends on it.
    assert_eq!(revision(&validate(&job).unwrap()), revision(&validated(&flights())));
}

#[test]
fn what_kubernetes_does_not_know_or_the_operator_relies_on_is_refused_by_name() {
    let check = |workers: &str, expected: &[&str]| {
        // As from the API server, without a file.
        let findings = validate(&with_workers(workers)).unwrap_err();
        let said: Vec<String> = findings.iter().map(|finding| finding.to_string().replace("spec.workers.podTemplate.", "")).collect();
        assert_eq!(said, expected, "{workers}");
        assert!(findings.iter().all(|finding| finding.place.is_none()), "{findings:?}");
    };
    check(
        "{podTemplate: {spec: {nodeSelektor: {a: b}, tolerations: [{efect: NoSchedule}], priority: high, affinity: [1]}}}",
        &[
            "spec.nodeSelektor: unknown field; did you mean `nodeSelector`?",
            "spec.affinity: a list stands where a block of fields belongs; write its fields below it, indented, or in braces",
            "spec.priority: \"high\" stands where a whole number belongs; write a whole number",
            "spec.tolerations[0].efect: unknown field; did you mean `effect`?",
        ],
    );
    check(
        "{podTemplate: {metadata: {labels: {forebay.dev/job: a, app.kubernetes.io/name: b}}, spec: {restartPolicy: Never, volumes: [{name: state}]}}}",
        &[
            "metadata.labels[\"app.kubernetes.io/name\"]: the operator sets this itself, and finds its own by it; delete it, or write another name",
            "metadata.labels[\"forebay.dev/job\"]: the operator sets this itself, and finds its own by it; delete it, or write another name",
            "spec.restartPolicy: a worker is always started again; delete it",
            "spec.volumes[0].name: \"state\" is a volume of the operator's own; write another name",
        ],
    );
    check(
        "{podTemplate: {spec: {containers: [{image: a}, {name: b}, {name: worker, args: [x], image: c, env: [{name: FOREBAY_WORKER}], \
         volumeMounts: [{name: v, mountPath: /etc/forebay/}, {name: v, mountPath: /tmp/a}, {name: v, mountPath: /tmpa}]}]}}}",
        &[
            "spec.containers[0]: the field `name` is missing; add `name: worker` for the worker itself, or another one for a container beside it",
            "spec.containers[1]: the field `image` is missing; a container beside the worker needs one of its own",
            "spec.containers[2].args: the operator says what a worker runs; delete it",
            "spec.containers[2].image: the worker's image has a field of its own; write it as spec.workers.image",
            "spec.containers[2].env[0].name: the operator sets FOREBAY_WORKER itself; delete it",
            "spec.containers[2].volumeMounts[0].mountPath: /etc/forebay is the worker's own; mount it elsewhere",
            "spec.containers[2].volumeMounts[1].mountPath: /tmp is the worker's own; mount it elsewhere",
        ],
    );
    check(
        "{volumeClaimTemplate: {spec: {accessModes: [ReadWriteMany]}}}",
        &["spec.workers.volumeClaimTemplate.spec: the claim does not say how large it is to be; \
             add `resources: {requests: {storage: 10Gi}}`, with room for a worker's share of the state twice over"],
    );
}
