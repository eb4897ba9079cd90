//! Restarts with a service manager that keeps what a process leaves.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::common::folder::Folder;
use crate::common::process::{Running, otproxy};
use crate::common::service_manager::ServiceManager;

mod crash;
mod listeners;
mod sessions;
mod upgrade;

/// A role and its manager.
struct Service {
    manager: ServiceManager,
    folder: Folder,
    role: &'static str,
    running: Option<Running>,
}

impl Service {
    fn new(role: &'static str) -> Self {
        Self { manager: ServiceManager::new(), folder: Folder::new(), role, running: None }
    }

    /// Starts a core.
    fn core(yaml: &str) -> Self {
        let mut service = Self::new("core");
        service.write(yaml);
        service.go();
        service
    }

    fn write(&self, yaml: &str) {
        let text = format!("role: {}\nname: test\nadmin: {{ listen: off }}\n{yaml}", self.role);
        fs::write(self.folder.join("role.yaml"), text).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.join("role.yaml")
    }

    fn command(&self) -> Command {
        let file = self.file();
        self.manager.service(otproxy(&[self.role, "-c", file.to_str().unwrap(), "--log-format", "json"]))
    }

    fn go(&mut self) {
        let (running, _) = Running::start(self.command());
        self.running = Some(running);
    }

    /// Starts it; it logs this before it is ready.
    fn starts_with(&mut self, what: &str) {
        let mut running = Running::of(self.command().spawn().unwrap());
        running.line_with(what);
        self.running = Some(running);
    }

    /// Ends it as the manager does; returns its log.
    fn end(&mut self) -> String {
        let running = self.running.take().unwrap();
        running.signal(Signal::TERM);
        let (code, log) = running.end();
        assert_eq!(code, Some(0), "{log}");
        log
    }

    fn restart(&mut self) -> String {
        let log = self.end();
        assert_eq!(self.manager.kept(), ["otproxy"], "{log}");
        self.go();
        self.manager.forgets();
        log
    }
}

impl Drop for Service {
    /// Shows the log of a role whose test fails.
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take().filter(|_| std::thread::panicking()) {
            running.kill();
            eprintln!("{}", running.end().1);
        }
    }
}
