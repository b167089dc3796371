//! Framing of the log: how one record looks in a segment, and how a segment is read back after
//! a crash.
//!
//! A record is `length | durable | body checksum | header checksum | body | 0xA5`. `durable` is
//! how much of the segment was known to be on disk when the record was written. It is what lets
//! recovery tell a torn tail from damage: bytes below the `durable` of any later record were
//! once synced, so if they do not check now, the disk changed them.
//!
//! A segment is zero-filled before it is used, so what a power loss leaves of an unfinished write
//! is a mix of new sectors and zeros. Bad bytes that cannot have come about that way are damage.
//!
//! In an encrypted segment the body is sealed, bound to segment, offset and `durable`. Checksums are
//! those of the sealed bytes: framing, and telling torn from damaged, need no key.

use bytes::{BufMut, Bytes};

use crate::raft::cipher::{FileCipher, OVERHEAD};

/// Bytes of a record before its body.
pub(crate) const HEADER: usize = 16;
/// Ends every record; never zero, so that the loss of the last byte shows.
const TRAILER: u8 = 0xA5;
/// Smallest unit a disk writes.
const SECTOR: usize = 512;

/// A log position: the term of the leader that made the entry, and its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// Whom this manager voted for last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ballot {
    pub(crate) term: u64,
    pub(crate) node: u64,
    /// A quorum granted it.
    pub(crate) committed: bool,
}

/// What an entry of the replicated log carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// Nothing: a new leader's first entry.
    Blank,
    /// An encoded command.
    Command,
    /// An encoded membership.
    Members,
}

/// An entry of the replicated log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) at: Position,
    pub(crate) kind: EntryKind,
    pub(crate) payload: Bytes,
}

/// One record of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Entry(LogEntry),
    Vote(Ballot),
    /// Entries from this index on are void.
    Truncate(u64),
    Committed(Position),
    /// Entries up to here are covered by a snapshot and may go.
    Purge(Position),
    /// The segment is complete; the log goes on in the next one.
    Seal,
}

/// Space that an entry of `payload` bytes takes at most, encrypted or not.
pub(crate) fn entry_size(payload: usize) -> usize {
    HEADER + 18 + payload + OVERHEAD + 1
}

/// Space that a seal takes at most; kept free in every segment.
pub(crate) const SEAL_SIZE: usize = HEADER + 2 + OVERHEAD;

/// Where a record stands: sealed bytes are bound to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    /// The segment's number, which also salts the header's checksum, so that bytes of one segment
    /// never pass for those of another.
    pub(crate) segment: u64,
    /// Offset in the segment.
    pub(crate) offset: u64,
}

impl Spot {
    fn bound(self, durable: u32) -> [u8; 20] {
        let mut bound = [0; 20];
        bound[..8].copy_from_slice(&self.segment.to_le_bytes());
        bound[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bound[16..].copy_from_slice(&durable.to_le_bytes());
        bound
    }
}

impl Record {
    /// Appends the framed record, sealed if there is a key.
    pub(crate) fn encode(
        &self,
        durable: u32,
        spot: Spot,
        cipher: Option<&FileCipher>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        match cipher {
            Some(cipher) => cipher.seal(&spot.bound(durable), out, |out| self.put_body(out)),
            None => self.put_body(out),
        }
        let body = &out[start + HEADER..];
        // A body is bounded by the proposal limit, far below 4 GiB.
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let body_sum = crc32fast::hash(body);
        let header = &mut out[start..start + HEADER];
        header[0..4].copy_from_slice(&len.to_le_bytes());
        header[4..8].copy_from_slice(&durable.to_le_bytes());
        header[8..12].copy_from_slice(&body_sum.to_le_bytes());
        let sum = header_sum(&header[..12], spot.segment);
        header[12..16].copy_from_slice(&sum.to_le_bytes());
        out.put_u8(TRAILER);
    }

    fn put_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Entry(entry) => {
                out.put_u8(1);
                put_position(out, entry.at);
                out.put_u8(match entry.kind {
                    EntryKind::Blank => 0,
                    EntryKind::Command => 1,
                    EntryKind::Members => 2,
                });
                out.extend_from_slice(&entry.payload);
            }
            Self::Vote(vote) => {
                out.put_u8(2);
                out.put_u64_le(vote.term);
                out.put_u64_le(vote.node);
                out.put_u8(u8::from(vote.committed));
            }
            Self::Truncate(index) => {
                out.put_u8(3);
                out.put_u64_le(*index);
            }
            Self::Committed(at) => {
                out.put_u8(4);
                put_position(out, *at);
            }
            Self::Purge(at) => {
                out.put_u8(5);
                put_position(out, *at);
            }
            Self::Seal => out.put_u8(6),
        }
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (&kind, rest) = body.split_first()?;
        Some(match kind {
            1 => {
                let at = position(rest)?;
                let kind = match rest.get(16)? {
                    0 => EntryKind::Blank,
                    1 => EntryKind::Command,
                    2 => EntryKind::Members,
                    _ => return None,
                };
                let payload = Bytes::copy_from_slice(rest.get(17..)?);
                Self::Entry(LogEntry { at, kind, payload })
            }
            2 => Self::Vote(Ballot {
                term: u64_at(rest, 0)?,
                node: u64_at(rest, 8)?,
                committed: *rest.get(16)? != 0,
            }),
            3 => Self::Truncate(u64_at(rest, 0)?),
            4 => Self::Committed(position(rest)?),
            5 => Self::Purge(position(rest)?),
            6 => Self::Seal,
            _ => return None,
        })
    }
}

fn put_position(out: &mut Vec<u8>, at: Position) {
    out.put_u64_le(at.term);
    out.put_u64_le(at.index);
}

fn position(bytes: &[u8]) -> Option<Position> {
    Some(Position { term: u64_at(bytes, 0)?, index: u64_at(bytes, 8)? })
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn header_sum(header: &[u8], salt: u64) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(header);
    sum.update(&salt.to_le_bytes());
    sum.finalize()
}

/// A checked header.
struct Header {
    len: usize,
    durable: usize,
    body_sum: u32,
}

fn header(bytes: &[u8], at: usize, salt: u64) -> Option<Header> {
    let raw = bytes.get(at..at + HEADER)?;
    let len = u32_at(raw, 0)?;
    // An empty body does not exist, which also rules out a header of zeros.
    if len == 0 || header_sum(&raw[..12], salt) != u32_at(raw, 12)? {
        return None;
    }
    Some(Header {
        len: usize::try_from(len).ok()?,
        durable: usize::try_from(u32_at(raw, 4)?).ok()?,
        body_sum: u32_at(raw, 8)?,
    })
}

/// A record whose checksums are right: its body, its `durable`, and where the next one starts.
fn frame(bytes: &[u8], at: usize, salt: u64) -> Result<(&[u8], u32, usize), &'static str> {
    let head = header(bytes, at, salt).ok_or("the record's header does not check")?;
    let start = at + HEADER;
    let body =
        bytes.get(start..start + head.len).ok_or("the record reaches past the end of its file")?;
    if bytes.get(start + head.len) != Some(&TRAILER) || crc32fast::hash(body) != head.body_sum {
        return Err("the record's checksum does not match");
    }
    let durable = u32::try_from(head.durable).unwrap_or(u32::MAX);
    Ok((body, durable, start + head.len + 1))
}

/// The record in a body.
fn open(
    body: &[u8],
    durable: u32,
    spot: Spot,
    cipher: Option<&FileCipher>,
) -> Result<Record, &'static str> {
    let decoded = match cipher {
        Some(cipher) => {
            let opened = cipher.unseal(&spot.bound(durable), body);
            Record::decode(&opened.ok_or("the record is not what was encrypted here")?)
        }
        None => Record::decode(body),
    };
    decoded.ok_or("the record's kind is unknown to this version")
}

/// Reads the record that `bytes` start with and that stands at `spot`.
pub(crate) fn read(
    bytes: &[u8],
    spot: Spot,
    cipher: Option<&FileCipher>,
) -> Result<(Record, usize), &'static str> {
    let (body, durable, next) = frame(bytes, 0, spot.segment)?;
    Ok((open(body, durable, spot, cipher)?, next))
}

/// How the readable part of a segment ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At `Seal`.
    Sealed,
    /// Nothing but zeros follow.
    Clean { end: usize },
    /// An unfinished write follows, up to `dirty`; it was never acknowledged.
    Torn { end: usize, dirty: usize },
    /// What follows was once durable, or cannot have come from an unfinished write.
    Damaged { at: usize, what: &'static str },
}

/// Reads all records of a segment from offset `from` on.
pub(crate) fn scan(
    bytes: &[u8],
    from: usize,
    salt: u64,
    cipher: Option<&FileCipher>,
    mut each: impl FnMut(usize, Record),
) -> Stop {
    let mut at = from;
    loop {
        let (body, durable, next) = match frame(bytes, at, salt) {
            Ok(framed) => framed,
            Err(what) => return judge(bytes, at, salt, what),
        };
        let spot = Spot { segment: salt, offset: at as u64 };
        match open(body, durable, spot, cipher) {
            Ok(Record::Seal) => return Stop::Sealed,
            Ok(record) => {
                each(at, record);
                at = next;
            }
            // The checksums are right, so this was written to its end.
            Err(what) => return Stop::Damaged { at, what },
        }
    }
}

/// Tells an unfinished write from damage, for a record at `at` that does not read.
fn judge(bytes: &[u8], at: usize, salt: u64, what: &'static str) -> Stop {
    let damaged = Stop::Damaged { at, what };
    let tail = &bytes[at..];
    let Some(last) = tail.iter().rposition(|byte| *byte != 0) else {
        return Stop::Clean { end: at };
    };
    let dirty = at + last + 1;
    if durable_after(bytes, at, dirty, salt) {
        return damaged;
    }
    let torn = Stop::Torn { end: at, dirty };
    let span = match header(bytes, at, salt) {
        Some(head) => match at.checked_add(HEADER + head.len + 1) {
            Some(end) if end <= bytes.len() => at..end,
            _ => return damaged,
        },
        // Cut within the header itself: nothing follows it.
        None if dirty <= at + HEADER => return torn,
        None => at..at + HEADER.min(bytes.len() - at),
    };
    // The trailer is never zero: a record that ends in one was not written to its end.
    let unfinished = span.len() > HEADER && bytes[span.end - 1] == 0;
    if unfinished || lost_sector(bytes, span) { torn } else { damaged }
}

/// Whether a sector that `span` touches is all zeros from `span` on, as a sector that never
/// reached the disk leaves it: nothing after the start of `span` was durable, so all that the
/// sector would hold is lost with it.
fn lost_sector(bytes: &[u8], span: std::ops::Range<usize>) -> bool {
    let mut start = span.start;
    while start < span.end {
        let end = ((start / SECTOR + 1) * SECTOR).min(bytes.len());
        if bytes[start..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        start = end;
    }
    false
}

/// Whether a later record says that the bytes at `at` were on disk before it was written.
fn durable_after(bytes: &[u8], at: usize, dirty: usize, salt: u64) -> bool {
    (at + 1..dirty).any(|start| {
        header(bytes, start, salt).is_some_and(|head| head.durable > at)
            && frame(bytes, start, salt).is_ok()
    })
}
