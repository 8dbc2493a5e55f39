//! What of a job is bound up with its state and may not change under it: stored beside the state, compared with the manifest at each start.
//!
//! Table ids stand in every state key and input ids in every journal record. Both are given out once per name, in order, and never used
//! again for another name.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::finding::{Finding, nearest};
use crate::job::InputPartitioner;
use crate::path::Path;
use crate::pipeline::{Step, TableKind, Upsert};
use crate::validate::{Input, ValidatedJob};

/// The format that this version writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// A job as its state knows it. JSON on disk; see [`JobIdentity::encode`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobIdentity {
    format: u32,
    /// The job's uid: another one is another job, even under the same name.
    pub uid: String,
    /// The job's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The number of shards, frozen at the first start.
    pub shards: u32,
    /// Inputs; the index is the input's id.
    pub inputs: Vec<InputIdentity>,
    /// Table ids by name, those of tables that the job no longer uses among them.
    tables: BTreeMap<String, u16>,
    /// What lies in them. Of a table that was there before this was kept it is what the pipeline says when it is met next.
    #[serde(default)]
    kinds: BTreeMap<String, TableKind>,
    /// By what keys the entities of each table are written, as the last manifest had them that wrote any. Of a table that was there before this was kept it is
    /// what the pipeline says when it is met next.
    #[serde(default)]
    keys: BTreeMap<String, BTreeSet<Key>>,
    /// The id that the next new table gets.
    next_table: u16,
}

/// The expression by which an `upsert` finds its entity; `None` is the record's own key.
type Key = Option<String>;

/// An input as the state knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputIdentity {
    /// Its name in the manifest.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// How its producers choose partitions.
    pub partitioner: InputPartitioner,
}

/// Why there is no identity, or no more room in it.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not what [`JobIdentity::encode`] wrote.
    #[error("read the job's identity: {reason}; restore the file, or start with an empty state folder")]
    Corrupt {
        /// What is wrong with it.
        reason: String,
    },
    /// Written by another version.
    #[error(
        "read the job's identity: format {format} is unknown to this version, which reads format {FORMAT}; use the version that wrote it"
    )]
    Format {
        /// The format that it claims.
        format: u32,
    },
    /// All ids are given out: the job has had 65,535 tables in its life.
    #[error("give table {table:?} an id: all 65535 are used; start a new job")]
    TablesExhausted {
        /// The table that has none.
        table: String,
    },
}

impl JobIdentity {
    /// The identity of a job that starts for the first time. `shards` is what it will have for good.
    pub fn new(uid: &str, shards: u32, job: &ValidatedJob) -> Result<Self, IdentityError> {
        let mut identity = Self {
            format: FORMAT,
            uid: uid.to_owned(),
            name: job.name.clone(),
            namespace: job.namespace.clone(),
            shards,
            inputs: job.inputs.iter().map(identity_of).collect(),
            tables: BTreeMap::new(),
            kinds: BTreeMap::new(),
            keys: BTreeMap::new(),
            next_table: 0,
        };
        identity.assign_tables(job)?;
        Ok(identity)
    }

    /// The identity of another job that goes on with this one's state.
    pub fn of_heir(self, uid: &str, job: &ValidatedJob) -> Self {
        Self { uid: uid.to_owned(), name: job.name.clone(), namespace: job.namespace.clone(), ..self }
    }

    /// Gives each of the job's tables that has no id the next one, and notes of each what lies in it and by what keys. `true`: the identity has changed and
    /// must be stored before any state is written.
    pub fn assign_tables(&mut self, job: &ValidatedJob) -> Result<bool, IdentityError> {
        let mut changed = false;
        for (table, kind) in job.pipeline.iter().filter_map(Step::table) {
            if !self.kinds.contains_key(table) {
                self.kinds.insert(table.to_owned(), kind);
                changed = true;
            }
        }
        for (table, keys) in keys(job) {
            if self.keys.get(table) != Some(&keys) {
                self.keys.insert(table.to_owned(), keys);
                changed = true;
            }
        }
        for table in &job.tables {
            if self.tables.contains_key(table) {
                continue;
            }
            let next = self.next_table.checked_add(1).ok_or_else(|| IdentityError::TablesExhausted { table: table.clone() })?;
            self.tables.insert(table.clone(), self.next_table);
            self.next_table = next;
            changed = true;
        }
        Ok(changed)
    }

    /// The id of a table; `None` for one that never had any.
    pub fn table(&self, name: &str) -> Option<u16> {
        self.tables.get(name).copied()
    }

    /// All tables that ever had an id, with it, in the order of their names.
    pub fn tables(&self) -> impl Iterator<Item = (&str, u16)> {
        self.tables.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// The job's inputs in the order of their ids. Only for a job that [`changed`] has nothing against.
    pub fn inputs_by_id<'a>(&self, job: &'a ValidatedJob) -> Vec<&'a Input> {
        let find = |known: &InputIdentity| job.inputs.iter().find(|input| input.name == known.name);
        self.inputs.iter().map(|known| find(known).expect("`changed` refuses a job that lacks an input")).collect()
    }

    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("an identity has string keys only")
    }

    /// The inverse of [`JobIdentity::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let corrupt = |error: serde_json::Error| IdentityError::Corrupt { reason: error.to_string() };
        let Format { format } = serde_json::from_slice(bytes).map_err(corrupt)?;
        if format != FORMAT {
            return Err(IdentityError::Format { format });
        }
        let identity: Self = serde_json::from_slice(bytes).map_err(corrupt)?;
        let mut ids: Vec<_> = identity.tables.values().collect();
        ids.sort_unstable();
        ids.dedup();
        let is_sound = ids.len() == identity.tables.len() && ids.iter().all(|id| **id < identity.next_table);
        if !is_sound || identity.shards == 0 {
            return Err(IdentityError::Corrupt { reason: "two tables have one id, or the number of shards is 0".into() });
        }
        Ok(identity)
    }
}

fn identity_of(input: &Input) -> InputIdentity {
    InputIdentity { name: input.name.clone(), topic: input.topic.clone(), partitioner: input.partitioner }
}

/// What of `new` contradicts the state of `old`: each difference with the way out. Empty: the job may go on with its state.
///
/// Everything else may change: the pipeline (tables that are gone keep their ids, their keys and their state, new ones begin empty), outputs, intervals,
/// connections, and the order of the inputs. Whether keys may is another matter: an identity has those of whoever started last, be it a revision that was taken back
/// again; see [`contradictions`].
pub fn changed(old: &JobIdentity, new: &ValidatedJob) -> Vec<Finding> {
    const NEW_JOB: &str = "set it back, or start a job with another name (or an empty state)";
    let mut findings = Vec::new();
    let metadata = Path::root().key("metadata");
    if let Some(uid) = &new.uid
        && *uid != old.uid
    {
        let message = format!("the state is of the job with uid {}, this one has {uid}", old.uid);
        findings.push(Finding::new(&metadata, message, "give this job a state folder of its own"));
    }
    for (field, was, is) in [("name", &old.name, &new.name), ("namespace", &old.namespace, &new.namespace)] {
        if was != is {
            let message = format!("the state is of a job with {field} {was:?}, this one has {is:?}");
            findings.push(Finding::new(&metadata.key(field), message, "give this job a state folder of its own, or set it back"));
        }
    }
    if let Some(shards) = new.shards
        && shards != old.shards
    {
        let message = format!("was {}, is {shards}: the number of shards is frozen at the first start", old.shards);
        findings.push(Finding::new(&Path::spec().key("shards"), message, NEW_JOB));
    }
    changed_inputs(old, new, NEW_JOB, &mut findings);
    changed_tables(old, new, &mut findings);
    findings
}

/// What of `new` contradicts the state of `old`, the keys of its entities included: what [`changed`] finds, and an `upsert` by another key.
pub fn contradictions(old: &JobIdentity, new: &ValidatedJob) -> Vec<Finding> {
    let mut findings = changed(old, new);
    changed_keys(old, new, &mut findings);
    findings
}

/// An `upsert` by another key than all that wrote its table before, where one of these is gone. One that joins them, or goes, changes no key. A table that no
/// step wrote for a while has the keys that it had.
fn changed_keys(old: &JobIdentity, new: &ValidatedJob, findings: &mut Vec<Finding>) {
    const WAY_OUT: &str = "set it back, or give it a table that has never been used, which begins empty; or make a job of another name, which reads the \
                           inputs from the start and makes the entities anew";
    let are = keys(new);
    for (index, upsert) in upserts(new) {
        let Some(were) = old.keys.get(&upsert.table) else { continue };
        let key = key(upsert);
        let gone: Vec<String> = were.difference(&are[upsert.table.as_str()]).map(words).collect();
        if were.contains(&key) || gone.is_empty() {
            continue;
        }
        let at = Path::spec().key("pipeline").index(index).key("upsert").key("key");
        let (was, is) = (gone.join(" and "), words(&key));
        let message =
            format!("was {was}, is {is}: table {:?} holds entities under the old key, which none of its records would find", upsert.table);
        findings.push(Finding::new(&at, message, WAY_OUT));
    }
}

/// By what keys each table's entities are written.
fn keys(job: &ValidatedJob) -> BTreeMap<&str, BTreeSet<Key>> {
    let mut keys: BTreeMap<&str, BTreeSet<Key>> = BTreeMap::new();
    for (_, upsert) in upserts(job) {
        keys.entry(&upsert.table).or_default().insert(key(upsert));
    }
    keys
}

fn upserts(job: &ValidatedJob) -> impl Iterator<Item = (usize, &Upsert)> {
    job.pipeline.iter().enumerate().filter_map(|(index, step)| match step {
        Step::Upsert(upsert) => Some((index, &**upsert)),
        Step::Parse(_)
        | Step::Validate(_)
        | Step::Dedup(_)
        | Step::Remove(_)
        | Step::Enrich(_)
        | Step::Remap(_)
        | Step::Filter(_)
        | Step::Route(_)
        | Step::Emit(_) => None,
    })
}

fn key(upsert: &Upsert) -> Key {
    upsert.key.as_ref().map(|key| key.text().trim().to_owned())
}

fn words(key: &Key) -> String {
    key.as_ref().map_or_else(|| "the record's key".to_owned(), |key| format!("`{key}`"))
}

/// A table whose entries the step could not read.
fn changed_tables(old: &JobIdentity, new: &ValidatedJob, findings: &mut Vec<Finding>) {
    for (index, step) in new.pipeline.iter().enumerate() {
        let Some((table, is)) = step.table() else { continue };
        let Some(was) = old.kinds.get(table).filter(|was| **was != is) else { continue };
        let at = Path::spec().key("pipeline").index(index).key(step.name()).key("table");
        let message = format!("table {table:?} holds {was}, and this step would look for {is}");
        findings.push(Finding::new(&at, message, "set the step back, or give it a table that has never been used, which begins empty"));
    }
}

fn changed_inputs(old: &JobIdentity, new: &ValidatedJob, new_job: &str, findings: &mut Vec<Finding>) {
    let at = Path::spec().key("inputs");
    for (index, input) in new.inputs.iter().enumerate() {
        let at = at.index(index);
        let Some(was) = old.inputs.iter().find(|was| was.name == input.name) else {
            let message = format!("input {:?} was not there when the state began", input.name);
            let help = match nearest(&input.name, old.inputs.iter().map(|was| was.name.as_str())) {
                Some(known) => format!("did you mean `{known}`?"),
                None => "delete it, or start a job with another name (or an empty state)".to_owned(),
            };
            findings.push(Finding::new(&at.key("name"), message, help));
            continue;
        };
        if was.topic != input.topic {
            let message = format!("was {:?}, is {:?}: the state holds offsets of the old topic", was.topic, input.topic);
            findings.push(Finding::new(&at.key("topic"), message, new_job));
        }
        if was.partitioner != input.partitioner {
            let message = format!("was {:?}, is {:?}: the keys' state would lie elsewhere", was.partitioner, input.partitioner);
            findings.push(Finding::new(&at.key("partitioner"), message, new_job));
        }
    }
    for was in old.inputs.iter().filter(|was| !new.inputs.iter().any(|input| input.name == was.name)) {
        let message = format!("input {:?} (topic {:?}) is gone, and the state holds its offsets", was.name, was.topic);
        findings.push(Finding::new(&at, message, "put it back, or start a job with another name (or an empty state)"));
    }
}

#[cfg(test)]
mod tests;
