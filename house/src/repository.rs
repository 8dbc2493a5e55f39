//! The files of the repository. The only module that touches the disk.

use std::fs;
use std::path::{Path, PathBuf};

/// Names of what was made here, not written here: folders all, but for a working tree's `.git`, which may be a file.
const MADE: [&str; 6] = [".git", ".venv", "__pycache__", "node_modules", "target", ".pytest_cache"];

/// Cargo and others put this file into folders that may be deleted at any time.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// A file of the repository.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// From the root, with slashes.
    pub path: String,
    /// All of it; nothing for a file that is no text, such as an image.
    pub text: String,
}

/// The folder that holds the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("this crate lies in a folder of the workspace").to_owned()
}

/// All files below the root, in the order of their paths. Those that are no text (no UTF-8) are there too: links lead to them.
pub fn text_files(root: &Path) -> Vec<TextFile> {
    let mut found = Vec::new();
    collect(root, root, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<TextFile>) {
    // A file that goes away while tests of other crates run is no finding.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if MADE.iter().any(|made| name == *made) {
            continue;
        }
        if kind.is_dir() {
            if !path.join(CACHE_TAG).exists() {
                collect(root, &path, found);
            }
        } else if let (true, Ok(bytes), Ok(below)) = (kind.is_file(), fs::read(&path), path.strip_prefix(root)) {
            let text = String::from_utf8(bytes).unwrap_or_default();
            let parts: Vec<_> = below.components().map(|part| part.as_os_str().to_string_lossy()).collect();
            found.push(TextFile { path: parts.join("/"), text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_finds_this_very_file_and_nothing_that_was_made() {
        let files = text_files(&root());
        let has = |path: &str| files.iter().any(|file| file.path == path);
        assert!(has("house/src/repository.rs") && has("Cargo.toml") && has(".cargo/config.toml"));
        assert!(files.iter().all(|file| !file.path.starts_with("target/") && !file.path.contains(".git/")));
    }
}
