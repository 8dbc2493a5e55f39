//! Records that a workload's own program has written, one a line: `{"key": "k" or null, "value": "template", "counts": ["processed", …]}`.
//! When all have come they come again. In a value `<id>` is the number of the round, which no other round and no other seed has, so that what must
//! differ between rounds can; the other slots are those of [`Template`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::Deserialize;

use crate::records::{Source, Template};

/// Of one seed. A round has as many records as the file, so nobody has the patience for more.
const ROUNDS_MAX: u64 = 1000;

#[derive(Deserialize)]
struct Line {
    key: Option<String>,
    value: String,
    counts: Vec<String>,
}

pub struct Lines {
    lines: Vec<Line>,
    made: usize,
    first_round: u64,
    random: SmallRng,
    counts: BTreeMap<String, u64>,
    value: Vec<u8>,
}

impl Lines {
    /// Reads the file whole.
    pub fn open(path: &Path, seed: u64) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut lines = Vec::new();
        for (number, text) in (1..).zip(BufReader::new(file).lines()) {
            let place = || format!("read {}, line {number}", path.display());
            let line = serde_json::from_str::<Line>(&text.with_context(place)?).with_context(place)?;
            Template::parse(&line.value).with_context(place)?;
            lines.push(line);
        }
        ensure!(!lines.is_empty(), "read {}: no records", path.display());
        let names = lines.iter().flat_map(|line| line.counts.iter().cloned());
        let counts = names.map(|name| (name, 0)).collect();
        let random = SmallRng::seed_from_u64(seed);
        Ok(Self { lines, made: 0, first_round: seed * ROUNDS_MAX, random, counts, value: Vec::new() })
    }

    fn in_hand(&self) -> &Line {
        &self.lines[self.made.wrapping_sub(1) % self.lines.len()]
    }
}

impl Source for Lines {
    fn advance(&mut self, due_us: u64) {
        let round = self.first_round + (self.made / self.lines.len()) as u64;
        self.made += 1;
        let line = &self.lines[(self.made - 1) % self.lines.len()];
        self.value.clear();
        let template = Template::parse(&line.value).expect("each was parsed when the file was read");
        template.write(round, due_us, &mut self.random, &mut self.value);
        for name in &line.counts {
            *self.counts.get_mut(name).expect("all names are there from the start") += 1;
        }
    }

    fn key(&self) -> Option<&[u8]> {
        self.in_hand().key.as_deref().map(str::as_bytes)
    }

    fn value(&self) -> &[u8] {
        &self.value
    }

    fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_again_with_the_number_of_the_round_and_are_counted() {
        let path = std::env::temp_dir().join(format!("forebay-bench-lines-{}", std::process::id()));
        let text = r#"{"key": "a", "value": "{\"id\":\"1-<id>\",\"at\":<now_us>}", "counts": ["processed", "late"]}
{"key": null, "value": "no", "counts": ["rejected"]}"#;
        std::fs::write(&path, text).unwrap();
        let mut lines = Lines::open(&path, 7).unwrap();
        std::fs::remove_file(path).unwrap();
        let mut values = Vec::new();
        for number in 0..3 {
            lines.advance(number);
            values.push((lines.key().map(<[u8]>::to_vec), String::from_utf8(lines.value().to_vec()).unwrap()));
        }
        let (key, first, again) = (Some(b"a".to_vec()), r#"{"id":"1-7000","at":0}"#, r#"{"id":"1-7001","at":2}"#);
        assert_eq!(values, [(key.clone(), first.to_owned()), (None, "no".to_owned()), (key, again.to_owned())]);
        assert_eq!(
            lines.counts().iter().map(|(name, count)| (name.as_str(), *count)).collect::<Vec<_>>(),
            [("late", 2), ("processed", 2), ("rejected", 1)]
        );
    }
}
