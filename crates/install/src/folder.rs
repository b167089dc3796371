//! Who uses a daemon's data folder.

use std::fs::{self, File};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The process that holds the folder's lock, if one does; 0 when it does not say who it is.
pub fn user_of(data_dir: &Path) -> Option<u32> {
    let path = data_dir.join("LOCK");
    let file = File::open(&path).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((_, Errno::EWOULDBLOCK)) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            Some(pid.trim().parse().unwrap_or(0))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use cluster_daemon::DataDirLock;

    use super::*;

    #[test]
    fn a_holder_is_named_and_nothing_is_created() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(user_of(folder.path()), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let held = DataDirLock::acquire(folder.path()).unwrap();
        assert_eq!(user_of(folder.path()), Some(std::process::id()));
        drop(held);
        assert_eq!(user_of(folder.path()), None);
    }
}
