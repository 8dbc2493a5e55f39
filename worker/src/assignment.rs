//! Which shards an operator gave to this worker, and under which version: accepted or refused, and kept on the worker's volume, so that a
//! container that starts again goes on without asking anybody.
//!
//! It decides nothing about ownership: claims do. An assignment that is stale, or wrong, costs time and no record.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use forebay_engine::ids::{AssignmentVersion, ShardId};
use serde::{Deserialize, Serialize};

const FORMAT: u32 = 1;

/// These shards, and no others, are the worker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The uid of the job.
    pub job: String,
    /// Higher than that of every assignment before, of any worker.
    pub version: AssignmentVersion,
    /// The shards.
    pub shards: BTreeSet<ShardId>,
}

/// Why an assignment is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is for another job: the address led to a pod that has come after the one that was meant.
    #[error("this worker is of job {mine}, and {theirs} was meant; describe it again")]
    OtherJob {
        /// Whose worker this is.
        mine: String,
        /// Whom it was for.
        theirs: String,
    },
    /// A newer one is here already.
    #[error("version {new} is not above version {current}, which this worker has; assign above it")]
    Stale {
        /// What is here.
        current: AssignmentVersion,
        /// What was refused.
        new: AssignmentVersion,
    },
    /// The job does not have so many shards.
    #[error("there is no shard {shard}: the job has {shards}")]
    NoSuchShard {
        /// The first that does not exist.
        shard: ShardId,
        /// How many there are.
        shards: u32,
    },
}

impl Assignment {
    /// Whether it may follow `current` at a worker of `job` with so many shards. One that came before, word for word, may: its answer was lost.
    pub fn check(&self, job: &str, shards: u32, current: Option<&Self>) -> Result<(), Refusal> {
        check_meant(&self.job, &self.shards, job, shards)?;
        match current {
            Some(current) if self.version <= current.version && self != current => {
                Err(Refusal::Stale { current: current.version, new: self.version })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether these shards of the job `theirs` may be meant for a worker of the job `mine`, which has so many shards.
pub(crate) fn check_meant(theirs: &str, meant: &BTreeSet<ShardId>, mine: &str, shards: u32) -> Result<(), Refusal> {
    if theirs != mine {
        return Err(Refusal::OtherJob { mine: mine.to_owned(), theirs: theirs.to_owned() });
    }
    match meant.iter().find(|shard| shard.get() >= shards) {
        Some(shard) => Err(Refusal::NoSuchShard { shard: *shard, shards }),
        None => Ok(()),
    }
}

/// Where the last assignment lies.
#[derive(Clone, Debug)]
pub struct AssignmentFile {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    job: String,
    version: u64,
    shards: BTreeSet<u32>,
}

impl AssignmentFile {
    /// `assignment.json` in the folder of the databases.
    pub fn in_folder(state_dir: &std::path::Path) -> Self {
        Self { path: state_dir.join("assignment.json") }
    }

    /// The last one that was stored; `None` if there is none. `Err` when it cannot be read, or is not of this version.
    pub fn load(&self) -> io::Result<Option<Assignment>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.context(&error)),
        };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| self.context(&error.into()))?;
        if stored.format != FORMAT {
            let reason = format!("format {} is unknown to this version, which reads format {FORMAT}", stored.format);
            return Err(self.context(&io::Error::other(reason)));
        }
        Ok(Some(Assignment {
            job: stored.job,
            version: AssignmentVersion::new(stored.version),
            shards: stored.shards.into_iter().map(ShardId::new).collect(),
        }))
    }

    /// Stores it: when this returns, it survives whatever happens to the process.
    pub fn store(&self, assignment: &Assignment) -> io::Result<()> {
        let stored = Stored {
            format: FORMAT,
            job: assignment.job.clone(),
            version: assignment.version.get(),
            shards: assignment.shards.iter().map(|shard| shard.get()).collect(),
        };
        self.replace(&serde_json::to_vec(&stored)?).map_err(|error| self.context(&error))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    fn context(&self, error: &io::Error) -> io::Error {
        let path = self.path.display();
        io::Error::new(error.kind(), format!("the last assignment in {path}: {error}; without the file the operator assigns anew"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(version: u64, shards: &[u32]) -> Assignment {
        let shards = shards.iter().copied().map(ShardId::new).collect();
        Assignment { job: "job".into(), version: AssignmentVersion::new(version), shards }
    }

    fn check(new: &Assignment, current: Option<&Assignment>, expected: Result<(), &str>) {
        let said = new.check("job", 4, current).map_err(|refusal| refusal.to_string());
        assert_eq!(said, expected.map_err(str::to_owned));
    }

    #[test]
    fn only_a_higher_version_replaces_an_assignment() {
        check(&assignment(1, &[0]), None, Ok(()));
        check(&assignment(3, &[0, 1]), Some(&assignment(2, &[0])), Ok(()));
        check(&assignment(2, &[0]), Some(&assignment(2, &[0])), Ok(()));
        check(
            &assignment(2, &[1]),
            Some(&assignment(2, &[0])),
            Err("version 2 is not above version 2, which this worker has; assign above it"),
        );
        check(
            &assignment(1, &[0]),
            Some(&assignment(2, &[0])),
            Err("version 1 is not above version 2, which this worker has; assign above it"),
        );
    }

    #[test]
    fn an_assignment_for_another_job_or_of_shards_that_do_not_exist_is_refused() {
        check(&assignment(1, &[3, 4]), None, Err("there is no shard 4: the job has 4"));
        let other = Assignment { job: "other".into(), ..assignment(1, &[0]) };
        check(&other, None, Err("this worker is of job job, and other was meant; describe it again"));
    }

    /// Method: store, load, store another; then bytes of another format, and half a file.
    #[test]
    fn what_was_stored_last_is_loaded_and_what_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = AssignmentFile::in_folder(folder.path());
        assert_eq!(file.load().unwrap(), None);
        for stored in [assignment(7, &[0, 2]), assignment(8, &[])] {
            file.store(&stored).unwrap();
            assert_eq!(file.load().unwrap(), Some(stored));
        }
        let bytes = fs::read_to_string(folder.path().join("assignment.json")).unwrap();
        assert_eq!(
            bytes, r#"{"format":1,"job":"job","version":8,"shards":[]}"#,
            "the bytes outlive the process: a new form is a new format"
        );
        for bad in [r#"{"format":2,"job":"job","version":8,"shards":[]}"#, r#"{"format":1,"#] {
            fs::write(folder.path().join("assignment.json"), bad).unwrap();
            let error = file.load().unwrap_err().to_string();
            assert!(error.contains("without the file the operator assigns anew"), "{error}");
        }
    }
}
