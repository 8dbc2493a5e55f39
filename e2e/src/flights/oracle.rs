//! The oracle's verdict on a job: its outputs, its state and its books, as they must be by its input.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rdkafka::message::{Headers, Message};
use serde_json::Value;

use super::{Flights, Ranges, SHARDS, python};
use crate::kafka::Record;

/// Where [`Flights::check_with`] has the second topic begin: behind any offset of a test.
const BEHIND: u64 = 1 << 40;

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The value, as it came.
    pub value: Vec<u8>,
    /// Partition and offset of the record in the input.
    pub record: (u32, u64),
    /// Partition and offset of the letter itself.
    pub place: (u32, u64),
}

impl Flights {
    /// Asks the oracle whether all that came out of these records is right. The state is that of the newest database of each shard among
    /// `workers`, none of which may be running.
    pub fn check(&self, records: &[Record], workers: &[&str]) -> Result<()> {
        self.check_but(records, workers, &Ranges::new())
    }

    /// The same as if some of the outputs were not there.
    pub fn check_but(&self, records: &[Record], workers: &[&str], undone: &Ranges) -> Result<()> {
        let folder = self.check_folder()?;
        let file = folder.join("records.jsonl");
        write_records(&file, records)?;
        let input = self.input_where(|_, _| true)?;
        let is_undone = |topic: &str, partition: u32, offset| {
            let range = undone.get(topic).and_then(|ranges| ranges.get(partition as usize));
            range.is_some_and(|(from, to)| (*from..*to).contains(&offset))
        };
        self.judge(&file, &input, workers, &is_undone, Ok)
    }

    /// The same for a job that has processed only what [`Flights::input_where`] wrote to `input`.
    pub fn check_some(&self, input: &Path, workers: &[&str]) -> Result<()> {
        self.judge(input, input, workers, &|_, _, _| false, Ok)
    }

    /// The same for a job that has put back all that a revision refused: as if it had never come before it was put back. The books have it twice.
    pub fn check_put_back(&self, letters: &[Refused], workers: &[&str]) -> Result<()> {
        let records: BTreeSet<(u32, u64)> = letters.iter().map(|letter| letter.record).collect();
        ensure!(records.len() == letters.len(), "a record was refused twice");
        let input = self.input_where(|partition, offset| !records.contains(&(partition, offset)))?;
        let places: BTreeSet<(u32, u64)> = letters.iter().map(|letter| letter.place).collect();
        let dead = self.output("dead");
        let is_undone = |topic: &str, partition, offset| topic == dead && places.contains(&(partition, offset));
        let once = |mut books: Value| -> Result<Value> {
            for account in ["in", "rejected"] {
                let twice = books[account].as_u64().with_context(|| format!("no {account} in {books}"))?;
                books[account] = twice.checked_sub(letters.len() as u64).context("the books lack what was refused")?.into();
            }
            Ok(books)
        };
        self.judge(&input, &input, workers, &is_undone, once)
    }

    /// The same for a job that reads a second input, of other keys: of all that is in both. To the oracle they are one topic, in which the offsets of
    /// the second begin behind those of the first.
    pub fn check_with(&self, second: &str, workers: &[&str]) -> Result<()> {
        let input = self.input_where(|_, _| true)?;
        let other = self.check_folder()?.join("second.jsonl");
        self.broker.dump(second, &other, |_, _| true)?;
        let mut all = fs::read_to_string(&input)?;
        for line in fs::read_to_string(&other)?.lines() {
            let mut record: Value = serde_json::from_str(line)?;
            record["offset"] = (BEHIND + record["offset"].as_u64().context("an offset")?).into();
            all.push_str(&format!("{record}\n"));
        }
        fs::write(&input, all)?;
        let as_one = |letter: &mut Value| -> Result<()> {
            let headers = &mut letter["headers"];
            if headers["forebay.topic"] == second {
                let offset: u64 = headers["forebay.offset"].as_str().context("an offset")?.parse()?;
                headers["forebay.offset"] = (BEHIND + offset).to_string().into();
                headers["forebay.topic"] = self.input().into();
            }
            Ok(())
        };
        self.judge_letters(&input, &input, workers, &|_, _, _| false, as_one, Ok)
    }

    /// Writes down those records of the input topic whose partition and offset `is_meant` says yes to; returns the file.
    pub fn input_where(&self, is_meant: impl Fn(u32, u64) -> bool) -> Result<PathBuf> {
        let path = self.check_folder()?.join("input.jsonl");
        self.broker.dump(&self.input(), &path, is_meant)?;
        Ok(path)
    }

    fn check_folder(&self) -> Result<PathBuf> {
        let folder = self.folder.join("check");
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn judge(
        &self,
        records: &Path,
        input: &Path,
        workers: &[&str],
        is_undone: &dyn Fn(&str, u32, u64) -> bool,
        books: impl Fn(Value) -> Result<Value>,
    ) -> Result<()> {
        self.judge_letters(records, input, workers, is_undone, |_| Ok(()), books)
    }

    fn judge_letters(
        &self,
        records: &Path,
        input: &Path,
        workers: &[&str],
        is_undone: &dyn Fn(&str, u32, u64) -> bool,
        change: impl Fn(&mut Value) -> Result<()>,
        change_books: impl Fn(Value) -> Result<Value>,
    ) -> Result<()> {
        let folder = self.check_folder()?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut arguments = vec!["--input-topic".into(), self.input(), "--input".into(), text(input), "--records".into(), text(records)];
        for output in ["updates", "enriched", "delayed", "dead"] {
            arguments.extend([format!("--{output}"), self.dump(&folder, &self.output(output), is_undone)?]);
        }
        let letters = folder.join(format!("{}.jsonl", self.output("dead")));
        let mut changed = String::new();
        for line in fs::read_to_string(&letters)?.lines() {
            let mut letter: Value = serde_json::from_str(line)?;
            change(&mut letter)?;
            changed.push_str(&format!("{letter}\n"));
        }
        fs::write(&letters, changed)?;
        let merged = self.merged_state(&folder, workers)?;
        let state = self.ask_state(&merged, &["state", "scan", "-o", "json"])?;
        let books = serde_json::from_str(&self.ask_state(&merged, &["books", "-o", "json"])?)?;
        let books = change_books(books)?.to_string();
        for (name, content) in [("state", state), ("books", books)] {
            let path = folder.join(format!("{name}.json"));
            fs::write(&path, content)?;
            arguments.extend([format!("--{name}"), text(&path)]);
        }
        let output = python("oracle.py", &arguments)?;
        println!("{}", String::from_utf8_lossy(&output.stdout));
        ensure!(
            output.status.success(),
            "the oracle says: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// The dead letters, by the revision that refused them.
    pub fn letters(&self) -> Result<BTreeMap<String, Vec<Refused>>> {
        self.letters_by("forebay.revision")
    }

    /// The same, by another of their headers.
    pub fn letters_by(&self, name: &str) -> Result<BTreeMap<String, Vec<Refused>>> {
        let mut all: BTreeMap<String, Vec<Refused>> = BTreeMap::new();
        self.broker.read(&self.output("dead"), |letter| {
            let header = |key: &str| -> Result<String> {
                let found = letter.headers().and_then(|headers| headers.iter().find(|header| header.key == key)?.value);
                Ok(String::from_utf8(found.with_context(|| format!("a dead letter without {key}"))?.to_vec())?)
            };
            let record = (header("forebay.partition")?.parse()?, header("forebay.offset")?.parse()?);
            let place = (u32::try_from(letter.partition())?, u64::try_from(letter.offset())?);
            let value = letter.payload().unwrap_or_default().to_vec();
            all.entry(header(name)?).or_default().push(Refused { value, record, place });
            Ok(())
        })?;
        Ok(all)
    }

    fn dump(&self, folder: &Path, topic: &str, is_undone: &dyn Fn(&str, u32, u64) -> bool) -> Result<String> {
        let path = folder.join(format!("{topic}.jsonl"));
        self.broker.dump(topic, &path, |partition, offset| !is_undone(topic, partition, offset))?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// A state folder of links to the newest database of each shard.
    fn merged_state(&self, folder: &Path, workers: &[&str]) -> Result<PathBuf> {
        let mut newest: BTreeMap<u32, (u64, PathBuf)> = BTreeMap::new();
        for worker in workers {
            let state_dir = self.state_dir(worker);
            for (shard, said) in self.shards(&state_dir)? {
                let epoch = said.strip_prefix("epoch ").and_then(|rest| rest.split(',').next()?.parse().ok());
                let epoch = epoch.with_context(|| format!("`state ls` says of shard {shard}: {said}"))?;
                let database = state_dir.join(format!("shard-{shard}"));
                ensure!(database.is_dir(), "{} is not there", database.display());
                if newest.get(&shard).is_none_or(|(other, _)| *other < epoch) {
                    newest.insert(shard, (epoch, database));
                }
            }
        }
        ensure!(newest.len() == SHARDS as usize, "databases were found for the shards {:?} only", newest.keys());
        let merged = folder.join("state");
        if merged.exists() {
            fs::remove_dir_all(&merged)?;
        }
        fs::create_dir_all(&merged)?;
        for (shard, (_, database)) in newest {
            std::os::unix::fs::symlink(fs::canonicalize(database)?, merged.join(format!("shard-{shard}")))?;
        }
        Ok(merged)
    }
}

fn write_records(path: &Path, records: &[Record]) -> Result<()> {
    let mut out = BufWriter::new(fs::File::create(path)?);
    for record in records {
        serde_json::to_writer(&mut out, record)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
