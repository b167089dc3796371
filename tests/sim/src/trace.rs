//! What happened, as one number: two runs that did the same show the same.

use std::sync::{Arc, Mutex, PoisonError};

/// FNV-1a over everything that is told; clones share it.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    hash: u64,
    /// Every event as a line, kept only when a run is to be looked at.
    lines: Option<Vec<String>>,
}

impl Trace {
    pub fn new(keep: bool) -> Self {
        let lines = keep.then(Vec::new);
        Self(Arc::new(Mutex::new(Inner { hash: 0xcbf2_9ce4_8422_2325, lines })))
    }

    fn mix(inner: &mut Inner, bytes: &[u8]) {
        for byte in bytes {
            inner.hash = (inner.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Bytes that arrived.
    pub fn segment(&self, now: u64, from: usize, to: usize, bytes: &[u8]) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Self::mix(&mut inner, &now.to_le_bytes());
        Self::mix(&mut inner, &[from.to_le_bytes()[0], to.to_le_bytes()[0]]);
        Self::mix(&mut inner, bytes);
        let (hash, length) = (inner.hash, bytes.len());
        if let Some(lines) = &mut inner.lines {
            lines.push(format!("{:10.4} {from} -> {to} {length} bytes {hash:016x}", seconds(now)));
        }
    }

    /// Anything else, in words.
    pub fn event(&self, now: u64, text: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Self::mix(&mut inner, &now.to_le_bytes());
        Self::mix(&mut inner, text.as_bytes());
        if let Some(lines) = &mut inner.lines {
            lines.push(format!("{:10.4} {text}", seconds(now)));
        }
    }

    pub fn hash(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hash
    }

    pub fn lines(&self) -> Vec<String> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.lines.clone().unwrap_or_default()
    }
}

/// Nanoseconds as seconds, for people.
pub fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}
