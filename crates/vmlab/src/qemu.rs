//! One machine's qemu: what it is started with, whether it runs, and its end.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::base::Base;
use crate::error::{Error, Result};
use crate::exec::{run, tail};
use crate::machine::{Machine, gateway};
use crate::network;
use crate::qmp;
use crate::state::{Folder, State, control_socket, create, remove};

const ENDS_WITHIN: Duration = Duration::from_secs(20);
const LISTENS_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A disk above the base image, unless the machine has one.
pub(crate) fn make_disk(folder: &Folder, base: &Base, name: &str) -> Result<()> {
    let disk = folder.disk(name);
    create(&folder.machine(name))?;
    if disk.exists() {
        return Ok(());
    }
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&base.disk).arg(disk);
    run(&mut command).map(drop)
}

/// Power on. The machine goes on when we end.
pub(crate) fn start(folder: &Folder, base: &Base, state: &State, machine: &Machine) -> Result<()> {
    let name = machine.name();
    remove(&control_socket(&name))?;
    remove(&folder.pid_file(&name))?;
    let log = folder.qemu_log(&name);
    let file = File::create(&log).map_err(|source| Error::file("creating", &log, source))?;
    let copy = file.try_clone().map_err(|source| Error::file("opening", &log, source))?;
    let mut child = network::command("qemu-system-x86_64")
        .args(arguments(folder, base, state, machine))
        .stdin(Stdio::null())
        .stdout(copy)
        .stderr(file)
        // Ctrl-C is for whoever drives the lab.
        .process_group(0)
        .spawn()
        .map_err(|source| Error::Spawn { program: "ip netns exec".to_owned(), source })?;
    let begin = Instant::now();
    while !control_socket(&name).exists() || pid(folder, &name).is_none() {
        if let Ok(Some(_)) = child.try_wait() {
            let said = tail(&fs::read_to_string(&log).unwrap_or_default());
            return Err(Error::Qemu { machine: name, said });
        }
        if begin.elapsed() > LISTENS_WITHIN {
            let _ = child.kill();
            let _ = child.wait();
            let what = format!("start of qemu for {name}");
            let detail = format!("its log is {}", log.display());
            return Err(Error::TimedOut { what, within: LISTENS_WITHIN, detail });
        }
        thread::sleep(POLL);
    }
    // Reaps it whenever it ends, should we still be there.
    thread::spawn(move || child.wait());
    Ok(())
}

fn arguments(folder: &Folder, base: &Base, state: &State, machine: &Machine) -> Vec<String> {
    let name = machine.name();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let (disk, console, pid_file) =
        (folder.disk(&name), folder.console(&name), folder.pid_file(&name));
    let mut args: Vec<String> = state.accelerator.qemu_args().into();
    let mut add = |name: &str, value: String| args.extend([name.to_owned(), value]);
    add("-name", name.clone());
    add("-M", "q35".to_owned());
    add("-smp", "1".to_owned());
    add("-m", state.memory_mb.to_string());
    add("-kernel", path(&base.kernel));
    add("-initrd", path(&base.initrd));
    add("-append", kernel_command_line(machine, state.id));
    // Flushing to the real disk would protect from the loss of this computer, which ends the lab
    // anyway. What a guest has written outlives its own power cut all the same.
    add("-drive", format!("file={},if=virtio,format=qcow2,cache=unsafe", commas(&path(&disk))));
    add("-netdev", format!("tap,id=net,ifname={},script=no,downscript=no", machine.tap()));
    add("-device", format!("virtio-net-pci,netdev=net,mac={}", machine.mac()));
    add("-device", "virtio-rng-pci".to_owned());
    add("-chardev", format!("file,id=console,append=on,path={}", commas(&path(&console))));
    add("-serial", "chardev:console".to_owned());
    add("-qmp", format!("unix:{},server=on,wait=off", path(&control_socket(&name))));
    add("-pidfile", path(&pid_file));
    add("-display", "none".to_owned());
    args.extend(["-nodefaults".to_owned(), "-no-user-config".to_owned()]);
    args
}

/// Name, address and identity reach systemd this way, so that all disks can begin the same.
fn kernel_command_line(machine: &Machine, lab: u64) -> String {
    let (name, address, gateway) = (machine.name(), machine.address(), gateway());
    let words = [
        "root=/dev/vda rw console=ttyS0 loglevel=4 net.ifnames=0 mitigations=off".to_owned(),
        format!("ip={address}::{gateway}:255.255.255.0:{name}:eth0:off"),
        format!("systemd.hostname={name} systemd.machine_id={}", machine.machine_id(lab)),
    ];
    words.join(" ")
}

/// In option strings of qemu a comma is written twice.
fn commas(text: &str) -> String {
    text.replace(',', ",,")
}

/// The process, if it runs and is the one that was started for this machine.
pub(crate) fn pid(folder: &Folder, name: &str) -> Option<i32> {
    let file = folder.pid_file(name);
    let pid = fs::read_to_string(&file).ok()?.trim().parse::<i32>().ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let wanted = file.to_string_lossy().into_owned();
    String::from_utf8_lossy(&line).split('\0').any(|word| word == wanted).then_some(pid)
}

/// Power off without a warning; done when the process is gone. One that is off is fine.
pub(crate) fn cut(folder: &Folder, name: &str) -> Result<()> {
    let Some(process) = pid(folder, name) else {
        return Ok(());
    };
    // A qemu that does not listen is not worth keeping.
    if qmp::quit(name, &control_socket(name)).is_err() {
        let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
    }
    let begin = Instant::now();
    while pid(folder, name).is_some() {
        if begin.elapsed() > ENDS_WITHIN {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
        if begin.elapsed() > 2 * ENDS_WITHIN {
            let what = format!("the end of qemu for {name}");
            let detail = format!("process {process} is still there");
            return Err(Error::TimedOut { what, within: 2 * ENDS_WITHIN, detail });
        }
        thread::sleep(POLL);
    }
    remove(&control_socket(name))?;
    remove(&folder.pid_file(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accelerator::Accelerator;
    use crate::machine::Role;

    fn machine() -> Machine {
        Machine { role: Role::Worker, number: 2 }
    }

    #[test]
    fn the_kernel_is_told_who_it_is() {
        let line = kernel_command_line(&machine(), 0xab);
        for wanted in [
            "root=/dev/vda rw",
            "ip=10.78.0.22::10.78.0.1:255.255.255.0:worker-2:eth0:off",
            "systemd.hostname=worker-2",
            "systemd.machine_id=00000000000000ab0000000000000016",
        ] {
            assert!(line.contains(wanted), "{wanted} in {line}");
        }
    }

    #[test]
    fn qemu_gets_each_option_with_its_value() {
        let folder = Folder::new(Path::new("/lab,1"));
        let base = Base::at(Path::new("/lab,1"));
        let state = State {
            managers: 1,
            workers: 2,
            memory_mb: 640,
            accelerator: Accelerator::Emulation,
            id: 1,
        };
        let args = arguments(&folder, &base, &state, &machine());
        let value = |option: &str| {
            let place = args.iter().position(|arg| arg == option).unwrap();
            args[place + 1].as_str()
        };
        assert_eq!(value("-m"), "640");
        assert_eq!(value("-kernel"), "/lab,1/base.kernel");
        assert!(value("-drive").starts_with("file=/lab,,1/run/worker-2/disk.qcow2,"));
        assert!(value("-netdev").contains("ifname=tap22,"));
        assert_eq!(value("-qmp"), "unix:/run/cluster-vm-lab/worker-2.qmp,server=on,wait=off");
        assert!(value("-accel").starts_with("tcg"));
    }

    #[test]
    fn a_pid_of_another_process_is_not_the_machine() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path());
        create(&folder.machine("worker-2")).unwrap();
        fs::write(folder.pid_file("worker-2"), std::process::id().to_string()).unwrap();
        assert_eq!(pid(&folder, "worker-2"), None);
    }
}
