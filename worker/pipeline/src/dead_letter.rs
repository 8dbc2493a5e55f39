//! The format of a dead letter: the input record's key, value, headers and time stamp as they were (the nearest time stamp that the topic
//! takes), and these headers in addition, all UTF-8:
//!
//! | header | what |
//! |---|---|
//! | `forebay.job` | the job's name |
//! | `forebay.topic`, `forebay.partition`, `forebay.offset` | where the record lies |
//! | `forebay.timestamp` | its time stamp, milliseconds since 1970 |
//! | `forebay.step`, `forebay.step_index` | the step that refused it, by name and by place in `spec.pipeline`, from 0 |
//! | `forebay.error` | why, with field and value, at most 512 bytes |
//! | `forebay.revision` | under which revision of the job |
//! | `forebay.template` | only where the process was told: what it was made from, image and all; of a pod its label `forebay.dev/template` |
//! | `forebay.value_bytes` | only when the value was cut because the topic would not have taken it whole: how long it was |
//! | `forebay.headers_bytes` | only when key and headers alone were too large for the topic: the headers are left out, and were so long |
//! | `forebay.key_bytes` | only when the key alone was: it is cut, and was so long |
//!
//! Headers of the input that begin with `forebay.` are left out: a dead letter that was replayed and failed again has them once.

use forebay_engine::pipeline::Workspace;
use forebay_engine::record::{Destination, Header, InputRecord};

use crate::compile::CompileContext;
use crate::document::Document;

/// What all these headers begin with.
pub const HEADER_PREFIX: &str = "forebay.";

/// Room for a sentence and a value; many dead letters are read in a list.
const ERROR_BYTES_MAX: usize = 512;

/// Lengths and counts around key and value in a record, and the headers that tell what was cut, with room to spare.
const FRAMING_BYTES: usize = 512;

/// Two lengths, as the embedded log writes them; Kafka's are shorter.
const HEADER_FRAMING_BYTES: usize = 8;

/// Puts the record out as a dead letter.
pub(crate) fn push<'r>(
    context: &CompileContext,
    record: &InputRecord<'r>,
    index: usize,
    step: &str,
    reason: &str,
    workspace: &mut Workspace<'_, Document>,
) {
    let partition = record.partition.to_string();
    let offset = record.offset.to_string();
    let timestamp = record.timestamp.as_millis().to_string();
    let index = index.to_string();
    let own = |name: &'static str, value| Header { name, value: Some(str::as_bytes(value)) };
    let mut about = vec![
        own("forebay.job", &context.job),
        own("forebay.topic", &context.inputs[usize::from(record.input.get())].topic),
        own("forebay.partition", &partition),
        own("forebay.offset", &offset),
        own("forebay.timestamp", &timestamp),
        own("forebay.step", step),
        own("forebay.step_index", &index),
        own("forebay.error", cut(reason, ERROR_BYTES_MAX)),
        own("forebay.revision", &context.revision),
    ];
    about.extend(context.template.as_deref().map(|template| own("forebay.template", template)));
    let mut headers: Vec<_> = record.headers.iter().copied().filter(|header| !header.name.starts_with(HEADER_PREFIX)).collect();
    let mut room = context.record_bytes_max.saturating_sub(FRAMING_BYTES + headers_bytes(&about));
    // What was too long, and how long it was.
    let mut cuts = Vec::new();
    if !headers.is_empty() && headers_bytes(&headers) + len(record.key) > room {
        cuts.push(("forebay.headers_bytes", headers_bytes(&headers).to_string()));
        headers.clear();
    }
    room = room.saturating_sub(headers_bytes(&headers));
    let mut fit = |bytes: Option<&'r [u8]>, told_as| {
        let fitting = bytes.map(|bytes| &bytes[..bytes.len().min(room)]);
        room -= len(fitting);
        if len(fitting) < len(bytes) {
            cuts.push((told_as, len(bytes).to_string()));
        }
        fitting
    };
    let key = fit(record.key, "forebay.key_bytes");
    let value = fit(record.value, "forebay.value_bytes");
    headers.extend(about);
    headers.extend(cuts.iter().map(|(name, bytes)| own(name, bytes)));
    let timestamp = context.nearest_timestamp(context.dead_letter, record.timestamp, workspace.now());
    let to = Destination { output: context.dead_letter, partition: None, timestamp, key };
    workspace.outputs().push(to, value, &headers);
}

fn len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(0, <[u8]>::len)
}

fn headers_bytes(headers: &[Header<'_>]) -> usize {
    headers.iter().map(|header| HEADER_FRAMING_BYTES + header.name.len() + len(header.value)).sum()
}

/// At most `bytes_max` bytes, cut between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
