//! For the fuzz target of this crate, under the feature `fuzzing` alone: checksums keep a fuzzer out,
//! not an attacker, so they are made to hold.

use super::{FIXED, MAGIC};
use crate::blocks::{HEAD, checksum};

/// Gives a file the magic and the checksums that its bytes should have.
pub fn mend(bytes: &mut [u8]) {
    if bytes.len() < FIXED {
        return;
    }
    bytes[..8].copy_from_slice(MAGIC);
    let number = |bytes: &[u8], at: usize| {
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
    };
    let end = FIXED.saturating_add(number(bytes, 12)).min(bytes.len());
    let mut sum = crc32fast::Hasher::new();
    sum.update(&bytes[8..16]);
    sum.update(&bytes[FIXED..end]);
    bytes[16..FIXED].copy_from_slice(&sum.finalize().to_le_bytes());
    let mut at = end;
    for block in 0.. {
        let body = at + HEAD;
        if body > bytes.len() {
            return;
        }
        let end = body.saturating_add(number(bytes, at)).min(bytes.len());
        let sum = checksum(block, &bytes[body..end]);
        bytes[at + 4..body].copy_from_slice(&sum.to_le_bytes());
        if end == body {
            return;
        }
        at = end;
    }
}
