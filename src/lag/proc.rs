//! The kernel's view of this host and of the threads of this process: the CPU time that others got in their place.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// The file with the times of all CPUs.
const STAT: &str = "/proc/stat";
/// The folder of the threads of this process.
const TASKS: &str = "/proc/self/task";
/// The place of the time that a virtual machine's host gave to others, among the times of a CPU.
const STEAL: usize = 7;
/// The times of a CPU that count: those of guests are part of the first ones.
const COUNTED: usize = 8;

/// Times since the start of the host and of threads. They are missing as far as the kernel tells none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostTimes {
    /// The ticks of all CPUs, and those of them that the host of this virtual machine gave to others.
    cpus: Option<(u64, u64)>,
    /// Nanoseconds for which each thread was ready to run and had no CPU.
    waited: BTreeMap<u32, u64>,
}

/// The growth between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HostShare {
    /// The share of the time of all CPUs that the host of this virtual machine gave to others.
    pub steal: Option<f64>,
    /// The time for which the thread that waited the longest was ready to run and had no CPU.
    pub run_queue: Option<Duration>,
}

impl HostTimes {
    /// Reads them.
    #[must_use]
    pub fn read() -> Self {
        let cpus = fs::read_to_string(STAT).ok().and_then(|text| cpus(&text));
        let threads = fs::read_dir(TASKS).into_iter().flatten().flatten();
        let waited = threads.filter_map(|thread| {
            let number = thread.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((number, waited(&text)?))
        });
        Self { cpus, waited: waited.collect() }
    }

    /// Returns what has grown since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> HostShare {
        let steal = self.cpus.zip(before.cpus).and_then(|((all, steal), (all_before, steal_before))| {
            let passed = all.saturating_sub(all_before);
            (passed > 0).then(|| steal.saturating_sub(steal_before) as f64 / passed as f64)
        });
        let grown = self.waited.iter().filter_map(|(thread, now)| {
            // One that is new has waited since its start, which is later.
            Some(Duration::from_nanos(now.saturating_sub(*before.waited.get(thread)?)))
        });
        HostShare { steal, run_queue: grown.max() }
    }
}

/// Returns all ticks of all CPUs and those that were stolen, from `/proc/stat`.
fn cpus(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).take(COUNTED).collect();
    // Kernels before 2.6.11 count no steal.
    Some((ticks.iter().sum(), *ticks.get(STEAL)?))
}

/// Returns the nanoseconds that a thread waited, from its `schedstat`: ran, waited, turns.
fn waited(text: &str) -> Option<u64> {
    text.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        let text = "cpu  100 1 50 800 9 0 2 38 7 0\ncpu0 50 0 25 400 4 0 1 19 3 0\nintr 1\n";
        assert_eq!(cpus(text), Some((1000, 38)));
        assert_eq!((cpus("cpu  1 2 3\n"), cpus(""), cpus("cpu0 1 2 3 4 5 6 7 8\n")), (None, None, None));
        assert_eq!((waited("123 456 7\n"), waited("0"), waited("a b c")), (Some(456), None, None));
        // They are there on Linux; in a container `schedstat` may not be.
        assert!(HostTimes::read().cpus.is_some());
    }

    #[test]
    fn what_grew_is_a_share_of_all_cpus_and_the_wait_of_one_thread() {
        let times = |all, steal, waited: &[(u32, u64)]| HostTimes {
            cpus: Some((all, steal)),
            waited: waited.iter().copied().collect(),
        };
        let before = times(1000, 100, &[(1, 10), (2, 20)]);
        let now = times(1200, 180, &[(1, 10), (2, 900_000_020), (3, 5_000_000_000)]);
        let share = now.since(&before);
        assert_eq!(share, HostShare { steal: Some(0.4), run_queue: Some(Duration::from_millis(900)) });
        assert_eq!(before.since(&before).steal, None, "no time has passed");
        assert_eq!(HostTimes::default().since(&before), HostShare::default());
    }
}
