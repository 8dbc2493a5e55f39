//! How much memory the process may use by the system's word.

use std::path::Path;

/// Where neither the limit nor the machine's memory can be read.
const UNKNOWN_BYTES: u64 = 1 << 30;

/// The memory limit of the container or service that this process is in (cgroup v2, then v1), or the machine's memory where that is less. `root` is `/`.
pub fn limit(root: &Path) -> u64 {
    let limits = cgroup_limits(root, "", "sys/fs/cgroup", "memory.max");
    let limits = if limits.is_empty() { cgroup_limits(root, "memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes") } else { limits };
    limits.into_iter().chain(total(root)).min().unwrap_or(UNKNOWN_BYTES)
}

/// The limits of the process's own group of a controller and of all groups around it: each counts for all that is in it.
fn cgroup_limits(root: &Path, controller: &str, mount: &str, file: &str) -> Vec<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    // `0::/system.slice/forebay.service`, `4:memory:/docker/1234`
    let own = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/').to_owned())
    });
    let mount = root.join(mount);
    // A group that is not mounted here, as that of a container seen from within, is left out.
    let around = mount.join(own.unwrap_or_default());
    let groups = around.ancestors().take_while(|group| group.starts_with(&mount));
    // `max` is no number, and no limit.
    groups.filter_map(|group| std::fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()).collect()
}

fn total(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method: a system in a folder, as far as it is looked at.
    fn check(files: &[(&str, &str)], expected_mib: u64) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(limit(root.path()) >> 20, expected_mib, "{files:?}");
    }

    #[test]
    fn the_least_of_all_limits_around_the_process_counts() {
        let meminfo = ("proc/meminfo", "MemFree: 5 kB\nMemTotal:        8388608 kB\n");
        check(&[], 1024);
        check(&[meminfo], 8192);
        // In a container one sees its own group as the root.
        let inside = ("proc/self/cgroup", "0::/\n");
        check(&[meminfo, inside, ("sys/fs/cgroup/memory.max", "536870912\n")], 512);
        check(&[meminfo, inside, ("sys/fs/cgroup/memory.max", "max\n")], 8192);
        check(&[meminfo, inside, ("sys/fs/cgroup/memory.max", "17179869184\n")], 8192);
        // A service of systemd.
        let service = ("proc/self/cgroup", "0::/system.slice/forebay.service\n");
        let of_service = "sys/fs/cgroup/system.slice/forebay.service/memory.max";
        check(&[meminfo, service, (of_service, "268435456\n")], 256);
        check(&[meminfo, service, (of_service, "max\n"), ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n")], 1024);
        // Version 1: within a container the group's path is the host's, and not there.
        let old = ("proc/self/cgroup", "5:cpu,cpuacct:/docker/12\n4:memory:/docker/12\n");
        let root = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        check(&[meminfo, old, (root, "134217728\n")], 128);
        check(&[meminfo, old, (root, "9223372036854771712\n"), ("sys/fs/cgroup/memory/docker/12/memory.limit_in_bytes", "67108864\n")], 64);
    }
}
