//! What goes wrong, when, and for how long: drawn from the seed.

use std::fmt;

use crate::rng::Rng;

/// A misfortune; hosts are numbers, managers first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill {
        host: usize,
        down_ms: u64,
    },
    /// SIGTERM to a manager.
    Stop {
        host: usize,
        down_ms: u64,
    },
    /// The machine loses power; unsynced writes are lost or torn.
    PowerLoss {
        host: usize,
        down_ms: u64,
    },
    /// The present leader is killed as soon as it has applied one more entry.
    KillLeaderAtNextWrite {
        down_ms: u64,
    },
    Freeze {
        host: usize,
        for_ms: u64,
    },
    CutOneWay {
        from: usize,
        to: usize,
        for_ms: u64,
    },
    CutBoth {
        one: usize,
        other: usize,
        for_ms: u64,
    },
    Isolate {
        host: usize,
        for_ms: u64,
    },
    Slow {
        one: usize,
        other: usize,
        delay_ms: u64,
        loss_ppm: u64,
        for_ms: u64,
    },
    Reset {
        one: usize,
        other: usize,
    },
    SlowDisk {
        manager: usize,
        latency_ms: u64,
        for_ms: u64,
    },
    SyncFails {
        manager: usize,
        down_ms: u64,
    },
    DiskFull {
        manager: usize,
        for_ms: u64,
    },
    ClockJump {
        host: usize,
        seconds: i64,
    },
    ContainerExits {
        worker: usize,
        code: u8,
    },
    /// Containers made from now on do not end when asked.
    Stubborn {
        worker: usize,
        for_ms: u64,
    },
    /// So many of a thousand containers cannot be made.
    CreatesFail {
        worker: usize,
        per_thousand: u32,
        for_ms: u64,
    },
    /// The runtime takes its time, or hangs.
    SlowRuntime {
        worker: usize,
        create_ms: u64,
        for_ms: u64,
    },
    PullsFail {
        worker: usize,
        for_ms: u64,
    },
    SlowPulls {
        worker: usize,
        delay_ms: u64,
        for_ms: u64,
    },
}

impl Fault {
    /// Its kind, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Stop { .. } => "stop",
            Self::PowerLoss { .. } => "power-loss",
            Self::KillLeaderAtNextWrite { .. } => "kill-leader-at-next-write",
            Self::Freeze { .. } => "freeze",
            Self::CutOneWay { .. } => "cut-one-way",
            Self::CutBoth { .. } => "cut-both-ways",
            Self::Isolate { .. } => "isolate",
            Self::Slow { .. } => "slow-lossy-link",
            Self::Reset { .. } => "reset",
            Self::SlowDisk { .. } => "slow-disk",
            Self::SyncFails { .. } => "fsync-error",
            Self::DiskFull { .. } => "disk-full",
            Self::ClockJump { .. } => "clock-jump",
            Self::ContainerExits { .. } => "container-exit",
            Self::Stubborn { .. } => "refuses-to-stop",
            Self::CreatesFail { .. } => "fails-to-start",
            Self::SlowRuntime { .. } => "slow-or-hung-runtime",
            Self::PullsFail { .. } => "failing-pulls",
            Self::SlowPulls { .. } => "slow-pulls",
        }
    }
}

/// All kinds, so that one that never struck shows.
pub const KINDS: [&str; 20] = [
    "kill",
    "stop",
    "power-loss",
    "kill-leader-at-next-write",
    "freeze",
    "cut-one-way",
    "cut-both-ways",
    "isolate",
    "slow-lossy-link",
    "reset",
    "slow-disk",
    "fsync-error",
    "disk-full",
    "clock-jump",
    "container-exit",
    "refuses-to-stop",
    "fails-to-start",
    "slow-or-hung-runtime",
    "failing-pulls",
    "slow-pulls",
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How a run is plagued. Some runs see everything, others only a few kinds, so that rare
/// combinations are not drowned by frequent ones.
#[derive(Clone, Debug)]
pub struct Plague {
    rng: Rng,
    managers: usize,
    workers: usize,
    allowed: Vec<usize>,
    /// Mean pause between two faults, milliseconds.
    pause_ms: u64,
}

impl Plague {
    pub fn draw(mut rng: Rng, managers: usize, workers: usize) -> Self {
        let kinds = rng.below(3..KINDS.len() as u64 + 1);
        let allowed = (0..kinds).map(|_| rng.index(KINDS.len())).collect();
        let pause_ms = *rng.pick(&[150, 400, 1_000]);
        Self { rng, managers, workers, allowed, pause_ms }
    }

    pub fn pause_ms(&mut self) -> u64 {
        self.rng.below(1..2 * self.pause_ms)
    }

    /// What goes wrong next.
    pub fn strike(&mut self) -> Fault {
        let kind = *self.rng.pick(&self.allowed.clone());
        let hosts = self.managers + self.workers;
        let rng = &mut self.rng;
        let host = rng.index(hosts);
        let other = (host + 1 + rng.index(hosts - 1)) % hosts;
        let manager = rng.index(self.managers);
        let worker = self.managers + rng.index(self.workers);
        let for_ms = *rng.pick(&[50, 300, 1_000, 2_500, 4_500]);
        let down_ms = *rng.pick(&[1, 100, 600, 2_500, 5_000]);
        match KINDS[kind] {
            "kill" => Fault::Kill { host, down_ms },
            "stop" => Fault::Stop { host: manager, down_ms },
            "power-loss" => Fault::PowerLoss { host, down_ms },
            "kill-leader-at-next-write" => Fault::KillLeaderAtNextWrite { down_ms },
            "freeze" => Fault::Freeze { host, for_ms },
            "cut-one-way" => Fault::CutOneWay { from: host, to: other, for_ms },
            "cut-both-ways" => Fault::CutBoth { one: host, other, for_ms },
            "isolate" => Fault::Isolate { host, for_ms },
            "slow-lossy-link" => {
                let delay_ms = *rng.pick(&[5, 40, 200]);
                let loss_ppm = *rng.pick(&[0, 10_000, 100_000]);
                Fault::Slow { one: host, other, delay_ms, loss_ppm, for_ms }
            }
            "reset" => Fault::Reset { one: host, other },
            "slow-disk" => {
                let latency_ms = *rng.pick(&[5, 60, 500]);
                Fault::SlowDisk { manager, latency_ms, for_ms }
            }
            "fsync-error" => Fault::SyncFails { manager, down_ms },
            "disk-full" => Fault::DiskFull { manager, for_ms },
            "clock-jump" => {
                let seconds = *rng.pick(&[-1_500, -60, -1, 1, 90, 1_500]);
                Fault::ClockJump { host, seconds }
            }
            "container-exit" => Fault::ContainerExits { worker, code: *rng.pick(&[0, 1, 137]) },
            "refuses-to-stop" => Fault::Stubborn { worker, for_ms },
            "fails-to-start" => {
                Fault::CreatesFail { worker, per_thousand: *rng.pick(&[300, 1_000]), for_ms }
            }
            "slow-or-hung-runtime" => {
                let create_ms = *rng.pick(&[30, 400, 15_000]);
                Fault::SlowRuntime { worker, create_ms, for_ms }
            }
            "failing-pulls" => Fault::PullsFail { worker, for_ms },
            _ => Fault::SlowPulls { worker, delay_ms: *rng.pick(&[50, 2_000]), for_ms },
        }
    }
}
