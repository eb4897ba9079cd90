//! Alerts, as a process sends them to a webhook on loopback, and `otproxy alert test`.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use otproxy::alerts::{AlertFailure, post};
use otproxy_config::WebhookConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::folder::Folder;
use crate::common::http::get;
use crate::common::metrics::Metered;
use crate::common::process::{failed, otproxy, text};
use crate::common::role_process::RoleProcess;
use crate::common::run;
use crate::common::sandbox::refusing;
use crate::common::webhook::Webhook;

/// A part of the URL that nobody may see but the other side.
const SECRET: &str = "a-secret-of-the-webhook";

/// Writes the file of a URL, and returns its path.
fn url_file(folder: &Path, url: &str) -> String {
    let file = folder.join("webhook.url");
    fs::write(&file, format!("{url}\n")).unwrap();
    file.to_str().unwrap().to_owned()
}

/// The edge of a target that nobody listens at, which it notices at once.
fn listeners(target: std::net::SocketAddr) -> String {
    format!(
        "listeners: [{{ name: login, listen: '127.0.0.1:0', forward_to: {{ address: '{target}', name: c_1 }}, check: tcp, \
         inter: 100ms, fall: 1, rise: 1 }}]\n"
    )
}

#[test]
fn an_owner_is_told_and_the_url_stays_a_secret() {
    run(async {
        let (folder, (_refuses, nobody)) = (Folder::new(), refusing());
        let chat = Webhook::new(&["500 Oops\r\nContent-Length: 0\r\n\r\n"]);
        let file = url_file(&folder, &format!("http://{}/api/{SECRET}", chat.addr));
        let alerts = format!("alerts: {{ webhook: {{ url_file: {file} }}, format: discord }}\n");
        let edge = RoleProcess::edge(&format!("{alerts}{}", listeners(nobody)));
        let (first, second) = (chat.next(), chat.next());
        assert!(first.head.starts_with(&format!("POST /api/{SECRET} HTTP/1.1\r\n")), "{}", first.head);
        assert_eq!(first.body, second.body, "what failed is told once more");
        let told = second.body["content"].as_str().unwrap();
        assert!(told.starts_with("**edge ") && told.ends_with(" target c\\_1 of login is down"), "{told}");
        assert_eq!(second.body["allowed_mentions"], json!({ "parse": [] }));
        edge.wait("otproxy_alerts_sent_total", &[], 1.0).await;
        edge.wait("otproxy_alerts_failed_total", &["reason=\"server\""], 1.0).await;
        edge.wait_for_line("alerts arrive again").await;
        assert!(chat.is_quiet());

        // Another URL is read for the next message, without a reload too.
        let other = Webhook::new(&[]);
        url_file(&folder, &format!("http://{}/{SECRET}", other.addr));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        edge.reload(&nobody.to_string(), &listener.local_addr().unwrap().to_string());
        let told = other.next().body["content"].as_str().unwrap().to_owned();
        assert!(told.contains("c\\_1 of login is up"), "{told}");

        for path in ["/metrics", "/api/v1/events", "/api/v1/status", "/"] {
            let (_, said) = get(edge.admin(), path).await.unwrap();
            assert!(!said.contains(SECRET), "{path}");
        }
        assert!(!edge.log().contains(SECRET) && edge.log().contains("status 500"), "{}", edge.log());
        edge.stop().await;
    });
}

#[test]
fn a_test_says_what_the_other_side_answers() {
    let folder = Folder::new();
    let body = format!("{{\"message\": \"no /{SECRET} here\"}}");
    let refused = format!("404 Not Found\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chat = Webhook::new(&["200 OK\r\nContent-Length: 2\r\n\r\nok", &refused]);
    let file = url_file(&folder, &format!("http://{}/{SECRET}", chat.addr));
    let yaml = folder.join("edge.yaml");
    let write = |alerts: &str| {
        fs::write(
            &yaml,
            format!(
                "role: edge\nname: waw1\nlisteners: [{{ name: a, listen: '127.0.0.1:0', forward_to: 'a:1' }}]\n{alerts}"
            ),
        )
        .unwrap();
    };
    let test = || {
        let mut command = otproxy(&["alert", "test", "-c", yaml.to_str().unwrap()]);
        command.stdout(Stdio::piped()).output().unwrap()
    };
    write("");
    assert!(failed(&test(), 1).contains("it has no `alerts`; write `alerts: "));
    write(&format!("alerts: {{ webhook: {{ url_file: {file} }}, format: slack }}\n"));
    let output = test();
    assert_eq!(
        (text(&output.stdout).as_str(), output.status.code()),
        ("the test message was taken: status 200: ok\n", Some(0))
    );
    assert!(chat.next().body["text"].as_str().unwrap().starts_with("edge waw1\n"));
    let said = failed(&test(), 1);
    assert!(said.contains("the test message was not taken: status 404: {\"message\": \"no … here\"}"), "{said}");
    url_file(&folder, &format!("http://198.51.100.7/{SECRET}"));
    let said = failed(&test(), 1);
    assert!(said.contains("webhook.url: it begins with `http://`") && !said.contains(SECRET), "{said}");
    fs::remove_file(&file).unwrap();
    assert!(failed(&test(), 1).contains("webhook.url: No such file"));
}

#[test]
fn tls_takes_a_certificate_of_an_authority_that_is_believed() {
    run(async {
        let folder = Folder::new();
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = Vec::new();
                while !request.ends_with(b"{}") {
                    stream.read_buf(&mut request).await.unwrap();
                }
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
        let (url_file, ca) = (url_file(&folder, &format!("https://{addr}/{SECRET}")), folder.join("ca.pem"));
        fs::write(&ca, cert.pem()).unwrap();
        let webhook = WebhookConfig { url_file: url_file.into(), ca: Some(ca.clone()) };
        assert_eq!(post(webhook.clone(), "{}".to_owned()).await.unwrap().status, 204);
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(&ca, other.cert.pem()).unwrap();
        let error = post(webhook.clone(), "{}".to_owned()).await.unwrap_err();
        assert_eq!(error.reason(), AlertFailure::Tls, "{error}");
        fs::remove_file(&ca).unwrap();
        let error = post(webhook, "{}".to_owned()).await.unwrap_err();
        assert!(error.reason() == AlertFailure::File && error.to_string().contains("ca.pem"), "{error}");
    });
}
