//! One container through either backend.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::cgroup::Hierarchies;
use crate::shim::files::{Folder, write_json};
use crate::shim::group::Group;
use crate::shim::oci::{self, Template};
use crate::shim::protocol::ExecRequest;
use crate::shim::user::Root;
use crate::shim::youki::Stdio;
use crate::shim::{Backend, helper, rootfs, runc, youki};
use crate::spec::{ContainerSpec, Mount};

/// A container and what is needed to act on it.
pub struct Handle {
    /// Its folder, which is also the OCI bundle.
    pub folder: Folder,
    /// What the caller asked for.
    pub spec: ContainerSpec,
    /// Which backend.
    pub backend: Backend,
    /// Its name for the backend.
    pub runtime_id: String,
    /// Absolute cgroup path.
    pub cgroup: PathBuf,
    /// What this machine's cgroups can do.
    pub hierarchies: Hierarchies,
}

impl Handle {
    /// Mounts the root and creates the container up to its command; gives the first process.
    pub fn create(&self, stdio: Stdio) -> Result<u32, String> {
        let root = rootfs::mount_overlay(&self.folder, &self.spec.image.layers)
            .map_err(|error| format!("mount the image's layers: {error}"))?;
        fs::create_dir(self.folder.join("rt"))
            .map_err(|error| format!("make the backend's folder: {error}"))?;
        let keep = [stdio.stdin.as_raw_fd(), stdio.stdout.as_raw_fd(), stdio.stderr.as_raw_fd()];
        match self.backend {
            Backend::Libcontainer => helper::run(&keep, || {
                self.prepare(&root, &stdio)?;
                youki::create(&self.folder, &self.runtime_id, stdio)
            }),
            Backend::Runc => {
                helper::run(&keep, || self.prepare(&root, &stdio))?;
                runc::create(&self.folder, &self.runtime_id, stdio)
            }
        }
    }

    /// Executes the command.
    pub fn start(&self) -> Result<(), String> {
        match self.backend {
            Backend::Libcontainer => {
                helper::run(&[], || youki::start(&self.folder, &self.runtime_id))
            }
            Backend::Runc => runc::start(&self.folder, &self.runtime_id),
        }
    }

    /// Runs one more process in the container of `init`, in a cgroup of its own if one is given;
    /// gives its pid.
    pub fn exec(
        &self,
        init: u32,
        request: &ExecRequest,
        stdio: Stdio,
        group: Option<&Group>,
    ) -> Result<u32, String> {
        let process = self.folder.join("exec.json");
        let door = group.map(Group::door).transpose();
        let door = door.map_err(|error| format!("open the cgroup of the exec: {error}"))?;
        let mut keep =
            vec![stdio.stdin.as_raw_fd(), stdio.stdout.as_raw_fd(), stdio.stderr.as_raw_fd()];
        keep.extend(door.as_ref().map(AsRawFd::as_raw_fd));
        let started = match self.backend {
            Backend::Libcontainer => helper::run(&keep, || {
                self.write_process(init, request, &process, &stdio)?;
                youki::exec(&self.folder, &self.runtime_id, &process, stdio, door)
            }),
            Backend::Runc => {
                helper::run(&keep, || self.write_process(init, request, &process, &stdio)).and_then(
                    |()| runc::exec(&self.folder, &self.runtime_id, &process, stdio, group),
                )
            }
        };
        let _ = fs::remove_file(&process);
        started
    }

    /// Everything that needs the mounted root: the user, the working folder, the OCI spec.
    fn prepare(&self, root_path: &Path, stdio: &Stdio) -> Result<(), String> {
        let root =
            Root::open(root_path).map_err(|error| format!("open the root filesystem: {error}"))?;
        let identity = root.identify(self.user(None))?;
        let cwd = oci::working_folder(&self.spec);
        root.make_folders(&cwd)
            .map_err(|error| format!("make the working folder {}: {error}", cwd.display()))?;
        for mount in &self.spec.mounts {
            check_source(mount)?;
        }
        give_streams(stdio, identity.uid)?;
        let config = self.template(&identity, root_path).config();
        write_json(&self.folder.join("config.json"), &config, false)
            .map_err(|error| format!("write the OCI spec: {error}"))
    }

    fn write_process(
        &self,
        init: u32,
        request: &ExecRequest,
        path: &Path,
        stdio: &Stdio,
    ) -> Result<(), String> {
        // The container's own view of its root, which also exists for a shim that adopted it.
        let root_path = PathBuf::from(format!("/proc/{init}/root"));
        let root = Root::open(&root_path)
            .map_err(|error| format!("open the container's root: {error}"))?;
        let identity = root.identify(self.user(request.user.as_deref()))?;
        give_streams(stdio, identity.uid)?;
        let process = self.template(&identity, &root_path).exec_process(request);
        write_json(path, &process, false)
            .map_err(|error| format!("write the process file: {error}"))
    }

    fn user<'a>(&'a self, given: Option<&'a str>) -> &'a str {
        given.or(self.spec.user.as_deref()).or(self.spec.image.user.as_deref()).unwrap_or_default()
    }

    fn template<'a>(
        &'a self,
        identity: &'a crate::shim::user::Identity,
        root: &'a Path,
    ) -> Template<'a> {
        Template {
            spec: &self.spec,
            identity,
            root,
            cgroup: &self.cgroup,
            backend: self.backend,
            hierarchies: &self.hierarchies,
        }
    }
}

/// `/dev/stdout` of the container is opened through `/proc`, so its user must own the streams.
fn give_streams(stdio: &Stdio, uid: u32) -> Result<(), String> {
    if uid == 0 {
        return Ok(());
    }
    let give = |fd: &OwnedFd| nix::unistd::fchown(fd, Some(nix::unistd::Uid::from_raw(uid)), None);
    give(&stdio.stdout)
        .and_then(|()| give(&stdio.stderr))
        .map_err(|errno| format!("give the output to user {uid}: {errno}"))
}

/// What the backends would report without naming the mount.
fn check_source(mount: &Mount) -> Result<(), String> {
    match mount {
        Mount::Bind { source, target, .. } if !source.exists() => Err(format!(
            "mount {}: {} does not exist on this node",
            target.display(),
            source.display()
        )),
        Mount::Volume { host_path, .. } => fs::create_dir_all(host_path)
            .map_err(|error: io::Error| format!("make volume {}: {error}", host_path.display())),
        Mount::Bind { .. } | Mount::Tmpfs { .. } => Ok(()),
    }
}
