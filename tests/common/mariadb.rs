//! A real MariaDB, in a folder of the test's own.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use super::folder::Folder;

/// A database server. Dropping it ends it.
pub struct MariaDb {
    pub folder: Folder,
    server: Option<Child>,
}

fn run_to_end(program: &str, arguments: &[&str]) -> Option<Output> {
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new(program).args(arguments).env("PATH", path).output().ok()
}

impl MariaDb {
    /// Makes a database; `None` where the program is missing. In CI it must be there.
    pub fn new() -> Option<Self> {
        if run_to_end("mariadbd", &["--version"]).is_none() {
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "mariadbd is missing: apt-get install mariadb-server"
            );
            eprintln!("skipped: the program mariadbd is missing (apt-get install mariadb-server)");
            return None;
        }
        let folder = Folder::new();
        let (data, user) = (format!("--datadir={}", folder.join("data").display()), user());
        let made = run_to_end(
            "mariadb-install-db",
            &["--no-defaults", &data, &user, "--auth-root-authentication-method=normal", "--skip-test-db"],
        );
        let made = made.expect("mariadb-install-db is beside mariadbd");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut database = Self { folder, server: None };
        database.start();
        Some(database)
    }

    /// Returns its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("s.sock")
    }

    /// Starts the server, and waits until it answers.
    pub fn start(&mut self) {
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        let file = |name: &str| self.folder.join(name).display().to_string();
        let server = Command::new("mariadbd")
            .env("PATH", path)
            .args(["--no-defaults", "--skip-networking", "--innodb-flush-log-at-trx-commit=0", &user()])
            .args([format!("--datadir={}", file("data")), format!("--socket={}", file("s.sock"))])
            .args([format!("--pid-file={}", file("pid")), format!("--log-error={}", file("log"))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.server = Some(server.expect("mariadbd starts"));
        let deadline = std::time::Instant::now() + super::HANG;
        while !self.try_sql("mysql", "SELECT 1").is_some_and(|said| said.status.success()) {
            assert!(std::time::Instant::now() < deadline, "mariadbd does not answer");
            std::thread::sleep(super::metrics::LOOK);
        }
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Returns the client, which is to be told what to do.
    pub fn client(&self, database: &str) -> Command {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-u", "root", "-N", "-B", "-S"]).arg(self.socket()).arg(database);
        client
    }

    /// Runs a statement, which may fail.
    pub fn try_sql(&self, database: &str, statement: &str) -> Option<Output> {
        self.client(database).args(["-e", statement]).output().ok()
    }

    /// Runs statements; returns the rows, with a blank between two columns.
    pub fn sql(&self, statements: &str) -> Vec<String> {
        let said = self.try_sql("myot", statements).expect("mariadb is beside mariadbd");
        assert!(said.status.success(), "{statements}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap().lines().map(|line| line.replace('\t', " ")).collect()
    }

    /// Returns the rows of the table of proxies.
    pub fn rows(&self) -> Vec<String> {
        self.sql("SELECT id, host, port, priority, disabled FROM proxies ORDER BY id, BINARY host")
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the option by which the server runs as the user of the test, whoever that is.
fn user() -> String {
    let said = run_to_end("id", &["-un"]).expect("id is there");
    format!("--user={}", String::from_utf8_lossy(&said.stdout).trim())
}
