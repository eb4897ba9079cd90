//! The memory that this process may use.

use std::path::{Component, Path, PathBuf};

use rustix::system::sysinfo;

/// Files of a limit in a control group, in both versions: the kernel kills beyond the first and slows down beyond the
/// second, and version 1 has one alone.
const LIMITS: [&str; 3] = ["memory.max", "memory.high", "memory.limit_in_bytes"];
/// Folders in which control groups with a memory limit may be mounted: version 2, version 2 beside version 1, version 1.
const MOUNTS: [(&str, bool); 3] =
    [("/sys/fs/cgroup", true), ("/sys/fs/cgroup/unified", true), ("/sys/fs/cgroup/memory", false)];

/// Returns the memory that this process may use, in bytes: that of the host, or less if a control group has a limit, the
/// process' own (as by systemd's `MemoryMax` and `MemoryHigh`) or any above it.
pub fn memory() -> u64 {
    let system = sysinfo();
    let host = (system.totalram as u64).saturating_mul(system.mem_unit.into());
    limited(host, |file| std::fs::read_to_string(file).ok())
}

/// Returns the least of `host` and the limits of the control groups, by the text that `read` has of a file.
fn limited(host: u64, read: impl Fn(&Path) -> Option<String>) -> u64 {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let folders = MOUNTS.iter().flat_map(|(mount, version_2)| {
        let folder = Path::new(mount).join(group(&groups, *version_2));
        // In a container the path may be one of the host; the container's own group is then at the mount itself.
        folder.ancestors().take_while(|folder| folder.starts_with(mount)).map(Path::to_owned).collect::<Vec<_>>()
    });
    let files = folders.flat_map(|folder| LIMITS.map(|limit| folder.join(limit)));
    // A group without a limit says `max`, and version 1 a number beyond all memory.
    let limits = files.filter_map(|file| read(&file)?.trim().parse().ok());
    limits.fold(host, u64::min)
}

/// Returns the path of this process' group below the mount, by `/proc/self/cgroup`.
fn group(groups: &str, version_2: bool) -> PathBuf {
    let path = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it = if version_2 { number == "0" } else { controllers.split(',').any(|one| one == "memory") };
        is_it.then(|| path.trim_start_matches('/'))
    });
    let path = PathBuf::from(path.unwrap_or_default());
    // A group outside of those that are mounted here.
    if path.components().all(|part| matches!(part, Component::Normal(_))) { path } else { PathBuf::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: u64 = 8 << 30;

    /// Returns the memory of a process on a host with these groups and limits.
    fn with(groups: &str, limits: &[(&str, &str)]) -> u64 {
        limited(HOST, |file| match file.strip_prefix("/sys/fs/cgroup") {
            Ok(path) => limits.iter().find(|(limit, _)| Path::new(limit) == path).map(|(_, text)| (*text).to_owned()),
            Err(_) => (file == Path::new("/proc/self/cgroup")).then(|| groups.to_owned()),
        })
    }

    #[test]
    fn the_least_of_host_and_groups() {
        let unit = "0::/system.slice/otproxy-core.service\n";
        let max = "system.slice/otproxy-core.service/memory.max";
        let high = "system.slice/otproxy-core.service/memory.high";
        let of_slice = "system.slice/memory.max";
        for (groups, limits, expected) in [
            ("", vec![], HOST),
            (unit, vec![], HOST),
            (unit, vec![(max, "max\n"), (high, "max\n")], HOST),
            (unit, vec![(max, "67108864\n"), (high, "max\n")], 64 << 20),
            (unit, vec![(max, "67108864\n"), (high, "50331648\n")], 48 << 20),
            (unit, vec![(max, "max\n"), (of_slice, "1073741824\n")], 1 << 30),
            (unit, vec![(max, "17179869184\n")], HOST),
            // Another unit's limit is nothing to this one.
            (unit, vec![("system.slice/other.service/memory.max", "1\n")], HOST),
            // A container, with a namespace of its own and without.
            ("0::/\n", vec![("memory.max", "67108864\n")], 64 << 20),
            ("0::/docker/0123\n", vec![("memory.max", "67108864\n")], 64 << 20),
            ("0::/../../other\n", vec![("memory.max", "67108864\n")], 64 << 20),
            // Version 1, with other controllers, alone and beside version 2.
            ("5:cpu,cpuacct:/a\n4:memory:/b\n", vec![("memory/b/memory.limit_in_bytes", "67108864\n")], 64 << 20),
            ("4:memory:/b/c\n0::/d\n", vec![("memory/b/memory.limit_in_bytes", "67108864\n")], 64 << 20),
            ("4:memory:/b\n", vec![("memory/b/memory.limit_in_bytes", "9223372036854771712\n")], HOST),
            ("0::/d\n", vec![("unified/d/memory.max", "67108864\n")], 64 << 20),
        ] {
            assert_eq!(with(groups, &limits), expected, "{groups} {limits:?}");
        }
    }

    #[test]
    fn this_process_has_some() {
        assert!(memory() > 1 << 20);
    }
}
