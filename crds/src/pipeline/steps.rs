//! What a step is called, and which topics and tables it is about.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Step;

impl Step {
    /// The step's name in the manifest.
    pub fn name(&self) -> &'static str {
        match self {
            Step::Parse(_) => "parse",
            Step::Validate(_) => "validate",
            Step::Dedup(_) => "dedup",
            Step::Upsert(_) => "upsert",
            Step::Remove(_) => "remove",
            Step::Enrich(_) => "enrich",
            Step::Remap(_) => "remap",
            Step::Filter(_) => "filter",
            Step::Route(_) => "route",
            Step::Emit(_) => "emit",
        }
    }

    /// The topics that it writes, in the order of the manifest; one may come twice. The dead-letter topic is not among them.
    pub fn output_topics(&self) -> Vec<&str> {
        match self {
            Step::Upsert(step) => step.emit.iter().map(|emit| emit.topic.as_str()).collect(),
            Step::Remove(step) => step.emit.iter().map(|emit| emit.topic.as_str()).collect(),
            Step::Route(routes) => routes.iter().map(|route| route.emit.topic.as_str()).collect(),
            Step::Emit(emit) => vec![&emit.topic],
            Step::Parse(_) | Step::Validate(_) | Step::Dedup(_) | Step::Enrich(_) | Step::Remap(_) | Step::Filter(_) => vec![],
        }
    }

    /// The state table that it reads or writes, and what lies there.
    pub fn table(&self) -> Option<(&str, TableKind)> {
        match self {
            Step::Dedup(step) => Some((&step.table, TableKind::Seen)),
            Step::Upsert(step) => Some((&step.table, TableKind::Entities)),
            Step::Remove(step) => Some((&step.table, TableKind::Entities)),
            Step::Enrich(step) => Some((&step.table, TableKind::Entities)),
            Step::Parse(_) | Step::Validate(_) | Step::Remap(_) | Step::Filter(_) | Step::Route(_) | Step::Emit(_) => None,
        }
    }
}

/// What lies in a state table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TableKind {
    /// The entities of `upsert`.
    Entities,
    /// The records that `dedup` has seen.
    Seen,
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entities => "entities",
            Self::Seen => "the records that `dedup` has seen",
        })
    }
}
