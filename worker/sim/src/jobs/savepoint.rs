//! Savepoints, as whoever has the object store makes them: by copying.

use forebay_engine::manifest::manifest_key;
use forebay_engine::restore::ImportError;

use super::{Job, checked, newest_manifest};
use crate::store::{Content, savepoint_key};
use crate::task::Outcome;

impl Job<'_> {
    /// A savepoint of the shard, outside all that is its own: copies of what its newest checkpoint names, the manifest last. Whatever goes wrong, there is none.
    pub fn savepoint(&self, name: &str) -> Outcome {
        let _ = self.try_savepoint(name);
        Outcome::Nothing
    }

    fn try_savepoint(&self, name: &str) -> Result<(), ImportError> {
        let Some(manifest) = newest_manifest(self)? else { return Ok(()) };
        for (object, parts) in manifest.objects() {
            let there = self.fetch(object)?;
            parts.into_iter().try_for_each(|file| checked(&there, file, object).map(|_| ()))?;
            self.create(savepoint_key(name, object), Content::Files(there))?;
        }
        let key = manifest_key(self.shard, manifest.stamp.epoch, &manifest.taken_by);
        self.create(savepoint_key(name, &key), Content::Bytes(manifest.encode()))?;
        Ok(())
    }
}
