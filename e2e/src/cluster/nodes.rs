//! The machines of a cluster that runs on this one: its nodes are lost and come back, its containers are killed from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The nodes of the cluster that `e2e/stack/kubernetes` runs.
pub struct Nodes {
    script: PathBuf,
}

impl Nodes {
    /// `None`, and a word why, when the cluster is not one that runs on this machine.
    pub fn of_environment() -> Option<Self> {
        let script = std::env::var_os("FOREBAY_KUBERNETES").map(PathBuf::from);
        if script.is_none() {
            eprintln!("skipped: the cluster's nodes are none of ours to harm; `make e2e-kubernetes` without KUBECONFIG starts some");
        }
        script.map(|script| Self { script })
    }

    /// Loses a node with all that runs on it, at once: `n1`, `n2`...
    pub fn kill(&self, node: &str) -> Result<()> {
        self.call("node-kill", node)
    }

    /// Starts it again. It comes back empty-handed: what ran on it is gone.
    pub fn start(&self, node: &str) -> Result<()> {
        self.call("node-up", node)
    }

    /// Kills the process of a worker's container, which its node starts again.
    pub fn kill_container(&self, pod_uid: &str) -> Result<()> {
        signal(&format!("POD_UID={pod_uid}"), "KILL")
    }

    /// Sends a signal to the process of a container, by its pod's name: `STOP` freezes it, `CONT` thaws it.
    pub fn signal_container(&self, pod: &str, name: &str) -> Result<()> {
        signal(&format!("POD_NAME={pod}"), name)
    }

    fn call(&self, command: &str, node: &str) -> Result<()> {
        let number = node.strip_prefix('n').with_context(|| format!("{node} is none of the nodes n1, n2..."))?;
        let output =
            Command::new(&self.script).args([command, number]).output().with_context(|| format!("call {}", self.script.display()))?;
        ensure!(output.status.success(), "{command} {number}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// To the one process whose environment has a variable of this value.
fn signal(variable: &str, name: &str) -> Result<()> {
    let process = processes_with(variable)?;
    let [process] = process.as_slice() else { anyhow::bail!("the processes {process:?} have {variable}, and one was to be found") };
    let sent = Command::new("kill").args(["-s", name, process]).status().context("call kill")?;
    ensure!(sent.success(), "process {process} was not to be sent {name}");
    Ok(())
}

/// The processes of this machine, containers included, whose environment has a variable of this value.
fn processes_with(variable: &str) -> Result<Vec<String>> {
    let has = |process: &Path| {
        // It may have ended meanwhile.
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    };
    let processes = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()).map(|entry| entry.path());
    Ok(processes.filter(|process| has(process)).filter_map(|process| Some(process.file_name()?.to_str()?.to_owned())).collect())
}
