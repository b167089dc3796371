//! The network between simulated hosts: ordered streams of bytes over links that delay, stall, cut
//! in one direction or both, and reset.
//!
//! Streams behave as TCP does. A lost segment is one that comes late; while a link is cut, what is
//! under way waits and comes after it heals; a program that was killed closes or resets its
//! connections; a machine that lost power says nothing, and only answers with resets once it is
//! back. Everything that happens is decided by the seed and written to the trace.

mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use cluster_identity::net::{Accept, Listener, Network, Socket};
use futures::future::BoxFuture;

use crate::rng::Rng;
use crate::trace::Trace;
use stream::Stream;

pub const MILLI: u64 = 1_000_000;
/// Bytes that may be under way or unread in one direction.
const WINDOW: usize = 256 * 1024;
/// How long a lost segment takes to be sent again.
const RESENT: std::ops::Range<u64> = 200 * MILLI..1_000 * MILLI;
/// A connection that is not answered is tried again after this.
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// How one direction between two hosts is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub cut: bool,
    /// Nanoseconds a segment takes at least and at most.
    pub delay: (u64, u64),
    /// Of a million segments, so many come late.
    pub loss_ppm: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self { cut: false, delay: (MILLI / 10, 2 * MILLI), loss_ppm: 0 }
    }
}

/// One direction of a connection.
struct Pipe {
    from: usize,
    to: usize,
    under_way: VecDeque<(u64, Piece)>,
    unread: VecDeque<u8>,
    /// Bytes under way.
    flying: usize,
    /// The reader has seen the end, or a reset.
    ended: bool,
    reset: bool,
    /// The writing end is gone.
    writer_gone: bool,
    /// The reading end is gone.
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Piece {
    Bytes(Vec<u8>),
    End,
    Reset,
}

struct Waiting {
    backlog: VecDeque<(Socket, SocketAddr)>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Machine {
    /// It has power; otherwise it neither sends nor answers.
    on: bool,
    next_port: u16,
}

struct Inner {
    now: u64,
    rng: Rng,
    trace: Trace,
    machines: Vec<Machine>,
    links: BTreeMap<(usize, usize), Link>,
    listeners: BTreeMap<SocketAddr, Waiting>,
    pipes: BTreeMap<u64, Pipe>,
    next_pipe: u64,
    counts: Counts,
}

/// What the network has done, for the summary of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub connections: u64,
    pub segments: u64,
    pub late: u64,
    pub held_back: u64,
    pub resets: u64,
}

/// All hosts and what connects them; clones share it.
#[derive(Clone)]
pub struct Wires(Arc<Mutex<Inner>>);

/// The address of host number `host`.
pub fn address(host: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(host + 1).unwrap_or(u8::MAX)))
}

fn host_at(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) => usize::from(ip.octets()[3]).checked_sub(1),
        IpAddr::V6(_) => None,
    }
}

impl Wires {
    pub fn new(hosts: usize, rng: Rng, trace: Trace) -> Self {
        let machines = (0..hosts).map(|_| Machine { on: true, next_port: 40_000 }).collect();
        Self(Arc::new(Mutex::new(Inner {
            now: 0,
            rng,
            trace,
            machines,
            links: BTreeMap::new(),
            listeners: BTreeMap::new(),
            pipes: BTreeMap::new(),
            next_pipe: 0,
            counts: Counts::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network as host `host` uses it.
    pub fn of(&self, host: usize) -> Arc<dyn Network> {
        Arc::new(Port { wires: self.clone(), host })
    }

    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.lock().links.insert((from, to), link);
    }

    pub fn link(&self, from: usize, to: usize) -> Link {
        self.lock().link(from, to)
    }

    /// All links as they were at the beginning.
    pub fn heal(&self) {
        self.lock().links.clear();
    }

    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Power of a host. Without it, its ends of connections are forgotten without a word.
    pub fn power(&self, host: usize, on: bool) {
        let mut gone: Vec<Waiting> = Vec::new();
        let mut inner = self.lock();
        inner.machines[host].on = on;
        if !on {
            let there = |address: &SocketAddr| host_at(*address) == Some(host);
            let listening: Vec<SocketAddr> =
                inner.listeners.keys().copied().filter(there).collect();
            // Not dropped here: what was never accepted takes the lock again.
            gone.extend(listening.iter().filter_map(|address| inner.listeners.remove(address)));
            for pipe in inner.pipes.values_mut() {
                pipe.writer_gone |= pipe.from == host;
                pipe.reader_gone |= pipe.to == host;
            }
        }
    }

    /// Resets every connection between two hosts.
    pub fn reset(&self, one: usize, other: usize) {
        let mut inner = self.lock();
        let between = |pipe: &Pipe| {
            (pipe.from, pipe.to) == (one, other) || (pipe.from, pipe.to) == (other, one)
        };
        for pipe in inner.pipes.values_mut().filter(|pipe| between(pipe)) {
            pipe.break_off();
        }
        inner.counts.resets += 1;
    }

    /// Moves time on and gives readers what has arrived.
    pub fn deliver(&self, now: u64) {
        let mut inner = self.lock();
        inner.now = now;
        let numbers: Vec<u64> = inner.pipes.keys().copied().collect();
        for number in numbers {
            inner.arrive(number);
        }
        inner.pipes.retain(|_, pipe| !pipe.is_over());
    }
}

impl Pipe {
    fn new(from: usize, to: usize) -> Self {
        Self {
            from,
            to,
            under_way: VecDeque::new(),
            unread: VecDeque::new(),
            flying: 0,
            ended: false,
            reset: false,
            writer_gone: false,
            reader_gone: false,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
        self.writer.take().into_iter().for_each(Waker::wake);
    }

    fn break_off(&mut self) {
        self.reset = true;
        self.ended = true;
        self.under_way.clear();
        self.flying = 0;
        self.wake();
    }

    fn is_over(&self) -> bool {
        self.writer_gone && self.reader_gone && self.under_way.is_empty()
    }
}

impl Inner {
    fn link(&self, from: usize, to: usize) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Whether a segment sent now would arrive at all.
    fn passes(&self, from: usize, to: usize) -> bool {
        self.machines[from].on && self.machines[to].on && !self.link(from, to).cut
    }

    fn delay(&mut self, from: usize, to: usize) -> u64 {
        let link = self.link(from, to);
        let (least, most) = link.delay;
        let mut delay = least + self.rng.below(0..(most - least).max(1));
        if link.loss_ppm > 0 && self.rng.below(0..1_000_000) < link.loss_ppm {
            delay += self.rng.below(RESENT);
            self.counts.late += 1;
        }
        delay
    }

    fn send(&mut self, number: u64, piece: Piece) {
        let Some(pipe) = self.pipes.get(&number) else { return };
        let (from, to) = (pipe.from, pipe.to);
        let last = pipe.under_way.back().map_or(0, |(at, _)| *at);
        let at = last.max(self.now + self.delay(from, to));
        let size = match &piece {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::End | Piece::Reset => 0,
        };
        if let Some(pipe) = self.pipes.get_mut(&number) {
            pipe.flying += size;
            pipe.under_way.push_back((at, piece));
        }
    }

    fn arrive(&mut self, number: u64) {
        loop {
            let Some(pipe) = self.pipes.get(&number) else { return };
            let (from, to) = (pipe.from, pipe.to);
            match pipe.under_way.front() {
                Some((at, _)) if *at <= self.now => {}
                _ => return,
            }
            if !self.passes(from, to) {
                self.hold_back(number);
                return;
            }
            let Some(pipe) = self.pipes.get_mut(&number) else { return };
            let Some((_, piece)) = pipe.under_way.pop_front() else { return };
            if pipe.reader_gone {
                // Nobody is there: the other side hears so.
                pipe.under_way.clear();
                pipe.flying = 0;
                pipe.break_off();
                self.counts.resets += 1;
                self.refuse_back(number);
                return;
            }
            match piece {
                Piece::Bytes(bytes) => {
                    pipe.flying -= bytes.len();
                    pipe.unread.extend(&bytes);
                    self.counts.segments += 1;
                    self.trace.segment(self.now, from, to, &bytes);
                }
                Piece::End => pipe.ended = true,
                Piece::Reset => {
                    pipe.reset = true;
                    pipe.ended = true;
                }
            }
            if let Some(pipe) = self.pipes.get_mut(&number) {
                pipe.wake();
            }
        }
    }

    /// What is due comes when the link is back, not at the very moment.
    fn hold_back(&mut self, number: u64) {
        self.counts.held_back += 1;
        let again = self.now + self.rng.below(RESENT);
        if let Some(pipe) = self.pipes.get_mut(&number) {
            for (at, _) in &mut pipe.under_way {
                *at = (*at).max(again);
            }
        }
    }

    /// The pipe of the other direction: connections take two numbers, an even one and the next.
    fn refuse_back(&mut self, number: u64) {
        if let Some(back) = self.pipes.get_mut(&(number ^ 1)) {
            back.break_off();
        }
    }

    /// A connection between two hosts that can reach each other.
    fn establish(&mut self, wires: &Wires, from: usize, to: SocketAddr) -> io::Result<Socket> {
        let host = host_at(to).ok_or(io::ErrorKind::AddrNotAvailable)?;
        self.machines[from].next_port = self.machines[from].next_port.wrapping_add(1).max(40_000);
        let source = SocketAddr::new(address(from), self.machines[from].next_port);
        let first = self.next_pipe;
        self.next_pipe += 2;
        let Some(listener) = self.listeners.get_mut(&to) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let there = Stream::new(wires.clone(), first, first + 1);
        listener.backlog.push_back((Socket::other(Box::new(there), source), source));
        listener.waker.take().into_iter().for_each(Waker::wake);
        self.pipes.insert(first, Pipe::new(from, host));
        self.pipes.insert(first + 1, Pipe::new(host, from));
        self.counts.connections += 1;
        let here = Stream::new(wires.clone(), first + 1, first);
        Ok(Socket::other(Box::new(here), to))
    }
}

/// One host's access to the network.
struct Port {
    wires: Wires,
    host: usize,
}

impl Network for Port {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move {
            let to: SocketAddr = address.parse().map_err(io::Error::other)?;
            let host = host_at(to).ok_or(io::ErrorKind::AddrNotAvailable)?;
            loop {
                let (way, ways) = {
                    let mut inner = self.wires.lock();
                    let round = inner.delay(self.host, host) + inner.delay(host, self.host);
                    (round, inner.passes(self.host, host) && inner.passes(host, self.host))
                };
                if ways {
                    tokio::time::sleep(Duration::from_nanos(way)).await;
                    return self.wires.lock().establish(&self.wires, self.host, to);
                }
                tokio::time::sleep(SYN_AGAIN).await;
            }
        })
    }

    fn listen(&self, at: SocketAddr) -> io::Result<Listener> {
        let at = SocketAddr::new(address(self.host), at.port());
        let mut inner = self.wires.lock();
        if inner.listeners.contains_key(&at) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        inner.listeners.insert(at, Waiting { backlog: VecDeque::new(), waker: None });
        Ok(Listener::other(Box::new(Accepting { wires: self.wires.clone(), at })))
    }
}

struct Accepting {
    wires: Wires,
    at: SocketAddr,
}

impl Accept for Accepting {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Socket, SocketAddr)>> {
        Box::pin(std::future::poll_fn(|cx| {
            let mut inner = self.wires.lock();
            let Some(waiting) = inner.listeners.get_mut(&self.at) else {
                return std::task::Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            match waiting.backlog.pop_front() {
                Some(accepted) => std::task::Poll::Ready(Ok(accepted)),
                None => {
                    waiting.waker = Some(cx.waker().clone());
                    std::task::Poll::Pending
                }
            }
        }))
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        let gone = self.wires.lock().listeners.remove(&self.at);
        // Dropping what was never accepted closes it, which takes the lock again.
        drop(gone);
    }
}
