//! What the end-to-end tests share: topics and records on a real Kafka, buckets on a real S3, `forebay` as child processes that are killed,
//! stopped and woken, and the flights example with its oracle.
//!
//! It knows Forebay as a user does: by its manifest, command line, logs, metrics and exit codes. No crate of the product is linked here.

pub mod cluster;
pub mod disk;
pub mod flights;
pub mod job;
pub mod kafka;
pub mod s3;
pub mod stack;

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

/// How long anything that must happen may take before a test fails. No test waits so long unless something is wrong; it covers a machine
/// that compiles at the same time, and a transaction's time-out (30 s) on top of it.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Says of a test, or of what several of them need, that it was skipped, and why. Not by `eprintln!`: the harness hides what a passing test prints.
pub fn not_tested(test: &str, why: &str) -> Result<()> {
    Ok(std::io::stderr().write_all(format!("NOT TESTED: {test}: {why}\n").as_bytes())?)
}

/// A name that no other test has, not even one of another run on the same servers.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    format!("{name}-{now:x}-{:x}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst))
}

/// Asks until the answer is there. `Err` after `within`, naming `what` was waited for.
pub fn until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask().with_context(|| format!("wait until {what}"))? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain until {what}", within.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a test in a folder of its own, which is deleted if the test succeeds and named in the error if it does not.
pub fn in_folder(test: &str, body: impl FnOnce(&std::path::Path) -> Result<()>) -> Result<()> {
    let folder = tempfile::Builder::new().prefix(&format!("forebay-{test}-")).tempdir().context("make a folder for the test")?;
    let outcome = body(folder.path());
    if outcome.is_err() {
        let kept = folder.keep();
        return outcome.with_context(|| format!("logs and data are kept in {}", kept.display()));
    }
    outcome
}

/// The value of a variable that `stack with` and `export $(stack env)` set.
pub fn variable(name: &str) -> Result<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.with_context(|| {
        format!("{name} is not set: these tests need servers; run `make e2e`, or `make stack-up` and `export $(e2e/stack/stack env)`")
    })
}

/// The repository's folder.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, std::path::Path::to_path_buf)
}
