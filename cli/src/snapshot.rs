//! `forebay snapshot`: the checkpoints of a job in its object store, on S3 or in a folder. The job may run meanwhile.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use forebay_engine::ids::{Epoch, Incarnation, JournalOffset, Revision, ShardId};
use forebay_engine::journal::Books;
use forebay_engine::manifest::{Manifest, manifest_prefix, parse_manifest_key};
use forebay_engine::store::{ObjectStore, StoreError};
use forebay_worker::fetch::fetch;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::Unusable;
use crate::job;
use crate::output::{Output, Printer};
use crate::places::Places;
use crate::progress::books_line;

#[derive(Subcommand)]
pub enum SnapshotCommand {
    /// List the checkpoints of all shards
    #[command(after_help = "\
Examples:
  forebay snapshot ls -f job.yaml
  forebay snapshot ls -f job.yaml --store s3://bucket/prefix --shard 3 -o json")]
    Ls(Ls),
    /// Print one checkpoint's manifest: its epoch, input offsets, books and files
    #[command(after_help = "\
Examples:
  forebay snapshot inspect -f job.yaml --shard 3
  forebay snapshot inspect -f job.yaml --shard 3 --epoch 812 -o json | jq .files")]
    Inspect(Inspect),
    /// Download all files of all checkpoints and check sizes and checksums; exit code 1 when one is damaged
    #[command(after_help = "\
Examples:
  forebay snapshot verify -f job.yaml
  forebay snapshot verify -f job.yaml --store s3://bucket/prefix -o json")]
    Verify(Verify),
}

#[derive(Args)]
pub struct Common {
    #[command(flatten)]
    places: Places,
    /// Only this shard
    #[arg(long)]
    shard: Option<u32>,
}

#[derive(Args)]
pub struct Ls {
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    common: Common,
    /// The epoch [default: the shard's newest]
    #[arg(long)]
    epoch: Option<u64>,
}

#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    common: Common,
}

impl SnapshotCommand {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Ls(command) => command.execute(output),
            Self::Inspect(command) => command.execute(output),
            Self::Verify(command) => command.execute(output),
        }
    }
}

/// A line of `snapshot ls`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckpointRow<'a> {
    shard: ShardId,
    epoch: Epoch,
    taken_by: &'a Incarnation,
    files: usize,
    bytes: u64,
    journal: JournalOffset,
    revision: &'a Revision,
    books: &'a Books,
}

impl<'a> CheckpointRow<'a> {
    fn of(manifest: &'a Manifest) -> Self {
        let (stamp, bytes) = (&manifest.stamp, manifest.files.iter().map(|file| file.size).sum());
        Self {
            shard: stamp.owner.shard,
            epoch: stamp.epoch,
            taken_by: &manifest.taken_by,
            files: manifest.files.len(),
            bytes,
            journal: stamp.journal,
            revision: &stamp.revision,
            books: &stamp.books,
        }
    }
}

impl fmt::Display for CheckpointRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "shard {}  epoch {}  {} files  {} bytes  journal from {}  revision {}  {}",
            self.shard,
            self.epoch,
            self.files,
            self.bytes,
            self.journal,
            self.revision,
            books_line(self.books)
        )
    }
}

/// What `snapshot inspect` prints.
#[derive(Serialize)]
#[serde(transparent)]
struct Inspected<'a>(&'a Manifest);

impl fmt::Display for Inspected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0.encode()))
    }
}

/// A line of `snapshot verify`: an object that does not hold what its manifest says, or a manifest that cannot be read.
#[derive(Serialize)]
struct Damage {
    shard: ShardId,
    /// `None` for an object among the manifests that has no manifest's name.
    epoch: Option<Epoch>,
    object: String,
    problem: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch = self.epoch.map(|epoch| format!(" epoch {epoch}")).unwrap_or_default();
        write!(f, "shard {}{epoch}: {}: {}", self.shard, self.object, self.problem)
    }
}

/// The last line of `snapshot verify`.
#[derive(Default, Serialize)]
struct Verified {
    checkpoints: usize,
    objects: usize,
    damaged: usize,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} checkpoints, {} objects, {} damaged", self.checkpoints, self.objects, self.damaged)
    }
}

/// What there is of manifests, by shard and epoch.
struct Found {
    store: Arc<dyn ObjectStore>,
    manifests: Vec<Manifest>,
    /// Those that cannot be read.
    unreadable: Vec<Damage>,
}

impl Common {
    fn manifests(&self) -> anyhow::Result<Found> {
        let loaded = job::open(&self.places)?;
        let identity = loaded.identity_or_say(&*loaded.root(&self.places)?)?;
        if let Some(shard) = self.shard.filter(|shard| *shard >= identity.shards) {
            return Err(
                Unusable(format!("--shard {shard}: the job has {} shards; write 0 to {}", identity.shards, identity.shards - 1)).into()
            );
        }
        let store = loaded.store(&self.places)?;
        let (mut manifests, mut unreadable) = (Vec::new(), Vec::new());
        for shard in (0..identity.shards).filter(|shard| self.shard.is_none_or(|only| only == *shard)).map(ShardId::new) {
            for object in store.list(&manifest_prefix(shard))? {
                let read = match store.get(&object.key) {
                    // A running job has dropped it since it was listed.
                    Err(StoreError::NotFound { .. }) => continue,
                    got => got.map_err(|error| error.to_string()).and_then(|bytes| Manifest::decode(&bytes)),
                };
                match read {
                    Ok(manifest) => manifests.push(manifest),
                    Err(problem) => {
                        let epoch = parse_manifest_key(&object.key).map(|(epoch, _)| epoch);
                        unreadable.push(Damage { shard, epoch, object: object.key, problem });
                    }
                }
            }
        }
        Ok(Found { store, manifests, unreadable })
    }
}

impl Found {
    /// Tells what cannot be read, for whoever wants to see the rest.
    fn warn(&self) {
        self.unreadable.iter().for_each(|damage| eprintln!("a manifest that cannot be read is passed over: {damage}"));
    }
}

impl Ls {
    fn execute(&self, output: Output) -> anyhow::Result<()> {
        let found = self.common.manifests()?;
        found.warn();
        let mut printer = output.printer();
        for manifest in &found.manifests {
            printer.print(&CheckpointRow::of(manifest))?;
        }
        if found.manifests.is_empty() && found.unreadable.is_empty() {
            eprintln!("no checkpoints yet: the first comes within the checkpoint interval after the first epoch");
        }
        printer.finish()?;
        let unreadable = found.unreadable.len();
        anyhow::ensure!(unreadable == 0, "{unreadable} manifests cannot be read; `forebay snapshot verify` lists all that is damaged");
        Ok(())
    }
}

impl Inspect {
    fn execute(&self, output: Output) -> anyhow::Result<()> {
        let found = self.common.manifests()?;
        found.warn();
        let is_meant = |manifest: &&Manifest| self.epoch.is_none_or(|epoch| manifest.stamp.epoch.get() == epoch);
        let meant: Vec<&Manifest> = found.manifests.iter().filter(is_meant).collect();
        // Each shard counts its own epochs: none of one is newer than one of another.
        let shards: BTreeSet<ShardId> = meant.iter().map(|manifest| manifest.stamp.owner.shard).collect();
        if shards.len() > 1 {
            let shards = shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Unusable(format!("there are such checkpoints of several shards, {shards}; name one of them by --shard")).into());
        }
        let wanted = meant.into_iter().max_by_key(|manifest| manifest.stamp.epoch);
        let wanted = wanted.ok_or_else(|| Unusable("there is no such checkpoint; list them by `forebay snapshot ls`".into()))?;
        output.print(&Inspected(wanted))
    }
}

impl Verify {
    fn execute(&self, output: Output) -> anyhow::Result<()> {
        let Found { store, manifests, unreadable } = self.common.manifests()?;
        let scratch = tempfile::tempdir().context("make a temporary folder; name another by TMPDIR")?;
        let bar = ProgressBar::new(manifests.iter().map(|manifest| manifest.files.len() as u64).sum());
        let mut printer = output.printer();
        let (checkpoints, objects, damaged) = (manifests.len() + unreadable.len(), unreadable.len(), unreadable.len());
        let mut verified = Verified { checkpoints, objects, damaged };
        for damage in &unreadable {
            bar.suspend(|| say(&mut printer, damage))?;
        }
        for manifest in &manifests {
            for (object, files) in manifest.objects() {
                verified.objects += 1;
                if let Err(error) = fetch(&*store, object, &files, scratch.path()) {
                    verified.damaged += 1;
                    let (shard, epoch) = (manifest.stamp.owner.shard, Some(manifest.stamp.epoch));
                    let damage = Damage { shard, epoch, object: object.to_owned(), problem: error.to_string() };
                    bar.suspend(|| say(&mut printer, &damage))?;
                }
                for file in &files {
                    let _ = std::fs::remove_file(scratch.path().join(&file.name));
                }
                bar.inc(files.len() as u64);
            }
        }
        bar.finish_and_clear();
        printer.print(&verified)?;
        printer.finish()?;
        anyhow::ensure!(
            verified.damaged == 0,
            "{} objects are damaged or missing; a restore falls back to the checkpoint before; take a new one by letting the job run",
            verified.damaged
        );
        Ok(())
    }
}

fn say(printer: &mut Printer, damage: &Damage) -> anyhow::Result<()> {
    printer.print(damage)?;
    printer.flush()
}
