//! One more process in a running container.

use std::fmt;
use std::path::PathBuf;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Result;

/// What to run. Environment, user, working folder, capabilities and system call filter are the
/// container's own unless overridden here. `Debug` never shows values of the environment.
#[derive(Clone, Default, PartialEq)]
pub struct ExecSpec {
    /// Program and arguments; at least the program.
    pub args: Vec<String>,
    /// Added to the container's environment, later entries win.
    pub env: Vec<(String, String)>,
    /// Replaces the container's working folder.
    pub workdir: Option<PathBuf>,
    /// Replaces the container's user, same form as in the spec.
    pub user: Option<String>,
    /// Give the process an open stdin; without it stdin is empty.
    pub stdin: bool,
    /// Its descendants end with it: when it ends by itself and when `exit` is dropped, wherever
    /// they are by then. Otherwise only the process itself is killed, and only by dropping.
    pub whole: bool,
}

impl ExecSpec {
    /// Runs `args` with the container's defaults.
    pub fn new<I: IntoIterator<Item = S>, S: Into<String>>(args: I) -> Self {
        Self { args: args.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

impl fmt::Debug for ExecSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSpec").field("args", &self.args).finish_non_exhaustive()
    }
}

/// How an exec ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecExit {
    /// Exit code, if it ended by itself; unknown when both are `None`.
    pub code: Option<u8>,
    /// Signal that ended it.
    pub signal: Option<u8>,
}

/// A running exec. Dropping `exit` kills the process. Read the outputs to their ends *and* await
/// `exit`: the outputs are pipes, a process that fills one waits for its reader.
pub struct ExecSession {
    /// Write end of stdin when asked for; dropping it is end of input.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Everything it writes to stdout.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Everything it writes to stderr.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// Resolves when the process ended.
    pub exit: BoxFuture<'static, Result<ExecExit>>,
}
