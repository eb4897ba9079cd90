//! Logins: how clients ask for their characters, and what they are told of worlds and edges.
//!
//! [`http`] has logins over HTTP. All else here is for classic logins, those of the client's own protocol.
//!
//! A request is the first packet of a connection: a u16, little endian, and so many bytes. All numbers are little endian, and a text is a
//! u16 with so many bytes behind it. The bytes in front of a packet's content depend on the client's version:
//!
//! | version | in front of the content |
//! |---|---|
//! | up to 7.69 | nothing, and nothing is encrypted |
//! | from 7.70 | in an answer the content's length, a u16; both encrypted by XTEA |
//! | from 8.40 | a checksum of all that follows, Adler-32 in 4 bytes, or a sequence number in its place |
//! | from 14.05 | the leading u16 counts blocks: 8 bytes each, and 4 more. In front of the content stands the count of bytes that fill the last |
//!
//! The content of a request is `01`, the system (u16), the version (u16), and the signatures of the client's files: 12 bytes, from 9.71 on
//! 17. Then account and password, and behind them what tells an OTCv8: the text `OTCv8` and its version (u16). From 7.70 on these are one
//! block of [RSA](RsaKey), in front of which stand a zero and the XTEA key of the answer.
//!
//! The content of an answer is a row of parts, each with a byte in front that tells its kind:
//! [`answer`](ClassicAnswer) has the list of them.

use thiserror::Error;

mod answer;
mod fields;
mod gateway;
pub mod http;
mod packet;
mod request;
mod rsa;
#[cfg(test)]
mod tests;
mod worlds;
mod xtea;

pub use answer::{Character, CharacterList, ClassicAnswer, Premium, Refusal, SessionKey, World};
pub use gateway::{LoginResult, Told, rewrite};
pub use packet::{Checksum, Framing, MAX_ANSWER, MAX_REQUEST};
pub use request::{ClassicRequest, LoginRequest, RequestError, first};
pub use rsa::{KeyError, RsaKey, RsaPublicKey};
pub use worlds::Worlds;
pub use xtea::XteaKey;

/// The first version whose logins are encrypted.
const ENCRYPTED: u16 = 770;
/// The first version with names of accounts instead of numbers, and with a checksum.
const NAMES: u16 = 840;
/// The first version with 17 bytes of signatures.
const LONG_SIGNATURES: u16 = 971;
/// The first version that shows the state of a preview in the list.
const PREVIEW: u16 = 980;
/// The first version whose list has worlds of their own, with texts as addresses.
const WORLDS: u16 = 1011;
/// The first version with a second block of RSA, which has a token.
const TOKEN: u16 = 1072;
/// The first version that is told until when an account is premium.
const PREMIUM_UNTIL: u16 = 1078;
/// The first version whose lengths count blocks.
const BLOCKS: u16 = 1405;
/// Versions that there are: another number is no login.
pub const VERSIONS: std::ops::RangeInclusive<u16> = 700..=1599;

/// The reason for which the beginning of a connection is no login that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotLogin {
    /// It is something else.
    #[error("this is no classic login")]
    Other,
    /// Its block of RSA is for another key.
    #[error("the login is encrypted for another key")]
    OtherKey,
}

/// The reason for which an answer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// It is in no form that is known.
    #[error("the answer has an unknown form")]
    Unknown,
    /// It is longer than [`MAX_ANSWER`].
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
}
