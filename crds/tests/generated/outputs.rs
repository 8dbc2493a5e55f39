//! What `make generate` writes, beside the definitions of the gRPC contract: each file with its text. Shared by the program that writes and the
//! test that compares.

use std::path::{Path, PathBuf};

#[path = "reference.rs"]
mod reference;

/// What stands in `kustomize/` once, and is copied for the chart, whose templates cannot reach outside of it.
const COPIES: [(&str, &str); 7] = [
    ("kustomize/base/role.yaml", "charts/forebay/files/role.yaml"),
    ("kustomize/base/own-role.yaml", "charts/forebay/files/own-role.yaml"),
    ("kustomize/base/user-roles.yaml", "charts/forebay/files/user-roles.yaml"),
    ("kustomize/components/network-policy/network-policy.yaml", "charts/forebay/files/network-policy.yaml"),
    ("kustomize/components/monitoring/pod-monitor.yaml", "charts/forebay/files/pod-monitor.yaml"),
    ("kustomize/components/monitoring/prometheus-rule.yaml", "charts/forebay/files/prometheus-rule.yaml"),
    ("kustomize/components/monitoring/dashboard.json", "charts/forebay/files/dashboard.json"),
];

/// Every generated file and what belongs into it. `Err` when a file that is copied cannot be read.
pub fn outputs() -> std::io::Result<Vec<(PathBuf, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for folder in ["crds", "kustomize/base", "charts/forebay/files/crds"] {
        let files = forebay_crds::crd::files().into_iter();
        all.extend(files.map(|(file, text)| (root.join(folder).join(file), text)));
    }
    all.push((root.join("docs/fields.md"), reference::page(&forebay_crds::crd::files())));
    for (from, to) in COPIES {
        all.push((root.join(to), std::fs::read_to_string(root.join(from))?));
    }
    Ok(all)
}
