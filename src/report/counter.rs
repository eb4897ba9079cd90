//! The way to count the players of this process, whoever knows them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::players::PlayerCount;

type Counting = Pin<Box<dyn Future<Output = PlayerCount> + Send>>;

/// Counts the players of this process, as often as it is asked.
#[derive(Clone)]
pub struct PlayerCounter(Arc<dyn Fn() -> Counting + Send + Sync>);

impl fmt::Debug for PlayerCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlayerCounter").finish_non_exhaustive()
    }
}

impl PlayerCounter {
    /// Makes one that counts in this way.
    pub fn new<F: Future<Output = PlayerCount> + Send + 'static>(
        count: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move || Box::pin(count())))
    }

    /// Returns how many there are now.
    pub async fn count(&self) -> PlayerCount {
        (self.0)().await
    }
}
