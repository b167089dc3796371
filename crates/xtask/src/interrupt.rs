//! Ctrl-C in the middle of a lab: it is removed before we end.

use std::process::exit;
use std::thread;

use anyhow::{Context, Result};
use cluster_lab::{Lab, default_base};
use nix::sys::signal::{SigSet, Signal};

/// As shells report a command that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// From now on SIGINT and SIGTERM remove the labs `names` and end this process. Call it from the
/// main thread before others are started, since threads inherit what is blocked.
pub fn remove_labs(names: &'static [&'static str]) -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("blocking signals")?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            eprintln!("\ninterrupted; removing the lab");
            for name in names {
                if let Err(error) = Lab::remove_in(&default_base(), name) {
                    eprintln!("error: {error}; `clusterctl lab down --name {name}` tries again");
                }
            }
            exit(INTERRUPTED);
        }
    });
    Ok(())
}
