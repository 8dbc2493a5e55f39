//! The steps of a pipeline as the manifest spells them: `spec.pipeline` is a list, each element a map with one key, the step's name.
//!
//! Only shape and meaning lie here, nothing that compiles or runs: expressions are text. Maps are ordered by name wherever order could
//! decide something, since the Kubernetes API server does not keep the order of a map.

mod check;
mod scalar;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check::{Finding, check_steps};
pub use scalar::{Expression, Scalar};
pub use steps::TableKind;

use crate::quantity::{ByteSize, TimeSpan};

/// The most routes of one step: the API server compares each of them with all inputs.
pub const ROUTES_MAX: u32 = 32;
/// The name of the state table that a `dedup` step uses unless it names one.
pub const DEDUP_TABLE: &str = "dedup";

/// One step of a pipeline: a map with one key, the step's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Reads the record's value.
    Parse(Parse),
    /// Refuses documents that are not as declared; they go to the dead-letter topic with the reason.
    Validate(Validate),
    /// Drops records that were seen before, per record key.
    Dedup(Dedup),
    /// Changes an entity in the state and puts out the change as a delta.
    Upsert(Box<Upsert>),
    /// Removes an entity from the state.
    Remove(Remove),
    /// Adds fields of an entity to the document.
    Enrich(Enrich),
    /// A VRL program that changes the document. An error that it does not handle sends the record to the dead-letter topic.
    Remap(Expression),
    /// An expression; records for which it is false are left out and counted as filtered.
    Filter(Expression),
    /// Puts the document out by condition. Every route whose condition is true applies; the record goes on to the next step.
    Route(Vec<Route>),
    /// Puts the document out.
    Emit(Emit),
}

/// Reads the record's value into a document: one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parse {
    /// How the value is encoded.
    pub format: Format,
    /// Columns and delimiter, for `format: csv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<Csv>,
    /// What a tombstone (a record with a null value) means.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tombstone: Tombstone,
    /// What an empty value (no bytes) means.
    #[serde(default, skip_serializing_if = "is_default")]
    pub empty: Empty,
    /// Values with more bytes than this are oversized, for example `256Ki`. The default is what the broker lets through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_max: Option<ByteSize>,
    /// What becomes of an oversized value.
    #[serde(default, skip_serializing_if = "is_default")]
    pub oversized: Oversized,
}

/// How a value is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// One JSON object.
    Json,
    /// One line of CSV without a header.
    Csv,
}

/// The shape of CSV values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Csv {
    /// The columns in order. A line with more or fewer goes to the dead-letter topic.
    #[schemars(length(min = 1))]
    pub columns: Vec<CsvColumn>,
    /// The character between columns; `,` by default.
    #[serde(default = "comma", skip_serializing_if = "is_comma")]
    #[schemars(length(equal = 1))]
    pub delimiter: String,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CsvColumn {
    /// The field of the document that it becomes.
    pub name: String,
    /// What its text is read as. An empty cell of any type but `string` is null.
    #[serde(rename = "type", default, skip_serializing_if = "is_default")]
    pub kind: CsvType,
}

/// What a cell is read as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CsvType {
    /// The text as it is.
    #[default]
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// What a tombstone means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Tombstone {
    /// It goes to the dead-letter topic.
    #[default]
    Reject,
    /// It is left out and counted as filtered.
    Skip,
    /// The record key's entity is removed from every table that an `upsert` of this pipeline writes under the record's key; each removal
    /// goes to the topic of that upsert's deltas. The record then counts as processed.
    RemoveEntity,
}

/// What an empty value means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Empty {
    /// It goes to the dead-letter topic.
    #[default]
    Reject,
    /// It is left out and counted as filtered.
    Skip,
    /// The same as a tombstone.
    Tombstone,
}

/// What becomes of an oversized value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Oversized {
    /// It goes to the dead-letter topic.
    #[default]
    Reject,
    /// It is left out and counted as filtered.
    Skip,
}

/// What documents must look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Validate {
    /// Rules by path, for example `id` or `user.address.zip`.
    pub fields: BTreeMap<String, FieldRule>,
}

/// What one field must look like. A field that is missing or null passes unless it is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldRule {
    /// The type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FieldType>,
    /// Whether it must be there and not null.
    #[serde(default, skip_serializing_if = "is_default")]
    pub required: bool,
    /// The smallest number that is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The largest number that is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The fewest characters of a string, or elements of an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u32>,
    /// The most characters of a string, or elements of an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// A regular expression that a string must contain; `^…$` for the whole of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The values that are allowed: strings or integers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Vec<Scalar>>,
}

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FieldType {
    /// A string.
    String,
    /// A whole number that fits into 64 bits.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A string as RFC 3339 has it, with a zone: `2013-01-01T05:00:00Z`.
    Timestamp,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// Drops repeats. What it remembers is kept per record key; give exactly one of `last` and `within`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dedup {
    /// Expressions that together identify a record. None of them may be null.
    #[schemars(length(min = 1))]
    pub by: Vec<Expression>,
    /// Remembers this many records of each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub last: Option<u32>,
    /// Remembers the records of this long, for example `10m`, by the clock of processing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<TimeSpan>,
    /// With `within`: remembers at most this many records of each key, the newest; 1024 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub within_records_max: Option<u32>,
    /// The state table that holds it; needed only when a pipeline has several `dedup` steps.
    #[serde(default = "dedup_table", skip_serializing_if = "is_dedup_table")]
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub table: String,
}

/// Changes one entity: the one with the record's key, or with `key`. An operand that is null or missing leaves its field alone, except
/// under `set`, which sets null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upsert {
    /// The state table.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub table: String,
    /// The entity's key; the record's key by default. It must fall into the record's own partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Expression>,
    /// Sets fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Expression>,
    /// Removes fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// Adds a value (or each element of an array) to a set: an array without repeats, in the order of arrival.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add_to_set: BTreeMap<String, Expression>,
    /// Removes a value (or each element of an array) from a set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub remove_from_set: BTreeMap<String, Expression>,
    /// Adds a number to a field; one that is missing starts at 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub increment: BTreeMap<String, Expression>,
    /// Keeps the smallest value: numbers, or strings in the order of their bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub min: BTreeMap<String, Expression>,
    /// Keeps the largest value: numbers, or strings in the order of their bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub max: BTreeMap<String, Expression>,
    /// Appends a value to an array that keeps its newest elements.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub append: BTreeMap<String, Append>,
    /// The record's event time: RFC 3339, or an integer (of one unit for the life of the job). The upsert applies, as a whole, only if it is
    /// newer than that of every upsert before it; one that is not leaves the entity alone and the record goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer_by: Option<Expression>,
    /// Where the delta goes; without it no delta is put out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emit: Option<DeltaEmit>,
}

/// What is appended, and how much is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Append {
    /// The value.
    pub value: Expression,
    /// The most elements; the oldest fall out.
    #[schemars(range(min = 1, max = 100_000))]
    pub cap: u32,
}

/// Where deltas go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeltaEmit {
    /// The topic.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    pub topic: String,
}

/// Removes an entity: the one with the record's key, or with `key`. One that does not exist is no error, and nothing is put out for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Remove {
    /// The state table.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub table: String,
    /// The entity's key; the record's key by default. It must fall into the record's own partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Expression>,
    /// The event's time, RFC 3339 or an integer, in a table whose `upsert` has `newerBy` too. The entity is removed only if this is newer than that of
    /// every upsert before it. A removal leaves nothing behind: an older record that comes after it makes the entity anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer_by: Option<Expression>,
    /// Where the removal goes: `{"table": …, "key": …, "remove": true}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emit: Option<DeltaEmit>,
}

/// Adds fields of an entity to the document, as they are after this record's upserts so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enrich {
    /// The state table.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub table: String,
    /// The entity's key; the record's key by default. It must fall into the record's own partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Expression>,
    /// The document's field that they are put into, as an object; null when there is no such entity. One that is there is replaced.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[^.]+$"))]
    pub into: String,
    /// The fields; all by default. One that the entity does not have is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expression>,
    /// Instead of `when`, on the last route: it applies when no other did.
    #[serde(default, skip_serializing_if = "is_default")]
    pub otherwise: bool,
    /// Where the document goes.
    pub emit: Emit,
}

/// Puts out one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Emit {
    /// The topic.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    pub topic: String,
    /// The record's key; the input record's by default. Null gives a record without a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Expression>,
    /// The record's time stamp: RFC 3339, or milliseconds since 1970; the input record's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Expression>,
    /// Headers by name; one whose expression is null is left out. There are none by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Expression>,
    /// What decides the partition.
    #[serde(default, skip_serializing_if = "is_default")]
    pub partitioner: Partitioner,
    /// The value, put out as JSON; the whole document by default. Null gives a tombstone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Expression>,
}

/// What decides an output's partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Partitioner {
    /// murmur2 of the key, as Java clients do.
    #[default]
    Murmur2,
    /// The partition that the input record has; the topic must have as many.
    Input,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn comma() -> String {
    ",".to_owned()
}

fn is_comma(delimiter: &str) -> bool {
    delimiter == ","
}

fn dedup_table() -> String {
    DEDUP_TABLE.to_owned()
}

fn is_dedup_table(table: &str) -> bool {
    table == DEDUP_TABLE
}
