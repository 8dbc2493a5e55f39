//! The databases of a job, read-only: those on this machine, or the newest checkpoints in the object store. The job may run meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use forebay_engine::ids::{Partition, ShardId, TableId};
use forebay_engine::journal::Stamp;
use forebay_engine::lifetimes::Lifetimes;
use forebay_engine::manifest::Manifest;
use forebay_engine::partitioner::partition_for_key;
use forebay_engine::shard::shard_of;
use forebay_engine::store::ObjectStore;
use forebay_state::StateReader;
use forebay_worker::fetch::fetch_all;
use forebay_worker::restorer::{newest_manifest, shard_folder};
use tempfile::TempDir;

use crate::Unusable;
use crate::job::{self, Loaded};
use crate::places::Places;

/// Whose databases, and which.
#[derive(Args)]
pub struct Common {
    #[command(flatten)]
    places: Places,

    /// Read the newest checkpoints in the object store instead of the databases on this machine: they are downloaded to a temporary folder
    #[arg(long)]
    from_store: bool,
}

/// The databases of a job, by shard; those that are not there are left out.
pub struct Databases {
    shards: BTreeMap<ShardId, Database>,
    tables: BTreeMap<TableId, String>,
    lifetimes: Lifetimes,
    count: u32,
}

/// One shard's database.
struct Database {
    place: Place,
    stamp: Stamp,
}

enum Place {
    Here(PathBuf),
    /// A checkpoint: downloaded when it is needed.
    Store(Arc<dyn ObjectStore>, Box<Manifest>),
}

/// A database that is open; its folder is deleted afterwards if it was downloaded.
pub struct Open {
    pub reader: StateReader,
    _download: Option<TempDir>,
}

impl Databases {
    /// Finds them. Says on standard error which shards have none.
    pub fn find(common: &Common) -> anyhow::Result<Self> {
        let loaded: Loaded = job::open(&common.places)?;
        if !common.from_store {
            loaded.owns_state_dir(&common.places.state_dir())?;
        }
        let identity = loaded.identity_or_say(&*loaded.root(&common.places)?)?;
        let store = loaded.store(&common.places)?;
        let mut shards = BTreeMap::new();
        for shard in (0..identity.shards).map(ShardId::new) {
            let found = if common.from_store { in_store(&store, shard)? } else { here(shard_folder(&common.places.state_dir(), shard))? };
            if let Some(database) = found {
                shards.insert(shard, database);
            }
        }
        if shards.len() < identity.shards as usize {
            let (place, instead) = match common.from_store {
                true => ("in the object store".to_owned(), "leave out --from-store on the machine where the job runs"),
                false => (format!("in {}", common.places.state_dir().display()), "--from-store reads all shards' newest checkpoints"),
            };
            eprintln!("{} of {} shards have their state {place}; {instead}", shards.len(), identity.shards);
        }
        let tables = job::tables(&identity);
        let lifetimes = job::lifetimes(&loaded.job, &tables);
        let tables = tables.into_iter().map(|(name, id)| (id, name)).collect();
        Ok(Self { shards, tables, lifetimes, count: identity.shards })
    }

    /// Where each shard stands.
    pub fn stamps(&self) -> impl Iterator<Item = (ShardId, &Stamp)> {
        self.shards.iter().map(|(shard, database)| (*shard, &database.stamp))
    }

    /// The tables with their ids.
    pub fn tables(&self) -> impl Iterator<Item = (TableId, &str)> {
        self.tables.iter().map(|(id, name)| (*id, name.as_str()))
    }

    /// A table's id.
    pub fn table(&self, name: &str) -> anyhow::Result<TableId> {
        let known = || self.tables.values().cloned().collect::<Vec<_>>().join(", ");
        let found = self.tables.iter().find(|(_, table)| *table == name).map(|(id, _)| *id);
        found.ok_or_else(|| Unusable(format!("there is no table {name}; the tables are {}", known())).into())
    }

    /// A table's name.
    pub fn table_name(&self, id: TableId) -> String {
        self.tables.get(&id).cloned().unwrap_or_else(|| format!("table-{id}"))
    }

    /// Where a key may lie, the likeliest place first: producers with another partitioner put it elsewhere.
    pub fn places_of(&self, key: &[u8]) -> Vec<(ShardId, Partition)> {
        let known = self.stamps().flat_map(|(_, stamp)| stamp.positions.iter().map(|position| position.partition));
        let mut partitions: Vec<Partition> = known.collect();
        partitions.sort();
        partitions.dedup();
        let count = partitions.last().map_or(0, |last| last.get() + 1);
        if count > 0 {
            let likely = partition_for_key(key, count);
            partitions.sort_by_key(|partition| *partition != likely);
        }
        partitions.into_iter().map(|partition| (shard_of(partition, self.count), partition)).collect()
    }

    /// Opens a shard's database; `None`: it is not there.
    pub fn open(&self, shard: ShardId) -> anyhow::Result<Option<Open>> {
        let Some(database) = self.shards.get(&shard) else { return Ok(None) };
        let (reader, download) = match &database.place {
            Place::Here(folder) => (StateReader::open(folder)?, None),
            Place::Store(store, manifest) => {
                let folder = tempfile::Builder::new()
                    .prefix("forebay-state-")
                    .tempdir()
                    .context("make a temporary folder; name another by TMPDIR")?;
                fetch_all(&**store, manifest, folder.path(), &|| true).context("download a checkpoint; see `forebay snapshot verify`")?;
                (StateReader::open(folder.path())?, Some(folder))
            }
        };
        Ok(reader.map(|reader| Open { reader: reader.with_lifetimes(self.lifetimes.clone()), _download: download }))
    }

    /// All shards of which there is a database.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.shards.keys().copied()
    }
}

fn here(folder: PathBuf) -> anyhow::Result<Option<Database>> {
    let Some(reader) = StateReader::open(&folder)? else { return Ok(None) };
    Ok(reader.stamp()?.map(|stamp| Database { place: Place::Here(folder), stamp }))
}

fn in_store(store: &Arc<dyn ObjectStore>, shard: ShardId) -> anyhow::Result<Option<Database>> {
    let manifest = newest_manifest(&**store, shard)?;
    Ok(manifest.map(|manifest| Database { stamp: manifest.stamp.clone(), place: Place::Store(store.clone(), Box::new(manifest)) }))
}
