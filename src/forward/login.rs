//! Classic logins on a listener with `login`: the answer of the login server is changed, so that it tells the player of the edges.
//!
//! A login passes as it came, and only its answer is held back until it is whole. All that is not known in either passes unchanged, and is counted
//! by its reason.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use super::Forward;
use crate::admission::AdmittedConnection;
use crate::metrics::{ByReason, Metrics};
use otproxy_config::LoginConfig;
use otproxy_net::Stream;
use otproxy_net::pump::{Observer, READ};
use otproxy_net::worker::Scratch;
use otproxy_protocol::edge_list::EdgeList;
use otproxy_protocol::login::{self, LoginRequest, LoginResult, MAX_ANSWER, MAX_REQUEST, NotLogin, Told};
use otproxy_protocol::status::{self, FirstPacket};

/// The time for which an answer is held back that is not whole. Game servers take milliseconds, and clients wait for longer than this.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The way by which these logins come, in metrics.
const WAY: &str = "classic";

/// Returns one worker's metrics of classic logins on a listener.
pub(super) fn metrics(metrics: &Metrics, listener: &str) -> ByReason<LoginResult> {
    ByReason::new(&metrics.logins, &[listener, WAY])
}

/// A login whose answer is to be changed.
pub(super) struct Login<'a> {
    config: &'a LoginConfig,
    edges: EdgeList,
    metrics: &'a ByReason<LoginResult>,
    request: LoginRequest,
}

impl<'a> Login<'a> {
    /// Reads the login that a connection begins with onto `admitted.early`. `None` if there is none to be read, in the time that a
    /// connection has for its beginning; that is counted, unless it is a request for the status.
    pub async fn read(
        forward: &Forward,
        config: &'a LoginConfig,
        metrics: &'a ByReason<LoginResult>,
        admitted: &mut AdmittedConnection,
    ) -> Option<Self> {
        let patience = forward.inbound.timeout(forward.inbound.config().timeouts.header);
        let read = patience.within(first(config, admitted, forward.inbound.scratch())).await;
        match read.unwrap_or(Err(NotLogin::Other)) {
            Ok(request) => {
                let edges = forward.inbound.edges().list().for_player(admitted.player.ip());
                return Some(Self { config, edges, metrics, request });
            }
            Err(NotLogin::OtherKey) => metrics.inc(LoginResult::OtherKey),
            Err(NotLogin::Other) if matches!(status::first(&admitted.early), Some(FirstPacket::Request(_))) => {}
            Err(NotLogin::Other) => metrics.inc(LoginResult::NotLogin),
        }
        None
    }

    /// Sends `up` to the target, and all that the client sends meanwhile, and gives the client the answer. Bytes that the target has not taken are left
    /// in `up`.
    ///
    /// # Errors
    /// Returns the error of the client's side.
    pub async fn exchange(
        &self,
        (client, target): (&Stream, &Stream),
        up: &mut Vec<u8>,
        scratch: &Scratch,
        moved: &impl Observer,
    ) -> io::Result<()> {
        let mut answer = pin!(self.answer(target, scratch));
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ended = carry((client, target), up, scratch, moved) => answer.await,
        };
        moved.count_out(answer.len() as u64);
        client.write_all(&answer).await
    }

    /// Reads the answer, and returns what the client is to have instead: the answer changed, or whatever came, as it came.
    async fn answer(&self, target: &Stream, scratch: &Scratch) -> Vec<u8> {
        let mut answer = Vec::new();
        let whole = timeout(ANSWER_WITHIN, self.whole_answer(target, &mut answer, scratch)).await;
        match whole.unwrap_or(Err(LoginResult::Unanswered)) {
            Ok((mut changed, taken)) => {
                self.metrics.inc(LoginResult::Rewritten);
                changed.extend(answer.get(taken..).unwrap_or_default());
                changed
            }
            Err(result) => {
                self.metrics.inc(result);
                answer
            }
        }
    }

    async fn whole_answer(
        &self,
        target: &Stream,
        answer: &mut Vec<u8>,
        scratch: &Scratch,
    ) -> Result<(Vec<u8>, usize), LoginResult> {
        let told = Told { edges: &self.edges, worlds: self.config.worlds };
        loop {
            if let Some(rewritten) = login::rewrite(answer, &self.request, told)? {
                return Ok(rewritten);
            }
            match target.read_onto(answer, MAX_ANSWER, scratch).await {
                Ok(0) | Err(_) => return Err(LoginResult::Unanswered),
                Ok(_) => {}
            }
        }
    }
}

/// Carries bytes of the client to the target, `up` first, and its end. It can be dropped at any time: what is not written is in `up`.
async fn carry(
    (client, target): (&Stream, &Stream),
    up: &mut Vec<u8>,
    scratch: &Scratch,
    moved: &impl Observer,
) -> io::Result<()> {
    loop {
        while !up.is_empty() {
            let written = poll_fn(|cx| target.poll_write(cx, up)).await?;
            up.drain(..written);
        }
        poll_fn(|cx| target.poll_flush(cx)).await?;
        let read = client.read_onto(up, READ, scratch).await?;
        if read == 0 {
            return poll_fn(|cx| target.poll_shutdown(cx)).await;
        }
        moved.count_in(read as u64);
    }
}

async fn first(
    config: &LoginConfig,
    admitted: &mut AdmittedConnection,
    scratch: &Scratch,
) -> Result<LoginRequest, NotLogin> {
    loop {
        if let Some(request) = login::first(&admitted.early, &config.rsa_key)? {
            return Ok(request);
        }
        match admitted.stream.read_onto(&mut admitted.early, MAX_REQUEST, scratch).await {
            Ok(0) | Err(_) => return Err(NotLogin::Other),
            Ok(_) => {}
        }
    }
}
