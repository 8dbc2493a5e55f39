//! What is installed: the chart as Helm renders and installs it, and what kustomize makes.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Cluster;

/// The program `helm`, run at the root of the repository.
pub struct Helm;

impl Helm {
    /// `None`, and a word why, when there is none on the path.
    pub fn of_environment() -> Option<Self> {
        let there = Command::new("helm").arg("version").output().is_ok_and(|output| output.status.success());
        if !there {
            let why = "helm is not on the path; `e2e/stack/kubernetes/kubernetes tool COMMAND...` puts it there";
            crate::not_tested("the chart", why).ok();
        }
        there.then_some(Self)
    }

    /// A path from the root of the repository.
    pub fn path(path: &str) -> String {
        crate::repository().join(path).to_string_lossy().into_owned()
    }

    /// The chart's folder.
    pub fn chart() -> String {
        Self::path("charts/forebay")
    }

    /// Calls helm; it must succeed. Returns what it prints.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("helm").args(arguments).current_dir(crate::repository()).output().context("call helm")?;
        let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "helm {arguments:?}: {}", said());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What a release called `forebay` would consist of.
    pub fn template(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        self.ask(&[&["template", "forebay", &Self::chart(), "--namespace", namespace], arguments].concat())
    }
}

impl Cluster {
    /// Has the API server check objects, whose namespaces exist, without keeping them.
    pub fn check(&self, rendered: &str) -> Result<()> {
        let output = self.call(&["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"], rendered)?;
        ensure!(output.status.success(), "kubectl apply --dry-run=server: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// An object as the API server would keep it: with all that it fills in.
    pub fn filled(&self, manifest: &str) -> Result<Value> {
        let output = self.call(&["apply", "--dry-run=server", "-o", "json", "-f", "-"], manifest)?;
        ensure!(output.status.success(), "kubectl apply --dry-run=server: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Installs the definitions of PodMonitor and PrometheusRule, without anybody who would act on them.
    pub fn install_monitoring_crds(&self) -> Result<()> {
        let folder = crate::variable("FOREBAY_MONITORING_CRDS")?;
        self.ask(&["apply", "--server-side", "-f", &folder])?;
        self.ask(&["wait", "--for=condition=Established", "crd/podmonitors.monitoring.coreos.com", "--timeout=60s"])?;
        self.ask(&["wait", "--for=condition=Established", "crd/prometheusrules.monitoring.coreos.com", "--timeout=60s"]).map(drop)
    }
}

/// The objects of a stream of YAML documents.
pub fn objects(rendered: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(rendered).context("read the rendered objects")?;
    Ok(all.into_iter().filter(|object| !object.is_null()).collect())
}
