//! The last step inside the container, under libcontainer: confine, then execute.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, execv, faccessat};

use crate::error::{NOT_EXECUTABLE, NOT_IN_IMAGE};
use crate::shim::seccomp::Filters;

/// What a shell answers when a command is there but cannot be executed.
const CANNOT_EXECUTE: i32 = 126;

/// Whose command is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The container's first process: nobody listens any more when its command fails to execute,
    /// so the reason goes to the log.
    Init,
    /// An exec: its starter is told.
    Exec,
}

/// Installs the filter, then executes the command as libcontainer would.
#[derive(Clone)]
pub struct GuardedExecutor {
    filters: Filters,
    role: Role,
    /// The process list of the cgroup that the process moves to. It closes with the execution.
    door: Option<Arc<File>>,
}

impl GuardedExecutor {
    /// An executor that guards with these filters.
    pub fn new(filters: Filters, role: Role, door: Option<File>) -> Self {
        Self { filters, role, door: door.map(Arc::new) }
    }
}

impl Executor for GuardedExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let (program, args) = command(spec).map_err(ExecutorError::Other)?;
        if let Some(door) = &self.door {
            (&**door).write_all(b"0").map_err(|error| {
                ExecutorError::Other(format!("enter the cgroup of the exec: {error}"))
            })?;
        }
        // Not confined is not executed.
        self.filters.install().map_err(|error| {
            ExecutorError::Other(format!("install the system call filter: {error}"))
        })?;
        // Not execvp: that one runs what is no program through a shell.
        let Err(errno) = execv(&program, &args);
        let reason = format!("execute {}: {}", program.to_string_lossy(), errno.desc());
        if self.role == Role::Init {
            let _ = writeln!(io::stderr(), "cannot {reason}");
            std::process::exit(CANNOT_EXECUTE);
        }
        Err(ExecutorError::Other(reason))
    }

    /// Runs as the container's user, in its root. libcontainer's own check looks only at the mode
    /// bits of others, and so refuses programs that root alone may execute.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        command(spec).map(|_| ()).map_err(ExecutorValidationError::ArgValidationError)
    }
}

/// The program's path and its arguments, as this user finds them in this root.
fn command(spec: &Spec) -> Result<(CString, Vec<CString>), String> {
    let process = spec.process().as_ref().ok_or("there is no process")?;
    if process.no_new_privileges() != Some(true) {
        // Installing the filter needs it, so the spec must say so.
        return Err("noNewPrivileges must be set".to_owned());
    }
    let args = process.args().as_deref().unwrap_or_default();
    let program = args.first().ok_or("there is no command")?;
    let variables = process.env().iter().flatten();
    let path =
        variables.filter_map(|entry| entry.strip_prefix("PATH=")).next_back().unwrap_or_default();
    let found: Vec<PathBuf> = candidates(program, path).filter(|path| is_file(path)).collect();
    if found.is_empty() {
        return Err(format!("`{program}` {NOT_IN_IMAGE}"));
    }
    let may =
        |path: &PathBuf| faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok();
    let Some(path) = found.into_iter().find(may) else {
        return Err(format!("`{program}` {NOT_EXECUTABLE}"));
    };
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| format!("`{program}` has an argument with a NUL byte"))
    };
    let args = args.iter().map(|arg| text(arg.as_bytes())).collect::<Result<_, _>>()?;
    Ok((text(path.as_os_str().as_bytes())?, args))
}

fn candidates(program: &str, path: &str) -> impl Iterator<Item = PathBuf> {
    // With a slash it is a path, relative to the working folder or absolute.
    let folders = if program.contains('/') { "" } else { path };
    folders.split(':').map(move |folder| Path::new(folder).join(program))
}

fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(no_new_privileges: bool, program: &str) -> Spec {
        let process = serde_json::json!({
            "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": [program], "env": ["PATH=/usr/bin:/bin"],
            "noNewPrivileges": no_new_privileges,
        });
        let spec = serde_json::json!({"ociVersion": "1.0.2", "process": process});
        serde_json::from_value(spec).expect("a spec")
    }

    #[test]
    fn what_could_gain_privileges_is_not_executed() {
        let executor = GuardedExecutor::new(Filters::compile().expect("filters"), Role::Exec, None);
        assert!(executor.validate(&spec(true, "sh")).is_ok());
        // The filter could not be installed there, and running without it is no choice.
        assert!(executor.validate(&spec(false, "sh")).is_err());
        assert!(executor.exec(&spec(false, "sh")).is_err());
    }

    #[test]
    fn the_program_is_found_as_a_shell_would() {
        assert!(command(&spec(true, "/bin/sh")).is_ok());
        assert!(
            command(&spec(true, "no-such-program"))
                .expect_err("absent")
                .contains("no-such-program")
        );
        assert!(
            command(&spec(true, "/etc/passwd"))
                .expect_err("no program")
                .contains("may not be executed")
        );
    }
}
