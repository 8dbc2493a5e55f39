//! `emit` and `route`: put the document out.

use std::ops::Range;

use forebay_crds::pipeline::{self as spec, Partitioner};
use forebay_engine::ids::{OutputId, Timestamp};
use forebay_engine::pipeline::Workspace;
use forebay_engine::record::{Destination, Header};

use crate::compile::{CompileContext, Compiler};
use crate::document::Document;
use crate::expression::{Expression, Operand, instant_of};
use crate::instance::{Failure, Hand, scope};

#[derive(Debug)]
pub(crate) struct Emit {
    output: OutputId,
    key: Option<Expression>,
    timestamp: Option<Expression>,
    headers: Vec<(Box<str>, Expression)>,
    partitioner: Partitioner,
    value: Option<Expression>,
}

impl Emit {
    /// `place` is where it lies below the step.
    pub(super) fn compile(spec: &spec::Emit, place: &str, compiler: &mut Compiler<'_>) -> Option<Self> {
        let key = compiler.optional(&format!("{place}.key"), spec.key.as_ref());
        let timestamp = compiler.optional(&format!("{place}.timestamp"), spec.timestamp.as_ref());
        let value = compiler.optional(&format!("{place}.value"), spec.value.as_ref());
        let mut headers = Vec::with_capacity(spec.headers.len());
        for (name, expression) in &spec.headers {
            headers.push((name.as_str().into(), compiler.expression(&format!("{place}.headers.{name}"), expression)?));
        }
        let output = compiler.output(&format!("{place}.topic"), &spec.topic)?;
        Some(Self { output, key, timestamp, headers, partitioner: spec.partitioner, value })
    }

    pub(super) fn apply(&self, hand: &mut Hand<'_>, workspace: &mut Workspace<'_, Document>) -> Result<(), Failure> {
        if self.value.is_none() {
            hand.prepare_document();
        }
        let timestamp = self.timestamp(hand)?;
        // Taken out, so that the rest of the hand can be read while it is borrowed.
        let mut built = std::mem::take(&mut hand.buffers.built);
        built.clear();
        let done = self.push(timestamp, hand, &mut built, workspace);
        hand.buffers.built = built;
        done
    }

    pub(super) fn expressions(&self) -> Vec<&Expression> {
        let named = self.headers.iter().map(|(_, expression)| expression);
        self.key.iter().chain(&self.timestamp).chain(&self.value).chain(named).collect()
    }

    fn push(
        &self,
        timestamp: Timestamp,
        hand: &mut Hand<'_>,
        built: &mut Vec<u8>,
        workspace: &mut Workspace<'_, Document>,
    ) -> Result<(), Failure> {
        let scope = scope!(hand);
        let vrl = &mut hand.buffers.vrl;
        let has_key = match &self.key {
            Some(expression) => expression.evaluate(scope, vrl)?.write_plain(built).map_err(|reason| format!("key: {reason}"))?,
            None => false,
        };
        let key_end = built.len();
        let mut ranges: Vec<(&str, Range<usize>)> = Vec::with_capacity(self.headers.len());
        for (name, expression) in &self.headers {
            let from = built.len();
            let operand = expression.evaluate(scope, vrl)?;
            if operand.write_plain(built).map_err(|reason| format!("header {name}: {reason}"))? {
                ranges.push((name, from..built.len()));
            }
        }
        let value = match &self.value {
            Some(expression) => Some(expression.evaluate(scope, vrl)?),
            None => None,
        };
        let headers: Vec<_> = ranges.iter().map(|(name, range)| Header { name, value: Some(&built[range.clone()]) }).collect();
        let key = match &self.key {
            Some(_) => has_key.then_some(&built[..key_end]),
            None => hand.record.key,
        };
        let partition = match self.partitioner {
            Partitioner::Murmur2 => None,
            Partitioner::Input => Some(hand.record.partition),
        };
        let to = Destination { output: self.output, partition, timestamp, key };
        let outputs = workspace.outputs();
        let before = outputs.bytes();
        match value {
            None => outputs.push_with(to, &headers, |buffer| hand.write_document(buffer)),
            Some(Operand::Null) => outputs.push(to, None, &headers),
            Some(operand) => outputs.push_with(to, &headers, |buffer| operand.write_json(buffer)),
        }
        check_taken(before, to, workspace, hand.context)
    }

    fn timestamp(&self, hand: &mut Hand<'_>) -> Result<Timestamp, Failure> {
        let Some(expression) = &self.timestamp else {
            return Ok(hand.record.timestamp);
        };
        let operand = expression.evaluate(scope!(hand), &mut hand.buffers.vrl)?;
        let millis = match &operand {
            Operand::Int(millis) => Some(*millis),
            Operand::Text(text) => instant_of(text).map(|instant| instant.as_millisecond()),
            _ => None,
        };
        // Kafka has none before 1970.
        let millis = millis.filter(|millis| *millis >= 0);
        let millis = millis.ok_or_else(|| format!("timestamp: {operand} is neither RFC 3339 nor milliseconds since 1970"))?;
        Ok(Timestamp::from_millis(millis))
    }
}

/// Whether the output that was just pushed is one that its topic takes.
pub(super) fn check_taken(
    before: usize,
    to: Destination<'_>,
    workspace: &mut Workspace<'_, Document>,
    context: &CompileContext,
) -> Result<(), Failure> {
    let bytes = workspace.outputs().bytes() - before;
    if bytes > context.record_bytes_max {
        let reason = format!("the output would have {bytes} bytes, more than the {} that a topic takes", context.record_bytes_max);
        return Err(Failure::Record(reason));
    }
    let nearest = context.nearest_timestamp(to.output, to.timestamp, workspace.now());
    if nearest != to.timestamp {
        let (side, setting) = if nearest < to.timestamp { ("newer", "after") } else { ("older", "before") };
        let (found, nearest) = (to.timestamp.as_millis(), nearest.as_millis());
        let reason =
            format!("time stamp {found} is {side} than {nearest}, all that the topic takes (`message.timestamp.{setting}.max.ms`)");
        return Err(Failure::Record(reason));
    }
    Ok(())
}

/// The routes of one `route` step.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<(Option<Expression>, Emit)>,
}

impl Routes {
    pub(super) fn compile(spec: &[spec::Route], compiler: &mut Compiler<'_>) -> Option<Self> {
        let mut routes = Vec::with_capacity(spec.len());
        for (index, route) in spec.iter().enumerate() {
            let when = match &route.when {
                Some(when) => Some(compiler.expression(&format!("[{index}].when"), when)?),
                None => None,
            };
            routes.push((when, Emit::compile(&route.emit, &format!("[{index}].emit"), compiler)?));
        }
        Some(Self { routes })
    }

    pub(super) fn apply(&self, hand: &mut Hand<'_>, workspace: &mut Workspace<'_, Document>) -> Result<(), Failure> {
        let mut taken = false;
        for (when, emit) in &self.routes {
            let applies = match when {
                Some(when) => when.holds(scope!(hand), &mut hand.buffers.vrl)?,
                None => !taken,
            };
            if applies {
                taken = true;
                emit.apply(hand, workspace)?;
            }
        }
        Ok(())
    }

    pub(super) fn expressions(&self) -> Vec<&Expression> {
        self.routes.iter().flat_map(|(when, emit)| when.iter().chain(emit.expressions())).collect()
    }
}
