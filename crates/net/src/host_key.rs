//! A secret of this host that survives restarts.

use std::hash::{BuildHasher, RandomState};

/// Returns a key for hashes that must be stable on this host, and not guessable from outside, such as the addresses by
/// which game servers know players with IPv6, and by which they ban them.
///
/// It is made from `/etc/machine-id`, which systemd documents as confidential; if there is none, it is random for this
/// process.
pub fn host_key() -> [u8; 16] {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let mut key = [0; 16];
    let digits = id.trim().as_bytes();
    if digits.len() == 32 {
        for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
            *byte = std::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok()).unwrap_or_default();
        }
    }
    if key == [0; 16] { random_key() } else { key }
}

/// Returns a key that is random for this process.
pub fn random_key() -> [u8; 16] {
    let (random, mut key) = (RandomState::new(), [0; 16]);
    for (half, number) in key.chunks_mut(8).zip([1u8, 2]) {
        half.copy_from_slice(&random.hash_one(number).to_le_bytes());
    }
    key
}
