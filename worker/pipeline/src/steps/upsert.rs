//! `upsert`: changes one entity and tells the difference.

use forebay_crds::pipeline as spec;
use forebay_engine::ids::{OutputId, TableId};
use forebay_engine::pipeline::Workspace;

use super::change::{Change, Edit, Operation};
use super::delta::Delta;
use super::newer::{event_time_of, is_outdated};
use crate::compile::Compiler;
use crate::document::Document;
use crate::expression::Expression;
use crate::instance::{Failure, Hand, entity_key, scope};

#[derive(Debug)]
pub(crate) struct Upsert {
    table: TableId,
    name: Box<str>,
    key: Option<Expression>,
    newer_by: Option<Expression>,
    /// In the order of the delta's parts.
    changes: Vec<Change>,
    output: Option<OutputId>,
}

impl Upsert {
    pub(super) fn compile(spec: &spec::Upsert, compiler: &mut Compiler<'_>) -> Option<Self> {
        let table = compiler.table(".table", &spec.table);
        let key = compiler.optional(".key", spec.key.as_ref());
        let newer_by = compiler.optional(".newerBy", spec.newer_by.as_ref());
        let mut changes = Vec::new();
        let operations = [
            ("set", &spec.set, Operation::Set as fn(Expression) -> Operation),
            ("increment", &spec.increment, Operation::Increment),
            ("min", &spec.min, Operation::Min),
            ("max", &spec.max, Operation::Max),
        ];
        for (name, fields, operation) in operations {
            for (field, expression) in fields {
                let expression = compiler.expression(&format!(".{name}.{field}"), expression);
                changes.extend(expression.map(|expression| Change::new(field, operation(expression))));
            }
        }
        for (field, append) in &spec.append {
            let expression = compiler.expression(&format!(".append.{field}.value"), &append.value);
            changes.extend(expression.map(|expression| Change::new(field, Operation::Append(expression, append.cap as usize))));
        }
        changes.extend(spec.unset.iter().map(|field| Change::new(field, Operation::Unset)));
        let operations = [
            ("addToSet", &spec.add_to_set, Operation::AddToSet as fn(Expression) -> Operation),
            ("removeFromSet", &spec.remove_from_set, Operation::RemoveFromSet),
        ];
        for (name, fields, operation) in operations {
            for (field, expression) in fields {
                let expression = compiler.expression(&format!(".{name}.{field}"), expression);
                changes.extend(expression.map(|expression| Change::new(field, operation(expression))));
            }
        }
        let output = match &spec.emit {
            Some(emit) => Some(compiler.output(".emit.topic", &emit.topic)?),
            None => None,
        };
        Some(Self { table: table?, name: spec.table.as_str().into(), key, newer_by, changes, output })
    }

    pub(super) fn apply(&self, hand: &mut Hand<'_>, workspace: &mut Workspace<'_, Document>) -> Result<(), Failure> {
        let scope = scope!(hand);
        let vrl = &mut hand.buffers.vrl;
        let time = event_time_of(self.newer_by.as_ref(), scope, vrl)?;
        let key = entity_key(self.key.as_ref(), scope, hand.context, vrl, &mut hand.buffers.key)?;
        if is_outdated(time, self.table, key, workspace)? {
            return Ok(());
        }
        let entity = workspace.update(self.table, key)?;
        let is_new = entity.is_none();
        let document = entity.get_or_insert_default();
        let Document::Entity { fields, newer_by } = document else {
            return Err(Failure::Record(format!("table {} holds what a dedup step remembers, no entities", self.name)));
        };
        *newer_by = time.or(*newer_by);
        let delta = Delta::begin(&mut hand.buffers.built, &self.name, key);
        let mut edit = Edit { fields, delta, scratch: &mut hand.buffers.change, near: 0 };
        for change in &self.changes {
            change.apply(scope, vrl, &mut edit)?;
        }
        let delta = edit.delta;
        if delta.is_empty() {
            // An entity exists from its first delta on, so that deltas alone tell the whole state.
            if is_new {
                *entity = None;
            }
            return Ok(());
        }
        match self.output {
            Some(output) => delta.push(output, key, hand.context, hand.record, workspace),
            None => Ok(()),
        }
    }

    pub(super) fn expressions(&self) -> Vec<&Expression> {
        self.key.iter().chain(&self.newer_by).chain(self.changes.iter().filter_map(Change::expression)).collect()
    }
}
