//! What is put: bytes in memory, small files, or a file that is read part by part, and its fingerprint. Never holds more than a part of a file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use forebay_engine::store::Body;

use crate::PART_BYTES;

/// Name of the metadata (`x-amz-meta-crc32`) that every object carries: the CRC-32 (IEEE) of the whole, in hexadecimal.
pub(crate) const CRC32_METADATA: &str = "crc32";

/// By which content is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) size: u64,
    pub(crate) crc32: u32,
}

impl Fingerprint {
    pub(crate) fn crc32_text(self) -> String {
        format!("{:08x}", self.crc32)
    }
}

/// The checksum that an object's metadata claims; `None` when somebody else put it.
pub(crate) fn claimed_crc32(metadata: Option<&HashMap<String, String>>) -> Option<u32> {
    u32::from_str_radix(metadata?.get(CRC32_METADATA)?, 16).ok()
}

/// Bytes to put, and what they were when the put began.
pub(crate) struct Content<'a> {
    source: Source<'a>,
    pub(crate) fingerprint: Fingerprint,
}

enum Source<'a> {
    Memory(Cow<'a, [u8]>),
    File(File),
}

impl<'a> Content<'a> {
    /// Reads the whole once for its checksum, which S3 wants to know before the first byte.
    pub(crate) fn open(body: &'a Body) -> io::Result<Self> {
        let (source, size) = match body {
            Body::Bytes(bytes) => (Source::Memory(bytes.into()), bytes.len() as u64),
            Body::Pack(paths) => {
                let mut bytes = Vec::new();
                for path in paths {
                    let open = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
                    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(open)?;
                }
                let size = bytes.len() as u64;
                (Source::Memory(bytes.into()), size)
            }
            Body::File(path) => {
                let file = File::open(path)?;
                let size = file.metadata()?.len();
                (Source::File(file), size)
            }
        };
        let mut content = Self { source, fingerprint: Fingerprint { size, crc32: 0 } };
        let mut hasher = crc32fast::Hasher::new();
        for offset in content.part_offsets() {
            hasher.update(&content.read_part(offset)?);
        }
        content.fingerprint.crc32 = hasher.finalize();
        Ok(content)
    }

    /// Where the parts begin; at least one, which may be empty.
    pub(crate) fn part_offsets(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.fingerprint.size.max(1)).step_by(PART_BYTES)
    }

    /// The part at `offset`. A file that was cut short meanwhile is an error.
    pub(crate) fn read_part(&self, offset: u64) -> io::Result<Bytes> {
        let length = (self.fingerprint.size - offset).min(PART_BYTES as u64) as usize;
        match &self.source {
            Source::Memory(bytes) => Ok(Bytes::copy_from_slice(&bytes[offset as usize..][..length])),
            Source::File(file) => {
                let mut part = vec![0; length];
                file.read_exact_at(&mut part, offset)?;
                Ok(part.into())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]
mod tests {
    use super::*;

    fn check(size: usize, expected_offsets: &[u64]) {
        let bytes: Vec<u8> = (0..size).map(|i| (i * 7 % 251) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let halves = [tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap()];
        halves.iter().zip([&bytes[..size / 2], &bytes[size / 2..]]).for_each(|(half, bytes)| std::fs::write(half.path(), bytes).unwrap());
        let pack = halves.iter().map(|half| half.path().into()).collect();
        for body in [Body::Bytes(bytes.clone()), Body::File(file.path().into()), Body::Pack(pack)] {
            let content = Content::open(&body).unwrap();
            assert_eq!(content.fingerprint, Fingerprint { size: size as u64, crc32: crc32fast::hash(&bytes) });
            assert_eq!(content.part_offsets().collect::<Vec<_>>(), expected_offsets);
            let parts: Vec<u8> = content.part_offsets().flat_map(|offset| content.read_part(offset).unwrap()).collect();
            assert!(parts == bytes, "the parts of {size} bytes do not add up");
        }
    }

    #[test]
    fn the_parts_of_bytes_and_of_a_file_add_up_to_the_whole() {
        let part = PART_BYTES as u64;
        check(0, &[0]);
        check(1, &[0]);
        check(PART_BYTES, &[0]);
        check(PART_BYTES + 1, &[0, part]);
        check(2 * PART_BYTES, &[0, part]);
    }

    #[test]
    fn a_checksum_in_metadata_is_read_back_and_nonsense_is_not_one() {
        let metadata = |text: &str| HashMap::from([(CRC32_METADATA.to_owned(), text.to_owned())]);
        let fingerprint = Fingerprint { size: 0, crc32: 0xbeef };
        assert_eq!(claimed_crc32(Some(&metadata(&fingerprint.crc32_text()))), Some(0xbeef));
        assert_eq!(claimed_crc32(Some(&metadata("many"))), None);
        assert_eq!(claimed_crc32(None), None);
    }
}
