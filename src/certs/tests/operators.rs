//! Operators' certificates, and handshakes with them as `admin.listen` makes them.

use rustls::client::{ClientConnection, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::ServerConnection;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, Error, HandshakeKind, RootCertStore, ServerConfig};

use super::*;
use crate::certs::CertProblem;
use crate::certs::authority::Holder;
use crate::certs::operators::{AdminIdentity, RevokedOperators};
use otproxy_config::AdminTlsConfig;

/// The authorities of the tunnel and of the operators, with a certificate for `anna`.
struct Admin {
    tunnel: Operator,
    operators: Authority,
    revoked: RevokedOperators,
}

impl Admin {
    fn new() -> Self {
        let tunnel = Operator::new();
        let operators = Authority::create(&tunnel.folder.file("operators"), 10).unwrap();
        let admin = Self { tunnel, operators, revoked: RevokedOperators::default() };
        admin.operators.issue_operator(&edge("anna"), &admin.folder(), IssueTerms::default()).unwrap();
        admin
    }

    fn folder(&self) -> PathBuf {
        self.tunnel.folder.file("operators")
    }

    fn files(&self) -> AdminTlsConfig {
        let file = |name: &str| self.tunnel.folder.file(name);
        AdminTlsConfig {
            cert: file("core.pem"),
            key: file("core.key"),
            client_ca: Some(file("operators/ca.pem")),
            revoked: Vec::new(),
        }
    }

    fn load(&self, files: &AdminTlsConfig) -> Result<AdminIdentity, CertError> {
        AdminIdentity::load(files, Some(&self.tunnel.folder.file("ca.pem")), &self.revoked)
    }

    fn server(&self) -> Arc<ServerConfig> {
        self.load(&self.files()).unwrap().server_config()
    }

    /// Makes a client with this certificate, which remembers sessions if it is let.
    fn client(&self, folder: &Path, name: &str) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(certificates(&self.tunnel.folder.file("ca.pem")).unwrap().remove(0)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
        let chain = certificates(&folder.join(format!("{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).unwrap();
        let mut config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }

    /// Returns what the server finds wrong with the client's certificate of this name.
    fn refused(&self, folder: &Path, name: &str) -> Option<CertificateError> {
        match shake(&self.client(folder, name), &self.server()) {
            Ok(_) => None,
            Err(Error::InvalidCertificate(error)) => Some(error),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Makes a handshake, and has the client read all that the server says after it.
fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<HandshakeKind, Error> {
    let mut client = ClientConnection::new(Arc::clone(client), ServerName::try_from("core").unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.wants_write() || server.wants_write() {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        let mut up = &up[..];
        while !up.is_empty() {
            server.read_tls(&mut up).unwrap();
            server.process_new_packets()?;
        }
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
        let mut down = &down[..];
        while !down.is_empty() {
            client.read_tls(&mut down).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(server.handshake_kind().expect("it is through"))
}

#[test]
fn an_operator_s_certificate_is_told_from_a_host_s() {
    let admin = Admin::new();
    let anna = facts(&admin.folder().join("anna.pem"));
    assert_eq!(
        (anna.role(), anna.operator.as_deref(), anna.subject.as_str()),
        (Some("operator"), Some("anna"), "anna")
    );
    // No end of a tunnel takes it, whoever its authority is.
    assert_eq!((anna.name(), anna.is_server), (None, false));
    let host = facts(&admin.tunnel.folder.file("waw1.pem"));
    assert_eq!((host.role(), host.operator, host.is_server), (Some("edge"), None, true));
}

#[test]
fn operators_get_in_and_no_host_does() {
    let admin = Admin::new();
    let (tunnel, operators) = (admin.tunnel.folder.0.clone(), admin.folder());
    assert_eq!(admin.refused(&operators, "anna"), None);
    // An edge of the tunnel, and a host with a certificate of the operators' authority.
    assert_eq!(admin.refused(&tunnel, "waw1"), Some(CertificateError::UnknownIssuer));
    admin.operators.issue(&edge("waw2"), &operators, IssueTerms::default()).unwrap();
    assert_eq!(admin.refused(&operators, "waw2"), Some(CertificateError::InvalidPurpose));
}

#[test]
fn a_revoked_operator_is_refused_by_name_and_by_serial_number() {
    let admin = Admin::new();
    let (server, client) = (admin.server(), admin.client(&admin.folder(), "anna"));
    let revoked = Err(Error::InvalidCertificate(CertificateError::Revoked));
    let serial = super::super::certificate::hex(&facts(&admin.folder().join("anna.pem")).serial);
    for (list, expected) in [
        (vec![], Ok(HandshakeKind::Full)),
        (vec!["bert".to_owned(), "anna".to_owned()], revoked.clone()),
        (vec!["ANNA".to_owned()], revoked.clone()),
        (vec![serial.clone()], revoked.clone()),
        (vec![serial.to_uppercase()], revoked),
        (vec!["ann".to_owned(), serial[3..].to_owned()], Ok(HandshakeKind::Full)),
    ] {
        // The list changes while the same server runs.
        admin.revoked.set(&list);
        assert_eq!(shake(&client, &server), expected, "{list:?}");
    }
}

#[test]
fn no_session_is_resumed_so_that_an_expired_certificate_ends_it() {
    let admin = Admin::new();
    let client = admin.client(&admin.folder(), "anna");
    let server = admin.server();
    for _ in 0..3 {
        assert_eq!(shake(&client, &server), Ok(HandshakeKind::Full));
    }
    let past = SystemTime::now() - days(800);
    let terms = IssueTerms::default();
    admin.operators.issue_for(Holder::Operator, &edge("old"), &admin.folder(), terms, past).unwrap();
    assert!(matches!(admin.refused(&admin.folder(), "old"), Some(CertificateError::ExpiredContext { .. })));
}

#[test]
fn the_authority_of_the_tunnel_is_none_of_operators() {
    let admin = Admin::new();
    let ca = admin.tunnel.folder.file("ca.pem");
    let load =
        |client_ca: &Path| admin.load(&AdminTlsConfig { client_ca: Some(client_ca.to_owned()), ..admin.files() });
    let tunnel = admin.tunnel.folder.file("ca-copy.pem");
    // A copy, and among others.
    fs::write(&tunnel, text(&admin.folder().join("ca.pem")) + &text(&ca)).unwrap();
    for file in [&ca, &tunnel] {
        let error = load(file).map(drop).unwrap_err();
        assert!(matches!(&error.problem, CertProblem::TunnelAuthority(known) if *known == ca), "{error}");
        assert!(error.to_string().contains("`otproxy cert operator NAME`"), "{error}");
    }
    assert!(matches!(
        load(&admin.folder().join("anna.pem")).map(drop).unwrap_err().problem,
        CertProblem::NotAuthority(name) if name == "anna"
    ));
    // Without a tunnel, or with one whose files cannot be read, it is not known.
    assert!(AdminIdentity::load(&admin.files(), None, &admin.revoked).is_ok());
}

#[test]
fn the_ends_of_certificates_are_known() {
    let admin = Admin::new();
    let identity = admin.load(&admin.files()).unwrap();
    let [own, ca] = identity.dated() else { panic!("{:?}", identity.dated()) };
    assert_eq!((own.label, &own.file), ("admin", &admin.files().cert));
    assert_eq!((ca.label, ca.file.clone()), ("admin_ca", admin.folder().join("ca.pem")));
    assert_eq!(own.not_after, facts(&own.file).not_after);
    assert_eq!(ca.not_after, admin.operators.certificate().not_after);
    assert_eq!((own.days_left(own.not_after), own.problem(own.not_after).map(|error| error.to_string())), (0, None));
    let expired = own.problem(own.not_after + Duration::from_secs(1)).unwrap().to_string();
    assert!(
        expired.contains("core.pem: was valid until ") && expired.contains("; renew it where it was made"),
        "{expired}"
    );
    let early = own.problem(own.not_before - Duration::from_secs(1)).unwrap().to_string();
    assert!(early.contains("is valid only from ") && early.ends_with("set this host's clock"), "{early}");
    // While one authority replaces another the last one decides.
    let short = Authority::create(&admin.tunnel.folder.file("short"), 1).unwrap();
    let both = text(short.certificate_file()) + &text(&admin.folder().join("ca.pem"));
    fs::write(admin.folder().join("ca.pem"), both).unwrap();
    assert_eq!(admin.load(&admin.files()).unwrap().dated()[1].not_after, ca.not_after);
}
