//! Tests of access.

use std::os::unix::fs::PermissionsExt;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;

use super::*;

const ACT: &str = "0123456789abcdef-act";
const READ: &str = "0123456789abcdef-read";

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

async fn with_tokens() -> Admin {
    let change = |config: &mut config::AdminConfig, directory: &Path| {
        config.token_file = Some(write(directory, "act", ACT));
        config.read_token_file = Some(write(directory, "read", READ));
    };
    Admin::start(FakeOperator::new(Role::Core), change).await
}

#[tokio::test]
async fn tokens_are_needed_where_there_are_any() {
    let server = with_tokens().await;
    let reads =
        async |header: &str| server.over_tcp("GET", "/api/v1/status", &["Host: edge.example", header], "").await.0;
    let acts = async |header: &str| {
        let headers = ["Host: edge.example", "Content-Type: application/json", header];
        server.over_tcp("POST", "/api/v1/drain", &headers, "{}").await.0
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    assert_eq!((reads(&bearer(ACT)).await, acts(&bearer(ACT)).await), (200, 200));
    assert_eq!((reads(&bearer(READ)).await, acts(&bearer(READ)).await), (200, 403));
    for wrong in [
        "X: y",
        "Authorization: Basic eDp5",
        "Authorization: Bearer",
        &bearer(""),
        &bearer("0123456789abcdef"),
        &bearer(&ACT[1..]),
    ] {
        assert_eq!((reads(wrong).await, acts(wrong).await), (401, 401), "{wrong}");
    }
    let (_, head, body) = server.over_tcp("GET", "/api/v1/openapi.json", &["Host: a"], "").await;
    assert!(head.starts_with("http/1.1 401") && head.contains("www-authenticate: bearer"), "{head}");
    assert!(body.contains("admin.token_file"), "{body}");
    // Neither health nor metrics need a token, nor does a user who may open the socket. A name that a page in a browser
    // could have takes one there, too: whoever has it is no such page.
    for path in ["/metrics", "/live", "/ready", "/"] {
        assert_eq!(server.over_tcp("GET", path, &["Host: 192.0.2.10:9162"], "").await.0, 200);
        assert_eq!(server.over_tcp("GET", path, &["Host: edge.example:9162"], "").await.0, 403);
        let bearer = bearer(READ);
        assert_eq!(server.over_tcp("GET", path, &["Host: edge.example:9162", &bearer], "").await.0, 200);
    }
    assert_eq!(server.post("/api/v1/drain", "{}").await.0, 200);
    assert_eq!(server.operator.done().len(), 2);
}

#[tokio::test]
async fn the_core_sees_all_through_the_tunnel_and_does_what_it_may_decide() {
    let server = AdminServer::bind(&config::AdminConfig::default(), None).unwrap();
    let operator = Arc::new(FakeOperator::new(Role::Edge));
    let state = AdminState {
        metrics: vec![Arc::new(Metrics::new())],
        ready: Arc::default(),
        build: BuildInfo { version: "1.2.3", role: "edge" },
        operator: operator.clone(),
    };
    let (errands, taken) = tokio::sync::mpsc::channel(1);
    let serving = tokio::spawn(server.serve(state, Some(taken), std::future::pending()));
    let over_tunnel = async |path: &str, body: Option<&str>| {
        let (near, far) = tokio::io::duplex(100);
        errands.send(far).await.unwrap();
        let answer = ask_over(near, path, body.map(str::to_owned)).await.unwrap();
        (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
    };
    for path in ["/metrics", "/ready", "/api/v1/status", "/api/v1/connections", "/api/v1/bans", "/api/v1/openapi.json"]
    {
        assert_eq!(over_tunnel(path, None).await.0, 200, "{path}");
    }
    let network = r#"{"network": "192.0.2.9"}"#;
    for (act, body) in [("drain", "{}"), ("undrain", "{}"), ("ban", network), ("unban", network)] {
        assert_eq!(over_tunnel(&format!("/api/v1/{act}"), Some(body)).await.0, 200, "{act}");
    }
    assert_eq!(operator.done().len(), 4);
    let others = [
        ("reload", "{}"),
        ("disconnect", r#"{"listener": "login"}"#),
        ("target", r#"{"listener": "login", "target": "first", "state": "maint"}"#),
        ("revoke", r#"{"edge": "waw1"}"#),
        ("upgrade", r#"{"role": "edge", "place": ".7.up", "takes_socket": true}"#),
    ];
    for (act, body) in others {
        let (status, answer) = over_tunnel(&format!("/api/v1/{act}"), Some(body)).await;
        assert!(status == 403 && answer.contains("the core may not do this here"), "{act}: {answer}");
    }
    assert_eq!(operator.done().len(), 4);
    serving.abort();
}

#[tokio::test]
async fn nobody_but_its_user_has_it_hand_everything_over_and_nobody_over_an_address() {
    let server = Admin::core().await;
    let upgrade = r#"{"role": "core", "place": ".7.up", "takes_socket": true}"#;
    let bearer = format!("Authorization: Bearer {ACT}");
    let headers = ["Host: 127.0.0.1:1", "Content-Type: application/json", &bearer];
    let tokens = with_tokens().await;
    assert_eq!(tokens.over_tcp("POST", "/api/v1/drain", &headers, "{}").await.0, 200);
    for (server, headers) in [(&server, &headers[..2]), (&tokens, &headers)] {
        let (status, _, body) = server.over_tcp("POST", "/api/v1/upgrade", headers, upgrade).await;
        assert!(status == 403 && body.contains("over its unix socket"), "{body}");
    }
    assert_eq!(server.post("/api/v1/upgrade", upgrade).await.0, 200, "this test is of the same user");
    assert_eq!(server.operator.done(), ["upgrade .7.up true"]);
}

#[tokio::test]
async fn without_a_token_an_address_is_read_and_nothing_else() {
    let server = Admin::core().await;
    let headers = ["Host: 127.0.0.1:1", "Content-Type: application/json"];
    for path in ["reload", "drain", "undrain", "ban", "unban", "disconnect", "target"] {
        let (status, _, body) = server.over_tcp("POST", &format!("/api/v1/{path}"), &headers, "{}").await;
        assert_eq!(status, 403, "{path}");
        assert!(body.contains("`admin.socket`") && body.contains("`admin.token_file`"), "{body}");
    }
    for path in ["status", "connections", "bans"] {
        assert_eq!(server.over_tcp("GET", &format!("/api/v1/{path}"), &headers, "").await.0, 200, "{path}");
    }
    assert!(server.operator.done().is_empty());
    assert_eq!(server.post("/api/v1/drain", "{}").await.0, 200);
    assert_eq!(server.operator.done().len(), 1);
}

#[tokio::test]
async fn a_web_page_is_refused() {
    let server = Admin::core().await;
    for path in ["/api/v1/connections", "/metrics", "/live", "/ready", "/"] {
        let see = async |headers: &[&str]| server.over_tcp("GET", path, headers, "").await;
        assert_eq!(see(&["Host: 127.0.0.1:1"]).await.0, 200, "{path}");
        assert_eq!(see(&["Host: localhost"]).await.0, 200, "{path}");
        assert_eq!(see(&["Host: 127.0.0.1:1", "Origin: http://evil.example"]).await.0, 403, "{path}");
        assert_eq!(see(&["Host: 127.0.0.1:1", "Origin: null"]).await.0, 403, "{path}");
        // The page's own host name resolves to loopback by now.
        let (status, _, body) = see(&["Host: evil.example:9162"]).await;
        assert_eq!(status, 403, "{path}");
        assert!(body.contains("remedy") && !body.contains("connections") && !body.contains("otproxy_"), "{body}");
    }
    let from_page = ["Host: evil.example", "Content-Type: application/json"];
    assert_eq!(server.over_tcp("POST", "/api/v1/drain", &from_page, "{}").await.0, 403);
    assert!(server.operator.done().is_empty());
}

/// A log that a test reads.
#[derive(Clone, Default)]
struct Log(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Has what this thread logs written here, while the guard lives.
    fn begin(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let lines = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || log.clone());
        tracing::subscriber::set_default(lines.finish())
    }

    /// Returns the last line about an act.
    fn last(&self) -> Value {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.rfind(|line| line.get("act").is_some()).expect("a line")
    }
}

#[tokio::test]
async fn an_act_is_logged_with_its_author() {
    let log = Log::default();
    let _logging = log.begin();
    let server = with_tokens().await;
    server.post("/api/v1/drain", "{}").await;
    let line = log.last();
    let me = rustix::process::geteuid().as_raw();
    assert_eq!((&line["door"], &line["uid"], &line["act"]), (&"socket".into(), &me.into(), &"/drain".into()));
    if me == 0 {
        assert_eq!(line["user"], "root");
    }
    assert!(line.get("address").is_none() && line.get("token").is_none(), "{line}");

    let stream = TcpStream::connect(server.address).await.unwrap();
    let own = stream.local_addr().unwrap().to_string();
    let bearer = format!("Authorization: Bearer {ACT}");
    let headers = ["Host: a", "Content-Type: application/json", &bearer];
    // One that is refused is logged with its author, too.
    ask(stream, "POST", "/api/v1/drain", &headers, r#"{"listener":"none"}"#).await;
    let line = log.last();
    assert_eq!((&line["level"], &line["door"]), (&"WARN".into(), &"tcp".into()));
    assert_eq!((&line["address"], &line["token"]), (&own.into(), &"token_file".into()));
    assert!(line.get("uid").is_none(), "{line}");

    let server = with_tls(true).await;
    over_tls(&server, "POST /api/v1/undrain", true).await.unwrap();
    let line = log.last();
    assert_eq!((&line["door"], &line["certificate"]), (&"tls".into(), &"client".into()));
    assert!(line["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
}

/// Makes certificates of a server and a client, by one authority, in `directory`.
fn certificates(directory: &Path) {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&authority).unwrap();
    write(directory, "ca.pem", &ca.pem());
    let issuer = rcgen::Issuer::new(params, authority);
    for name in ["admin.example", "client"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        write(directory, &format!("{name}.pem"), &certificate.pem());
        write(directory, &format!("{name}.key"), &key.serialize_pem());
    }
}

async fn with_tls(client_ca: bool) -> Admin {
    let change = move |config: &mut config::AdminConfig, directory: &Path| {
        certificates(directory);
        config.tls = Some(config::AdminTlsConfig {
            cert: directory.join("admin.example.pem"),
            key: directory.join("admin.example.key"),
            client_ca: client_ca.then(|| directory.join("ca.pem")),
            revoked: Vec::new(),
        });
    };
    Admin::start(FakeOperator::new(Role::Core), change).await
}

/// Sends a request over TLS: a GET for a path, or a POST of an empty object; fails if there is no answer.
async fn over_tls(server: &Admin, path: &str, certificate: bool) -> std::io::Result<String> {
    let pem = |name: &str| server.directory.join(name);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.unwrap().with_root_certificates(roots);
    let config = if certificate {
        let chain = vec![CertificateDer::from_pem_file(pem("client.pem")).unwrap()];
        builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(pem("client.key")).unwrap()).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("admin.example").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let request = match path.strip_prefix("POST ") {
        None => format!("GET {path} HTTP/1.1\r\nHost: admin.example\r\n\r\n"),
        Some(path) => format!(
            "POST {path} HTTP/1.1\r\nHost: admin.example\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        ),
    };
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // The answer states its own length, so the stream may end without a TLS alert.
    let _ = timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.expect("it closes");
    if answer.is_empty() {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(String::from_utf8(answer).unwrap())
    }
}

#[tokio::test]
async fn tls_serves_the_same_and_nothing_without_it() {
    let server = with_tls(false).await;
    let answer = over_tls(&server, "/api/v1/status", false).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"role\":\"core\""), "{answer}");
    assert!(over_tls(&server, "/metrics", false).await.unwrap().contains("otproxy_build_info"));
    let act = over_tls(&server, "POST /api/v1/drain", false).await.unwrap();
    assert!(act.starts_with("HTTP/1.1 403 ") && server.operator.done().is_empty(), "{act}");
    let plain = TcpStream::connect(server.address).await.unwrap();
    let answer = {
        let (mut plain, mut answer) = (plain, Vec::new());
        plain.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await.unwrap();
        let _ = timeout(Duration::from_secs(60), plain.read_to_end(&mut answer)).await.expect("it closes");
        answer
    };
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // A stalled handshake delays nobody.
    let _stalled = TcpStream::connect(server.address).await.unwrap();
    assert!(over_tls(&server, "/live", false).await.unwrap().ends_with("live\n"));
}

#[tokio::test]
async fn the_ends_of_its_certificates_are_a_metric() {
    let server = with_tls(true).await;
    let ends = async || {
        let (_, _, metrics) = server.over_socket("GET", "/metrics", &[], "").await;
        let of = |label: &str| {
            let series = format!("otproxy_certificate_expiry_timestamp_seconds{{certificate=\"{label}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok())
        };
        of("admin").zip(of("admin_ca"))
    };
    // Both are of the year 4096, as is what gives no end.
    let found = async {
        loop {
            if let Some(found) = ends().await {
                break found;
            }
            tokio::task::yield_now().await;
        }
    };
    let (own, ca) = timeout(Duration::from_secs(60), found).await.expect("they are counted");
    assert!(own > 4e9 && ca > 4e9, "{own} {ca}");
}

#[tokio::test]
async fn where_clients_have_certificates_nobody_gets_in_without() {
    let server = with_tls(true).await;
    let answer = over_tls(&server, "/api/v1/status", true).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let act = over_tls(&server, "POST /api/v1/drain", true).await.unwrap();
    assert!(act.starts_with("HTTP/1.1 200 ") && server.operator.done() == ["drain None None"], "{act}");
    for path in ["/api/v1/status", "/metrics"] {
        over_tls(&server, path, false).await.expect_err(path);
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_a_damaged_one_is_not() {
    let server = with_tls(false).await;
    assert!(over_tls(&server, "/live", false).await.is_ok());
    // All files are made anew, the authority included: a client that trusts the new one gets in.
    certificates(&server.directory);
    assert!(over_tls(&server, "/live", false).await.is_ok());
    write(&server.directory, "admin.example.pem", "nonsense");
    assert!(over_tls(&server, "/live", false).await.is_ok());
}

#[test]
fn files_that_are_no_good_are_said_before_anything_is_bound() {
    let name = format!("otproxy-admin-files-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    fs::create_dir_all(&directory).unwrap();
    certificates(&directory);
    let path = |name: &str| directory.join(name);
    write(&directory, "text.pem", "nonsense");
    for (cert, key, ca, says) in [
        ("none.pem", "client.key", None, "none.pem: cannot be read: No such file"),
        ("text.pem", "client.key", None, "text.pem: holds no certificate in PEM form"),
        ("client.pem", "none.key", None, "none.key: cannot be read: No such file"),
        ("client.pem", "client.pem", None, "client.pem: holds no private key in PEM form"),
        ("client.pem", "admin.example.key", None, "admin.example.key: is not the key of the certificate in "),
        ("client.pem", "client.key", Some("text.pem"), "text.pem: holds no certificate in PEM form"),
    ] {
        let tls =
            config::AdminTlsConfig { cert: path(cert), key: path(key), client_ca: ca.map(path), revoked: Vec::new() };
        let config = config::AdminConfig { tls: Some(tls), ..config::AdminConfig::default() };
        let error = check_files(&config, None).unwrap_err().to_string();
        assert!(error.starts_with("admin.tls: ") && error.contains(says), "{error}");
    }
    let config = config::AdminConfig { token_file: Some(path("none")), ..config::AdminConfig::default() };
    let error = check_files(&config, None).unwrap_err().to_string();
    assert!(error.starts_with("admin: ") && error.contains("none: cannot be read"), "{error}");
    fs::remove_dir_all(&directory).unwrap();
}
