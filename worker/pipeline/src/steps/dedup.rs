//! `dedup`: ends the way of a record that its key has seen before.

use forebay_crds::pipeline as spec;
use forebay_engine::ids::TableId;
use forebay_engine::pipeline::{Verdict, Workspace};

use crate::compile::Compiler;
use crate::document::{Document, LastWindow, WithinWindow};
use crate::expression::Expression;
use crate::instance::{Failure, Flow, Hand, scope};
use crate::siphash::siphash;

/// What `withinRecordsMax` is when the manifest does not say: 16 KiB of state for a key.
const WITHIN_RECORDS_MAX: u32 = 1024;

#[derive(Debug)]
pub(crate) struct Dedup {
    table: TableId,
    by: Vec<Expression>,
    memory: Memory,
}

#[derive(Clone, Copy, Debug)]
enum Memory {
    Last { records: usize },
    Within { millis: i64, records_max: usize },
}

impl Dedup {
    pub(super) fn compile(spec: &spec::Dedup, compiler: &mut Compiler<'_>) -> Option<Self> {
        let by = spec.by.iter().enumerate().filter_map(|(index, by)| compiler.expression(&format!(".by[{index}]"), by)).collect();
        let memory = match (spec.last, spec.within) {
            (Some(records), None) => Memory::Last { records: records as usize },
            (None, Some(within)) => Memory::Within {
                millis: i64::try_from(within.get().as_millis()).unwrap_or(i64::MAX),
                records_max: spec.within_records_max.unwrap_or(WITHIN_RECORDS_MAX) as usize,
            },
            // The check of the manifest has said so.
            (Some(_), Some(_)) | (None, None) => return None,
        };
        Some(Self { table: compiler.table(".table", &spec.table)?, by, memory })
    }

    pub(super) fn apply(&self, hand: &mut Hand<'_>, workspace: &mut Workspace<'_, Document>) -> Result<Flow, Failure> {
        let id = self.id(hand)?;
        // A record without a key is remembered with the others of its partition that have none.
        let key = hand.record.key.unwrap_or_default();
        let now = hand.now.as_millis();
        let seen = match (workspace.get(self.table, key)?, self.memory) {
            (Some(Document::Last(window)), Memory::Last { .. }) => window.contains(id),
            (Some(Document::Within(window)), Memory::Within { millis, .. }) => window.contains(id, oldest(now, millis)),
            (Some(Document::Entity { .. }), _) => return Err(Failure::Record("the table of this step holds entities".into())),
            // The manifest had the other kind of memory before: it starts anew.
            (Some(Document::Last(_) | Document::Within(_)) | None, _) => false,
        };
        if seen {
            return Ok(Flow::End(Verdict::Duplicate));
        }
        let window = workspace.update(self.table, key)?;
        match (window, self.memory) {
            (Some(Document::Last(window)), Memory::Last { records }) => window.push(id, records),
            (Some(Document::Within(window)), Memory::Within { millis, records_max }) => {
                window.push(id, now, oldest(now, millis), records_max);
            }
            (window, Memory::Last { records }) => {
                let mut new = LastWindow::default();
                new.push(id, records);
                *window = Some(Document::Last(new));
            }
            (window, Memory::Within { millis, records_max }) => {
                let mut new = WithinWindow::default();
                new.push(id, now, oldest(now, millis), records_max);
                *window = Some(Document::Within(new));
            }
        }
        Ok(Flow::Next)
    }

    pub(super) fn expressions(&self) -> Vec<&Expression> {
        self.by.iter().collect()
    }

    fn id(&self, hand: &mut Hand<'_>) -> Result<u64, String> {
        let scope = scope!(hand);
        hand.buffers.built.clear();
        for expression in &self.by {
            let operand = expression.evaluate(scope, &mut hand.buffers.vrl)?;
            if operand.is_null() {
                return Err(format!("{} is null, so the record cannot be told from others", expression.text()));
            }
            operand.write_identity(&mut hand.buffers.built);
        }
        Ok(siphash(&hand.buffers.built))
    }
}

/// The oldest clock that still counts: a record seen exactly `millis` ago does not.
fn oldest(now: i64, millis: i64) -> i64 {
    now.saturating_sub(millis).saturating_add(1)
}
