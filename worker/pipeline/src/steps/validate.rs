//! `validate`: refuses documents that are not as declared, and says everything that is wrong with one.

use std::fmt::Write as _;

use forebay_crds::pipeline::{self as spec, FieldRule, FieldType, Scalar};

use crate::compile::Compiler;
use crate::expression::{Operand, instant_of, shorten};
use crate::instance::{Failure, Hand, scope};
use crate::tape::{Item, Kind, Name};

/// A dead letter has no room for more.
const REASONS_BYTES_MAX: usize = 512;

#[derive(Debug)]
pub(crate) struct Validate {
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    path: Vec<Name>,
    /// As it stands in the manifest.
    name: String,
    rule: FieldRule,
    /// Index of its regular expression.
    pattern: Option<usize>,
}

impl Validate {
    pub(super) fn compile(spec: &spec::Validate, compiler: &mut Compiler<'_>) -> Option<Self> {
        let mut fields = Vec::with_capacity(spec.fields.len());
        for (name, rule) in &spec.fields {
            let path: Vec<Name> = name.strip_prefix('.').unwrap_or(name).split('.').map(Name::new).collect();
            if path.iter().any(|part| part.as_str().is_empty()) {
                compiler.error(&format!(".fields.{name}"), format!("{name:?} is no path"), "write for example `user.address.zip`");
                continue;
            }
            let pattern = match &rule.pattern {
                Some(pattern) => Some(compiler.pattern(&format!(".fields.{name}.pattern"), pattern)?),
                None => None,
            };
            compiler.types.learn(&path, rule);
            fields.push(Field { path, name: name.clone(), rule: rule.clone(), pattern });
        }
        Some(Self { fields })
    }

    pub(super) fn apply(&self, hand: &mut Hand<'_>) -> Result<(), Failure> {
        let doc = scope!(hand).doc;
        let mut reasons = String::new();
        for field in &self.fields {
            if let Err(reason) = field.check(doc.find(&field.path), hand)
                && reasons.len() < REASONS_BYTES_MAX
            {
                let separator = if reasons.is_empty() { "" } else { "; " };
                write!(reasons, "{separator}{}: {reason}", field.name).expect("writing to memory cannot fail");
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(Failure::Record(reasons)) }
    }

    pub(super) fn sees(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.path[0].as_str() == name)
    }
}

impl Field {
    fn check(&self, item: Option<Item<'_>>, hand: &Hand<'_>) -> Result<(), String> {
        let rule = &self.rule;
        let Some(item) = item.filter(|item| !matches!(item.kind(), Kind::Null)) else {
            return if rule.required { Err("is required, but missing or null".into()) } else { Ok(()) };
        };
        let kind = item.kind();
        if let Some(wanted) = rule.kind
            && !is_of_type(wanted, kind)
        {
            return Err(format!("{} is not {}", Operand::from(item), describe(wanted)));
        }
        match kind {
            Kind::Int(_) | Kind::Float(_) => self.check_range(kind)?,
            Kind::Text(text) => {
                self.check_length(|| text.chars().count(), "characters")?;
                if let Some(pattern) = self.pattern
                    && !hand.buffers.patterns[pattern].is_match(text)
                {
                    return Err(format!("{} does not match {}", shorten(text), rule.pattern.as_deref().unwrap_or_default()));
                }
            }
            Kind::Array => self.check_length(|| item.elements().count(), "elements")?,
            Kind::Null | Kind::Bool(_) | Kind::Object => {}
        }
        match &rule.one_of {
            Some(allowed) if !allowed.iter().any(|scalar| is_scalar(scalar, kind)) => {
                Err(format!("{} is not among the {} allowed values", Operand::from(item), allowed.len()))
            }
            Some(_) | None => Ok(()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "limits are floats in the manifest")]
    fn check_range(&self, kind: Kind<'_>) -> Result<(), String> {
        let number = match kind {
            Kind::Int(number) => number as f64,
            Kind::Float(number) => number,
            Kind::Null | Kind::Bool(_) | Kind::Text(_) | Kind::Array | Kind::Object => return Ok(()),
        };
        match (self.rule.min, self.rule.max) {
            (Some(min), _) if number < min => Err(format!("{number} is below the minimum {min}")),
            (_, Some(max)) if number > max => Err(format!("{number} is above the maximum {max}")),
            _ => Ok(()),
        }
    }

    fn check_length(&self, length: impl FnOnce() -> usize, unit: &str) -> Result<(), String> {
        if self.rule.min_length.is_none() && self.rule.max_length.is_none() {
            return Ok(());
        }
        let length = length();
        match (self.rule.min_length, self.rule.max_length) {
            (Some(min), _) if length < min as usize => Err(format!("has {length} {unit}, fewer than {min}")),
            (_, Some(max)) if length > max as usize => Err(format!("has {length} {unit}, more than {max}")),
            _ => Ok(()),
        }
    }
}

fn is_of_type(wanted: FieldType, kind: Kind<'_>) -> bool {
    match wanted {
        FieldType::String => matches!(kind, Kind::Text(_)),
        FieldType::Integer => matches!(kind, Kind::Int(_)),
        FieldType::Number => matches!(kind, Kind::Int(_) | Kind::Float(_)),
        FieldType::Boolean => matches!(kind, Kind::Bool(_)),
        FieldType::Timestamp => matches!(kind, Kind::Text(text) if instant_of(text).is_some()),
        FieldType::Array => matches!(kind, Kind::Array),
        FieldType::Object => matches!(kind, Kind::Object),
    }
}

fn describe(kind: FieldType) -> &'static str {
    match kind {
        FieldType::String => "a string",
        FieldType::Integer => "an integer of 64 bits",
        FieldType::Number => "a number",
        FieldType::Boolean => "true or false",
        FieldType::Timestamp => "a time as RFC 3339 has it",
        FieldType::Array => "an array",
        FieldType::Object => "an object",
    }
}

fn is_scalar(scalar: &Scalar, kind: Kind<'_>) -> bool {
    match (scalar, kind) {
        (Scalar::Integer(allowed), Kind::Int(number)) => *allowed == number,
        (Scalar::Text(allowed), Kind::Text(text)) => allowed == text,
        _ => false,
    }
}
