//! The descriptors of this process.

use rustix::process::{Resource, getrlimit};

use crate::admin::api::Count;

/// Returns the number in use, and the limit of the system.
pub(super) fn files() -> Count {
    // One of them is that of the directory itself.
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1));
    Count { open: open as u64, limit: getrlimit(Resource::Nofile).current }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_counted() {
        let Count { open, limit } = files();
        assert!(open >= 3 && limit.is_none_or(|limit| limit >= open), "{open} of {limit:?}");
    }
}
