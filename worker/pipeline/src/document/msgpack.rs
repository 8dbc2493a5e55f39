//! The bytes of a state value. Format 1: the version byte, then one MessagePack value:
//!
//! - a map: an entity;
//! - an array of an integer and a map: an entity with the event time of its newest upsert;
//! - extension 1: ids of 8 bytes each, big-endian, oldest first (`dedup: {last: N}`);
//! - extension 2: ids of 8 bytes and clocks of 8 bytes in turn, big-endian, oldest first (`dedup: {within: …}`).
//!
//! Any MessagePack reader can print it. It is written by hand because it is written for every touched key of every epoch.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Array, Document, Fields, LastWindow, Text, Value, WithinWindow};

/// The format that this version writes, and the only one that it reads so far.
const FORMAT: u8 = 1;
const EXT_LAST: u8 = 1;
const EXT_WITHIN: u8 = 2;

/// Deeper than any document can get: parsing stops at 128, and a document may nest one in a few levels of its own.
const DEPTH_MAX: usize = 256;

pub(super) fn encode(document: &Document, into: &mut Vec<u8>) {
    into.push(FORMAT);
    match document {
        Document::Entity { fields, newer_by: None } => write_fields(fields, into),
        Document::Entity { fields, newer_by: Some(time) } => {
            into.push(0x92);
            write_integer(*time, into);
            write_fields(fields, into);
        }
        Document::Last(window) => {
            write_ext(EXT_LAST, window.len() * 8, into);
            window.iter().for_each(|id| into.extend_from_slice(&id.to_be_bytes()));
        }
        Document::Within(window) => {
            write_ext(EXT_WITHIN, window.len() * 16, into);
            for (id, seen) in window.iter() {
                into.extend_from_slice(&id.to_be_bytes());
                into.extend_from_slice(&seen.to_be_bytes());
            }
        }
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Document, String> {
    let document = match bytes.split_first() {
        Some((&FORMAT, rest)) => {
            let mut reader = Reader { rest };
            let document = reader.document()?;
            if !reader.rest.is_empty() {
                return Err(format!("{} bytes follow the value", reader.rest.len()));
            }
            document
        }
        Some((format, _)) => return Err(format!("format {format} is unknown to this version, which reads format {FORMAT}")),
        None => return Err("it is empty".into()),
    };
    Ok(document)
}

pub(super) fn write_value(value: &Value, into: &mut Vec<u8>) {
    match value {
        Value::Null => into.push(0xc0),
        Value::Bool(value) => into.push(0xc2 + u8::from(*value)),
        Value::Int(number) => write_integer(*number, into),
        Value::Float(number) => {
            into.push(0xcb);
            into.extend_from_slice(&number.to_be_bytes());
        }
        Value::Text(text) => write_text(text, into),
        Value::Array(array) => {
            write_length(array.items().len(), Some(0x90), 0xdc, 0xdd, into);
            array.items().iter().for_each(|item| write_value(item, into));
        }
        Value::Object(fields) => write_fields(fields, into),
    }
}

fn write_fields(fields: &Fields, into: &mut Vec<u8>) {
    write_length(fields.len(), Some(0x80), 0xde, 0xdf, into);
    for (name, value) in fields.iter() {
        write_text(name, into);
        write_value(value, into);
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "each arm holds what fits")]
pub(super) fn write_integer(number: i64, into: &mut Vec<u8>) {
    match number {
        -32..=127 => into.push(number as u8),
        -0x80..=0x7f => into.extend_from_slice(&[0xd0, number as u8]),
        -0x8000..=0x7fff => {
            into.push(0xd1);
            into.extend_from_slice(&(number as i16).to_be_bytes());
        }
        -0x8000_0000..=0x7fff_ffff => {
            into.push(0xd2);
            into.extend_from_slice(&(number as i32).to_be_bytes());
        }
        _ => {
            into.push(0xd3);
            into.extend_from_slice(&number.to_be_bytes());
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "each arm holds what fits")]
pub(super) fn write_text(text: &Text, into: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    match bytes.len() {
        len @ 0..=31 => into.push(0xa0 | len as u8),
        len @ 32..=255 => into.extend_from_slice(&[0xd9, len as u8]),
        len => write_length(len, None, 0xda, 0xdb, into),
    }
    into.extend_from_slice(bytes);
}

#[expect(clippy::cast_possible_truncation, reason = "each arm holds what fits")]
pub(super) fn write_length(len: usize, fix: Option<u8>, wide: u8, wider: u8, into: &mut Vec<u8>) {
    match (len, fix) {
        (0..=15, Some(fix)) => into.push(fix | len as u8),
        (0..=0xffff, _) => {
            into.push(wide);
            into.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            into.push(wider);
            into.extend_from_slice(&u32::try_from(len).expect("a record has less than 4 GiB").to_be_bytes());
        }
    }
}

fn write_ext(kind: u8, len: usize, into: &mut Vec<u8>) {
    into.push(0xc9);
    into.extend_from_slice(&window_bytes(len));
    into.push(kind);
}

pub(super) fn window_bytes(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("a window has at most 100,000 entries").to_be_bytes()
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Document, String> {
        match self.rest.first() {
            Some(0xc9) => self.window(),
            Some(0x92) => {
                self.byte()?;
                let Value::Int(time) = self.value(0)? else {
                    return Err("an event time must be an integer".into());
                };
                Ok(Document::Entity { fields: self.fields()?, newer_by: Some(time) })
            }
            _ => Ok(Document::Entity { fields: self.fields()?, newer_by: None }),
        }
    }

    fn window(&mut self) -> Result<Document, String> {
        self.byte()?;
        let len = u32::from_be_bytes(self.array()?) as usize;
        let kind = self.byte()?;
        let payload = self.take(len)?;
        let number = |bytes: &[u8; 8]| u64::from_be_bytes(*bytes);
        let (words, rest) = payload.as_chunks::<8>();
        match kind {
            EXT_LAST if rest.is_empty() => Ok(Document::Last(LastWindow::from_oldest_first(words.iter().map(number).collect()))),
            EXT_WITHIN if len.is_multiple_of(16) => {
                let entries: VecDeque<_> = words.chunks(2).map(|pair| (number(&pair[0]), i64::from_be_bytes(pair[1]))).collect();
                Ok(Document::Within(WithinWindow::from_oldest_first(entries)))
            }
            _ => Err(format!("an extension of kind {kind} and {len} bytes is unknown to this version")),
        }
    }

    fn fields(&mut self) -> Result<Fields, String> {
        match self.value(0)? {
            Value::Object(fields) => Ok(Arc::unwrap_or_clone(fields)),
            other => Err(format!("an entity must be a map, not {}", other.kind())),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX}"));
        }
        Ok(match self.byte()? {
            byte @ 0x00..=0x7f => Value::Int(i64::from(byte)),
            byte @ 0x80..=0x8f => self.object(usize::from(byte & 15), depth)?,
            byte @ 0x90..=0x9f => self.list(usize::from(byte & 15), depth)?,
            byte @ 0xa0..=0xbf => Value::Text(self.text(usize::from(byte & 31))?),
            0xc0 => Value::Null,
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xcb => Value::Float(f64::from_be_bytes(self.array()?)),
            0xd0 => Value::Int(i64::from(i8::from_be_bytes(self.array()?))),
            0xd1 => Value::Int(i64::from(i16::from_be_bytes(self.array()?))),
            0xd2 => Value::Int(i64::from(i32::from_be_bytes(self.array()?))),
            0xd3 => Value::Int(i64::from_be_bytes(self.array()?)),
            marker @ (0xd9..=0xdb) => {
                let len = self.length(marker - 0xd9)?;
                Value::Text(self.text(len)?)
            }
            marker @ (0xdc | 0xdd) => {
                let len = self.length(marker - 0xdc + 1)?;
                self.list(len, depth)?
            }
            marker @ (0xde | 0xdf) => {
                let len = self.length(marker - 0xde + 1)?;
                self.object(len, depth)?
            }
            byte @ 0xe0..=0xff => Value::Int(i64::from(byte.cast_signed())),
            marker => return Err(format!("marker {marker:#04x} is none that a document is written with")),
        })
    }

    /// `width`: 0 for one byte, 1 for two, 2 for four.
    fn length(&mut self, width: u8) -> Result<usize, String> {
        Ok(match width {
            0 => usize::from(self.byte()?),
            1 => usize::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    fn list(&mut self, len: usize, depth: usize) -> Result<Value, String> {
        let mut items = Vec::with_capacity(len.min(self.rest.len()));
        for _ in 0..len {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::Array(Arc::new(Array::from(items))))
    }

    fn object(&mut self, len: usize, depth: usize) -> Result<Value, String> {
        let mut fields = Fields::with_capacity(len.min(self.rest.len()));
        for _ in 0..len {
            let Value::Text(name) = self.value(depth + 1)? else {
                return Err("a field's name must be a string".into());
            };
            let value = self.value(depth + 1)?;
            fields.push_new(name, value);
        }
        Ok(Value::Object(Arc::new(fields)))
    }

    fn text(&mut self, len: usize) -> Result<Text, String> {
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map(Text::from).map_err(|e| format!("a string is not UTF-8: {e}"))
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or("it ends in the middle of a value")?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or("it ends in the middle of a value")?;
        self.rest = rest;
        Ok(taken)
    }
}
