//! What a job reads, and from where.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A time is a date, a T, a time of day and a zone; whether there is such a day is for the parser.
pub(crate) const START_FROM: &str = "^(earliest|latest|group|[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))$";

/// One topic to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InputSpec {
    /// The name by which metrics and messages call it.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// The topic.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    pub topic: String,
    /// Where a job without any state starts to read: `earliest` (the default), `latest`, `group` (at the offsets of the consumer group), or
    /// at a time such as `2013-01-01T00:00:00Z`. Without effect once the job has run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_from: StartFrom,
    /// How the topic's producers choose a record's partition from its key: the state of a key lies with its partition.
    #[serde(default, skip_serializing_if = "is_default")]
    pub partitioner: InputPartitioner,
}

/// Where a job without any state starts to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// At the oldest record.
    #[default]
    Earliest,
    /// Behind the newest record.
    Latest,
    /// At the committed offsets of the consumer group.
    Group,
    /// At the first record with this time stamp or a later one.
    Timestamp(jiff::Timestamp),
}

/// How producers choose partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum InputPartitioner {
    /// murmur2 of the key, as Java clients do.
    #[default]
    Murmur2,
}

impl FromStr for StartFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            "group" => Ok(Self::Group),
            _ => text.parse().map(Self::Timestamp).map_err(|_| {
                format!("{text:?} is no place to start from; write earliest, latest, group, or a time such as 2013-01-01T00:00:00Z")
            }),
        }
    }
}

impl fmt::Display for StartFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::Group => f.write_str("group"),
            Self::Timestamp(time) => time.fmt(f),
        }
    }
}

impl Serialize for StartFrom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StartFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for StartFrom {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StartFrom".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 64, "pattern": START_FROM })
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
