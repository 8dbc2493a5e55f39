//! How long the state tables keep their entities.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{check_range, distinct};
use crate::finding::Finding;
use crate::job::IngestionJobSpec;
use crate::path::Path;
use crate::pipeline::Step;
use crate::quantity::TimeSpan;

/// Below, an entity could be gone before the next record of its key is committed; above, nobody waits for it.
pub(crate) const TTL_RANGE: [TimeSpan; 2] = [TimeSpan::from_millis(1_000), TimeSpan::from_millis(10 * 365 * 86_400_000)];

/// The tables whose entities do not stay for ever. `at` is the place of `spec.state.tables`.
pub(super) fn check_ttls(spec: &IngestionJobSpec, at: &Path, findings: &mut Vec<Finding>) -> BTreeMap<String, Duration> {
    let known = distinct(spec.pipeline.iter().filter_map(Step::table).map(|(table, _)| table));
    let within = |step: &Step| match step {
        Step::Dedup(dedup) => Some((dedup.table.clone(), dedup.within?.get())),
        _ => None,
    };
    let mut ttls: BTreeMap<String, Duration> = spec.pipeline.iter().filter_map(within).collect();
    for (table, settings) in &spec.state.tables {
        let at = at.key(table);
        if !known.contains(table) {
            let message = format!("no step uses a table {table:?}");
            findings.push(Finding::new(&at, message, format!("name one of {}, or delete it", known.join(", "))));
        }
        let Some(ttl) = settings.ttl else { continue };
        check_range(ttl, TTL_RANGE, &at.key("ttl"), findings);
        if ttls.insert(table.clone(), ttl.get()).is_some() {
            let message = "its dedup step says with `within` how long it remembers".to_owned();
            findings.push(Finding::new(&at.key("ttl"), message, "delete this `ttl`"));
        }
    }
    ttls
}
