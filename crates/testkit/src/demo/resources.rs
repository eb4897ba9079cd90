//! The resources of the demo's process: memory and open files. A relay that leaks either shows it here.

use std::fs;
use std::io;
use std::time::Duration;

/// Parts of the time of which each keeps its own highest.
pub const PARTS: usize = 4;

/// The resources that this process holds at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Open files, sockets among them.
    pub files: u64,
}

impl Resources {
    /// Returns the present resources.
    ///
    /// # Errors
    /// Fails if there is no `/proc`.
    pub fn now() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let memory = resident(&status).ok_or_else(|| io::Error::other("no VmRSS in /proc/self/status"))?;
        // The list itself is open while it is read.
        let files = (fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1);
        Ok(Self { memory, files })
    }

    fn max(self, other: Self) -> Self {
        Self { memory: self.memory.max(other.memory), files: self.files.max(other.files) }
    }
}

/// Returns `VmRSS` of a process's status, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The most that the process held in each quarter of its time: figures that go on growing from one
/// to the next are a leak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HighWater([Option<Resources>; PARTS]);

impl HighWater {
    /// Records that the process held `resources` when `elapsed` of `whole` was over.
    pub fn see(&mut self, resources: Resources, elapsed: Duration, whole: Duration) {
        let part = (elapsed.as_nanos() * PARTS as u128).checked_div(whole.as_nanos()).unwrap_or(0);
        if let Some(part) = self.0.get_mut((part as usize).min(PARTS - 1)) {
            *part = Some(part.map_or(resources, |before| before.max(resources)));
        }
    }

    /// Returns the quarters that were seen, in their order.
    pub fn parts(&self) -> impl Iterator<Item = Resources> {
        self.0.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_something() {
        let before = Resources::now().unwrap();
        let _open: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let now = Resources::now().unwrap();
        assert!(before.memory > 100_000 && before.files >= 3, "{before:?}");
        assert!(now.files >= 50, "{now:?}");
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmHWM:\t  99 kB\nVmRSS:\t    4196 kB\n"), Some(4196 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn each_quarter_keeps_its_highest() {
        let mut highest = HighWater::default();
        let whole = Duration::from_secs(8);
        for (second, memory, files) in [(0, 5, 1), (1, 9, 2), (2, 3, 7), (5, 4, 4), (8, 6, 3), (9, 2, 8)] {
            highest.see(Resources { memory, files }, Duration::from_secs(second), whole);
        }
        let parts: Vec<_> = highest.parts().map(|r| (r.memory, r.files)).collect();
        assert_eq!(parts, [(9, 2), (3, 7), (4, 4), (6, 8)]);
        highest.see(Resources::default(), Duration::ZERO, Duration::ZERO);
    }
}
