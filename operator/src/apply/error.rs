//! What may go wrong when something is written, and what the API server's answer means.

use crate::plan::Refusal;
use crate::reconcile::LOOK_MAX;
use crate::resources::revision;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused, or was not reached.
    #[error("{action}: {source}")]
    Cluster {
        /// What was attempted.
        action: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// No certificate could be made.
    #[error("make a certificate for the workers: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Another operator may lead by now.
    #[error("nothing is done: the lease was not renewed in time, and another operator may have it")]
    NotLeading,
    /// The API server was not heard for so long.
    #[error("a look at it was given up: there was no answer within {} s", LOOK_MAX.as_secs())]
    Unanswered,
    /// The namespace is being deleted: nothing can be made in it.
    #[error("the namespace is being deleted, and nothing can be made in it")]
    NamespaceEnds,
    /// The API server keeps no field that its definition does not have.
    #[error(
        "claim a job by its status.operator: the API server drops that field, because its definition of IngestionJob is older than this operator; apply that of the \
         operator's own version"
    )]
    OldDefinition,
    /// Pods of a revision are to be made, and its config map does not say how.
    #[error("make a pod of revision {template}: its config map has no {FILE} that can be read; change the job's manifest, and the new revision is taken", FILE = revision::FILE)]
    NoRevision {
        /// The revision.
        template: String,
    },
}

impl ApplyError {
    /// What the API server has against what was to be made.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Cluster { action, source } => match &**source {
                kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
                    Some(Refusal { message: format!("{action}: {}", status.message), may_pass: status.code == 403 })
                }
                _ => None,
            },
            Self::Certificate(_)
            | Self::NotLeading
            | Self::Unanswered
            | Self::NamespaceEnds
            | Self::OldDefinition
            | Self::NoRevision { .. } => None,
        }
    }
}
