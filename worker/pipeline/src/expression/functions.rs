//! The functions that expressions can call. Names, parameters and meaning are VRL's own (functions.vrl.dev), so that a program that works here
//! works in Vector:
//!
//! - values: `exists`, `del`, `is_null`, `is_string`, `is_integer`, `is_float`, `is_boolean`, `is_array`, `is_object`, `string`, `int`, `float`,
//!   `bool`, `array`, `object`, `to_string`, `to_int`, `to_float`, `to_bool`;
//! - strings: `upcase`, `downcase`, `strip_whitespace`, `contains`, `starts_with`, `ends_with`, `split`, `join`, `replace`, `strlen`;
//! - numbers and collections: `abs`, `ceil`, `floor`, `round`, `mod`, `length`, `includes`, `push`, `merge`;
//! - time: `now`, the epoch's clock, and `to_unix_timestamp`.
//!
//! Differences: `replace` takes a string for its pattern, and `round`, `ceil`, `floor` have no `precision`.

mod special;

use std::borrow::Cow;
use std::fmt;

use vrl::compiler::conversion::Conversion;
use vrl::compiler::function::{Compiled, Example};
use vrl::compiler::prelude::*;

use special::{Del, Exists, Now};

/// All of them.
pub fn all() -> Vec<Box<dyn Function>> {
    let mut functions: Vec<Box<dyn Function>> = vec![Box::new(Exists), Box::new(Del), Box::new(Now)];
    functions.extend(PLAIN.iter().map(|plain| Box::new(*plain) as Box<dyn Function>));
    functions
}

/// The most parameters that any of them has.
const PARAMETERS_MAX: usize = 3;

/// A function of values that has no other effect.
#[derive(Clone, Copy)]
struct Plain {
    name: &'static str,
    parameters: &'static [Parameter],
    returns: fn() -> TypeDef,
    /// Whether it can fail for arguments of the right types.
    can_fail: bool,
    /// The arguments, null where an optional one is missing.
    run: fn(&mut [Value; PARAMETERS_MAX]) -> Result<Value, ExpressionError>,
}

const fn parameter(name: &'static str, kind: u16) -> Parameter {
    Parameter::required(name, kind, "")
}

const ANY: &[Parameter] = &[parameter("value", kind::ANY)];
const STRING: &[Parameter] = &[parameter("value", kind::BYTES)];
const TWO_STRINGS: &[Parameter] = &[parameter("value", kind::BYTES), parameter("substring", kind::BYTES)];
const NUMBER: &[Parameter] = &[parameter("value", kind::INTEGER | kind::FLOAT)];

macro_rules! plain {
    ($name:literal, $parameters:expr, $returns:expr, fails: $can_fail:literal, $run:expr) => {
        Plain { name: $name, parameters: $parameters, returns: || $returns, can_fail: $can_fail, run: $run }
    };
}

const PLAIN: &[Plain] = &[
    plain!("is_null", ANY, TypeDef::boolean(), fails: false, |a| Ok(matches!(a[0], Value::Null).into())),
    plain!("is_string", ANY, TypeDef::boolean(), fails: false, |a| Ok(matches!(a[0], Value::Bytes(_) | Value::String(_)).into())),
    plain!("is_integer", ANY, TypeDef::boolean(), fails: false, |a| Ok(matches!(a[0], Value::Integer(_)).into())),
    plain!("is_float", ANY, TypeDef::boolean(), fails: false, |a| Ok(matches!(a[0], Value::Float(_)).into())),
    plain!("is_boolean", ANY, TypeDef::boolean(), fails: false, |a| Ok(matches!(a[0], Value::Boolean(_)).into())),
    plain!("is_array", ANY, TypeDef::boolean(), fails: false, |a| Ok(matches!(a[0], Value::Array(_)).into())),
    plain!("is_object", ANY, TypeDef::boolean(), fails: false, |a| Ok(matches!(a[0], Value::Object(_)).into())),
    plain!("string", ANY, TypeDef::bytes(), fails: true, |a| Ok(Value::Bytes(take(a).try_bytes()?))),
    plain!("int", ANY, TypeDef::integer(), fails: true, |a| Ok(Value::Integer(take(a).try_integer()?))),
    plain!("float", ANY, TypeDef::float(), fails: true, |a| float(take(a).try_float()?)),
    plain!("bool", ANY, TypeDef::boolean(), fails: true, |a| Ok(Value::Boolean(take(a).try_boolean()?))),
    plain!("array", ANY, TypeDef::array(Collection::any()), fails: true, |a| Ok(Value::Array(take(a).try_array()?))),
    plain!("object", ANY, TypeDef::object(Collection::any()), fails: true, |a| Ok(Value::Object(take(a).try_object()?))),
    plain!("to_string", ANY, TypeDef::bytes(), fails: true, |a| to_string(&take(a))),
    plain!("to_int", ANY, TypeDef::integer(), fails: true, |a| to_int(take(a))),
    plain!("to_float", ANY, TypeDef::float(), fails: true, |a| to_float(take(a))),
    plain!("to_bool", ANY, TypeDef::boolean(), fails: true, |a| to_bool(take(a))),
    plain!("upcase", STRING, TypeDef::bytes(), fails: false, |a| Ok(text(&a[0])?.to_uppercase().into())),
    plain!("downcase", STRING, TypeDef::bytes(), fails: false, |a| Ok(text(&a[0])?.to_lowercase().into())),
    plain!("strip_whitespace", STRING, TypeDef::bytes(), fails: false, |a| Ok(text(&a[0])?.trim().into())),
    plain!("strlen", STRING, TypeDef::integer(), fails: false, |a| count(text(&a[0])?.chars().count())),
    plain!("contains", TWO_STRINGS, TypeDef::boolean(), fails: false, |a| Ok(text(&a[0])?.contains(&*text(&a[1])?).into())),
    plain!("starts_with", TWO_STRINGS, TypeDef::boolean(), fails: false, |a| Ok(text(&a[0])?.starts_with(&*text(&a[1])?).into())),
    plain!("ends_with", TWO_STRINGS, TypeDef::boolean(), fails: false, |a| Ok(text(&a[0])?.ends_with(&*text(&a[1])?).into())),
    plain!(
        "split",
        &[parameter("value", kind::BYTES), parameter("pattern", kind::BYTES)],
        TypeDef::array(Collection::from_unknown(Kind::bytes())),
        fails: false,
        |a| split(&a[0], &text(&a[1])?)
    ),
    plain!(
        "join",
        &[parameter("value", kind::ARRAY), Parameter::optional("separator", kind::BYTES, "")],
        TypeDef::bytes(),
        fails: true,
        |a| join(&a[0], &a[1])
    ),
    plain!(
        "replace",
        &[parameter("value", kind::BYTES), parameter("pattern", kind::BYTES), parameter("with", kind::BYTES)],
        TypeDef::bytes(),
        fails: false,
        |a| Ok(text(&a[0])?.replace(&*text(&a[1])?, &text(&a[2])?).into())
    ),
    plain!("abs", NUMBER, TypeDef::integer().or_float(), fails: false, |a| number(take(a), i64::wrapping_abs, f64::abs)),
    plain!("ceil", NUMBER, TypeDef::integer().or_float(), fails: false, |a| number(take(a), |n| n, f64::ceil)),
    plain!("floor", NUMBER, TypeDef::integer().or_float(), fails: false, |a| number(take(a), |n| n, f64::floor)),
    plain!("round", NUMBER, TypeDef::integer().or_float(), fails: false, |a| number(take(a), |n| n, f64::round)),
    plain!(
        "mod",
        &[parameter("value", kind::INTEGER | kind::FLOAT), parameter("modulus", kind::INTEGER | kind::FLOAT)],
        TypeDef::integer().or_float(),
        fails: true,
        |a| {
            let modulus = take_second(a);
            Ok(take(a).try_rem(modulus)?)
        }
    ),
    plain!(
        "length",
        &[parameter("value", kind::ARRAY | kind::OBJECT | kind::BYTES)],
        TypeDef::integer(),
        fails: false,
        |a| match &a[0] {
            Value::Array(items) => count(items.len()),
            Value::Object(members) => count(members.len()),
            other => count(text(other)?.len()),
        }
    ),
    plain!(
        "includes",
        &[parameter("value", kind::ARRAY), parameter("item", kind::ANY)],
        TypeDef::boolean(),
        fails: false,
        |a| Ok(a[0].as_array().is_some_and(|items| items.contains(&a[1])).into())
    ),
    plain!(
        "push",
        &[parameter("value", kind::ARRAY), parameter("item", kind::ANY)],
        TypeDef::array(Collection::any()),
        fails: false,
        |a| {
            let item = take_second(a);
            let mut items = take(a).try_array()?;
            items.push(item);
            Ok(Value::Array(items))
        }
    ),
    plain!(
        "merge",
        &[parameter("to", kind::OBJECT), parameter("from", kind::OBJECT)],
        TypeDef::object(Collection::any()),
        fails: false,
        |a| {
            let from = take_second(a).try_object()?;
            let mut to = take(a).try_object()?;
            to.extend(from);
            Ok(Value::Object(to))
        }
    ),
    plain!(
        "to_unix_timestamp",
        &[parameter("value", kind::TIMESTAMP)],
        TypeDef::integer(),
        fails: false,
        |a| Ok(Value::Integer(take(a).try_timestamp()?.timestamp()))
    ),
];

fn take(arguments: &mut [Value]) -> Value {
    std::mem::replace(&mut arguments[0], Value::Null)
}

fn take_second(arguments: &mut [Value]) -> Value {
    std::mem::replace(&mut arguments[1], Value::Null)
}

fn text(value: &Value) -> Result<Cow<'_, str>, ExpressionError> {
    Ok(value.try_bytes_utf8_lossy()?)
}

fn count(count: usize) -> Result<Value, ExpressionError> {
    i64::try_from(count).map(Value::Integer).map_err(|e| e.to_string().into())
}

fn float(number: f64) -> Result<Value, ExpressionError> {
    NotNan::new(number).map(Value::Float).map_err(|e| e.to_string().into())
}

fn number(value: Value, int: fn(i64) -> i64, float: fn(f64) -> f64) -> Result<Value, ExpressionError> {
    match value {
        Value::Integer(number) => Ok(Value::Integer(int(number))),
        other => self::float(float(other.try_float()?)),
    }
}

fn to_string(value: &Value) -> Result<Value, ExpressionError> {
    match value {
        Value::Null => Ok("".into()),
        Value::Array(_) | Value::Object(_) | Value::Regex(_) => Err(format!("unable to coerce {} into string", value.kind()).into()),
        Value::Bytes(_) | Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Timestamp(_) => {
            Ok(value.to_string_lossy().into_owned().into())
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "as VRL's own")]
fn to_int(value: Value) -> Result<Value, ExpressionError> {
    match value {
        Value::Float(number) => Ok(Value::Integer(number.into_inner() as i64)),
        Value::Timestamp(time) => Ok(Value::Integer(time.timestamp())),
        other => convert(other, &Conversion::Integer, 0.into(), |truth| i64::from(truth).into()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "as VRL's own")]
fn to_float(value: Value) -> Result<Value, ExpressionError> {
    match value {
        Value::Integer(number) => float(number as f64),
        Value::Timestamp(time) => float(time.timestamp_micros() as f64 / 1e6),
        other => {
            convert(other, &Conversion::Float, Value::from_f64_or_zero(0.0), |truth| Value::from_f64_or_zero(f64::from(u8::from(truth))))
        }
    }
}

fn to_bool(value: Value) -> Result<Value, ExpressionError> {
    match value {
        Value::Integer(number) => Ok((number != 0).into()),
        Value::Float(number) => Ok((number.into_inner() != 0.0).into()),
        other => convert(other, &Conversion::Boolean, false.into(), Value::from),
    }
}

/// What the three above have in common: the same type stays, null and booleans are given, strings are read.
fn convert(value: Value, conversion: &Conversion, null: Value, boolean: fn(bool) -> Value) -> Result<Value, ExpressionError> {
    match value {
        Value::Null => Ok(null),
        Value::Boolean(truth) => Ok(boolean(truth)),
        Value::Integer(_) | Value::Float(_) => Ok(value),
        Value::Bytes(_) | Value::String(_) => conversion.convert(value.try_bytes()?).map_err(|e| e.to_string().into()),
        Value::Array(_) | Value::Object(_) | Value::Regex(_) | Value::Timestamp(_) => {
            Err(format!("unable to coerce {} into {conversion:?}", value.kind()).to_lowercase().into())
        }
    }
}

/// The parts are slices of the whole.
fn split(value: &Value, pattern: &str) -> Result<Value, ExpressionError> {
    let parts = match (value, text(value)?) {
        (Value::Bytes(whole), Cow::Borrowed(text)) => text.split(pattern).map(|part| whole.slice_ref(part.as_bytes()).into()).collect(),
        (_, text) => text.split(pattern).map(Value::from).collect(),
    };
    Ok(Value::Array(parts))
}

fn join(items: &Value, separator: &Value) -> Result<Value, ExpressionError> {
    let separator = if separator.is_null() { "".into() } else { text(separator)? };
    let items: Vec<_> = items.as_array().unwrap_or_default().iter().map(text).collect::<Result<_, _>>()?;
    Ok(items.join(&*separator).into())
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Function for Plain {
    fn identifier(&self) -> &'static str {
        self.name
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn category(&self) -> &'static str {
        "Forebay"
    }

    fn return_kind(&self) -> u16 {
        kind::ANY
    }

    fn examples(&self) -> &'static [Example] {
        &[]
    }

    fn parameters(&self) -> &'static [Parameter] {
        self.parameters
    }

    fn compile(&self, _: &TypeState, _: &mut FunctionCompileContext, arguments: ArgumentList) -> Compiled {
        let arguments = self.parameters.iter().map(|parameter| arguments.optional(parameter.keyword)).collect();
        Ok(Call { plain: *self, arguments }.as_expr())
    }
}

#[derive(Clone, Debug)]
struct Call {
    plain: Plain,
    arguments: Vec<Option<Box<dyn Expression>>>,
}

impl FunctionExpression for Call {
    fn resolve(&self, ctx: &mut Context) -> Resolved {
        let mut values = [const { Value::Null }; PARAMETERS_MAX];
        for (value, argument) in values.iter_mut().zip(&self.arguments) {
            if let Some(argument) = argument {
                *value = argument.resolve(ctx)?;
            }
        }
        (self.plain.run)(&mut values)
    }

    fn type_def(&self, _: &TypeState) -> TypeDef {
        (self.plain.returns)().maybe_fallible(self.plain.can_fail)
    }
}
