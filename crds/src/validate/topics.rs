//! Which topics a job reads and writes, and that none is used for two things.

use serde_json::Value;

use super::distinct;
use crate::finding::Finding;
use crate::job::IngestionJobSpec;
use crate::names;
use crate::path::Path;
use crate::pipeline::Step;

/// The output topics, each once, the dead letters' last.
pub(super) fn check_topics(spec: &IngestionJobSpec, findings: &mut Vec<Finding>) -> Vec<String> {
    let dead = spec.dead_letter.topic.as_str();
    let at = Path::spec().key("deadLetter").key("topic");
    if let Err(way_out) = names::check_topic(dead) {
        findings.push(Finding::new(&at, format!("{dead:?} is no name for a topic"), way_out));
    } else if let Some(index) = reader_of(spec, dead) {
        let message = format!("{dead:?} is read as spec.inputs[{index}]: a dead letter would come back as a record");
        findings.push(Finding::new(&at, message, "write dead letters to a topic of their own"));
    }
    for (index, step) in spec.pipeline.iter().enumerate() {
        for topic in distinct(step.output_topics().into_iter()) {
            let at = || topic_path(step, &topic, Path::spec().key("pipeline").index(index));
            if let Err(way_out) = names::check_topic(&topic) {
                findings.push(Finding::new(&at(), format!("{topic:?} is no name for a topic"), way_out));
            }
            if let Some(input) = reader_of(spec, &topic) {
                let message = format!("{topic:?} is read as spec.inputs[{input}] and written: this loop would never end");
                findings.push(Finding::new(&at(), message, "write to another topic"));
            }
            if topic == dead {
                let message = format!("{topic:?} is the topic of dead letters");
                findings.push(Finding::new(&at(), message, "write to another topic, so that `forebay dlq` finds dead letters only"));
            }
        }
    }
    distinct(spec.pipeline.iter().flat_map(Step::output_topics).chain([dead]))
}

/// The field that names a topic: of an input, of the dead letters, or of the first step that writes to it.
pub fn topic_field(spec: &IngestionJobSpec, topic: &str) -> Option<Path> {
    if let Some(index) = reader_of(spec, topic) {
        return Some(Path::spec().key("inputs").index(index).key("topic"));
    }
    if spec.dead_letter.topic == topic {
        return Some(Path::spec().key("deadLetter").key("topic"));
    }
    let index = spec.pipeline.iter().position(|step| step.output_topics().into_iter().any(|output| output == topic))?;
    Some(topic_path(&spec.pipeline[index], topic, Path::spec().key("pipeline").index(index)))
}

fn reader_of(spec: &IngestionJobSpec, topic: &str) -> Option<usize> {
    spec.inputs.iter().position(|input| input.topic == topic)
}

/// Where in a step a topic is named: the first field `topic` with this value. The step itself if there is none.
fn topic_path(step: &Step, topic: &str, at: Path) -> Path {
    let value = serde_json::to_value(step).expect("a step has string keys only");
    find_topic(&value, topic, &at).unwrap_or(at)
}

fn find_topic(value: &Value, topic: &str, at: &Path) -> Option<Path> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| match value {
            Value::String(text) if name == "topic" && text == topic => Some(at.key(name)),
            _ => find_topic(value, topic, &at.key(name)),
        }),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| find_topic(item, topic, &at.index(index))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
