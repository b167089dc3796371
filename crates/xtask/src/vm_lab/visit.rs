//! What a visitor on the machines' network sees of published ports.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cluster_vmlab::VmLab;

use crate::cluster::{Replica, ask_within, parse_replica};

const PORT: u16 = 80;
/// An emulated machine that boots, or whose neighbours do, takes its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A machine without power says nothing; looking for replicas, the next one is asked soon.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
const BETWEEN_VISITS: Duration = Duration::from_millis(100);

/// Asks these workers until the replicas seen satisfy `enough`; returns them and how long it took.
pub fn until(
    lab: &VmLab,
    workers: &[Ipv4Addr],
    within: Duration,
    enough: impl Fn(&[Replica]) -> bool + Sync,
) -> Result<(Vec<Replica>, Duration)> {
    let begin = Instant::now();
    let seen = lab.inside(|| {
        let mut seen = BTreeMap::new();
        let mut trouble = String::new();
        while begin.elapsed() < within {
            for worker in workers {
                match ask_within(SocketAddr::from((*worker, PORT)), "/", LOOK_WITHIN) {
                    Ok(body) => match parse_replica(&body) {
                        Some(replica) => drop(seen.insert(replica.task.clone(), replica)),
                        None => trouble = format!("{worker} answered {body:?}"),
                    },
                    Err(error) => trouble = format!("{worker}: {error}"),
                }
            }
            let replicas: Vec<Replica> = seen.values().cloned().collect();
            if enough(&replicas) {
                return Ok((replicas, begin.elapsed()));
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        Err((seen, trouble))
    })?;
    match seen {
        Ok(seen) => Ok(seen),
        Err((seen, trouble)) => bail!(
            "not within {within:?}: answers came from {:?}; the last failure: {trouble}",
            seen.into_values().collect::<Vec<_>>()
        ),
    }
}

/// One visit through every worker; every worker must answer.
pub fn each(lab: &VmLab, workers: &[Ipv4Addr]) -> Result<()> {
    let failed = lab.inside(|| {
        let ask = |worker: &Ipv4Addr| {
            let answer = ask_within(SocketAddr::from((*worker, PORT)), "/", ANSWER_WITHIN);
            answer.err().map(|error| format!("{worker}: {error}"))
        };
        workers.iter().filter_map(ask).collect::<Vec<_>>()
    })?;
    if failed.is_empty() { Ok(()) } else { bail!("no answer from {}", failed.join(", ")) }
}

/// How visits went while something was done.
#[derive(Debug, Default)]
pub struct Visits {
    pub made: usize,
    /// Answered by another worker than the one asked first, as a balancer before them would do.
    pub elsewhere: usize,
    /// Answered by none.
    pub lost: Vec<String>,
}

/// Visits the workers in turn, one visit after the other, while `act` runs.
pub fn under_load<T>(
    lab: &VmLab,
    workers: &[Ipv4Addr],
    act: impl FnOnce() -> Result<T>,
) -> Result<(T, Visits)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let visitor = scope.spawn(|| lab.inside(|| visit(workers, &stop)));
        let done = act();
        stop.store(true, Ordering::Release);
        let visits = visitor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((done?, visits))
    })
}

fn visit(workers: &[Ipv4Addr], stop: &AtomicBool) -> Visits {
    let mut visits = Visits::default();
    while !stop.load(Ordering::Acquire) {
        let turn = visits.made % workers.len();
        let order = workers[turn..].iter().chain(&workers[..turn]);
        visits.made += 1;
        let mut failures = Vec::new();
        for worker in order {
            match ask_within(SocketAddr::from((*worker, PORT)), "/", ANSWER_WITHIN) {
                Ok(_) => break,
                Err(error) => failures.push(format!("{worker}: {error}")),
            }
        }
        if failures.len() == workers.len() {
            visits.lost.push(failures.join(", "));
        } else if !failures.is_empty() {
            visits.elsewhere += 1;
        }
        thread::sleep(BETWEEN_VISITS);
    }
    visits
}
