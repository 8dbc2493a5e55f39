//! `forebay state` and `forebay books`: what lies in a job's databases, here or in its checkpoints. The job may run meanwhile.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use clap::{Args, Subcommand};
use forebay_engine::ids::{Epoch, Partition, Revision, ShardId, TableId};
use forebay_engine::journal::{Books, Stamp};
use forebay_engine::shard::encode_key;
use forebay_pipeline::Document;
use forebay_state::keys::KeyRange;
use serde::Serialize;
use serde_json::Value;

use crate::databases::{Common, Databases};
use crate::output::Output;
use crate::progress::books_line;
use crate::records::Text;

#[derive(Subcommand)]
pub enum StateCommand {
    /// List the tables, and of each shard the epoch and the checkpoints that count
    #[command(after_help = "\
Examples:
  forebay state ls -f job.yaml
  forebay state ls -f job.yaml --from-store --store s3://bucket/prefix -o json")]
    Ls(Ls),
    /// Print one entity
    #[command(after_help = "\
Examples:
  forebay state get -f job.yaml aircraft N14228
  forebay state get -f job.yaml aircraft N14228 -o json | jq .value.flights")]
    Get(Get),
    /// Print all entities, or those of one table
    #[command(after_help = "\
Examples:
  forebay state scan -f job.yaml aircraft --limit 10
  forebay state scan -f job.yaml -o json > state.jsonl")]
    Scan(Scan),
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
}

#[derive(Args)]
pub struct Scan {
    #[command(flatten)]
    common: Common,
    /// Only this table
    table: Option<String>,
    /// At most so many entities of each shard
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

/// What `forebay books` is told.
#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay books -f job.yaml
  forebay books -f job.yaml --from-store --store s3://bucket/prefix -o json")]
pub struct BooksCommand {
    #[command(flatten)]
    common: Common,
}

impl StateCommand {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Ls(command) => command.execute(output),
            Self::Get(command) => command.execute(output),
            Self::Scan(command) => command.execute(output),
        }
    }
}

/// A line of `state ls`.
#[derive(Serialize)]
struct TableRow<'a> {
    table: &'a str,
    id: TableId,
}

impl fmt::Display for TableRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} (id {})", self.table, self.id)
    }
}

/// A line of `state ls`.
#[derive(Serialize)]
struct ShardRow<'a> {
    shard: ShardId,
    epoch: Epoch,
    revision: &'a Revision,
    /// The epochs of those that count.
    checkpoints: Vec<Epoch>,
    books: &'a Books,
}

impl<'a> ShardRow<'a> {
    fn of(shard: ShardId, stamp: &'a Stamp) -> Self {
        let checkpoints = stamp.retained.iter().map(|checkpoint| checkpoint.epoch).collect();
        Self { shard, epoch: stamp.epoch, revision: &stamp.revision, checkpoints, books: &stamp.books }
    }
}

impl fmt::Display for ShardRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checkpoints: Vec<u64> = self.checkpoints.iter().map(|epoch| epoch.get()).collect();
        let (shard, epoch, revision, books) = (self.shard, self.epoch, self.revision, books_line(self.books));
        write!(f, "shard {shard}: epoch {epoch}, revision {revision}, checkpoints that count {checkpoints:?}, {books}")
    }
}

/// An entity, as `state scan` prints it.
#[derive(Serialize)]
struct EntityRow {
    table: String,
    partition: Partition,
    key: Text,
    value: Value,
}

impl fmt::Display for EntityRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}\t{}", self.table, self.key, self.value)
    }
}

/// An entity, as `state get` prints it: the document alone, for people to read.
#[derive(Serialize)]
#[serde(transparent)]
struct Found(EntityRow);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0.value)
    }
}

/// The books, as `forebay books` and `forebay run` print them.
#[derive(Serialize)]
#[serde(transparent)]
pub struct BooksRow(pub Books);

impl fmt::Display for BooksRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&books_line(&self.0))
    }
}

impl Ls {
    fn execute(&self, output: Output) -> anyhow::Result<()> {
        let databases = Databases::find(&self.common)?;
        let mut printer = output.printer();
        for (id, table) in databases.tables() {
            printer.print(&TableRow { table, id })?;
        }
        for (shard, stamp) in databases.stamps() {
            printer.print(&ShardRow::of(shard, stamp))?;
        }
        printer.finish()
    }
}

impl Get {
    fn execute(&self, output: Output) -> anyhow::Result<()> {
        let databases = Databases::find(&self.common)?;
        let table = databases.table(&self.table)?;
        let key = self.key.as_bytes();
        let (mut encoded, mut value) = (Vec::new(), Vec::new());
        let mut open = BTreeMap::new();
        for (shard, partition) in databases.places_of(key) {
            let database = match open.entry(shard) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(databases.open(shard)?),
            };
            let Some(database) = database else { continue };
            encode_key(table, partition, key, &mut encoded);
            if database.reader.get(&encoded, &mut value)? {
                let row = EntityRow { table: self.table.clone(), partition, key: Text::of(key), value: document(&value)? };
                return output.print(&Found(row));
            }
        }
        anyhow::bail!("table {} has no entity {}; list those that there are by `forebay state scan {0}`", self.table, self.key)
    }
}

impl Scan {
    fn execute(&self, output: Output) -> anyhow::Result<()> {
        let databases = Databases::find(&self.common)?;
        let range = match &self.table {
            Some(table) => KeyRange::table(databases.table(table)?),
            None => KeyRange::all(),
        };
        let mut printer = output.printer();
        for shard in databases.shards() {
            let Some(database) = databases.open(shard)? else { continue };
            for entry in database.reader.scan(&range, self.limit) {
                let entry = entry?;
                let (table, value) = (databases.table_name(entry.table), document(&entry.value)?);
                printer.print(&EntityRow { table, partition: entry.partition, key: Text::of(&entry.key), value })?;
            }
        }
        printer.finish()
    }
}

impl BooksCommand {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        let databases = Databases::find(&self.common)?;
        let sum = databases.stamps().fold(Books::default(), |sum, (_, stamp)| sum.plus(&stamp.books));
        output.print(&BooksRow(sum))
    }
}

fn document(bytes: &[u8]) -> anyhow::Result<Value> {
    use forebay_engine::pipeline::Entity;
    let document = Document::decode(bytes).map_err(|reason| anyhow::anyhow!("a value cannot be decoded: {reason}"))?;
    Ok(serde_json::from_str(&document.to_json())?)
}
