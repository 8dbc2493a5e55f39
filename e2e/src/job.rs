//! `forebay` as a child process: started, watched by its log and metrics, killed, stopped, woken, asked to end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{PATIENCE, until};

/// Lines of a log that are shown when something went wrong.
const SHOWN_LINES: usize = 25;

/// How to call `forebay` for one job: its manifest and its surroundings.
#[derive(Clone, Debug)]
pub struct Forebay {
    manifest: PathBuf,
    /// Where the logs of processes go.
    logs: PathBuf,
    environment: Vec<(String, String)>,
    /// What starts it, and is given `forebay` and its arguments at the end; nothing: it is started as it is.
    starter: Vec<String>,
}

impl Forebay {
    /// For a manifest; what lies on local disk goes to `folder`.
    pub fn new(manifest: &Path, folder: &Path) -> Self {
        let forebay = Self { manifest: manifest.to_owned(), logs: folder.to_owned(), environment: Vec::new(), starter: Vec::new() };
        forebay.with("FOREBAY_DIR", folder.join("data").to_string_lossy())
    }

    /// The same with one more environment variable, or another value of it.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The same without an environment variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(of, _)| of != name);
        self
    }

    /// The same for another manifest.
    #[must_use]
    pub fn with_manifest(mut self, manifest: &Path) -> Self {
        self.manifest = manifest.to_owned();
        self
    }

    /// The same, started by a command that goes on as what stands behind it, as `nice -n 19` does.
    #[must_use]
    pub fn started_by(mut self, words: &[&str]) -> Self {
        self.starter = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Calls a command that ends by itself, such as `["state", "ls"]`. `Err` when it does not within [`PATIENCE`].
    pub fn call(&self, arguments: &[&str]) -> Result<Output> {
        let mut child = self.command(arguments)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start forebay")?;
        let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let status = end_of(&mut child, PATIENCE).with_context(|| format!("forebay {arguments:?}"))?;
        let read = |thread: std::thread::JoinHandle<Vec<u8>>| thread.join().unwrap_or_default();
        Ok(Output { status, stdout: read(stdout), stderr: read(stderr) })
    }

    /// The same, and it must succeed; returns its standard output.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.call(arguments)?;
        ensure!(output.status.success(), "forebay {arguments:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts `forebay run` under a name, with a state folder of its own.
    pub fn run(&self, name: &str, state_dir: &Path, arguments: &[&str]) -> Result<Process> {
        let mut all = vec!["run", "--log-json", "--metrics", "127.0.0.1:0", "--worker", name, "--threads", "2"];
        all.extend(arguments);
        let mut command = self.command(&all)?;
        command.env("FOREBAY_STATE_DIR", state_dir).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start forebay run")?;
        let log = Arc::new(Log::default());
        let file = File::options().create(true).append(true).open(self.logs.join(format!("{name}.log")))?;
        let stderr = child.stderr.take().context("a pipe was asked for")?;
        let shared = log.clone();
        std::thread::spawn(move || shared.follow(BufReader::new(stderr), file));
        Ok(Process { name: name.to_owned(), child: Mutex::new(child), log })
    }

    /// The command itself, for a test that watches or kills it.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let forebay = crate::variable("FOREBAY_BIN")?;
        let mut command = Command::new(self.starter.first().unwrap_or(&forebay));
        if !self.starter.is_empty() {
            command.args(&self.starter[1..]).arg(&forebay);
        }
        command.args(arguments).arg("-f").arg(&self.manifest).stdin(Stdio::null()).env("RUST_LOG", "info");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}

/// One line of a process's log.
#[derive(Clone, Debug)]
pub struct Line {
    /// As it was written.
    pub text: String,
    event: Option<Value>,
}

impl Line {
    fn of(text: String) -> Self {
        let event = serde_json::from_str(&text).ok();
        Self { text, event }
    }

    /// The message of an event; the whole line if it is none.
    pub fn message(&self) -> &str {
        self.event.as_ref().and_then(|event| event["fields"]["message"].as_str()).unwrap_or(&self.text)
    }

    /// A field of an event as text.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.event.as_ref()?["fields"][name].as_str()
    }

    /// A field of an event as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.event.as_ref()?["fields"][name].as_u64()
    }
}

/// A running `forebay run`; dropping it kills it.
pub struct Process {
    name: String,
    child: Mutex<Child>,
    log: Arc<Log>,
}

impl Process {
    /// Waits for a line of the log, from its beginning on. `Err` when the process ends without it or it does not come.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Line) -> bool) -> Result<Line> {
        self.wait_for_after(0, what, wanted).map(|(line, _)| line)
    }

    /// The same, from a line's number on; returns the number behind the found one too.
    pub fn wait_for_after(&self, from: usize, what: &str, wanted: impl Fn(&Line) -> bool) -> Result<(Line, usize)> {
        let deadline = Instant::now() + PATIENCE;
        let mut next = from;
        let mut lines = self.log.lock();
        loop {
            while let Some(line) = lines.lines.get(next) {
                next += 1;
                if wanted(line) {
                    return Ok((line.clone(), next));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended || left.is_zero() {
                let why = if lines.ended { self.end_in_words() } else { "nothing came".into() };
                bail!("{}: waited for {what}, but {why}; its log ends with\n{}", self.name, lines.tail());
            }
            lines = self.log.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until every one of so many shards runs.
    pub fn wait_until_running(&self, shards: usize) -> Result<()> {
        until(&format!("{shards} shards of {} run", self.name), PATIENCE, || {
            self.check_alive()?;
            Ok((self.metric("forebay_shard_running").unwrap_or(0.0) >= shards as f64).then_some(()))
        })
    }

    /// Waits until a metric, summed over its labels, is at least so much; returns it.
    pub fn wait_until_metric(&self, name: &str, at_least: f64) -> Result<f64> {
        self.wait_for_metric(name, &format!("at least {at_least}"), |value| value >= at_least)
    }

    /// The same, until it is just that.
    pub fn wait_until_metric_is(&self, name: &str, wanted: f64) -> Result<()> {
        self.wait_for_metric(name, &wanted.to_string(), |value| value == wanted).map(drop)
    }

    /// Waits until so many records are in the committed books.
    pub fn wait_until_worked_off(&self, records: usize) -> Result<()> {
        self.wait_until_metric("forebay_records_total", records as f64).map(drop)
    }

    fn wait_for_metric(&self, name: &str, what: &str, is_wanted: impl Fn(f64) -> bool) -> Result<f64> {
        until(&format!("{name} of {} is {what}", self.name), PATIENCE, || {
            self.check_alive()?;
            Ok(self.metric(name).ok().filter(|value| is_wanted(*value)))
        })
    }

    /// A metric, summed over its labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        self.labelled_metric(name, "")
    }

    /// A metric, summed over those of its labels that hold a text such as `verdict="rejected"`.
    pub fn labelled_metric(&self, name: &str, label: &str) -> Result<f64> {
        let body = self.http("/metrics")?;
        let values =
            body.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(label)));
        Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// What is answered at a path such as `/readyz`: head and body.
    pub fn http(&self, path: &str) -> Result<String> {
        let address = self
            .log
            .lock()
            .lines
            .iter()
            .find(|line| line.message() == "metrics are served")
            .and_then(|line| line.field("address").map(str::to_owned));
        let address = address.context("metrics are not served yet")?;
        let mut stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.log.lock().lines.clone()
    }

    /// The end of the log, for messages.
    pub fn tail(&self) -> String {
        self.log.lock().tail()
    }

    /// Sends a signal, such as `STOP`, `CONT` or `TERM`.
    pub fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.child().id())).status()?;
        ensure!(sent.success(), "send SIG{name} to {}", self.name);
        Ok(())
    }

    /// The most memory that it has held so far, in bytes: the kernel's `VmHWM`.
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child().id()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no VmHWM in {status}"))? << 10)
    }

    /// Kills it with SIGKILL; returns all that it logged.
    pub fn kill(self) -> Result<Vec<Line>> {
        self.child().kill()?;
        self.child().wait()?;
        self.log.wait_until_ended();
        Ok(self.lines())
    }

    /// Waits for its end and returns its exit code; `None`: a signal ended it.
    pub fn exit(&mut self) -> Result<Option<i32>> {
        let ended = end_of(&mut self.child(), PATIENCE);
        let status = ended.with_context(|| format!("{}: its log ends with\n{}", self.name, self.tail()))?;
        self.log.wait_until_ended();
        Ok(status.code())
    }

    /// Waits for its end, which must be a success.
    pub fn success(&mut self) -> Result<()> {
        let code = self.exit()?;
        ensure!(code == Some(0), "{} ended with {code:?}; its log ends with\n{}", self.name, self.tail());
        Ok(())
    }

    /// Asks it to end by SIGTERM and waits until it did, successfully.
    pub fn stop(mut self) -> Result<()> {
        self.signal("TERM")?;
        self.success()
    }

    /// `Err`, with the end of its log, once it has ended.
    pub fn check_alive(&self) -> Result<()> {
        let lines = self.log.lock();
        ensure!(!lines.ended, "{}: {}; its log ends with\n{}", self.name, self.end_in_words(), lines.tail());
        Ok(())
    }

    /// How it ended: its log has. A signal is worth knowing, since whoever it ends says nothing.
    fn end_in_words(&self) -> String {
        match end_of(&mut self.child(), PATIENCE) {
            Ok(status) => format!("the process ended ({status})"),
            Err(error) => format!("the process closed its log and {error}"),
        }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child().kill();
        let _ = self.child().wait();
    }
}

#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
    ended: bool,
}

impl Log {
    fn follow(&self, source: impl BufRead, mut copy: File) {
        for text in source.split(b'\n').map_while(std::result::Result::ok) {
            let text = String::from_utf8_lossy(&text).into_owned();
            let _ = writeln!(copy, "{text}");
            self.lock().lines.push(Line::of(text));
            self.changed.notify_all();
        }
        let _ = writeln!(copy, "(ended)");
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// What a dead process wrote is still in the pipe for a moment.
    fn wait_until_ended(&self) {
        let lines = self.lock();
        drop(self.changed.wait_while(lines, |lines| !lines.ended));
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn tail(&self) -> String {
        let from = self.lines.len().saturating_sub(SHOWN_LINES);
        self.lines[from..].iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Waits for a child's end; kills it when it does not come.
fn end_of(child: &mut Child, within: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {} s", within.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
