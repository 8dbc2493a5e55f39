//! Writes `crds/ingestionjobs.forebay.dev.yaml`, and the copy of it that `kustomize/base` needs, from the types. Run it after each change of them.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for folder in [".", "../kustomize/base"] {
        let to = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("ingestionjobs.forebay.dev.yaml");
        std::fs::write(&to, forebay_crds::crd::ingestion_job_yaml())?;
        println!("wrote {}", to.display());
    }
    Ok(())
}
