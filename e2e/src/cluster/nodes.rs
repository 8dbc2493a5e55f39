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
            let why = "the cluster's nodes are none of ours to harm; `make e2e-kubernetes` without KUBECONFIG starts some";
            crate::not_tested("what needs nodes", why).ok();
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

    /// Freezes a node's kubelet with `STOP`, and thaws it with `CONT`: what runs on the node goes on meanwhile, and nobody is told of it.
    pub fn signal_kubelet(&self, node: &str, name: &str) -> Result<()> {
        let is_it = |process: &Path| {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.next().is_some_and(|program| program.ends_with(b"kubelet"))
                && words.any(|word| word == format!("--hostname-override={node}").as_bytes())
        };
        send(&processes(is_it)?, &format!("kubelet of {node}"), name)
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
    let has = |process: &Path| {
        // It may have ended meanwhile.
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    };
    send(&processes(has)?, variable, name)
}

/// The processes of this machine, containers included, of which this is so.
fn processes(is_wanted: impl Fn(&Path) -> bool) -> Result<Vec<String>> {
    let all = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()).map(|entry| entry.path());
    Ok(all.filter(|process| is_wanted(process)).filter_map(|process| Some(process.file_name()?.to_str()?.to_owned())).collect())
}

fn send(found: &[String], what: &str, name: &str) -> Result<()> {
    let [process] = found else { anyhow::bail!("the processes {found:?} are {what}, and one was to be found") };
    let sent = Command::new("kill").args(["-s", name, process]).status().context("call kill")?;
    ensure!(sent.success(), "process {process} was not to be sent {name}");
    Ok(())
}
