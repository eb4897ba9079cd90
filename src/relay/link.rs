//! One link of a client, as the worker that owns the client has it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::metrics::EdgeMetrics;
use super::signs::LinkSign;
use super::{MAX_REFUSALS, REFUSALS_PERIOD};
use crate::admission::{AddressKey, Inbound, TunnelOrigin};
use crate::connection::{CloseReason, ConnectionHandle};
use otproxy_net::{Stream, TaskWaker};
use otproxy_protocol::core::{RoundTrips, WriteOutcome};
use otproxy_protocol::frame::ClientId;
use otproxy_protocol::quota::Quota;

/// A link on the worker that owns its client. The fields that packets need are first.
#[repr(C)]
pub struct RelayLink {
    pub(super) task: TaskWaker,
    /// The socket takes no more: the link's task waits for it.
    pub(super) blocked: Cell<bool>,
    /// The reason for which the link must be closed, if something other than its reading found out.
    pub(super) closing: Cell<Option<CloseReason>>,
    /// Nothing has come for longer than a client is ever silent: its task tells the machine.
    pub(super) silent: Cell<bool>,
    /// Counts its bytes, and says when it is to be closed.
    pub(super) handle: Arc<ConnectionHandle>,
    pub(super) edge: Rc<EdgeMetrics>,
    /// Its part in the signs of its edge.
    pub(super) sign: LinkSign,
    /// The listener as the link began with it.
    pub(super) inbound: Rc<Inbound>,
    /// The link's place in the [`IdleWatch`](super::idle_watch::IdleWatch).
    pub(super) watched: Cell<usize>,
    pub(super) stream: Stream,
    client: ClientId,
    /// The key by which what the player does is counted.
    key: AddressKey,
    /// The edge whose stream of the tunnel it is, if it is one.
    pub(super) origin: Option<TunnelOrigin>,
    /// Judges the round trips that the client tells.
    pub(super) round_trips: Cell<RoundTrips>,
    /// The last one that counted.
    pub(super) round_trip: Cell<Option<Duration>>,
    /// The state of the limit of refusals.
    refusals: Cell<Option<Instant>>,
    /// The machine has all that was read from it.
    pub(super) begun: Cell<bool>,
}

impl RelayLink {
    pub(super) fn new(
        stream: Stream,
        (handle, key): (Arc<ConnectionHandle>, AddressKey),
        client: ClientId,
        edge: Rc<EdgeMetrics>,
        origin: Option<TunnelOrigin>,
        inbound: Rc<Inbound>,
    ) -> Self {
        stream.limit_unsent();
        let round_trips = Cell::new(RoundTrips::new(handle.began()));
        Self {
            task: TaskWaker::default(),
            blocked: Cell::new(false),
            closing: Cell::new(None),
            silent: Cell::new(false),
            handle,
            edge,
            sign: LinkSign::default(),
            inbound,
            watched: Cell::new(0),
            stream,
            client,
            key,
            origin,
            round_trips,
            round_trip: Cell::new(None),
            refusals: Cell::new(None),
            begun: Cell::new(false),
        }
    }

    pub(super) fn client(&self) -> ClientId {
        self.client
    }

    pub(super) fn key(&self) -> AddressKey {
        self.key
    }

    pub(super) fn player(&self) -> SocketAddr {
        self.handle.player_or_peer()
    }

    /// Takes a round trip that the client has told, which counts if time does not contradict it.
    pub(super) fn tell_round_trip(&self, told: Duration) {
        let mut trips = self.round_trips.get();
        if trips.take(told, Instant::now()) {
            self.edge.rtt.observe(told.as_secs_f64());
            if self.sign.counts() {
                self.edge.signs.round_trip(told);
            }
            self.round_trip.set(Some(told));
        }
        self.round_trips.set(trips);
    }

    /// Has the link's task close it.
    pub(super) fn close(&self, reason: CloseReason) {
        self.closing.set(Some(reason));
        self.task.wake();
    }

    /// Has the link's task tell the machine that it is silent.
    pub(super) fn fall_silent(&self) {
        self.silent.set(true);
        self.task.wake();
    }

    /// Has the link's own task write what waits, once the socket takes more.
    pub(super) fn block(&self) {
        self.blocked.set(true);
        self.task.wake();
    }

    /// Counts a refused request; returns whether it was within the limit.
    pub(super) fn may_be_refused(&self, now: Instant) -> bool {
        let mut refusals = self.refusals.get();
        let within = Quota::per(MAX_REFUSALS, REFUSALS_PERIOD).take(&mut refusals, now, now).is_some();
        self.refusals.set(refusals);
        within
    }

    /// Counts what was written.
    pub(super) fn count(&self, written: WriteOutcome) {
        let WriteOutcome { bytes, first, duplicate, blocked: _ } = written;
        self.handle.add_out(bytes);
        self.inbound.metrics().bytes_out.inc_by(bytes);
        if first > 0 {
            self.edge.out_first.inc_by(first.into());
        }
        if duplicate > 0 {
            self.edge.out_duplicate.inc_by(duplicate.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::IoSlice;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::version::TLS13;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::admission::{
        AdmissionControl, AdmissionLimits, BanMetrics, BanPolicy, Bans, InboundShared, ListenerMetrics,
        ProcessAdmission,
    };
    use crate::metrics::Metrics;
    use crate::relay::client::{RelayMachine, flush_link, write_stream};
    use otproxy_config as config;
    use otproxy_config::Config;
    use otproxy_net::tls;
    use otproxy_net::worker::scratch;

    /// Makes both ends of a stream under TLS.
    async fn tls_pair() -> (Stream, Stream) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["core".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13]);
        let mut server = server.unwrap().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
        let mut client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        server.alpn_protocols = vec![tls::ALPN.to_vec()];
        client.alpn_protocols = vec![tls::ALPN.to_vec()];

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, far) = (Stream::new(near).unwrap(), Stream::new(listener.accept().await.unwrap().0).unwrap());
        let near = near.tls_connect(client.into(), "core".try_into().unwrap());
        let (near, far) = tokio::join!(near, far.tls_accept(server.into()));
        (near.unwrap(), far.unwrap())
    }

    /// Checks that such a link is blocked. Nothing more may come for it: then only this wakes its task to bring the
    /// rest out.
    #[test]
    fn a_link_is_blocked_while_its_stream_holds_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let test = async {
            let (stream, peer) = tls_pair().await;
            let bytes = vec![7; 100_000];
            let mut sent = 0;
            // Until it has taken a record that the socket does not take.
            while !stream.holds_back() {
                sent += stream.try_write(&[IoSlice::new(&bytes)]).unwrap();
            }
            let text = "role: core\nlisteners: [{ name: links, kind: relay, listen: '127.0.0.1:1', accept_proxy: none }]\n\
                        game_servers: [{ port: 7172, address: '127.0.0.1:2' }]\n";
            let Config::Core(core) = config::parse("core.yaml", text).unwrap() else { panic!("a core") };
            let metrics = Metrics::new();
            let bans = Bans::new(BanPolicy::off(), BanMetrics::new(&metrics));
            let process =
                ProcessAdmission::new(AdmissionControl::new(AdmissionLimits::default(), Arc::default()), bans);
            let shared = InboundShared::new(core.listeners[0].inbound().clone(), process, None);
            let inbound = Rc::new(Inbound::new(shared, ListenerMetrics::new(&metrics, "links"), Rc::new(scratch())));
            let edge = Rc::new(EdgeMetrics::new(&metrics, "waw1"));
            let player = SocketAddr::from(([127, 0, 0, 1], 1));
            let handle = Arc::new(ConnectionHandle::new(1, "links".into(), player));
            let link = Rc::new(RelayLink::new(stream, (handle, player.ip().into()), ClientId(1), edge, None, inbound));
            let mut machine = RelayMachine::default();
            let key = machine.add_link(Rc::clone(&link));
            flush_link(&mut machine, key);
            assert!(link.blocked.get());
            let mut buffer = vec![0; 50_000];
            let reading = async {
                while sent > 0 {
                    sent -= poll_fn(|cx| peer.poll_read(cx, &mut buffer)).await.unwrap();
                }
            };
            let draining = poll_fn(|cx| link.stream.poll_drain(cx, || write_stream(&mut machine, key)));
            let ((), drained) = tokio::join!(reading, draining);
            drained.unwrap();
            assert!(!link.stream.holds_back());
        };
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("it hangs") });
    }
}
