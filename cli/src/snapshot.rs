//! `forebay snapshot`: the checkpoints of a job in its object store, on S3 or in a folder. The job need not run.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use forebay_engine::ids::ShardId;
use forebay_engine::manifest::{Manifest, manifest_prefix};
use forebay_engine::store::ObjectStore;
use forebay_worker::fetch::fetch;
use indicatif::ProgressBar;

use crate::Unusable;
use crate::job;
use crate::places::Places;
use crate::progress::books_line;
use crate::state::Output;

#[derive(Subcommand)]
pub enum SnapshotCommand {
    /// List the checkpoints of all shards
    Ls(Ls),
    /// Print one checkpoint's manifest
    Inspect(Inspect),
    /// Download all files of all checkpoints and check sizes and checksums
    Verify(Verify),
}

#[derive(Args)]
pub struct Common {
    /// The manifest
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
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
    /// How to print
    #[arg(short = 'o', long, default_value = "text")]
    output: Output,
}

#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    common: Common,
    /// The epoch [default: the newest]
    #[arg(long)]
    epoch: Option<u64>,
}

#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    common: Common,
}

impl SnapshotCommand {
    pub fn execute(&self) -> anyhow::Result<()> {
        match self {
            Self::Ls(command) => command.execute(),
            Self::Inspect(command) => command.execute(),
            Self::Verify(command) => command.execute(),
        }
    }
}

impl Common {
    /// The manifests, by shard and epoch.
    fn manifests(&self) -> anyhow::Result<(Arc<dyn ObjectStore>, Vec<Manifest>)> {
        let loaded = job::load(&self.file)?;
        let root = loaded.root(&self.places)?;
        let identity = loaded.identity(&*root)?.ok_or_else(|| {
            Unusable(format!(
                "job {}/{} has no state here; name its object store by --store or --dir",
                loaded.job.namespace, loaded.job.name
            ))
        })?;
        let store = loaded.store(&self.places)?;
        let mut manifests = Vec::new();
        for shard in (0..identity.shards).filter(|shard| self.shard.is_none_or(|only| only == *shard)) {
            for object in store.list(&manifest_prefix(ShardId::new(shard)))? {
                let manifest =
                    Manifest::decode(&store.get(&object.key)?).map_err(|reason| anyhow::anyhow!("object {}: {reason}", object.key))?;
                manifests.push(manifest);
            }
        }
        Ok((store, manifests))
    }
}

impl Ls {
    fn execute(&self) -> anyhow::Result<()> {
        let (_, manifests) = self.common.manifests()?;
        for manifest in &manifests {
            let (stamp, bytes) = (&manifest.stamp, manifest.files.iter().map(|file| file.size).sum::<u64>());
            match self.output {
                Output::Text => println!(
                    "shard {}  epoch {}  {} files  {bytes} bytes  journal from {}  revision {}  {}",
                    stamp.owner.shard,
                    stamp.epoch,
                    manifest.files.len(),
                    stamp.journal,
                    stamp.revision,
                    books_line(&stamp.books)
                ),
                Output::Json => println!(
                    "{}",
                    serde_json::json!({"shard": stamp.owner.shard, "epoch": stamp.epoch, "takenBy": manifest.taken_by, "files": manifest.files.len(),
                        "bytes": bytes, "journal": stamp.journal, "revision": stamp.revision, "books": stamp.books})
                ),
            }
        }
        if manifests.is_empty() && self.output == Output::Text {
            eprintln!("no checkpoints yet: the first comes within the checkpoint interval after the first epoch");
        }
        Ok(())
    }
}

impl Inspect {
    fn execute(&self) -> anyhow::Result<()> {
        let (_, manifests) = self.common.manifests()?;
        let found = manifests.iter().rev().find(|manifest| self.epoch.is_none_or(|epoch| manifest.stamp.epoch.get() == epoch));
        let found = found.ok_or_else(|| Unusable("there is no such checkpoint; list them by `forebay snapshot ls`".into()))?;
        println!("{}", String::from_utf8_lossy(&found.encode()));
        Ok(())
    }
}

impl Verify {
    fn execute(&self) -> anyhow::Result<()> {
        let (store, manifests) = self.common.manifests()?;
        let scratch = std::env::temp_dir().join(format!("forebay-verify-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&scratch).with_context(|| format!("make the folder {}", scratch.display()))?;
        let bar = ProgressBar::new(manifests.iter().map(|manifest| manifest.files.len() as u64).sum());
        let mut damaged = 0;
        for manifest in &manifests {
            for (object, files) in manifest.objects() {
                if let Err(error) = fetch(&*store, object, &files, &scratch) {
                    damaged += 1;
                    bar.suspend(|| println!("shard {} epoch {}: {error}", manifest.stamp.owner.shard, manifest.stamp.epoch));
                }
                for file in &files {
                    let _ = std::fs::remove_file(scratch.join(&file.name));
                }
                bar.inc(files.len() as u64);
            }
        }
        bar.finish_and_clear();
        let _ = std::fs::remove_dir_all(&scratch);
        println!("{} checkpoints, {damaged} damaged objects", manifests.len());
        anyhow::ensure!(damaged == 0, "a restore falls back to the checkpoint before a damaged one; take a new one by letting the job run");
        Ok(())
    }
}
