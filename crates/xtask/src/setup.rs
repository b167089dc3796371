//! What real containers and a real registry need on the machine, and getting it.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::cargo;

/// A program, the Debian package that has it, and what it is for.
pub struct Tool {
    pub program: &'static str,
    pub package: &'static str,
    pub purpose: &'static str,
}

/// What a lab needs.
pub const LAB: &[Tool] = &[
    Tool { program: "ip", package: "iproute2", purpose: "the lab's network" },
    Tool { program: "nft", package: "nftables", purpose: "published ports and partitions" },
    Tool { program: "curl", package: "curl", purpose: "asking the web app" },
];

/// What virtual machines need on top of a lab.
pub const MACHINES: &[Tool] = &[
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        purpose: "running virtual machines",
    },
    Tool { program: "qemu-img", package: "qemu-utils", purpose: "the machines' disks" },
    Tool { program: "mmdebstrap", package: "mmdebstrap", purpose: "the machines' system" },
    Tool { program: "mke2fs", package: "e2fsprogs", purpose: "the machines' file system" },
    Tool { program: "ssh", package: "openssh-client", purpose: "getting into the machines" },
];

/// What counts instructions.
pub const VALGRIND: &[Tool] =
    &[Tool { program: "valgrind", package: "valgrind", purpose: "counting instructions" }];

/// What the tests need on top.
pub const TESTS: &[Tool] = &[
    Tool {
        program: "docker-registry",
        package: "docker-registry",
        purpose: "pulling from a real registry",
    },
    Tool { program: "runc", package: "runc", purpose: "the second container backend" },
    Tool {
        program: "update-ca-certificates",
        package: "ca-certificates",
        purpose: "the registry client's roots of trust",
    },
    Tool {
        program: "busybox",
        package: "busybox-static",
        purpose: "images of the runtime's tests",
    },
];

/// Installs what is missing; without root or apt it says precisely what to install.
pub fn ensure(tools: &[&[Tool]]) -> Result<()> {
    if !is_root() {
        bail!(
            "real containers, namespaces and port 80 need root: run it again as root (`sudo -E env PATH=$PATH cargo xtask …`)"
        );
    }
    programs(tools)
}

/// The same for what needs no root once it is installed.
pub fn programs(tools: &[&[Tool]]) -> Result<()> {
    let missing: Vec<&Tool> =
        tools.iter().copied().flatten().filter(|tool| !installed(tool.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        eprintln!(
            "    {} is missing (package {}), needed for {}",
            tool.program, tool.package, tool.purpose
        );
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    if !is_root() {
        bail!("install them as root: `apt-get install {}`", packages.join(" "));
    }
    if !installed("apt-get") {
        bail!("this machine has no apt: install {} yourself", packages.join(", "));
    }
    install(&packages)?;
    keep_registry_quiet(&packages);
    let still: Vec<_> =
        missing.iter().filter(|tool| !installed(tool.program)).map(|tool| tool.program).collect();
    if !still.is_empty() {
        bail!("{} still missing after installing {}", still.join(", "), packages.join(", "));
    }
    Ok(())
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        command
    };
    let mut args = vec!["install", "--yes", "--no-install-recommends"];
    args.extend(packages);
    // Lists may be absent or stale on a fresh machine; only then is the slow update worth it.
    if cargo::run(apt(&args).stderr(Stdio::null())).is_ok() {
        return Ok(());
    }
    cargo::run(&mut apt(&["update"]))?;
    cargo::run(&mut apt(&args))
}

/// Debian starts a registry on all addresses when the package is installed; the tests start
/// their own on loopback, and a test command has no business leaving a service behind.
fn keep_registry_quiet(installed_now: &[&str]) {
    if installed_now.contains(&"docker-registry") && Path::new("/run/systemd/system").is_dir() {
        let _ = Command::new("systemctl").args(["disable", "--now", "docker-registry"]).status();
    }
}

pub fn installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Into::into);
    env::split_paths(&path).chain(sbin).any(|folder| folder.join(program).is_file())
}

fn is_root() -> bool {
    // Effective ids are the second of the four that the kernel lists.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_ascii_whitespace().nth(1)) == Some("0")
}
