//! Turning a layer's archive into a directory that overlayfs can mount below
//! others.
//!
//! Deletions become character devices 0:0, opaque directories get overlayfs'
//! attribute. Owners, modes, times, hard links and file capabilities are kept.
//! Device nodes are not made: a container gets its own `/dev`, and where device
//! rules cannot be enforced a node in an image would open the host's disks.
//!
//! The caller gives an empty directory and renames it into place afterwards;
//! nothing here has a final name.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, futimens, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};
use tar::{Archive, Entry, EntryType};
use xattr::FileExt as _;

use crate::digest::Digest;
use crate::error::{Error, IoContext, Result};
use crate::limits::Limits;
use crate::store::layout::LayerRecord;

pub(crate) mod adopt;
mod head;
pub(crate) mod stream;
mod tree;

pub(crate) use head::split as split_path;
use head::{Head, Parts, Time};
use stream::{Cancel, Meter, Unpacked};
use tree::{Place, Tree};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
const COPY_BYTES: usize = 128 << 10;

/// A layer to unpack: where its packed bytes are and what they must be.
pub(crate) struct Layer<'a> {
    pub(crate) packed: &'a Path,
    /// Digest of the packed bytes.
    pub(crate) blob: &'a Digest,
    /// Digest of the archive inside.
    pub(crate) diff_id: &'a Digest,
}

/// Unpacks into `into`, an empty directory. Both digests are checked; after an
/// error the directory is worthless.
pub(crate) fn layer(
    layer: &Layer<'_>,
    into: &Path,
    limits: Limits,
    cancel: Cancel,
) -> Result<LayerRecord> {
    let what = format!("layer {}", layer.blob);
    let meter = Meter::new(&what, limits, limits.layer_bytes, cancel);
    let file = File::open(layer.packed).at("opening", layer.packed)?;
    let stream = Unpacked::new(file, &meter).at("reading", layer.packed)?;
    let mut archive = Archive::new(stream);
    let unpacked = Unpacker::open(into, &meter, limits).and_then(|mut unpacker| {
        unpacker.run(&mut archive)?;
        Ok(unpacker.record())
    });
    let mut stream = archive.into_inner();
    let drained = stream.drain();
    // A damaged file shows as nonsense in the archive; the digest tells better.
    if drained.is_ok() && meter.packed_digest() != *layer.blob {
        return Err(Error::Corrupt {
            path: layer.packed.to_path_buf(),
            actual: meter.packed_digest(),
        });
    }
    let record = unpacked?;
    drained.map_err(|e| meter.explain(&what, e))?;
    if meter.unpacked_digest() != *layer.diff_id {
        return Err(Error::DigestMismatch {
            what: format!("the archive in {what}"),
            expected: layer.diff_id.to_string(),
            actual: meter.unpacked_digest().to_string(),
        });
    }
    Ok(record)
}

struct Unpacker {
    tree: Tree,
    meter: Rc<Meter>,
    limits: Limits,
    entries: u64,
    /// Applied last: writing into a directory changes its time.
    dir_times: Vec<(Parts, Time)>,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn open(into: &Path, meter: &Rc<Meter>, limits: Limits) -> Result<Self> {
        let tree = Tree::open(into)?;
        fchmod(&*tree.root(), Mode::from_bits_truncate(0o755)).at("preparing", into)?;
        Ok(Self {
            tree,
            meter: Rc::clone(meter),
            limits,
            entries: 0,
            dir_times: Vec::new(),
            buffer: vec![0; COPY_BYTES],
        })
    }

    fn run<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<()> {
        let meter = Rc::clone(&self.meter);
        let mut entries = archive.entries().map_err(|e| meter.explain("", e))?;
        let mut before = String::from("(start)");
        loop {
            let from = meter.position();
            meter.capture();
            let next = entries.next();
            let captured = meter.captured();
            let Some(entry) = next else { break };
            let mut entry = entry.map_err(|e| meter.explain(&format!("after `{before}`"), e))?;
            self.count()?;
            let head = Head::read(&entry, &captured, from)?;
            self.entry(&head, &mut entry)?;
            // What an entry's kind has no use for still has to be passed over.
            self.skip(&head, &mut entry)?;
            before = head.name;
        }
        self.set_dir_times()
    }

    fn record(&self) -> LayerRecord {
        let implicit = self.tree.implicit().iter();
        LayerRecord {
            unpacked_bytes: self.meter.written(),
            entries: self.entries,
            implicit: implicit.map(|p| hex::encode(p.as_os_str().as_bytes())).collect(),
        }
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.layer_entries {
            return Err(Error::TooLarge {
                what: "a layer".to_owned(),
                limit: self.limits.layer_entries,
                unit: "entries",
            });
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, head: &Head, entry: &mut Entry<'_, R>) -> Result<()> {
        if matches!(head.kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let Some(name) = head.path.last() else {
            return self.root_entry(head);
        };
        if name.starts_with(WHITEOUT) {
            return self.whiteout(head, name);
        }
        if is_device(head.kind) {
            return refuse_device(head);
        }
        let place = self.tree.place(&head.path, &head.name)?;
        match head.kind {
            EntryType::Directory => self.dir(head, &place),
            EntryType::Symlink => self.symlink(head, &place),
            EntryType::Link => self.hard_link(head, &place),
            EntryType::Fifo => self.fifo(head, &place),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(head, &place, entry)
            }
            other => Err(Error::malformed(
                &head.name,
                format!("its kind {:?} is unknown", char::from(other.as_byte())),
            )),
        }
    }

    fn root_entry(&mut self, head: &Head) -> Result<()> {
        if head.kind != EntryType::Directory {
            return Err(Error::malformed(&head.name, "the root must be a directory"));
        }
        let root = self.tree.root().try_clone().at("opening", &head.name)?;
        set_metadata(&File::from(root), head)
    }

    fn whiteout(&mut self, head: &Head, name: &[u8]) -> Result<()> {
        let mut path = head.path.clone();
        path.pop();
        if name == WHITEOUT_OPAQUE {
            // A placeholder name: only the directory itself is wanted.
            path.push(b"opaque".to_vec());
            let place = self.tree.place(&path, &head.name)?;
            let dir = File::from(place.parent.try_clone().at("opening", &head.name)?);
            return tree::set_opaque(&dir).at("marking as opaque", &head.name);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(()); // bookkeeping of an old storage driver
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Error::UnsafePath {
                entry: head.name.clone(),
                reason: "it deletes nothing that has a name",
            });
        }
        path.push(hidden.to_vec());
        let place = self.tree.place(&path, &head.name)?;
        self.tree.whiteout(&place, &head.name)
    }

    fn dir(&mut self, head: &Head, place: &Place<'_>) -> Result<()> {
        self.tree.dir(place, &head.name)?;
        self.tree.explicit(&head.path);
        let dir = place.open_dir().at("opening", &head.name)?;
        set_metadata(&dir, head)?;
        self.dir_times.push((head.path.clone(), head.mtime));
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        head: &Head,
        place: &Place<'_>,
        entry: &mut Entry<'_, R>,
    ) -> Result<()> {
        self.tree.remove(place, &head.name)?;
        let mut file = place.create().at("creating", &head.name)?;
        loop {
            let n = entry.read(&mut self.buffer).map_err(|e| self.meter.explain(&head.name, e))?;
            if n == 0 {
                break;
            }
            self.meter.write(n as u64)?;
            file.write_all(&self.buffer[..n]).at("writing", &head.name)?;
        }
        let written = file.metadata().at("inspecting", &head.name)?.len();
        if written != entry.size() {
            return Err(Error::malformed(&head.name, "the archive ends inside this file"));
        }
        set_metadata(&file, head)
    }

    fn symlink(&mut self, head: &Head, place: &Place<'_>) -> Result<()> {
        let target = link_target(head)?;
        self.tree.remove(place, &head.name)?;
        symlinkat(OsStr::from_bytes(target), &*place.parent, place.name)
            .at("creating", &head.name)?;
        own(place, head)?;
        let time = TimeSpec::new(head.mtime.0, head.mtime.1);
        let flag = UtimensatFlags::NoFollowSymlink;
        utimensat(&*place.parent, place.name, &time, &time, flag).at("dating", &head.name)
    }

    fn hard_link(&mut self, head: &Head, place: &Place<'_>) -> Result<()> {
        let parts = head::split(link_target(head)?, &head.name)?;
        let target = self.tree.find(&parts, &head.name)?;
        let stat = target.stat().at("inspecting", &head.name)?;
        let Some(stat) = stat.filter(|s| tree::kind(s) != SFlag::S_IFDIR) else {
            return Err(Error::malformed(&head.name, "it links to what is not in its layer"));
        };
        let same = place.stat().at("inspecting", &head.name)?;
        if same.is_some_and(|s| (s.st_ino, s.st_dev) == (stat.st_ino, stat.st_dev)) {
            return Ok(());
        }
        self.tree.remove(place, &head.name)?;
        linkat(&*target.parent, target.name, &*place.parent, place.name, AtFlags::empty())
            .at("linking", &head.name)
    }

    fn fifo(&mut self, head: &Head, place: &Place<'_>) -> Result<()> {
        self.tree.remove(place, &head.name)?;
        let mode = Mode::from_bits_truncate(head.mode);
        mknodat(&*place.parent, place.name, SFlag::S_IFIFO, mode, 0).at("creating", &head.name)?;
        own(place, head)?;
        // Just made and no link, so following makes no difference.
        let flag = nix::sys::stat::FchmodatFlags::FollowSymlink;
        nix::sys::stat::fchmodat(&*place.parent, place.name, mode, flag)
            .at("setting the mode of", &head.name)
    }

    fn skip<R: Read>(&mut self, head: &Head, entry: &mut Entry<'_, R>) -> Result<()> {
        std::io::copy(entry, &mut std::io::sink())
            .map_err(|e| self.meter.explain(&head.name, e))?;
        Ok(())
    }

    fn set_dir_times(&mut self) -> Result<()> {
        for (path, mtime) in std::mem::take(&mut self.dir_times).into_iter().rev() {
            let name = String::from_utf8_lossy(&path.join(&b'/')).into_owned();
            // A later entry may have replaced the directory.
            let Ok(place) = self.tree.find(&path, &name) else { continue };
            let Ok(dir) = place.open_dir() else { continue };
            let time = TimeSpec::new(mtime.0, mtime.1);
            futimens(&dir, &time, &time).at("dating", &name)?;
        }
        Ok(())
    }
}

fn is_device(kind: EntryType) -> bool {
    matches!(kind, EntryType::Char | EntryType::Block)
}

fn refuse_device(head: &Head) -> Result<()> {
    if head.path.first().is_some_and(|first| first == b"dev") {
        tracing::debug!(entry = head.name, "device node left out, containers get their own");
        return Ok(());
    }
    Err(Error::malformed(
        &head.name,
        "device nodes outside /dev are refused, they could open the node's own devices",
    ))
}

fn link_target(head: &Head) -> Result<&[u8]> {
    let target = head.link.as_deref().unwrap_or_default();
    if target.is_empty() || target.len() > 4095 || target.contains(&0) {
        return Err(Error::malformed(&head.name, "it is a link with an unusable target"));
    }
    Ok(target)
}

fn own(place: &Place<'_>, head: &Head) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(head.uid), Gid::from_raw(head.gid));
    let flag = AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(&*place.parent, place.name, Some(uid), Some(gid), flag)
        .at("setting the owner of", &head.name)
}

/// In this order: a change of owner clears setuid bits and capabilities.
fn set_metadata(file: &File, head: &Head) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(head.uid), Gid::from_raw(head.gid));
    fchown(file, Some(uid), Some(gid)).at("setting the owner of", &head.name)?;
    fchmod(file, Mode::from_bits_truncate(head.mode)).at("setting the mode of", &head.name)?;
    for (name, value) in &head.xattrs {
        let name = OsStr::from_bytes(name);
        match file.set_xattr(name, value) {
            Ok(()) => {}
            Err(e) if name != "security.capability" => {
                tracing::debug!(entry = head.name, ?name, error = %e, "attribute left out");
            }
            Err(e) => return Err(Error::io("setting the capabilities of", &head.name, e)),
        }
    }
    let time = TimeSpec::new(head.mtime.0, head.mtime.1);
    futimens(file, &time, &time).at("dating", &head.name)
}
