//! The attributes of one tag in XML, found without reading the rest of it.

use std::ops::Range;

/// The attributes of the first tag of a name.
pub(super) struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// An attribute: its name, and the place of its value between the quotes.
pub(super) type Attribute<'a> = (&'a [u8], Range<usize>);

impl<'a> Attributes<'a> {
    /// Returns those of the first tag that begins so, as `<serverinfo`; `None` without one.
    pub fn of(xml: &'a [u8], tag: &[u8]) -> Option<Self> {
        let at = xml.windows(tag.len()).position(|window| window == tag)? + tag.len();
        Some(Self { bytes: xml, at })
    }

    /// Returns the next one; `Ok(None)` behind the last.
    ///
    /// # Errors
    ///
    /// The tag is no XML, or has no end.
    pub fn read_next(&mut self) -> Result<Option<Attribute<'a>>, Malformed> {
        self.scan().ok_or(Malformed)
    }

    fn scan(&mut self) -> Option<Option<Attribute<'a>>> {
        let space = self.take_while(|byte| byte.is_ascii_whitespace());
        match self.peek()? {
            b'/' | b'>' => return Some(None),
            _ if space.is_empty() => return None,
            _ => {}
        }
        let name = self.take_while(|byte| !byte.is_ascii_whitespace() && !b"=/><\"'".contains(&byte));
        self.take_while(|byte| byte.is_ascii_whitespace());
        self.take_one(|byte| byte == b'=')?;
        self.take_while(|byte| byte.is_ascii_whitespace());
        let quote = self.take_one(|byte| byte == b'"' || byte == b'\'')?;
        let begin = self.at;
        self.take_while(|byte| byte != quote);
        let value = begin..self.at;
        self.take_one(|byte| byte == quote)?;
        Some(Some((name, value)))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take_one(&mut self, is: impl Fn(u8) -> bool) -> Option<u8> {
        let byte = self.peek().filter(|byte| is(*byte))?;
        self.at += 1;
        Some(byte)
    }

    fn take_while(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.iter().position(|byte| !is(*byte)).unwrap_or(rest.len());
        self.at += taken;
        rest.get(..taken).unwrap_or_default()
    }
}

/// The error of a tag that is no XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;
