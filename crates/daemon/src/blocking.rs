//! Work that blocks: files, compression, long computations.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

/// Runs `work` where it delays no other task. On a runtime of one thread it runs at once: there it
/// delays the others wherever it runs, and what happens next depends on nothing but the program,
/// which simulations need.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Ok(work()),
        _ => tokio::task::spawn_blocking(work).await,
    }
}

/// Where long work is done that may wait while everything else has its turn. By default beside
/// everything else, as [`blocking`] does.
#[derive(Clone, Debug, Default)]
pub struct Background(Option<Handle>);

impl Background {
    /// On the threads of this runtime, which are expected to step back for all others.
    pub fn on(runtime: Handle) -> Self {
        Self(Some(runtime))
    }

    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match &self.0 {
            Some(runtime) => runtime.spawn_blocking(work).await,
            None => blocking(work).await,
        }
    }
}
