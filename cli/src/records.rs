//! Records as lines of JSON: how people and scripts hand them in and get them out.
//!
//! `{"topic": "t", "partition": 0, "offset": 7, "timestamp": 1357034400000, "key": "k", "value": "text", "headers": {"a": "b"}}`. On the way
//! in all may be left out, topic and offset are ignored, and other fields are refused. Bytes that are no UTF-8 are `{"base64": "…"}`.

use std::collections::BTreeMap;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forebay_engine::record::InputRecord;
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    #[serde(default)]
    pub key: Option<Text>,
    #[serde(default)]
    pub value: Option<Text>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Option<Text>>,
}

/// Bytes, readable where they are text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "keys and values are text, null, or {\"base64\": \"…\"}")]
pub enum Text {
    Plain(String),
    Encoded { base64: String },
}

impl Text {
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Encoded { base64: STANDARD.encode(bytes) },
        }
    }

    pub fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Plain(text) => Ok(text.clone().into_bytes()),
            Self::Encoded { base64 } => STANDARD.decode(base64).with_context(|| format!("{base64:?} is not base64")),
        }
    }
}

impl std::fmt::Display for Text {
    /// The text; bytes that are none, as base64.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(text) | Self::Encoded { base64: text } => f.write_str(text),
        }
    }
}

impl std::fmt::Display for Line {
    /// A record is a line of JSON for people too.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| std::fmt::Error)?)
    }
}

impl Line {
    pub fn of(topic: &str, record: &InputRecord<'_>) -> Self {
        Self {
            topic: Some(topic.to_owned()),
            partition: Some(record.partition.get()),
            offset: Some(record.offset.get()),
            timestamp: Some(record.timestamp.as_millis()),
            key: record.key.map(Text::of),
            value: record.value.map(Text::of),
            headers: record.headers.iter().map(|header| (header.name.to_owned(), header.value.map(Text::of))).collect(),
        }
    }
}
