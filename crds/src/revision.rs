//! The revision: a hash of what decides a job's results. Comments, layout, order of fields, defaults written out, intervals and connections
//! do not.
//!
//! The hash is over a text of our own making, so that neither a map type nor a serializer's options can change it. It is stored with the
//! state: a change of this text is a change of every job's revision, and needs another `FORMAT`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::job::InputPartitioner;
use crate::validate::{Input, ValidatedJob};

const FORMAT: u32 = 1;
/// 48 bits: two revisions of one job never meet, and the name fits into a label or a line of a log.
const HEX_DIGITS: usize = 12;

/// The job's revision: 12 hexadecimal digits.
pub fn revision(job: &ValidatedJob) -> String {
    let input = |input: &Input| {
        let partitioner = match input.partitioner {
            InputPartitioner::Murmur2 => "murmur2",
        };
        json!({ "name": input.name, "topic": input.topic, "partitioner": partitioner })
    };
    // Their order is the manifest's, or that of their ids, and means nothing.
    let mut inputs: Vec<&Input> = job.inputs.iter().collect();
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    // Without any it is left out, and a revision that is older than they are stays as it was.
    let ttls: BTreeMap<&str, u128> = job.table_ttls.iter().map(|(table, ttl)| (table.as_str(), ttl.as_millis())).collect();
    let pipeline = serde_json::to_value(&job.pipeline).expect("a pipeline has string keys only");
    let decisive = json!({
        "format": FORMAT,
        "inputs": inputs.into_iter().map(input).collect::<Vec<_>>(),
        "deadLetter": job.dead_letter,
        "pipeline": pipeline,
        "ttls": (!ttls.is_empty()).then_some(ttls),
    });
    let mut text = String::new();
    write_canonical(&decisive, &mut text);
    let hash = Sha256::digest(text.as_bytes());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..HEX_DIGITS].to_owned()
}

/// JSON without spaces, the keys of each object in the order of their bytes, without fields that are null.
fn write_canonical(value: &Value, into: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            fields.sort_by_key(|(name, _)| name.as_str());
            write_all('{', '}', fields.into_iter(), into, |(name, value), into| {
                into.push_str(&Value::from(name.as_str()).to_string());
                into.push(':');
                write_canonical(value, into);
            });
        }
        Value::Array(items) => write_all('[', ']', items.iter(), into, write_canonical),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => into.push_str(&value.to_string()),
    }
}

fn write_all<T>(open: char, close: char, items: impl Iterator<Item = T>, into: &mut String, mut write: impl FnMut(T, &mut String)) {
    into.push(open);
    for (at, item) in items.enumerate() {
        if at > 0 {
            into.push(',');
        }
        write(item, into);
    }
    into.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text_knows_neither_order_nor_absent_fields() {
        let mut text = String::new();
        write_canonical(&json!({ "b": [1, "x\"", null], "a": { "d": null, "c": 1.5 } }), &mut text);
        assert_eq!(text, r#"{"a":{"c":1.5},"b":[1,"x\"",null]}"#);
    }
}
