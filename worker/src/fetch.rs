//! Bringing a checkpoint's files onto the disk: several objects at once, each checked while it is written. Never trusts what arrives: a file
//! that is not what the manifest says is [`ImportError::Damaged`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use forebay_engine::manifest::{Manifest, ManifestFile};
use forebay_engine::restore::ImportError;
use forebay_engine::state::StateError;
use forebay_engine::store::{ObjectStore, StoreError};
use forebay_state::RocksState;

use crate::restorer::checksum;

/// Objects of one restore on their way at a time: about what fills a 1 Gbit/s link. Four shards are restored at once at most.
const DOWNLOADS_MAX: usize = 4;

/// Makes what lies in `folder`, an older database or what was downloaded of one, into a checkpoint's files. Those that are the same already stay, so an
/// attempt that came to nothing is no loss to the next one, and neither is a checkpoint from before to a newer one. Else like [`fetch_all`].
pub(crate) fn replace(
    store: &dyn ObjectStore,
    manifest: &Manifest,
    folder: &Path,
    is_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<(), ImportError> {
    let tables: BTreeMap<&str, u64> =
        manifest.files.iter().filter(|file| file.immutable).map(|file| (file.name.as_str(), file.size)).collect();
    RocksState::wipe_but(folder, |name, bytes| tables.get(name) == Some(&bytes))?;
    fetch_all(store, manifest, folder, is_wanted)
}

/// Downloads the files of a checkpoint into `folder`, which is made, but for those that are there already, as their checksums tell. The first error ends it,
/// and so does the end of being wanted, which is looked at before each object. What makes the folder a database comes last, when all else is there and has
/// its checksum: whatever ends this, nobody takes the rest for one.
pub fn fetch_all(
    store: &dyn ObjectStore,
    manifest: &Manifest,
    folder: &Path,
    is_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<(), ImportError> {
    std::fs::create_dir_all(folder).map_err(|error| local("create folder", folder, &error))?;
    let mut objects: Vec<(&str, Vec<&ManifestFile>)> = manifest.objects().into_iter().collect();
    // The largest first, so that none is left to run alone at the end.
    objects.sort_by_key(|(_, files)| std::cmp::Reverse(files.iter().map(|file| file.size).sum::<u64>()));
    let (last, first): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|(_, files)| files.iter().any(|file| file.name == RocksState::CURRENT));
    let get = |(object, files): &(&str, Vec<&ManifestFile>)| match is_wanted() {
        false => Err(unwanted(object)),
        true if files.iter().all(|file| is_there(folder, file)) => Ok(()),
        true => fetch(store, object, files, folder),
    };
    at_once(&first, get)?;
    last.iter().try_for_each(get)
}

/// Does something with each of them, several at once. The first error ends it.
fn at_once<T: Sync>(all: &[T], act: impl Fn(&T) -> Result<(), ImportError> + Sync) -> Result<(), ImportError> {
    let (next, failed, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let work = || {
        while !failed.load(Ordering::Relaxed)
            && let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if let Err(error) = act(one) {
                failed.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..DOWNLOADS_MAX.min(all.len()) {
            scope.spawn(work);
        }
        work();
    });
    failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

fn unwanted(object: &str) -> ImportError {
    let reason = "nobody waits for this restore any more".to_owned();
    ImportError::Store(StoreError::Unavailable { action: "download", key: object.to_owned(), reason })
}

/// Downloads one object and writes the files that it holds into `folder`.
pub fn fetch(store: &dyn ObjectStore, object: &str, files: &[&ManifestFile], folder: &Path) -> Result<(), ImportError> {
    if let Some(file) = files.iter().find(|file| !is_name(&file.name)) {
        return Err(ImportError::Damaged(format!("{:?} is no name of a file in a folder", file.name)));
    }
    for file in files {
        // Not written over: it may be a hard link.
        match std::fs::remove_file(folder.join(&file.name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(local("remove a file that is another one in", folder, &error).into());
            }
            _ => {}
        }
    }
    let to = match files {
        [file] if file.offset.is_none() => folder.join(&file.name),
        _ => folder.join(format!("{}.pack", object.rsplit('/').next().unwrap_or(object))),
    };
    let Some(bytes) = fetch_object(store, object, files, &to)? else { return Ok(()) };
    std::fs::remove_file(&to).map_err(|error| local("remove a downloaded file in", folder, &error))?;
    for file in files {
        let part = part_of(&bytes, file, object)?;
        write(&folder.join(&file.name), part).map_err(|error| local("write a downloaded file in", folder, &error))?;
    }
    Ok(())
}

/// Downloads one object as it is to `to`, and checks the files that it holds. Returns its bytes if these are packed into it.
pub(crate) fn fetch_object(
    store: &dyn ObjectStore,
    object: &str,
    files: &[&ManifestFile],
    to: &Path,
) -> Result<Option<Vec<u8>>, ImportError> {
    let downloaded = store.download(object, to)?;
    if let [file] = files
        && file.offset.is_none()
    {
        return check(file, downloaded.size, downloaded.crc32).map(|()| None);
    }
    let bytes = std::fs::read(to).map_err(|error| local("read the downloaded file", to, &error))?;
    for file in files {
        let part = part_of(&bytes, file, object)?;
        check(file, part.len() as u64, crc32fast::hash(part))?;
    }
    Ok(Some(bytes))
}

fn is_name(text: &str) -> bool {
    Path::new(text).file_name() == Some(text.as_ref())
}

fn is_there(folder: &Path, file: &ManifestFile) -> bool {
    let path = folder.join(&file.name);
    is_name(&file.name)
        && std::fs::metadata(&path).is_ok_and(|found| found.len() == file.size)
        && checksum(&path).is_ok_and(|found| found == file.crc32)
}

fn part_of<'a>(bytes: &'a [u8], file: &ManifestFile, object: &str) -> Result<&'a [u8], ImportError> {
    let range = || {
        let from = usize::try_from(file.offset.unwrap_or(0)).ok()?;
        Some(from..from.checked_add(usize::try_from(file.size).ok()?)?)
    };
    range()
        .and_then(|range| bytes.get(range))
        .ok_or_else(|| ImportError::Damaged(format!("file {} in {object} is not there: the object has {} bytes", file.name, bytes.len())))
}

fn check(file: &ManifestFile, size: u64, crc32: u32) -> Result<(), ImportError> {
    if (size, crc32) == (file.size, file.crc32) {
        return Ok(());
    }
    Err(ImportError::Damaged(format!(
        "file {} in {} failed its checksum: {size} bytes with CRC-32 {crc32:08x} instead of {} bytes with {:08x}",
        file.name, file.object, file.size, file.crc32
    )))
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

fn local(action: &str, place: &Path, error: &std::io::Error) -> StateError {
    StateError::Io {
        action: format!("{action} {}", place.display()),
        reason: format!("{error}; free some space, or name another state folder"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
