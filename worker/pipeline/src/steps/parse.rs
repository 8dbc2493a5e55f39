//! `parse`: the record's value becomes the document.

use forebay_crds::pipeline::{self as spec, Csv, Empty, Format, Oversized, Step, Tombstone};
use forebay_engine::pipeline::{Verdict, Workspace};

use super::remove::Removal;
use crate::compile::Compiler;
use crate::document::Document;
use crate::instance::{Failure, Flow, Form, Hand};
use crate::tape::CsvReader;

#[derive(Debug)]
pub(crate) struct Parse {
    format: Format,
    csv: Option<Csv>,
    tombstone: Tombstone,
    empty: Empty,
    oversized: Oversized,
    bytes_max: usize,
    /// What a tombstone removes.
    removals: Vec<Removal>,
}

impl Parse {
    pub(super) fn compile(spec: &spec::Parse, all: &[Step], compiler: &mut Compiler<'_>) -> Option<Self> {
        let removes = spec.tombstone == Tombstone::RemoveEntity;
        let mut removals: Vec<Removal> = Vec::new();
        for step in all.iter().filter(|_| removes) {
            if let Step::Upsert(upsert) = step
                && upsert.key.is_none()
            {
                let removal = Removal::compile(&upsert.table, upsert.emit.as_ref(), compiler)?;
                if !removals.contains(&removal) {
                    removals.push(removal);
                }
            }
        }
        if removes && removals.is_empty() {
            let help = "add an upsert without `key`, or write `tombstone: skip`";
            compiler.error(".tombstone", "no upsert of this pipeline writes under the record's key".into(), help);
        }
        Some(Self {
            format: spec.format,
            csv: spec.csv.clone(),
            tombstone: spec.tombstone,
            empty: spec.empty,
            oversized: spec.oversized,
            bytes_max: spec.size_max.map_or(usize::MAX, |size| usize::try_from(size.get()).unwrap_or(usize::MAX)),
            removals,
        })
    }

    pub(super) fn csv_reader(&self) -> Option<CsvReader> {
        self.csv.as_ref().map(CsvReader::new)
    }

    pub(super) fn apply(&self, hand: &mut Hand<'_>, workspace: &mut Workspace<'_, Document>) -> Result<Flow, Failure> {
        let value = match (hand.record.value, self.empty) {
            (Some([]), Empty::Reject) => return Err(Failure::Record("the value is empty".into())),
            (Some([]), Empty::Skip) => return Ok(Flow::End(Verdict::Filtered)),
            (Some([]), Empty::Tombstone) | (None, _) => return self.tombstone(hand, workspace),
            (Some(value), _) => value,
        };
        if value.len() > self.bytes_max {
            return match self.oversized {
                Oversized::Reject => {
                    Err(Failure::Record(format!("the value has {} bytes, more than the {} allowed", value.len(), self.bytes_max)))
                }
                Oversized::Skip => Ok(Flow::End(Verdict::Filtered)),
            };
        }
        hand.text = std::str::from_utf8(value).map_err(|e| Failure::Record(format!("the value is not UTF-8 text: {e}")))?;
        match self.format {
            Format::Json => {
                hand.buffers.tape.parse_json(hand.text)?;
                hand.form = Form::Original;
            }
            Format::Csv => {
                let reader = hand.buffers.csv.as_mut().expect("a pipeline of CSV has a reader");
                reader.parse(hand.text, &mut hand.buffers.tape)?;
                hand.form = Form::Changed;
            }
        }
        Ok(Flow::Next)
    }

    fn tombstone(&self, hand: &mut Hand<'_>, workspace: &mut Workspace<'_, Document>) -> Result<Flow, Failure> {
        match self.tombstone {
            Tombstone::Reject => Err(Failure::Record("the record is a tombstone: its value is null".into())),
            Tombstone::Skip => Ok(Flow::End(Verdict::Filtered)),
            Tombstone::RemoveEntity => {
                let key = hand.record.key.ok_or_else(|| Failure::Record("the record is a tombstone and has no key".into()))?;
                for removal in &self.removals {
                    removal.apply(key, hand.context, hand.record, &mut hand.buffers.built, workspace)?;
                }
                Ok(Flow::End(Verdict::Processed))
            }
        }
    }
}
