//! When entities are over: so long after the last epoch that changed them, by the epochs' clocks and no other. Decided at each read; whoever
//! removes what is over, earlier or later, changes nothing that anybody reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{TableId, Timestamp};

/// How long the entities of each table live after their last change; those of a table that is not here, for ever. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes(Arc<BTreeMap<TableId, i64>>);

impl Lifetimes {
    /// Of these tables.
    pub fn new(tables: impl IntoIterator<Item = (TableId, Duration)>) -> Self {
        let millis = |ttl: Duration| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        Self(Arc::new(tables.into_iter().map(|(table, ttl)| (table, millis(ttl))).collect()))
    }

    /// Whether every entity lives for ever.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an entity that was last changed by an epoch with the clock `written` is over in one with `clock`: from exactly its lifetime on.
    pub fn is_over(&self, table: TableId, written: Timestamp, clock: Timestamp) -> bool {
        self.0.get(&table).is_some_and(|millis| written.as_millis().saturating_add(*millis) <= clock.as_millis())
    }

    /// The shortest of them.
    pub fn shortest(&self) -> Option<Duration> {
        self.0.values().min().map(|millis| Duration::from_millis(millis.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_is_over_from_exactly_its_lifetime_on_and_only_in_its_table() {
        let at = Timestamp::from_millis;
        let lifetimes = Lifetimes::new([(TableId::new(1), Duration::from_millis(10))]);
        for (written, clock, over) in [(5, 14, false), (5, 15, true), (5, 5, false), (5, 4, false), (i64::MAX, i64::MAX, true)] {
            assert_eq!(lifetimes.is_over(TableId::new(1), at(written), at(clock)), over, "{written} {clock}");
            assert!(!lifetimes.is_over(TableId::new(2), at(written), at(clock)));
        }
    }
}
