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
