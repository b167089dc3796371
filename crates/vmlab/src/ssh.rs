//! Getting into machines with the `ssh` program.
//!
//! All commands to a machine share one connection: in emulation each new one costs a second.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::Base;
use crate::error::{Error, Result};
use crate::exec::{output, run, said};
use crate::machine::Machine;
use crate::network;
use crate::state::{Folder, ssh_socket};

const PORT: u16 = 22;
const POLL: Duration = Duration::from_millis(200);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Writes the file that makes `ssh NAME` work in the lab's namespace.
pub(crate) fn write_config(folder: &Folder, base: &Base, machines: &[Machine]) -> Result<()> {
    let path = folder.ssh_config();
    fs::write(&path, config(folder, base, machines))
        .map_err(|source| Error::file("writing", path, source))
}

fn config(folder: &Folder, base: &Base, machines: &[Machine]) -> String {
    let mut text = String::new();
    for machine in machines {
        let _ = writeln!(text, "Host {}\n  HostName {}", machine.name(), machine.address());
    }
    let _ = write!(
        text,
        "Host *\n  User root\n  IdentityFile \"{}\"\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile \"{}\"\n  StrictHostKeyChecking accept-new\n  BatchMode yes\n  \
         LogLevel ERROR\n  ConnectTimeout 60\n  ServerAliveInterval 15\n  ServerAliveCountMax 8\n  \
         ControlMaster auto\n  ControlPath {}\n  ControlPersist 1h\n",
        base.key.display(),
        folder.known_hosts().display(),
        ssh_socket("%n").display(),
    );
    text
}

/// `ssh NAME COMMAND`, to be run by the caller.
pub(crate) fn command(folder: &Folder, name: &str, script: Option<&str>) -> Command {
    let mut command = network::command("ssh");
    command.arg("-F").arg(folder.ssh_config()).arg(name);
    if let Some(script) = script {
        command.args(["--", script]);
    }
    command
}

/// Runs a shell script on the machine; returns what it printed.
pub(crate) fn script(folder: &Folder, name: &str, script: &str) -> Result<String> {
    finish(name, script, output(&mut command(folder, name, Some(script)))?)
}

/// The same with input; for what must be on no command line.
pub(crate) fn script_with_input(
    folder: &Folder,
    name: &str,
    script: &str,
    input: &[u8],
) -> Result<String> {
    let spawn_failed = |source| Error::Spawn { program: "ssh".to_owned(), source };
    let mut child = command(folder, name, Some(script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(spawn_failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A script that reads only part of it says itself how it ended.
        let _ = stdin.write_all(input);
    }
    finish(name, script, child.wait_with_output().map_err(spawn_failed)?)
}

fn finish(name: &str, script: &str, output: Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Remote {
        machine: name.to_owned(),
        shown: script.to_owned(),
        status: output.status,
        said: said(&output),
    })
}

/// Copies files into a folder of the machine.
pub(crate) fn copy(folder: &Folder, name: &str, files: &[&Path], target: &str) -> Result<()> {
    let mut command = network::command("scp");
    command.arg("-q").arg("-r").arg("-F").arg(folder.ssh_config());
    command.args(files).arg(format!("{name}:{target}"));
    run(&mut command).map(drop)
}

/// Ends the shared connection; without one nothing happens.
pub(crate) fn disconnect(folder: &Folder, name: &str) {
    if !ssh_socket(name).exists() {
        return;
    }
    let mut command = network::command("ssh");
    command.arg("-F").arg(folder.ssh_config()).args(["-O", "exit", name]);
    let _ = command.stdin(Stdio::null()).output();
    let _ = fs::remove_file(ssh_socket(name));
}

/// Waits until the machine lets us in.
pub(crate) fn wait(folder: &Folder, machine: &Machine, within: Duration) -> Result<()> {
    let name = machine.name();
    let address = SocketAddr::new(IpAddr::V4(machine.address()), PORT);
    let begin = Instant::now();
    let mut reason = String::new();
    while begin.elapsed() < within {
        // Asking the port costs the machine nothing while it is busy booting.
        match network::inside(move || greets(address))? {
            Ok(()) => match script(folder, &name, "true") {
                Ok(_) => return Ok(()),
                Err(error) => reason = error.to_string(),
            },
            Err(error) => reason = error.to_string(),
        }
        thread::sleep(POLL);
    }
    let detail = format!("{reason}; its console is {}", folder.console(&name).display());
    Err(Error::TimedOut { what: format!("ssh to {name}"), within, detail })
}

fn greets(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_WITHIN)?;
    stream.set_read_timeout(Some(10 * CONNECT_WITHIN))?;
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting)?;
    if &greeting == b"SSH-" { Ok(()) } else { Err(std::io::Error::other("no ssh server")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Role;

    #[test]
    fn a_machine_is_found_by_its_name() {
        let (folder, base) = (Folder::new(Path::new("/lab")), Base::at(Path::new("/lab")));
        let text = config(&folder, &base, &[Machine { role: Role::Manager, number: 1 }]);
        assert!(text.starts_with("Host manager-1\n  HostName 10.78.0.11\nHost *\n"), "{text}");
        assert!(text.contains("IdentityFile \"/lab/base.key\""));
        // The program's own placeholder, not ours.
        assert!(text.contains("ControlPath /run/cluster-vm-lab/%n.ssh"));
    }
}
