//! The commands that health checks run in the server's container.

use std::env;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the server in this container for a page; success is its status 200.
pub fn ask(port: u16, path: Option<&str>) -> ExitCode {
    match get(port, path.unwrap_or("/health")) {
        Ok(head) if head.starts_with("HTTP/1.1 200 ") => ExitCode::SUCCESS,
        Ok(head) => {
            println!("{}", head.lines().next().unwrap_or_default());
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("no answer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn get(port: u16, path: &str) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Never ends, and starts a child that does not either.
pub fn hang() -> ExitCode {
    if env::args().nth(2).is_none() {
        // The child is left alone on purpose: whoever ends this process has to end it too.
        if let Err(error) = Command::new("/web").args(["hang", "child"]).spawn() {
            println!("no child: {error}");
        }
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
