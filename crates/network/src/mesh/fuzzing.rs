//! What fuzz targets call of the mesh: the first bytes that one worker sends another. The module
//! exists under the feature `fuzzing` alone.

use super::preamble::{LEN, PING, Preamble, Status};

/// Reads the first bytes of a connection. What reads is written to the same bytes.
pub fn preamble(bytes: &[u8; LEN]) {
    if let Some(read) = Preamble::decode(bytes) {
        assert_ne!(*bytes, PING);
        assert_eq!(read.encode().as_ref(), Some(bytes));
    }
    if let Some(status) = Status::decode(bytes[0]) {
        assert_eq!(status as u8, bytes[0]);
    }
}

/// Their number.
pub const PREAMBLE: usize = LEN;
