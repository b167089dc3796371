//! When a manager last heard this node, for tasks that end when nobody has for too long.
//!
//! *Guarantees*: what counts is the moment at which something was *sent* that a manager in touch
//! with the leader has answered, so this node is never later than the managers in taking itself for
//! cut off. Moments are of a clock that goes on while the machine sleeps (`CLOCK_BOOTTIME`).
//!
//! *On failure*: a restarted worker goes on from the moment on disk, which is at most a second
//! older than the truth; one that finds none counts from its own start, and one that cannot read it
//! takes itself for cut off until a manager answers. A worker that does not run
//! at all ends nothing: its containers go on without it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::durable;

/// How old the moment on disk may be.
const KEEP_PERIOD_MS: u64 = 1000;
/// Heartbeats on their way whose moments are remembered.
const PENDING_MAX: usize = 64;

/// Milliseconds since this machine booted, its sleep included.
fn now_ms() -> u64 {
    let whole = |value: i64| u64::try_from(value).unwrap_or(0);
    // Every kernel that runs containers has this clock.
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| whole(now.tv_sec()) * 1000 + whole(now.tv_nsec()) / 1_000_000)
}

/// Which boot `now_ms` counts from.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

pub struct Contact {
    /// Moment at which the newest thing that was heard was sent.
    heard_ms: AtomicU64,
    /// By this process.
    was_heard: AtomicBool,
    /// Something was heard.
    pub news: Notify,
    kept_ms: AtomicU64,
    /// A write is under way: one that hangs shall not be followed by others.
    keeping: AtomicBool,
    /// Writes that failed in a row.
    failures: AtomicU32,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    boot_id: String,
    heard_ms: u64,
}

impl Contact {
    /// Goes on from what an earlier process wrote. Blocking.
    pub fn load(path: PathBuf) -> Self {
        let started_ms = now_ms();
        let heard_ms = kept(&path).map_or(started_ms, |kept| kept.min(started_ms));
        Self {
            heard_ms: AtomicU64::new(heard_ms),
            was_heard: AtomicBool::new(false),
            news: Notify::new(),
            kept_ms: AtomicU64::new(0),
            keeping: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            path,
        }
    }

    /// A manager answered what was sent at this moment.
    pub fn heard(&self, sent: Moment) {
        self.heard_ms.fetch_max(sent.0, Ordering::AcqRel);
        self.was_heard.store(true, Ordering::Release);
        self.news.notify_waiters();
    }

    /// Since this process started: what counts from its start alone is nobody's word.
    pub fn was_heard(&self) -> bool {
        self.was_heard.load(Ordering::Acquire)
    }

    /// For how long nothing has been heard.
    pub fn silence_ms(&self) -> u64 {
        now_ms().saturating_sub(self.heard_ms.load(Ordering::Acquire))
    }

    /// Writes the moment down if what is on disk is old, without a sync: after a power cut nothing
    /// runs that it could matter for. Does nothing while another call writes. Blocking.
    pub fn keep(&self) {
        if self.keeping.swap(true, Ordering::AcqRel) {
            return;
        }
        self.write();
        self.keeping.store(false, Ordering::Release);
    }

    fn write(&self) {
        let heard_ms = self.heard_ms.load(Ordering::Acquire);
        let bytes = serde_json::to_vec(&Kept { boot_id: boot_id(), heard_ms }).unwrap_or_default();
        match durable::replace_unsynced(&self.path, &bytes) {
            Ok(()) => {
                self.kept_ms.store(heard_ms, Ordering::Release);
                self.failures.store(0, Ordering::Release);
            }
            Err(error) => {
                let failures = self.failures.fetch_add(1, Ordering::AcqRel).saturating_add(1);
                // Not once a second for as long as the disk is full.
                if failures.is_power_of_two() {
                    tracing::warn!(
                        failures,
                        error = &error as &dyn std::error::Error,
                        "the last contact with a manager could not be written down"
                    );
                }
            }
        }
    }

    /// The moment on disk is old, and nobody is writing it down.
    pub fn is_unkept(&self) -> bool {
        if self.keeping.load(Ordering::Acquire) {
            return false;
        }
        let heard_ms = self.heard_ms.load(Ordering::Acquire);
        heard_ms.saturating_sub(self.kept_ms.load(Ordering::Acquire)) >= KEEP_PERIOD_MS
    }
}

/// What an earlier process of this boot wrote. What cannot be read counts as never heard: to end a
/// task too early is better than to run it twice.
fn kept(path: &Path) -> Option<u64> {
    let unreadable = |error: &(dyn std::error::Error + 'static)| {
        tracing::warn!(file = %path.display(), error, "last contact with a manager is unreadable");
        Some(0)
    };
    let bytes = match durable::read(path) {
        Ok(bytes) => bytes?,
        Err(error) => return unreadable(&error),
    };
    match serde_json::from_slice::<Kept>(&bytes) {
        // Of another boot nothing runs any more.
        Ok(kept) => (kept.boot_id == boot_id()).then_some(kept.heard_ms),
        Err(error) => unreadable(&error),
    }
}

/// When something was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    pub fn now() -> Self {
        Self(now_ms())
    }
}

/// The heartbeats of one session that were not answered yet.
#[derive(Debug, Default)]
pub struct Beats {
    last: u64,
    sent: VecDeque<(u64, Moment)>,
}

impl Beats {
    /// Counts one that is sent now; gives its number.
    pub fn next(&mut self, now: Moment) -> u64 {
        self.last += 1;
        if self.sent.len() == PENDING_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((self.last, now));
        self.last
    }

    /// A manager heard those up to `sequence`; gives when the newest of them was sent.
    pub fn answered(&mut self, sequence: u64) -> Option<Moment> {
        let mut newest = None;
        while let Some((_, sent)) = self.sent.front().filter(|(number, _)| *number <= sequence) {
            newest = Some(*sent);
            self.sent.pop_front();
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_when_the_newest_answered_heartbeat_was_sent() {
        let mut beats = Beats::default();
        for ms in [10, 20, 30] {
            beats.next(Moment(ms));
        }
        assert_eq!(beats.answered(0), None);
        assert_eq!(beats.answered(2), Some(Moment(20)));
        assert_eq!(beats.answered(2), None, "it is no news");
        assert_eq!(beats.answered(9), Some(Moment(30)), "but it never was sent");
        for ms in 0..1000 {
            beats.next(Moment(ms));
        }
        assert!(beats.sent.len() <= PENDING_MAX);
    }

    #[test]
    fn a_restarted_worker_goes_on_from_the_moment_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("contact");
        let contact = Contact::load(path.clone());
        assert!(contact.silence_ms() < 1000, "from the start of the process on");
        let long_ago = Moment(now_ms().saturating_sub(50_000));
        contact.heard_ms.store(long_ago.0, Ordering::Release);
        contact.keep();
        let silence_ms = Contact::load(path.clone()).silence_ms();
        let expected = now_ms().min(50_000);
        assert!((expected..expected + 5000).contains(&silence_ms), "{silence_ms}");
        contact.heard(Moment::now());
        assert!(contact.is_unkept());
        contact.keeping.store(true, Ordering::Release);
        assert!(!contact.is_unkept(), "one write at a time");
        contact.keeping.store(false, Ordering::Release);
        assert!(contact.silence_ms() < 1000);
        contact.heard(long_ago);
        assert!(contact.silence_ms() < 1000, "older news change nothing");
        // Of another boot it says nothing.
        let other = Kept { boot_id: "other".into(), heard_ms: 0 };
        std::fs::write(&path, serde_json::to_vec(&other).unwrap()).unwrap();
        assert!(Contact::load(path.clone()).silence_ms() < 1000);
        std::fs::write(&path, "{").unwrap();
        let silence_ms = Contact::load(path).silence_ms();
        assert!(silence_ms + 1000 > now_ms(), "unreadable: as if never heard");
    }
}
