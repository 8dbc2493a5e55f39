//! Promise: a full disk is said, with the way out, and nothing that was committed is lost: with room again the job goes on.
//!
//! A disk that fills is a small tmpfs, which only root can mount; elsewhere these tests are skipped and say so.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Watched, World, fill};

/// A small disk; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// `None` where the system does not let us.
    fn mount(path: PathBuf, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(&path).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(path)),
            other => {
                // Not by `eprintln!`: the harness hides what a passing test prints.
                let test = std::thread::current().name().unwrap_or_default().to_owned();
                let why = format!("NOT TESTED: {test}: a tmpfs cannot be mounted here, which needs root: {other:?}\n");
                std::io::stderr().write_all(why.as_bytes()).unwrap();
                None
            }
        }
    }

    fn enlarge(&self, megabytes: u32) {
        let options = format!("remount,size={megabytes}m");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
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
    let world = World::new();
    let Some(disk) = Disk::mount(world.path("small"), 6) else { return };
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
    let world = World::new();
    fill(&world, 60_000);
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    let Some(disk) = Disk::mount(world.path("small"), 6) else { return };
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

/// Method: the embedded log lies on a disk that is too small for what the job puts out. The run is stopped, the disk made larger, the job
/// started again.
#[test]
fn a_full_log_disk_loses_nothing() {
    let world = World::new();
    let Some(disk) = Disk::mount(world.path("data/log"), 64) else { return };
    fill(&world, 60_000);
    let mut run = Watched::start(&mut world.command(&["run", "--until-end"]));
    assert!(run.until("No space left on device"), "the disk was large enough: {:?}", run.seen);
    let said = run.seen.last().unwrap().clone();
    assert!(said.contains("free some space"), "{said}");
    run.signal("TERM");
    let (code, log) = run.end();
    assert_eq!(code, Some(0), "{log}");
    disk.enlarge(500);
    assert_eq!(world.ask(&["run", "--until-end"]), "60000 in = 60000 processed\n");
    assert_eq!(world.records("orders.good").len(), 60_000);
    assert_eq!(world.ask_json(&["state", "scan"]).len(), 60_000);
}
