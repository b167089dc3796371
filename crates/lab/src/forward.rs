//! Loopback ports of the machine that lead into the lab.
//!
//! *Flow.* `__forward NAMESPACE LISTEN=TARGET[,TARGET…]…` binds every LISTEN outside, prints the
//! bound addresses in order, then `ready`, and serves until killed. Each connection is made from
//! inside the client's namespace to the first target that answers, starting at the next one in
//! turn. *Guarantees.* It listens on loopback only; connections at once are bounded.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;

use crate::enter::Entry;
use crate::error::{Error, Result};
use crate::netns;
use crate::process::Identity;

const MAX_CONNECTIONS: usize = 512;
const CONNECT_WITHIN: Duration = Duration::from_millis(800);
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
const STACK_BYTES: usize = 128 * 1024;

/// One listening address and where its connections may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub listen: SocketAddr,
    pub targets: Vec<SocketAddr>,
}

impl Mapping {
    fn argument(&self) -> String {
        let targets: Vec<_> = self.targets.iter().map(SocketAddr::to_string).collect();
        format!("{}={}", self.listen, targets.join(","))
    }

    fn parse(text: &str) -> Option<Self> {
        let (listen, targets) = text.split_once('=')?;
        let targets =
            targets.split(',').map(|target| target.parse().ok()).collect::<Option<_>>()?;
        let mapping = Self { listen: listen.parse().ok()?, targets };
        mapping.listen.ip().is_loopback().then_some(mapping)
    }
}

/// Starts the process; returns it and the bound addresses in the order of the mappings.
pub(crate) fn start(
    helper: &Path,
    namespace: &str,
    cgroup: &Path,
    mappings: &[Mapping],
) -> Result<(Identity, Vec<SocketAddr>)> {
    let mut command = Command::new(helper);
    command
        .args(["lab", "__forward"])
        .arg(netns::path(namespace))
        .args(mappings.iter().map(Mapping::argument))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Entry::default().new_session().cgroup(cgroup)?.apply(&mut command);
    let program = helper.display().to_string();
    let spawn_error = |source| Error::Spawn { program: program.clone(), source };
    let child = command.spawn().map_err(spawn_error)?;
    let pid = child.id();
    // It lets go of its output when it listens, so this ends although the process does not.
    let mut output = String::new();
    if let Some(mut stdout) = child.stdout {
        io::Read::read_to_string(&mut stdout, &mut output).map_err(spawn_error)?;
    }
    let failed = |reason: &str| Error::NodeInit {
        node: "the port forwarder".to_owned(),
        reason: reason.to_owned(),
    };
    if let Some(reason) = output.lines().find_map(|line| line.strip_prefix("error ")) {
        return Err(failed(reason));
    }
    let bound: Vec<SocketAddr> = output.lines().filter_map(|line| line.parse().ok()).collect();
    let identity = i32::try_from(pid).ok().and_then(Identity::of);
    match identity {
        Some(identity) if bound.len() == mappings.len() => Ok((identity, bound)),
        _ => Err(failed(output.trim())),
    }
}

/// `__forward`; returns the exit code, which only happens on errors.
pub fn forward_main(args: &[String]) -> i32 {
    match serve(args) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stdout().lock(), "error {error}");
            1
        }
    }
}

fn serve(args: &[String]) -> io::Result<()> {
    let usage =
        || io::Error::new(io::ErrorKind::InvalidInput, "usage: __forward NAMESPACE LISTEN=TARGET…");
    let (namespace, mappings) = args.split_first().ok_or_else(usage)?;
    let mappings: Vec<Mapping> = mappings
        .iter()
        .map(|text| Mapping::parse(text).ok_or_else(usage))
        .collect::<io::Result<_>>()?;
    let namespace = Arc::new(File::open(namespace)?);
    let open = Arc::new(AtomicUsize::new(0));
    let mut servers = Vec::new();
    let mut bound = String::new();
    for mapping in mappings {
        let listener = TcpListener::bind(mapping.listen).map_err(|error| {
            io::Error::new(error.kind(), format!("listening on {}: {error}", mapping.listen))
        })?;
        bound.push_str(&format!("{}\n", listener.local_addr()?));
        let (namespace, open) = (Arc::clone(&namespace), Arc::clone(&open));
        servers.push(thread::spawn(move || accept(&listener, &mapping.targets, &namespace, &open)));
    }
    io::stdout().lock().write_all(format!("{bound}ready\n").as_bytes())?;
    let null = File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    // Nothing of the terminal's concerns us; only SIGKILL and SIGTERM end this process.
    SigSet::empty().thread_set_mask()?;
    for server in servers {
        let _ = server.join();
    }
    Ok(())
}

struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn accept(
    listener: &TcpListener,
    targets: &[SocketAddr],
    namespace: &Arc<File>,
    open: &Arc<AtomicUsize>,
) {
    let mut turn = 0usize;
    for outside in listener.incoming() {
        let Ok(outside) = outside else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let slot = Slot(Arc::clone(open));
        if open.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
            continue;
        }
        turn = turn.wrapping_add(1);
        let mut order = targets.to_vec();
        order.rotate_left(turn % targets.len().max(1));
        let namespace = Arc::clone(namespace);
        // A connection that cannot be made or breaks is closed, which is all a client needs.
        let _ = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            let _ = carry(&outside, &order, &namespace);
            drop(slot);
        });
    }
}

fn carry(outside: &TcpStream, targets: &[SocketAddr], namespace: &File) -> io::Result<()> {
    netns::enter_thread(namespace)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for target in targets {
        match TcpStream::connect_timeout(target, CONNECT_WITHIN) {
            Ok(inside) => return both_ways(outside, &inside),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn both_ways(outside: &TcpStream, inside: &TcpStream) -> io::Result<()> {
    outside.set_nodelay(true)?;
    inside.set_nodelay(true)?;
    thread::scope(|scope| {
        scope.spawn(|| one_way(outside, inside));
        one_way(inside, outside);
    });
    Ok(())
}

/// Copies until the end of `from`, then passes that end on.
fn one_way(mut from: &TcpStream, mut to: &TcpStream) {
    let copied = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    if copied.is_err() {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_survives_the_command_line() {
        let mapping = Mapping {
            listen: "127.0.0.1:8080".parse().unwrap(),
            targets: vec!["10.77.0.21:80".parse().unwrap(), "10.77.0.22:80".parse().unwrap()],
        };
        assert_eq!(Mapping::parse(&mapping.argument()), Some(mapping));
    }

    #[test]
    fn only_loopback_is_listened_on() {
        assert_eq!(Mapping::parse("0.0.0.0:8080=10.77.0.21:80"), None);
        assert_eq!(Mapping::parse("127.0.0.1:8080="), None);
        assert_eq!(Mapping::parse("nonsense"), None);
    }
}
