//! The first frame of each side of a trunk.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::frame::{self, FrameHeader, FrameKind, HEADER_LEN, MAX_DATA, StreamId, TrunkError};
use crate::frame::ClientId;

/// The version of the format that this side speaks.
pub const VERSION: u16 = 2;
/// Bytes of a field before its value: a u16 type, and a u16 length. A field of an unknown type is skipped.
const FIELD_LEN: usize = 4;
const PROTOCOL: u16 = 1;
const SOFTWARE: u16 = 2;
const CREDIT: u16 = 3;
const WORKERS: u16 = 4;
const OWNER: u16 = 5;
const LINKS: u16 = 6;
const WISH: u16 = 7;

/// The facts that one side of a trunk tells the other about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The version of the format.
    pub version: u16,
    /// The version of the program, for people.
    pub software: String,
    /// Bytes that the other side may send on each stream before more are allowed.
    pub credit: u32,
    /// The number of workers of this side, at least 1.
    pub workers: u16,
    /// The edge alone: the core's worker that is to have the trunk.
    pub wish: Option<u16>,
    /// The core alone: the worker that has the trunk.
    pub owner: Option<CoreWorkers>,
    /// The core alone: the listeners whose streams are links, each of which goes over a trunk of the worker that owns its
    /// client.
    pub links: Vec<String>,
}

/// The worker of the core that has a trunk, and the key by which workers own clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreWorkers {
    /// Its index.
    pub worker: u16,
    /// The key of the hash of client ids.
    pub key: [u8; 16],
}

impl CoreWorkers {
    /// Returns which of `workers` owns a client, under this key.
    pub fn owner(key: [u8; 16], workers: u16, client: ClientId) -> u16 {
        let mut hasher = SipHasher13::new_with_key(&key);
        hasher.write_u32(client.0);
        (hasher.finish() % u64::from(workers.max(1))) as u16
    }
}

impl Hello {
    /// Returns whether a trunk with this hello, which is a core's, is one for that client's links.
    pub fn is_for(&self, client: ClientId) -> bool {
        self.owner.is_none_or(|owner| CoreWorkers::owner(owner.key, self.workers, client) == owner.worker)
    }

    /// Returns it as a frame. Of more names than a frame has room for, the last are missing.
    pub fn to_frame(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        field(&mut bytes, PROTOCOL, &self.version.to_le_bytes());
        field(&mut bytes, SOFTWARE, self.software.as_bytes());
        field(&mut bytes, CREDIT, &self.credit.to_le_bytes());
        field(&mut bytes, WORKERS, &self.workers.to_le_bytes());
        if let Some(worker) = self.wish {
            field(&mut bytes, WISH, &worker.to_le_bytes());
        }
        if let Some(CoreWorkers { worker, key }) = self.owner {
            field(&mut bytes, OWNER, &[&worker.to_le_bytes()[..], &key].concat());
        }
        for name in &self.links {
            if bytes.len() + name.len() + FIELD_LEN <= MAX_DATA {
                field(&mut bytes, LINKS, name.as_bytes());
            }
        }
        let header = frame::header(FrameKind::Hello, StreamId::TRUNK, bytes.len().saturating_sub(HEADER_LEN));
        if let Some(front) = bytes.get_mut(..HEADER_LEN) {
            front.copy_from_slice(&header);
        }
        bytes
    }

    /// Reads the frame at the start of `bytes`; returns it and its length. `None` if it is not whole yet.
    ///
    /// # Errors
    /// Fails for anything that is no such frame, as soon as that is there.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, TrunkError> {
        const MALFORMED: TrunkError = TrunkError::Malformed(FrameKind::Hello);
        // A peer that speaks otherwise is seen by its first bytes.
        if bytes.get(2).is_some_and(|kind| *kind != FrameKind::Hello as u8) {
            return Err(MALFORMED);
        }
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = FrameHeader::parse(header)?;
        if header.stream != StreamId::TRUNK {
            return Err(MALFORMED);
        }
        let Some(mut fields) = rest.get(..header.len) else { return Ok(None) };
        let mut hello = Self {
            version: 0,
            software: String::new(),
            credit: 0,
            workers: 1,
            wish: None,
            owner: None,
            links: Vec::new(),
        };
        while !fields.is_empty() {
            let (&[k0, k1, l0, l1], rest) = fields.split_first_chunk::<FIELD_LEN>().ok_or(MALFORMED)?;
            let (kind, len) = (u16::from_le_bytes([k0, k1]), u16::from_le_bytes([l0, l1]));
            let (value, rest) = rest.split_at_checked(len.into()).ok_or(MALFORMED)?;
            fields = rest;
            let short = || value.try_into().map(u16::from_le_bytes).map_err(|_| MALFORMED);
            match kind {
                PROTOCOL => hello.version = short()?,
                SOFTWARE => hello.software = str::from_utf8(value).map_err(|_| MALFORMED)?.to_owned(),
                CREDIT => hello.credit = value.try_into().map(u32::from_le_bytes).map_err(|_| MALFORMED)?,
                WISH => hello.wish = Some(short()?),
                WORKERS => hello.workers = short()?.max(1),
                OWNER => {
                    let (worker, key) = value.split_first_chunk::<2>().ok_or(MALFORMED)?;
                    let key = key.try_into().map_err(|_| MALFORMED)?;
                    hello.owner = Some(CoreWorkers { worker: u16::from_le_bytes(*worker), key });
                }
                LINKS => hello.links.push(str::from_utf8(value).map_err(|_| MALFORMED)?.to_owned()),
                _ => {}
            }
        }
        if hello.version == 0 || hello.owner.is_some_and(|owner| owner.worker >= hello.workers) {
            return Err(MALFORMED);
        }
        Ok(Some((hello, HEADER_LEN + header.len)))
    }
}

fn field(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
    bytes.extend_from_slice(value);
}
