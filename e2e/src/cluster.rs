//! A Kubernetes cluster as a user sees it: by kubectl.

pub mod flights;
pub mod nodes;
pub mod packages;
pub mod plugin;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{PATIENCE, until};

/// Where the operator runs.
pub const SYSTEM: &str = "forebay-system";

/// The cluster that `KUBECONFIG` names.
pub struct Cluster;

impl Cluster {
    /// `None`, and a word why, when the environment names no cluster.
    pub fn of_environment() -> Option<Self> {
        let named = std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty());
        if !named {
            crate::not_tested("what needs a cluster", "KUBECONFIG names none; `make e2e-kubernetes` starts one").ok();
        }
        named.then_some(Self)
    }

    /// Installs the resource definition and the operator as `kustomize/base` has them, and waits until the operator runs.
    pub fn install(&self) -> Result<()> {
        let base = crate::repository().join("kustomize/base");
        self.ask(&["apply", "--server-side", "--force-conflicts", "-k", &base.to_string_lossy()])?;
        self.ask(&[
            "wait",
            "--for=condition=Established",
            "crd/ingestionjobs.forebay.dev",
            "crd/ingestionsavepoints.forebay.dev",
            "--timeout=60s",
        ])?;
        // Then a pod that does not meet the standard is refused.
        self.ask(&["label", "--overwrite", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted"])?;
        self.ask(&["-n", SYSTEM, "rollout", "status", "deployment/forebay-operator", "--timeout=120s"])?;
        Ok(())
    }

    /// Calls kubectl; it must succeed. Returns what it prints.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.call(arguments, "")?;
        ensure!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Calls kubectl, which may fail to say no. Returns what it prints.
    pub fn try_ask(&self, arguments: &[&str]) -> Result<String> {
        Ok(String::from_utf8(self.call(arguments, "")?.stdout)?)
    }

    /// Applies a manifest; `Err` is what the API server says against it.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let output = self.call(&["apply", "-f", "-"], manifest)?;
        ensure!(output.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The same without keeping it.
    pub fn try_apply(&self, manifest: &str) -> Result<()> {
        let output = self.call(&["apply", "--dry-run=server", "-f", "-"], manifest)?;
        ensure!(output.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The same from a file.
    pub fn apply_file(&self, manifest: &Path) -> Result<()> {
        self.apply(&std::fs::read_to_string(manifest)?)
    }

    /// An object of the namespace `default`.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let printed = self.ask(&["get", kind, name, "-o", "json"])?;
        Ok(serde_json::from_str(&printed)?)
    }

    /// Waits until a job has a phase; the error says what it says of itself.
    pub fn wait_for_phase(&self, job: &str, phase: &str) -> Result<Value> {
        let mut last = Value::Null;
        let waited = until(&format!("job {job} is {phase}"), PATIENCE, || {
            last = self.get("ingestionjob", job)?;
            Ok((last["status"]["phase"] == phase).then(|| last.clone()))
        });
        waited.with_context(|| format!("its last status: {}", last["status"]))
    }

    /// The job's pods that are not on their way out, by name.
    pub fn pods(&self, job: &str) -> Result<Vec<Value>> {
        Ok(self.all_pods(job)?.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect())
    }

    /// The job's pods, by name, those that are being deleted among them.
    pub fn all_pods(&self, job: &str) -> Result<Vec<Value>> {
        let printed = self.ask(&["get", "pods", "-l", &format!("forebay.dev/job={job}"), "-o", "json"])?;
        let mut list: Value = serde_json::from_str(&printed)?;
        let items = list["items"].as_array_mut().context("a list has items")?;
        Ok(std::mem::take(items))
    }

    /// Sets how many operators run, and waits until it is so.
    pub fn scale_operator(&self, replicas: usize) -> Result<()> {
        self.ask(&["-n", SYSTEM, "scale", "deployment/forebay-operator", &format!("--replicas={replicas}")])?;
        until(&format!("{replicas} operators run"), PATIENCE, || {
            let pods = self.ask(&["-n", SYSTEM, "get", "pods", "-l", "app.kubernetes.io/component=operator", "-o", "name"])?;
            Ok((pods.lines().count() == replicas).then_some(()))
        })?;
        self.ask(&["-n", SYSTEM, "rollout", "status", "deployment/forebay-operator", "--timeout=120s"]).map(drop)
    }

    fn call(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = Command::new("kubectl");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start kubectl")?;
        // It reads all of a manifest before it writes anything.
        child.stdin.take().context("a pipe was asked for")?.write_all(input.as_bytes())?;
        child.wait_with_output().context("wait for kubectl")
    }
}
