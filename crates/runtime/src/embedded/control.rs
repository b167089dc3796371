//! Talking to a shim.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::error::{Error, Result};
use crate::observe::Exit;
use crate::shim::protocol::{Reply, Request};
use crate::spec::ContainerId;

/// A shim answers within milliseconds; its own helpers give up after 30 s.
const PATIENCE: Duration = Duration::from_secs(40);
/// Longest reply.
const MAX_REPLY: u64 = 1 << 20;

/// One request, one reply.
pub async fn ask(
    socket: &Path,
    request: &Request,
    action: &'static str,
    id: &ContainerId,
) -> Result<Reply> {
    let asked = async {
        let mut stream = connect(socket, request).await?;
        read_reply(&mut stream).await
    };
    let answered = tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    answered.map_err(|source| Error::Shim { id: id.clone(), action, source })
}

/// Resolves when the container ended; fails when the shim is gone.
pub async fn wait_exit(socket: &Path) -> io::Result<Exit> {
    let mut stream = connect(socket, &Request::Wait).await?;
    match read_reply(&mut stream).await? {
        Reply::Exited(exit) => Ok(exit),
        other => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("the shim answered {other:?}")))
        }
    }
}

/// Reads one reply.
pub async fn read_reply(stream: &mut BufReader<UnixStream>) -> io::Result<Reply> {
    let mut line = Vec::new();
    stream.take(MAX_REPLY).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the shim hung up"));
    }
    serde_json::from_slice(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A request as it goes over the wire.
pub fn encode(request: &Request) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

async fn connect(socket: &Path, request: &Request) -> io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&encode(request)?).await?;
    Ok(BufReader::with_capacity(512, stream))
}
