//! An archive's members as files of ours, in one pass, with every bound.
//!
//! No name from the archive ever becomes a path: members are numbered files,
//! and their names are keys of a map.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use crate::digest::{Digest, Hashing};
use crate::error::{Error, IoContext, Result};
use crate::limits::Limits;
use crate::manifest::Descriptor;
use crate::store::layout::read_bounded;
use crate::unpack::split_path;
use crate::unpack::stream::{Cancel, Meter, Unpacked};

const COPY_BYTES: usize = 128 << 10;
const LINKS_FOLLOWED_MAX: u32 = 8;

#[derive(Debug)]
pub(super) struct Staged {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

#[derive(Debug)]
enum Member {
    File(usize),
    /// Where a symbolic link of the archive points, as a member name.
    Link(String),
}

pub(super) struct Staging {
    limits: Limits,
    files: Vec<Staged>,
    members: HashMap<String, Member>,
    by_digest: HashMap<Digest, usize>,
}

impl Staging {
    pub(super) fn read<R: Read + 'static>(
        reader: R,
        dir: &Path,
        limits: Limits,
        cancel: &Cancel,
    ) -> Result<Self> {
        let meter = Meter::new("the archive", limits, limits.archive_bytes, Cancel::clone(cancel));
        let stream = Unpacked::new(reader, &meter).map_err(|e| meter.explain("(start)", e))?;
        let mut archive = Archive::new(stream);
        let mut staging =
            Self { limits, files: Vec::new(), members: HashMap::new(), by_digest: HashMap::new() };
        let mut count = 0;
        let mut before = String::from("(start)");
        let mut entries = archive.entries().map_err(|e| meter.explain("", e))?;
        loop {
            // Headers are only bounded here, extended records are of no use.
            meter.capture();
            let next = entries.next();
            meter.captured();
            let Some(entry) = next else { break };
            let mut entry = entry.map_err(|e| meter.explain(&format!("after `{before}`"), e))?;
            count += 1;
            if count > limits.archive_entries {
                return Err(Error::TooLarge {
                    what: "the archive".to_owned(),
                    limit: limits.archive_entries,
                    unit: "entries",
                });
            }
            before = staging.member(&mut entry, dir, &meter)?;
        }
        let mut stream = archive.into_inner();
        stream.drain().map_err(|e| meter.explain("(end)", e))?;
        Ok(staging)
    }

    fn member<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        dir: &Path,
        meter: &Meter,
    ) -> Result<String> {
        let raw = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&raw).into_owned();
        if raw.starts_with(b"/") {
            return Err(Error::UnsafePath {
                entry: shown,
                reason: "an absolute path could lead anywhere",
            });
        }
        let name = split_path(&raw, &shown)?;
        let name = String::from_utf8_lossy(&name.join(&b'/')).into_owned();
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                self.file(entry, &name, dir, meter)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = link_target(&name, &String::from_utf8_lossy(&target))?;
                self.members.insert(name.clone(), Member::Link(target));
            }
            EntryType::Directory | EntryType::XGlobalHeader => {}
            _ => {
                return Err(Error::malformed(
                    name,
                    "image archives hold files, directories and symbolic links only",
                ));
            }
        }
        Ok(name)
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        name: &str,
        dir: &Path,
        meter: &Meter,
    ) -> Result<()> {
        let path = dir.join(format!("member-{}", self.files.len()));
        let mut file = Hashing::new(File::create(&path).at("creating", &path)?);
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let n = entry.read(&mut buffer).map_err(|e| meter.explain(name, e))?;
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n]).at("writing", &path)?;
        }
        if file.total() != entry.size() {
            return Err(Error::malformed(name, "the archive ends inside this file"));
        }
        let digest = file.digest();
        check_name(name, &digest)?;
        match self.members.get(name) {
            // Some writers repeat a blob that two images share.
            Some(Member::File(i)) if self.files.get(*i).is_some_and(|f| f.digest == digest) => {
                return std::fs::remove_file(&path).at("removing", &path);
            }
            Some(_) => return Err(Error::malformed(name, "it is in the archive twice")),
            None => {}
        }
        let size = file.total();
        let index = self.files.len();
        self.by_digest.insert(digest.clone(), index);
        self.members.insert(name.to_owned(), Member::File(index));
        self.files.push(Staged { path, digest, size });
        Ok(())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The file under a member name, through links of the archive.
    pub(super) fn by_name(&self, name: &str) -> Result<&Staged> {
        let missing = || Error::malformed(name, "it is named in the archive but not in it");
        let mut at = name;
        for _ in 0..LINKS_FOLLOWED_MAX {
            match self.members.get(at).ok_or_else(missing)? {
                Member::File(index) => return self.files.get(*index).ok_or_else(missing),
                Member::Link(target) => at = target,
            }
        }
        Err(Error::malformed(name, "links in the archive form a loop"))
    }

    /// The file with a descriptor's content.
    pub(super) fn by_digest(&self, descriptor: &Descriptor) -> Result<&Staged> {
        let digest = &descriptor.digest;
        let staged = self.by_digest.get(digest).and_then(|i| self.files.get(*i));
        let staged = staged.ok_or_else(|| {
            Error::malformed(
                format!("blobs/sha256/{}", digest.hex()),
                "it is named in the archive but not in it",
            )
        })?;
        if staged.size != descriptor.size {
            let (said, is) = (descriptor.size, staged.size);
            let reason = format!("it should have {said} bytes and has {is}");
            return Err(Error::malformed(digest.to_string(), reason));
        }
        Ok(staged)
    }

    pub(super) fn read_small(&self, staged: &Staged) -> Result<Vec<u8>> {
        read_bounded(&staged.path, self.limits.document_bytes)
    }

    pub(super) fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.read_small(self.by_digest(descriptor)?)
    }
}

/// A blob of an OCI layout must be what its name says.
fn check_name(name: &str, actual: &Digest) -> Result<()> {
    let Some(hex) = name.strip_prefix("blobs/sha256/") else {
        return Ok(());
    };
    if hex == actual.hex() {
        return Ok(());
    }
    Err(Error::DigestMismatch {
        what: format!("`{name}` in the archive"),
        expected: format!("sha256:{hex}"),
        actual: actual.to_string(),
    })
}

/// `docker save` links equal layers as `../<other>/layer.tar`.
fn link_target(name: &str, target: &str) -> Result<String> {
    let outside = || Error::UnsafePath {
        entry: name.to_owned(),
        reason: "it is a symbolic link out of the archive",
    };
    if target.starts_with('/') {
        return Err(outside());
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(outside)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_archive() {
        assert_eq!(link_target("a/layer.tar", "../b/layer.tar").unwrap(), "b/layer.tar");
        for bad in ["/etc/passwd", "../../x"] {
            assert!(matches!(link_target("a/l", bad), Err(Error::UnsafePath { .. })));
        }
    }
}
