//! `newerBy`: a step applies only if its record's event is newer than what the entity knows.

use forebay_engine::ids::TableId;
use forebay_engine::pipeline::Workspace;

use crate::document::Document;
use crate::expression::{Expression, Scope, Vrl, event_time};
use crate::instance::Failure;

/// The event's time, if the step asks for it. `Err`: what it names is no time.
pub(super) fn event_time_of(newer_by: Option<&Expression>, scope: Scope<'_>, vrl: &mut Vrl) -> Result<Option<i64>, String> {
    let Some(expression) = newer_by else { return Ok(None) };
    let operand = expression.evaluate(scope, vrl)?;
    let time = event_time(&operand);
    time.map(Some).ok_or_else(|| format!("newerBy: {operand} is no time: neither RFC 3339 nor an integer"))
}

/// Whether the entity has seen this time, or a newer one.
pub(super) fn is_outdated(time: Option<i64>, table: TableId, key: &[u8], workspace: &mut Workspace<'_, Document>) -> Result<bool, Failure> {
    if time.is_none() {
        return Ok(false);
    }
    let newest = match workspace.get(table, key)? {
        Some(Document::Entity { newer_by, .. }) => *newer_by,
        _ => None,
    };
    Ok(newest.is_some() && time <= newest)
}
