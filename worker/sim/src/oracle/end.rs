//! What must hold when all is worked off: computed anew from the inputs, compared with what a committed reader sees.

use forebay_engine::ids::{OutputId, Partition};

use super::{Invariant, Oracle, compare};
use crate::log::{OutputBody, SimLog, Slot};
use crate::model::Model;
use crate::pipeline::{DEAD_LETTERS, RESULTS};
use crate::store::SimStore;

impl Oracle {
    /// I1, I3 and I8 once more, over everything; and I6 of savepoints.
    pub fn at_the_end(&mut self, log: &SimLog, store: &SimStore) {
        self.savepoints_at_the_end(store);
        for (partition, input) in (0u32..).map(Partition::new).zip(&log.inputs) {
            let group = log.group.get(&partition).map_or(0, |offset| offset.get());
            let rest = input.iter().skip(group as usize).filter(|record| record.is_some()).count();
            self.demand(rest == 0, Invariant::I1ExactlyOnce, || {
                format!("partition {partition}: {rest} records lie behind the group's offset {group}")
            });
            let mut expected = Vec::new();
            let mut model = Model::default();
            for (offset, record) in (0u64..).zip(input).filter_map(|(offset, record)| Some((offset, record.as_ref()?))) {
                model.apply(partition, offset, record, &mut expected);
            }
            let actual = [RESULTS, DEAD_LETTERS].map(|output| committed(log, output, partition));
            // The clocks were compared epoch by epoch; here they are taken as they are.
            let strip = |bodies: Vec<OutputBody>| bodies.into_iter().map(without_clock).collect::<Vec<_>>();
            if let Err((invariant, what)) = compare(&expected, &actual.map(strip), forebay_engine::ids::Timestamp::default()) {
                self.report(invariant, format!("at the end, partition {partition}: {what}"));
            }
        }
    }
}

fn without_clock(mut body: OutputBody) -> OutputBody {
    if let Some(value) = &mut body.value {
        value.truncate(value.len() - 8);
        value.extend_from_slice(&0i64.to_be_bytes());
    }
    body
}

/// As a committed reader sees it: by the markers alone.
fn committed(log: &SimLog, output: OutputId, partition: Partition) -> Vec<OutputBody> {
    let slots = log.outputs[&(output, partition)].slots();
    let is_in = |wanted| slots.iter().any(|slot| matches!(slot, Slot::Marker { txn, commit: true } if *txn == wanted));
    let body = |slot: &Slot<OutputBody>| match slot {
        Slot::Record(txn, body) if is_in(*txn) => Some(body.clone()),
        Slot::Record(..) | Slot::Marker { .. } => None,
    };
    slots.iter().filter_map(body).collect()
}
