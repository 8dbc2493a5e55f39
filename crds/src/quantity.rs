//! Durations and sizes as manifests write them: `100ms`, `1m30s`, `64Mi`. Text with a unit, never a bare number.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// A duration with whole milliseconds: `100ms`, `30s`, `5m`, `1h30m`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(Duration);

/// A number of bytes: `512`, `64Ki`, `64Mi`, `2Gi`; or with decimal units `64k`, `64M`, `2G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Text that is no duration or no size. Says what is wrong with it and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {way_out}")]
pub struct QuantityError {
    problem: String,
    way_out: &'static str,
}

/// Units of time and their milliseconds, largest first: so they are written.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of size and their bytes, largest first. Decimal units are read and never written.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("", 1),
];
pub(crate) const TIME_WAY_OUT: &str = "write a whole number and a unit (ms, s, m, h, d), such as 100ms, 30s or 1h30m";
pub(crate) const SIZE_WAY_OUT: &str = "write a whole number and a unit (Ki, Mi, Gi, Ti), such as 512Ki or 64Mi";

impl TimeSpan {
    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// As the standard library has it.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for TimeSpan {
    /// Less than a millisecond is left out.
    fn from(span: Duration) -> Self {
        Self::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }
}

impl ByteSize {
    /// That many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for TimeSpan {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = |problem: String| QuantityError { problem, way_out: TIME_WAY_OUT };
        let mut millis: u64 = 0;
        let mut rest = text;
        loop {
            let (number, unit, behind) = split_quantity(rest).ok_or_else(|| wrong(format!("{text:?} is no duration")))?;
            if unit.is_empty() {
                return Err(wrong(format!("{text:?} has no unit")));
            }
            let (_, factor) =
                TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| wrong(format!("{text:?} has an unknown unit {unit:?}")))?;
            let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
            millis = part.and_then(|part| millis.checked_add(part)).ok_or_else(|| wrong(format!("{text:?} is too long")))?;
            rest = behind;
            if rest.is_empty() {
                return Ok(Self::from_millis(millis));
            }
        }
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = |problem: String| QuantityError { problem, way_out: SIZE_WAY_OUT };
        let (number, unit, rest) = split_quantity(text).ok_or_else(|| wrong(format!("{text:?} is no size")))?;
        if !rest.is_empty() {
            return Err(wrong(format!("{text:?} is no size")));
        }
        let (_, factor) =
            SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| wrong(format!("{text:?} has an unknown unit {unit:?}")))?;
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
        bytes.map(Self).ok_or_else(|| wrong(format!("{text:?} is too large")))
    }
}

/// Digits, the letters behind them, and what follows. `None` when it does not start with a digit.
fn split_quantity(text: &str) -> Option<(&str, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, behind) = text.split_at(digits);
    let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
    let (unit, rest) = behind.split_at(letters);
    (!number.is_empty()).then_some((number, unit, rest))
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in TIME_UNITS {
            if millis >= factor {
                write!(f, "{}{unit}", millis / factor)?;
                millis %= factor;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SIZE_UNITS.iter().filter(|(unit, _)| unit.ends_with('i') || unit.is_empty());
        let (unit, factor) = binary.into_iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor)).unwrap_or(&("", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

macro_rules! as_text {
    ($name:ident, $what:literal, $pattern:literal, $way_out:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: Error>(self, number: u64) -> Result<$name, E> {
                        Err(E::custom(format_args!("{number} has no unit; {}", $way_out)))
                    }

                    fn visit_i64<E: Error>(self, number: i64) -> Result<$name, E> {
                        Err(E::custom(format_args!("{number} is negative; {}", $way_out)))
                    }

                    fn visit_f64<E: Error>(self, number: f64) -> Result<$name, E> {
                        Err(E::custom(format_args!("{number} is not a whole number with a unit; {}", $way_out)))
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "maxLength": 32, "pattern": $pattern })
            }
        }
    };
}

as_text!(TimeSpan, "a duration such as 30s", "^([0-9]+(ms|s|m|h|d))+$", TIME_WAY_OUT);
as_text!(ByteSize, "a size such as 64Mi", "^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$", SIZE_WAY_OUT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_back_in_the_largest_units() {
        let check = |text: &str, millis: u64, canonical: &str| {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!(span.get(), Duration::from_millis(millis), "{text}");
            assert_eq!(span.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(span));
        };
        check("100ms", 100, "100ms");
        check("0s", 0, "0s");
        check("90s", 90_000, "1m30s");
        check("1h30m", 5_400_000, "1h30m");
        check("7d", 604_800_000, "7d");
        check("1500ms", 1_500, "1s500ms");
    }

    #[test]
    fn sizes_are_read_and_written_back_in_the_largest_binary_unit() {
        let check = |text: &str, bytes: u64, canonical: &str| {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.get(), size.to_string().as_str()), (bytes, canonical), "{text}");
            assert_eq!(canonical.parse(), Ok(size));
        };
        check("64Mi", 67_108_864, "64Mi");
        check("1024Ki", 1_048_576, "1Mi");
        check("64M", 64_000_000, "62500Ki");
        check("513", 513, "513");
        check("0", 0, "0");
    }

    #[test]
    fn text_that_is_no_quantity_is_refused_with_its_fault() {
        let check = |error: QuantityError, expected: &str| assert_eq!(error.problem, expected);
        let time = |text: &str| text.parse::<TimeSpan>().unwrap_err();
        check(time(""), r#""" is no duration"#);
        check(time("10"), r#""10" has no unit"#);
        check(time("-5s"), r#""-5s" is no duration"#);
        check(time("1.5s"), r#""1.5s" has no unit"#);
        check(time("10sec"), r#""10sec" has an unknown unit "sec""#);
        check(time("1h 30m"), r#""1h 30m" is no duration"#);
        check(time("99999999999999999999s"), r#""99999999999999999999s" is too long"#);
        check(time("999999999999999999d"), r#""999999999999999999d" is too long"#);
        let size = |text: &str| text.parse::<ByteSize>().unwrap_err();
        check(size("64MB"), r#""64MB" has an unknown unit "MB""#);
        check(size("64Mi2"), r#""64Mi2" is no size"#);
        check(size("99999999Ti"), r#""99999999Ti" is too large"#);
    }
}
