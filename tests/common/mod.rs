//! What several test binaries stand on. Each takes it in as a module, and none uses all of it.
#![allow(dead_code, unused_imports, reason = "no test uses all of it")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

pub mod access_log;
pub mod admin;
pub mod anybody;
pub mod certificates;
pub mod crew;
pub mod flood;
pub mod folder;
pub mod game;
pub mod http;
pub mod link;
pub mod mariadb;
pub mod metrics;
pub mod process;
pub mod prometheus;
pub mod role;
pub mod role_process;
pub mod sandbox;
pub mod service_manager;
pub mod tunnel;
pub mod webhook;

/// Only against a test that hangs.
pub const HANG: Duration = Duration::from_secs(120);
/// The longest time until a condition becomes true, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on a runtime of its own.
pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bounded = async { tokio::time::timeout(HANG, test).await.expect("the test hangs") };
    let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(bounded)));
    // A look-up that a failed test left behind would keep the runtime for ever.
    runtime.shutdown_background();
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Looks at `condition` until it gives something.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(metrics::LOOK).await;
    }
}
