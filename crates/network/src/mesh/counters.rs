//! What the mesh counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Running totals since the mesh started.
        #[derive(Debug, Default)]
        pub(super) struct Counters { $(pub(super) $name: AtomicU64),* }

        /// The totals at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct CountersSnapshot { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            pub(super) fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counters! {
    /// Client connections accepted on published ports.
    accepted,
    /// Client connections that reached a backend.
    connected,
    /// Attempts at a further backend after one failed.
    retries,
    /// Client connections closed because no backend answered.
    failed,
    /// Connections cut because the backend or its node went away.
    aborted,
    /// Times all connections to a worker that had vanished were cut.
    nodes_lost,
    /// Connections to other workers that were ready before they were needed.
    pool_hits,
    /// Connections to other workers made while a client waited.
    pool_misses,
    /// Requests of other workers carried to a container here.
    served,
    /// Requests of other workers refused.
    refused,
    /// Connections on the mesh port that were no worker's.
    rejected,
    /// Bytes from clients to backends.
    bytes_in,
    /// Bytes from backends to clients.
    bytes_out,
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
