//! XTEA, by which clients and game servers encrypt packets: blocks of 8 bytes, each for itself, in 32 cycles.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a block.
pub(super) const BLOCK: usize = 8;
/// The number that is added to the sum in each cycle.
const DELTA: u32 = 0x9E37_79B9;
/// How many cycles a block takes.
const CYCLES: u32 = 32;

/// The key of one login's answer, which the client chose.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct XteaKey([u32; 4]);

impl XteaKey {
    /// Bytes of a key.
    pub const LEN: usize = 16;

    /// Makes it from four u32.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut key = [0; 4];
        for (word, bytes) in key.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self(key)
    }

    /// Returns the same bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Encrypts whole blocks in place; bytes behind the last are left.
    pub fn encrypt(&self, bytes: &mut [u8]) {
        for block in bytes.as_chunks_mut::<BLOCK>().0 {
            let (mut left, mut right) = halves(block);
            let mut sum = 0_u32;
            for _ in 0..CYCLES {
                left = left.wrapping_add(mixed(right) ^ sum.wrapping_add(self.word(sum)));
                sum = sum.wrapping_add(DELTA);
                right = right.wrapping_add(mixed(left) ^ sum.wrapping_add(self.word(sum >> 11)));
            }
            *block = whole(left, right);
        }
    }

    /// Decrypts whole blocks in place; bytes behind the last are left.
    pub fn decrypt(&self, bytes: &mut [u8]) {
        for block in bytes.as_chunks_mut::<BLOCK>().0 {
            let (mut left, mut right) = halves(block);
            let mut sum = DELTA.wrapping_mul(CYCLES);
            for _ in 0..CYCLES {
                right = right.wrapping_sub(mixed(left) ^ sum.wrapping_add(self.word(sum >> 11)));
                sum = sum.wrapping_sub(DELTA);
                left = left.wrapping_sub(mixed(right) ^ sum.wrapping_add(self.word(sum)));
            }
            *block = whole(left, right);
        }
    }

    /// Returns the word of the key that the last two bits of `of` name.
    fn word(&self, of: u32) -> u32 {
        let [a, b, c, d] = self.0;
        match of & 3 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        }
    }
}

impl std::fmt::Debug for XteaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("XteaKey(..)")
    }
}

fn mixed(half: u32) -> u32 {
    ((half << 4) ^ (half >> 5)).wrapping_add(half)
}

fn halves(block: &[u8; BLOCK]) -> (u32, u32) {
    let both = u64::from_le_bytes(*block);
    (both as u32, (both >> 32) as u32)
}

fn whole(left: u32, right: u32) -> [u8; BLOCK] {
    (u64::from(left) | u64::from(right) << 32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_known_block() {
        // The vector that is published for XTEA has its words in the other order of bytes.
        let words = |bytes: [u8; 8]| {
            let [a, b, c, d, e, f, g, h] = bytes;
            [d, c, b, a, h, g, f, e]
        };
        let key: Vec<u8> = (0..16).collect();
        let key: Vec<u8> = key.chunks(4).flat_map(|word| word.iter().rev().copied().collect::<Vec<_>>()).collect();
        let key = XteaKey::from_bytes(key.try_into().unwrap());
        let mut block = words(*b"ABCDEFGH");
        key.encrypt(&mut block);
        assert_eq!(words(block), [0x49, 0x7d, 0xf3, 0xd0, 0x72, 0x61, 0x2c, 0xb5]);
        key.decrypt(&mut block);
        assert_eq!(words(block), *b"ABCDEFGH");
        assert_eq!(format!("{key:?}"), "XteaKey(..)");
    }

    proptest! {
        #[test]
        fn what_is_encrypted_is_decrypted(key: [u8; 16], mut bytes: Vec<u8>) {
            let (key, before) = (XteaKey::from_bytes(key), bytes.clone());
            key.encrypt(&mut bytes);
            key.decrypt(&mut bytes);
            prop_assert_eq!(bytes, before);
        }
    }
}
