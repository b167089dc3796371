//! What a runtime tells: states, exits, events, usage.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::spec::ContainerId;

/// What a runtime can do beyond the basics; callers and the contract suite ask before they use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// `exec` works.
    pub exec: bool,
    /// `stats` works.
    pub stats: bool,
    /// `update` works on a running container.
    pub update: bool,
    /// An exit by lack of memory is recognised.
    pub oom: bool,
    /// The container waits, its namespaces made, between `create` and `start`.
    pub create_start_split: bool,
    /// Real processes run: files, signals, isolation and limits have effect.
    pub real: bool,
    /// Containers outlive the runtime object and `recover` finds them again.
    pub survives_agent: bool,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, if it ended by itself. With `signal` also `None` the code is unknown; it is
    /// never made up.
    pub code: Option<u8>,
    /// Signal number that ended it.
    pub signal: Option<u8>,
    /// The kernel killed something in it for lack of memory. The cause of the exit only if
    /// `signal` is 9; see [`Exit::oom_killed`].
    pub oom: bool,
    /// When, in milliseconds since the epoch, by this machine's clock.
    pub at_unix_ms: u64,
    /// How we know.
    pub source: ExitSource,
}

impl Exit {
    /// It ended by itself with code 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// Its first process was killed for lack of memory.
    pub fn oom_killed(&self) -> bool {
        self.oom && self.signal == Some(9)
    }

    /// The code a shell would show: 128 + signal for a signal, `None` when unknown.
    pub fn shell_code(&self) -> Option<u8> {
        self.code.or(self.signal.map(|signal| signal.saturating_add(128)))
    }
}

/// How an exit became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitSource {
    /// Seen while this runtime object was watching.
    Observed,
    /// It happened while nobody watched; the shim wrote it down.
    Replayed,
    /// The shim was lost, so the code may be unknown.
    ShimLost,
    /// The machine was restarted under it.
    Reboot,
}

/// Where a container is in its life; only forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Set up, its command not yet executed.
    Created,
    /// Its command was executed and has not ended.
    Running,
    /// Ended; stays so until removed.
    Exited(Exit),
}

impl State {
    /// How it ended, if it did.
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Self::Exited(exit) => Some(*exit),
            Self::Created | Self::Running => None,
        }
    }
}

/// A container as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Its id.
    pub id: ContainerId,
    /// Where it is in its life.
    pub state: State,
    /// Its first process, while it lives (host pid; simulated runtimes make one up).
    pub pid: Option<u32>,
    /// From the spec.
    pub labels: BTreeMap<String, String>,
    /// When it was created, milliseconds since the epoch.
    pub created_unix_ms: u64,
    /// When it was started.
    pub started_unix_ms: Option<u64>,
}

/// Answer of `create`: the container waits before its command.
#[derive(Clone, Debug, PartialEq)]
pub struct Created {
    /// Its first process.
    pub pid: u32,
    /// Its network namespace, to be wired before `start`.
    pub netns: PathBuf,
}

/// Answer of `start`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Started {
    /// Its first process.
    pub pid: u32,
    /// When, milliseconds since the epoch.
    pub at_unix_ms: u64,
}

/// A wake-up. The truth is `inspect`; events may repeat, and `Resync` says some were dropped.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `create` succeeded.
    Created(ContainerId),
    /// `start` succeeded.
    Started(ContainerId),
    /// It ended.
    Exited(ContainerId, Exit),
    /// It was removed.
    Removed(ContainerId),
    /// Events were lost: list again.
    Resync,
}

/// Events from the moment of the call; never ends while the runtime object lives.
pub type EventStream = BoxStream<'static, Event>;

/// Usage of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// Its id.
    pub id: ContainerId,
    /// CPU time used so far.
    pub cpu_usage_nanos: u64,
    /// Memory charged now, page cache included.
    pub memory_bytes: u64,
    /// Memory limit, if one is set.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads now.
    pub pids: u64,
}
