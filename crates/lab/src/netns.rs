//! Named network namespaces, visible to `ip netns` under /run/netns.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, Result};

const FOLDER: &str = "/run/netns";

/// The file that names the namespace.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Creates the namespace; a thread enters it, binds it to its name and ends.
pub(crate) fn create(name: &str) -> Result<()> {
    let file = path(name);
    fs::create_dir_all(FOLDER).map_err(|source| Error::file("creating", FOLDER, source))?;
    File::create_new(&file).map_err(|source| Error::file("creating", &file, source))?;
    let target = file.clone();
    let bound = thread::spawn(move || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let none = None::<&str>;
        mount(Some("/proc/thread-self/ns/net"), &target, none, MsFlags::MS_BIND, none)?;
        Ok(())
    });
    joined(bound).map_err(|source| Error::system("creating the network namespace", name, source))
}

/// Removes name and namespace; one that does not exist is fine. The kernel frees it when its
/// last process is gone.
pub(crate) fn remove(name: &str) -> Result<()> {
    let file = path(name);
    match umount2(&file, MntFlags::MNT_DETACH) {
        // EINVAL: the file is there but nothing is bound to it, as a crash may leave it.
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => {}
        Err(errno) => return Err(Error::system("unbinding the network namespace", name, errno)),
    }
    match fs::remove_file(&file) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("removing", file, source))
        }
        _ => Ok(()),
    }
}

/// The names of all namespaces that begin with `prefix`.
pub(crate) fn names(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(FOLDER) else {
        return Vec::new();
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Moves the calling thread into the namespace, for good: only for threads of one's own.
pub(crate) fn enter_thread(file: &File) -> io::Result<()> {
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

/// Runs `act` on a thread inside the namespace.
pub(crate) fn inside<T: Send + 'static>(
    name: &str,
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let file = path(name);
    let namespace =
        File::open(&file).map_err(|source| Error::file("opening namespace", file, source))?;
    let ran = thread::spawn(move || {
        enter_thread(&namespace)?;
        act()
    });
    joined(ran)
        .map_err(|source| Error::system("working inside the network namespace", name, source))
}

fn joined<T>(thread: thread::JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}
