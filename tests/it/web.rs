//! Listeners of `kind: web`: a core that answers, and edges that lead there and keep answers.

use std::net::SocketAddr;
use std::sync::Arc;

use otproxy_protocol::login::{RsaKey, XteaKey, first};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::common::sandbox::*;
use crate::common::tunnel::{self, Certificates, TunnelEnd};

/// Times that are never over, for tests that are not about one that is.
pub(crate) const PATIENT: &str = "timeouts: { connect: 1h, header: 1h, idle: 1h }";
const EDGES: &str = "[{ name: waw1, public: p1.example }, { name: fra1, public: \"p2.example:443\", priority: 20 }, \
     { name: old1, public: p3.example, disabled: true }, { name: lost1, public: p4.example, revoked: true }, { name: own1 }]";
const LIST: &str = r#"{"proxies":[{"host":"p1.example:7162","priority":0},{"host":"p2.example:443","priority":20}]}"#;

/// A core that players reach directly.
fn core(listener: &str) -> Role {
    let edges = EDGES.replace("name: waw1,", "name: waw1, address: 198.51.100.1,");
    let edges = edges.replace("name: fra1,", "name: fra1, address: 198.51.100.2,");
    let edges = edges.replace("name: old1,", "name: old1, address: 198.51.100.3,");
    let edges = edges.replace("name: lost1,", "name: lost1, address: 198.51.100.4,");
    let edges = edges.replace("name: own1 ", "name: own1, address: 198.51.100.5 ");
    let more = if listener.contains("timeouts") { String::new() } else { format!(", {PATIENT}") };
    Role::core(&format!(
        "edges: {edges}\ngame_servers: [{{ port: 7172, address: \"127.0.0.1:7172\" }}]\nlisteners: [{{ name: web, kind: web, listen: \"127.0.0.1:0\", accept_proxy: none, {listener}{more} }}]"
    ))
}

/// An answer, in parts.
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

async fn send(to: SocketAddr, request: &str) -> TcpStream {
    let mut stream = connect_from("127.0.0.1", to).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

pub(crate) async fn answer(stream: &mut TcpStream) -> Answer {
    let bytes = read_to_close(stream).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

async fn ask(to: SocketAddr, request: &str) -> Answer {
    answer(&mut send(to, request).await).await
}

async fn get(to: SocketAddr, path: &str) -> Answer {
    ask(to, &format!("GET {path} HTTP/1.1\r\nHost: p1.example\r\n\r\n")).await
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: p1.example\r\nUser-Agent: Mozilla/5.0\r\nX-Forwarded-For: 10.9.9.9\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The login service takes one request, whose head it returns in lower case, and says this.
async fn serve(service: &TcpListener, says: &str) -> (String, String) {
    let mut stream = accept(service).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read(&mut stream, 1).await);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let body = String::from_utf8(read(&mut stream, length).await).unwrap();
    stream.write_all(says.as_bytes()).await.unwrap();
    (head, body)
}

/// The login service takes one request, says this and closes, whether anybody reads it or not.
async fn serve_in_vain(service: &TcpListener, says: &str) {
    let mut stream = accept(service).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n{}") {
        head.extend(read(&mut stream, 1).await);
    }
    let _ = stream.write_all(says.as_bytes()).await;
}

fn says(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nKeep-Alive: timeout=5\r\n\r\n{body}",
        body.len()
    )
}

fn counted(route: &str, result: &str) -> [String; 2] {
    [format!("route=\"{route}\""), format!("result=\"{result}\"")]
}

pub(crate) async fn requests(role: &Role, route: &str, result: &str) -> f64 {
    let labels = counted(route, result);
    role.metric("otproxy_web_requests_total", &[labels[0].as_str(), labels[1].as_str()]).await
}

#[test]
fn a_core_tells_the_edges_that_are_to_be_used() {
    run(async {
        let core = core("routes: { proxies: [{ name: myot }, { name: other }] }");
        let web = core.addr("web");
        for name in ["myot", "other", "myot?again=1"] {
            let list = get(web, &format!("/proxies/{name}")).await;
            assert_eq!((list.status, list.body.as_str()), (200, LIST), "{name}");
            assert_eq!(list.header("content-type"), Some("application/json"));
            assert_eq!(list.header("cache-control"), Some("public, max-age=60"));
            assert_eq!(list.header("access-control-allow-origin"), Some("*"));
            assert_eq!(list.header("content-length"), Some(LIST.len().to_string().as_str()));
        }
        let head = ask(web, "HEAD /proxies/myot HTTP/1.1\r\nHost: p1.example\r\n\r\n").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(head.header("content-length"), Some(LIST.len().to_string().as_str()));
        for path in ["/", "/proxies", "/proxies/", "/proxies/nobody", "/proxies/myot/", "/status", "/login", "/%00"] {
            assert_eq!(get(web, path).await.status, 404, "{path}");
        }
        let posted = ask(web, &post("/proxies/myot", "")).await;
        assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));

        // A reload changes it at once.
        core.replace("priority: 20", "priority: 20, disabled: true").await;
        assert_eq!(get(web, "/proxies/myot").await.body, r#"{"proxies":[{"host":"p1.example:7162","priority":0}]}"#);
        core.replace(EDGES_PUBLIC, "[]").await;
        assert_eq!(get(web, "/proxies/myot").await.body, r#"{"proxies":[]}"#);
        assert_eq!(requests(&core, "proxies", "ok").await, 6.0);
        assert_eq!(requests(&core, "other", "not_found").await, 8.0);
        core.stop().await;
    });
}

/// The edges of [`core`], as its YAML has them.
const EDGES_PUBLIC: &str = "[{ name: waw1, address: 198.51.100.1, public: p1.example }, { name: fra1, address: 198.51.100.2, \
     public: \"p2.example:443\", priority: 20 }, { name: old1, address: 198.51.100.3, public: p3.example, disabled: true }, \
     { name: lost1, address: 198.51.100.4, public: p4.example, revoked: true }, { name: own1, address: 198.51.100.5 }]";

#[test]
fn what_is_no_request_ends_and_breaks_a_rule() {
    run(async {
        let core = core("routes: { proxies: [{ name: myot }] }, timeouts: { header: 100ms, idle: 1h }");
        let web = core.addr("web");
        let closed = |reason: &str| format!("reason=\"{reason}\"");
        let (none, client) = (closed("no_request"), closed("client"));
        // Silent, half a head, and half a body.
        for part in
            ["", "GET /proxies/myot HTTP/1.1\r\nHo", "POST /proxies/myot HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"]
        {
            let mut stream = send(web, part).await;
            assert_eq!(read_to_close(&mut stream).await, b"", "{part}");
        }
        core.wait_until("otproxy_connections_closed_total", &[&none], |now| now == 3.0).await;
        // Something else, whose head is as long as it likes.
        for wrong in ["\x06\0\u{1}info\r\n\r\n".to_owned(), format!("GET /{} HTTP/1.1\r\n", "a".repeat(64 << 10))] {
            let mut stream = send(web, &wrong).await;
            let said = String::from_utf8_lossy(&read_to_close(&mut stream).await).into_owned();
            assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
        }
        core.wait_until("otproxy_connections_closed_total", &[&none], |now| now == 5.0).await;
        // A health check opens and closes.
        drop(connect_from("127.0.0.1", web).await);
        core.wait_until("otproxy_connections_closed_total", &[&client], |now| now == 1.0).await;
        let long = ask(web, &post("/proxies/myot", &"a".repeat(17 << 10))).await;
        assert_eq!(long.status, 413);
        // It ends before it is whole.
        let mut half = send(web, "POST /proxies/myot HTTP/1.1\r\nContent-Length: 9\r\n\r\n{").await;
        half.shutdown().await.unwrap();
        assert_eq!(answer(&mut half).await.status, 400);
        for method in ["CONNECT p1.example:80", "TRACE /proxies/myot", "DELETE /proxies/myot"] {
            let other = ask(web, &format!("{method} HTTP/1.1\r\nHost: p1.example\r\n\r\n")).await;
            assert_eq!((other.status, other.header("allow")), (405, Some("GET, HEAD, POST, OPTIONS")), "{method}");
        }
        assert_eq!(get(web, "/proxies/myot").await.status, 200);
        core.stop().await;
    });
}

#[test]
fn a_login_leads_to_the_first_login_service_that_answers_and_passes_as_it_is() {
    run(async {
        let ((_held, refusing), (service, addr)) = (refusing(), target().await);
        let core =
            core(&format!("forward_to: [\"{refusing}\", \"{addr}\"], routes: {{ login: [/login, /login.php] }}"));
        let web = core.addr("web");
        let body = r#"{"type":"cacheinfo"}"#;
        for (path, status) in [("/login", "200 OK"), ("/login.php?a=b", "403 Forbidden")] {
            let mut client = send(web, &post(path, body)).await;
            let (head, asked) = serve(&service, &says(status, "whatever \u{e9}")).await;
            assert!(head.starts_with(&format!("post {path} http/1.1\r\n")), "{head}");
            assert!(
                head.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"),
                "a client's own word is not passed on: {head}"
            );
            assert!(
                head.contains("\r\nx-real-ip: 127.0.0.1\r\n") && head.contains("\r\nhost: p1.example\r\n"),
                "{head}"
            );
            assert!(head.contains("\r\nuser-agent: mozilla/5.0\r\n"), "{head}");
            assert_eq!(asked, body);
            let told = answer(&mut client).await;
            assert_eq!(told.status.to_string(), status[..3]);
            assert_eq!((told.body.as_str(), told.header("content-type")), ("whatever \u{e9}", Some("text/plain")));
            assert_eq!(told.header("keep-alive"), None);
        }
        let wrong = get(web, "/login").await;
        assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST, OPTIONS")));
        // A browser asks beforehand, and the login service answers.
        let asks = "OPTIONS /login HTTP/1.1\r\nHost: p1.example\r\nOrigin: https://myot.example\r\n\
                    Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n";
        let mut client = send(web, asks).await;
        let (head, _) = serve(&service, &says("200 OK", "")).await;
        for passed in
            ["options /login ", "origin: ", "access-control-request-method: ", "access-control-request-headers: "]
        {
            assert!(head.contains(passed), "{head}");
        }
        assert_eq!(answer(&mut client).await.status, 200);
        core.stop().await;
    });
}

#[test]
fn what_a_login_service_says_in_place_of_an_answer_is_an_error_that_clients_show() {
    run(async {
        let (service, addr) = target().await;
        let core = core(&format!("forward_to: \"{addr}\", routes: {{ login: [/login] }}"));
        let long = format!("HTTP/1.1 200 OK\r\nContent-Length: {0}\r\n\r\n{1}", 300 << 10, "a".repeat(300 << 10));
        for says in [
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "no HTTP\r\n\r\n",
            "",
            long.as_str(),
        ] {
            let mut client = send(core.addr("web"), &post("/login", "{}")).await;
            serve_in_vain(&service, says).await;
            let told = answer(&mut client).await;
            assert_eq!(told.status, 200, "{}", told.head);
            assert!(told.body.starts_with(r#"{"errorCode":3,"#), "{}", told.body);
        }
        core.stop().await;
    });
}

#[test]
fn a_listener_with_a_certificate_takes_each_client_of_tls() {
    run(async {
        let certificates = Certificates::new();
        certificates.tls("core");
        let folder = certificates.folder.display();
        let core = core(&format!(
            "tls: {{ cert: {folder}/core.pem, key: {folder}/core.key }}, routes: {{ proxies: [{{ name: myot }}] }}"
        ));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificates.folder.join("ca.pem")).unwrap()).unwrap();
        let name = ServerName::try_from("core").unwrap();
        let other: &[u8] = b"otproxy/2";
        for (version, alpn, taken) in [
            (&TLS13, &[][..], true),
            (&TLS12, &[], true),
            (&TLS13, &[&b"h2"[..], b"http/1.1"], true),
            (&TLS12, &[b"http/1.1"], true),
            (&TLS13, &[other], false),
        ] {
            let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
            let builder = builder.with_protocol_versions(&[version]).unwrap();
            let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
            config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            let tcp = connect_from("127.0.0.1", core.addr("web")).await;
            let connected = TlsConnector::from(Arc::new(config)).connect(name.clone(), tcp).await;
            assert_eq!(connected.is_ok(), taken, "{version:?} {alpn:?}: {connected:?}");
            let Ok(mut stream) = connected else { continue };
            stream.write_all(b"GET /proxies/myot HTTP/1.1\r\nHost: p1.example\r\n\r\n").await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            assert!(said.starts_with("HTTP/1.1 200 OK") && said.ends_with(LIST), "{version:?}: {said}");
        }
        core.stop().await;
    });
}

#[test]
fn the_answer_to_a_login_tells_of_the_edges() {
    run(async {
        let (service, addr) = target().await;
        let listener = format!("forward_to: \"{addr}\", routes: {{ login: [/login], worlds: auto }}");
        let core = core(&listener);
        let web = core.addr("web");
        let answered = r#"{"session":{"sessionkey":"a"},"playdata":{"worlds":[{"id":0,"externaladdress":"10.0.0.1","externalportprotected":7172}],"characters":[]}}"#;
        let list = r#"[{"host":"p1.example","port":7162,"priority":0},{"host":"p2.example","port":443,"priority":20}]"#;
        let otcv8 = r#"{"type":"login","email":"a","password":"secret","accountpassword":"secret"}"#;
        let official = r#"{"type":"login","email":"a","password":"secret","clientversion":"13.40"}"#;
        for (asked, address) in [(otcv8, "127.0.0.1"), (official, "p1.example")] {
            let mut client = send(web, &post("/login", asked)).await;
            serve(&service, &says("200 OK", answered)).await;
            let told = answer(&mut client).await;
            let expected = answered.replace("10.0.0.1", address);
            let lists = told.body.matches(&format!("\"proxies\":{list}")).count();
            assert_eq!(lists, if asked == otcv8 { 2 } else { 0 }, "{}", told.body);
            assert_eq!(told.body.replace(&format!(",\"proxies\":{list}"), ""), expected);
        }
        // A wrong password.
        let error = r#"{"errorCode":3,"errorMessage":"no"}"#;
        let mut client = send(web, &post("/login", otcv8)).await;
        serve(&service, &says("200 OK", error)).await;
        assert_eq!(answer(&mut client).await.body, error);
        core.replace("worlds: auto", "worlds: edge").await;
        let mut client = send(web, &post("/login", otcv8)).await;
        serve(&service, &says("200 OK", answered)).await;
        assert!(answer(&mut client).await.body.contains("\"externaladdress\":\"p1.example\""));
        for (result, count) in [("rewritten", 3.0), ("error", 1.0), ("unanswered", 0.0)] {
            let result = format!("result=\"{result}\"");
            assert_eq!(core.metric("otproxy_logins_total", &["way=\"http\"", &result]).await, count, "{result}");
        }
        core.stop().await;
    });
}

/// Returns the answer of a login server of 7.72 to a login with this key, as it goes over the wire.
fn sealed(content: &[u8], key: &XteaKey) -> Vec<u8> {
    let mut body = [&u16::try_from(content.len()).unwrap().to_le_bytes()[..], content].concat();
    body.resize(body.len().next_multiple_of(8), 0);
    key.encrypt(&mut body);
    [&u16::try_from(body.len()).unwrap().to_le_bytes()[..], &body].concat()
}

#[test]
fn a_game_server_that_knows_no_logins_over_http_is_asked_as_a_client_asks() {
    run(async {
        let ((_held, refusing), (server, addr)) = (refusing(), target().await);
        let core = core(&format!(
            "forward_to: [\"{refusing}\", \"{addr}\"], send_proxy: none, routes: {{ login: [/login], classic: {{ version: 772 }} }}"
        ));
        let web = core.addr("web");
        let asked = r#"{"type":"login","email":"123456","password":"secret","accountpassword":"secret"}"#;
        let text = |text: &str| [&u16::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat();
        let list = [&[0x64, 1][..], &text("Player"), &text("World"), &[10, 0, 0, 1], &7172_u16.to_le_bytes(), &[0, 0]];
        for (content, parts) in [
            (
                list.concat(),
                [
                    "\"name\":\"Player\"",
                    "\"externaladdress\":\"127.0.0.1\"",
                    "\"host\":\"p1.example\"",
                    "\"sessionkey\":\"123456\\nsecret",
                ],
            ),
            ([&[0x0A][..], &text("Wrong.")].concat(), ["{\"errorCode\":3,\"errorMessage\":\"Wrong.\"}"; 4]),
        ] {
            let mut client = send(web, &post("/login", asked)).await;
            let mut stream = accept(&server).await;
            let mut request = Vec::new();
            let login = loop {
                request.extend(read(&mut stream, 1).await);
                if let Some(login) = first(&request, &RsaKey::standard()).unwrap() {
                    break login;
                }
            };
            assert_eq!(login.version, 772);
            assert!(!String::from_utf8_lossy(&request).contains("secret"), "it is encrypted");
            stream.write_all(&sealed(&content, &login.key.unwrap())).await.unwrap();
            let told = answer(&mut client).await;
            assert_eq!((told.status, told.header("content-type")), (200, Some("application/json")));
            for part in parts {
                assert!(told.body.contains(part), "{part}: {}", told.body);
            }
        }
        // Requests that no server would be asked.
        let other = ask(web, &post("/login", r#"{"type":"cacheinfo"}"#)).await;
        assert!(other.body.starts_with(r#"{"errorCode":2,"#), "{}", other.body);
        let name = ask(web, &post("/login", &asked.replace("123456", "name"))).await;
        assert!(name.body.starts_with(r#"{"errorCode":3,"errorMessage":"There is no such account."#), "{}", name.body);
        // One that says something else.
        let mut client = send(web, &post("/login", asked)).await;
        let mut stream = accept(&server).await;
        stream.write_all(b"\x08\0SSH-2.0-").await.unwrap();
        assert!(answer(&mut client).await.body.contains("cannot be reached"));
        core.stop().await;
    });
}

#[test]
fn a_login_service_that_takes_connections_and_answers_none_is_tried_last_from_then_on() {
    run(async {
        let ((silent, first), (service, second)) = (target().await, target().await);
        let core = core(&format!(
            "forward_to: [{{ name: first, address: \"{first}\" }}, {{ name: second, address: \"{second}\" }}], routes: {{ login: [/login] }}"
        ));
        let up = async |name: &str| core.metric("otproxy_target_up", &[&format!("target=\"{name}\"")]).await;
        let mut client = send(core.addr("web"), &post("/login", "{}")).await;
        drop(accept(&silent).await);
        serve(&service, &says("200 OK", "{}")).await;
        assert_eq!(answer(&mut client).await.status, 200);
        // That it can be connected to does not count.
        assert_eq!((up("first").await, up("second").await), (0.0, 1.0));
        core.stop().await;
    });
}

#[test]
fn a_login_without_a_login_service_ends_with_what_clients_show() {
    run(async {
        let ((_held, refusing), (silent, addr)) = (refusing(), target().await);
        // One refuses, one says nothing until its share of the time is over, and one is unwell.
        let (unwell, third) = target().await;
        let core = core(&format!(
            "forward_to: [\"{refusing}\", \"{addr}\", \"{third}\"], routes: {{ login: [/login] }}, \
             timeouts: {{ connect: 300ms, header: 1h, idle: 1h }}"
        ));
        let web = core.addr("web");
        let mut client = send(web, &post("/login", "{}")).await;
        let held = accept(&silent).await;
        serve(&unwell, &says("502 Bad Gateway", "nginx")).await;
        let told = answer(&mut client).await;
        assert_eq!((told.status, told.body.as_str()), (502, "nginx"), "the only answer that there is");
        drop((held, unwell));
        core.stop().await;

        let core = core_of(&format!("forward_to: \"{refusing}\", routes: {{ login: [/login] }}"));
        let told =
            ask(core.addr("web"), &post("/login", r#"{"type":"login","email":"secret@example","password":"secret"}"#))
                .await;
        let error =
            r#"{"errorCode":3,"errorMessage":"The login server cannot be reached. Please try again in a moment."}"#;
        assert_eq!((told.status, told.body.as_str()), (200, error));
        assert_eq!(requests(&core, "login", "failed").await, 1.0);
        assert_eq!(core.metric("otproxy_logins_total", &["result=\"unanswered\""]).await, 1.0);
        core.stop().await;
    });
}

fn core_of(listener: &str) -> Role {
    core(listener)
}

#[test]
fn the_status_is_that_of_the_listener_that_knows_it() {
    run(async {
        let (game, addr) = target().await;
        let core = Role::core(&format!(
            "listeners:\n- {{ name: login, listen: \"127.0.0.1:0\", accept_proxy: none, forward_to: \"{addr}\", send_proxy: none, {PATIENT}, \
             status: {{ cache: 1h, address: p1.example }} }}\n\
             - {{ name: web, kind: web, listen: \"127.0.0.1:0\", accept_proxy: none, routes: {{ status: login }}, {PATIENT} }}"
        ));
        let mut asking = send(core.addr("web"), "GET /status HTTP/1.1\r\n\r\n").await;
        let mut server = accept(&game).await;
        assert_eq!(read(&mut server, 8).await, b"\x06\0\xFF\xFFinfo");
        let xml = "<tsqp><serverinfo ip=\"10.0.0.1\" port=\"7171\" servername=\"A &quot;B&quot;\"/><players online=\"3\" max=\"50\"/></tsqp>";
        server.write_all(xml.as_bytes()).await.unwrap();
        drop(server);
        let told = answer(&mut asking).await;
        let expected =
            r#"{"address":"p1.example","name":"A \"B\"","online":true,"players":{"max":50,"online":3},"port":7171}"#;
        assert_eq!((told.status, told.body.as_str()), (200, expected));
        assert_eq!(told.header("cache-control"), Some("public, max-age=5"));
        // The game server is asked no second time.
        assert_eq!(get(core.addr("web"), "/status").await.body, expected);
        core.stop().await;
    });
}

#[test]
fn a_proxy_for_web_sites_tells_the_player() {
    run(async {
        let (service, addr) = target().await;
        let core = core(&format!(
            "forward_to: \"{addr}\", routes: {{ login: [/login], proxies: [{{ name: myot }}] }}, deny: 203.0.113.66, \
             limits: {{ rate_per_address: 2/1h }}, real_ip: {{ header: CF-Connecting-IP, from: 127.0.0.1 }}"
        ));
        let web = core.addr("web");
        let told =
            |ip: &str| post("/login", "{}").replace("X-Forwarded-For: 10.9.9.9", &format!("CF-Connecting-IP: {ip}"));
        for ip in ["203.0.113.7", "2001:db8::7"] {
            let mut client = send(web, &told(ip)).await;
            let (head, _) = serve(&service, &says("200 OK", "{}")).await;
            assert!(head.contains(&format!("\r\nx-forwarded-for: {ip}\r\n")), "{head}");
            assert_eq!(answer(&mut client).await.status, 200);
        }
        // Its limits and lists are the players', not its own.
        assert_eq!(ask(web, &told("203.0.113.66")).await.status, 403);
        let list = |ip: &str| format!("GET /proxies/myot HTTP/1.1\r\nCF-Connecting-IP: {ip}\r\n\r\n");
        assert_eq!(ask(web, &list("203.0.113.7")).await.status, 200);
        assert_eq!(ask(web, &list("203.0.113.7")).await.status, 429);
        assert_eq!(ask(web, &list("203.0.113.8")).await.status, 200);
        // Nobody else is believed.
        let mut other = connect_from("127.0.0.9", web).await;
        other.write_all(list("203.0.113.66").as_bytes()).await.unwrap();
        assert_eq!(answer(&mut other).await.status, 200);
        core.stop().await;
    });
}

#[test]
fn an_edge_has_the_list_while_its_core_is_gone() {
    run(async {
        let certificates = Certificates::new();
        ["core", "waw1"].into_iter().for_each(|name| certificates.issue(name, Default::default()));
        let (service, addr) = target().await;
        let listener = format!(
            "[{{ name: web, kind: web, forward_to: \"{addr}\", routes: {{ proxies: [{{ name: myot }}], login: [/login] }}, {PATIENT} }}]"
        );
        let core = Role::start(&tunnel::core(&certificates, EDGES, &listener, ""));
        let to_core = core.addr("tunnel");
        let web = "[{ name: web, kind: web, listen: \"127.0.0.1:0\", forward_to: core/web, timeouts: { connect: 500ms, header: 1h, idle: 1h } }]";
        let edge = Role::start(&tunnel::edge(&certificates, "waw1", to_core, web));
        edge.trunks("waw1", 4).await;
        let web = edge.addr("web");
        assert_eq!(get(web, "/proxies/nobody").await.status, 404);
        for query in ["", "?again"] {
            let list = get(web, &format!("/proxies/myot{query}")).await;
            assert_eq!((list.status, list.body.as_str()), (200, LIST));
            assert_eq!(list.header("cache-control"), Some("public, max-age=60"));
        }
        assert_eq!((requests(&edge, "proxies", "ok").await, requests(&edge, "proxies", "kept").await), (1.0, 1.0));
        let mut client = send(web, &post("/login", "{}")).await;
        let (head, _) = serve(&service, &says("200 OK", "{}")).await;
        assert!(head.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"), "{head}");
        assert_eq!(answer(&mut client).await.body, "{}");

        core.stop().await;
        edge.trunks("waw1", 0).await;
        assert_eq!(get(web, "/proxies/myot").await.body, LIST);
        assert_eq!(get(web, "/proxies/nobody").await.status, 503);
        let told = ask(web, &post("/login", "{}")).await;
        assert!(told.status == 200 && told.body.starts_with(r#"{"errorCode":3,"#), "{}", told.body);
        edge.stop().await;
    });
}

#[test]
fn edges_of_a_datacenter_are_in_an_order_of_each_player_at_the_core_and_at_edges() {
    run(async {
        let certificates = Certificates::new();
        ["core", "waw1"].into_iter().for_each(|name| certificates.issue(name, Default::default()));
        let edges: String = ["waw1", "waw2", "waw3"]
            .map(|name| format!("{{ name: {name}, public: {name}.example, datacenter: waw }}, "))
            .concat();
        let edges = format!("[{edges}{{ name: fra1, public: fra1.example, datacenter: fra }}]");
        let routes = "routes: { proxies: [{ name: myot }] }";
        let listeners = format!(
            "[{{ name: web, kind: web, {routes}, {PATIENT} }}, \
             {{ name: direct, kind: web, listen: \"127.0.0.1:0\", accept_proxy: none, {}, {PATIENT} }}]",
            routes.replace("myot", "direct")
        );
        let core = Role::start(&tunnel::core(&certificates, &edges, &listeners, ""));
        let (to_core, core_direct) = (core.addr("tunnel"), core.addr("direct"));
        let web = format!("[{{ name: web, kind: web, listen: \"127.0.0.1:0\", forward_to: core/web, {PATIENT} }}]");
        let edge = Role::start(&tunnel::edge(&certificates, "waw1", to_core, &web));
        edge.trunks("waw1", 4).await;
        let ask = async |from: &str, to: SocketAddr, method: &str| {
            let mut stream = connect_from(from, to).await;
            let name = if to == core_direct { "direct" } else { "myot" };
            stream.write_all(format!("{method} /proxies/{name} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
            answer(&mut stream).await
        };
        let mut first = std::collections::HashSet::new();
        for player in 1..40 {
            let player = format!("127.0.7.{player}");
            let (there, here) = (ask(&player, edge.addr("web"), "GET").await, ask(&player, core_direct, "GET").await);
            assert_eq!(there.body, here.body, "{player}");
            let set_back = [0, 40, 80].map(|back| here.body.matches(&format!("\"priority\":{back}}}")).count());
            assert_eq!(set_back, [2, 1, 1], "{}", here.body);
            for told in [&there, &here] {
                assert_eq!(told.header("otproxy-datacenters"), None);
                assert_eq!(told.header("cache-control"), Some("private, max-age=60"));
            }
            let head = ask(&player, edge.addr("web"), "HEAD").await;
            assert_eq!(head.header("content-length"), Some(there.body.len().to_string().as_str()));
            first.insert(here.body);
        }
        // Three edges have six orders.
        assert!((4..=6).contains(&first.len()), "{first:?}");
        core.stop().await;
        edge.trunks("waw1", 0).await;
        let kept = ask("127.0.7.1", edge.addr("web"), "GET").await;
        assert!(first.contains(&kept.body), "{}", kept.body);
        edge.stop().await;
    });
}
