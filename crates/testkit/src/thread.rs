//! Threads with a runtime each.

use std::io;
use std::thread::{Builder, JoinHandle};

use tokio::runtime::{self, LocalOptions};

/// Starts a thread that runs `main` on its own runtime.
///
/// # Errors
/// Fails if the system gives no thread. No runtime is an error of the thread.
pub(crate) fn spawn<F>(
    name: String,
    main: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>>
where
    F: Future<Output = io::Result<()>>,
{
    Builder::new().name(name).spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(main())
    })
}
