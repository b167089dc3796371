//! `lab chaos`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster_chaos::{Fault, Options};
use cluster_lab::Lab;

use super::{Which, explain};
use crate::Invocation;
use crate::error::{Error, Exit};

const MINUTES_MAX: f64 = 24.0 * 60.0;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long faults are done; start and judgement come on top
    #[arg(long, value_name = "M", default_value = "5", value_parser = minutes)]
    minutes: Duration,

    /// The same seed does the same faults to the same nodes at the same times (default: by chance)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Which faults: workers, managers, leader, shims, containers, hosts, pauses, hangs, cuts,
    /// links, disks, files, blackout (default: all)
    #[arg(long, value_name = "LIST", value_parser = faults)]
    kill: Option<Faults>,

    /// An image of the example web server that every worker has (`lab load-image`)
    #[arg(long, default_value = "web:1")]
    image: String,

    #[command(flatten)]
    which: Which,
}

/// A list is one value of one flag.
#[derive(Clone, Debug)]
struct Faults(Vec<Fault>);

fn faults(text: &str) -> Result<Faults, String> {
    Options::parse_faults(text).map(Faults)
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: Option<f64> = text.parse().ok();
    let minutes = minutes.filter(|minutes| *minutes > 0.0 && *minutes <= MINUTES_MAX);
    let refuse = || format!("`{text}` is not a number of minutes; write for example 5 or 0.5");
    minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)).ok_or_else(refuse)
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<i32, Error> {
    let lab: Lab = args.which.open()?;
    let seed = args.seed.unwrap_or_else(by_chance);
    let mut options = Options::new(seed, args.minutes);
    options.image.clone_from(&args.image);
    if let Some(faults) = &args.kill {
        options.faults.clone_from(&faults.0);
    }
    let printer = &mut invocation.printer;
    printer
        .say(&format!("chaos on lab {}, seed {seed}; Ctrl-C ends it early and judges", lab.name()));
    let stop = stop_on_interrupt();
    let verdict = cluster_chaos::run(&lab, &options, &stop, &mut |line| printer.say(line));
    let verdict = verdict.map_err(|error| match &error {
        cluster_chaos::Error::Lab(error) => explain(error),
        error => Error::caused(error),
    })?;
    printer.data(&verdict.to_string())?;
    Ok(if verdict.is_good() { 0 } else { Exit::Refused.code() })
}

/// A seed that fits on a line of its own.
fn by_chance() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::from(now.unwrap_or_default().subsec_nanos())
}

/// Set when the user has seen enough.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            set.store(true, Ordering::Release);
        }
    });
    stop
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_may_be_broken() {
        assert_eq!(minutes("5"), Ok(Duration::from_secs(300)));
        assert_eq!(minutes("0.5"), Ok(Duration::from_secs(30)));
        for text in ["", "0", "-1", "x", "NaN", "inf", "1e9"] {
            assert!(minutes(text).is_err(), "{text}");
        }
    }
}
