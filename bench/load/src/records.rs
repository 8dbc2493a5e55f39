//! A workload's records, as its folder describes them: `workload.json` says how many ids there are, how skewed, how many records come twice or
//! are invalid; the template says what a record looks like. Everything is decided by a seed.
//!
//! Or it names a program that writes all of them, see [`crate::lines`].
//!
//! A template is text with slots; line ends in it do not count, so a long record can be written field by field:
//!
//! | slot | becomes |
//! |---|---|
//! | `<id>`, `<id%100>` | the entity's number, or its remainder |
//! | `<hash>` | eight hexadecimal digits that belong to the entity |
//! | `<uuid>` | a random UUID |
//! | `<below:50>`, `<below:100:2>` | a random number below that, padded with zeros to a width |
//! | `<one:a\|b\|c>` | one of these, at random |
//! | `<class:a\|b\|c>` | the same, once in a template; how many valid records had which is counted |
//! | `<now_ms>`, `<now_us>` | when the record is due |

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustc_hash::FxHashMap;
use serde::Deserialize;

/// Makes one record after the other; between two calls it holds the one in hand.
pub trait Source {
    /// Makes the next record, due at this time.
    fn advance(&mut self, due_us: u64);

    fn key(&self) -> Option<&[u8]>;

    fn value(&self) -> &[u8];

    /// How many were made so far that a contestant should make this of, or that are of this class: what outputs are checked by.
    fn counts(&self) -> &BTreeMap<String, u64>;
}

/// The part of `workload.json` that is read here.
#[derive(Deserialize)]
struct Workload {
    records: Description,
}

#[derive(Clone, Deserialize)]
pub struct Description {
    key: String,
    /// The template's file, in the workload's folder.
    value: String,
    /// How many entities there are.
    pub ids: u64,
    /// How skewed their shares are: the n-th gets `1 / n^zipf`; 0 is even.
    pub zipf: f64,
    /// Before that each comes once, in turn.
    #[serde(default)]
    pub each_first: bool,
    /// So many random characters more in each valid record, in a field `pad`.
    #[serde(default)]
    pub pad: usize,
    pub duplicates: Option<Duplicates>,
    pub invalid: Option<Invalid>,
}

#[derive(Clone, Deserialize)]
pub struct Duplicates {
    pub share: f64,
    /// Each is the copy of one of so many records before it.
    among_last: usize,
    /// A contestant finds it if it is among the last so many of its entity.
    remembered: usize,
}

#[derive(Clone, Deserialize)]
pub struct Invalid {
    pub share: f64,
    /// Half of them lack so many bytes at their end,
    cut_bytes: usize,
    /// the other half this line of the template, from 1.
    leave_out_line: usize,
}

/// What a contestant should make of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Processed,
    Rejected,
    Duplicate,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Processed, Self::Rejected, Self::Duplicate];

    fn name(self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Rejected => "rejected",
            Self::Duplicate => "duplicate",
        }
    }
}

/// Records by their description.
pub struct Records {
    description: Description,
    key: Template,
    value: Template,
    invalid: Template,
    shares: Vec<f64>,
    random: SmallRng,
    recent: VecDeque<Recent>,
    remembered: FxHashMap<u64, VecDeque<u64>>,
    made: u64,
    counts: BTreeMap<String, u64>,
    /// The record in hand.
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
    class: Option<usize>,
}

struct Recent {
    id: u64,
    number: u64,
    class: Option<usize>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Records {
    /// Reads a workload's folder; `change` may alter the description.
    pub fn open(folder: &Path, seed: u64, change: impl FnOnce(&mut Description)) -> Result<Self> {
        let path = folder.join("workload.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut description = serde_json::from_str::<Workload>(&text).with_context(|| format!("read {}", path.display()))?.records;
        change(&mut description);
        let path = folder.join(&description.value);
        let template = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let left_out = description.invalid.as_ref().map_or(0, |invalid| invalid.leave_out_line);
        let invalid: String = (1..).zip(template.lines()).filter(|(number, _)| *number != left_out).map(|(_, line)| line).collect();
        let value = Template::parse(&template.lines().collect::<String>())?;
        let counted = Kind::ALL.iter().map(|kind| kind.name().to_owned()).chain(value.classes().iter().cloned());
        Ok(Self {
            key: Template::parse(&description.key)?,
            counts: counted.map(|name| (name, 0)).collect(),
            value,
            invalid: Template::parse(&invalid)?,
            shares: shares(description.ids, description.zipf),
            random: SmallRng::seed_from_u64(seed),
            recent: VecDeque::new(),
            remembered: FxHashMap::default(),
            made: 0,
            key_bytes: Vec::new(),
            value_bytes: Vec::new(),
            class: None,
            description,
        })
    }

    fn next(&mut self, due_us: u64) -> Kind {
        let roll: f64 = self.random.random();
        if let Some(duplicates) = &self.description.duplicates
            && roll < duplicates.share
            && self.recent.len() == duplicates.among_last
        {
            return self.repeat();
        }
        let id = self.id();
        self.key_bytes.clear();
        self.key.write(id, due_us, &mut self.random, &mut self.key_bytes);
        self.value_bytes.clear();
        self.made += 1;
        if let Some(invalid) = &self.description.invalid
            && roll > 1.0 - invalid.share
        {
            let is_cut = self.random.random::<bool>();
            let template = if is_cut { &self.value } else { &self.invalid };
            template.write(id, due_us, &mut self.random, &mut self.value_bytes);
            if is_cut {
                self.value_bytes.truncate(self.value_bytes.len().saturating_sub(invalid.cut_bytes));
            }
            return Kind::Rejected;
        }
        self.class = self.value.write(id, due_us, &mut self.random, &mut self.value_bytes);
        self.pad();
        self.keep(id);
        Kind::Processed
    }

    fn repeat(&mut self) -> Kind {
        let at = self.random.random_range(0..self.recent.len());
        let recent = &self.recent[at];
        self.key_bytes.clone_from(&recent.key);
        self.value_bytes.clone_from(&recent.value);
        self.class = recent.class;
        let (id, number) = (recent.id, recent.number);
        if self.remembered.get(&id).is_some_and(|numbers| numbers.contains(&number)) {
            return Kind::Duplicate;
        }
        self.remember(id, number);
        Kind::Processed
    }

    fn pad(&mut self) {
        if self.description.pad == 0 {
            return;
        }
        let (value, random) = (&mut self.value_bytes, &mut self.random);
        value.truncate(value.trim_ascii_end().len() - 1);
        value.extend_from_slice(b",\"pad\":\"");
        value.extend((0..self.description.pad).map(|_| random.random_range(b'a'..=b'z')));
        value.extend_from_slice(b"\"}");
    }

    /// For duplicates to come.
    fn keep(&mut self, id: u64) {
        let Some(duplicates) = &self.description.duplicates else { return };
        let mut recent = if self.recent.len() == duplicates.among_last { self.recent.pop_front() } else { None }.unwrap_or(Recent {
            id,
            number: 0,
            class: None,
            key: Vec::new(),
            value: Vec::new(),
        });
        recent.id = id;
        recent.number = self.made;
        recent.class = self.class;
        recent.key.clone_from(&self.key_bytes);
        recent.value.clone_from(&self.value_bytes);
        self.recent.push_back(recent);
        self.remember(id, self.made);
    }

    fn remember(&mut self, id: u64, number: u64) {
        let remembered = self.description.duplicates.as_ref().map_or(0, |duplicates| duplicates.remembered);
        let numbers = self.remembered.entry(id).or_default();
        if numbers.len() == remembered {
            numbers.pop_front();
        }
        numbers.push_back(number);
    }

    fn id(&mut self) -> u64 {
        let ids = self.description.ids;
        if self.description.each_first && self.made < ids {
            return self.made;
        }
        if self.shares.is_empty() {
            return self.random.random_range(0..ids);
        }
        let point = self.random.random::<f64>() * self.shares[self.shares.len() - 1];
        let rank = self.shares.partition_point(|share| *share < point) as u64;
        // Neighbours in rank should not be neighbours in key. 700,001 is a prime that divides no round number of ids.
        (rank.min(ids - 1) * 700_001 + 12_345) % ids
    }
}

impl Source for Records {
    fn advance(&mut self, due_us: u64) {
        let kind = self.next(due_us);
        let class = self.class.filter(|_| kind == Kind::Processed).map(|class| &self.value.classes()[class]);
        for name in [kind.name()].into_iter().chain(class.map(String::as_str)) {
            *self.counts.get_mut(name).expect("all names are there from the start") += 1;
        }
    }

    fn key(&self) -> Option<&[u8]> {
        Some(&self.key_bytes)
    }

    fn value(&self) -> &[u8] {
        &self.value_bytes
    }

    fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }
}

/// Sums of the shares up to each rank; nothing when they are even.
#[expect(clippy::cast_precision_loss, reason = "ranks are small")]
fn shares(ids: u64, zipf: f64) -> Vec<f64> {
    if zipf == 0.0 {
        return Vec::new();
    }
    let mut sum = 0.0;
    let share = |rank: u64| {
        sum += (rank as f64).powf(-zipf);
        sum
    };
    (1..=ids).map(share).collect()
}

enum Part {
    Text(String),
    Id(Option<u64>),
    Hash,
    Uuid,
    Below(u64, usize),
    One(Vec<String>),
    Class(Vec<String>),
    NowMs,
    NowUs,
}

pub struct Template(Vec<Part>);

impl Template {
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('<') {
            let (slot, behind) = after.split_once('>').with_context(|| format!("template: no > behind <{after}"))?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::parse(slot).with_context(|| format!("template: <{slot}>"))?);
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// What a slot `class` chooses from.
    fn classes(&self) -> &[String] {
        let classes = self.0.iter().find_map(|part| if let Part::Class(classes) = part { Some(classes.as_slice()) } else { None });
        classes.unwrap_or_default()
    }

    /// Appends a record; returns what the slot `class` has chosen.
    pub fn write(&self, id: u64, due_us: u64, random: &mut SmallRng, into: &mut Vec<u8>) -> Option<usize> {
        let mut class = None;
        for part in &self.0 {
            let written = match part {
                Part::Text(text) => into.write_all(text.as_bytes()),
                Part::Id(None) => write!(into, "{id}"),
                Part::Id(Some(modulus)) => write!(into, "{}", id % modulus),
                // Knuth's multiplicative hash.
                Part::Hash => write!(into, "{:08x}", id.wrapping_mul(2_654_435_761) & 0xffff_ffff),
                Part::Uuid => {
                    let (a, b): (u64, u64) = (random.random(), random.random());
                    let (first, second, third) = (a >> 32, (a >> 16) & 0xffff, a & 0xfff);
                    write!(into, "{first:08x}-{second:04x}-4{third:03x}-a{:03x}-{:012x}", b >> 52, b & 0xffff_ffff_ffff)
                }
                Part::Below(limit, width) => write!(into, "{:0width$}", random.random_range(0..*limit), width = *width),
                Part::One(choices) => into.write_all(choices[random.random_range(0..choices.len())].as_bytes()),
                Part::Class(choices) => {
                    let chosen = random.random_range(0..choices.len());
                    class = Some(chosen);
                    into.write_all(choices[chosen].as_bytes())
                }
                Part::NowMs => write!(into, "{}", due_us / 1000),
                Part::NowUs => write!(into, "{due_us}"),
            };
            written.expect("memory takes all that is written");
        }
        class
    }
}

impl Part {
    fn parse(slot: &str) -> Result<Self> {
        let (name, arguments) = slot.split_once(':').unwrap_or((slot, ""));
        Ok(match name {
            "id" => Part::Id(None),
            "hash" => Part::Hash,
            "uuid" => Part::Uuid,
            "now_ms" => Part::NowMs,
            "now_us" => Part::NowUs,
            "one" => Part::One(arguments.split('|').map(str::to_owned).collect()),
            "class" => Part::Class(arguments.split('|').map(str::to_owned).collect()),
            "below" => {
                let (limit, width) = arguments.split_once(':').unwrap_or((arguments, "0"));
                Part::Below(limit.parse()?, width.parse()?)
            }
            _ => match name.strip_prefix("id%") {
                Some(modulus) => Part::Id(Some(modulus.parse()?)),
                None => bail!("no such slot; there are id, id%N, hash, uuid, below:N, one:A|B, class:A|B, now_ms, now_us"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, change: impl FnOnce(&mut Description)) -> Records {
        Records::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads").join(name), 7, change).unwrap()
    }

    fn action(change: impl FnOnce(&mut Description)) -> Records {
        workload("action", change)
    }

    #[test]
    fn a_record_is_json_of_the_size_that_is_promised_and_the_same_for_the_same_seed() {
        let (mut records, mut again) = (action(|_| ()), action(|_| ()));
        let mut bytes = 0;
        for number in 0..1000 {
            let due_us = 1_700_000_000_000_000 + number;
            let kind = records.next(due_us);
            assert_eq!(again.next(due_us), kind);
            assert_eq!(records.value_bytes, again.value_bytes);
            let json = serde_json::from_slice::<serde_json::Value>(&records.value_bytes);
            if kind == Kind::Processed {
                let json = json.unwrap();
                let key = format!("{}/{}", json["tenant"].as_str().unwrap(), json["user"].as_str().unwrap());
                assert_eq!(key.as_bytes(), records.key_bytes);
                assert_eq!(json["event_id"].as_str().unwrap().len(), 36);
            }
            bytes += records.value_bytes.len();
        }
        assert!((370_000..400_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn shares_of_duplicates_and_invalid_records_are_as_described() {
        let mut records = action(|_| ());
        let mut counts = [0; 3];
        for number in 0..100_000 {
            counts[records.next(number) as usize] += 1;
        }
        assert!((400..600).contains(&counts[Kind::Rejected as usize]), "{counts:?}");
        assert!((600..1_000).contains(&counts[Kind::Duplicate as usize]), "{counts:?}");
    }

    #[test]
    fn the_first_id_comes_most_often_unless_shares_are_even() {
        let most = |zipf: f64| {
            let mut records = action(|description| (description.ids, description.zipf) = (1000, zipf));
            let mut counts = FxHashMap::<Vec<u8>, u32>::default();
            for number in 0..20_000 {
                records.next(number);
                *counts.entry(records.key_bytes.clone()).or_default() += 1;
            }
            counts.into_values().max().unwrap()
        };
        assert!((2_400..2_900).contains(&most(1.0)), "1 of 7.5 by the harmonic sum");
        assert!(most(0.0) < 60);
    }

    #[test]
    fn classes_of_valid_records_are_counted() {
        let mut records = workload("transform", |_| ());
        (0..10_000).for_each(|number| records.advance(number));
        let counts = records.counts();
        let classes = counts.iter().filter(|(name, _)| !Kind::ALL.iter().any(|kind| kind.name() == **name));
        assert_eq!(classes.map(|(_, count)| count).sum::<u64>(), counts["processed"]);
        assert!(counts["click"] > counts["refund"] && counts["refund"] > 0, "{counts:?}");
        assert!(counts["rejected"] > 0 && counts["duplicate"] == 0, "{counts:?}");
    }

    #[test]
    fn padded_records_are_longer_and_still_json() {
        let mut records = action(|description| (description.pad, description.invalid) = (1000, None));
        records.next(1);
        let json = serde_json::from_slice::<serde_json::Value>(&records.value_bytes).unwrap();
        assert_eq!((json["pad"].as_str().unwrap().len(), json["user"].is_string()), (1000, true));
    }

    #[test]
    fn each_id_comes_once_before_any_comes_again_when_asked_for() {
        let mut records = action(|description| (description.ids, description.each_first, description.duplicates) = (1000, true, None));
        let keys: std::collections::BTreeSet<_> = (0..1000)
            .map(|number| {
                records.next(number);
                records.key_bytes.clone()
            })
            .collect();
        assert_eq!(keys.len(), 1000);
    }

    #[test]
    fn a_slot_that_does_not_exist_is_an_error() {
        assert!(Template::parse("a<nothing>").is_err());
        assert!(Template::parse("a<id").is_err());
    }
}
