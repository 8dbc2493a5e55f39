//! Why an attempt to bring a shard up, or to keep it up, ended; and whether somebody has to help.

use std::fmt;

use crate::journal::JournalError;
use crate::log::LogError;
use crate::restore::RestoreError;
use crate::state::StateError;
use crate::store::StoreError;

/// What ended an attempt. The text names what was attempted and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may heal by itself: a broker or a store that does not answer, a full disk, a panic. Tried again, soon at first.
    Passing(String),
    /// It needs help: what the shard needs is gone, or is not what it was, or is refused. Tried again now and then, in case that somebody helped.
    Lasting(String),
}

impl Failure {
    /// What people should know.
    pub fn reason(&self) -> &str {
        match self {
            Failure::Passing(reason) | Failure::Lasting(reason) => reason,
        }
    }

    fn of(lasting: bool, error: &dyn fmt::Display) -> Self {
        if lasting { Failure::Lasting(error.to_string()) } else { Failure::Passing(error.to_string()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Failure::of(is_lasting(&error), &error)
    }
}

fn is_lasting(error: &LogError) -> bool {
    match error {
        LogError::Cut { .. } | LogError::Beyond { .. } | LogError::Missing { .. } | LogError::Denied { .. } | LogError::Rejected { .. } => {
            true
        }
        // A transaction that hangs is aborted by the broker, a partition comes back online; who was barred takes a new incarnation.
        LogError::Unavailable { .. } | LogError::Fenced { .. } => false,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::of(matches!(error, StoreError::Denied { .. }), &error)
    }
}

impl From<StateError> for Failure {
    /// What is on the local disk can be made anew from checkpoints and the journal, and space can be freed.
    fn from(error: StateError) -> Self {
        Failure::of(false, &error)
    }
}

impl From<JournalError> for Failure {
    /// A journal that cannot be read says the same tomorrow.
    fn from(error: JournalError) -> Self {
        Failure::of(true, &error)
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Outrun => Failure::of(false, &error),
            RestoreError::Gone { .. } | RestoreError::Younger { .. } => Failure::of(true, &error),
            RestoreError::Log(error) => error.into(),
            RestoreError::Store(error) => error.into(),
            RestoreError::State(error) => error.into(),
            RestoreError::Journal(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    fn check(error: impl Into<Failure>, lasting: bool) {
        let failure = error.into();
        assert_eq!(matches!(failure, Failure::Lasting(_)), lasting, "{failure:?}");
    }

    /// Method: one error of each sort that design.md, "What is gone is said", names, and those that pass.
    #[test]
    fn what_is_gone_needs_help_and_what_does_not_answer_heals_by_itself() {
        let (action, topic, reason) = (|| "read".to_owned(), || "t".to_owned(), || "why".to_owned());
        check(LogError::Cut { action: action(), topic: topic(), partition: 1, wanted: 2, start: 3, way_out: reason() }, true);
        check(LogError::Beyond { action: action(), topic: topic(), partition: 1, wanted: 4, end: 3 }, true);
        check(LogError::Missing { action: action(), what: topic(), way_out: reason() }, true);
        check(LogError::Denied { action: action(), reason: reason() }, true);
        check(LogError::Unavailable { action: action(), reason: reason() }, false);
        check(LogError::Fenced { action: action() }, false);
        check(StoreError::Denied { action: "get", key: topic(), reason: reason() }, true);
        check(StoreError::Unavailable { action: "get", key: topic(), reason: reason() }, false);
        check(StateError::Io { action: action(), reason: reason() }, false);
        check(RestoreError::Gone { shard: ShardId::new(3), reason: reason() }, true);
        check(RestoreError::Outrun, false);
        let gone = LogError::Cut { action: action(), topic: topic(), partition: 1, wanted: 2, start: 3, way_out: reason() };
        check(RestoreError::Log(gone), true);
        check(RestoreError::Store(StoreError::Unavailable { action: "get", key: topic(), reason: reason() }), false);
    }
}
