//! Metrics, scraped as an operator would.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{eventually, http};

/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(10);

/// A role that shows its metrics, in this process or another.
pub trait Metered {
    /// Returns the address of its metrics and its admin API.
    fn admin(&self) -> SocketAddr;

    /// Returns the sum of all series of `name` that have all `labels`, each as `key="value"`.
    async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric(self.admin(), name, labels).await
    }

    /// Scrapes until that sum is `value`.
    async fn wait(&self, name: &str, labels: &[&str], value: f64) {
        self.wait_until(name, labels, |now| now == value).await;
    }

    /// Scrapes until that sum satisfies `condition`, and returns it.
    async fn wait_until(&self, name: &str, labels: &[&str], condition: impl Fn(f64) -> bool) -> f64 {
        wait_until(self.admin(), name, labels, condition).await
    }

    /// Returns all series now, by their names: `name{label=value,..}` with the labels in order of theirs.
    async fn all_series(&self) -> HashMap<String, f64> {
        scrape(self.admin()).await.lines().filter(|line| !line.starts_with('#')).map(series).collect()
    }

    /// Returns one series now.
    async fn series(&self, name: &str) -> f64 {
        *self.all_series().await.get(name).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Scrapes until a series satisfies `condition`, and returns it.
    async fn wait_series(&self, name: &str, condition: impl Fn(f64) -> bool) -> f64 {
        eventually(name, async || Some(self.series(name).await).filter(|value| condition(*value))).await
    }

    /// Scrapes until a series is `expected`.
    async fn wait_for(&self, name: &str, expected: u64) {
        self.wait_series(name, |value| value == expected as f64).await;
    }
}

/// Returns the text of all metrics.
pub async fn scrape(admin: SocketAddr) -> String {
    scrape_over(TcpStream::connect(admin).await.unwrap()).await
}

/// Returns the same, over a connection that stands already.
pub async fn scrape_over(stream: TcpStream) -> String {
    let (status, text) = http::get_over(stream, "/metrics").await.unwrap();
    assert_eq!(status, 200);
    text
}

/// Returns the sum of all series of `name` that have all `labels`, each as `key="value"`.
pub async fn metric(admin: SocketAddr, name: &str, labels: &[&str]) -> f64 {
    sum(&scrape(admin).await, name, labels)
}

/// Scrapes until that sum satisfies `condition`, and returns it.
pub async fn wait_until(admin: SocketAddr, name: &str, labels: &[&str], condition: impl Fn(f64) -> bool) -> f64 {
    loop {
        let value = metric(admin, name, labels).await;
        if condition(value) {
            return value;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Returns the same sum, in the text of a scrape.
pub fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let series = text.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(series, _)| {
        let (family, rest) = series.split_once('{').unwrap_or((series, ""));
        family == name && labels.iter().all(|label| rest.contains(label))
    });
    series.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

fn series(line: &str) -> (String, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let Some((name, labels)) = series.split_once('{') else { return (series.to_owned(), value) };
    let mut labels: Vec<_> = labels.trim_end_matches('}').split(',').map(|label| label.replace('"', "")).collect();
    labels.sort();
    (format!("{name}{{{}}}", labels.join(",")), value)
}
