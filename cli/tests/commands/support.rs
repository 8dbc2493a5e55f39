//! What the tests of the command line share: a job on an embedded log in a folder of its own, and `forebay` as a child process.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Orders counted per customer. What is no JSON fails in `parse`, an amount below 1 in `validate`.
pub const JOB: &str = "\
apiVersion: forebay.dev/v1alpha1
kind: IngestionJob
metadata: {name: orders, namespace: default}
spec:
  shards: 2
  inputs:
    - {name: orders, topic: orders}
  checkpoint: {interval: 1h}
  deadLetter: {topic: orders.dead}
  pipeline:
    - parse: {format: json}
    - validate:
        fields:
          amount: {type: integer, required: true, min: 1}
    - upsert:
        table: customers
        increment: {orders: 1, amount: .amount}
    - emit: {topic: orders.good}
";

/// A job in a folder.
pub struct World {
    folder: TempDir,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("forebay-cli-").tempdir().unwrap();
        let world = Self { folder };
        world.write("job.yaml", JOB);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The job's manifest with one place of its text replaced.
    pub fn change_job(&self, from: &str, to: &str) {
        assert_eq!(JOB.matches(from).count(), 1, "the manifest must say {from:?} once");
        self.write("job.yaml", &JOB.replace(from, to));
    }

    /// `forebay` for this job, configured by the environment alone.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(arguments).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOREBAY_") || name == "RUST_LOG") {
            command.env_remove(name);
        }
        command.env("FOREBAY_FILE", self.path("job.yaml")).env("FOREBAY_DIR", self.path("data"));
        command
    }

    pub fn call(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments).output().unwrap())
    }

    /// Calls it, and it must succeed; returns its standard output.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let said = self.call(arguments);
        assert_eq!(said.code, Some(0), "forebay {arguments:?}: {said:?}");
        said.stdout
    }

    /// The same with `-o json`: its documents.
    pub fn ask_json(&self, arguments: &[&str]) -> Vec<Value> {
        json_lines(&self.ask(&[arguments, &["-o", "json"]].concat()))
    }

    /// Puts records of a key and a value into a topic of four partitions.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = (String, String)>) {
        let mut child = self.command(&["log", "produce", "--topic", topic, "--partitions", "4"]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        for (key, value) in records {
            writeln!(stdin, "{}", serde_json::json!({"key": key, "value": value})).unwrap();
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }

    /// The committed records of a topic.
    pub fn records(&self, topic: &str) -> Vec<Value> {
        json_lines(&self.ask(&["log", "consume", "--topic", topic, "--from-beginning", "--until-end"]))
    }
}

/// Orders of a customer, `amounts` in order.
pub fn orders(customer: &str, amounts: impl IntoIterator<Item = i64>) -> Vec<(String, String)> {
    amounts.into_iter().map(|amount| (customer.to_owned(), format!("{{\"amount\": {amount}}}"))).collect()
}

/// Orders of so many customers, who all stay in the state, under names that do not compress.
pub fn fill(world: &World, customers: u64) {
    let name = |number: u64| {
        let digits = (0..32).map(|part| {
            format!(
                "{:016x}",
                (number << 8 | part)
                    .wrapping_add(1)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .rotate_left(29)
                    .wrapping_mul(0xbf58_476d_1ce4_e5b9)
            )
        });
        format!("{number}-{}", digits.collect::<String>())
    };
    world.produce("orders", (0..customers).map(|number| (name(number), r#"{"amount": 1}"#.to_owned())));
}

pub fn said(output: Output) -> Said {
    let text = |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains('\u{1b}'), "colours where no terminal is: {text:?}");
        text
    };
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// A process whose standard error is read line by line.
pub struct Watched {
    pub child: Child,
    lines: std::io::Split<BufReader<Box<dyn Read>>>,
    pub seen: Vec<String>,
}

impl Watched {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr: Box<dyn Read> = Box::new(child.stderr.take().unwrap());
        Self { child, lines: BufReader::new(stderr).split(b'\n'), seen: Vec::new() }
    }

    /// The same with standard output, and lines as a terminal has them: a carriage return ends one.
    pub fn on_terminal(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout: Box<dyn Read> = Box::new(child.stdout.take().unwrap());
        Self { child, lines: BufReader::new(stdout).split(b'\r'), seen: Vec::new() }
    }

    /// Reads on until a line that holds this; false when the process ended without it.
    pub fn until(&mut self, needle: &str) -> bool {
        for line in self.lines.by_ref().map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let found = line.contains(needle);
            self.seen.push(line);
            if found {
                return true;
            }
        }
        false
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.child.id())).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end; returns the exit code and standard error as it was.
    pub fn end(mut self) -> (Option<i32>, String) {
        let _ = self.until("\u{0}");
        (self.child.wait().unwrap().code(), self.seen.join("\n"))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a path exists and holds something.
pub fn is_filled(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}
