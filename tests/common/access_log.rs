//! The access log of one test.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::eventually;
use super::folder::Folder;

/// A log in a folder of its own.
pub struct LogFile(Folder);

impl LogFile {
    pub fn new() -> Self {
        Self(Folder::new())
    }

    pub fn path(&self) -> PathBuf {
        self.0.join("access.log")
    }

    /// Returns the YAML for it.
    pub fn yaml(&self, format: &str) -> String {
        format!("access_log: {{ format: {format}, file: {} }}", self.path().display())
    }

    /// Returns the lines, once there are so many.
    pub async fn lines(&self, count: usize) -> Vec<String> {
        let lines = eventually("the lines are there", async || {
            let text = fs::read_to_string(self.path()).unwrap_or_default();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            (lines.len() >= count && text.ends_with('\n')).then_some(lines)
        })
        .await;
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }

    pub async fn json(&self, count: usize) -> Vec<Value> {
        let lines = self.lines(count).await;
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}
