//! Docker's default system call filter, as BPF for libcontainer and as OCI JSON for runc.
//!
//! libcontainer without its C library accepts a profile and ignores it, and its exec drops it. So
//! the filter is compiled here and installed by our own [`GuardedExecutor`](super::executor::GuardedExecutor), for the first process
//! and for every exec, as the last step before the command. If it cannot be installed, nothing runs.
//!
//! Two stacked filters: the allow-list (default EPERM), and on top one that answers ENOSYS to
//! `clone3` and to calls newer than the list, so that libc falls back instead of failing. The
//! kernel takes the newest of equally strict answers, hence the order in [`install`].

mod profile;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use serde_json::{Value, json};

pub use profile::ALLOWED;

/// Flags of `clone` that make namespaces; calls with any of them are refused.
const CLONE_NAMESPACE_FLAGS: u64 = 0x7E02_0000;
/// Execution domains `personality` may set.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The filter could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The allow-list does not compile.
    #[error("compile the system call filter")]
    Compile(#[source] seccompiler::BackendError),
    /// There is no table for this processor.
    #[error("there is no system call filter for {0}")]
    Architecture(&'static str),
}

/// Both programs, ready to be installed.
#[derive(Clone)]
pub struct Filters {
    allow: BpfProgram,
    newer: BpfProgram,
}

impl Filters {
    /// Compiles the profile for this machine.
    pub fn compile() -> Result<Self, Error> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)
            .map_err(|_| Error::Architecture(std::env::consts::ARCH))?;
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            ALLOWED.iter().map(|(_, number)| (*number, Vec::new())).collect();
        // `clone3` is allowed here only so that the filter on top decides it.
        rules.insert(libc::SYS_clone3, Vec::new());
        for (number, conditions) in conditional() {
            rules.insert(number, conditions.map_err(Error::Compile)?);
        }
        let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let allow = SeccompFilter::new(rules, denied, SeccompAction::Allow, arch)
            .and_then(BpfProgram::try_from)
            .map_err(Error::Compile)?;
        Ok(Self { allow, newer: answer_enosys() })
    }

    /// Confines this process for good. Both or an error.
    pub fn install(&self) -> Result<(), seccompiler::Error> {
        seccompiler::apply_filter(&self.allow)?;
        seccompiler::apply_filter(&self.newer)
    }
}

type Rules = Result<Vec<SeccompRule>, seccompiler::BackendError>;

/// Calls that are allowed only with certain arguments.
fn conditional() -> Vec<(i64, Rules)> {
    let rule = |argument, length, operator, value| {
        SeccompRule::new(vec![SeccompCondition::new(argument, length, operator, value)?])
    };
    let personalities = PERSONALITIES
        .iter()
        .map(|value| rule(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value))
        .collect();
    let no_namespaces =
        rule(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(CLONE_NAMESPACE_FLAGS), 0)
            .map(|rule| vec![rule]);
    let not_vsock =
        rule(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, libc::AF_VSOCK.unsigned_abs().into())
            .map(|rule| vec![rule]);
    vec![
        (libc::SYS_personality, personalities),
        (libc::SYS_clone, no_namespaces),
        (libc::SYS_socket, not_vsock),
    ]
}

/// `clone3` and numbers beyond the list give ENOSYS, all else passes on to the allow-list. On
/// x86-64 that covers the x32 numbers too.
fn answer_enosys() -> BpfProgram {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let newest = ALLOWED.iter().map(|(_, number)| *number).max().unwrap_or(libc::SYS_clone3);
    let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
    vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 }, // offset 0 of seccomp_data is the call's number
        sock_filter { code: JUMP_EQUAL, jt: 2, jf: 0, k: number(libc::SYS_clone3) },
        sock_filter { code: JUMP_GREATER, jt: 1, jf: 0, k: number(newest) },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
        sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
        },
    ]
}

/// The same profile in the form runc reads.
pub fn oci_profile() -> Value {
    let arches: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64"],
        "aarch64" => &["SCMP_ARCH_AARCH64"],
        _ => &[],
    };
    let names: Vec<&str> = ALLOWED
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !matches!(*name, "personality" | "clone" | "socket" | "clone3"))
        .collect();
    let allow = |name: &str, args: Value| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": args});
    let mut calls = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    for value in PERSONALITIES {
        calls
            .push(allow("personality", json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}])));
    }
    let masked = json!([{"index": 0, "value": CLONE_NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
    calls.push(allow("clone", masked));
    calls
        .push(allow("socket", json!([{"index": 0, "value": libc::AF_VSOCK, "op": "SCMP_CMP_NE"}])));
    calls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": arches,
        "syscalls": calls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_compiles_and_keeps_dangerous_calls_out() {
        let filters = Filters::compile().expect("the profile compiles");
        assert!(filters.allow.len() > ALLOWED.len());
        for name in [
            "mount",
            "umount2",
            "pivot_root",
            "setns",
            "unshare",
            "bpf",
            "keyctl",
            "add_key",
            "init_module",
            "kexec_load",
            "reboot",
            "swapon",
            "open_by_handle_at",
            "perf_event_open",
            "userfaultfd",
            "io_uring_setup",
            "open_tree",
            "move_mount",
            "fsopen",
            "clone3",
            "socket",
            "personality",
            "clone",
        ] {
            assert!(
                ALLOWED.iter().all(|(allowed, _)| *allowed != name),
                "{name} is allowed without a condition"
            );
        }
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut numbers: Vec<i64> = ALLOWED.iter().map(|(_, number)| *number).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }
}
