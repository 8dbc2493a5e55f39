//! Promise: a full disk is said, with the way out, and nothing that was committed is lost: with room again the job goes on.
//!
//! A disk that fills is a small tmpfs. Who is not root mounts it in a user namespace; where the system allows neither, these tests are skipped and
//! say so.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Watched, World, fill};

/// Set for the child of [`may_mount`].
const CHILD: &str = "FOREBAY_TEST_MAY_MOUNT";

/// Whether a test may mount disks here: in a child that runs it once more, alone, in a mount namespace of its own, and of a user who is not root in a
/// user namespace around that. Elsewhere that child is run, if the system lets us, and the test has nothing left to do.
fn may_mount(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let is_allowed = |way: &&str| {
        let mount = Command::new("unshare").args([*way, "mount", "-t", "tmpfs", "none"]).arg(std::env::temp_dir()).output();
        mount.is_ok_and(|output| output.status.success())
    };
    let Some(way) = ["-m", "-Urm"].into_iter().find(is_allowed) else {
        // Not by `eprintln!`: the harness hides what a passing test prints.
        let why = format!("NOT TESTED: {test}: a tmpfs cannot be mounted here, which needs root or a user namespace\n");
        std::io::stderr().write_all(why.as_bytes()).unwrap();
        return false;
    };
    let mut child = Command::new("unshare");
    child.arg(way).arg(std::env::current_exe().unwrap()).args(["--exact", &format!("full_disk::{test}"), "--nocapture"]).env(CHILD, "1");
    let output = child.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// A small disk; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf, megabytes: u32) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let disk = Self(path);
        disk.call_mount(&format!("size={megabytes}m"));
        disk
    }

    fn enlarge(&self, megabytes: u32) {
        self.call_mount(&format!("remount,size={megabytes}m"));
    }

    /// All is named in each call: of a disk that is there `mount` would add its user to the options, whom a user namespace need not know.
    fn call_mount(&self, options: &str) {
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&self.0).output().unwrap();
        assert!(output.status.success(), "{options}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Method: the state lies on a disk that is too small for it. The run must say so; then the disk is made larger under the running job.
#[test]
fn a_full_state_disk_holds_the_job_up_until_there_is_room() {
    if !may_mount("a_full_state_disk_holds_the_job_up_until_there_is_room") {
        return;
    }
    let world = World::new();
    let disk = Disk::mount(world.path("small"), 6);
    fill(&world, 60_000);
    let state = disk.path().join("state");
    let arguments = ["run", "--until-end", "--memory", "64Mi", "--state-dir", state.to_str().unwrap()];
    let mut run = Watched::start(&mut world.command(&arguments));
    assert!(run.until("free some space or enlarge the volume"), "the disk was large enough: {:?}", run.seen);
    let said = run.seen.last().unwrap().clone();
    assert!(said.contains("No space left on device") && said.contains("nothing that was committed is lost"), "{said}");
    disk.enlarge(500);
    let (code, log) = run.end();
    assert_eq!(code, Some(0), "{log}");
    // RocksDB may have ended before it tried the disk again: what it could not write then is in the journal, and comes back with the next start.
    world.ask(&arguments);
    let left = world.ask_json(&["state", "scan", "--state-dir", state.to_str().unwrap()]);
    assert_eq!(left.len(), 60_000);
    assert!(left.iter().all(|row| row["value"] == serde_json::json!({"orders": 1, "amount": 1})));
    assert_eq!(world.records("orders.good").len(), 60_000);
}

/// Method: a job with checkpoints has lost its disk, and gets one that is too small for them; then it is made larger under the running job.
#[test]
fn a_disk_that_is_too_small_for_a_restore_holds_the_job_up_until_there_is_room() {
    if !may_mount("a_disk_that_is_too_small_for_a_restore_holds_the_job_up_until_there_is_room") {
        return;
    }
    let world = World::new();
    fill(&world, 60_000);
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    let disk = Disk::mount(world.path("small"), 6);
    let state = disk.path().join("state");
    let arguments = ["run", "--until-end", "--memory", "64Mi", "--state-dir", state.to_str().unwrap()];
    let mut run = Watched::start(&mut world.command(&arguments));
    assert!(run.until("No space left on device"), "the disk was large enough: {:?}", run.seen);
    let said = run.seen.last().unwrap().clone();
    assert!(said.contains("free some space"), "{said}");
    disk.enlarge(500);
    let (code, log) = run.end();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("restored from a checkpoint").count(), 2, "{log}");
    assert!(!log.contains("falling back"), "a checkpoint was taken for damaged: {log}");
    assert_eq!(world.ask_json(&["state", "scan", "--state-dir", state.to_str().unwrap()]).len(), 60_000);
    assert_eq!(world.records("orders.good").len(), 60_000);
}

/// Method: the embedded log lies on a disk that is too small for what the job puts out. The run must end and say so; then the disk is made larger, and
/// the job started again.
#[test]
fn a_full_log_disk_loses_nothing() {
    if !may_mount("a_full_log_disk_loses_nothing") {
        return;
    }
    let world = World::new();
    let disk = Disk::mount(world.path("data/log"), 64);
    fill(&world, 60_000);
    let mut run = Watched::start(&mut world.command(&["run", "--until-end"]));
    assert!(run.until("No space left on device"), "the disk was large enough: {:?}", run.seen);
    let said = run.seen.last().unwrap().clone();
    assert!(said.contains("free some space"), "{said}");
    let (code, log) = run.end();
    assert_eq!(code, Some(75), "{log}");
    disk.enlarge(500);
    assert_eq!(world.ask(&["run", "--until-end"]), "60000 in = 60000 processed\n");
    assert_eq!(world.records("orders.good").len(), 60_000);
    assert_eq!(world.ask_json(&["state", "scan"]).len(), 60_000);
}
