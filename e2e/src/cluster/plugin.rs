//! `kubectl forebay`, as whoever has put it on the path calls it.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The program, for one of the cluster's users.
pub struct Plugin {
    path: OsString,
    kubeconfig: Option<PathBuf>,
}

impl Plugin {
    /// As the user whom `KUBECONFIG` names. It lies beside `forebay`.
    pub fn of_environment() -> Result<Self> {
        let programs = PathBuf::from(crate::variable("FOREBAY_BIN")?);
        let folder = programs.parent().context("FOREBAY_BIN names a file in a folder")?.to_path_buf();
        ensure!(folder.join("kubectl-forebay").is_file(), "kubectl-forebay is not in {}; `make build` makes it", folder.display());
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(Self { path: std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path)))?, kubeconfig: None })
    }

    /// As another user.
    pub fn with_kubeconfig(self, kubeconfig: &Path) -> Self {
        Self { kubeconfig: Some(kubeconfig.to_path_buf()), ..self }
    }

    /// Calls it; it must succeed. Returns what it prints.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("call kubectl")?;
        ensure!(output.status.success(), "kubectl forebay {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Calls it; it must say no. Returns what it says.
    pub fn refusal(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("call kubectl")?;
        ensure!(output.status.code() == Some(1), "kubectl forebay {arguments:?} ended with {}", output.status);
        ensure!(output.stdout.is_empty(), "kubectl forebay {arguments:?} printed {}", String::from_utf8_lossy(&output.stdout));
        Ok(String::from_utf8(output.stderr)?)
    }

    /// Starts it, with what it prints going to a file.
    pub fn start(&self, arguments: &[&str], output: &Path) -> Result<Child> {
        self.command(arguments).stdout(File::create(output)?).stderr(Stdio::inherit()).spawn().context("start kubectl")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("forebay").args(arguments).env("PATH", &self.path).stdin(Stdio::null());
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command
    }
}
