//! One number for a whole state.

use std::io;

use cluster_model::State;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// SHA-256 of the encoded state, in hexadecimal. Managers that applied the same log have the same;
/// a state that is written and read again keeps it.
pub fn state_hash(state: &State) -> Result<String, Error> {
    let hashed = postcard::to_io(state, Hashing(Sha256::new())).map_err(Error::Encode)?;
    Ok(hex::encode(hashed.0.finalize()))
}

struct Hashing(Sha256);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
