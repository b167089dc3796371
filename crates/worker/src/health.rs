//! What makes the node unhealthy instead of letting it look fine: calls of the runtime that take too
//! long, and assignments that cannot be written down.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A call of the runtime that takes longer is trouble.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Health {
    calls: Mutex<Calls>,
    /// Why what the managers want cannot be taken in.
    failure: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    running: BTreeMap<u64, (Instant, String)>,
}

impl Health {
    /// Runs a call that should be short.
    pub async fn watch<T>(&self, what: impl Into<String>, call: impl Future<Output = T>) -> T {
        let _watched = self.begin(what.into());
        call.await
    }

    fn begin(&self, what: String) -> Watched<'_> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let id = calls.next;
        calls.next += 1;
        calls.running.insert(id, (Instant::now(), what));
        Watched { health: self, id }
    }

    /// What the managers want cannot be taken in. Answers whether that is news.
    pub fn fails(&self, reason: &str) -> bool {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.replace(reason.to_owned()).as_deref() != Some(reason)
    }

    /// It can be taken in. Answers whether that is news.
    pub fn works(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// What is wrong, for people.
    pub fn trouble(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure.or_else(|| self.hanging())
    }

    fn hanging(&self) -> Option<String> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        // Ids grow with time, so the first is the oldest.
        let (since, what) = calls.running.values().next()?;
        let age = since.elapsed();
        (age > PATIENCE).then(|| {
            format!("the container runtime does not answer: {what} takes {} s", age.as_secs())
        })
    }
}

struct Watched<'a> {
    health: &'a Health,
    id: u64,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut calls = self.health.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.running.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hanging_call_is_told_and_a_finished_one_forgotten() {
        let health = Health::default();
        let hangs = health.watch("create of x", tokio::time::sleep(Duration::from_secs(30)));
        tokio::pin!(hangs);
        let short = tokio::time::timeout(Duration::from_secs(9), hangs.as_mut()).await;
        assert!(short.is_err() && health.trouble().is_none());
        let long = tokio::time::timeout(Duration::from_secs(3), hangs.as_mut()).await;
        assert!(long.is_err());
        assert!(health.trouble().unwrap().contains("create of x takes 12 s"));
        hangs.await;
        assert_eq!(health.trouble(), None);
    }

    #[test]
    fn a_failure_is_news_once_and_is_told_until_it_is_over() {
        let health = Health::default();
        assert!(!health.works());
        assert!(health.fails("disk full") && !health.fails("disk full"));
        assert_eq!(health.trouble().as_deref(), Some("disk full"));
        assert!(health.fails("read-only"));
        assert!(health.works() && !health.works());
        assert_eq!(health.trouble(), None);
    }
}
