//! Writing JSON into a buffer.

use super::value::{Members, Shape, Value};

pub(super) fn write_value(value: Value<'_>, into: &mut Vec<u8>) {
    match value.shape() {
        Shape::Null => into.extend_from_slice(b"null"),
        Shape::Bool(true) => into.extend_from_slice(b"true"),
        Shape::Bool(false) => into.extend_from_slice(b"false"),
        Shape::Int(number) => write_integer(number, into),
        Shape::Float(number) => write_float(number, into),
        Shape::Text(text) => write_bytes_string(text, into),
        Shape::Array(elements) => {
            into.push(b'[');
            for (index, element) in elements.enumerate() {
                if index > 0 {
                    into.push(b',');
                }
                write_value(element, into);
            }
            into.push(b']');
        }
        Shape::Object(members) => write_members(members, into),
    }
}

pub(super) fn write_members(members: Members<'_>, into: &mut Vec<u8>) {
    into.push(b'{');
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            into.push(b',');
        }
        write_bytes_string(name.text(), into);
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
    loop {
        let stop = special_from(bytes, from);
        into.extend_from_slice(&bytes[from..stop]);
        let Some(byte) = bytes.get(stop) else { break };
        from = stop + 1;
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
    into.push(b'"');
}

/// Where the next byte is that a string cannot hold as it is: a quote, a backslash, a control character; or the end.
pub(crate) fn special_from(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    // Eight bytes at once. A byte's highest bit is set where subtracting borrows: exact for the first such byte, which is the one that counts.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*chunk);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let special = (quote | backslash | below(word, 0x20)) & HIGHS;
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        at += 1;
    }
    at
}
