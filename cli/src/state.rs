//! `forebay state` and `forebay books`: what lies in a job's databases. Reads the local ones; the job need not run.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use forebay_engine::ids::{Partition, ShardId, TableId};
use forebay_engine::journal::Books;
use forebay_engine::shard::{encode_key, shard_of};
use forebay_local::partitioner::partition_for_key;
use forebay_pipeline::Document;
use forebay_state::StateReader;
use forebay_state::keys::KeyRange;
use forebay_worker::restorer::shard_folder;

use crate::Unusable;
use crate::job::{self, Loaded};
use crate::places::Places;
use crate::progress::books_line;
use crate::records::Text;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// One JSON document a line
    Json,
}

#[derive(Subcommand)]
pub enum StateCommand {
    /// List the tables, with the epoch of each shard
    Ls(Ls),
    /// Print one entity
    Get(Get),
    /// Print all entities, or those of one table
    Scan(Scan),
}

#[derive(Args)]
pub struct Common {
    /// The manifest
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    places: Places,
    /// How to print
    #[arg(short = 'o', long, default_value = "text")]
    output: Output,
}

#[derive(Args)]
pub struct Ls {
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub struct Get {
    #[command(flatten)]
    common: Common,
    /// The table
    table: String,
    /// The entity's key
    key: String,
    /// The number of partitions of the input, to find the key's shard [default: all shards are asked]
    #[arg(long)]
    partitions: Option<u32>,
}

#[derive(Args)]
pub struct Scan {
    #[command(flatten)]
    common: Common,
    /// Only this table
    #[arg(long)]
    table: Option<String>,
    /// At most so many entities of each shard
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

#[derive(Args)]
pub struct BooksCommand {
    #[command(flatten)]
    common: Common,
}

impl StateCommand {
    pub fn execute(&self) -> anyhow::Result<()> {
        match self {
            Self::Ls(command) => command.execute(),
            Self::Get(command) => command.execute(),
            Self::Scan(command) => command.execute(),
        }
    }
}

/// The databases of a job on this machine.
struct Databases {
    shards: BTreeMap<ShardId, StateReader>,
    tables: BTreeMap<TableId, String>,
    count: u32,
}

impl Databases {
    fn open(common: &Common) -> anyhow::Result<Self> {
        let loaded: Loaded = job::load(&common.file)?;
        let root = loaded.root(&common.places)?;
        let identity = loaded.identity(&*root)?.ok_or_else(|| {
            Unusable(format!("job {}/{} has never run here; name its working folder by --dir", loaded.job.namespace, loaded.job.name))
        })?;
        let lifetimes = job::lifetimes(&loaded.job, &job::tables(&identity));
        let mut shards = BTreeMap::new();
        for shard in (0..identity.shards).map(ShardId::new) {
            if let Some(reader) = StateReader::open(&shard_folder(&common.places.state_dir(), shard))? {
                shards.insert(shard, reader.with_lifetimes(lifetimes.clone()));
            }
        }
        Ok(Self { shards, tables: job::tables(&identity).into_iter().map(|(name, id)| (id, name)).collect(), count: identity.shards })
    }

    fn table(&self, name: &str) -> anyhow::Result<TableId> {
        let known = || self.tables.values().cloned().collect::<Vec<_>>().join(", ");
        let found = self.tables.iter().find(|(_, table)| *table == name).map(|(id, _)| *id);
        found.ok_or_else(|| Unusable(format!("there is no table {name}; the tables are {}", known())).into())
    }
}

impl Ls {
    fn execute(&self) -> anyhow::Result<()> {
        let databases = Databases::open(&self.common)?;
        for (id, name) in &databases.tables {
            println!("table {name} (id {id})");
        }
        for (shard, reader) in &databases.shards {
            if let Some(stamp) = reader.stamp()? {
                println!("shard {shard}: epoch {}, revision {}, {}", stamp.epoch, stamp.revision, books_line(&stamp.books));
            }
        }
        Ok(())
    }
}

impl Get {
    fn execute(&self) -> anyhow::Result<()> {
        let databases = Databases::open(&self.common)?;
        let table = databases.table(&self.table)?;
        let key = self.key.as_bytes();
        let (mut encoded, mut value) = (Vec::new(), Vec::new());
        // Without the number of partitions every partition that may exist in a shard is asked: shards hold few.
        let candidates: Vec<Partition> = match self.partitions {
            Some(partitions) => vec![partition_for_key(key, partitions)],
            None => (0..4096).map(Partition::new).collect(),
        };
        for partition in candidates {
            let Some(reader) = databases.shards.get(&shard_of(partition, databases.count)) else { continue };
            encode_key(table, partition, key, &mut encoded);
            if reader.get(&encoded, &mut value)? {
                println!("{}", serde_json::to_string_pretty(&document(&value)?)?);
                return Ok(());
            }
        }
        anyhow::bail!("table {} has no entity {}", self.table, self.key)
    }
}

impl Scan {
    fn execute(&self) -> anyhow::Result<()> {
        let databases = Databases::open(&self.common)?;
        let range = match &self.table {
            Some(table) => KeyRange::table(databases.table(table)?),
            None => KeyRange::all(),
        };
        let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
        for reader in databases.shards.values() {
            for entry in reader.scan(&range, self.limit) {
                let entry = entry?;
                let unknown = format!("table-{}", entry.table);
                let table = databases.tables.get(&entry.table).unwrap_or(&unknown);
                let value = document(&entry.value)?;
                match self.common.output {
                    Output::Text => writeln!(out, "{table}\t{}\t{value}", String::from_utf8_lossy(&entry.key))?,
                    Output::Json => {
                        let row =
                            serde_json::json!({"table": table, "partition": entry.partition, "key": Text::of(&entry.key), "value": value});
                        writeln!(out, "{row}")?;
                    }
                }
            }
        }
        out.flush()?;
        Ok(())
    }
}

impl BooksCommand {
    pub fn execute(&self) -> anyhow::Result<()> {
        let databases = Databases::open(&self.common)?;
        let mut sum = Books::default();
        for reader in databases.shards.values() {
            if let Some(stamp) = reader.stamp()? {
                sum = sum.plus(&stamp.books);
            }
        }
        match self.common.output {
            Output::Text => println!("{}", books_line(&sum)),
            Output::Json => println!("{}", serde_json::to_string(&sum)?),
        }
        Ok(())
    }
}

fn document(bytes: &[u8]) -> anyhow::Result<serde_json::Value> {
    use forebay_engine::pipeline::Entity;
    let document = Document::decode(bytes).map_err(|reason| anyhow::anyhow!("a value cannot be decoded: {reason}"))?;
    Ok(serde_json::from_str(&document.to_json())?)
}
