//! `remove`: takes an entity out of the state.

use forebay_crds::pipeline::{self as spec, DeltaEmit};
use forebay_engine::ids::{OutputId, TableId};
use forebay_engine::pipeline::Workspace;
use forebay_engine::record::InputRecord;

use super::delta::Delta;
use super::newer::{event_time_of, is_outdated};
use crate::compile::{CompileContext, Compiler};
use crate::document::Document;
use crate::expression::Expression;
use crate::instance::{Failure, Hand, entity_key, scope};

#[derive(Debug)]
pub(crate) struct Remove {
    key: Option<Expression>,
    newer_by: Option<Expression>,
    removal: Removal,
}

/// A table to remove from, and where to tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Removal {
    table: TableId,
    name: Box<str>,
    output: Option<OutputId>,
}

impl Remove {
    pub(super) fn compile(spec: &spec::Remove, compiler: &mut Compiler<'_>) -> Option<Self> {
        let key = compiler.optional(".key", spec.key.as_ref());
        let newer_by = compiler.optional(".newerBy", spec.newer_by.as_ref());
        Some(Self { key, newer_by, removal: Removal::compile(&spec.table, spec.emit.as_ref(), compiler)? })
    }

    pub(super) fn apply(&self, hand: &mut Hand<'_>, workspace: &mut Workspace<'_, Document>) -> Result<(), Failure> {
        let scope = scope!(hand);
        let time = event_time_of(self.newer_by.as_ref(), scope, &mut hand.buffers.vrl)?;
        let key = entity_key(self.key.as_ref(), scope, hand.context, &mut hand.buffers.vrl, &mut hand.buffers.key)?;
        if is_outdated(time, self.removal.table, key, workspace)? {
            return Ok(());
        }
        self.removal.apply(key, hand.context, hand.record, &mut hand.buffers.built, workspace)
    }

    pub(super) fn expressions(&self) -> Vec<&Expression> {
        self.key.iter().chain(&self.newer_by).collect()
    }
}

impl Removal {
    pub(super) fn compile(table: &str, emit: Option<&DeltaEmit>, compiler: &mut Compiler<'_>) -> Option<Self> {
        let output = match emit {
            Some(emit) => Some(compiler.output(".emit.topic", &emit.topic)?),
            None => None,
        };
        Some(Self { table: compiler.table(".table", table)?, name: table.into(), output })
    }

    pub(super) fn apply(
        &self,
        key: &[u8],
        context: &CompileContext,
        record: &InputRecord<'_>,
        buffer: &mut Vec<u8>,
        workspace: &mut Workspace<'_, Document>,
    ) -> Result<(), Failure> {
        if workspace.get(self.table, key)?.is_none() {
            return Ok(());
        }
        *workspace.update(self.table, key)? = None;
        if let Some(output) = self.output {
            Delta::begin(buffer, &self.name, key).removal().push(output, key, context, record, workspace)?;
        }
        Ok(())
    }
}
