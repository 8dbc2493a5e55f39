//! One segment file: made whole, read back frame by frame, and read at a position. It knows frames, not what they mean.
//!
//! A frame is durable before the next one is begun, so only the very last frame of the last segment can be torn. Anything else that is
//! damaged is an error: nothing is ever skipped.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::OpenError;
use super::format::{self, Change, FRAME_HEAD_BYTES, SEGMENT_HEAD, Snapshot};
use crate::durable::sync_folder;

/// Takes the position and bytes of a frame's body; `Err` says what is wrong with them.
pub(crate) type EachFrame<'a> = dyn FnMut(u64, &[u8]) -> Result<(), String> + 'a;

/// A segment file, open. Batches in memory share it, so that it can still be read after it was deleted.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl Segment {
    /// Makes a segment that begins with a snapshot, durably, and returns its length. It gets its name when it is complete, so that a
    /// crash leaves either no segment or a whole one.
    pub(crate) fn create(dir: &Path, number: u64, snapshot: &Snapshot) -> io::Result<(Arc<Self>, u64)> {
        let path = segment_path(dir, number);
        let unfinished = path.with_extension(UNFINISHED);
        let mut frame = vec![0; FRAME_HEAD_BYTES];
        format::put_change(&mut frame, &Change::Snapshot(snapshot.clone()));
        let position = SEGMENT_HEAD.len() as u64;
        format::seal_frame(number, position, &mut frame);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unfinished)?;
        file.write_all_at(&SEGMENT_HEAD, 0)?;
        file.write_all_at(&frame, position)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, &path)?;
        sync_folder(dir)?;
        Ok((Arc::new(Self { number, path, file }), position + frame.len() as u64))
    }

    /// Opens a segment that is there.
    pub(crate) fn open(dir: &Path, number: u64) -> Result<Arc<Self>, OpenError> {
        let path = segment_path(dir, number);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(OpenError::io("open", &path))?;
        Ok(Arc::new(Self { number, path, file }))
    }

    /// Hands the body of each frame and its position in the file to `each`, in order. Returns the length of what is whole: the file's,
    /// unless this is the last segment and its last frame is torn.
    pub(crate) fn scan(&self, last: bool, each: &mut EachFrame<'_>) -> Result<u64, OpenError> {
        let length = self.file.metadata().map_err(OpenError::io("measure", &self.path))?.len();
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        let mut head = [0; SEGMENT_HEAD.len()];
        reader.read_exact(&mut head).map_err(OpenError::io("read the head of", &self.path))?;
        self.check_head(&head)?;
        let first = head.len() as u64;
        let mut position = first;
        let mut body = Vec::new();
        while position < length {
            let whole = read_frame(&mut reader, self.number, position, length, &mut body).map_err(OpenError::io("read", &self.path))?;
            if !whole {
                // A segment gets its name with its first frame, so that one cannot be torn.
                if last && position > first && !self.has_frame_behind(position, length)? {
                    return Ok(position);
                }
                return Err(self.corrupt(position, "this frame is damaged, and it is not the last thing that was written".into()));
            }
            let from = position + FRAME_HEAD_BYTES as u64;
            each(from, &body).map_err(|reason| self.corrupt(position, reason))?;
            position = from + body.len() as u64;
        }
        if position == first {
            return Err(self.corrupt(position, "its first frame is missing".into()));
        }
        Ok(position)
    }

    /// Reads `length` bytes at `position` into `bytes`, which they replace.
    pub(crate) fn read(&self, position: u64, length: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.resize(length, 0);
        self.file.read_exact_at(bytes, position)
    }

    /// `Err` when the file was removed, or another one has its name: what is written to it would be lost, or mixed into another log.
    pub(crate) fn check_in_place(&self) -> io::Result<()> {
        let (named, open) = (std::fs::metadata(&self.path)?, self.file.metadata()?);
        if (named.dev(), named.ino()) != (open.dev(), open.ino()) {
            return Err(io::Error::other("the log's folder was removed or replaced while it was open"));
        }
        Ok(())
    }

    fn check_head(&self, head: &[u8; SEGMENT_HEAD.len()]) -> Result<(), OpenError> {
        let (name, found) = head.split_at(12);
        let (known_name, known) = SEGMENT_HEAD.split_at(12);
        if name != known_name {
            return Err(self.corrupt(0, "this is no segment of a Forebay log".into()));
        }
        if found != known {
            let reason = format!("its format {found:?} is unknown to this version, which reads {known:?}; use the version that wrote it");
            return Err(self.corrupt(12, reason));
        }
        Ok(())
    }

    /// Whether a whole frame lies behind a damaged one: then what is damaged is no torn write.
    fn has_frame_behind(&self, position: u64, length: u64) -> Result<bool, OpenError> {
        let rest = usize::try_from(length - position).expect("a segment that was just read fits into memory");
        let mut bytes = Vec::new();
        self.read(position, rest, &mut bytes).map_err(OpenError::io("read", &self.path))?;
        Ok((1..bytes.len()).any(|at| {
            let Some((head, rest)) = bytes[at..].split_first_chunk() else { return false };
            let Some((length, crc)) = format::frame_head(head) else { return false };
            rest.get(..length as usize).is_some_and(|body| format::frame_crc(self.number, position + at as u64, body) == crc)
        }))
    }

    fn corrupt(&self, position: u64, reason: String) -> OpenError {
        OpenError::Corrupt { path: self.path.clone(), position, reason }
    }
}

/// The numbers of the segments in a folder, sorted. Removes what a crash left unfinished.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>, OpenError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(OpenError::io("list", dir))? {
        let path = entry.map_err(OpenError::io("list", dir))?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        match (path.extension().and_then(|extension| extension.to_str()), number) {
            (Some(FINISHED), Some(number)) => numbers.push(number),
            (Some(UNFINISHED), Some(_)) => std::fs::remove_file(&path).map_err(OpenError::io("remove", &path))?,
            (Some(_) | None, _) => {}
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

const FINISHED: &str = "log";
const UNFINISHED: &str = "unfinished";

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.{FINISHED}"))
}

/// Reads the frame at `position`; false when it is not whole.
fn read_frame(reader: &mut impl Read, segment: u64, position: u64, length: u64, body: &mut Vec<u8>) -> io::Result<bool> {
    let Some(room) = (length - position).checked_sub(FRAME_HEAD_BYTES as u64) else { return Ok(false) };
    let mut head = [0; FRAME_HEAD_BYTES];
    reader.read_exact(&mut head)?;
    let Some((body_length, crc)) = format::frame_head(&head) else { return Ok(false) };
    if u64::from(body_length) > room {
        return Ok(false);
    }
    body.resize(body_length as usize, 0);
    reader.read_exact(body)?;
    Ok(format::frame_crc(segment, position, body) == crc)
}
