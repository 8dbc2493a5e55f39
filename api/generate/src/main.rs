//! Writes `api/src/v1.rs` from `api/proto/worker.proto`, without `protoc`. Run it after each change of the contract: `make generate`.

use std::path::Path;

use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = std::env::temp_dir().join(format!("forebay-api-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let contract = std::fs::read(root.join("proto/worker.proto"))?;
    let hash: String = Sha256::digest(contract).iter().map(|byte| format!("{byte:02x}")).collect();
    let files = protox::compile(["worker.proto"], [root.join("proto")])?;
    tonic_prost_build::configure().out_dir(&folder).emit_rerun_if_changed(false).compile_fds(files)?;
    let generated = std::fs::read_to_string(folder.join("forebay.worker.v1.rs"))?;
    std::fs::remove_dir_all(&folder)?;
    let to = root.join("src/v1.rs");
    std::fs::write(&to, format!("//! Generated from `api/proto/worker.proto` by `make generate`; do not edit.\n//!\n//! SHA-256 of it: {hash}\n\n{generated}"))?;
    println!("wrote {}", to.display());
    Ok(())
}
