//! Fields of a packet, read and written: numbers in little endian, and texts with their length in front.

/// The fields that are still to be read.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    all: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads from the beginning of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { all: bytes, rest: bytes }
    }

    /// Returns how many bytes have been read.
    pub const fn position(&self) -> usize {
        self.all.len() - self.rest.len()
    }

    /// Returns whether all has been read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads so many bytes. `None` if there are less, as in all functions below.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }

    /// Reads an array.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    /// Reads a byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// Reads a u16.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Reads a u32.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads the bytes of a text.
    pub fn raw_text(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    /// Reads a text, whose bytes are those of Latin-1.
    pub fn text(&mut self) -> Option<String> {
        Some(self.raw_text()?.iter().copied().map(char::from).collect())
    }
}

/// Appends a text: in Latin-1, with `?` for what that has not, and cut off at the length that the field can say.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    let bytes: Vec<u8> =
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).take(u16::MAX.into()).collect();
    // At most u16::MAX bytes.
    out.extend((bytes.len() as u16).to_le_bytes());
    out.extend(bytes);
}
