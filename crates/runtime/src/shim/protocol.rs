//! What the runtime and a shim say to each other: one JSON object per line over a unix socket.
//!
//! Every request gets one [`Reply`]. `Wait` gets it when the container ended; `Exec` carries three
//! descriptors (stdin, stdout, stderr) and gets two replies: started, then ended. Closing the
//! connection of an exec kills its process; nothing else depends on a connection staying open.

use serde::{Deserialize, Serialize};

use crate::observe::{Exit, State};
use crate::signal::Signal;

/// Longest accepted line; an exec's environment is the only thing that can grow.
pub const MAX_LINE: usize = 4 << 20;

/// What the runtime asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Execute the command of a created container.
    Start,
    /// Signal its first process.
    Kill(Signal),
    /// Where it is in its life.
    State,
    /// Answer once it ended.
    Wait,
    /// Run one more process; see [`ExecRequest`].
    Exec(ExecRequest),
}

/// What to run. `Debug` shows no values of the environment.
#[derive(Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<(String, String)>,
    /// Replaces the working folder.
    pub workdir: Option<std::path::PathBuf>,
    /// Replaces the user.
    pub user: Option<String>,
    /// Its descendants end with it. An older worker does not say it.
    #[serde(default)]
    pub whole: bool,
}

impl std::fmt::Debug for ExecRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecRequest").field("args", &self.args).finish_non_exhaustive()
    }
}

/// What the shim answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Done,
    /// Answer to `Start`, and the shim's first line on stdout once the container is created.
    Pid {
        /// First process.
        pid: u32,
        /// When it happened.
        at_unix_ms: u64,
    },
    /// Answer to `State`.
    State {
        /// Where it is.
        state: State,
        /// First process.
        pid: u32,
        /// When it was created.
        created_unix_ms: u64,
        /// When it was started.
        started_unix_ms: Option<u64>,
    },
    /// Answer to `Wait`.
    Exited(Exit),
    /// Last answer to `Exec`.
    ExecExited {
        /// Exit code.
        code: Option<u8>,
        /// Signal that ended it.
        signal: Option<u8>,
    },
    /// It makes no sense in this state.
    WrongState(State),
    /// It failed.
    Failed(String),
}
