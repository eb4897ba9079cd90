//! The report over HTTP: who gets it, and nothing beside it.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use otproxy::report::{MAX_FILE, md5_hex};
use tokio::io::AsyncWriteExt;

use crate::common::eventually;
use crate::common::folder::Folder;
use crate::common::sandbox::*;
use crate::web::{Answer, PATIENT, answer, requests};

const TOKEN: &str = "a-token-of-the-operator";

/// A folder for a report, with a token beside.
fn folder() -> Folder {
    let folder = Folder::new();
    write_token(&folder, TOKEN);
    fs::write(folder.join("secret"), "secret").unwrap();
    folder
}

fn write_token(folder: &Path, token: &str) {
    fs::write(folder.join("new"), token).unwrap();
    fs::set_permissions(folder.join("new"), Permissions::from_mode(0o600)).unwrap();
    fs::rename(folder.join("new"), folder.join("token")).unwrap();
}

/// An edge whose requests lead to `core`, and that has a report for `whom`.
fn edge(folder: &Path, core: SocketAddr, whom: &str, more: &str) -> Role {
    let dir = folder.display();
    Role::start(&format!(
        "role: edge\nreport: {{ dir: {dir}/report, every: 1h, listeners: [web] }}\nlisteners: [{{ name: web, kind: web, \
         listen: \"127.0.0.1:0\", forward_to: \"{core}\", send_proxy: none, report: {{ {whom} }}, {PATIENT}{more} }}]\n"
    ))
}

/// Asks for a path from an address, with more lines in the head.
async fn ask_from(from: &str, web: SocketAddr, request: &str, lines: &str) -> Answer {
    let mut stream = connect_from(from, web).await;
    let request = format!("{request} HTTP/1.1\r\nHost: p1.example\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(&mut stream).await
}

/// Waits for a report, and asks for its players.
async fn written(folder: &Path, from: &str, web: SocketAddr, lines: &str) -> Answer {
    let last = folder.join("report/players.csv");
    eventually("a report", async || last.exists().then_some(())).await;
    ask_from(from, web, "GET /report/players.csv", lines).await
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn an_edge_has_its_report_for_those_that_may_read_it_and_never_leads_them_on() {
    run(async {
        let folder = folder();
        let (core, at) = target().await;
        let edge = edge(&folder, at, "allow: 127.0.0.2", "");
        let web = edge.addr("web");
        let players = written(&folder, "127.0.0.2", web, "").await;
        assert!(players.status == 200 && players.body.starts_with("time,online,unique,counted\n"), "{}", players.body);
        let report = ask_from("127.0.0.2", web, "GET /report/report.txt?again", "").await;
        assert_eq!(report.status, 200);
        assert!(report.body.contains("(LISTEN)") && report.body.starts_with("COMMAND "), "{}", report.body);
        assert_eq!(report.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(report.header("cache-control"), Some("no-store"));
        assert!(report.header("last-modified").is_some_and(|at| at.ends_with(" GMT")), "{}", report.head);
        assert_eq!(report.header("access-control-allow-origin"), None, "no web page reads it");
        let md5 = ask_from("127.0.0.2", web, "GET /report/report.txt.md5", "").await;
        assert_eq!(md5.body, format!("{}  report.txt\n", md5_hex(report.body.as_bytes())));
        let head = ask_from("127.0.0.2", web, "HEAD /report/report.txt", "").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(head.header("content-length"), Some(report.body.len().to_string().as_str()));
        let posted = ask_from("127.0.0.2", web, "POST /report/report.txt", "Content-Length: 0\r\n").await;
        assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));

        // Nothing else is there, and to others not even this.
        for path in [
            "/report/",
            "/report/token",
            "/report/../token",
            "/report/../secret",
            "/report/report.txt/",
            "/report//report.txt",
            "/report/./report.txt",
            "/report/.report.txt.new",
            "/report/%2e%2e/secret",
            "/report/..%2fsecret",
            "/report/report.txt%00",
        ] {
            assert_eq!(ask_from("127.0.0.2", web, &format!("GET {path}"), "").await.status, 404, "{path}");
        }
        let nothing = ask_from("127.0.0.2", web, "GET /report/x", "").await;
        for request in
            ["GET /report/report.txt", "HEAD /report/players.csv", "POST /report/report.txt", "GET /report/x"]
        {
            // A header is no address, unless a proxy for web sites is known.
            let lines = "X-Forwarded-For: 127.0.0.2\r\nX-Real-IP: 127.0.0.2\r\nCF-Connecting-IP: 127.0.0.2\r\n";
            let other = ask_from("127.0.0.3", web, request, lines).await;
            assert_eq!(other.status, 404, "{request}");
            if request.starts_with("GET") {
                assert_eq!(other.body, nothing.body);
            }
        }
        assert_eq!(requests(&edge, "report", "refused").await, 4.0);
        assert_eq!(requests(&edge, "report", "not_found").await, 13.0);

        // Nobody has asked the core; all else leads there.
        let mut other = connect_from("127.0.0.3", web).await;
        other.write_all(b"GET /reports HTTP/1.1\r\nHost: p1.example\r\n\r\n").await.unwrap();
        let mut asked = accept(&core).await;
        assert_eq!(read(&mut asked, 12).await, b"GET /reports");
        asked.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        assert_eq!(answer(&mut other).await.status, 204);
        // Without the key these paths do, too.
        edge.replace("report: { allow: 127.0.0.2 }, ", "").await;
        let mut other = connect_from("127.0.0.2", web).await;
        other.write_all(b"GET /report/report.txt HTTP/1.1\r\nHost: p1.example\r\n\r\n").await.unwrap();
        let mut asked = accept(&core).await;
        assert_eq!(read(&mut asked, 22).await, b"GET /report/report.txt");
        asked.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        assert_eq!(answer(&mut other).await.status, 204);
        edge.stop().await;
    });
}

#[test]
fn a_token_is_asked_for_and_its_file_is_read_again() {
    run(async {
        let folder = folder();
        let (_held, core) = refusing();
        let edge = edge(&folder, core, &format!("allow: 127.0.0.2, token_file: {}/token", folder.display()), "");
        let web = edge.addr("web");
        assert_eq!(written(&folder, "127.0.0.2", web, &bearer(TOKEN)).await.status, 200);
        for lines in [
            "",
            "Authorization: Basic YTpi\r\n",
            &bearer("another-token-of-somebody"),
            &bearer(""),
            &bearer(&TOKEN[1..]),
        ] {
            let refused = ask_from("127.0.0.2", web, "GET /report/report.txt", lines).await;
            assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")), "{lines}");
        }
        // The address has to be right as well.
        let other = ask_from("127.0.0.3", web, "GET /report/report.txt", &bearer(TOKEN)).await;
        assert_eq!(other.status, 404);
        write_token(&folder, "the-next-token-of-the-operator");
        assert_eq!(ask_from("127.0.0.2", web, "GET /report/report.txt", &bearer(TOKEN)).await.status, 401);
        let next = bearer("the-next-token-of-the-operator");
        assert_eq!(ask_from("127.0.0.2", web, "GET /report/report.txt", &next).await.status, 200);
        // A file that everybody may read is none.
        fs::set_permissions(folder.join("token"), Permissions::from_mode(0o644)).unwrap();
        assert_eq!(ask_from("127.0.0.2", web, "GET /report/report.txt", &next).await.status, 401);
        edge.stop().await;
    });
}

#[test]
fn it_is_for_the_player_that_a_proxy_for_web_sites_tells() {
    run(async {
        let folder = folder();
        let (_held, core) = refusing();
        let more = ", real_ip: { header: X-Real-IP, from: 127.0.0.9 }";
        let edge = edge(&folder, core, "allow: 203.0.113.7", more);
        let web = edge.addr("web");
        assert_eq!(written(&folder, "127.0.0.9", web, "X-Real-IP: 203.0.113.7\r\n").await.status, 200);
        for (from, told) in [("127.0.0.9", "203.0.113.8"), ("127.0.0.8", "203.0.113.7")] {
            let refused = ask_from(from, web, "GET /report/players.csv", &format!("X-Real-IP: {told}\r\n")).await;
            assert_eq!(refused.status, 404, "{from} {told}");
        }
        edge.stop().await;
    });
}

#[test]
fn readers_that_are_slow_take_few_places_and_a_file_that_is_too_long_none() {
    run(async {
        let folder = folder();
        let (_held, core) = refusing();
        let edge = edge(&folder, core, "allow: 127.0.0.2", "");
        let web = edge.addr("web");
        assert_eq!(written(&folder, "127.0.0.2", web, "").await.status, 200);
        let path = folder.join("report/report.txt");
        // More than sockets hold, so it is there until it is read.
        fs::File::create(&path).unwrap().set_len(MAX_FILE as u64).unwrap();
        let mut slow = Vec::new();
        for _ in 0..otproxy::web::MAX_REPORTS {
            let mut reader = connect_from("127.0.0.2", web).await;
            reader.write_all(b"GET /report/report.txt HTTP/1.1\r\nHost: p1.example\r\n\r\n").await.unwrap();
            assert_eq!(read(&mut reader, 12).await, b"HTTP/1.1 200");
            slow.push(reader);
        }
        edge.replace("connect: 1h", "connect: 50ms").await;
        let busy = ask_from("127.0.0.2", web, "GET /report/players.csv", "").await;
        assert!(busy.status == 503 && busy.body.contains("too many read the report"), "{}", busy.body);
        // One that goes makes room.
        slow.pop();
        edge.replace("connect: 1h", "connect: 2h").await;
        assert_eq!(ask_from("127.0.0.2", web, "GET /report/players.csv", "").await.status, 200);
        drop(slow);
        fs::File::create(&path).unwrap().set_len(MAX_FILE as u64 + 1).unwrap();
        let long = ask_from("127.0.0.2", web, "GET /report/report.txt", "").await;
        assert!(long.status == 503 && long.body.contains("more than 16777216 bytes"), "{}", long.body);
        fs::remove_file(folder.join("report/players.csv")).unwrap();
        let none = ask_from("127.0.0.2", web, "GET /report/players.csv", "").await;
        assert!(none.status == 503 && none.body.contains("no report has been written"), "{}", none.body);
        // In place of a file of its own it has nobody's else.
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.join("secret"), &path).unwrap();
        let linked = ask_from("127.0.0.2", web, "GET /report/report.txt", "").await;
        assert!(linked.status == 503 && !linked.body.contains("\"secret\""), "{}", linked.body);
        edge.stop().await;
    });
}

#[test]
fn a_core_has_its_own_report_beside_what_it_answers() {
    run(async {
        let folder = folder();
        let core = Role::core(&format!(
            "report: {{ dir: {dir}/report, every: 1h, listeners: [web] }}\nedges: [{{ name: waw1, address: 198.51.100.1 }}]\n\
             listeners: [{{ name: web, kind: web, listen: \"127.0.0.1:0\", accept_proxy: none, report: {{ token_file: {dir}/token }}, {PATIENT} }}]",
            dir = folder.display()
        ));
        let web = core.addr("web");
        assert_eq!(written(&folder, "127.0.0.5", web, &bearer(TOKEN)).await.status, 200);
        let report = ask_from("127.0.0.5", web, "GET /report/report.txt", &bearer(TOKEN)).await;
        assert!(report.body.contains("BACKEND_IP:") && !report.body.contains("127.0.0.1"), "{}", report.body);
        assert_eq!(ask_from("127.0.0.5", web, "GET /proxies/a", "").await.status, 404);
        core.stop().await;
    });
}
