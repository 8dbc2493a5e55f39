//! A disk of a test's own, which stops answering when it is told to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// An ext4 file system in a file, mounted; taken off when it is dropped. Only root can have one.
pub struct Disk {
    mount: PathBuf,
}

impl Disk {
    /// A disk of so many MiB, all files of it below `folder`. `Err` where the system does not let us.
    pub fn new(folder: &Path, mib: u64) -> Result<Self> {
        let (image, mount) = (folder.join("disk.ext4"), folder.join("disk"));
        File::create(&image)?.set_len(mib << 20)?;
        fs::create_dir(&mount)?;
        call("mkfs.ext4", &["-q", "-F", &image.to_string_lossy()])?;
        call("mount", &["-o", "loop", &image.to_string_lossy(), &mount.to_string_lossy()])?;
        Ok(Self { mount })
    }

    /// Where its files are.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// From now on whoever writes to it waits, until what is returned is dropped. Reads go on.
    pub fn freeze(&self) -> Result<FrozenDisk<'_>> {
        call("fsfreeze", &["--freeze", &self.mount.to_string_lossy()])?;
        Ok(FrozenDisk(self))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is killed may have files open for a moment longer.
        if let Err(error) = call("umount", &["--lazy", &self.mount.to_string_lossy()]) {
            eprintln!("{error:#}");
        }
    }
}

/// A disk that takes no writes.
pub struct FrozenDisk<'a>(&'a Disk);

impl Drop for FrozenDisk<'_> {
    fn drop(&mut self) {
        if let Err(error) = call("fsfreeze", &["--unfreeze", &self.0.mount.to_string_lossy()]) {
            eprintln!("{error:#}");
        }
    }
}

fn call(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(())
}
