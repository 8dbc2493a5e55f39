//! An object store in memory: create-only puts, a listing, a clock of its own. Faults are the world's to inject; this is what a healthy one does.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_engine::ids::Timestamp;
use forebay_engine::store::{ObjectInfo, Put};

use crate::disk::FileData;

/// What an object holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// A manifest.
    Bytes(Vec<u8>),
    /// Database files, one behind the other.
    Files(Vec<Arc<FileData>>),
}

/// The file that begins at `offset` in an object of several, or the only one.
pub fn part_of(files: &[Arc<FileData>], offset: Option<u64>) -> Option<&Arc<FileData>> {
    let mut at = 0;
    let mut begins = |file: &Arc<FileData>| {
        let here = at;
        at += file.size;
        here
    };
    match offset {
        None => files.first().filter(|_| files.len() == 1),
        Some(offset) => files.iter().find(|file| begins(file) == offset),
    }
}

/// Where the copy of an object lies that belongs to a savepoint.
pub fn savepoint_key(name: &str, object: &str) -> String {
    format!("savepoints/{name}/{object}")
}

/// The savepoint that an object belongs to.
pub fn savepoint_of(key: &str) -> Option<&str> {
    key.strip_prefix("savepoints/")?.split_once('/').map(|(name, _)| name)
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Files(files) => files.iter().map(|file| file.size).sum(),
        }
    }
}

#[derive(Clone, Debug)]
struct Object {
    content: Content,
    modified: Timestamp,
    is_damaged: bool,
}

/// The store.
#[derive(Debug, Default)]
pub struct SimStore {
    objects: BTreeMap<String, Object>,
}

impl SimStore {
    /// Creates an object; one that exists is left alone.
    pub fn put(&mut self, key: &str, content: Content, now: Timestamp) -> Put {
        if self.objects.contains_key(key) {
            return Put::AlreadyThere;
        }
        self.objects.insert(key.to_owned(), Object { content, modified: now, is_damaged: false });
        Put::Created
    }

    /// What an object holds.
    pub fn get(&self, key: &str) -> Option<&Content> {
        self.objects.get(key).map(|object| &object.content)
    }

    /// All objects under a prefix.
    pub fn list(&self, prefix: &str) -> Vec<ObjectInfo> {
        let of = self.objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        of.map(|(key, object)| ObjectInfo { key: key.clone(), size: object.content.size(), modified: object.modified }).collect()
    }

    /// Removes an object.
    pub fn delete(&mut self, key: &str) {
        self.objects.remove(key);
    }

    /// Damages the last file of an object: it lacks the end of what it held, and its checksum is wrong (torn: its size as well).
    pub fn damage(&mut self, key: &str, torn: bool) {
        if let Some(Object { content: Content::Files(files), is_damaged, .. }) = self.objects.get_mut(key)
            && let Some(file) = files.last_mut()
        {
            let mut damaged = FileData::clone(file);
            damaged.crc32 ^= 1;
            damaged.entries.pop();
            damaged.names.pop();
            damaged.size -= u64::from(torn && damaged.size > 0);
            *file = Arc::new(damaged);
            *is_damaged = true;
        }
    }

    /// Whether [`SimStore::damage`] has been at an object.
    pub fn is_damaged(&self, key: &str) -> bool {
        self.objects.get(key).is_some_and(|object| object.is_damaged)
    }

    /// Keys of all objects.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.objects.keys()
    }
}
