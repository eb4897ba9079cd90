//! Packets of logins: what stands around their content.

use adler2::adler32_slice as adler32;

use super::fields::Fields;
use super::xtea::{BLOCK, XteaKey};
use super::{AnswerError, BLOCKS};

/// The longest packet that may be a login, its length included.
pub const MAX_REQUEST: usize = 1024;
/// The longest answer that is read, its length included: several times the longest list of characters.
pub const MAX_ANSWER: usize = 32 * 1024;
/// The least number that the length of a login says: in blocks the size of what is encrypted, in bytes less than any client sends.
const LEAST: usize = 17;
/// Bytes of a leading u16, and of a checksum.
const LENGTH: usize = 2;
const CHECKSUM: usize = 4;

/// The form of all that stands in front of a packet's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framing {
    /// True if the length counts blocks, and the content is filled up to whole ones.
    pub blocks: bool,
    /// The kind of the checksum.
    pub checksum: Checksum,
}

/// The four bytes in front of all that is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// There are none.
    None,
    /// Adler-32 of all that follows.
    Adler,
    /// A number of which only the peer knows the meaning, as a count of packets.
    Sequence(u32),
}

impl Framing {
    /// Returns the framing of a client of this version that sends no sequence numbers.
    #[must_use]
    pub const fn of(version: u16) -> Self {
        let checksum = if version < super::NAMES { Checksum::None } else { Checksum::Adler };
        Self { blocks: version >= BLOCKS, checksum }
    }

    /// Returns the content of the answer at the beginning of `bytes`, and the answer's length on the wire. `None` if it is incomplete.
    /// The checksum in front of it replaces the one here, so that the same goes in front of another.
    ///
    /// # Errors
    /// Returns why it cannot be read; bytes further on change nothing about that.
    pub(super) fn open(
        &mut self,
        bytes: &[u8],
        key: Option<&XteaKey>,
    ) -> Result<Option<(Vec<u8>, usize)>, AnswerError> {
        let Some((count, rest)) = bytes.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let count = usize::from(u16::from_le_bytes(*count));
        let length = if self.blocks { BLOCK * count + CHECKSUM } else { count };
        if LENGTH + length > MAX_ANSWER {
            return Err(AnswerError::TooLong);
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let content = self.content(body, key).ok_or(AnswerError::Unknown)?;
        Ok(Some((content, LENGTH + length)))
    }

    fn content(&mut self, body: &[u8], key: Option<&XteaKey>) -> Option<Vec<u8>> {
        let summed = |body: &[u8]| {
            let (sum, rest) = body.split_first_chunk::<CHECKSUM>()?;
            Some((u32::from_le_bytes(*sum), adler32(rest)))
        };
        self.checksum = match (summed(body), body.len() % BLOCK, key) {
            (Some((said, is)), ..) if said == is => Checksum::Adler,
            (_, _, None) | (_, 0, _) => Checksum::None,
            (Some((said, _)), CHECKSUM, _) => Checksum::Sequence(said),
            _ => return None,
        };
        let front = if self.checksum == Checksum::None { 0 } else { CHECKSUM };
        let mut content = body.get(front..)?.to_vec();
        let Some(key) = key else { return Some(content) };
        if content.len() % BLOCK != 0 {
            return None;
        }
        key.decrypt(&mut content);
        let mut fields = Fields::new(&content);
        let whole = if self.blocks {
            let filled = usize::from(fields.u8()?);
            content.len().checked_sub(1 + filled)?
        } else {
            usize::from(fields.u16()?)
        };
        let range = fields.position()..fields.position().checked_add(whole)?;
        // The last block is filled by less than one.
        if content.len().checked_sub(range.end)? >= BLOCK {
            return None;
        }
        content.truncate(range.end);
        content.drain(..range.start);
        Some(content)
    }

    /// Makes a packet of an answer's content. `None` if its length cannot be said.
    pub(super) fn seal(self, content: &[u8], key: Option<&XteaKey>) -> Option<Vec<u8>> {
        let mut body = Vec::with_capacity(content.len() + 2 * BLOCK);
        if let Some(key) = key {
            let filled = |front: usize| (front + content.len()).next_multiple_of(BLOCK) - front - content.len();
            if self.blocks {
                // Less than a block.
                body.push(filled(1) as u8);
            } else {
                body.extend(u16::try_from(content.len()).ok()?.to_le_bytes());
            }
            let fill = filled(body.len());
            body.extend(content);
            body.resize(body.len() + fill, 0);
            key.encrypt(&mut body);
        } else {
            body.extend(content);
        }
        self.frame(&body)
    }

    /// Puts checksum and length in front of a body that is encrypted, or needs not be. `None` if its length cannot be said.
    pub(super) fn frame(self, body: &[u8]) -> Option<Vec<u8>> {
        let sum = match self.checksum {
            Checksum::None => None,
            Checksum::Adler => Some(adler32(body)),
            Checksum::Sequence(number) => Some(number),
        };
        let length = body.len() + sum.map_or(0, |_| CHECKSUM);
        let count = if self.blocks { length.checked_sub(CHECKSUM)? / BLOCK } else { length };
        let count = u16::try_from(count).ok()?;
        let sum = sum.map(u32::to_le_bytes).into_iter().flatten();
        Some(count.to_le_bytes().into_iter().chain(sum).chain(body.iter().copied()).collect())
    }
}

/// Splits the first packet of a connection, so that its content begins with `kind`. `None` if it is incomplete, an error if it is no
/// such packet.
pub(super) fn first(bytes: &[u8], kind: u8) -> Result<Option<(Framing, &[u8])>, super::NotLogin> {
    let Some((count, body)) = bytes.split_first_chunk::<LENGTH>() else { return Ok(None) };
    let count = usize::from(u16::from_le_bytes(*count));
    if count < LEAST || LENGTH + count > MAX_REQUEST {
        return Err(super::NotLogin::Other);
    }
    let Some(whole) = body.get(..count) else { return Ok(None) };
    let checked = |whole: &[u8]| {
        let (sum, rest) = whole.split_first_chunk::<CHECKSUM>()?;
        let sum = u32::from_le_bytes(*sum);
        Some(if sum == adler32(rest) { Checksum::Adler } else { Checksum::Sequence(sum) })
    };
    let at = |whole: &[u8], at: usize| whole.get(at) == Some(&kind);
    match checked(whole) {
        Some(checksum @ Checksum::Adler) if at(whole, CHECKSUM) => {
            return Ok(whole.get(CHECKSUM..).map(|content| (Framing { blocks: false, checksum }, content)));
        }
        _ if at(whole, 0) => return Ok(Some((Framing { blocks: false, checksum: Checksum::None }, whole))),
        Some(checksum) if at(whole, CHECKSUM) => {
            return Ok(whole.get(CHECKSUM..).map(|content| (Framing { blocks: false, checksum }, content)));
        }
        _ => {}
    }
    let length = BLOCK * count + CHECKSUM;
    if LENGTH + length > MAX_REQUEST || !at(body, CHECKSUM + 1) {
        return Err(super::NotLogin::Other);
    }
    let Some(whole) = body.get(..length) else { return Ok(None) };
    Ok(checked(whole)
        .zip(whole.get(CHECKSUM + 1..))
        .map(|(checksum, content)| (Framing { blocks: true, checksum }, content)))
}
