//! What came out of a contestant: how many committed records, and for a sample of the keys the documents that its deltas make, or the records
//! themselves. Contestants that did the same work have the same summary.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rustc_hash::FxHasher;
use serde_json::{Map, Value, json};

use crate::kafka::{partitions_of, reader};

/// How long to go on reading after the last record that is expected, to see one too many.
const QUIET: Duration = Duration::from_millis(700);

#[derive(clap::Args)]
pub struct Summarize {
    /// A topic and how many records it should hold, as TOPIC=COUNT; may be repeated
    #[arg(long = "topic", required = true)]
    topics: Vec<String>,
    /// The topic that holds deltas
    #[arg(long, conflicts_with = "values")]
    deltas: Option<String>,
    /// The records themselves are the documents, by topic and in their order
    #[arg(long)]
    values: bool,
    /// One key in so many is in the sample
    #[arg(long, default_value_t = 500)]
    sample: u64,
    /// Give up waiting for more when nothing comes for so long
    #[arg(long, default_value_t = 30)]
    patience_seconds: u64,
    /// Print the documents themselves too
    #[arg(long)]
    documents: bool,
}

impl Summarize {
    /// Prints `{"counts": {topic: records}, "complete": ..., "documents": how many, "digest": ...}`.
    pub fn run(&self, kafka: &str) -> Result<()> {
        let mut expected = BTreeMap::new();
        for topic in &self.topics {
            let (name, count) = topic.split_once('=').with_context(|| format!("{topic}: write TOPIC=COUNT"))?;
            expected.insert(name.to_owned(), count.parse::<u64>().with_context(|| format!("{topic}: how many records?"))?);
        }
        let (counts, documents) = self.read(kafka, &expected)?;
        let mut digest = FxHasher::default();
        for (key, document) in &documents {
            digest.write(key);
            digest.write(Value::Object(document.clone()).to_string().as_bytes());
        }
        let mut summary = json!({
            "counts": counts, "complete": counts == expected, "documents": documents.len(), "digest": format!("{:016x}", digest.finish()),
        });
        if self.documents {
            let printed: BTreeMap<_, _> = documents.iter().map(|(key, it)| (String::from_utf8_lossy(key), it)).collect();
            summary["sample"] = json!(printed);
        }
        println!("{summary}");
        Ok(())
    }

    /// Reads until all is there that is expected, and a moment longer.
    fn read(&self, kafka: &str, expected: &BTreeMap<String, u64>) -> Result<(BTreeMap<String, u64>, Documents)> {
        let consumer = reader(kafka, true)?;
        let mut places = TopicPartitionList::new();
        for topic in expected.keys() {
            for partition in 0..partitions_of(&consumer, topic)? {
                places.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&places)?;
        let mut counts: BTreeMap<String, u64> = expected.keys().map(|topic| (topic.clone(), 0)).collect();
        let mut documents = Documents::new();
        let mut last = Instant::now();
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let count = counts.get_mut(message.topic()).context("a record of a topic that nobody asked for")?;
                    *count += 1;
                    let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
                    let holds_deltas = self.deltas.as_deref() == Some(message.topic());
                    if (holds_deltas || self.values) && self.is_in_sample(key) {
                        let document = documents.entry(key.to_vec()).or_default();
                        if holds_deltas {
                            apply(document, &serde_json::from_slice(value).context("read a delta")?)?;
                        } else {
                            // Each run has topics of its own, in the same order.
                            append(document, expected.keys().take_while(|topic| **topic != message.topic()).count(), value);
                        }
                    }
                    last = Instant::now();
                }
                Some(Err(error)) => eprintln!("summarize: {error}"),
                None => {}
            }
            let is_all = counts.iter().all(|(topic, count)| *count >= expected[topic]);
            let patience = if is_all { QUIET } else { Duration::from_secs(self.patience_seconds) };
            if last.elapsed() > patience {
                return Ok((counts, documents));
            }
        }
    }

    fn is_in_sample(&self, key: &[u8]) -> bool {
        let mut hasher = FxHasher::default();
        hasher.write(key);
        // The high bits: the low ones of this hash are poor.
        (hasher.finish() >> 32).is_multiple_of(self.sample)
    }
}

type Documents = BTreeMap<Vec<u8>, Map<String, Value>>;

/// Applies a delta in the format of Forebay's.
fn apply(document: &mut Map<String, Value>, delta: &Value) -> Result<()> {
    let part = |name: &str| delta[name].as_object().into_iter().flatten();
    ensure!(delta["table"].is_string(), "this is no delta: {delta}");
    for (field, value) in part("set") {
        document.insert(field.clone(), as_number(value));
    }
    for (field, values) in part("addToSet") {
        let set = document.entry(field.clone()).or_insert_with(|| json!([]));
        let set = set.as_array_mut().with_context(|| format!("field {field} is no set"))?;
        for value in values.as_array().into_iter().flatten() {
            if !set.contains(value) {
                set.push(value.clone());
            }
        }
    }
    Ok(())
}

/// Appends a record to those of a topic, which goes by its number; one that is no JSON as text.
fn append(document: &mut Map<String, Value>, topic: usize, value: &[u8]) {
    let value = serde_json::from_slice(value).map_or_else(|_| Value::from(String::from_utf8_lossy(value)), |value| as_number(&value));
    if let Value::Array(values) = document.entry(topic.to_string()).or_insert_with(|| json!([])) {
        values.push(value);
    }
}

/// 5 and 5.0 are the same to whoever reads JSON.
fn as_number(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), Value::from),
        Value::Object(fields) => Value::Object(fields.iter().map(|(name, value)| (name.clone(), as_number(value))).collect()),
        Value::Array(values) => values.iter().map(as_number).collect(),
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_applied_twice_make_the_same_document() {
        let mut document = Map::new();
        let deltas = [
            json!({"table": "t", "key": "k", "set": {"n": 1, "a": {"x": 5.0}}, "addToSet": {"s": ["p"]}}),
            json!({"table": "t", "key": "k", "set": {"n": 2, "a": {"x": 5}}, "addToSet": {"s": ["q", "p"]}}),
        ];
        for delta in deltas.iter().chain(&deltas[1..]) {
            apply(&mut document, delta).unwrap();
        }
        assert_eq!(Value::Object(document), json!({"n": 2.0, "a": {"x": 5.0}, "s": ["p", "q"]}));
    }

    #[test]
    fn records_are_kept_by_topic_in_their_order_and_equal_however_they_are_written() {
        let (mut one, mut other) = (Map::new(), Map::new());
        for value in [r#"{"a":1,"b":[2]}"#, r#"{"a":2}"#, "cut"] {
            append(&mut one, 0, value.as_bytes());
        }
        for value in [r#"{"b":[2.0],"a":1.0}"#, r#"{"a":2}"#, "cut"] {
            append(&mut other, 0, value.as_bytes());
        }
        assert_eq!(one, other);
        append(&mut other, 1, b"1");
        assert_ne!(one, other);
    }

    #[test]
    fn what_is_no_delta_is_refused() {
        assert!(apply(&mut Map::new(), &json!({"set": {}})).is_err());
    }
}
