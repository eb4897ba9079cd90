//! Requests of clients: read, as far as it matters for the answer, and made.

use thiserror::Error;
use zeroize::Zeroizing;

use super::fields::{Fields, put_text};
use super::packet::{self, Framing};
use super::rsa::{BLOCK, RsaKey, RsaPublicKey};
use super::xtea::{self, XteaKey};
use super::{ENCRYPTED, LONG_SIGNATURES, NAMES, NotLogin, TOKEN, VERSIONS};

/// The kind of a packet that asks for the list of characters.
const LOGIN: u8 = 0x01;
/// The system that a request of ours names: Windows, as the first clients did.
const SYSTEM: u16 = 2;
/// The text by which OTCv8 tells itself.
const OTCV8: &[u8] = b"OTCv8";
/// The first version that tells of its graphics.
const GRAPHICS: u16 = 1061;

/// A login, as far as it matters for its answer. Account and password are read over, and kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRequest {
    /// The form in front of its content, and of the answer's.
    pub framing: Framing,
    /// The version of the client's protocol, as 1098.
    pub version: u16,
    /// The key of the answer; `None` for clients that encrypt nothing.
    pub key: Option<XteaKey>,
    /// True if the client is an OTCv8, which takes a list of edges.
    pub otcv8: bool,
}

/// Reads the login at the beginning of a connection. `None` if it is incomplete.
///
/// # Errors
/// Returns why it is none that is known; bytes further on change nothing about that.
pub fn first(bytes: &[u8], rsa: &RsaKey) -> Result<Option<LoginRequest>, NotLogin> {
    let Some((framing, content)) = packet::first(bytes, LOGIN)? else { return Ok(None) };
    let mut fields = Fields::new(content);
    let version = head(&mut fields).ok_or(NotLogin::Other)?;
    if version < ENCRYPTED {
        let otcv8 = read_over_names(&mut fields, version).ok_or(NotLogin::Other)?;
        return Ok(Some(LoginRequest { framing, version, key: None, otcv8 }));
    }
    let mut block = Zeroizing::new(fields.array::<BLOCK>().ok_or(NotLogin::Other)?);
    rsa.decrypt(&mut block);
    let secret = |fields: &mut Fields<'_>| {
        let key = (fields.u8()? == 0).then(|| fields.array())??;
        Some((XteaKey::from_bytes(key), read_over_names(fields, version)?))
    };
    let (key, otcv8) = secret(&mut Fields::new(&block[..])).ok_or(NotLogin::OtherKey)?;
    Ok(Some(LoginRequest { framing, version, key: Some(key), otcv8 }))
}

/// Reads the fields up to the names, and returns the version.
fn head(fields: &mut Fields<'_>) -> Option<u16> {
    let (_kind, _system) = (fields.u8()?, fields.u16()?);
    let version = fields.u16().filter(|version| VERSIONS.contains(version))?;
    fields.bytes(signatures(version))?;
    Some(version)
}

/// Reads over account and password, and returns whether an OTCv8 tells itself behind them.
fn read_over_names(fields: &mut Fields<'_>, version: u16) -> Option<bool> {
    if version < NAMES {
        fields.u32()?;
    } else {
        fields.raw_text()?;
    }
    fields.raw_text()?;
    Some(fields.raw_text() == Some(OTCV8) && fields.u16().is_some())
}

/// Returns how many bytes there are between version and names: of the client's files, and of its version again.
const fn signatures(version: u16) -> usize {
    if version < LONG_SIGNATURES { 12 } else { 17 }
}

/// A request for the list of characters, to be sent.
#[derive(Clone, Default)]
pub struct ClassicRequest<'a> {
    /// The version of the protocol to speak, as 1098.
    pub version: u16,
    /// The account: up to 8.39 a number.
    pub account: &'a str,
    /// The account's password.
    pub password: &'a str,
    /// The token of an authenticator, from 10.72 on; mostly empty.
    pub token: &'a str,
    /// The signatures of the client's files `dat`, `spr` and `pic`, which few servers look at.
    pub signatures: [u32; 3],
}

/// The reason for which a request cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The account is no number.
    #[error("accounts of this version are numbers")]
    AccountNumber,
    /// Account and password do not fit the block that is encrypted.
    #[error("account, password or token is too long")]
    TooLong,
}

impl ClassicRequest<'_> {
    /// Returns its bytes: encrypted for `rsa`, to be answered with `key`, which must be new and random.
    ///
    /// # Errors
    /// Returns what does not fit.
    pub fn to_bytes(&self, rsa: &RsaPublicKey, key: &XteaKey) -> Result<Vec<u8>, RequestError> {
        let mut content = vec![LOGIN];
        content.extend([SYSTEM, self.version].map(u16::to_le_bytes).concat());
        if self.version >= LONG_SIGNATURES {
            content.extend(u32::from(self.version).to_le_bytes());
        }
        content.extend(self.signatures.map(u32::to_le_bytes).concat());
        if self.version >= LONG_SIGNATURES {
            content.push(0);
        }
        let mut names = Zeroizing::new(Vec::new());
        if self.version < NAMES {
            let number: u32 = self.account.parse().map_err(|_| RequestError::AccountNumber)?;
            names.extend(number.to_le_bytes());
        } else {
            put_text(&mut names, self.account);
        }
        put_text(&mut names, self.password);
        if self.version < ENCRYPTED {
            content.extend(&*names);
        } else {
            content.extend(block(rsa, &[&key.to_bytes(), &names])?);
        }
        if self.version >= GRAPHICS {
            content.extend([1, 1]);
            put_text(&mut content, "");
            put_text(&mut content, "");
        }
        if self.version >= TOKEN {
            let mut token = Vec::new();
            put_text(&mut token, self.token);
            content.extend(block(rsa, &[&token])?);
        }
        let framing = self.framing();
        if framing.blocks {
            let filled = (content.len() + 1).next_multiple_of(xtea::BLOCK) - content.len() - 1;
            // Less than a block.
            content.insert(0, filled as u8);
            content.resize(content.len() + filled, 0);
        }
        framing.frame(&content).ok_or(RequestError::TooLong)
    }

    /// Returns what stands in front of its content, and of the answer's.
    #[must_use]
    pub fn framing(&self) -> Framing {
        Framing::of(self.version)
    }
}

/// Encrypts `parts`, behind the zero that keeps the block below the modulus.
fn block(rsa: &RsaPublicKey, parts: &[&[u8]]) -> Result<[u8; BLOCK], RequestError> {
    let secret = Zeroizing::new(parts.concat());
    let mut block = [0; BLOCK];
    let [_zero, room @ ..] = &mut block;
    room.get_mut(..secret.len()).ok_or(RequestError::TooLong)?.copy_from_slice(&secret);
    rsa.encrypt(&mut block);
    Ok(block)
}

impl std::fmt::Debug for ClassicRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClassicRequest").field("version", &self.version).finish_non_exhaustive()
    }
}
