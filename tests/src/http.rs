//! The plainest HTTP client: one GET on one connection, bounded.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Status and body. Call it inside the client's namespace.
pub fn get(address: Ipv4Addr, port: u16, path: &str) -> Result<(u16, String), String> {
    get_within(address, port, path, TIMEOUT)
}

/// As [`get`], with a patience of one's own.
pub fn get_within(
    address: Ipv4Addr,
    port: u16,
    path: &str,
    patience: Duration,
) -> Result<(u16, String), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((address, port)), TIMEOUT).map_err(text)?;
    stream.set_read_timeout(Some(patience)).map_err(text)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(text)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no end of head")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status")?;
    Ok((status, body.to_owned()))
}
