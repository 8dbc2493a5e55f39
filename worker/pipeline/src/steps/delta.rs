//! The bytes of a delta: what one record changed of one entity.
//!
//! `{"table": …, "key": …, "set": {…}, "unset": […], "addToSet": {field: […]}, "removeFromSet": {field: […]}}`, parts in this order, empty ones
//! left out; or `{"table": …, "key": …, "remove": true}`. A key that is not UTF-8 is `{"base64": …}`. Applying one twice gives the same document.

use forebay_engine::ids::OutputId;
use forebay_engine::pipeline::Workspace;
use forebay_engine::record::{Destination, InputRecord};

use crate::compile::CompileContext;
use crate::document::{Document, write_string};
use crate::instance::Failure;
use crate::steps::emit::check_taken;

/// The parts of a delta that hold fields, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Set,
    Unset,
    AddToSet,
    RemoveFromSet,
}

impl Part {
    fn opening(self) -> &'static [u8] {
        match self {
            Part::Set => b",\"set\":{",
            Part::Unset => b",\"unset\":[",
            Part::AddToSet => b",\"addToSet\":{",
            Part::RemoveFromSet => b",\"removeFromSet\":{",
        }
    }

    fn closing(self) -> u8 {
        if self == Part::Unset { b']' } else { b'}' }
    }
}

/// A delta that is being written. Parts must come in order.
pub(super) struct Delta<'b> {
    bytes: &'b mut Vec<u8>,
    part: Option<Part>,
}

impl<'b> Delta<'b> {
    pub(super) fn begin(bytes: &'b mut Vec<u8>, table: &str, key: &[u8]) -> Self {
        bytes.clear();
        bytes.extend_from_slice(b"{\"table\":");
        write_string(table, bytes);
        bytes.extend_from_slice(b",\"key\":");
        match std::str::from_utf8(key) {
            Ok(key) => write_string(key, bytes),
            Err(_) => {
                bytes.extend_from_slice(b"{\"base64\":\"");
                write_base64(key, bytes);
                bytes.extend_from_slice(b"\"}");
            }
        }
        Self { bytes, part: None }
    }

    /// Begins a field of a part; the caller appends its value. In `unset` the name itself is the value.
    pub(super) fn field(&mut self, part: Part, name_json: &[u8]) -> &mut Vec<u8> {
        if self.part == Some(part) {
            self.bytes.push(b',');
        } else {
            self.close_part();
            self.bytes.extend_from_slice(part.opening());
            self.part = Some(part);
        }
        self.bytes.extend_from_slice(name_json);
        if part != Part::Unset {
            self.bytes.push(b':');
        }
        self.bytes
    }

    /// To go on with the value of the field that was begun last.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        self.bytes
    }

    pub(super) fn removal(self) -> Self {
        self.bytes.extend_from_slice(b",\"remove\":true");
        self
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.part.is_none()
    }

    /// Ends it and puts it out under the entity's key.
    pub(super) fn push(
        mut self,
        output: OutputId,
        key: &[u8],
        context: &CompileContext,
        record: &InputRecord<'_>,
        workspace: &mut Workspace<'_, Document>,
    ) -> Result<(), Failure> {
        self.close_part();
        self.bytes.push(b'}');
        let before = workspace.outputs().bytes();
        let to = Destination { output, partition: None, timestamp: record.timestamp, key: Some(key) };
        workspace.outputs().push(to, Some(self.bytes), &[]);
        check_taken(before, to, workspace, context)
    }

    fn close_part(&mut self) {
        if let Some(part) = self.part.take() {
            self.bytes.push(part.closing());
        }
    }
}

fn write_base64(bytes: &[u8], into: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().enumerate().fold(0_u32, |group, (index, byte)| group | u32::from(*byte) << (16 - 8 * index));
        for index in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * index)) as usize & 63];
            into.push(if index <= chunk.len() { digit } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_base64_with_padding() {
        for (bytes, expected) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xff\xfe\xfd\xfc", "//79/A==")] {
            let mut into = Vec::new();
            write_base64(bytes, &mut into);
            assert_eq!(String::from_utf8(into).unwrap(), expected);
        }
    }
}
