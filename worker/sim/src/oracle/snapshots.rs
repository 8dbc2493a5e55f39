//! Checkpoints and savepoints as objects: a checkpoint holds what was committed, and is there while it is on the list; a savepoint likewise, and for good,
//! whatever becomes of the checkpoint that it was made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_engine::ids::ShardId;
use forebay_engine::journal::Stamp;
use forebay_engine::manifest::{Manifest, manifest_key};

use super::{Invariant, Oracle, Truth};
use crate::disk::{FileData, digest_of_files};
use crate::store::{Content, SimStore, part_of, savepoint_key, savepoint_of};

impl Oracle {
    /// A manifest was created.
    pub fn manifest(&mut self, key: &str, bytes: &[u8], store: &SimStore) {
        let manifest = match Manifest::decode(bytes) {
            Ok(manifest) => manifest,
            Err(reason) => return self.report(Invariant::I5Snapshots, format!("{key}: {reason}")),
        };
        let mut files: BTreeMap<String, Arc<FileData>> = BTreeMap::new();
        for file in &manifest.files {
            if let Some(Content::Files(parts)) = store.get(&file.object) {
                files.extend(part_of(parts, file.offset).map(|data| (file.name.clone(), data.clone())));
            // A zombie's late manifest may name what was collected meanwhile: it is on no list.
            } else if !self.lost.contains(&file.object) && !self.garbage.contains(&file.object) {
                self.report(Invariant::I5Snapshots, format!("{key} names {}, which is not there", file.object));
            }
        }
        if files.len() == manifest.files.len() {
            self.holds_what_was_committed(key, &manifest.stamp, &files);
        }
        self.manifests.insert(key.to_owned(), manifest);
    }

    fn holds_what_was_committed(&mut self, what: &str, stamp: &Stamp, files: &BTreeMap<String, Arc<FileData>>) {
        let truth = &self.shards[stamp.owner.shard.get() as usize];
        let known = stamp.epoch.get().checked_sub(1).and_then(|at| truth.epochs.get(at as usize));
        let held = digest_of_files(files);
        let holds = known.is_some_and(|(known, digest)| known == stamp && held == Some((known.clone(), *digest)));
        let known = known.map(|(stamp, _)| format!("{stamp:?}"));
        self.demand(holds, Invariant::I5Snapshots, || {
            format!("{what}: {stamp:?} with files of {held:?} is not what was committed: {known:?}")
        });
    }

    /// An object is deleted by a worker.
    pub fn deleted(&mut self, key: &str) {
        let named = |truth: &Truth, shard: u32| {
            truth.retained().iter().any(|checkpoint| {
                let manifest = manifest_key(ShardId::new(shard), checkpoint.epoch, &checkpoint.incarnation);
                manifest == key
                    || self.manifests.get(&manifest).is_some_and(|manifest| manifest.files.iter().any(|file| file.object == key))
            })
        };
        let named = self.shards.iter().zip(0..).any(|(truth, shard)| named(truth, shard));
        self.demand(!named, Invariant::I6Garbage, || format!("{key} is deleted while a retained checkpoint names it"));
        self.demand(savepoint_of(key).is_none(), Invariant::I6Garbage, || format!("{key} is deleted, and belongs to a savepoint"));
        let dropped = self.garbage.contains(key);
        self.demand(dropped, Invariant::I6Garbage, || format!("{key} is deleted although no committed epoch dropped it"));
    }

    /// The manifest of a savepoint was created.
    pub fn savepoint(&mut self, name: &str, bytes: &[u8], store: &SimStore) {
        match Manifest::decode(bytes) {
            Ok(manifest) => {
                self.check_savepoint(name, &manifest, store);
                self.savepoints.insert(name.to_owned(), manifest);
            }
            Err(reason) => self.report(Invariant::I5Snapshots, format!("savepoint {name}: {reason}")),
        }
    }

    /// All savepoints, once more.
    pub(super) fn savepoints_at_the_end(&mut self, store: &SimStore) {
        for (name, manifest) in self.savepoints.clone() {
            self.check_savepoint(&name, &manifest, store);
        }
    }

    fn check_savepoint(&mut self, name: &str, manifest: &Manifest, store: &SimStore) {
        let mut files = BTreeMap::new();
        for file in &manifest.files {
            let key = savepoint_key(name, &file.object);
            let data = match store.get(&key) {
                Some(Content::Files(parts)) => part_of(parts, file.offset),
                Some(Content::Bytes(_)) | None => None,
            };
            match data {
                Some(data) => files.insert(file.name.clone(), data.clone()),
                None => return self.report(Invariant::I6Garbage, format!("savepoint {name}: {} of {key} is not there", file.name)),
            };
        }
        self.holds_what_was_committed(&format!("savepoint {name}"), &manifest.stamp, &files);
    }
}
