//! The process beside each container: keeps it when the worker dies, and writes down how it ended.
//!
//! One small single-threaded process per container, a poll loop, no async runtime. It is the parent
//! of the container's first process; it takes its output into the log, answers on a control socket,
//! writes `exit.json` once the container ended, and leaves: an ended container costs only disk.
//! libcontainer is called only in short-lived forks of it, because that library changes its caller.
//!
//! *On failure*: a killed shim takes nothing with it. The runtime notices and starts another one
//! with `--adopt`, which reads the same FIFOs and watches the same process; the exit code may then
//! be unknown.

pub mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod protocol;

mod backend;
mod executor;
#[cfg(test)]
mod golden;
mod group;
mod helper;
mod oci;
mod output;
mod rootfs;
mod runc;
mod seccomp;
mod server;
mod setup;
mod user;
mod youki;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::shim::protocol::Reply;

/// What runs containers inside the shim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// The libcontainer crate, linked in.
    #[default]
    Libcontainer,
    /// The `runc` program found in `PATH`.
    Runc,
}

impl Backend {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Libcontainer => "libcontainer",
            Self::Runc => "runc",
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Libcontainer, Self::Runc]
            .into_iter()
            .find(|backend| backend.name() == text)
            .ok_or_else(|| format!("backend `{text}` is neither libcontainer nor runc"))
    }
}

/// Command line of the shim.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the container, `spec.json` in it.
    pub folder: PathBuf,
    /// Control socket to make.
    pub socket: PathBuf,
    /// Absolute cgroup path of the container.
    pub cgroup: PathBuf,
    /// Which backend to use.
    pub backend: Backend,
    /// Has to be what the folder's `attempt` file says, or this start came too late.
    pub attempt: String,
    /// Take over a running container instead of creating one.
    pub adopt: bool,
}

impl Options {
    /// Back to a command line.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec![
            "--folder".into(),
            self.folder.clone().into(),
            "--socket".into(),
            self.socket.clone().into(),
            "--cgroup".into(),
            self.cgroup.clone().into(),
            "--backend".into(),
            self.backend.name().into(),
            "--attempt".into(),
            self.attempt.clone().into(),
        ];
        if self.adopt {
            args.push("--adopt".into());
        }
        args
    }

    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let (mut folder, mut socket, mut cgroup) = (None, None, None);
        let (mut backend, mut adopt, mut attempt) = (Backend::default(), false, String::new());
        while let Some(arg) = args.next() {
            let name = arg.to_string_lossy().into_owned();
            let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--folder" => folder = Some(PathBuf::from(value()?)),
                "--socket" => socket = Some(PathBuf::from(value()?)),
                "--cgroup" => cgroup = Some(PathBuf::from(value()?)),
                "--backend" => backend = value()?.to_string_lossy().parse()?,
                "--attempt" => attempt = value()?.to_string_lossy().into_owned(),
                "--adopt" => adopt = true,
                _ => {
                    return Err(format!(
                        "unknown option {name}; the shim is started by the worker, not by hand"
                    ));
                }
            }
        }
        let missing = |name: &str| format!("{name} is missing");
        Ok(Self {
            folder: folder.ok_or_else(|| missing("--folder"))?,
            socket: socket.ok_or_else(|| missing("--socket"))?,
            cgroup: cgroup.ok_or_else(|| missing("--cgroup"))?,
            backend,
            attempt,
            adopt,
        })
    }
}

/// The whole program `cluster-shim`.
pub fn main() -> ExitCode {
    let run = Options::parse(std::env::args_os().skip(1)).and_then(|options| setup::run(&options));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // The runtime waits for this line; once the container is up stdout is /dev/null.
            say(&Reply::Failed(reason.clone()));
            let _ = writeln!(io::stderr(), "{reason}");
            ExitCode::FAILURE
        }
    }
}

/// Tells the runtime one thing on stdout. It may be gone; that is not our concern.
fn say(reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
    }
}
