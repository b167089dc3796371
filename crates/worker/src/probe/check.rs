//! One check: a command in the container, a GET or a connection to one of its ports.
//!
//! *Guarantees*: over after `timeout`; what a command forked is gone by then, or killed then.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use cluster_daemon::chain;
use cluster_model::spec::Check;
use cluster_runtime::{ContainerId, ExecSession, ExecSpec};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

use crate::node::Node;

/// Output of a command that is kept, of each stream.
const OUTPUT_BYTES_MAX: usize = 4096;
/// Characters of it that people see.
const SHOWN_MAX: usize = 200;
/// What a command has written may still be on its way when it ended.
const REST_MAX: Duration = Duration::from_millis(200);

/// The runtime may take so long to start a command before nobody waits for it any more; well before
/// that the node says that its runtime does not answer.
const START_MAX: Duration = Duration::from_secs(60);

/// Why a check did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The container's own.
    Container(String),
    /// The node could not make the check, so it says nothing about the container.
    Node(String),
}

/// Makes one check; an error says what was wrong.
pub async fn run(
    node: &Node,
    id: &ContainerId,
    ip: Option<Ipv4Addr>,
    check: &Check,
    timeout: Duration,
) -> Result<(), Fault> {
    let address = |port: u16| match ip {
        Some(ip) => Ok(SocketAddr::from((ip, port))),
        None => Err(Fault::Container("the container has no network any more".to_owned())),
    };
    let (what, checked) = match check {
        Check::Exec(command) => {
            let what = command.first().cloned().unwrap_or_default();
            // Neither waiting for its turn nor a slow runtime is the container's fault.
            let session = match start(node, id, command).await {
                Ok(session) => session,
                Err(Fault::Container(why)) => {
                    return Err(Fault::Container(format!("{what}: {why}")));
                }
                Err(Fault::Node(why)) => return Err(Fault::Node(format!("{what}: {why}"))),
            };
            (what, tokio::time::timeout(timeout, exec(session)).await)
        }
        Check::Http { port, path } => {
            let address = address(*port)?;
            let what = format!("GET http://{address}{path}");
            (what, tokio::time::timeout(timeout, get(address, path)).await.map(own))
        }
        Check::Tcp { port } => {
            let address = address(*port)?;
            let connecting = async {
                let connected = TcpStream::connect(address).await;
                connected.map(|_| ()).map_err(|error| error.to_string())
            };
            let what = format!("connecting to {address}");
            (what, tokio::time::timeout(timeout, connecting).await.map(own))
        }
    };
    match checked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Fault::Container(why))) => Err(Fault::Container(format!("{what}: {why}"))),
        Ok(Err(Fault::Node(why))) => Err(Fault::Node(format!("{what}: {why}"))),
        Err(_) => Err(Fault::Container(format!("{what}: no answer within {timeout:?}"))),
    }
}

fn own(said: Result<(), String>) -> Result<(), Fault> {
    said.map_err(Fault::Container)
}

async fn start(node: &Node, id: &ContainerId, command: &[String]) -> Result<ExecSession, Fault> {
    // Never closed.
    let _place = node.probing.acquire().await.ok();
    let spec = ExecSpec { whole: true, ..ExecSpec::new(command.iter().cloned()) };
    let starting = tokio::time::timeout(START_MAX, node.parts.runtime.exec(id, spec));
    match node.health.watch(format!("start of a probe in {id}"), starting).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(error)) if error.blames_command() => Err(Fault::Container(chain(&error))),
        Ok(Err(error)) => Err(Fault::Node(chain(&error))),
        Err(_) => Err(Fault::Node(format!("the runtime did not start it within {START_MAX:?}"))),
    }
}

/// Dropping this kills the command and whatever it forked.
async fn exec(session: ExecSession) -> Result<(), Fault> {
    let ExecSession { stdout, stderr, mut exit, .. } = session;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = {
        let reading = async { tokio::join!(read(stdout, &mut out), read(stderr, &mut err)) };
        tokio::pin!(reading);
        tokio::select! {
            ended = &mut exit => {
                let _ = tokio::time::timeout(REST_MAX, reading).await;
                ended
            }
            _ = &mut reading => exit.await,
        }
    };
    let exit = ended.map_err(|error| Fault::Node(chain(&error)))?;
    if exit.code == Some(0) {
        return Ok(());
    }
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => return Err(Fault::Node("ended with an unknown code".to_owned())),
    };
    out.extend_from_slice(&err);
    match shown(&out) {
        text if text.is_empty() => Err(Fault::Container(how)),
        text => Err(Fault::Container(format!("{how}: {text}"))),
    }
}

/// Reads to the end, so that the writer never waits, and keeps the beginning.
async fn read(mut from: impl AsyncRead + Unpin, into: &mut Vec<u8>) {
    let mut chunk = [0; 1024];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let room = OUTPUT_BYTES_MAX.saturating_sub(into.len());
        into.extend_from_slice(&chunk[..length.min(room)]);
    }
}

/// On one line, the end of it: that is where programs say what is wrong.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let surplus = line.chars().count().saturating_sub(SHOWN_MAX);
    line.chars().skip(surplus).filter(|c| !c.is_control()).collect()
}

/// Redirections are not followed: they are an answer.
async fn get(address: SocketAddr, path: &str) -> Result<(), String> {
    // Anything else would not be a path but another form of request.
    let slash = if path.starts_with('/') { "" } else { "/" };
    let request = hyper::Request::get(format!("{slash}{path}"))
        .header(hyper::header::HOST, address.to_string())
        .header(hyper::header::USER_AGENT, "cluster-worker")
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let connection = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connection.map_err(|error| chain(&error))?;
    tokio::pin!(connection);
    let asked = sender.send_request(request);
    tokio::pin!(asked);
    let answer = tokio::select! {
        answer = &mut asked => answer,
        // Closed: what was answered before is answered still.
        _ = &mut connection => asked.await,
    };
    let status = answer.map_err(|error| chain(&error))?.status();
    match status.as_u16() {
        200..=399 => Ok(()),
        _ => Err(format!("status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn statuses_decide() {
        for (answer, error) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
            ("HTTP/1.0 204 No Content\r\n\r\n", None),
            ("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", None),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Some("status 404 Not Found")),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Some("status 503")),
            ("SSH-2.0-x\r\n", Some("invalid HTTP version")),
            ("", Some("")),
        ] {
            let got = get(answering(answer).await, "/health?full=1").await;
            match error {
                None => assert_eq!(got, Ok(()), "{answer:?}"),
                Some(text) => assert!(got.as_ref().unwrap_err().contains(text), "{got:?}"),
            }
        }
    }

    #[test]
    fn output_is_shown_on_one_line_from_its_end() {
        assert_eq!(shown(b" a\n\tb \x07\n"), "a b ");
        let long = "x".repeat(500) + "the reason";
        assert!(shown(long.as_bytes()).ends_with("the reason"));
        assert_eq!(shown(long.as_bytes()).chars().count(), SHOWN_MAX);
    }
}
