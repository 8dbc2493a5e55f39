//! Writes the resource definitions from the types, and the copies that `kustomize/` and `charts/` need. Run it after each change of them.

#[path = "../tests/generated/outputs.rs"]
mod outputs;

fn main() -> std::io::Result<()> {
    for (to, text) in outputs::outputs()? {
        std::fs::write(&to, text)?;
        println!("wrote {}", to.display());
    }
    Ok(())
}
