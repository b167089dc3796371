//! The image that all machines begin with: Debian 12, made with Debian's own tools.
//!
//! It is made once and kept; a machine's disk is a thin layer above it. Kernel and initial RAM disk
//! lie beside it, since qemu starts them without a boot loader. The initial RAM disk holds only the
//! drivers that these machines need, as software emulation is slow at unpacking.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::exec::run;
use crate::state::{create, remove};

const SUITE: &str = "bookworm";
/// What a Debian server has, and no more than the packages and the lab need.
const PACKAGES: &[&str] = &[
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "procps",
    "iproute2",
    "nftables",
    "ca-certificates",
    "curl",
    "openssh-server",
    "initramfs-tools",
    "zstd",
    "linux-image-cloud-amd64",
];
const EARLY: &str = include_str!("base/early.sh");
const LATE: &str = include_str!("base/late.sh");
/// Sparse: what is not used takes no room.
const SIZE: u64 = 6 << 30;

/// The files of a finished image.
#[derive(Clone, Debug)]
pub struct Base {
    pub disk: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// Private key that gets into the machines; the public one lies beside it.
    pub key: PathBuf,
    stamp: PathBuf,
}

impl Base {
    /// Where it is or will be in this folder.
    pub fn at(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        Self {
            disk: file("base.raw"),
            kernel: file("base.kernel"),
            initrd: file("base.initrd"),
            key: file("base.key"),
            stamp: file("base.stamp"),
        }
    }

    /// Whether it is there, made in the way this program makes it.
    pub fn is_fresh(&self) -> bool {
        let files = [&self.disk, &self.kernel, &self.initrd, &self.key];
        files.iter().all(|file| file.is_file())
            && fs::read_to_string(&self.stamp).is_ok_and(|stamp| stamp == recipe())
    }

    /// Makes it, which takes a minute or two and asks a Debian mirror.
    pub(crate) fn build(&self, mirror: Option<&str>) -> Result<()> {
        let work = self.disk.with_extension("partial");
        remove(&work)?;
        create(&work)?;
        let built = self.build_in(&work, mirror);
        let removed = remove(&work);
        built.and(removed)
    }

    fn build_in(&self, work: &Path, mirror: Option<&str>) -> Result<()> {
        let root = work.join("root");
        for old in [&self.stamp, &self.key, &self.key.with_extension("key.pub")] {
            remove(old)?;
        }
        run(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "vm-lab", "-f"])
            .arg(&self.key))?;
        let hook = |name: &str, text: &str| {
            let path = work.join(name);
            fs::write(&path, text).map_err(|source| Error::file("writing", &path, source))?;
            Ok(format!(
                "sh {} \"$1\" {}",
                quoted(&path),
                quoted(&self.key.with_extension("key.pub"))
            ))
        };
        let mut command = Command::new("mmdebstrap");
        command
            .args(["--variant=minbase", "--mode=root", "--format=directory", "--quiet"])
            .arg(format!("--include={}", PACKAGES.join(",")))
            .arg(format!("--essential-hook={}", hook("early.sh", EARLY)?))
            .arg(format!("--customize-hook={}", hook("late.sh", LATE)?))
            .arg(SUITE)
            .arg(&root)
            .args(mirror);
        run(&mut command)?;

        take_only(&root.join("boot"), "vmlinuz-", &self.kernel)?;
        take_only(&root.join("boot"), "initrd.img-", &self.initrd)?;
        let disk = work.join("disk");
        let file =
            fs::File::create(&disk).map_err(|source| Error::file("creating", &disk, source))?;
        file.set_len(SIZE).map_err(|source| Error::file("sizing", &disk, source))?;
        run(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d"])
            .arg(&root)
            .arg(&disk))?;
        fs::rename(&disk, &self.disk)
            .map_err(|source| Error::file("moving the image to", &self.disk, source))?;
        fs::write(&self.stamp, recipe())
            .map_err(|source| Error::file("writing", &self.stamp, source))
    }

    pub(crate) fn remove(&self) -> Result<()> {
        let public = self.key.with_extension("key.pub");
        for file in [&self.stamp, &self.disk, &self.kernel, &self.initrd, &self.key, &public] {
            remove(file)?;
        }
        Ok(())
    }
}

/// Changes when an image must be made anew.
fn recipe() -> String {
    let mut hash = Sha256::new();
    for part in [SUITE, &PACKAGES.join(","), EARLY, LATE, &SIZE.to_string()] {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Copies the one file whose name begins so.
fn take_only(folder: &Path, prefix: &str, target: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|source| Error::file("listing", folder, source))?;
    let mut found = entries.flatten().map(|entry| entry.path()).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    });
    let path = found.next().ok_or_else(|| {
        Error::file("finding the kernel in", folder, std::io::ErrorKind::NotFound.into())
    })?;
    fs::copy(&path, target).map_err(|source| Error::file("copying", path, source)).map(drop)
}

/// For the shell that runs a hook.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_another_recipe_is_not_fresh() {
        let folder = tempfile::tempdir().unwrap();
        let base = Base::at(folder.path());
        for file in [&base.disk, &base.kernel, &base.initrd, &base.key] {
            fs::write(file, "").unwrap();
        }
        assert!(!base.is_fresh(), "no stamp");
        fs::write(&base.stamp, "another").unwrap();
        assert!(!base.is_fresh(), "another stamp");
        fs::write(&base.stamp, recipe()).unwrap();
        assert!(base.is_fresh());
        fs::remove_file(&base.initrd).unwrap();
        assert!(!base.is_fresh(), "a file is missing");
    }

    #[test]
    fn hooks_survive_odd_paths() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    #[test]
    fn the_kernel_is_found_by_its_prefix() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("vmlinuz-6.1.0"), "kernel").unwrap();
        let target = folder.path().join("out");
        take_only(folder.path(), "vmlinuz-", &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "kernel");
        assert!(take_only(folder.path(), "initrd.img-", &target).is_err());
    }
}
