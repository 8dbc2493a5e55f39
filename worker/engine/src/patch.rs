//! Patches: how the journal says what an epoch changed of a value, without the rest of it. A patch turns the value's bytes before the epoch into
//! its bytes after it. It never reads or writes state itself.
//!
//! A patch is a row of operations over the old bytes, from their beginning to their end: a number (LEB128) of length times four plus operation;
//! 0 copies so many bytes, 1 leaves so many out, 2 inserts the bytes that follow. The operations must use up the old bytes to the last, so that a
//! patch that meets another value than it was made for is noticed.

const COPY: u64 = 0;
const SKIP: u64 = 1;
const INSERT: u64 = 2;

/// Writes a patch. Every byte of the old value is either copied or skipped, in order.
#[derive(Debug)]
pub struct PatchWriter<'a> {
    into: &'a mut Vec<u8>,
    /// Bytes to copy that are not written yet: neighbours become one operation.
    copied: usize,
    skipped: usize,
    inserted: &'a mut Vec<u8>,
}

impl<'a> PatchWriter<'a> {
    /// Appends to `into`; `scratch` is emptied and used.
    pub fn new(into: &'a mut Vec<u8>, scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        Self { into, copied: 0, skipped: 0, inserted: scratch }
    }

    /// The next bytes of the old value stay.
    pub fn copy(&mut self, bytes: usize) {
        if bytes > 0 {
            self.end_change();
            self.copied += bytes;
        }
    }

    /// The next bytes of the old value go.
    pub fn skip(&mut self, bytes: usize) {
        if bytes > 0 {
            self.end_copy();
            self.skipped += bytes;
        }
    }

    /// What `write` appends is put here.
    pub fn insert(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.end_copy();
        write(self.inserted);
    }

    /// Ends the patch.
    pub fn finish(mut self) {
        self.end_copy();
        self.end_change();
    }

    fn end_copy(&mut self) {
        if self.copied > 0 {
            write_number(operation(self.copied, COPY), self.into);
            self.copied = 0;
        }
    }

    /// What is left out and what is inserted between two copies has no order.
    fn end_change(&mut self) {
        if self.skipped > 0 {
            write_number(operation(self.skipped, SKIP), self.into);
            self.skipped = 0;
        }
        if !self.inserted.is_empty() {
            write_number(operation(self.inserted.len(), INSERT), self.into);
            self.into.extend_from_slice(self.inserted);
            self.inserted.clear();
        }
    }
}

/// Appends a number as postcard has it (LEB128).
pub(crate) fn write_number(number: u64, into: &mut Vec<u8>) {
    postcard::to_io(&number, into).expect("writing to memory cannot fail");
}

/// The inverse; takes the number off `from`. `None` when it is not whole.
pub(crate) fn read_number(from: &mut &[u8]) -> Option<u64> {
    let (number, rest) = postcard::take_from_bytes(from).ok()?;
    *from = rest;
    Some(number)
}

fn operation(bytes: usize, kind: u64) -> u64 {
    (bytes as u64) << 2 | kind
}

/// Appends what `patch` makes of `old`. `Err` says what does not fit: the patch was made for another value, or is damaged.
pub fn apply<'a>(old: &'a [u8], mut patch: &'a [u8], into: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = old;
    while !patch.is_empty() {
        let number = read_number(&mut patch).ok_or("a patch ends in the middle of a number")?;
        let bytes = usize::try_from(number >> 2).map_err(|_| "a patch is longer than memory")?;
        let source = if number & 3 == INSERT { &mut patch } else { &mut rest };
        let (taken, left) = source.split_at_checked(bytes).ok_or_else(|| format!("a patch for {} bytes does not fit", old.len()))?;
        *source = left;
        match number & 3 {
            COPY | INSERT => into.extend_from_slice(taken),
            SKIP => {}
            other => return Err(format!("a patch holds the unknown operation {other}")),
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(format!("a patch leaves {} of {} bytes open", rest.len(), old.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(write: impl FnOnce(&mut PatchWriter<'_>)) -> Vec<u8> {
        let (mut bytes, mut scratch) = (Vec::new(), Vec::new());
        let mut writer = PatchWriter::new(&mut bytes, &mut scratch);
        write(&mut writer);
        writer.finish();
        bytes
    }

    fn applied(old: &[u8], patch: &[u8]) -> Result<Vec<u8>, String> {
        let mut new = Vec::new();
        apply(old, patch, &mut new).map(|()| new)
    }

    #[test]
    fn a_patch_makes_the_new_value_of_the_old_one_and_joins_neighbours() {
        let bytes = patch(|patch| {
            patch.copy(1);
            patch.copy(1);
            patch.insert(|into| into.extend_from_slice(b"XY"));
            patch.skip(2);
            patch.insert(|into| into.push(b'Z'));
            patch.copy(200);
        });
        assert_eq!(bytes.len(), 1 + 1 + 1 + 3 + 2);
        let old = [b"abcd", &[7; 200][..]].concat();
        assert_eq!(applied(&old, &bytes), Ok([b"abXYZ", &[7; 200][..]].concat()));
    }

    #[test]
    fn a_patch_for_another_value_is_an_error() {
        let bytes = patch(|patch| {
            patch.copy(3);
            patch.skip(1);
        });
        assert_eq!(applied(b"abcd", &bytes), Ok(b"abc".to_vec()));
        for (old, patch) in [(&b"abc"[..], &bytes[..]), (b"abcde", &bytes), (b"abc", &[0x83]), (b"", &[0x0a]), (b"", &[0x03])] {
            assert!(applied(old, patch).is_err(), "{old:?} {patch:?}");
        }
    }
}
