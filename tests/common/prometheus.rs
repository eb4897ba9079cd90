//! The real Prometheus, as Debian packages it, and its tool.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tokio::net::TcpStream;

use super::folder::Folder;
use super::tunnel::free_address;
use super::{eventually, http};

/// Returns whether a program of it is there. If not, a test has nothing to do and says so; in CI, which sets `CI=true`, it
/// fails.
pub fn is_here(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{program} is missing: apt-get install prometheus");
    eprintln!("skipped: the program {program} is missing (apt-get install prometheus)");
    false
}

/// Runs `promtool`, which must find nothing wrong.
#[track_caller]
pub fn promtool(arguments: &[&str], file: &Path) {
    let Output { status, stdout, stderr } =
        Command::new("promtool").args(arguments).arg(file).output().expect("promtool starts");
    let said = [stdout, stderr].concat();
    assert!(status.success(), "promtool {arguments:?} {}: {}", file.display(), String::from_utf8_lossy(&said));
}

/// A Prometheus that runs. Dropping it ends it.
pub struct Prometheus {
    child: Child,
    folder: Folder,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one with this configuration.
    pub async fn start(config: &str) -> Self {
        let (folder, address) = (Folder::new(), free_address());
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config).expect("writable");
        let log = std::fs::File::create(folder.join("log")).expect("writable");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .current_dir(&*folder)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        let mut prometheus = Self { child, folder, address };
        eventually("prometheus is ready", async || {
            if let Some(status) = prometheus.child.try_wait().expect("its child") {
                let log = std::fs::read_to_string(prometheus.folder.join("log")).unwrap_or_default();
                panic!("prometheus: {status}\n{log}");
            }
            prometheus.get("/-/ready").await.filter(|(status, _)| *status == 200)
        })
        .await;
        prometheus
    }

    /// Returns the data of an answer of its API; its error where it has one.
    pub async fn api(&self, path: &str) -> Result<Value, String> {
        let (_, text) = self.get(path).await.expect("an answer");
        let mut answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// Returns the series that an expression gives now.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut data = self.api(&format!("/api/v1/query?query={escaped}")).await?;
        match data["result"].take() {
            Value::Array(series) => Ok(series),
            other => Err(format!("no series: {other}")),
        }
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        // Of this version, so that the answer comes in one piece.
        http::ask(stream, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")).await.ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
