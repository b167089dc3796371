//! The runc backend: the same steps through the `runc` program.
//!
//! `create` and `exec` leave their process to the nearest subreaper, which is the shim.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio as ProcessStdio};

use serde::Deserialize;

use crate::shim::files::Folder;
use crate::shim::group::Group;
use crate::shim::youki::Stdio;

/// Creates the container up to its command; gives its first process.
pub fn create(folder: &Folder, runtime_id: &str, stdio: Stdio) -> Result<u32, String> {
    let pid_file = folder.join("init.pid");
    let mut command = runc(folder);
    command
        .arg("create")
        .arg("--bundle")
        .arg(folder.path())
        .arg("--pid-file")
        .arg(&pid_file)
        .arg(runtime_id);
    run(folder, command, Some(stdio))?;
    read_pid(&pid_file)
}

/// Executes the command.
pub fn start(folder: &Folder, runtime_id: &str) -> Result<(), String> {
    let mut command = runc(folder);
    command.arg("start").arg(runtime_id);
    run(folder, command, None)
}

/// Runs the process described in a file; gives its pid.
pub fn exec(
    folder: &Folder,
    runtime_id: &str,
    process: &Path,
    stdio: Stdio,
    group: Option<&Group>,
) -> Result<u32, String> {
    let pid_file = process.with_extension("pid");
    let mut command = runc(folder);
    command
        .arg("exec")
        .arg("--detach")
        .arg("--pid-file")
        .arg(&pid_file)
        .arg("--process")
        .arg(process);
    if let Some(group) = group {
        command.arg("--cgroup").arg(group.name());
    }
    command.arg(runtime_id);
    let ran = run(folder, command, Some(stdio)).and_then(|()| read_pid(&pid_file));
    let _ = fs::remove_file(&pid_file);
    ran
}

fn runc(folder: &Folder) -> Command {
    let mut command = Command::new("runc");
    command
        .arg("--root")
        .arg(folder.join("rt"))
        .arg("--log")
        .arg(folder.join("runc.log"))
        .arg("--log-format")
        .arg("json");
    command
}

fn run(folder: &Folder, mut command: Command, stdio: Option<Stdio>) -> Result<(), String> {
    let log = folder.join("runc.log");
    let _ = fs::remove_file(&log);
    match stdio {
        Some(Stdio { stdin, stdout, stderr }) => command.stdin(stdin).stdout(stdout).stderr(stderr),
        None => command
            .stdin(ProcessStdio::null())
            .stdout(ProcessStdio::null())
            .stderr(ProcessStdio::null()),
    };
    let status = command.status().map_err(|error| format!("run runc: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(last_error(&log).unwrap_or_else(|| format!("runc ended with {status}")))
}

#[derive(Deserialize)]
struct LogEntry {
    level: String,
    msg: String,
}

fn last_error(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    text.lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<LogEntry>(line).ok())
        .find(|entry| entry.level == "error")
        .map(|entry| entry.msg)
}

fn read_pid(path: &Path) -> Result<u32, String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("read runc's pid file: {error}"))?;
    text.trim().parse().map_err(|error| format!("read runc's pid file: {error}"))
}
