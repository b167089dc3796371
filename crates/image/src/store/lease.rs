//! Leases: content that somebody is fetching or about to use.
//!
//! A digest is leased *before* its presence is looked up, and the sweep checks
//! leases under the same lock in which it takes a file away. So either the
//! lease is seen by the sweep, or the file is already gone when its holder
//! looks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::digest::Digest;

#[derive(Debug, Clone, Default)]
pub(crate) struct Leases(Arc<Mutex<HashMap<Digest, usize>>>);

impl Leases {
    pub(crate) fn lease(&self) -> Lease {
        Lease { leases: self.clone(), held: Mutex::new(Vec::new()) }
    }

    /// Runs `remove` unless the digest is leased; no lease can start meanwhile.
    pub(crate) fn unless_held<T>(&self, digest: &Digest, remove: impl FnOnce() -> T) -> Option<T> {
        let held = self.lock();
        (!held.contains_key(digest)).then(remove)
    }

    pub(crate) fn held(&self, digest: &Digest) -> bool {
        self.lock().contains_key(digest)
    }

    // A panic while the lock is held cannot leave the counts half-changed.
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropping it gives everything back.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Leases,
    held: Mutex<Vec<Digest>>,
}

impl Lease {
    pub(crate) fn add(&self, digest: &Digest) {
        *self.leases.lock().entry(digest.clone()).or_default() += 1;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(digest.clone());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut counts = self.leases.lock();
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        for digest in held.drain(..) {
            if let Some(count) = counts.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_until_the_last_lease_goes() {
        let leases = Leases::default();
        let digest = Digest::of(b"x");
        let (a, b) = (leases.lease(), leases.lease());
        a.add(&digest);
        b.add(&digest);
        drop(a);
        assert!(leases.unless_held(&digest, || ()).is_none());
        drop(b);
        assert!(leases.unless_held(&digest, || ()).is_some());
    }
}
