//! A cluster's whole state as one file that people keep: what `cluster snapshot save` and the
//! managers' schedule write, `cluster snapshot inspect` shows, and `cluster-manager recover` starts
//! from.
//!
//! A file is a magic, a checked header in JSON (so that it may grow), and a zstd stream of the
//! encoded state, cut into blocks that carry their own checksums, closed by an empty one. The
//! header holds the state's hash, so a file that reads at all is the state it says it is.
//! It needs no key and nothing else to be read: whoever has it has the cluster's secrets.
//!
//! Never here: the managers' own log and snapshots (`cluster_manager::raft`), networks, clocks.

mod blocks;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hash;
#[cfg(test)]
mod tests;

use std::io::{self, BufReader, BufWriter, Read, Write};

use cluster_model::State;
use serde::{Deserialize, Serialize};

use blocks::{BlockReader, BlockWriter};
pub use hash::state_hash;

const MAGIC: &[u8; 8] = b"CLUSTSNP";
/// Format that this program writes, and the newest it reads.
const FORMAT: u32 = 1;
/// Magic, format, length of the header, checksum.
const FIXED: usize = 8 + 4 + 4 + 4;
/// Bound of the header: a few managers with their addresses.
const HEADER_LIMIT: usize = 1 << 20;
/// Leads the encoded state.
const STATE_VERSION: u8 = 1;
/// Largest single field of a state.
const SCRATCH: usize = 16 << 20;
/// Fast; the state is mostly small numbers and repeats.
const LEVEL: i32 = 3;
/// Fields go to and come from the compressor together, so many bytes at a time: most are of one byte.
const FIELDS: usize = 64 << 10;

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub cluster_id: String,
    pub cluster_name: String,
    /// When it was written, milliseconds since 1970.
    pub created_at_ms: u64,
    /// Log index of the last entry in it, and that entry's term.
    pub index: u64,
    pub term: u64,
    /// Version of the program that wrote it.
    pub program: String,
    /// SHA-256 of the state, see [`state_hash`].
    pub state_hash: String,
    /// The managers then.
    pub managers: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: String,
    pub name: String,
    pub address: String,
}

impl Header {
    /// Describes a state at a log position. The hash is computed here.
    pub fn of(
        state: &State,
        (term, index): (u64, u64),
        created_at_ms: u64,
        program: &str,
    ) -> Result<Self, Error> {
        let cluster = state.cluster().ok_or(Error::NoCluster)?;
        let member = |(id, manager): (&cluster_model::NodeId, &cluster_model::Manager)| Member {
            id: id.to_string(),
            name: manager.name.clone(),
            address: manager.address.clone(),
        };
        Ok(Self {
            cluster_id: cluster.id.to_string(),
            cluster_name: cluster.name.clone(),
            created_at_ms,
            index,
            term,
            program: program.to_owned(),
            state_hash: state_hash(state)?,
            managers: cluster.managers.iter().map(member).collect(),
        })
    }
}

/// Why a file cannot be read, or a state not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("this is no snapshot of a cluster: it begins with something else")]
    NotASnapshot,
    #[error(
        "the snapshot is from a newer version (format {found}, this program knows up to {known}); \
         use the newer program"
    )]
    Newer { found: u32, known: u32 },
    #[error("the snapshot is damaged at offset {offset}: {what}; take another copy")]
    Damaged { offset: u64, what: &'static str },
    #[error("the snapshot was cut short at offset {offset}; take another copy")]
    CutShort { offset: u64 },
    #[error("the snapshot's state hashes to {found}, its header says {stated}; take another copy")]
    OtherState { found: String, stated: String },
    #[error("the state cannot be encoded")]
    Encode(#[source] postcard::Error),
    #[error("the snapshot's state cannot be understood by this program")]
    Decode(#[source] postcard::Error),
    #[error("there is no cluster in the state yet")]
    NoCluster,
}

/// Writes a file. `out` is written to in pieces of some 256 KiB.
pub fn write(header: &Header, state: &State, mut out: impl Write) -> Result<(), Error> {
    let io = |source| Error::Io { doing: "write the snapshot", source };
    let text = serde_json::to_vec(header).map_err(|error| io(io::Error::other(error)))?;
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut fixed = Vec::with_capacity(FIXED + text.len());
    fixed.extend_from_slice(MAGIC);
    fixed.extend_from_slice(&FORMAT.to_le_bytes());
    fixed.extend_from_slice(&len.to_le_bytes());
    let mut sum = crc32fast::Hasher::new();
    sum.update(&fixed[8..]);
    sum.update(&text);
    fixed.extend_from_slice(&sum.finalize().to_le_bytes());
    fixed.extend_from_slice(&text);
    out.write_all(&fixed).map_err(io)?;
    let mut blocks = BlockWriter::new(out);
    let packer = zstd::Encoder::new(&mut blocks, LEVEL).map_err(io)?;
    let mut fields = BufWriter::with_capacity(FIELDS, packer);
    fields.write_all(&[STATE_VERSION]).map_err(io)?;
    postcard::to_io(state, &mut fields).map_err(Error::Encode)?;
    let packer = fields.into_inner().map_err(|error| io(error.into_error()))?;
    packer.finish().map_err(io)?;
    blocks.finish().map_err(io)
}

/// Reads and checks the header only.
pub fn read_header(mut input: impl Read) -> Result<Header, Error> {
    header(&mut input).map(|(header, _)| header)
}

/// Reads and checks a whole file: every block, the end, and the hash.
pub fn read(mut input: impl Read) -> Result<(Header, State), Error> {
    let (header, at) = header(&mut input)?;
    let mut blocks = BlockReader::new(input, at);
    let state = decode(&mut blocks);
    // A bad block stops the decoder with a vaguer error than its own.
    if let Some(error) = blocks.take_error() {
        return Err(error);
    }
    let state = state?;
    blocks.expect_end()?;
    let found = state_hash(&state)?;
    if found != header.state_hash {
        return Err(Error::OtherState { found, stated: header.state_hash });
    }
    Ok((header, state))
}

fn header(input: &mut impl Read) -> Result<(Header, u64), Error> {
    let mut fixed = [0; FIXED];
    let got = blocks::fill(input, &mut fixed).map_err(blocks::reading)?;
    if got < 8 || &fixed[..8] != MAGIC {
        return Err(Error::NotASnapshot);
    }
    if got < FIXED {
        return Err(Error::CutShort { offset: got as u64 });
    }
    let number =
        |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let (format, len, stated) = (number(8), number(12) as usize, number(16));
    let damaged = |what| Error::Damaged { offset: 8, what };
    if len > HEADER_LIMIT {
        return Err(damaged("the header's length is impossible"));
    }
    let mut text = vec![0; len];
    let got = blocks::fill(input, &mut text).map_err(blocks::reading)?;
    if got < len {
        return Err(Error::CutShort { offset: (FIXED + got) as u64 });
    }
    let mut sum = crc32fast::Hasher::new();
    sum.update(&fixed[8..16]);
    sum.update(&text);
    if sum.finalize() != stated {
        return Err(damaged("the header's checksum does not match"));
    }
    if format > FORMAT {
        return Err(Error::Newer { found: format, known: FORMAT });
    }
    let header =
        serde_json::from_slice(&text).map_err(|_| damaged("the header has other fields"))?;
    Ok((header, (FIXED + len) as u64))
}

fn decode(blocks: &mut impl Read) -> Result<State, Error> {
    let unpacked = zstd::Decoder::new(blocks).map_err(blocks::reading)?;
    let mut unpacked = BufReader::with_capacity(FIELDS, unpacked);
    let mut version = [0];
    unpacked.read_exact(&mut version).map_err(blocks::reading)?;
    if version[0] != STATE_VERSION {
        return Err(Error::Newer { found: version[0].into(), known: STATE_VERSION.into() });
    }
    // Holds one string or byte field at a time; fields are bounded far below this.
    let mut scratch = vec![0; SCRATCH];
    let (state, (mut rest, _)) =
        postcard::from_io((unpacked, &mut scratch)).map_err(Error::Decode)?;
    // The stream's own end is read too, so that all blocks are looked at.
    let more = blocks::fill(&mut rest, &mut [0]).map_err(blocks::reading)?;
    if more > 0 {
        return Err(Error::Damaged { offset: 0, what: "data follows the end of the state" });
    }
    Ok(state)
}
