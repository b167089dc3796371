//! Links that delay, lose and slow down, in user space: not every kernel has netem.
//!
//! *Flow.* A node with such a link has its switch port taken out of the bridge; `__relay CONFIG`
//! passes frames between that port and a cable that leads to the bridge, each through the lane of
//! its direction and peer. *Guarantees.* Frames of one lane keep their order, jitter or not; what
//! waits is bounded in bytes and, on a slow lane, in time; frames beyond that are lost, as in a
//! switch. The same seed makes the same choices, frame by frame. *On failure* (the port is gone: a
//! power-off) it ends.
//!
//! Frames carry their offload header along, so a "frame" may be a segment of up to 64 KiB and is
//! lost or delayed whole.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::packet::{FRAME_BYTES_MAX, OFFLOAD_BYTES, PacketSocket};
use crate::switch::Direction;

/// What may wait in one relay.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// The queue before a slow lane: longer ones are cut at the tail.
const QUEUE_MAX: Duration = Duration::from_millis(250);
const IDLE: Duration = Duration::from_secs(3600);

/// How a link misbehaves; the default does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// Of a million frames, so many are lost.
    pub loss_ppm: u32,
    pub delay_ms: u32,
    /// Up to so much more delay, different for each frame.
    pub jitter_ms: u32,
    /// Thousand bits a second; 0 is no limit.
    pub rate_kbit: u32,
}

/// What the relay of one port is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    /// The cable to the node, and the one to the bridge.
    pub port: String,
    pub trunk: String,
    pub seed: u64,
    pub lanes: Vec<LaneRule>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LaneRule {
    pub direction: Direction,
    /// The other end's hardware address; none: all that no other rule names.
    pub peer: Option<[u8; 6]>,
    pub link: Link,
}

/// `__relay CONFIG`; returns the exit code, which only happens on errors.
pub fn relay_main(args: &[String]) -> i32 {
    let [config] = args else { return 2 };
    match serve(Path::new(config)) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stdout().lock(), "error {error}");
            1
        }
    }
}

fn serve(path: &Path) -> io::Result<()> {
    let config: Config = serde_json::from_slice(&fs::read(path)?)?;
    let node = PacketSocket::open(&config.port)?;
    let bridge = PacketSocket::open(&config.trunk)?;
    writeln!(io::stdout().lock(), "ready")?;
    // Whoever started us waits for the end of this pipe.
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    let mut lanes = Lanes::new(&config);
    let mut waiting = Waiting::default();
    let mut buffer = vec![0u8; FRAME_BYTES_MAX];
    loop {
        for (source, direction) in [(&node, Direction::Out), (&bridge, Direction::In)] {
            while let Some(length) = source.receive(&mut buffer)? {
                let frame = &buffer[..length];
                if let Some(due) = lanes.due(direction, frame, Instant::now()) {
                    waiting.push(due, direction, frame);
                }
            }
        }
        while let Some((direction, frame)) = waiting.pop_due(Instant::now()) {
            let to = if direction == Direction::Out { &bridge } else { &node };
            to.send(&frame)?;
        }
        let pause =
            waiting.next_due().map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
        let mut watched = [
            PollFd::new(node.as_fd(), PollFlags::POLLIN),
            PollFd::new(bridge.as_fd(), PollFlags::POLLIN),
        ];
        match ppoll(&mut watched, Some(TimeSpec::from_duration(pause)), None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// When it is due, how many came before it, whether it goes out, and the frame.
type Queued = (Instant, u64, bool, Vec<u8>);

/// Frames on their way, the next one due first.
#[derive(Default)]
struct Waiting {
    heap: BinaryHeap<Reverse<Queued>>,
    bytes: usize,
    count: u64,
}

impl Waiting {
    fn push(&mut self, due: Instant, direction: Direction, frame: &[u8]) {
        if self.bytes + frame.len() > WAITING_BYTES_MAX {
            return;
        }
        self.bytes += frame.len();
        self.count += 1;
        let out = direction == Direction::Out;
        self.heap.push(Reverse((due, self.count, out, frame.to_vec())));
    }

    fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((due, ..))| *due)
    }

    fn pop_due(&mut self, now: Instant) -> Option<(Direction, Vec<u8>)> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse((_, _, out, frame)) = self.heap.pop()?;
        self.bytes -= frame.len();
        Some((if out { Direction::Out } else { Direction::In }, frame))
    }
}

struct Lane {
    link: Link,
    /// When the wire is free again, and when the last frame arrives.
    free_at: Option<Instant>,
    last: Option<Instant>,
}

/// The lanes of one port, and the dice.
struct Lanes {
    lanes: BTreeMap<(Direction, Option<[u8; 6]>), Lane>,
    random: StdRng,
}

impl Lanes {
    fn new(config: &Config) -> Self {
        let lanes = config.lanes.iter().map(|rule| {
            let lane = Lane { link: rule.link, free_at: None, last: None };
            ((rule.direction, rule.peer), lane)
        });
        Self { lanes: lanes.collect(), random: StdRng::seed_from_u64(config.seed) }
    }

    /// When this frame arrives; `None` if it is lost.
    fn due(&mut self, direction: Direction, frame: &[u8], now: Instant) -> Option<Instant> {
        let header = frame.get(OFFLOAD_BYTES..OFFLOAD_BYTES + 12)?;
        let peer = if direction == Direction::Out { &header[..6] } else { &header[6..] };
        let named = (direction, peer.try_into().ok());
        let key = if self.lanes.contains_key(&named) { named } else { (direction, None) };
        let Some(lane) = self.lanes.get_mut(&key) else { return Some(now) };
        let link = lane.link;
        if self.random.random_range(0..1_000_000) < link.loss_ppm {
            return None;
        }
        let mut due = now;
        if link.rate_kbit > 0 {
            let begin = lane.free_at.map_or(now, |free| free.max(now));
            if begin - now > QUEUE_MAX {
                return None;
            }
            let bits = (frame.len() as u64) * 8;
            due = begin + Duration::from_micros(bits * 1000 / u64::from(link.rate_kbit));
            lane.free_at = Some(due);
        }
        due += Duration::from_millis(link.delay_ms.into());
        if link.jitter_ms > 0 {
            due += Duration::from_micros(
                self.random.random_range(0..u64::from(link.jitter_ms) * 1000),
            );
        }
        due = lane.last.map_or(due, |last| last.max(due));
        lane.last = Some(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: [u8; 6] = [2, 0, 10, 77, 0, 11];
    const THERE: [u8; 6] = [2, 0, 10, 77, 0, 12];

    fn lanes(link: Link, peer: Option<[u8; 6]>) -> Lanes {
        let rule = LaneRule { direction: Direction::Out, peer, link };
        let (port, trunk) = ("p".to_owned(), "t".to_owned());
        Lanes::new(&Config { port, trunk, seed: 7, lanes: vec![rule] })
    }

    fn frame(to: [u8; 6], length: usize) -> Vec<u8> {
        let mut frame = vec![0; OFFLOAD_BYTES];
        frame.extend(to);
        frame.extend(HERE);
        frame.resize(OFFLOAD_BYTES + length, 0);
        frame
    }

    #[test]
    fn a_lane_delays_and_keeps_the_order() {
        let mut lanes = lanes(Link { delay_ms: 20, jitter_ms: 30, ..Link::default() }, None);
        let now = Instant::now();
        let dues: Vec<Instant> = (0..200)
            .map(|n| lanes.due(Direction::Out, &frame(THERE, 100), now + Duration::from_millis(n)))
            .map(|due| due.expect("nothing is lost"))
            .collect();
        assert!(dues.is_sorted());
        assert!(dues[0] >= now + Duration::from_millis(20));
        assert!(dues[199] < now + Duration::from_millis(199 + 20 + 30 + 1));
        assert_eq!(lanes.due(Direction::In, &frame(THERE, 100), now), Some(now), "one way only");
    }

    #[test]
    fn a_lane_loses_about_as_much_as_it_should_and_the_same_each_time() {
        let lost = || {
            let mut lanes = lanes(Link { loss_ppm: 300_000, ..Link::default() }, None);
            let now = Instant::now();
            let frame = frame(THERE, 100);
            (0..1000).map(|_| lanes.due(Direction::Out, &frame, now).is_none()).collect::<Vec<_>>()
        };
        let count = lost().iter().filter(|lost| **lost).count();
        assert!((200..400).contains(&count), "{count}");
        assert_eq!(lost(), lost());
    }

    #[test]
    fn a_slow_lane_takes_its_time_and_drops_the_tail() {
        // 1000 bytes and the header at 800 kbit/s: a little over 10 ms.
        let mut lanes = lanes(Link { rate_kbit: 800, ..Link::default() }, None);
        let now = Instant::now();
        let mut sent = || lanes.due(Direction::Out, &frame(THERE, 1000), now);
        assert!(sent().expect("the wire is free") >= now + Duration::from_millis(10));
        let passed = (0..100).filter(|_| sent().is_some()).count();
        assert!((20..30).contains(&passed), "the queue holds {QUEUE_MAX:?}: {passed}");
    }

    #[test]
    fn a_lane_to_one_peer_leaves_the_others_alone() {
        let mut lanes = lanes(Link { loss_ppm: 1_000_000, ..Link::default() }, Some(THERE));
        let now = Instant::now();
        assert_eq!(lanes.due(Direction::Out, &frame(THERE, 100), now), None);
        assert_eq!(lanes.due(Direction::Out, &frame(HERE, 100), now), Some(now));
    }

    #[test]
    fn what_waits_is_bounded_and_comes_in_order() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        waiting.push(now + Duration::from_millis(2), Direction::Out, &[2]);
        waiting.push(now + Duration::from_millis(1), Direction::In, &[1]);
        assert_eq!(waiting.pop_due(now), None);
        let later = now + Duration::from_millis(5);
        assert_eq!(waiting.pop_due(later), Some((Direction::In, vec![1])));
        assert_eq!(waiting.pop_due(later), Some((Direction::Out, vec![2])));
        let large = vec![0; WAITING_BYTES_MAX / 2 + 1];
        waiting.push(now, Direction::In, &large);
        waiting.push(now, Direction::In, &large);
        assert_eq!(waiting.heap.len(), 1);
    }
}
