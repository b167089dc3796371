//! Where a lab keeps things, and the file that says what it consists of.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::error::{Error, Result};

/// Sockets, whose paths must be short, and whose the lab is.
const RUN: &str = "/run/cluster-vm-lab";

/// `lab.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) managers: usize,
    pub(crate) workers: usize,
    pub(crate) memory_mb: u32,
    pub(crate) accelerator: Accelerator,
    /// Makes the machines' ids differ from those of other labs.
    pub(crate) id: u64,
}

impl State {
    pub(crate) fn size(&self) -> String {
        format!("{} managers and {} workers of {} MB", self.managers, self.workers, self.memory_mb)
    }
}

/// The folder of the lab and its parts.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What `down` removes.
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub(crate) fn machine(&self, name: &str) -> PathBuf {
        self.run().join(name)
    }

    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.machine(name).join("disk.qcow2")
    }

    pub(crate) fn console(&self, name: &str) -> PathBuf {
        self.machine(name).join("console.log")
    }

    pub(crate) fn qemu_log(&self, name: &str) -> PathBuf {
        self.machine(name).join("qemu.log")
    }

    pub(crate) fn pid_file(&self, name: &str) -> PathBuf {
        self.machine(name).join("pid")
    }

    pub(crate) fn ssh_config(&self) -> PathBuf {
        self.run().join("ssh_config")
    }

    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.run().join("known_hosts")
    }

    fn state(&self) -> PathBuf {
        self.run().join("lab.json")
    }

    /// `None` when no lab is up.
    pub(crate) fn load(&self) -> Result<Option<State>> {
        let path = self.state();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| Error::BadState { path, source }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::file("reading", path, source)),
        }
    }

    pub(crate) fn store(&self, state: &State) -> Result<()> {
        let path = self.state();
        let text = serde_json::to_vec_pretty(state)
            .map_err(|source| Error::BadState { path: path.clone(), source })?;
        fs::write(&path, text).map_err(|source| Error::file("writing", path, source))
    }

    /// Held by whoever changes the lab.
    pub(crate) fn lock(&self) -> Result<Flock<File>> {
        create(&self.root)?;
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(|source| Error::file("creating", &path, source))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::Error::EWOULDBLOCK => Error::Busy { path },
            errno => Error::system(format!("locking {}", path.display()), errno),
        })
    }
}

/// The socket by which one machine's qemu is told what to do.
pub(crate) fn control_socket(name: &str) -> PathBuf {
    Path::new(RUN).join(format!("{name}.qmp"))
}

/// The socket of the connection that all ssh commands to a machine share.
pub(crate) fn ssh_socket(name: &str) -> PathBuf {
    Path::new(RUN).join(format!("{name}.ssh"))
}

/// Makes the lab in `root` the one of this computer.
pub(crate) fn claim(root: &Path) -> Result<()> {
    create(Path::new(RUN))?;
    let path = Path::new(RUN).join("owner");
    if let Some(owner) = owner()
        && owner != root
        && Folder::new(&owner).run().exists()
    {
        return Err(Error::OtherLab { owner });
    }
    fs::write(&path, root.as_os_str().as_encoded_bytes())
        .map_err(|source| Error::file("writing", path, source))
}

fn owner() -> Option<PathBuf> {
    fs::read_to_string(Path::new(RUN).join("owner")).ok().map(PathBuf::from)
}

/// Gives the claim back, unless it is another's.
pub(crate) fn release(root: &Path) -> Result<()> {
    if owner().is_some_and(|owner| owner != root && Folder::new(&owner).run().exists()) {
        return Ok(());
    }
    remove(Path::new(RUN))
}

pub(crate) fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|source| Error::file("creating", folder, source))
}

/// Removes a file or folder; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("removing", path, source))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_as_it_was_stored() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path());
        assert_eq!(folder.load().unwrap(), None);
        create(&folder.run()).unwrap();
        let state = State {
            managers: 3,
            workers: 2,
            memory_mb: 512,
            accelerator: Accelerator::Emulation,
            id: u64::MAX,
        };
        folder.store(&state).unwrap();
        assert_eq!(folder.load().unwrap(), Some(state));
    }

    #[test]
    fn two_commands_do_not_change_a_lab_at_once() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path());
        let held = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(Error::Busy { .. })));
        drop(held);
        folder.lock().unwrap();
    }
}
