//! Writing JSON into a buffer.

use super::{Fields, Value};

pub(super) fn write_value(value: &Value, into: &mut Vec<u8>) {
    match value {
        Value::Null => into.extend_from_slice(b"null"),
        Value::Bool(true) => into.extend_from_slice(b"true"),
        Value::Bool(false) => into.extend_from_slice(b"false"),
        Value::Int(number) => write_integer(*number, into),
        Value::Float(number) => write_float(*number, into),
        Value::Text(text) => write_bytes_string(text.as_bytes(), into),
        Value::Array(array) => array.write_json(into),
        Value::Object(fields) => write_fields(fields, into),
    }
}

pub(super) fn write_fields(fields: &Fields, into: &mut Vec<u8>) {
    into.push(b'{');
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            into.push(b',');
        }
        write_bytes_string(name.as_bytes(), into);
        into.push(b':');
        write_value(value, into);
    }
    into.push(b'}');
}

pub(crate) fn write_integer(number: i64, into: &mut Vec<u8>) {
    serde_json::to_writer(into, &number).expect("writing to memory cannot fail");
}

/// The number must be finite: JSON knows no other, and none other gets into a document.
pub(crate) fn write_float(number: f64, into: &mut Vec<u8>) {
    serde_json::to_writer(into, &number).expect("writing to memory cannot fail");
}

pub(crate) fn write_string(text: &str, into: &mut Vec<u8>) {
    write_bytes_string(text.as_bytes(), into);
}

/// `bytes` must be UTF-8.
pub(crate) fn write_bytes_string(bytes: &[u8], into: &mut Vec<u8>) {
    into.push(b'"');
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        into.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' => into.extend_from_slice(b"\\\""),
            b'\\' => into.extend_from_slice(b"\\\\"),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'\r' => into.extend_from_slice(b"\\r"),
            b'\t' => into.extend_from_slice(b"\\t"),
            control => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                into.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(control >> 4), digit(control & 15)]);
            }
        }
    }
    into.extend_from_slice(&bytes[from..]);
    into.push(b'"');
}
