//! How a state value's bytes follow from what they were: the journal holds that instead of the whole value. Speaks of the bytes that
//! [`super::msgpack`] writes, so the two change together; a test compares what patches make with what is written, to the byte.

use std::sync::Arc;

use forebay_engine::patch::PatchWriter;

use super::msgpack::{window_bytes, write_integer, write_length, write_text, write_value};
use super::{Document, Fields, Value};

/// Tells how `new`'s bytes follow from `old`'s. False: one is an entity and the other is not, or a window changed in a way that no step makes.
pub(super) fn write(old: &Document, new: &Document, patch: &mut PatchWriter<'_>) -> bool {
    patch.copy(1); // the format
    match (old, new) {
        (Document::Entity { fields: old, newer_by: old_time }, Document::Entity { fields, newer_by }) => {
            patch_time(*old_time, *newer_by, patch);
            patch_fields(old, fields, patch);
            true
        }
        (Document::Last(old), Document::Last(new)) => patch_window(old.len(), new.len(), 8, new.dropped_since(old), patch, |kept, into| {
            new.iter().skip(kept).for_each(|id| into.extend_from_slice(&id.to_be_bytes()));
        }),
        (Document::Within(old), Document::Within(new)) => {
            patch_window(old.len(), new.len(), 16, new.dropped_since(old), patch, |kept, into| {
                for (id, seen) in new.iter().skip(kept) {
                    into.extend_from_slice(&id.to_be_bytes());
                    into.extend_from_slice(&seen.to_be_bytes());
                }
            })
        }
        (Document::Entity { .. } | Document::Last(_) | Document::Within(_), _) => false,
    }
}

fn patch_time(old: Option<i64>, new: Option<i64>, patch: &mut PatchWriter<'_>) {
    match (old, new) {
        (old, new) if old == new => patch.copy(old.map_or(0, |time| 1 + encoded_len(&Value::Int(time)))),
        (old, new) => {
            patch.skip(old.map_or(0, |time| 1 + encoded_len(&Value::Int(time))));
            patch.insert(|into| {
                if let Some(time) = new {
                    into.push(0x92);
                    write_integer(time, into);
                }
            });
        }
    }
}

/// Fields keep their order, so those of both lie side by side until one was removed; behind that only the names that follow match by chance.
fn patch_fields(old: &Fields, new: &Fields, patch: &mut PatchWriter<'_>) {
    patch_length(old.len(), new.len(), 0x80, patch);
    let mut old = old.iter().peekable();
    for (name, value) in new.iter() {
        while let Some((gone, was)) = old.next_if(|(there, _)| *there != name && !new.iter().any(|(kept, _)| kept == *there)) {
            patch.skip(text_len(gone.as_bytes().len()) + encoded_len(was));
        }
        match old.next_if(|(there, _)| *there == name) {
            Some((_, was)) => {
                patch.copy(text_len(name.as_bytes().len()));
                patch_value(was, value, patch);
            }
            None => patch.insert(|into| {
                write_text(name, into);
                write_value(value, into);
            }),
        }
    }
    old.for_each(|(gone, was)| patch.skip(text_len(gone.as_bytes().len()) + encoded_len(was)));
}

fn patch_value(old: &Value, new: &Value, patch: &mut PatchWriter<'_>) {
    match (old, new) {
        // Comparing floats would take -0.0 for 0.0, and not a number for another.
        (Value::Float(old), Value::Float(new)) if old.to_bits() == new.to_bits() => patch.copy(9),
        (Value::Object(old), Value::Object(new)) if !Arc::ptr_eq(old, new) => patch_fields(old, new, patch),
        (Value::Array(old), Value::Array(new)) if !Arc::ptr_eq(old, new) => {
            let (old, new) = (old.items(), new.items());
            patch_length(old.len(), new.len(), 0x90, patch);
            let same = old.len().min(new.len());
            old.iter().zip(new).for_each(|(old, new)| patch_value(old, new, patch));
            patch.skip(old[same..].iter().map(encoded_len).sum());
            patch.insert(|into| new[same..].iter().for_each(|item| write_value(item, into)));
        }
        (Value::Object(_), Value::Object(_)) | (Value::Array(_), Value::Array(_)) => patch.copy(encoded_len(old)),
        (Value::Float(_), Value::Float(_)) => replace(old, new, patch),
        (old, new) if old == new => patch.copy(encoded_len(old)),
        (old, new) => replace(old, new, patch),
    }
}

fn replace(old: &Value, new: &Value, patch: &mut PatchWriter<'_>) {
    patch.skip(encoded_len(old));
    patch.insert(|into| write_value(new, into));
}

fn patch_length(old: usize, new: usize, fix: u8, patch: &mut PatchWriter<'_>) {
    if old == new {
        return patch.copy(length_len(old));
    }
    patch.skip(length_len(old));
    patch.insert(|into| write_length(new, Some(fix), if fix == 0x80 { 0xde } else { 0xdc }, if fix == 0x80 { 0xdf } else { 0xdd }, into));
}

/// `dropped`: how many of the oldest entries went before the others came.
fn patch_window(
    old: usize,
    new: usize,
    entry_bytes: usize,
    dropped: Option<usize>,
    patch: &mut PatchWriter<'_>,
    write_from: impl FnOnce(usize, &mut Vec<u8>),
) -> bool {
    let Some(dropped) = dropped else { return false };
    // Marker, four bytes of length, kind.
    if old == new {
        patch.copy(6);
    } else {
        patch.copy(1);
        patch.skip(4);
        patch.insert(|into| into.extend_from_slice(&window_bytes(new * entry_bytes)));
        patch.copy(1);
    }
    let kept = old - dropped;
    patch.skip(dropped * entry_bytes);
    patch.copy(kept * entry_bytes);
    patch.insert(|into| write_from(kept, into));
    true
}

/// How many bytes [`write_value`] writes.
fn encoded_len(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 1,
        Value::Int(number) => match number {
            -32..=127 => 1,
            -0x80..=0x7f => 2,
            -0x8000..=0x7fff => 3,
            -0x8000_0000..=0x7fff_ffff => 5,
            _ => 9,
        },
        Value::Float(_) => 9,
        Value::Text(text) => text_len(text.as_bytes().len()),
        Value::Array(array) => length_len(array.items().len()) + array.items().iter().map(encoded_len).sum::<usize>(),
        Value::Object(fields) => {
            let inside = fields.iter().map(|(name, value)| text_len(name.as_bytes().len()) + encoded_len(value));
            length_len(fields.len()) + inside.sum::<usize>()
        }
    }
}

fn text_len(bytes: usize) -> usize {
    bytes
        + match bytes {
            0..=31 => 1,
            32..=255 => 2,
            256..=0xffff => 3,
            _ => 5,
        }
}

fn length_len(items: usize) -> usize {
    match items {
        0..=15 => 1,
        16..=0xffff => 3,
        _ => 5,
    }
}
