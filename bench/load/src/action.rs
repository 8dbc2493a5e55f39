//! The workload `action` written by hand: profiles stay decoded in memory, what has changed is written to RocksDB once per transaction, and JSON
//! that is passed on is copied, not written anew.

use std::path::Path;

use anyhow::{Context, Result};
use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options, WriteBatch, WriteOptions};
use rustc_hash::FxBuildHasher;
use serde::Deserialize;
use sonic_rs::{JsonValueTrait, LazyValue};

use crate::by_hand::Work;
use crate::librdkafka::{Consumed, Outgoing};

const TYPES: [&str; 8] = ["page_view", "click", "add_to_cart", "purchase", "search", "login", "signup", "refund"];

/// How many event ids of a user are remembered to find duplicates.
const RECENT_MAX: usize = 64;

/// Profiles kept in memory between transactions: about 200 MB.
const CACHED_MAX: usize = 300_000;

/// The outputs' places, in the order that `workload.json` has them in.
const ENRICHED: usize = 0;
const UPDATES: usize = 1;
const REJECTED: usize = 2;

#[derive(Deserialize)]
struct Event<'r> {
    #[serde(borrow, rename = "tenant")]
    _tenant: &'r str,
    #[serde(borrow, rename = "user")]
    _user: &'r str,
    event_id: &'r str,
    ts: i64,
    #[serde(rename = "type")]
    kind: &'r str,
    #[serde(borrow)]
    attrs: LazyValue<'r>,
    identifiers: Identifiers<'r>,
}

#[derive(Deserialize)]
struct Identifiers<'r> {
    device: &'r str,
}

#[derive(Default)]
struct Profile {
    last_seen: i64,
    total: u32,
    counters: [u32; TYPES.len()],
    /// A ring once it is full; then this is the oldest.
    recent_oldest: usize,
    recent: Vec<u128>,
    devices: Vec<Box<str>>,
    /// The latest attributes, as JSON.
    attributes: Vec<u8>,
    is_dirty: bool,
}

impl Profile {
    /// Whether the event is new; and then, whether its device is.
    fn apply(&mut self, event: &Event<'_>, kind: usize) -> Option<bool> {
        let id = uuid(event.event_id);
        if self.recent.contains(&id) {
            return None;
        }
        if self.recent.len() < RECENT_MAX {
            self.recent.push(id);
        } else {
            self.recent[self.recent_oldest] = id;
            self.recent_oldest = (self.recent_oldest + 1) % RECENT_MAX;
        }
        self.last_seen = self.last_seen.max(event.ts);
        self.total += 1;
        self.counters[kind] += 1;
        let device = event.identifiers.device;
        let is_new = !self.devices.iter().any(|known| **known == *device);
        if is_new {
            self.devices.push(device.into());
        }
        self.attributes.clear();
        self.attributes.extend_from_slice(event.attrs.as_raw_str().as_bytes());
        Some(is_new)
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(&self.last_seen.to_le_bytes());
        into.extend_from_slice(&self.total.to_le_bytes());
        self.counters.iter().for_each(|counter| into.extend_from_slice(&counter.to_le_bytes()));
        into.push(u8::try_from(self.recent_oldest).unwrap_or(0));
        into.push(u8::try_from(self.recent.len()).unwrap_or(0));
        self.recent.iter().for_each(|id| into.extend_from_slice(&id.to_le_bytes()));
        into.push(u8::try_from(self.devices.len()).unwrap_or(u8::MAX));
        for device in &self.devices {
            into.push(u8::try_from(device.len()).unwrap_or(u8::MAX));
            into.extend_from_slice(device.as_bytes());
        }
        into.extend_from_slice(&self.attributes);
    }

    /// The inverse; `None` for bytes that `encode` did not write.
    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut profile = Self { last_seen: i64::from_le_bytes(*bytes.split_off(..8)?.first_chunk()?), ..Self::default() };
        profile.total = u32::from_le_bytes(*bytes.split_off(..4)?.first_chunk()?);
        for counter in &mut profile.counters {
            *counter = u32::from_le_bytes(*bytes.split_off(..4)?.first_chunk()?);
        }
        profile.recent_oldest = usize::from(*bytes.split_off_first()?);
        for _ in 0..*bytes.split_off_first()? {
            profile.recent.push(u128::from_le_bytes(*bytes.split_off(..16)?.first_chunk()?));
        }
        for _ in 0..*bytes.split_off_first()? {
            let length = usize::from(*bytes.split_off_first()?);
            profile.devices.push(std::str::from_utf8(bytes.split_off(..length)?).ok()?.into());
        }
        profile.attributes = bytes.to_vec();
        Some(profile)
    }
}

/// Profiles of all users.
pub struct Action {
    profiles: HashMap<Box<[u8]>, Profile, FxBuildHasher>,
    dirty: Vec<Box<[u8]>>,
    database: DB,
    encoded: Vec<u8>,
}

impl Action {
    /// Opens the state's folder.
    pub fn open(folder: Option<&Path>) -> Result<Self> {
        let folder = folder.context("where does the state lie? name a folder with --state")?;
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(256 << 20));
        table.set_bloom_filter(10.0, false);
        table.set_block_size(8 << 10);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_size(64 << 20);
        options.set_max_write_buffer_number(3);
        options.set_max_background_jobs(2);
        let database = DB::open(&options, folder).with_context(|| format!("open the state in {}", folder.display()))?;
        Ok(Self { profiles: HashMap::default(), dirty: Vec::new(), database, encoded: Vec::new() })
    }

    fn profile(&mut self, key: &[u8]) -> &mut Profile {
        match self.profiles.entry_ref(key) {
            EntryRef::Occupied(entry) => entry.into_mut(),
            EntryRef::Vacant(entry) => {
                let stored = self.database.get_pinned(key).expect("the database is there as long as the process");
                entry.insert(stored.map(|bytes| Profile::decode(&bytes).expect("bytes that this program wrote")).unwrap_or_default())
            }
        }
    }
}

impl Work for Action {
    fn process(&mut self, record: &Consumed<'_>, outgoing: &mut [Outgoing]) {
        let event = sonic_rs::from_slice::<Event<'_>>(record.value).ok().filter(|event| event.attrs.is_object());
        let Some(event) = event else {
            outgoing[REJECTED].push(record.partition, record.key, |into| into.extend_from_slice(record.value));
            return;
        };
        let kind = TYPES.iter().position(|kind| *kind == event.kind).unwrap_or(0);
        let profile = self.profile(record.key);
        let Some(is_new_device) = profile.apply(&event, kind) else { return };
        let new_device = is_new_device.then_some(event.identifiers.device);
        outgoing[UPDATES].push(record.partition, record.key, |into| write_delta(into, record.key, profile, kind, new_device));
        outgoing[ENRICHED].push(record.partition, record.key, |into| write_enriched(into, record.value, profile));
        if !profile.is_dirty {
            profile.is_dirty = true;
            self.dirty.push(record.key.into());
        }
    }

    fn save(&mut self) -> Result<()> {
        let mut batch = WriteBatch::default();
        for key in self.dirty.drain(..) {
            let profile = self.profiles.get_mut(&key).context("a profile that has changed is in memory")?;
            profile.encode(&mut self.encoded);
            batch.put(&key, &self.encoded);
            profile.is_dirty = false;
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.database.write_opt(batch, &options).context("write the state")?;
        if self.profiles.len() > CACHED_MAX {
            // Half of them, whichever: hot ones are back at once.
            let mut number = 0;
            self.profiles.retain(|_, _| {
                number += 1;
                number % 2 == 0
            });
        }
        Ok(())
    }
}

fn write_delta(into: &mut Vec<u8>, key: &[u8], profile: &Profile, kind: usize, new_device: Option<&str>) {
    into.extend_from_slice(b"{\"table\":\"profiles\",\"key\":\"");
    into.extend_from_slice(key);
    into.extend_from_slice(b"\",\"set\":{\"attrs\":");
    into.extend_from_slice(&profile.attributes);
    into.extend_from_slice(b",\"last_seen\":");
    write_number(into, u64::try_from(profile.last_seen).unwrap_or(0));
    into.extend_from_slice(b",\"total\":");
    write_number(into, u64::from(profile.total));
    into.extend_from_slice(b",\"");
    into.extend_from_slice(TYPES[kind].as_bytes());
    into.extend_from_slice(b"\":");
    write_number(into, u64::from(profile.counters[kind]));
    into.push(b'}');
    if let Some(device) = new_device {
        into.extend_from_slice(b",\"addToSet\":{\"devices\":[\"");
        into.extend_from_slice(device.as_bytes());
        into.extend_from_slice(b"\"]}");
    }
    into.push(b'}');
}

fn write_enriched(into: &mut Vec<u8>, event: &[u8], profile: &Profile) {
    into.extend_from_slice(event.trim_ascii_end().strip_suffix(b"}").unwrap_or(event));
    into.extend_from_slice(b",\"profile\":{\"last_seen\":");
    write_number(into, u64::try_from(profile.last_seen).unwrap_or(0));
    into.extend_from_slice(b",\"total\":");
    write_number(into, u64::from(profile.total));
    into.extend_from_slice(b",\"devices\":[");
    for (number, device) in profile.devices.iter().enumerate() {
        into.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
        into.extend_from_slice(device.as_bytes());
        into.push(b'"');
    }
    into.extend_from_slice(b"]}}");
}

pub fn write_number(into: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    into.extend_from_slice(&digits[at..]);
}

fn uuid(text: &str) -> u128 {
    let digits = text.bytes().filter_map(|byte| char::from(byte).to_digit(16));
    digits.fold(0, |number, digit| number << 4 | u128::from(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, device: &str) -> Vec<u8> {
        format!(
            r#"{{"tenant":"t1","user":"u1","event_id":"00000000-0000-4000-a000-{id:012x}","ts":{id},"sent_us":1,"type":"click","attrs":{{"page":"p"}},"identifiers":{{"email":"e","device":"{device}"}}}}"#
        )
        .into_bytes()
    }

    fn run(values: &[Vec<u8>]) -> Vec<Outgoing> {
        let folder = std::env::temp_dir().join(format!("forebay-bench-action-{}-{}", std::process::id(), values.len()));
        let mut outgoing: Vec<_> = (0..3).map(|_| Outgoing::default()).collect();
        let mut work = Action::open(Some(&folder)).unwrap();
        for value in values {
            work.process(&Consumed { partition: 3, offset: 0, key: b"t1/u1", value }, &mut outgoing);
            work.save().unwrap();
            // As if it had been evicted: what was saved must come back.
            work.profiles.clear();
        }
        drop(work);
        std::fs::remove_dir_all(folder).unwrap();
        outgoing
    }

    #[test]
    fn an_event_becomes_a_delta_and_an_enriched_event_and_its_copy_nothing() {
        let values = [event(5, "d1"), event(6, "d1"), event(5, "d1"), event(4, "d2")];
        let outgoing = run(&values);
        let updates = String::from_utf8(outgoing[UPDATES].bytes.clone()).unwrap();
        let deltas: Vec<_> = updates.split("t1/u1{").skip(1).collect();
        assert_eq!(
            deltas,
            [
                r#""table":"profiles","key":"t1/u1","set":{"attrs":{"page":"p"},"last_seen":5,"total":1,"click":1},"addToSet":{"devices":["d1"]}}"#,
                r#""table":"profiles","key":"t1/u1","set":{"attrs":{"page":"p"},"last_seen":6,"total":2,"click":2}}"#,
                r#""table":"profiles","key":"t1/u1","set":{"attrs":{"page":"p"},"last_seen":6,"total":3,"click":3},"addToSet":{"devices":["d2"]}}"#,
            ]
        );
        let enriched = String::from_utf8(outgoing[ENRICHED].bytes.clone()).unwrap();
        assert!(enriched.ends_with(r#","profile":{"last_seen":6,"total":3,"devices":["d1","d2"]}}"#), "{enriched}");
        assert!(outgoing[REJECTED].is_empty());
    }

    #[test]
    fn what_is_no_event_is_rejected_as_it_came() {
        let cut = event(1, "d1")[..60].to_vec();
        let outgoing = run(&[cut.clone(), br#"{"tenant":"t"}"#.to_vec()]);
        assert_eq!(outgoing[REJECTED].bytes, [b"t1/u1", cut.as_slice(), b"t1/u1", br#"{"tenant":"t"}"#].concat());
        assert!(outgoing[UPDATES].is_empty() && outgoing[ENRICHED].is_empty());
    }
}
