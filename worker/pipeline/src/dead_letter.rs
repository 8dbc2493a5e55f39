//! The format of a dead letter: the input record's key, value, headers and time stamp as they were, and these headers in addition, all UTF-8:
//!
//! | header | what |
//! |---|---|
//! | `forebay.job` | the job's name |
//! | `forebay.topic`, `forebay.partition`, `forebay.offset` | where the record lies |
//! | `forebay.timestamp` | its time stamp, milliseconds since 1970 |
//! | `forebay.step`, `forebay.step_index` | the step that refused it, by name and by place in `spec.pipeline`, from 0 |
//! | `forebay.error` | why, with field and value, at most 512 bytes |
//! | `forebay.revision` | under which revision of the job |
//! | `forebay.value_bytes` | only when the value was cut because the topic would not have taken it whole: how long it was |
//!
//! Headers of the input that begin with `forebay.` are left out: a dead letter that was replayed and failed again has them once.

use forebay_engine::record::{Destination, Header, InputRecord, Outputs};

use crate::compile::CompileContext;

/// What all these headers begin with.
pub const HEADER_PREFIX: &str = "forebay.";

/// Room for a sentence and a value; many dead letters are read in a list.
const ERROR_BYTES_MAX: usize = 512;

/// Lengths and counts around headers and value in a record, with room to spare.
const FRAMING_BYTES: usize = 512;

/// Puts the record out as a dead letter.
pub(crate) fn push(context: &CompileContext, record: &InputRecord<'_>, index: usize, step: &str, reason: &str, outputs: &mut Outputs) {
    let partition = record.partition.to_string();
    let offset = record.offset.to_string();
    let timestamp = record.timestamp.as_millis().to_string();
    let index = index.to_string();
    let value_bytes = record.value.map_or(0, <[u8]>::len).to_string();
    let own = |name: &'static str, value| Header { name, value: Some(str::as_bytes(value)) };
    let mut headers: Vec<_> = record.headers.iter().copied().filter(|header| !header.name.starts_with(HEADER_PREFIX)).collect();
    headers.extend([
        own("forebay.job", &context.job),
        own("forebay.topic", &context.inputs[usize::from(record.input.get())].topic),
        own("forebay.partition", &partition),
        own("forebay.offset", &offset),
        own("forebay.timestamp", &timestamp),
        own("forebay.step", step),
        own("forebay.step_index", &index),
        own("forebay.error", cut(reason, ERROR_BYTES_MAX)),
        own("forebay.revision", &context.revision),
    ]);
    let around: usize = headers.iter().map(|header| header.name.len() + header.value.map_or(0, <[u8]>::len)).sum();
    let room = context.record_bytes_max.saturating_sub(around + record.key.map_or(0, <[u8]>::len) + FRAMING_BYTES);
    let value = record.value.map(|value| &value[..value.len().min(room)]);
    if value.map(<[u8]>::len) != record.value.map(<[u8]>::len) {
        headers.push(own("forebay.value_bytes", &value_bytes));
    }
    let to = Destination { output: context.dead_letter, partition: None, timestamp: record.timestamp, key: record.key };
    outputs.push(to, value, &headers);
}

/// At most `bytes_max` bytes, cut between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
