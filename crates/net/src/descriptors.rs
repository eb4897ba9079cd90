//! The last descriptors of the process, which connections leave to its operator: a process that has none left could neither be
//! asked by its admin socket what it is doing, nor told to stop, nor read its file.
//!
//! The kernel gives the lowest number that is free. So a new descriptor tells by its number how many are left, and nobody
//! counts them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, getrlimit};

/// Descriptors that are held back, or an eighth of all if that is less.
pub const HELD_BACK: u64 = 64;

/// Returns how many descriptors connections may use in a process that may have `limit`.
pub fn for_connections(limit: u64) -> u64 {
    limit - HELD_BACK.min(limit / 8)
}

/// Returns whether a new descriptor of a connection is one of those that are held back.
pub(super) fn is_held_back(new: impl AsFd) -> bool {
    let number = u64::try_from(new.as_fd().as_raw_fd()).unwrap_or(u64::MAX);
    getrlimit(Resource::Nofile).current.is_some_and(|limit| number >= for_connections(limit))
}

/// Returns whether a new descriptor would be free to use; `like` is any that is open.
pub(super) fn is_one_left(like: impl AsFd) -> bool {
    fcntl_dupfd_cloexec(like, 0).is_ok_and(|probe| !is_held_back(probe))
}

/// Returns the error of a process that has none left.
pub(super) fn none_left() -> io::Error {
    Errno::MFILE.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_have_most_of_them() {
        for (limit, most) in [(0, 0), (7, 7), (64, 56), (256, 224), (1024, 960), (u64::MAX, u64::MAX - 64)] {
            assert_eq!(for_connections(limit), most, "{limit}");
        }
    }

    #[test]
    fn the_number_of_a_descriptor_tells() {
        let open = std::fs::File::open("/dev/null").unwrap();
        let Some(limit) = getrlimit(Resource::Nofile).current else { return };
        assert!(!is_held_back(&open) && is_one_left(&open));
        for (number, held_back) in [(for_connections(limit) - 1, false), (for_connections(limit), true)] {
            let Ok(number) = i32::try_from(number) else { return };
            assert_eq!(is_held_back(fcntl_dupfd_cloexec(&open, number).unwrap()), held_back, "{number} of {limit}");
        }
    }
}
