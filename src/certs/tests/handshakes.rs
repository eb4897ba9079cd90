//! Real handshakes, joined by buffers.

use rustls::client::{ClientConnection, Resumption, WantsClientCert};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerConnection;
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, ConfigBuilder, Error, HandshakeKind, RootCertStore, ServerConfig};

use super::*;
use crate::certs::identity::{AskedPeer, peer_name, server_name};
use crate::certs::{HandshakeResult, failure};
use otproxy_net::tls::ALPN;

/// The result of each side.
#[derive(Debug, PartialEq)]
struct Outcome {
    client: Result<String, HandshakeResult>,
    server: Result<String, HandshakeResult>,
}

fn both(client: HandshakeResult, server: HandshakeResult) -> Outcome {
    Outcome { client: Err(client), server: Err(server) }
}

/// Returns the peer's name after a handshake, in the way of the tunnel, without its sockets.
fn peer(connection: &CommonState) -> Result<String, HandshakeResult> {
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(HandshakeResult::NoAlpn);
    }
    let leaf = connection.peer_certificates().and_then(<[_]>::first).ok_or(HandshakeResult::NoCertificate)?;
    peer_name(leaf).map_err(|_| HandshakeResult::WrongName)
}

/// Moves bytes between both until neither has any more; also returns the bytes that the server sent.
fn shake(client: &mut ClientConnection, server: &mut ServerConnection) -> (Outcome, Vec<u8>) {
    let (mut at_client, mut at_server) = (None, None);
    let mut sent = Vec::new();
    while client.wants_write() || server.wants_write() {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        at_server = at_server.or(feed(server, &up));
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
        at_client = at_client.or(feed(client, &down));
        sent.extend(down);
    }
    let result = |error: Option<Error>, side: &CommonState| match error {
        Some(error) => Err(failure(&error)),
        None if side.is_handshaking() => Err(HandshakeResult::Timeout),
        None => peer(side),
    };
    (Outcome { client: result(at_client, client), server: result(at_server, server) }, sent)
}

fn feed<Side>(
    side: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<Side>>,
    mut bytes: &[u8],
) -> Option<Error>
where
    Side: rustls::SideData,
{
    let mut error = None;
    while !bytes.is_empty() {
        if side.read_tls(&mut bytes).unwrap() == 0 {
            break;
        }
        error = error.or(side.process_new_packets().err());
    }
    error
}

fn client(operator: &Operator, config: Arc<ClientConfig>, expected: &str) -> ClientConnection {
    let asked = server_name(operator.authority.certificate(), expected);
    ClientConnection::new(config, asked.unwrap()).unwrap()
}

fn handshake(operator: &Operator, dials: Arc<ClientConfig>, expected: &str, dialled: Arc<ServerConfig>) -> Outcome {
    shake(&mut client(operator, dials, expected), &mut ServerConnection::new(dialled).unwrap()).0
}

fn roots(operator: &Operator) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificates(&operator.folder.file("ca.pem")).unwrap().remove(0)).unwrap();
    roots
}

/// Makes a client that asks for peers of this operator.
fn asking(operator: &Operator) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authority = Arc::new(operator.authority.certificate().clone());
    let verifier = AskedPeer::new(&Arc::new(roots(operator)), &provider, authority).unwrap();
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
}

fn pair(operator: &Operator, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let files = operator.folder.tls(name);
    (certificates(&files.cert).unwrap(), PrivateKeyDer::from_pem_file(files.key).unwrap())
}

/// Makes a server that shows its certificate to all, and asks for none, as another program would.
fn careless_server(operator: &Operator, name: &str) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    let (chain, key) = pair(operator, name);
    builder.with_no_client_auth().with_single_cert(chain, key).unwrap()
}

#[test]
fn core_and_edge_know_each_other_whoever_dials() {
    let operator = Operator::new();
    let (core, edge) = (operator.identity(IdentityKind::Core).unwrap(), operator.identity(IdentityKind::Edge).unwrap());
    let outcome = handshake(&operator, edge.client_config(), "core", core.server_config());
    assert_eq!(outcome, Outcome { client: Ok("core".to_owned()), server: Ok("waw1".to_owned()) });
    let outcome = handshake(&operator, core.client_config(), "waw1", edge.server_config());
    assert_eq!(outcome, Outcome { client: Ok("waw1".to_owned()), server: Ok("core".to_owned()) });
}

#[test]
fn no_handshake_is_shortened_by_one_of_before() {
    let operator = Operator::new();
    let (core, edge) = (operator.identity(IdentityKind::Core).unwrap(), operator.identity(IdentityKind::Edge).unwrap());
    let server = core.server_config();
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    // Not even for a client that would like to.
    let mut willing = (*edge.client_config()).clone();
    willing.resumption = Resumption::in_memory_sessions(8);
    for config in [edge.client_config(), Arc::new(willing)] {
        for _ in 0..2 {
            let mut dials = client(&operator, config.clone(), "core");
            let mut dialled = ServerConnection::new(server.clone()).unwrap();
            let (outcome, _) = shake(&mut dials, &mut dialled);
            assert!(outcome.client.is_ok() && outcome.server.is_ok(), "{outcome:?}");
            assert_eq!((dials.handshake_kind(), dials.tls13_tickets_received()), (Some(HandshakeKind::Full), 0));
        }
    }
}

#[test]
fn certificates_of_another_authority_are_unknown() {
    let (ours, theirs) = (Operator::new(), Operator::new());
    let (core, edge) = (ours.identity(IdentityKind::Core).unwrap(), theirs.identity(IdentityKind::Edge).unwrap());
    // The side that judges first gives the reason; the other learns that it was refused.
    let outcome = handshake(&ours, edge.client_config(), "core", core.server_config());
    assert_eq!(outcome, both(HandshakeResult::UnknownCa, HandshakeResult::Refused));
    // Of itself it asks for a core of its own authority, and is shown nothing.
    let outcome = handshake(&theirs, edge.client_config(), "core", core.server_config());
    assert_eq!(outcome, both(HandshakeResult::Refused, HandshakeResult::Stranger));
    let (chain, key) = pair(&theirs, "waw1");
    let mut trusting = asking(&ours).with_client_auth_cert(chain, key).unwrap();
    trusting.alpn_protocols = vec![ALPN.to_vec()];
    let outcome = handshake(&ours, Arc::new(trusting), "core", core.server_config());
    assert_eq!(outcome, both(HandshakeResult::Refused, HandshakeResult::UnknownCa));
}

#[test]
fn certificates_of_another_time_are_told_apart() {
    let now = SystemTime::now();
    for (time, result) in [(now - days(800), HandshakeResult::Expired), (now + days(30), HandshakeResult::NotYetValid)]
    {
        let operator = Operator::new();
        let core = operator.identity(IdentityKind::Core).unwrap();
        let edge = operator.identity_at(IdentityKind::Edge, time);
        let outcome = handshake(&operator, edge.client_config(), "core", core.server_config());
        assert_eq!(outcome, both(HandshakeResult::Refused, result));
        let outcome = handshake(&operator, core.client_config(), "waw1", edge.server_config());
        assert_eq!(outcome, both(result, HandshakeResult::Refused));
    }
}

#[test]
fn an_edge_cannot_play_the_core_nor_another_edge() {
    let operator = Operator::new();
    operator.issue(&edge("fra1"));
    let waw1 = operator.identity(IdentityKind::Edge).unwrap();
    let mut rogue = careless_server(&operator, "fra1");
    rogue.alpn_protocols = vec![ALPN.to_vec()];
    let rogue = Arc::new(rogue);
    for expected in ["core", "waw1"] {
        let outcome = handshake(&operator, waw1.client_config(), expected, rogue.clone());
        assert_eq!(outcome, both(HandshakeResult::WrongName, HandshakeResult::Refused), "{expected}");
    }
}

#[test]
fn who_has_no_certificate_is_refused() {
    let operator = Operator::new();
    let core = operator.identity(IdentityKind::Core).unwrap();
    let mut config = asking(&operator).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let outcome = handshake(&operator, Arc::new(config), "core", core.server_config());
    assert_eq!(outcome, both(HandshakeResult::Refused, HandshakeResult::NoCertificate));
}

#[test]
fn strangers_see_an_alert_and_no_certificate() {
    let operator = Operator::new();
    let (core, edge) = (operator.identity(IdentityKind::Core).unwrap(), operator.identity(IdentityKind::Edge).unwrap());
    type Change = fn(&mut ClientConfig);
    let cases: [(&str, Change); 4] = [
        ("waw1", |_| {}),
        ("core", |config| config.enable_sni = false),
        ("core", |config| config.alpn_protocols.clear()),
        ("core", |config| config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()]),
    ];
    for (number, (name, change)) in cases.into_iter().enumerate() {
        let mut config = (*edge.client_config()).clone();
        change(&mut config);
        let mut server = ServerConnection::new(core.server_config()).unwrap();
        let (outcome, sent) = shake(&mut client(&operator, Arc::new(config), name), &mut server);
        assert_eq!(outcome, both(HandshakeResult::Refused, HandshakeResult::Stranger), "case {number}");
        // One record, of the kind alert: fatal, access denied.
        assert_eq!(sent, [21, 3, 3, 0, 2, 2, 49], "case {number}");
    }
    // Nor by the names in the certificates, which others may guess, nor by any other.
    for name in ["core", "waw1", "core.example", "n0123456789abcdef0123456789abcdef"] {
        let asked = rustls::pki_types::ServerName::try_from(name).unwrap();
        let mut scanner = ClientConnection::new(edge.client_config(), asked).unwrap();
        let (_, sent) = shake(&mut scanner, &mut ServerConnection::new(core.server_config()).unwrap());
        assert_eq!(sent, [21, 3, 3, 0, 2, 2, 49], "{name}");
    }
    // Letters' cases make no difference to TLS.
    assert!(handshake(&operator, edge.client_config(), "CORE", core.server_config()).server.is_ok());
}

#[test]
fn a_server_that_does_not_agree_on_the_protocol_is_not_ours() {
    let operator = Operator::new();
    let edge = operator.identity(IdentityKind::Edge).unwrap();
    let outcome = handshake(&operator, edge.client_config(), "core", Arc::new(careless_server(&operator, "core")));
    assert_eq!(outcome.client, Err(HandshakeResult::NoAlpn));
    let mut other = careless_server(&operator, "core");
    other.alpn_protocols = vec![b"h2".to_vec()];
    let outcome = handshake(&operator, edge.client_config(), "core", Arc::new(other));
    assert_eq!(outcome, both(HandshakeResult::Refused, HandshakeResult::NoAlpn));
}

#[test]
fn plain_text_is_not_tls() {
    let operator = Operator::new();
    let core = operator.identity(IdentityKind::Core).unwrap();
    let texts: [&[u8]; 3] =
        [b"GET / HTTP/1.1\r\n\r\n", b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a", b"SSH-2.0-x\r\n"];
    for text in texts {
        let mut server = ServerConnection::new(core.server_config()).unwrap();
        assert_eq!(feed(&mut server, text).map(|error| failure(&error)), Some(HandshakeResult::NotTls), "{text:?}");
        let mut client = client(&operator, core.client_config(), "waw1");
        assert_eq!(feed(&mut client, text).map(|error| failure(&error)), Some(HandshakeResult::NotTls), "{text:?}");
    }
}

#[test]
fn older_tls_is_incompatible() {
    let operator = Operator::new();
    let core = operator.identity(IdentityKind::Core).unwrap();
    // A hello of TLS 1.2 with one cipher, and signature algorithms as the only extension.
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let len = u8::try_from(body.len()).unwrap();
    let mut hello = vec![22, 3, 1, 0, len + 4, 1, 0, 0, len];
    hello.extend(body);
    let mut server = ServerConnection::new(core.server_config()).unwrap();
    let error = feed(&mut server, &hello);
    assert_eq!(error.as_ref().map(failure), Some(HandshakeResult::Incompatible), "{error:?}");
}

#[test]
fn a_certificate_for_another_use_is_bad() {
    let operator = Operator::new();
    let core = operator.identity(IdentityKind::Core).unwrap();
    let (ours, key) = loading::own_authority(&operator);
    let mut params = loading::leaf(&["waw1"]);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let (chain, leaf_key) = loading::sign(&params, &ours, &key);
    let mut config = asking(&operator).with_client_auth_cert(chain, leaf_key).unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let outcome = handshake(&operator, Arc::new(config), "core", core.server_config());
    assert_eq!(outcome, both(HandshakeResult::Refused, HandshakeResult::BadCertificate));
}

#[test]
fn the_name_that_is_asked_for_is_made_of_the_authority_and_says_nothing() {
    let (ours, theirs) = (Operator::new(), Operator::new());
    let asked = |operator: &Operator, name| server_name(operator.authority.certificate(), name).unwrap();
    assert_eq!(asked(&ours, "waw1"), asked(&ours, "WAW1"));
    let names =
        [asked(&ours, "core"), asked(&ours, "waw1"), asked(&theirs, "core")].map(|name| name.to_str().into_owned());
    assert!(names[0] != names[1] && names[0] != names[2], "{names:?}");
    assert!(names.iter().all(|name| name.len() == 33 && !name.contains("core") && !name.contains("otproxy")));
    for name in ["a..b", ""] {
        assert_eq!(server_name(ours.authority.certificate(), name), None, "{name:?}");
    }
}

#[test]
fn an_authority_can_be_replaced_while_both_sides_go_on() {
    let (old, new) = (Operator::new(), Operator::new());
    let both = [&old, &new].map(|operator| std::fs::read_to_string(operator.folder.file("ca.pem")).unwrap()).concat();
    let (core, edge) = (old.identity(IdentityKind::Core).unwrap(), new.identity(IdentityKind::Edge).unwrap());
    assert!(handshake(&new, edge.client_config(), "core", core.server_config()).server.is_err());
    for operator in [&old, &new] {
        std::fs::write(operator.folder.file("ca.pem"), &both).unwrap();
    }
    let (core, edge) = (old.identity(IdentityKind::Core).unwrap(), new.identity(IdentityKind::Edge).unwrap());
    let (by_edge, by_core) = (edge.server_name("core").unwrap(), core.server_name("waw1").unwrap());
    for (dials, asked, dialled) in [(&edge, by_edge, &core), (&core, by_core, &edge)] {
        let mut client = ClientConnection::new(dials.client_config(), asked).unwrap();
        let (outcome, _) = shake(&mut client, &mut ServerConnection::new(dialled.server_config()).unwrap());
        assert!(outcome.client.is_ok() && outcome.server.is_ok(), "{outcome:?}");
    }
}
