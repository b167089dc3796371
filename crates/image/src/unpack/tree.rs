//! A directory tree that is written without ever leaving it.
//!
//! Parents are resolved by the kernel with the tree as root (`openat2`,
//! `RESOLVE_IN_ROOT`), so symbolic links of the archive lead where they would
//! lead inside a container; the last part of a path is never followed. All
//! changes go through descriptors of resolved parents.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use xattr::FileExt as _;

use crate::error::{Error, IoContext, Result};

const OPAQUE: &str = "trusted.overlay.opaque";
const RESOLVE_ATTEMPTS_MAX: u32 = 16;

pub(crate) struct Tree {
    root: Rc<OwnedFd>,
    path: PathBuf,
    /// The parent used last: archives list a directory's entries together.
    last: Option<(PathBuf, Rc<OwnedFd>)>,
    implicit: BTreeSet<PathBuf>,
}

/// One entry's place: an open parent and the name in it.
pub(crate) struct Place<'a> {
    pub(crate) parent: Rc<OwnedFd>,
    pub(crate) name: &'a OsStr,
}

impl Tree {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(path, flags, Mode::empty()).at("opening", path)?;
        Ok(Self {
            root: Rc::new(root),
            path: path.to_path_buf(),
            last: None,
            implicit: BTreeSet::new(),
        })
    }

    /// Directories that were made only because something lies in them.
    pub(crate) fn implicit(&self) -> &BTreeSet<PathBuf> {
        &self.implicit
    }

    pub(crate) fn root(&self) -> Rc<OwnedFd> {
        Rc::clone(&self.root)
    }

    /// The place of an entry; its parents are made where the archive left them
    /// out. `parts` is not empty.
    pub(crate) fn place<'a>(&mut self, parts: &'a [Vec<u8>], entry: &str) -> Result<Place<'a>> {
        let (name, parents) =
            parts.split_last().ok_or_else(|| Error::malformed(entry, "it has no name"))?;
        let parent = self.parent(parents, entry)?;
        Ok(Place { parent, name: OsStr::from_bytes(name) })
    }

    /// The place of something that must be there already.
    pub(crate) fn find<'a>(&self, parts: &'a [Vec<u8>], entry: &str) -> Result<Place<'a>> {
        let missing = || Error::malformed(entry, "it links to what is not in its layer");
        let (name, parents) = parts.split_last().ok_or_else(missing)?;
        let parent = self.resolve(&join(parents)).map_err(|_| missing())?;
        Ok(Place { parent: Rc::new(parent), name: OsStr::from_bytes(name) })
    }

    fn parent(&mut self, parts: &[Vec<u8>], entry: &str) -> Result<Rc<OwnedFd>> {
        if parts.is_empty() {
            return Ok(self.root());
        }
        let path = join(parts);
        if let Some((last, fd)) = &self.last
            && *last == path
        {
            return Ok(Rc::clone(fd));
        }
        let fd = match self.resolve(&path) {
            Ok(fd) => Rc::new(fd),
            Err(Errno::ENOENT | Errno::ENOTDIR) => self.make_parents(parts, entry)?,
            Err(e) => return Err(self.unresolved(entry, e)),
        };
        self.last = Some((path, Rc::clone(&fd)));
        Ok(fd)
    }

    fn make_parents(&mut self, parts: &[Vec<u8>], entry: &str) -> Result<Rc<OwnedFd>> {
        let mut at = self.root();
        for (i, name) in parts.iter().enumerate() {
            let path = join(&parts[..=i]);
            at = match self.resolve(&path) {
                Ok(fd) => Rc::new(fd),
                Err(Errno::ENOENT | Errno::ENOTDIR) => {
                    let place = Place { parent: at, name: OsStr::from_bytes(name) };
                    self.make_missing(&place, entry)?;
                    self.implicit.insert(path.clone());
                    let made = self.resolve(&path);
                    Rc::new(made.map_err(|e| self.unresolved(entry, e))?)
                }
                Err(e) => return Err(self.unresolved(entry, e)),
            };
        }
        Ok(at)
    }

    /// Makes a directory where resolution found none.
    fn make_missing(&mut self, place: &Place<'_>, entry: &str) -> Result<()> {
        match place.stat().at("inspecting", entry)? {
            None => place.make_dir(false).at("creating", entry),
            Some(stat) if is_whiteout(&stat) => {
                self.remove(place, entry)?;
                place.make_dir(true).at("creating", entry)
            }
            Some(stat) if kind(&stat) == SFlag::S_IFLNK => Err(Error::UnsafePath {
                entry: entry.to_owned(),
                reason: "a symbolic link on its path leads out of the image, or nowhere",
            }),
            Some(_) => Err(Error::malformed(entry, "a part of its path is not a directory")),
        }
    }

    /// Removes whatever is at the place.
    pub(crate) fn remove(&mut self, place: &Place<'_>, entry: &str) -> Result<()> {
        self.last = None;
        match unlinkat(&*place.parent, place.name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            // The standard library's removal does not follow links either.
            Err(Errno::EISDIR | Errno::EPERM) => {
                std::fs::remove_dir_all(place.proc_path()).at("replacing", entry)
            }
            Err(e) => Err(Error::errno("replacing", entry, e)),
        }
    }

    /// Makes an entry's own directory, keeping one that is there.
    pub(crate) fn dir(&mut self, place: &Place<'_>, entry: &str) -> Result<()> {
        match place.stat().at("inspecting", entry)? {
            Some(stat) if kind(&stat) == SFlag::S_IFDIR => Ok(()),
            Some(stat) => {
                self.remove(place, entry)?;
                // What the whiteout hid stays hidden behind the new directory.
                place.make_dir(is_whiteout(&stat)).at("creating", entry)
            }
            None => place.make_dir(false).at("creating", entry),
        }
    }

    /// An entry for a directory that had been made for want of one.
    pub(crate) fn explicit(&mut self, parts: &[Vec<u8>]) {
        self.implicit.remove(&join(parts));
    }

    /// Hides `place` of the layers below; content of this layer stays.
    pub(crate) fn whiteout(&mut self, place: &Place<'_>, entry: &str) -> Result<()> {
        match place.stat().at("inspecting", entry)? {
            None => mknodat(&*place.parent, place.name, SFlag::S_IFCHR, Mode::empty(), 0)
                .at("marking as deleted", entry),
            Some(stat) if kind(&stat) == SFlag::S_IFDIR => {
                let dir = place.open_dir().at("opening", entry)?;
                set_opaque(&dir).at("marking as opaque", entry)
            }
            Some(_) => Ok(()),
        }
    }

    fn resolve(&self, path: &Path) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 1..RESOLVE_ATTEMPTS_MAX {
            // The kernel gives up when anything on the machine is renamed meanwhile.
            match openat2(&*self.root, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                done => return done,
            }
        }
        openat2(&*self.root, path, how)
    }

    fn unresolved(&self, entry: &str, e: Errno) -> Error {
        match e {
            Errno::ELOOP => Error::UnsafePath {
                entry: entry.to_owned(),
                reason: "symbolic links on its path form a loop",
            },
            e => Error::errno("resolving in the layer", self.path.join(entry), e),
        }
    }
}

impl Place<'_> {
    pub(crate) fn stat(&self) -> nix::Result<Option<FileStat>> {
        match fstatat(&*self.parent, self.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn open_dir(&self) -> nix::Result<File> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        openat(&*self.parent, self.name, flags, Mode::empty()).map(File::from)
    }

    pub(crate) fn create(&self) -> nix::Result<File> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        openat(&*self.parent, self.name, flags | OFlag::O_WRONLY, mode).map(File::from)
    }

    fn make_dir(&self, opaque: bool) -> io::Result<()> {
        mkdirat(&*self.parent, self.name, Mode::from_bits_truncate(0o755))?;
        let dir = self.open_dir()?;
        // Independent of our umask.
        nix::sys::stat::fchmod(&dir, Mode::from_bits_truncate(0o755))?;
        if opaque { set_opaque(&dir) } else { Ok(()) }
    }

    /// A path for calls that take no descriptor; its parent cannot be swapped.
    fn proc_path(&self) -> PathBuf {
        let fd = self.parent.as_fd().as_raw_fd();
        Path::new("/proc/self/fd").join(fd.to_string()).join(self.name)
    }
}

pub(crate) fn set_opaque(dir: &File) -> io::Result<()> {
    dir.set_xattr(OPAQUE, b"y")
}

pub(crate) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

fn join(parts: &[Vec<u8>]) -> PathBuf {
    parts.iter().map(|part| OsStr::from_bytes(part)).collect()
}
