//! A manifest, and mistakes that can be made in it. Shared with the test that hands them to a real API server.

macro_rules! steps {
    () => {
        r#"  pipeline:
    - parse:
        format: json
    - dedup:
        by: [.id]
        last: 64
    - upsert:
        table: aircraft
        set:
          last_airport: .dest
        emit:
          topic: updates
    - emit:
        topic: enriched
"#
    };
}

const STEPS: &str = steps!();
/// One without any.
pub const GOOD: &str = concat!(
    r#"# A comment, so that lines and fields are not the same.
apiVersion: forebay.dev/v1alpha1
kind: IngestionJob
metadata:
  name: flights
spec:
  inputs:
    - name: flights
      topic: flights
      startFrom: earliest
  shards: 4
  commit:
    interval: 100ms
  checkpoint:
    interval: 30s
    retained: 2
  deadLetter:
    topic: flights.dead
"#,
    steps!()
);

/// A name for the mistake, what of the good manifest it replaces, and by what.
pub const MISTAKES: &[(&str, &str, &str)] = &[
    ("nothing at all", GOOD, ""),
    ("a comment only", GOOD, "# to come\n"),
    ("not a manifest", GOOD, "- a\n- b\n"),
    ("not YAML", "  shards: 4\n", "  shards: [4\n"),
    ("a tab", "  shards: 4\n", "\tshards: 4\n"),
    ("a rewind to nothing", "  shards: 4\n", "  shards: 4\n  state: {rewind: {id: undo}}\n"),
    ("a rewind to two states", "  shards: 4\n", "  state: {rewind: {id: undo, toSavepoint: a/b/c, toTime: 2026-11-26T09:00:00Z}}\n"),
    ("a rewind to no time", "  shards: 4\n", "  state: {rewind: {id: undo, toTime: yesterday}}\n"),
    ("a rewind out of its limits", "  shards: 4\n", "  state: {rewind: {id: Undo, toSavepoint: b, deadline: 1s, retries: 11}}\n"),
    ("a state to adopt that is none", "  shards: 4\n", "  state: {adopt: flights}\n"),
    ("two states to begin with", "  shards: 4\n", "  state: {adopt: a/b/c, fromSavepoint: a/b/c}\n"),
    ("a second job", GOOD, "apiVersion: forebay.dev/v1alpha1\n---\napiVersion: forebay.dev/v1alpha1\n"),
    ("another kind", "kind: IngestionJob", "kind: Deployment"),
    ("another version", "v1alpha1", "v1"),
    ("no kind", "kind: IngestionJob\n", ""),
    ("unknown field at the top", "spec:\n", "specs: {}\nspec:\n"),
    ("no spec", GOOD, "apiVersion: forebay.dev/v1alpha1\nkind: IngestionJob\nmetadata: {name: a}\n"),
    ("unknown field of metadata", "  name: flights\nspec", "  name: flights\n  namspace: a\nspec"),
    ("no name", "  name: flights\nspec", "  namespace: a\nspec"),
    ("no name for a job", "  name: flights\nspec", "  name: Flights_2013\nspec"),
    ("no namespace", "  name: flights\nspec", "  name: flights\n  namespace: a.b\nspec"),
    ("a key twice", "  shards: 4\n", "  shards: 4\n  shards: 8\n"),
    ("unknown field", "      startFrom: earliest", "      start_from: earliest"),
    ("unknown field that resembles nothing", "  shards: 4\n", "  parallelism: 4\n"),
    ("unknown field for a missing one", "      topic: flights\n", "      topics: flights\n"),
    ("missing topic", "      topic: flights\n", ""),
    ("text for a number", "shards: 4", "shards: four"),
    ("a ttl for a table that no step uses", "  shards: 4\n", "  shards: 4\n  state: {tables: {aircrafts: {ttl: 30d}}}\n"),
    ("a ttl without a unit", "  shards: 4\n", "  shards: 4\n  state: {tables: {aircraft: {ttl: 30}}}\n"),
    ("a ttl that is too short", "  shards: 4\n", "  shards: 4\n  state: {tables: {aircraft: {ttl: 10ms}}}\n"),
    (
        "a ttl beside within",
        "  pipeline:\n    - parse:\n        format: json\n    - dedup:\n        by: [.id]\n        last: 64\n",
        "  state: {tables: {dedup: {ttl: 2h}}}\n  pipeline:\n    - parse: {format: json}\n    - dedup: {by: [.id], within: 1h}\n",
    ),
    ("a number for text", "      topic: flights\n", "      topic: 2013\n"),
    ("a switch for text", "      topic: flights\n", "      topic: true\n"),
    ("kubectl's yes", "      topic: flights\n", "      topic: yes\n"),
    ("an octal number", "      topic: flights\n", "      topic: 0123\n"),
    ("a fraction for a whole number", "shards: 4", "shards: 4.5"),
    ("a negative number", "shards: 4", "shards: -4"),
    ("a number too large for its type", "shards: 4", "shards: 99999999999"),
    ("nothing for a block", "  deadLetter:\n    topic: flights.dead\n", "  deadLetter:\n"),
    ("text for a block", "  deadLetter:\n    topic: flights.dead\n", "  deadLetter: flights.dead\n"),
    ("a block for a list", "  inputs:\n    - name: flights\n", "  inputs:\n      name: flights\n"),
    ("no dead letters", "  deadLetter:\n    topic: flights.dead\n", ""),
    ("no shards", "shards: 4", "shards: 0"),
    ("too many shards", "shards: 4", "shards: 5000"),
    ("a duration without unit", "interval: 30s", "interval: 30"),
    ("a duration with a strange unit", "interval: 30s", "interval: 30sec"),
    ("no duration", "interval: 100ms", "interval: soon"),
    ("an interval too short", "interval: 100ms", "interval: 1ms"),
    ("an interval too long", "interval: 100ms", "interval: 1h"),
    ("a pause longer than the interval", "    retained: 2", "    minPause: 1m"),
    ("a size with a strange unit", "    interval: 100ms", "    bytesMax: 8MB"),
    ("retained 1", "retained: 2", "retained: 1"),
    ("start from nowhere", "startFrom: earliest", "startFrom: 2013-13-01T00:00:00Z"),
    ("start from no group", "startFrom: earliest", "startFrom: group"),
    ("unknown partitioner", "startFrom: earliest", "partitioner: murmur3"),
    ("duplicate input", "  shards: 4\n", "    - {name: flights, topic: flights}\n  shards: 4\n"),
    ("no inputs", "  inputs:\n    - name: flights\n      topic: flights\n      startFrom: earliest\n", "  inputs: []\n"),
    ("no name for an input", "    - name: flights", "    - name: Flights"),
    ("no name for a topic", "      topic: flights\n", "      topic: flights/2013\n"),
    ("dead letters into the input", "topic: flights.dead", "topic: flights"),
    ("an output that is an input", "topic: enriched", "topic: flights"),
    ("an output that is the dead letters'", "topic: updates", "topic: flights.dead"),
    ("unknown step", "    - dedup:", "    - dedupe:"),
    ("a step alone", "    - emit:\n        topic: enriched\n", "    - emit\n"),
    ("a step without content", "    - emit:\n        topic: enriched\n", "    - emit:\n"),
    ("two keys in one step", "    - upsert:", "      upsert:"),
    ("text for a step", "    - dedup:\n        by: [.id]\n        last: 64\n", "    - 5\n"),
    ("unknown field of a step", "        last: 64", "        lst: 64"),
    ("a step's limit", "        last: 64", "        last: 0"),
    ("csv without its columns", "format: json", "format: csv"),
    ("a dedup that is not told how much to remember", "        last: 64\n", ""),
    ("an upsert that changes nothing", "        set:\n          last_airport: .dest\n", ""),
    (
        "a route that is always and never",
        "    - emit:\n        topic: enriched\n",
        "    - route:\n        - {when: .late, otherwise: true, emit: {topic: a}}\n        - {otherwise: true, emit: {topic: b}}\n",
    ),
    ("no name for a table", "table: aircraft", "table: air.craft"),
    ("no name for an output", "topic: enriched", "topic: enriched/2013"),
    ("an output that Kafka keeps for itself", "topic: enriched", "topic: __consumer_offsets"),
    ("no steps", STEPS, "  pipeline: []\n"),
    ("no parse", "    - parse:\n        format: json\n", ""),
    ("steps that put nothing out", STEPS, "  pipeline:\n    - parse: {format: json}\n"),
    (
        "two faulty steps",
        STEPS,
        "  pipeline:\n    - parse: {format: json, csvv: 1}\n    - upsert: {set: {a: .a}}\n    - emit: {topic: {}}\n",
    ),
    ("a list for a step", STEPS, "  pipeline:\n    - - parse: {format: json}\n"),
    ("a list for text", "format: json", "format: [json]"),
    ("unknown choice", "format: json", "format: jsn"),
    ("no store", "  shards: 4\n", "  state:\n    store:\n      gcs: {bucket: b}\n"),
    ("two stores", "  shards: 4\n", "  state: {store: {s3: {bucket: abc}, folder: {path: /a}}}\n"),
    (
        "a store with faults",
        "  shards: 4\n",
        "  state:\n    memory: 1Mi\n    store:\n      s3:\n        bucket: B\n        prefix: /a/\n        endpoint: s3.example.org\n",
    ),
    (
        "a cluster with faults",
        "  shards: 4\n",
        "  kafka:\n    bootstrapServers: broker\n    properties:\n      sasl.password: hunter2\n      group.id: mine\n      sasl.username: me\n    propertiesFrom:\n      sasl.username: {env: \"\"}\n",
    ),
    (
        "a secret in two places",
        "  shards: 4\n",
        "  kafka:\n    bootstrapServers: a:1\n    propertiesFrom:\n      sasl.password: {env: A, file: b}\n",
    ),
    (
        "faults in what is added to pods",
        "  shards: 4\n",
        "  workers:\n    podTemplate:\n      metadata: {name: a}\n      spec:\n        tolerations:\n          - {efect: NoSchedule}\n",
    ),
    (
        "faults in what is added to pods that Kubernetes knows of",
        "  shards: 4\n",
        "  workers:\n    podTemplate:\n      spec:\n        tolerations:\n          - {efect: NoSchedule}\n        containers:\n          - name: worker\n            command: [sh]\n",
    ),
    ("many faults at once", "  shards: 4\n", "  shards: many\n  consumergroup: g\n  workers: {replicas: -1}\n  checkpoint_: {}\n"),
];
