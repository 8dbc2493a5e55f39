//! How a state value's bytes follow from what they were: the journal holds that instead of the whole value. Speaks of the bytes that
//! [`super::msgpack`] writes, so the two change together; a test compares what patches make with what is written, to the byte.

use forebay_engine::patch::PatchWriter;

use super::Document;
use super::msgpack::{window_bytes, write_integer, write_object_header};
use super::value::{Members, Shape, Value};

/// Tells how `new`'s bytes follow from `old`'s. False: one is an entity and the other is not, or a window changed in a way that no step makes.
pub(super) fn write(old: &Document, new: &Document, patch: &mut PatchWriter<'_>) -> bool {
    patch.copy(1); // the format
    match (old, new) {
        (Document::Entity { fields: old, newer_by: old_time }, Document::Entity { fields, newer_by }) => {
            patch_time(*old_time, *newer_by, patch);
            patch_header(&object_header(old.len()), &object_header(fields.len()), patch);
            patch_members(old.iter(), fields.iter(), patch);
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
    let prefix = |time: Option<i64>| {
        let mut bytes = Vec::new();
        if let Some(time) = time {
            bytes.push(0x92);
            write_integer(time, &mut bytes);
        }
        bytes
    };
    patch_header(&prefix(old), &prefix(new), patch);
}

/// Fields keep their order, so those of both lie side by side until one was removed; behind that only the names that follow match by chance.
fn patch_members(old: Members<'_>, new: Members<'_>, patch: &mut PatchWriter<'_>) {
    let mut old = old.peekable();
    for (name, value) in new {
        let is_kept = |gone: Value<'_>| new.into_iter().any(|(kept, _)| kept.bytes() == gone.bytes());
        while let Some((gone, was)) = old.next_if(|(there, _)| there.bytes() != name.bytes() && !is_kept(*there)) {
            patch.skip(gone.bytes().len() + was.bytes().len());
        }
        match old.next_if(|(there, _)| there.bytes() == name.bytes()) {
            Some((_, was)) => {
                patch.copy(name.bytes().len());
                patch_value(was, value, patch);
            }
            None => patch.insert(|into| {
                into.extend_from_slice(name.bytes());
                into.extend_from_slice(value.bytes());
            }),
        }
    }
    old.for_each(|(gone, was)| patch.skip(gone.bytes().len() + was.bytes().len()));
}

fn patch_value(old: Value<'_>, new: Value<'_>, patch: &mut PatchWriter<'_>) {
    if old.bytes() == new.bytes() {
        return patch.copy(old.bytes().len());
    }
    match (old.shape(), new.shape()) {
        (Shape::Object(was), Shape::Object(is)) => {
            patch_header(header(old, was.bytes()), header(new, is.bytes()), patch);
            patch_members(was, is, patch);
        }
        (Shape::Array(mut was), Shape::Array(mut is)) => {
            patch_header(header(old, was.bytes()), header(new, is.bytes()), patch);
            for _ in 0..was.len().min(is.len()) {
                if let (Some(old), Some(new)) = (was.next(), is.next()) {
                    patch_value(old, new, patch);
                }
            }
            patch.skip(was.bytes().len());
            patch.insert(|into| into.extend_from_slice(is.bytes()));
        }
        _ => {
            patch.skip(old.bytes().len());
            patch.insert(|into| into.extend_from_slice(new.bytes()));
        }
    }
}

/// What stands before what is `inside` a container.
fn header<'a>(container: Value<'a>, inside: &[u8]) -> &'a [u8] {
    &container.bytes()[..container.bytes().len() - inside.len()]
}

fn object_header(len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_object_header(len, &mut bytes);
    bytes
}

fn patch_header(old: &[u8], new: &[u8], patch: &mut PatchWriter<'_>) {
    if old == new {
        return patch.copy(old.len());
    }
    patch.skip(old.len());
    patch.insert(|into| into.extend_from_slice(new));
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
