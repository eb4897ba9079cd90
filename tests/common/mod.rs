//! What several test crates stand on. Each takes it in as a module, and none uses all of it.
#![allow(dead_code, reason = "no test uses all of it")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

pub mod admin;
pub mod certificates;
pub mod flood;
pub mod game;
pub mod link;
pub mod metrics;
pub mod process;
pub mod role_process;

/// Only against a test that hangs.
pub const HANG: Duration = Duration::from_secs(120);

/// Runs a test on a runtime of its own.
pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bounded = async { tokio::time::timeout(HANG, test).await.expect("the test hangs") };
    let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(bounded)));
    // A core that a failed test left running would keep the runtime for ever.
    runtime.shutdown_background();
    result.unwrap_or_else(|panic| resume_unwind(panic))
}
