//! Logins over HTTP for a game server that knows none: they are put to its login port as a classic client does.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use ring::rand::{SecureRandom, SystemRandom};

use super::answer::WebAnswer;
use crate::forward::Connected;
use otproxy_config::ClassicLogins;
use otproxy_net::worker::Scratch;
use otproxy_protocol::login::http::{self, ErrorCode, LoginRequest};
use otproxy_protocol::login::{ClassicAnswer, ClassicRequest, MAX_ANSWER, XteaKey};

/// A login as it is put to a game server.
pub(super) struct ClassicLogin<'a> {
    login: &'a LoginRequest,
    request: ClassicRequest<'a>,
    key: XteaKey,
    bytes: Vec<u8>,
}

impl<'a> ClassicLogin<'a> {
    /// Makes the login of a client over HTTP one of a classic client.
    ///
    /// # Errors
    /// Fails with the answer to a login that no server would take.
    pub fn new(login: &'a LoginRequest, config: &ClassicLogins) -> Result<Self, Box<WebAnswer>> {
        let mut random = [0; XteaKey::LEN];
        if SystemRandom::new().fill(&mut random).is_err() {
            return Err(Box::new(error(ErrorCode::Technical, "Please try again in a moment.")));
        }
        let (key, request) = (XteaKey::from_bytes(random), login.to_classic(config.version));
        match request.to_bytes(&config.rsa_key.public(), &key) {
            Ok(bytes) => Ok(Self { login, request, key, bytes }),
            Err(_) => Err(Box::new(error(ErrorCode::Login, "There is no such account."))),
        }
    }

    /// Puts the login to the port that `connected` leads to, and returns what the server says as an answer over HTTP.
    ///
    /// # Errors
    /// Fails if the server says nothing, or something else than a login server does.
    pub async fn exchange(&self, connected: Connected, scratch: &Scratch) -> io::Result<WebAnswer> {
        let Connected { stream, header, .. } = &connected;
        stream.write_all(header).await?;
        stream.write_all(&self.bytes).await?;
        let Self { login, request, key, .. } = self;
        let mut answer = Vec::new();
        loop {
            let read = ClassicAnswer::read(&answer, request.framing(), Some(key), request.version);
            if let Some(answer) = read.map_err(|error| io::Error::other(error.to_string()))? {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
                return Ok(WebAnswer::json(StatusCode::OK, http::from_classic(&answer, login, now)));
            }
            if answer.len() >= MAX_ANSWER || stream.read_onto(&mut answer, MAX_ANSWER, scratch).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Returns the answer to a request that is no login.
pub(super) fn no_login() -> WebAnswer {
    error(ErrorCode::Request, "This server answers logins alone.")
}

fn error(code: ErrorCode, message: &str) -> WebAnswer {
    WebAnswer::json(StatusCode::OK, http::error_body(code, message))
}
