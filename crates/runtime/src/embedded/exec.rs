//! The runtime's side of an exec: three pipes, whose far ends go to the shim with the request.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt;
use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::pipe2;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::embedded::entry::Entry;
use crate::embedded::{blocking, control, unexpected};
use crate::error::{Error, Result};
use crate::exec::{ExecExit, ExecSession, ExecSpec};
use crate::shim::protocol::{ExecRequest, MAX_LINE, Reply, Request};

/// Sending to a shim that does not read fails after this.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// Starts the process and gives its ends.
pub async fn run(entry: &Entry, exec: ExecSpec) -> Result<ExecSession> {
    let id = entry.spec.id.clone();
    let refused = |reason: String| Error::Refused { id: id.clone(), action: "exec", reason };
    if exec.args.first().is_none_or(|program| program.is_empty()) {
        return Err(refused("there is no command".to_owned()));
    }
    let broken = |source| Error::Shim { id: id.clone(), action: "exec", source };
    let wants_stdin = exec.stdin;
    let request = Request::Exec(ExecRequest {
        args: exec.args,
        env: exec.env,
        workdir: exec.workdir,
        user: exec.user,
        whole: exec.whole,
    });
    let line = control::encode(&request).map_err(broken)?;
    if line.len() > MAX_LINE {
        return Err(refused(format!("arguments and environment exceed {MAX_LINE} bytes")));
    }
    let pipes = Pipes::open(wants_stdin).map_err(broken)?;
    let (far, near) = pipes.split().map_err(broken)?;
    let socket = entry.socket.clone();
    let send_id = id.clone();
    let stream = blocking("exec", move || {
        send(&socket, &line, &far).map_err(|source| Error::Shim {
            id: send_id,
            action: "exec",
            source,
        })
    })
    .await?;
    let stream = UnixStream::from_std(stream).map_err(broken)?;
    let mut stream = BufReader::with_capacity(512, stream);
    match control::read_reply(&mut stream).await.map_err(broken)? {
        Reply::Pid { .. } => {}
        reply => return Err(unexpected(&id, "exec", reply)),
    }
    let exit = async move {
        match control::read_reply(&mut stream).await {
            Ok(Reply::ExecExited { code, signal }) => Ok(ExecExit { code, signal }),
            Ok(reply) => Err(unexpected(&id, "exec", reply)),
            // The shim left with the container, or was lost: nobody knows the code.
            Err(_) => Ok(ExecExit { code: None, signal: None }),
        }
    };
    Ok(ExecSession {
        stdin: near.stdin,
        stdout: near.stdout,
        stderr: near.stderr,
        exit: exit.boxed(),
    })
}

struct Pipes {
    stdin: Option<(OwnedFd, OwnedFd)>,
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

struct Near {
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    stderr: Box<dyn AsyncRead + Send + Unpin>,
}

impl Pipes {
    fn open(stdin: bool) -> io::Result<Self> {
        let make = || pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from);
        Ok(Self { stdin: stdin.then(make).transpose()?, stdout: make()?, stderr: make()? })
    }

    /// The ends for the process, and ours.
    fn split(self) -> io::Result<([OwnedFd; 3], Near)> {
        let (far_stdin, stdin) = match self.stdin {
            Some((reader, writer)) => {
                let writer: Box<dyn AsyncWrite + Send + Unpin> =
                    Box::new(pipe::Sender::from_owned_fd(writer)?);
                (reader, Some(writer))
            }
            None => (std::fs::File::open("/dev/null")?.into(), None),
        };
        let stdout = Box::new(pipe::Receiver::from_owned_fd(self.stdout.0)?);
        let stderr = Box::new(pipe::Receiver::from_owned_fd(self.stderr.0)?);
        Ok(([far_stdin, self.stdout.1, self.stderr.1], Near { stdin, stdout, stderr }))
    }
}

fn send(socket: &Path, line: &[u8], fds: &[OwnedFd; 3]) -> io::Result<BlockingStream> {
    use std::io::Write;
    let mut stream = BlockingStream::connect(socket)?;
    stream.set_write_timeout(Some(SEND_PATIENCE))?;
    let raw = fds.each_ref().map(AsRawFd::as_raw_fd);
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(line)],
        &[ControlMessage::ScmRights(&raw)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    stream.write_all(&line[sent..])?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
