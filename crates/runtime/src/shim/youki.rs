//! The libcontainer backend. Everything here runs in a forked helper, never in the shim itself.

use std::error::Error;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

use crate::shim::executor::{GuardedExecutor, Role};
use crate::shim::files::Folder;
use crate::shim::seccomp::Filters;

/// Standard streams of a process in the container.
pub struct Stdio {
    /// Input.
    pub stdin: OwnedFd,
    /// Output.
    pub stdout: OwnedFd,
    /// Errors.
    pub stderr: OwnedFd,
}

/// Creates the container up to its command; gives the first process, a child of our parent.
pub fn create(folder: &Folder, runtime_id: &str, stdio: Stdio) -> Result<u32, String> {
    let container = builder(folder, runtime_id, Role::Init, stdio, None)?
        .as_init(folder.path())
        // The default is systemd over D-Bus.
        .with_systemd(false)
        .as_sibling(true)
        .with_detach(true)
        .build()
        .map_err(|error| explain(&error))?;
    let pid = container.pid().ok_or("libcontainer created a container without a process")?;
    u32::try_from(pid.as_raw()).map_err(|error| explain(&error))
}

/// Executes the command.
pub fn start(folder: &Folder, runtime_id: &str) -> Result<(), String> {
    let mut container =
        Container::load(folder.join("rt").join(runtime_id)).map_err(|error| explain(&error))?;
    container.start().map_err(|error| explain(&error))
}

/// Runs the process described in a file, in the cgroup behind `door` if there is one; gives its
/// pid, a child of our parent.
pub fn exec(
    folder: &Folder,
    runtime_id: &str,
    process: &Path,
    stdio: Stdio,
    door: Option<File>,
) -> Result<u32, String> {
    let pid = builder(folder, runtime_id, Role::Exec, stdio, door)?
        .as_tenant()
        .with_process(Some(process))
        .with_detach(true)
        .as_sibling(true)
        .build()
        .map_err(|error| explain(&error))?;
    u32::try_from(pid.as_raw()).map_err(|error| explain(&error))
}

fn builder(
    folder: &Folder,
    runtime_id: &str,
    role: Role,
    stdio: Stdio,
    door: Option<File>,
) -> Result<ContainerBuilder, String> {
    // Compiled before anything is made: without a filter there is no container.
    let filters = Filters::compile().map_err(|error| explain(&error))?;
    ContainerBuilder::new(runtime_id.to_owned(), SyscallType::default())
        .with_executor(GuardedExecutor::new(filters, role, door))
        .with_stdin(stdio.stdin)
        .with_stdout(stdio.stdout)
        .with_stderr(stdio.stderr)
        .with_root_path(folder.join("rt"))
        .and_then(ContainerBuilder::validate_id)
        .map_err(|error| explain(&error))
}

/// The chain of causes in one line, without repeating what a cause already said. libcontainer
/// pads some of its texts with NUL bytes.
fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text.retain(|c| c != '\0');
    text
}
