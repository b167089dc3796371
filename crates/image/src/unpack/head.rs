//! What an archive says about one entry, read from its headers.
//!
//! Extended (PAX) records are parsed here and not by the tar crate, which takes
//! a newline inside a value (binary file capabilities may hold one) for the
//! record's end and then forgets them all.

use std::io::Read;

use tar::{Entry, EntryType, Header};

use crate::error::{Error, Result};

const BLOCK: usize = 512;
const XATTR: &[u8] = b"SCHILY.xattr.";
const PATH_BYTES_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 255;

/// Seconds and nanoseconds since the epoch.
pub(crate) type Time = (i64, i64);

/// The parts of a path: no `.`, no `..`, nothing empty.
pub(crate) type Parts = Vec<Vec<u8>>;

pub(crate) struct Head {
    pub(crate) kind: EntryType,
    /// Empty for the root.
    pub(crate) path: Parts,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For messages.
    pub(crate) name: String,
}

impl Head {
    /// `captured` are the stream's bytes since `from`, up to and including the
    /// entry's own header.
    pub(crate) fn read<R: Read>(entry: &Entry<'_, R>, captured: &[u8], from: u64) -> Result<Self> {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let records = pax_records(captured, from, entry.raw_header_position())
            .map_err(|reason| Error::malformed(&name, reason))?;
        let text = |key: &str| {
            let found = records.iter().rev().find(|(k, _)| k == key.as_bytes());
            found.map(|(_, v)| v.clone())
        };
        let number = |key: &str| text(key).and_then(|v| String::from_utf8(v).ok()?.parse().ok());
        let raw_path = text("path").unwrap_or_else(|| entry.path_bytes().into_owned());
        let name = String::from_utf8_lossy(&raw_path).into_owned();
        let path = split(&raw_path, &name)?;
        let link = text("linkpath").or_else(|| entry.link_name_bytes().map(|l| l.into_owned()));
        let header = entry.header();
        let bad =
            |what| move |_| Error::malformed(name.clone(), format!("its {what} is no number"));
        let uid = number("uid").map_or_else(|| header.uid(), Ok);
        let gid = number("gid").map_or_else(|| header.gid(), Ok);
        let mode = header.mode().map_err(bad.clone()("mode"))?;
        let uid = uid.map_err(bad.clone()("owner"))?;
        let gid = gid.map_err(bad.clone()("group"))?;
        let mtime = match text("mtime").as_deref().and_then(seconds) {
            Some(mtime) => mtime,
            None => (header.mtime().map_err(bad("time"))?.min(1 << 40) as i64, 0),
        };
        let name = String::from_utf8_lossy(&raw_path).into_owned();
        let id = |n: u64, what: &str| {
            u32::try_from(n)
                .map_err(|_| Error::malformed(&name, format!("its {what} is too large")))
        };
        Ok(Self {
            kind: header.entry_type(),
            path,
            link,
            mode: mode & 0o7777,
            uid: id(uid, "owner")?,
            gid: id(gid, "group")?,
            mtime,
            xattrs: xattrs(&records),
            name,
        })
    }
}

/// Splits a path as an unpacker inside the root would walk it; `..` is refused.
pub(crate) fn split(path: &[u8], name: &str) -> Result<Parts> {
    if path.len() > PATH_BYTES_MAX || path.contains(&0) {
        let reason = "its path is longer than 4096 bytes or holds a zero byte";
        return Err(Error::malformed(name.chars().take(200).collect::<String>(), reason));
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                return Err(Error::UnsafePath {
                    entry: name.to_owned(),
                    reason: "`..` could lead out of the image",
                });
            }
            part if part.len() > NAME_BYTES_MAX => {
                return Err(Error::malformed(name, "a part of its path exceeds 255 bytes"));
            }
            part => parts.push(part.to_vec()),
        }
    }
    Ok(parts)
}

/// Only what containers need; `trusted.*` would speak to overlayfs itself.
fn xattrs(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let wanted = |name: &[u8]| {
        name == b"security.capability"
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
    };
    records
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?, value)))
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (name.to_vec(), value.clone()))
        .collect()
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// The records of the extended headers between `from` and the entry's header.
fn pax_records(captured: &[u8], from: u64, header_at: u64) -> Result<Records, &'static str> {
    let cut = "its extended header is cut off";
    let end = usize::try_from(header_at.saturating_sub(from)).map_err(|_| cut)?;
    let mut at = (BLOCK - (from % BLOCK as u64) as usize) % BLOCK;
    let mut records = Vec::new();
    while at < end {
        let block = captured.get(at..at + BLOCK).ok_or(cut)?;
        at += BLOCK;
        if block.iter().all(|b| *b == 0) {
            continue;
        }
        let header = Header::from_byte_slice(block);
        let size = header.entry_size().map_err(|_| cut)?;
        let size = usize::try_from(size).map_err(|_| cut)?;
        let data_end = at.checked_add(size).ok_or(cut)?;
        if header.entry_type().is_pax_local_extensions() {
            parse_records(captured.get(at..data_end).ok_or(cut)?, &mut records)?;
        }
        at = data_end.next_multiple_of(BLOCK);
    }
    Ok(records)
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
fn parse_records(mut data: &[u8], records: &mut Records) -> Result<(), &'static str> {
    const BAD: &str = "its extended header is malformed";
    while !data.is_empty() && data[0] != 0 {
        let space = data.iter().take(20).position(|b| *b == b' ').ok_or(BAD)?;
        let length = std::str::from_utf8(&data[..space]).map_err(|_| BAD)?;
        let length: usize = length.parse().map_err(|_| BAD)?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(BAD);
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or(BAD)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        data = &data[length..];
    }
    Ok(())
}

/// `1700000000.25` or `-1`.
fn seconds(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    // Before the epoch the fraction would count backwards; nobody looks.
    let nanos = if whole < 0 { 0 } else { digits.parse().ok()? };
    Some((whole, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_in_a_value_is_part_of_it() {
        let mut records = Vec::new();
        parse_records(b"14 key=a\nb=\n\0\n9 x=abcd\n", &mut records).unwrap();
        assert_eq!(records[0], (b"key".to_vec(), b"a\nb=\n\0".to_vec()));
        assert_eq!(records[1], (b"x".to_vec(), b"abcd".to_vec()));
    }

    #[test]
    fn broken_records_are_errors() {
        for bad in [&b"x"[..], b"99 a=b\n", b"6 ab c\n", b"7 a=b\nx", b"2 \n"] {
            assert!(parse_records(bad, &mut Vec::new()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_are_split_without_ways_out() {
        assert_eq!(split(b"./a//b/.", "").unwrap(), vec![b"a".to_vec(), b"b".to_vec()]);
        assert!(split(b"/", "").unwrap().is_empty());
        for bad in ["../x", "a/../../x", "a/.."] {
            assert!(matches!(split(bad.as_bytes(), bad), Err(Error::UnsafePath { .. })));
        }
        assert!(split(&[b'a'; 300], "").is_err());
    }

    #[test]
    fn times_have_fractions() {
        assert_eq!(seconds(b"5.25"), Some((5, 250_000_000)));
        assert_eq!(seconds(b"-3"), Some((-3, 0)));
        assert_eq!(seconds(b"x"), None);
    }
}
