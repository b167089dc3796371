//! Users and paths inside a root filesystem that is not trusted: every lookup stays below the root
//! whatever symbolic links it holds.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// Larger passwd and group files are cut.
const MAX_TABLE: u64 = 1 << 20;

/// Who a process in the container is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Groups of the user in the group file, when no group was asked for.
    pub extra_gids: Vec<u32>,
    /// Home of the user.
    pub home: Option<String>,
}

/// An opened root filesystem.
pub struct Root(OwnedFd);

impl Root {
    /// Opens the merged root.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(nix::fcntl::open(
            path,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?))
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.0, path, how)
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let file = match self.resolve(Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(String::new()),
            Err(errno) => return Err(errno.into()),
        };
        if !file.metadata()?.is_file() {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(MAX_TABLE).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Makes a folder and its parents, like `mkdir -p` inside the container.
    pub fn make_folders(&self, path: &Path) -> io::Result<()> {
        let mut done = PathBuf::from(".");
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let parent = self.resolve(&done, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            done.push(name);
            match self.resolve(&done, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Ok(_) => {}
                Err(Errno::ENOENT) => mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?,
                Err(errno) => {
                    return Err(io::Error::new(
                        io::Error::from(errno).kind(),
                        format!("{}: {errno}", done.display()),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Looks up `uid|name[:gid|group]` in the image's own tables.
    pub fn identify(&self, user: &str) -> Result<Identity, String> {
        let passwd = self
            .read("etc/passwd")
            .map_err(|error| format!("read the image's /etc/passwd: {error}"))?;
        let group = self
            .read("etc/group")
            .map_err(|error| format!("read the image's /etc/group: {error}"))?;
        identify(user, &passwd, &group)
    }
}

pub(super) fn identify(text: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    // name:password:uid:gid:comment:home:shell
    let known = entries(passwd, 6).find(|fields| fields[0] == user).or_else(|| {
        let number: u32 = user.parse().ok()?;
        entries(passwd, 6).find(|fields| fields[2].parse() == Ok(number))
    });
    let mut identity = Identity::default();
    match (&known, user.parse()) {
        (Some(fields), _) => {
            let bad = |_| format!("user `{user}` has a malformed entry in the image's /etc/passwd");
            identity.uid = fields[2].parse().map_err(bad)?;
            identity.gid = fields[3].parse().map_err(bad)?;
            identity.home = Some(fields[5].to_owned()).filter(|home| !home.is_empty());
        }
        (None, Ok(uid)) => identity.uid = uid,
        (None, Err(_)) => return Err(format!("user `{user}` is not in the image's /etc/passwd")),
    }
    // name:password:gid:members
    match wanted_group {
        Some(name) => {
            let found = entries(group, 3)
                .find(|fields| fields[0] == name)
                .and_then(|fields| fields[2].parse().ok());
            identity.gid = match found.or_else(|| name.parse().ok()) {
                Some(gid) => gid,
                None => return Err(format!("group `{name}` is not in the image's /etc/group")),
            };
        }
        None => {
            let name = known.as_ref().map_or(user, |fields| fields[0]);
            identity.extra_gids = entries(group, 4)
                .filter(|fields| fields[3].split(',').any(|member| member == name))
                .filter_map(|fields| fields[2].parse().ok())
                .filter(|gid| *gid != identity.gid)
                .collect();
        }
    }
    Ok(identity)
}

fn entries(table: &str, fields: usize) -> impl Iterator<Item = Vec<&str>> {
    table
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(move |entry| entry.len() >= fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:www:/var/www:/bin/false\nbroken:x:y:z:::\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:4:web,other\nshort\n";

    #[test]
    fn names_and_numbers_are_found() {
        let web = identify("web", PASSWD, GROUP).expect("known");
        assert_eq!((web.uid, web.gid, web.extra_gids.as_slice()), (33, 34, &[4][..]));
        assert_eq!(web.home.as_deref(), Some("/var/www"));
        assert_eq!(identify("33", PASSWD, GROUP).expect("number"), web);
        let pair = identify("web:logs", PASSWD, GROUP).expect("pair");
        assert_eq!((pair.gid, pair.extra_gids.len()), (4, 0));
        let numbers = identify("1000:1001", PASSWD, GROUP).expect("numbers");
        assert_eq!((numbers.uid, numbers.gid), (1000, 1001));
        assert_eq!(identify("", PASSWD, GROUP).expect("default").uid, 0);
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert!(identify("nobody", PASSWD, GROUP).expect_err("user").contains("`nobody`"));
        assert!(identify("web:none", PASSWD, GROUP).expect_err("group").contains("`none`"));
        assert!(identify("broken", PASSWD, GROUP).is_err());
    }
}
