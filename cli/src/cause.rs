//! What lies behind an error, as far as the exit code tells it. Wrappers that have no words of their own are no links in an error's chain: they are opened here.

use std::error::Error;

use forebay_engine::log::LogError;
use forebay_engine::restore::{ImportError, RestoreError};
use forebay_engine::snapshot::SnapshotError;
use forebay_engine::store::StoreError;
use forebay_local::LocalLogError;
use forebay_worker::RuntimeError;
use forebay_worker::rewind::RewindError;
use forebay_worker::savepoint::SavepointError;

/// What is to be expected of trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It may help: a server was not reached or gave no answer, or the disk of an embedded log is full.
    Away,
    /// It does not: something is missing, refused, or too little.
    Refused,
}

/// `None`: the error does not say.
pub fn cause_of(error: &anyhow::Error) -> Option<Cause> {
    error.chain().find_map(of)
}

fn of(link: &(dyn Error + 'static)) -> Option<Cause> {
    let of_either = link.downcast_ref().and_then(of_log).or_else(|| link.downcast_ref().and_then(of_store));
    let of_start = || match (link.downcast_ref(), link.downcast_ref()) {
        (Some(LocalLogError::Topics(error)), _) | (_, Some(RuntimeError::Log(error))) => of_log(error),
        (_, Some(RuntimeError::Memory { .. })) => Some(Cause::Refused),
        _ => None,
    };
    let of_copy = || link.downcast_ref().and_then(of_rewind).or_else(|| link.downcast_ref().and_then(of_savepoint));
    of_either.or_else(of_start).or_else(of_copy)
}

fn of_log(error: &LogError) -> Option<Cause> {
    match error {
        LogError::Unavailable { .. } => Some(Cause::Away),
        LogError::Missing { .. } | LogError::Denied { .. } => Some(Cause::Refused),
        LogError::Fenced { .. } | LogError::Cut { .. } | LogError::Beyond { .. } | LogError::Rejected { .. } => None,
    }
}

fn of_store(error: &StoreError) -> Option<Cause> {
    match error {
        StoreError::Unavailable { .. } => Some(Cause::Away),
        StoreError::Denied { .. } => Some(Cause::Refused),
        StoreError::NotFound { .. } => None,
    }
}

fn of_rewind(error: &RewindError) -> Option<Cause> {
    match error {
        RewindError::Log(error) | RewindError::Restore(RestoreError::Log(error)) => of_log(error),
        RewindError::Store(error) | RewindError::Restore(RestoreError::Store(error)) => of_store(error),
        RewindError::Seed(error) => of_savepoint(error),
        RewindError::Journal(_) | RewindError::Restore(_) | RewindError::Outbid { .. } => None,
    }
}

fn of_savepoint(error: &SavepointError) -> Option<Cause> {
    match error {
        SavepointError::Store(error)
        | SavepointError::Import(ImportError::Store(error))
        | SavepointError::Snapshot(SnapshotError::Store(error)) => of_store(error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away_log() -> LogError {
        LogError::Unavailable { action: "read".into(), reason: "no answer".into() }
    }

    fn away_store() -> StoreError {
        StoreError::Unavailable { action: "get", key: "k".into(), reason: "no answer".into() }
    }

    fn refused_store() -> StoreError {
        StoreError::Denied { action: "get", key: "k".into(), reason: "no".into() }
    }

    #[test]
    fn what_an_error_comes_from_is_found_in_whatever_it_is_wrapped() {
        let check = |error: anyhow::Error, expected| assert_eq!(cause_of(&error.context("while it was tried")), expected);
        let (away, refused) = (Some(Cause::Away), Some(Cause::Refused));
        check(away_log().into(), away);
        check(LogError::Denied { action: "read".into(), reason: "no".into() }.into(), refused);
        check(LogError::Fenced { action: "commit".into() }.into(), None);
        check(away_store().into(), away);
        check(refused_store().into(), refused);
        check(LocalLogError::Topics(away_log()).into(), away);
        check(RuntimeError::Log(away_log()).into(), away);
        check(RuntimeError::Memory { shards: 9, found_mib: 1, needed_mib: 2 }.into(), refused);
        check(RewindError::Log(away_log()).into(), away);
        check(RewindError::Restore(RestoreError::Store(refused_store())).into(), refused);
        check(RewindError::Restore(RestoreError::Outrun).into(), None);
        check(RewindError::Seed(SavepointError::Import(ImportError::Store(away_store()))).into(), away);
        check(SavepointError::Snapshot(SnapshotError::Store(refused_store())).into(), refused);
        check(SavepointError::Store(away_store()).into(), away);
        check(anyhow::anyhow!("no words of a server"), None);
    }
}
