//! What runs the machines' instructions: the processor itself, or qemu in software.
//!
//! `/dev/kvm` may be there and not work, for example where the computer is a virtual machine
//! itself. So it is used only after a kernel has really started on it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::base::Base;
use crate::error::{Error, Result};

/// Where it works, the kernel is there after a second.
const STARTS_WITHIN: Duration = Duration::from_secs(8);
/// What the kernel says once it has started the first program.
const STARTED: &str = "Run /init as init process";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    Kvm,
    Emulation,
}

impl Accelerator {
    pub(crate) fn qemu_args(self) -> [String; 4] {
        let (accel, cpu) = match self {
            Self::Kvm => ("kvm", "host"),
            // Addresses of 57 bits would only make page tables deeper.
            Self::Emulation => ("tcg,thread=multi,tb-size=256", "max,la57=off"),
        };
        ["-accel", accel, "-cpu", cpu].map(str::to_owned)
    }

    /// How much longer than on real machines things may take.
    pub fn patience(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Emulation => 10,
        }
    }

    pub fn shown(self) -> &'static str {
        match self {
            Self::Kvm => "hardware virtualisation (KVM)",
            Self::Emulation => "software emulation (TCG)",
        }
    }
}

/// The best one that works on this computer, by a short boot.
pub(crate) fn probe(base: &Base, scratch: &Path) -> Result<Accelerator> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Emulation);
    }
    let console = scratch.join("kvm-console.log");
    let _ = fs::remove_file(&console);
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-M", "q35", "-m", "256", "-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none"])
        .args(Accelerator::Kvm.qemu_args())
        .arg("-kernel")
        .arg(&base.kernel)
        .arg("-initrd")
        .arg(&base.initrd)
        .args(["-append", "console=ttyS0"])
        .args(["-serial", &format!("file:{}", console.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| Error::Spawn { program: "qemu-system-x86_64".to_owned(), source })?;
    let begin = Instant::now();
    let mut works = false;
    while begin.elapsed() < STARTS_WITHIN && !works && matches!(qemu.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(100));
        works =
            fs::read(&console).is_ok_and(|said| String::from_utf8_lossy(&said).contains(STARTED));
    }
    let _ = qemu.kill();
    let _ = qemu.wait();
    let _ = fs::remove_file(&console);
    Ok(if works { Accelerator::Kvm } else { Accelerator::Emulation })
}
