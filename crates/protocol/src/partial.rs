//! The buffer of a unit that is not whole yet.

/// The start of a unit, kept until the rest of it comes. Empty, it holds no memory.
#[derive(Debug, Default)]
pub struct Partial(Vec<u8>);

impl Partial {
    /// Gives `take` what was kept and `bytes` behind it, and keeps what it leaves: `take` says how
    /// many bytes it used, from the first on.
    ///
    /// What arrives byte by byte is copied only as it arrives and when a unit is whole.
    pub fn feed<R>(&mut self, bytes: &[u8], take: impl FnOnce(&[u8]) -> (usize, R)) -> R {
        if self.0.is_empty() {
            let (used, result) = take(bytes);
            self.0.extend_from_slice(bytes.get(used..).unwrap_or_default());
            return result;
        }
        self.0.extend_from_slice(bytes);
        let (used, result) = take(&self.0);
        if used > 0 {
            self.0 = self.0.get(used..).unwrap_or_default().to_vec();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units are runs of bytes that end in 0.
    fn units(partial: &mut Partial, bytes: &[u8], all: &mut Vec<Vec<u8>>) {
        partial.feed(bytes, |mut rest| {
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
            let (mut partial, mut all) = (Partial::default(), Vec::new());
            for chunk in stream.chunks(step) {
                units(&mut partial, chunk, &mut all);
            }
            assert_eq!(all, [&b"one"[..], b"two", b"", b"three"], "in steps of {step}");
            assert_eq!(partial.0.capacity(), 0);
        }
    }
}
