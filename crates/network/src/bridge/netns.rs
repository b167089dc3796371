//! Network namespaces kept alive by a bind mount on a file.
//!
//! Entering a namespace changes the calling thread for good, so everything
//! here happens on a thread of its own that ends right after; none of it ever
//! runs on a thread of the runtime or of its blocking pool.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::fstatfs;
use tokio::sync::oneshot;

use super::netlink::Netlink;

/// A namespace and a socket that acts inside it.
#[derive(Debug)]
pub struct Inside {
    pub netns: OwnedFd,
    pub netlink: Netlink,
}

/// Creates a namespace, writes `sysctls` in it and pins it to `path`, which
/// must not exist yet. Leaves nothing behind when it fails.
pub async fn create(path: &Path, sysctls: &'static [Sysctl]) -> io::Result<Inside> {
    let path = path.to_owned();
    on_own_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        for sysctl in sysctls {
            sysctl.write()?;
        }
        let netns = OwnedFd::from(File::open(OWN_NETNS)?);
        let netlink = Netlink::open()?;
        File::create_new(&path)?;
        let none = None::<&str>;
        if let Err(error) = mount(Some(OWN_NETNS), &path, none, MsFlags::MS_BIND, none) {
            let _ = fs::remove_file(&path);
            return Err(error.into());
        }
        Ok(Inside { netns, netlink })
    })
    .await
}

/// Opens the namespace pinned to `path`; `None` when the file pins nothing.
pub async fn open(path: &Path) -> io::Result<Option<Inside>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !is_netns(file.as_fd())? {
        return Ok(None);
    }
    let netns = OwnedFd::from(file);
    on_own_thread(move || {
        setns(&netns, CloneFlags::CLONE_NEWNET)?;
        let netlink = Netlink::open()?;
        Ok(Some(Inside { netns, netlink }))
    })
    .await
}

/// Lets go of the namespace and removes its file; both may be gone already.
pub fn release(path: &Path) -> io::Result<()> {
    // One file may carry several mounts after an unlucky crash.
    for _ in 0..MOUNTS_PER_FILE {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A kernel setting below `/proc/sys` of the current network namespace.
#[derive(Debug)]
pub struct Sysctl {
    pub key: &'static str,
    pub value: &'static str,
    /// Whether a kernel that lacks or refuses it is good enough.
    pub optional: bool,
}

impl Sysctl {
    pub fn write(&self) -> io::Result<()> {
        let path = Path::new("/proc/sys").join(self.key);
        // Where /proc is read-only somebody may have set it for us.
        if fs::read_to_string(&path).is_ok_and(|value| value.trim() == self.value) {
            return Ok(());
        }
        match fs::write(&path, self.value) {
            Err(error) if self.optional => {
                tracing::debug!(key = self.key, %error, "optional kernel setting left alone");
                Ok(())
            }
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("cannot write {}: {error}", path.display()),
            )),
            Ok(()) => Ok(()),
        }
    }
}

/// The link of the calling thread, not of the process.
const OWN_NETNS: &str = "/proc/thread-self/ns/net";
const MOUNTS_PER_FILE: usize = 8;
/// File system type that namespace files report (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

fn is_netns(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fstatfs(file)?.filesystem_type().0 == NSFS_MAGIC)
}

async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let runtime = tokio::runtime::Handle::current();
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        let _entered = runtime.enter();
        let _ = sender.send(work());
    })?;
    receiver.await.map_err(|_| io::Error::other("the namespace thread panicked"))?
}
