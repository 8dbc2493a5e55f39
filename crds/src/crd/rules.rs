//! What the API server refuses by itself when a manifest is applied, with what to write instead: rules in CEL, and words for patterns. What takes more than
//! that (expressions, the fields of pods, schedules, what two places far apart say) is refused by [`crate::validate()`], in the operator.
//!
//! The API server takes no definition whose rules might cost too much, by the largest lists and texts that the schema allows. So whatever a rule looks at
//! has a limit beside its field, or in [`LIMITS_OF_JOBS`].

use std::fmt::Display;

use serde_json::{Value, json};

use crate::quantity::{ByteSize, SIZE_WAY_OUT, TIME_WAY_OUT, TimeSpan};
use crate::validate::limits;

/// A place in the schema (`[]`: each element of a list, `{}`: each value of a map; empty: the whole object), a rule, and what to do when it does not hold.
struct Rule {
    at: &'static str,
    rule: String,
    message: String,
}

/// What the types of a job cannot say of their fields.
const LIMITS_OF_JOBS: [(&str, &str, u32); 4] = [
    ("spec.pipeline[].route", "minItems", 1),
    ("spec.pipeline[].route", "maxItems", limits::ROUTES_MAX),
    ("spec.kafka.propertiesFrom{}.env", "minLength", 1),
    ("spec.kafka.propertiesFrom{}.file", "minLength", 1),
];

const STATE_PLACE: &str = "^[a-z0-9-]+/[a-z0-9.-]+/[a-z0-9-]+$";
const TIME_WITHOUT_DAYS: &str = "^([0-9]+(ms|s|m|h))+$";

/// What to write, for every pattern that there is.
static PATTERNS: [(&str, &str); 14] = [
    ("^([0-9]+(ms|s|m|h|d))+$", TIME_WAY_OUT),
    ("^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$", SIZE_WAY_OUT),
    ("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "use at most 63 of a-z, 0-9 and -, with a letter or digit at both ends"),
    ("^[A-Za-z0-9._-]+$", "use at most 249 letters, digits, `.`, `_` and `-`"),
    ("^[A-Za-z0-9_-]+$", "use letters, digits, `_` and `-`"),
    ("^[^.]+$", "write a name without dots"),
    (STATE_PLACE, "write NAMESPACE/JOB/NAME, as status.path of an IngestionSavepoint has it; for `adopt` NAMESPACE/JOB/UID"),
    (crate::job::START_FROM, "write earliest, latest, group, or a time such as 2013-01-01T00:00:00Z"),
    ("^ *[^ ,]+:[0-9]{1,5}( *, *[^ ,]+:[0-9]{1,5})* *$", "write brokers as host:port, separated by commas"),
    ("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", "use 3 to 63 of a-z, 0-9, - and ., with a letter or digit at both ends"),
    ("^[^/]+(/[^/]+)*$", "write it without / at its ends, and without //"),
    ("^https?://.+$", "start with https:// or http://"),
    (
        "^(@[a-z]+|[0-9A-Za-z*?,/#+-]+( [0-9A-Za-z*?,/#+-]+){4})$",
        "write minute, hour, day of the month, month and day of the week, such as `0 3 * * *`",
    ),
    ("^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$", "write a name of the IANA database, such as Europe/Berlin, or leave it out for UTC"),
];

/// Adds limits to the schema of jobs, then all else that [`add`] adds.
pub(super) fn add_to_jobs(schema: &mut Value) {
    for (at, limit, number) in LIMITS_OF_JOBS {
        place(schema, at)[limit] = number.into();
    }
    add(schema, of_jobs());
}

/// Adds to the schema of savepoints what [`add`] does.
pub(super) fn add_to_savepoints(schema: &mut Value) {
    add(schema, of_savepoints());
}

/// Adds rules and the words for patterns to a schema.
fn add(schema: &mut Value, rules: Vec<Rule>) {
    put_patterns_into_words(schema);
    for Rule { at, rule, message } in rules {
        push(place(schema, at), &rule, &message);
    }
}

fn of_savepoints() -> Vec<Rule> {
    vec![name_is_short(), new("", "self.spec.job == oldSelf.spec.job", "spec.job cannot change; make another savepoint")]
}

fn of_jobs() -> Vec<Rule> {
    [vec![name_is_short()], frozen(), systems(), state(), topics(), pipeline(), ranges()].into_iter().flatten().collect()
}

/// What is bound up with a job's state. `oldSelf` is there when an object is changed, not when it is made.
fn frozen() -> Vec<Rule> {
    let begun = "has(oldSelf.status) && has(oldSelf.status.hasState) && oldSelf.status.hasState";
    // A number that is not written is not changed: it was found at the first start.
    let shards = "!has(self.spec.shards) || (has(oldSelf.status.shards) ? self.spec.shards == oldSelf.status.shards : has(oldSelf.spec.shards) && \
                  self.spec.shards == oldSelf.spec.shards)";
    let same = "n.name == o.name && n.topic == o.topic && \
                (has(n.partitioner) ? n.partitioner : 'murmur2') == (has(o.partitioner) ? o.partitioner : 'murmur2')";
    let inputs =
        format!("self.spec.inputs.size() == oldSelf.spec.inputs.size() && oldSelf.spec.inputs.all(o, self.spec.inputs.exists(n, {same}))");
    vec![
        new(
            "",
            format!("!({begun}) || ({shards})"),
            "spec.shards is frozen since the job has state, which is divided by it; write what status.shards says, or make a job of another name with the new number",
        ),
        new(
            "",
            format!("!({begun}) || ({inputs})"),
            "spec.inputs are frozen since the job has state, which holds places in these topics, by these partitioners; set them back, or make a job of \
             another name with the new ones",
        ),
    ]
}

/// Kafka and the object store: in a cluster they stand in the manifest.
fn systems() -> Vec<Rule> {
    let secret = list(&limits::SECRET_PROPERTIES);
    let own = list(&limits::OWN_PROPERTIES);
    vec![
        new("spec", "has(self.kafka)", "the field `kafka` is missing; name the brokers as spec.kafka.bootstrapServers"),
        new(
            "spec",
            "has(self.state) && has(self.state.store) && has(self.state.store.s3)",
            "there is no object store that all workers reach; name a bucket as spec.state.store.s3",
        ),
        new("spec.state.store", "has(self.s3) != has(self.folder)", "name one store: `s3`, or `folder` outside of a cluster"),
        new(
            "spec.kafka",
            format!("!has(self.properties) || !{secret}.exists(name, name in self.properties)"),
            "a password or key lies open in `properties`; move it to `propertiesFrom`, as `secretKeyRef`, `env` or `file`",
        ),
        new(
            "spec.kafka",
            format!(
                "!{own}.exists(name, (has(self.properties) && name in self.properties) || (has(self.propertiesFrom) && name in self.propertiesFrom))"
            ),
            format!("Forebay sets some of these properties itself; delete what you have of {}", limits::OWN_PROPERTIES.join(", ")),
        ),
        new(
            "spec.kafka",
            "!has(self.properties) || !has(self.propertiesFrom) || !self.properties.exists(name, name in self.propertiesFrom)",
            "something stands under `properties` and under `propertiesFrom`; delete one of them",
        ),
        new(
            "spec.kafka.propertiesFrom{}",
            "[has(self.secretKeyRef), has(self.env), has(self.file)].filter(there, there).size() == 1",
            "say once where the value is found: as `secretKeyRef`, `env` or `file`",
        ),
    ]
}

/// The state that a job begins with, or goes back to.
fn state() -> Vec<Rule> {
    vec![
        new(
            "spec.state",
            "!has(self.adopt) || !has(self.fromSavepoint)",
            "a job begins with one state; write spec.state.adopt or spec.state.fromSavepoint",
        ),
        new("spec.state.rewind", "has(self.toSavepoint) != has(self.toTime)", "name either toSavepoint or toTime: the state to go back to"),
        new(
            "spec.state.rewind",
            "self.id != oldSelf.id || (has(self.toSavepoint) == has(oldSelf.toSavepoint) && (!has(self.toSavepoint) || self.toSavepoint == \
             oldSelf.toSavepoint) && (!has(self.toTime) || self.toTime == oldSelf.toTime))",
            "this is another rewind than before under the same id; write another id",
        ),
    ]
}

/// Which topics are read and written.
fn topics() -> Vec<Rule> {
    let writes = |topic: &str| {
        let emits = |step: &str| format!("(has(s.{step}) && has(s.{step}.emit) && s.{step}.emit.topic == {topic})");
        format!(
            "self.pipeline.exists(s, (has(s.emit) && s.emit.topic == {topic}) || {} || {} || (has(s.route) && s.route.exists(r, r.emit.topic == {topic})))",
            emits("upsert"),
            emits("remove")
        )
    };
    vec![
        new(
            "spec",
            "self.inputs.all(a, self.inputs.exists_one(b, b.topic == a.topic))",
            "two of spec.inputs read the same topic; delete one of them",
        ),
        new(
            "spec",
            "!self.inputs.exists(input, input.topic == self.deadLetter.topic)",
            "spec.deadLetter.topic is an input too; write dead letters to a topic of their own",
        ),
        new(
            "spec",
            format!("!self.inputs.exists(input, {})", writes("input.topic")),
            "a step of spec.pipeline writes to a topic of spec.inputs: this loop would never end; write to another topic",
        ),
        new(
            "spec",
            format!("!{}", writes("self.deadLetter.topic")),
            "a step of spec.pipeline writes to spec.deadLetter.topic; write to another topic, so that `forebay dlq` finds dead letters only",
        ),
        new(
            "spec",
            "has(self.consumerGroup) || !self.inputs.exists(input, has(input.startFrom) && input.startFrom == 'group')",
            "an input has `startFrom: group`, and no group is named; name the group to take over as spec.consumerGroup, or start from earliest or latest",
        ),
    ]
}

fn pipeline() -> Vec<Rule> {
    let any_of = |fields: &[&str]| fields.iter().map(|field| format!("has(self.{field})")).collect::<Vec<_>>().join(" || ");
    let kinds = ["parse", "validate", "dedup", "upsert", "remove", "enrich", "remap", "filter", "route", "emit"];
    let has = kinds.map(|kind| format!("has(self.{kind})")).join(", ");
    let changes = any_of(&["set", "unset", "addToSet", "removeFromSet", "increment", "min", "max", "append"]);
    vec![
        new(
            "spec",
            "self.pipeline.size() == 0 || (has(self.pipeline[0].parse) && self.pipeline.filter(s, has(s.parse)).size() == 1)",
            "the first step of spec.pipeline, and no other, is parse; start with `- parse: {format: json}`",
        ),
        new(
            "spec",
            "self.pipeline.exists(s, has(s.emit) || has(s.route) || has(s.upsert) || (has(s.remove) && has(s.remove.emit)))",
            "spec.pipeline puts nothing out and keeps no state; add an `emit` or `upsert` step",
        ),
        new(
            "spec.pipeline[]",
            format!("[{has}].filter(there, there).size() == 1"),
            format!("a step is one of {}; start each with a dash of its own, or check the indentation", kinds.join(", ")),
        ),
        new(
            "spec.pipeline[].parse",
            "(self.format == 'csv') == has(self.csv)",
            "`format: csv`, and no other, has columns; add `csv: {columns: [{name: id}]}`, or delete `csv`",
        ),
        new(
            "spec.pipeline[].dedup",
            "has(self.last) != has(self.within)",
            "write either `last: 64` or `within: 10m`: how much to remember",
        ),
        new(
            "spec.pipeline[].dedup",
            "!has(self.withinRecordsMax) || has(self.within)",
            "`withinRecordsMax` limits `within`, which is not there; delete it",
        ),
        new("spec.pipeline[].upsert", changes, "this upsert changes nothing; add for example `set: {name: .name}`"),
        new(
            "spec.pipeline[].route[]",
            "has(self.when) != (has(self.otherwise) && self.otherwise)",
            "a route has either `when` or `otherwise: true`; write one of them",
        ),
    ]
}

/// Durations and sizes that have limits.
fn ranges() -> Vec<Rule> {
    vec![
        span("spec.commit.interval", limits::COMMIT_INTERVAL_RANGE),
        size("spec.commit.bytesMax", limits::COMMIT_BYTES_RANGE),
        span("spec.checkpoint.interval", limits::CHECKPOINT_INTERVAL_RANGE),
        size("spec.state.memory", limits::STATE_MEMORY_RANGE),
        span("spec.state.tables{}.ttl", limits::TTL_RANGE),
        span("spec.state.rewind.deadline", limits::REWIND_DEADLINE_RANGE),
        span("spec.upgrade.observe", limits::UPGRADE_OBSERVE_RANGE),
        span("spec.upgrade.deadline", limits::UPGRADE_DEADLINE_RANGE),
    ]
}

/// CEL knows of no days. What has some is too long where the longest is less than one, and else left to the operator.
fn span(at: &'static str, range: [TimeSpan; 2]) -> Rule {
    let [least, most] = range.map(|span| format!("duration('{}ms')", span.get().as_millis()));
    let fits = format!("duration(self) >= {least} && duration(self) <= {most}");
    let is_short = range[1].get().as_secs() < 86_400;
    let rule = if is_short {
        format!("self.matches(r'{TIME_WITHOUT_DAYS}') ? {fits} : !self.contains('d')")
    } else {
        format!("!self.matches(r'{TIME_WITHOUT_DAYS}') || ({fits})")
    };
    new(at, rule, between(range))
}

fn size(at: &'static str, range: [ByteSize; 2]) -> Rule {
    let [least, most] = range.map(|size| format!("quantity('{size}')"));
    let rule = format!("!isQuantity(self) || (quantity(self).compareTo({least}) >= 0 && quantity(self).compareTo({most}) <= 0)");
    new(at, rule, between(range))
}

fn between<T: Display>([least, most]: [T; 2]) -> String {
    format!("write {least} to {most}")
}

fn name_is_short() -> Rule {
    new("", "size(self.metadata.name) <= 63", "metadata.name is longer than 63 characters; write a shorter one")
}

fn new(at: &'static str, rule: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule { at, rule: rule.into(), message: message.into() }
}

fn list(texts: &[&str]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
    format!("[{}]", quoted.join(", "))
}

/// A pattern alone says too little to people.
fn put_patterns_into_words(schema: &mut Value) {
    let words = schema["pattern"].as_str().and_then(|pattern| PATTERNS.iter().find(|(known, _)| *known == pattern));
    if let Some((pattern, words)) = words {
        push(schema, &format!("self.matches(r'{pattern}')"), words);
    }
    match schema {
        Value::Object(fields) => fields.values_mut().for_each(put_patterns_into_words),
        Value::Array(items) => items.iter_mut().for_each(put_patterns_into_words),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn push(schema: &mut Value, rule: &str, message: &str) {
    let rule = json!({ "rule": rule, "message": message });
    match &mut schema["x-kubernetes-validations"] {
        Value::Array(rules) => rules.push(rule),
        none => *none = json!([rule]),
    }
}

fn place<'a>(schema: &'a mut Value, at: &str) -> &'a mut Value {
    fn inner<'a>(schema: &'a mut Value, name: &str) -> &'a mut Value {
        schema.get_mut(name).expect("a test makes all definitions: rules lie where there is something")
    }
    let mut place = schema;
    for step in at.split('.').filter(|step| !step.is_empty()) {
        place = inner(inner(place, "properties"), step.trim_end_matches("[]").trim_end_matches("{}"));
        if step.ends_with("[]") {
            place = inner(place, "items");
        }
        if step.ends_with("{}") {
            place = inner(place, "additionalProperties");
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method: the schemas of all definitions are searched for patterns.
    #[test]
    fn every_pattern_has_words_and_every_word_a_pattern() {
        let mut seen = Vec::new();
        for (_, text) in crate::crd::files() {
            patterns(&serde_saphyr::from_str(&text).unwrap(), &mut seen);
        }
        for pattern in &seen {
            assert!(PATTERNS.iter().any(|(known, _)| known == pattern), "nothing is said about {pattern}");
        }
        for (pattern, _) in PATTERNS {
            assert!(seen.iter().any(|known| known == pattern), "{pattern} is nowhere");
        }
    }

    fn patterns(schema: &Value, seen: &mut Vec<String>) {
        seen.extend(schema.get("pattern").and_then(Value::as_str).map(str::to_owned));
        match schema {
            Value::Object(fields) => fields.values().for_each(|field| patterns(field, seen)),
            Value::Array(items) => items.iter().for_each(|item| patterns(item, seen)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
