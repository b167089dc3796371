//! How values of ours become bytes that outlive a release: a leading format version, then
//! postcard.
//!
//! Used for commands in the log, for snapshots and for the envelopes between managers. The version
//! of a command is the set it belongs to, see `cluster_model::command`.

use std::io;

use bytes::Bytes;
use cluster_model::Command;
use cluster_model::command::OLDEST_COMMANDS;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Format that this program writes, and the newest it reads.
pub(crate) const VERSION: u8 = 1;

/// Largest single field of a value that is read from a stream.
const SCRATCH: usize = 16 << 20;

/// Bytes that cannot be turned into a value, or a value that cannot be turned into bytes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Nothing there.
    #[error("the payload is empty")]
    Empty,
    /// A newer release wrote it.
    #[error("the payload is from a newer version (format {0})")]
    Newer(u8),
    /// The bytes do not fit the type.
    #[error("the payload is malformed")]
    Malformed(#[source] postcard::Error),
    /// The value does not serialize.
    #[error("the payload cannot be encoded")]
    Unencodable(#[source] postcard::Error),
}

/// Version byte and value.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, CodecError> {
    let bytes = postcard::to_extend(value, vec![VERSION]).map_err(CodecError::Unencodable)?;
    Ok(bytes.into())
}

/// The value behind a version byte.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty),
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(CodecError::Malformed),
        Some((&version, _)) => Err(CodecError::Newer(version)),
    }
}

/// A command, its set first.
pub(crate) fn encode_command(command: &Command) -> Result<Bytes, CodecError> {
    let bytes = postcard::to_extend(command, vec![command.set()]);
    Ok(bytes.map_err(CodecError::Unencodable)?.into())
}

/// Reads a command of any set up to `known`. One that a newer release opened is `Newer`.
pub(crate) fn decode_command(bytes: &[u8], known: u8) -> Result<Command, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty),
        Some((set, body)) if (OLDEST_COMMANDS..=known).contains(set) => {
            postcard::from_bytes(body).map_err(CodecError::Malformed)
        }
        Some((&set, _)) => Err(CodecError::Newer(set)),
    }
}

/// The set of an encoded command.
pub(crate) fn set_of(bytes: &[u8]) -> u8 {
    bytes.first().copied().unwrap_or_default()
}

/// As `encode`, into a stream.
pub(crate) fn encode_to<T: Serialize + ?Sized>(
    value: &T,
    mut out: impl io::Write,
) -> io::Result<()> {
    out.write_all(&[VERSION])?;
    postcard::to_io(value, out).map_err(io::Error::other)?;
    Ok(())
}

/// As `decode`, from a stream.
pub(crate) fn decode_from<T: DeserializeOwned>(mut input: impl io::Read) -> io::Result<T> {
    let mut version = [0];
    input.read_exact(&mut version)?;
    if version[0] != VERSION {
        return Err(io::Error::other(CodecError::Newer(version[0])));
    }
    // Holds one string or byte field at a time; fields are bounded far below this.
    let mut scratch = vec![0; SCRATCH];
    let (value, _) = postcard::from_io((input, &mut scratch)).map_err(io::Error::other)?;
    Ok(value)
}
