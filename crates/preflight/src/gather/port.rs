//! Whether a TCP port can be listened at, and who does.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use crate::facts::{Port, PortState, Process};

/// The kernel's number for a listening socket, in its tables of sockets.
const LISTENING: &str = "0A";

pub(super) fn look(address: IpAddr, number: u16) -> Port {
    let state = match TcpListener::bind(SocketAddr::new(address, number)) {
        Ok(_) => PortState::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => PortState::Taken(holder(number)),
        Err(error) => PortState::Refused(error.to_string()),
    };
    Port { number, state }
}

/// The process that listens at the port, if it may be seen.
fn holder(port: u16) -> Option<Process> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter();
    let sockets: Vec<String> = tables
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|text| text.lines().filter_map(|line| listening(line, port)).collect::<Vec<_>>())
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| has_one_of(*pid, &sockets))
        .map(|pid| Process {
            pid,
            command: super::text(format!("/proc/{pid}/comm")).unwrap_or_default(),
        })
}

/// The link of the socket in this line of a table, if it listens at the port.
fn listening(line: &str, port: u16) -> Option<String> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let (state, inode) = (fields.nth(1)?, fields.nth(5)?);
    let (_, at) = local.rsplit_once(':')?;
    let is_it = state == LISTENING && u16::from_str_radix(at, 16) == Ok(port);
    is_it.then(|| format!("socket:[{inode}]"))
}

fn has_one_of(pid: u32, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|link| link.to_str().is_some_and(|link| sockets.iter().any(|socket| socket == link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_is_found() {
        let local = IpAddr::from([127, 0, 0, 1]);
        let listener = TcpListener::bind((local, 0)).unwrap();
        let number = listener.local_addr().unwrap().port();
        match look(local, number).state {
            PortState::Taken(Some(process)) => assert_eq!(process.pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(listener);
        assert_eq!(look(local, number).state, PortState::Free);
        let elsewhere = look(IpAddr::from([192, 0, 2, 1]), number);
        assert!(matches!(elsewhere.state, PortState::Refused(_)), "{elsewhere:?}");
    }
}
