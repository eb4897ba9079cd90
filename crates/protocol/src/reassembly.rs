//! The buffer of a unit that is not whole yet.

use std::borrow::Cow;

/// The start of a unit, kept until the rest of it comes. Empty, it holds no memory.
#[derive(Debug, Default)]
pub struct ReassemblyBuffer(Vec<u8>);

impl ReassemblyBuffer {
    /// Makes one that keeps these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Returns the bytes that are kept.
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes that were kept, with `bytes` behind them. Incomplete ones go back to
    /// [`ReassemblyBuffer::keep`].
    ///
    /// Bytes that arrive one by one are copied only as they arrive and when a unit is whole.
    #[inline]
    pub fn join<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.0.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut kept = std::mem::take(&mut self.0);
        kept.extend_from_slice(bytes);
        Cow::Owned(kept)
    }

    /// Keeps all but the first `used` of what [`ReassemblyBuffer::join`] gave.
    pub fn keep(&mut self, bytes: Cow<'_, [u8]>, used: usize) {
        match bytes {
            Cow::Borrowed(bytes) => self.0.extend_from_slice(bytes.get(used..).unwrap_or_default()),
            Cow::Owned(kept) if used == 0 => self.0 = kept,
            Cow::Owned(kept) => self.0 = kept.get(used..).unwrap_or_default().to_vec(),
        }
    }

    /// Gives `take` what was kept and `bytes` behind it, and keeps what it leaves: `take` says how
    /// many bytes it used, from the first on.
    pub fn feed<R>(&mut self, bytes: &[u8], take: impl FnOnce(&[u8]) -> (usize, R)) -> R {
        let whole = self.join(bytes);
        let (used, result) = take(&whole);
        self.keep(whole, used);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units are runs of bytes that end in 0.
    fn units(buffer: &mut ReassemblyBuffer, bytes: &[u8], all: &mut Vec<Vec<u8>>) {
        buffer.feed(bytes, |mut rest| {
            let len = rest.len();
            while let Some(at) = rest.iter().position(|b| *b == 0) {
                all.push(rest[..at].to_vec());
                rest = &rest[at + 1..];
            }
            (len - rest.len(), ())
        });
    }

    #[test]
    fn any_cut_gives_the_same_units_and_no_memory_is_left() {
        let stream = b"one\0two\0\0three\0";
        for step in 1..=stream.len() {
            let (mut buffer, mut all) = (ReassemblyBuffer::default(), Vec::new());
            for chunk in stream.chunks(step) {
                units(&mut buffer, chunk, &mut all);
            }
            assert_eq!(all, [&b"one"[..], b"two", b"", b"three"], "in steps of {step}");
            assert_eq!(buffer.0.capacity(), 0);
        }
    }
}
