//! The bytes of a state value, in memory as on disk. Format 1: the version byte, then one MessagePack value:
//!
//! - a map: an entity;
//! - an array of an integer and a map: an entity with the event time of its newest upsert;
//! - extension 1: ids of 8 bytes each, big-endian, oldest first (`dedup: {last: N}`);
//! - extension 2: ids of 8 bytes and clocks of 8 bytes in turn, big-endian, oldest first (`dedup: {within: …}`).
//!
//! Any MessagePack reader can print it. It is written by hand because it is read and written for every record. Of the ways to write a number or a
//! length there is one here, the shortest, so that equal numbers and strings have equal bytes.

use std::collections::VecDeque;

use super::value::{Elements, Members, Shape, Value};
use super::{Document, Fields, LastWindow, WithinWindow};

/// The format that this version writes, and the only one that it reads so far.
const FORMAT: u8 = 1;
const EXT_LAST: u8 = 1;
const EXT_WITHIN: u8 = 2;

/// The bytes of null.
pub(crate) const NULL: u8 = 0xc0;

/// How deep values may lie in an entity, which is deeper than any record gets: parsing stops at 128. But `enrich` and `upsert` together may nest
/// an entity in itself, a little deeper with each record.
const DEPTH_MAX: usize = 256;

/// How deep it may be in a value that an entity is to hold: around it are the entity's own map and perhaps an array that collects it.
pub(crate) const VALUE_DEPTH_MAX: usize = DEPTH_MAX - 2;

pub(super) fn encode(document: &Document, into: &mut Vec<u8>) {
    into.push(FORMAT);
    match document {
        Document::Entity { fields, newer_by } => {
            if let Some(time) = newer_by {
                into.push(0x92);
                write_integer(*time, into);
            }
            write_object_header(fields.len(), into);
            into.extend_from_slice(fields.bytes());
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

pub(crate) fn write_bool(value: bool, into: &mut Vec<u8>) {
    into.push(0xc2 + u8::from(value));
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "each arm holds what fits")]
pub(crate) fn write_integer(number: i64, into: &mut Vec<u8>) {
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

pub(crate) fn write_float(number: f64, into: &mut Vec<u8>) {
    into.push(0xcb);
    into.extend_from_slice(&number.to_be_bytes());
}

/// `text` must be UTF-8.
#[expect(clippy::cast_possible_truncation, reason = "each arm holds what fits")]
pub(crate) fn write_text(text: &[u8], into: &mut Vec<u8>) {
    match text.len() {
        len @ 0..=31 => into.push(0xa0 | len as u8),
        len @ 32..=255 => into.extend_from_slice(&[0xd9, len as u8]),
        len => write_length(len, None, 0xda, 0xdb, into),
    }
    into.extend_from_slice(text);
}

/// So many values follow.
pub(crate) fn write_array_header(len: usize, into: &mut Vec<u8>) {
    write_length(len, Some(0x90), 0xdc, 0xdd, into);
}

/// So many names and values follow.
pub(crate) fn write_object_header(len: usize, into: &mut Vec<u8>) {
    write_length(len, Some(0x80), 0xde, 0xdf, into);
}

#[expect(clippy::cast_possible_truncation, reason = "each arm holds what fits")]
fn write_length(len: usize, fix: Option<u8>, wide: u8, wider: u8, into: &mut Vec<u8>) {
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

/// How many bytes a value has, by its first one; 0 where that does not tell.
const SIZES: [u8; 256] = sizes();

const fn sizes() -> [u8; 256] {
    let mut sizes = [0; 256];
    let mut marker = 0_u8;
    loop {
        sizes[marker as usize] = match marker {
            0x00..=0x7f | 0xe0..=0xff | NULL | 0xc2 | 0xc3 => 1,
            0xa0..=0xbf => 1 + (marker & 31),
            0xcb | 0xd3 => 9,
            0xd0 => 2,
            0xd1 => 3,
            0xd2 => 5,
            _ => 0,
        };
        if marker == 0xff {
            return sizes;
        }
        marker += 1;
    }
}

/// Where the value that begins at `at` ends. The bytes were checked before.
#[inline]
pub(super) fn end_of(bytes: &[u8], at: usize) -> usize {
    match SIZES[usize::from(bytes[at])] {
        0 => end_of_long(bytes, at),
        size => at + usize::from(size),
    }
}

/// The same for long strings and for containers: passes over what is inside.
#[inline(never)]
fn end_of_long(bytes: &[u8], mut at: usize) -> usize {
    let mut left = 1;
    while left > 0 {
        let marker = bytes[at];
        let size = SIZES[usize::from(marker)];
        at += usize::from(size);
        left -= 1;
        if size == 0 {
            let inside;
            (at, inside) = step_into(bytes, at + 1, marker);
            left += inside;
        }
    }
    at
}

/// Whether an entity may hold this value: see [`VALUE_DEPTH_MAX`]. The bytes are those of one value, and were checked before.
pub(crate) fn fits_depth(bytes: &[u8]) -> bool {
    // Each level has a byte of its own.
    bytes.len() <= VALUE_DEPTH_MAX || is_within(bytes, &mut 0, VALUE_DEPTH_MAX)
}

/// Whether nothing in the value at `at` lies deeper in it than `depth`; passes over it then.
fn is_within(bytes: &[u8], at: &mut usize, depth: usize) -> bool {
    let marker = bytes[*at];
    match SIZES[usize::from(marker)] {
        0 => {
            let inside;
            (*at, inside) = step_into(bytes, *at + 1, marker);
            inside == 0 || depth > 0 && (0..inside).all(|_| is_within(bytes, at, depth - 1))
        }
        size => {
            *at += usize::from(size);
            true
        }
    }
}

/// Behind the head of a long string or of a container, whose marker was just before `at`; and how many values are inside.
fn step_into(bytes: &[u8], at: usize, marker: u8) -> (usize, usize) {
    match marker {
        0x80..=0x8f => (at, 2 * usize::from(marker & 15)),
        0x90..=0x9f => (at, usize::from(marker & 15)),
        0xd9..=0xdb => {
            let (len, width) = length(bytes, at, marker - 0xd9);
            (at + width + len, 0)
        }
        _ => {
            let (len, width) = length(bytes, at, (marker & 1) + 1);
            (at + width, if marker < 0xde { len } else { 2 * len })
        }
    }
}

/// What lies in the bytes of one value. They were checked before.
pub(super) fn shape_of(bytes: &[u8]) -> Shape<'_> {
    let marker = bytes[0];
    match marker {
        0x00..=0x7f | 0xe0..=0xff => Shape::Int(i64::from(marker.cast_signed())),
        0xa0..=0xbf => Shape::Text(&bytes[1..]),
        0x80..=0x8f => Shape::Object(Members::new(usize::from(marker & 15), &bytes[1..])),
        0x90..=0x9f => Shape::Array(Elements::new(usize::from(marker & 15), &bytes[1..])),
        0xc2 => Shape::Bool(false),
        0xc3 => Shape::Bool(true),
        0xcb => Shape::Float(f64::from_be_bytes(word(bytes))),
        0xd0 => Shape::Int(i64::from(bytes[1].cast_signed())),
        0xd1 => Shape::Int(i64::from(i16::from_be_bytes(word(bytes)))),
        0xd2 => Shape::Int(i64::from(i32::from_be_bytes(word(bytes)))),
        0xd3 => Shape::Int(i64::from_be_bytes(word(bytes))),
        0xd9..=0xdb => {
            let (_, width) = length(bytes, 1, marker - 0xd9);
            Shape::Text(&bytes[1 + width..])
        }
        0xdc..=0xdf => {
            let (len, width) = length(bytes, 1, (marker & 1) + 1);
            let inside = &bytes[1 + width..];
            if marker < 0xde { Shape::Array(Elements::new(len, inside)) } else { Shape::Object(Members::new(len, inside)) }
        }
        _ => Shape::Null,
    }
}

/// Behind the marker.
fn word<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[1..].try_into().expect("a value has its bytes, they were checked")
}

/// A length at `at`, and how many bytes it has. `width`: 0 for one byte, 1 for two, 2 for four.
fn length(bytes: &[u8], at: usize, width: u8) -> (usize, usize) {
    let byte = |index: usize| usize::from(bytes[at + index]);
    match width {
        0 => (byte(0), 1),
        1 => (byte(0) << 8 | byte(1), 2),
        _ => (byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3), 4),
    }
}

/// Checks bytes that come in.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Document, String> {
        match self.rest.first() {
            Some(0xc9) => self.window(),
            Some(0x92) => {
                self.byte()?;
                let Shape::Int(time) = self.value()?.shape() else {
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
        let value = self.value()?;
        match value.shape() {
            Shape::Object(members) => Ok(Fields::from_members(members)),
            _ => Err(format!("an entity must be a map, not {}", value.kind())),
        }
    }

    fn value(&mut self) -> Result<Value<'a>, String> {
        let bytes = self.rest;
        self.check(0)?;
        Ok(Value::of(&bytes[..bytes.len() - self.rest.len()]))
    }

    fn check(&mut self, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX}"));
        }
        match self.byte()? {
            0x00..=0x7f | 0xe0..=0xff | NULL | 0xc2 | 0xc3 => Ok(()),
            byte @ 0x80..=0x8f => self.check_members(usize::from(byte & 15), depth),
            byte @ 0x90..=0x9f => self.check_elements(usize::from(byte & 15), depth),
            byte @ 0xa0..=0xbf => self.check_text(usize::from(byte & 31)),
            0xcb | 0xd3 => self.take(8).map(drop),
            0xd0 => self.take(1).map(drop),
            0xd1 => self.take(2).map(drop),
            0xd2 => self.take(4).map(drop),
            marker @ (0xd9..=0xdb) => {
                let len = self.length(marker - 0xd9)?;
                self.check_text(len)
            }
            marker @ (0xdc | 0xdd) => {
                let len = self.length(marker - 0xdc + 1)?;
                self.check_elements(len, depth)
            }
            marker @ (0xde | 0xdf) => {
                let len = self.length(marker - 0xde + 1)?;
                self.check_members(len, depth)
            }
            marker => Err(format!("marker {marker:#04x} is none that a document is written with")),
        }
    }

    fn check_elements(&mut self, len: usize, depth: usize) -> Result<(), String> {
        (0..len).try_for_each(|_| self.check(depth + 1))
    }

    fn check_members(&mut self, len: usize, depth: usize) -> Result<(), String> {
        for _ in 0..len {
            if self.rest.first().is_some_and(|marker| !matches!(marker, 0xa0..=0xbf | 0xd9..=0xdb)) {
                return Err("a field's name must be a string".into());
            }
            self.check(depth + 1)?;
            self.check(depth + 1)?;
        }
        Ok(())
    }

    fn check_text(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map(drop).map_err(|e| format!("a string is not UTF-8: {e}"))
    }

    fn length(&mut self, width: u8) -> Result<usize, String> {
        let bytes = self.take(1 << width)?;
        Ok(length(bytes, 0, width).0)
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
