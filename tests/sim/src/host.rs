//! A simulated machine: one single-threaded runtime with a clock of its own, which runs one
//! program at a time. Programs are started, killed, frozen, and lose power with their machine.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::os;

/// How a program ended by itself.
pub type Ended = anyhow::Result<()>;

/// A process on a machine.
struct Process {
    runtime: Runtime,
    /// The clock of the runtime when it began, and the simulation's.
    base: Instant,
    born: u64,
    program: JoinHandle<Ended>,
}

/// The machine.
#[derive(Default)]
pub struct Host {
    process: Option<Process>,
    /// Frozen since then.
    frozen_at: Option<u64>,
    /// Nanoseconds by which the wall clock is ahead.
    pub skew: i64,
}

impl Host {
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen_at.is_some()
    }

    /// Starts a program; the one before must be gone.
    pub fn start<F>(&mut self, now: u64, program: F) -> anyhow::Result<()>
    where
        F: Future<Output = Ended> + Send + 'static,
    {
        self.kill();
        os::set_now(now);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let base = runtime.block_on(async { Instant::now() });
        let program = runtime.spawn(program);
        self.process = Some(Process { runtime, base, born: now, program });
        Ok(())
    }

    /// Ends the program in its tracks. What it held is dropped, as the kernel closes its files.
    pub fn kill(&mut self) {
        self.frozen_at = None;
        self.process = None;
    }

    /// Stops the program without ending it.
    pub fn freeze(&mut self, now: u64) {
        if self.process.is_some() {
            self.frozen_at.get_or_insert(now);
        }
    }

    /// Lets it go on: for the program, all that time passes at once.
    pub fn thaw(&mut self, now: u64) {
        let Some(since) = self.frozen_at.take() else { return };
        let missed = Duration::from_nanos(now - since);
        self.within(since, |process| {
            process.runtime.block_on(async { tokio::time::advance(missed).await });
        });
    }

    /// Runs the program until the clock shows `until`.
    pub fn run(&mut self, now: u64, until: u64) {
        if self.frozen_at.is_some() {
            return;
        }
        self.within(now, |process| {
            let deadline = process.base + Duration::from_nanos(until - process.born);
            process.runtime.block_on(async { tokio::time::sleep_until(deadline).await });
        });
    }

    fn within(&mut self, now: u64, run: impl FnOnce(&Process)) {
        let Some(process) = &self.process else { return };
        os::set_now(now);
        os::turn(self.skew, || run(process));
    }

    /// How the program ended, once it has.
    pub fn ended(&mut self) -> Option<Ended> {
        let process = self.process.as_mut()?;
        if !process.program.is_finished() {
            return None;
        }
        let ended = process.runtime.block_on(&mut process.program);
        self.kill();
        Some(ended.unwrap_or_else(|panic| Err(anyhow::anyhow!("the program panicked: {panic}"))))
    }

    /// Runs something on the program's runtime, beside it.
    pub fn beside<F>(&self, task: F) -> Option<JoinHandle<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        Some(self.process.as_ref()?.runtime.spawn(task))
    }
}
