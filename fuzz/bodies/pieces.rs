//! A stream in the pieces in which it is read.

use arbitrary::{Result, Unstructured};
use otproxy_protocol::reassembly::ReassemblyBuffer;

/// Lengths of pieces, over and over; without any, the stream comes whole.
#[derive(Debug)]
pub struct Pieces(Vec<u8>);

impl Pieces {
    /// Takes a count, 0 to 7, and as many bytes, each of which is a length less one.
    pub fn take(input: &mut Unstructured<'_>) -> Result<Self> {
        let count = input.int_in_range(0..=7u8)?;
        Ok(Self(input.bytes(usize::from(count).min(input.len()))?.to_vec()))
    }

    /// Cuts the stream.
    pub fn of<'s>(&self, mut stream: &'s [u8]) -> impl Iterator<Item = &'s [u8]> + use<'s, '_> {
        let mut lengths = self.0.iter().cycle();
        std::iter::from_fn(move || {
            if stream.is_empty() {
                return None;
            }
            let wanted = lengths.next().map_or(stream.len(), |length| usize::from(*length) + 1);
            let (piece, rest) = stream.split_at(wanted.min(stream.len()));
            stream = rest;
            Some(piece)
        })
    }
}

/// Reads units of a stream that arrives in pieces, as the relay does: `split` returns the first unit and its length, if
/// it is whole. Ends with the error, and never keeps `longest` bytes.
pub fn read<'s, U, E>(
    pieces: impl Iterator<Item = &'s [u8]>,
    longest: usize,
    mut split: impl FnMut(&[u8]) -> Result<Option<(U, usize)>, E>,
) -> (Vec<U>, Option<E>) {
    let (mut partial, mut units) = (ReassemblyBuffer::default(), Vec::new());
    for piece in pieces {
        let mut kept = 0;
        let result = partial.feed(piece, |bytes| {
            let mut used = 0;
            let result = loop {
                match split(&bytes[used..]) {
                    Ok(Some((unit, length))) => {
                        assert!(length > 0, "a unit of no bytes");
                        units.push(unit);
                        used += length;
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            kept = bytes.len() - used;
            (used, result)
        });
        if let Err(error) = result {
            return (units, Some(error));
        }
        assert!(kept < longest, "{kept} bytes are kept");
    }
    (units, None)
}
