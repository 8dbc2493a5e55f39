//! The object store port on a folder. An object is a file; it gets its name when it is whole and durable, by a hard link, which unlike a
//! rename never replaces what has that name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use forebay_engine::ids::Timestamp;
use forebay_engine::store::{Body, Downloaded, ObjectInfo, ObjectStore, Put, StoreError};
use uuid::Uuid;

use crate::durable::{create_durably, sync_folder};

/// Where uploads grow; no key begins with it.
const UNFINISHED: &str = ".unfinished";

/// An upload that was not touched for this long belongs to nobody any more: far longer than any upload to a disk takes.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Read and written at a time.
const COPY_BYTES: usize = 256 << 10;

/// An object store in a folder, which must lie on a file system with hard links. Several processes may use one folder.
#[derive(Clone, Debug)]
pub struct FolderStore {
    root: PathBuf,
}

impl FolderStore {
    /// Uses a folder, which is made if it is not there, and removes uploads that were abandoned a day ago.
    pub fn open(root: &Path) -> io::Result<Self> {
        let unfinished = root.join(UNFINISHED);
        create_durably(&unfinished)?;
        for entry in fs::read_dir(&unfinished)? {
            let path = entry?.path();
            // An upload that its owner finishes just now is gone, and that is fine.
            let age = path.metadata().and_then(|metadata| metadata.modified()).map(|modified| SystemTime::now().duration_since(modified));
            if let Ok(Ok(age)) = age
                && age > ABANDONED_AFTER
            {
                remove_if_there(&path)?;
            }
        }
        Ok(Self { root: root.to_owned() })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, action: &'static str, key: &str) -> Result<PathBuf, StoreError> {
        check_key(key).map_err(|reason| StoreError::Denied { action, key: key.to_owned(), reason: reason.to_owned() })?;
        Ok(self.root.join(key))
    }

    fn try_put(&self, path: &Path, body: &Body) -> io::Result<Put> {
        if path.is_file() {
            // Its maker may have crashed before its name was durable.
            self.sync_parents(path)?;
            return Ok(Put::AlreadyThere);
        }
        let unfinished = self.root.join(UNFINISHED).join(Uuid::new_v4().to_string());
        let put = write_whole(&unfinished, body).and_then(|()| self.publish(&unfinished, path));
        // It has another name by now, or it is waste.
        let removed = remove_if_there(&unfinished);
        let put = put?;
        removed?;
        Ok(put)
    }

    /// Gives a whole file its name, durably, unless there is one of that name.
    fn publish(&self, unfinished: &Path, path: &Path) -> io::Result<Put> {
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        let put = match fs::hard_link(unfinished, path) {
            Ok(()) => Put::Created,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_file() => Put::AlreadyThere,
            Err(error) => return Err(error),
        };
        self.sync_parents(path)?;
        Ok(put)
    }

    /// Makes a name durable, and those of the folders that it lies in.
    fn sync_parents(&self, path: &Path) -> io::Result<()> {
        for folder in path.ancestors().skip(1) {
            sync_folder(folder)?;
            if folder == self.root {
                break;
            }
        }
        Ok(())
    }

    fn walk(&self, folder: &Path, prefix: &str, objects: &mut Vec<ObjectInfo>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let Some(key) = self.key(&path) else { continue };
            let metadata = match path.symlink_metadata() {
                Ok(metadata) => metadata,
                // Deleted while this list was made.
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(error),
            };
            let below = format!("{key}/");
            if metadata.is_dir() && (below.starts_with(prefix) || prefix.starts_with(&below)) {
                self.walk(&path, prefix, objects)?;
            } else if metadata.is_file() && key.starts_with(prefix) {
                objects.push(ObjectInfo { key, size: metadata.len(), modified: timestamp(metadata.modified()?) });
            }
        }
        Ok(())
    }

    /// The key of a file; `None` for uploads, and for names that no key has.
    fn key(&self, path: &Path) -> Option<String> {
        let key = path.strip_prefix(&self.root).ok()?.to_str()?;
        check_key(key).is_ok().then(|| key.to_owned())
    }
}

impl ObjectStore for FolderStore {
    fn put(&self, key: &str, body: &Body) -> Result<Put, StoreError> {
        let path = self.path("put", key)?;
        self.try_put(&path, body).map_err(|error| failed("put", key, &error))
    }

    fn get(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        fs::read(self.path("get", key)?).map_err(|error| failed("get", key, &error))
    }

    fn download(&self, key: &str, to: &Path) -> Result<Downloaded, StoreError> {
        let path = self.path("download", key)?;
        // Opened first, so that nothing is made at `to` for an object that is not there.
        let mut object = File::open(path).map_err(|error| failed("download", key, &error))?;
        if object.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(StoreError::NotFound { action: "download", key: key.to_owned() });
        }
        copy_whole(&mut object, to).map_err(|error| StoreError::Unavailable {
            action: "download",
            key: key.to_owned(),
            reason: format!("into {}: {error}; free some space there, or name another state folder", to.display()),
        })
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let mut objects = Vec::new();
        self.walk(&self.root, prefix, &mut objects).map_err(|error| failed("list", prefix, &error))?;
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }

    fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        for key in keys {
            remove_if_there(&self.path("delete", key)?).map_err(|error| failed("delete", key, &error))?;
        }
        Ok(())
    }
}

/// A key names a file below the root, whatever is in it. `Err` says what is wrong.
fn check_key(key: &str) -> Result<(), &'static str> {
    let mut names = 0;
    for component in Path::new(key).components() {
        match component {
            Component::Normal(_) => names += 1,
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
                return Err("a key is a relative path without `.` and `..`");
            }
        }
    }
    // `components` passes over empty names and `.` in the middle; keys that differ must be different files.
    if names == 0 || key.split('/').count() != names {
        return Err("a key is a row of names with one `/` between them");
    }
    if key.starts_with(UNFINISHED) || key.contains('\0') {
        return Err("this name is not for keys");
    }
    Ok(())
}

fn write_whole(path: &Path, body: &Body) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    match body {
        Body::Bytes(bytes) => file.write_all(bytes)?,
        Body::File(from) => append(from, &mut file)?,
        Body::Pack(from) => from.iter().try_for_each(|from| append(from, &mut file))?,
    }
    file.sync_all()
}

fn append(from: &Path, to: &mut File) -> io::Result<()> {
    let mut from = File::open(from).map_err(|error| io::Error::other(format!("open {}: {error}", from.display())))?;
    io::copy(&mut from, to).map(|_| ())
}

/// Copies into a new file, durably, and takes the checksum on the way.
fn copy_whole(from: &mut File, to: &Path) -> io::Result<Downloaded> {
    let mut file = File::create(to)?;
    let (mut hasher, mut size) = (crc32fast::Hasher::new(), 0);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            file.sync_all()?;
            return Ok(Downloaded { size, crc32: hasher.finalize() });
        }
        file.write_all(&buffer[..read])?;
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Not there; or a part of its path is an object and no folder; or it is a folder and no object.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory)
}

fn failed(action: &'static str, key: &str, error: &io::Error) -> StoreError {
    let key = key.to_owned();
    match error.kind() {
        // What a put misses is the file to upload or the store itself.
        _ if is_absent(error) && action != "put" => StoreError::NotFound { action, key },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Denied { action, key, reason: format!("{error}; check who owns the folder") }
        }
        _ => StoreError::Unavailable { action, key, reason: error.to_string() },
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let millis = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
    };
    Timestamp::from_millis(millis)
}

#[cfg(test)]
mod tests;
