//! Promise: without a word about memory a process goes by its container's limit, not by the machine's memory, and is not killed for want of it.
//!
//! The container is a memory cgroup of version 1 or 2, which only root can make; elsewhere the test is skipped and says so.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, records, replaced};
use forebay_e2e::job::Forebay;
use forebay_e2e::{PATIENCE, in_folder, not_tested, unique, until};
use serde_json::Value;

const LIMIT_MIB: u64 = 512;

/// What a process makes of it by itself; see docs/cli.md.
const BUDGET_MIB: u64 = LIMIT_MIB / 2;

/// Too many for the budget, which has room for some 300; a machine has room for them from 800 MiB on.
const SHARDS_TOO_MANY: u32 = 400;

/// Wrong usage, or a manifest that cannot work.
const UNUSABLE: Option<i32> = Some(2);

/// What a version of cgroups calls things.
struct Version {
    mount: &'static str,
    limit: &'static str,
    /// The most that the group has held. Version 2 has it from Linux 5.19 on.
    peak: &'static str,
    /// Where a line counts the processes that were killed.
    kills: &'static str,
}

const VERSION_1: Version = Version {
    mount: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    peak: "memory.max_usage_in_bytes",
    kills: "memory.oom_control",
};
const VERSION_2: Version = Version { mount: "/sys/fs/cgroup", limit: "memory.max", peak: "memory.peak", kills: "memory.events" };

/// A group of processes that may hold so much together; gone when it is dropped, before which its processes must have ended.
struct Container {
    folder: PathBuf,
    version: Version,
}

impl Container {
    /// `Err` where the system does not let us.
    fn new(limit_bytes: u64) -> Result<Self> {
        let controllers = fs::read_to_string(Path::new(VERSION_2.mount).join("cgroup.controllers")).unwrap_or_default();
        let version = if controllers.split_whitespace().any(|name| name == "memory") { VERSION_2 } else { VERSION_1 };
        let mount = Path::new(version.mount);
        if version.mount == VERSION_2.mount {
            // As a rule the system has done it already.
            fs::write(mount.join("cgroup.subtree_control"), "+memory").context("have groups with limits of memory")?;
        }
        let folder = mount.join(unique("forebay-e2e"));
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let container = Self { folder, version };
        let limit = container.folder.join(container.version.limit);
        fs::write(&limit, limit_bytes.to_string()).with_context(|| format!("write {}", limit.display()))?;
        Ok(container)
    }

    /// The same commands, in here.
    fn around(&self, forebay: &Forebay) -> Forebay {
        let members = self.folder.join("cgroup.procs");
        forebay.clone().started_by(&["sh", "-c", r#"echo $$ > "$0" && exec "$@""#, &members.to_string_lossy()])
    }

    /// The most bytes that it has held; `None` where the system does not tell.
    fn peak_bytes(&self) -> Result<Option<u64>> {
        let path = self.folder.join(self.version.peak);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(fs::read_to_string(path)?.trim().parse()?))
    }

    /// How many of its processes were killed for want of memory.
    fn kills(&self) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join(self.version.kills))?;
        let count: Option<u64> = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.with_context(|| format!("no oom_kill in {text}"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A group that a process has just left may be busy for a moment.
        let gone = || fs::remove_dir(&self.folder).is_ok() || !self.folder.exists();
        if let Err(error) = until(&format!("{} is gone", self.folder.display()), PATIENCE, || Ok(gone().then_some(()))) {
            eprintln!("{error:#}");
        }
    }
}

/// Method: a cgroup of 512 MiB, and no `--memory`. A job of more shards than half of that has room for is refused, which tells the budget. Then the
/// flights of a year are worked off; the kernel tells the most that the group held, and that nobody in it was killed.
#[test]
fn without_a_word_about_memory_a_process_goes_by_its_containers_limit() -> Result<()> {
    let container = match Container::new(LIMIT_MIB << 20) {
        Ok(container) => container,
        Err(why) => {
            let test = "without_a_word_about_memory_a_process_goes_by_its_containers_limit";
            return not_tested(test, &format!("a memory cgroup cannot be made here, which needs root: {why:#}"));
        }
    };
    in_folder("container", |folder| {
        let (flights, _s3) = Flights::on_shared_servers(folder)?;
        let inside = container.around(&flights.forebay);
        let many = folder.join("many.yaml");
        let text = replaced(fs::read_to_string(&flights.manifest)?, "shards: 4", &format!("shards: {SHARDS_TOO_MANY}"))?;
        fs::write(&many, text)?;
        let refused = inside.clone().with_manifest(&many).call(&["run", "--until-end"])?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(
            refused.status.code() == UNUSABLE && said.contains(&format!("it may use {BUDGET_MIB}:")),
            "{SHARDS_TOO_MANY} shards in a container of {LIMIT_MIB} MiB: {}: {said}",
            refused.status
        );

        let records = records(336_776)?;
        flights.feed(&records)?;
        let state_dir = flights.state_dir("one");
        inside.run("one", &state_dir, &["--until-end"])?.success()?;
        let (kills, peak_bytes) = (container.kills()?, container.peak_bytes()?);
        println!("peak memory: {:?} MiB of {LIMIT_MIB}", peak_bytes.map(|bytes| bytes >> 20));
        ensure!(kills == 0, "{kills} processes were killed for want of memory");
        ensure!(peak_bytes.is_none_or(|bytes| bytes < LIMIT_MIB << 20), "the group was at its limit");
        let outside = flights.forebay.clone().with("FOREBAY_STATE_DIR", state_dir.to_string_lossy());
        let books: Value = serde_json::from_str(&outside.ask(&["books", "-o", "json"])?)?;
        ensure!(books["in"] == records.len(), "{} records were put in, the books say {books}", records.len());
        Ok(())
    })
}
