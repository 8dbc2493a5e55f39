//! Which Rust builds the image, and everything else: one exact version, of the one that the workspace asks for at least.

/// What is wrong with the version that `dockerfile` builds with, given the workspace's manifest and `toolchain`, rustup's file.
pub fn check(dockerfile: &str, manifest: &str, toolchain: &str) -> Vec<String> {
    let wanted = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).map(|version| version.trim().trim_matches('"'));
    let Some(wanted) = wanted else { return vec!["Cargo.toml names no rust-version".to_owned()] };
    let images: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM rust:")).collect();
    let [image] = images.as_slice() else { return vec![format!("Dockerfile has {} lines `FROM rust:VERSION`; write one", images.len())] };
    let version = image.split(['-', ' ']).next().unwrap_or_default();
    let parts: Vec<Option<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
    if parts.len() != 3 || parts.contains(&None) {
        return vec![format!("Dockerfile builds with rust:{version}, which is another one from time to time; write all three numbers")];
    }
    let pinned = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).map_or("", |channel| channel.trim().trim_matches('"'));
    if pinned != version {
        return vec![format!("Dockerfile builds with Rust {version}, and rust-toolchain.toml has {pinned:?}; write the same")];
    }
    let is_wanted = version == wanted || version.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'));
    if is_wanted { Vec::new() } else { vec![format!("Dockerfile builds with Rust {version}, and Cargo.toml says rust-version {wanted}")] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_version(image: &str, expected: &[&str]) {
        let version = image.trim_start_matches("FROM rust:").split(['-', ' ']).next().unwrap_or_default();
        check_pinned(image, version, expected);
    }

    fn check_pinned(image: &str, channel: &str, expected: &[&str]) {
        let toolchain = format!("# A pin.\n[toolchain]\nchannel = \"{channel}\"\n");
        let manifest = "[workspace.package]\nedition = \"2024\"\nrust-version = \"1.95\"\n";
        assert_eq!(check(&format!("# An image.\n{image}\nFROM other:1\n"), manifest, &toolchain), expected);
    }

    #[test]
    fn a_version_that_is_another_one_or_not_exact_is_found() {
        check_version("FROM rust:1.95.0-bookworm AS build", &[]);
        check_version("FROM rust:1.95.2", &[]);
        check_version(
            "FROM rust:1.95-bookworm AS build",
            &["Dockerfile builds with rust:1.95, which is another one from time to time; write all three numbers"],
        );
        check_version("FROM rust:1.9.5-bookworm AS build", &["Dockerfile builds with Rust 1.9.5, and Cargo.toml says rust-version 1.95"]);
        check_version("FROM rust:1.96.0", &["Dockerfile builds with Rust 1.96.0, and Cargo.toml says rust-version 1.95"]);
        check_version("RUN true", &["Dockerfile has 0 lines `FROM rust:VERSION`; write one"]);
        assert_eq!(check("FROM rust:1.95.0", "[package]", ""), ["Cargo.toml names no rust-version"]);
        let another = "Dockerfile builds with Rust 1.95.0, and rust-toolchain.toml has";
        check_pinned("FROM rust:1.95.0-bookworm AS build", "1.95.1", &[&format!("{another} \"1.95.1\"; write the same")]);
        check_pinned("FROM rust:1.95.0-bookworm AS build", "stable", &[&format!("{another} \"stable\"; write the same")]);
    }
}
