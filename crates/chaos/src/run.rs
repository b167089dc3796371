//! One run: faults, then calm, then judgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_lab::{Lab, NodeState, NodeStatus, Role};

use crate::Options;
use crate::census::Census;
use crate::check::slots::{self, Live, Wanted};
use crate::check::{Objection, growth, writes};
use crate::condition::Conditions;
use crate::error::{Error, Result};
use crate::inject::{self, Begun, Injector, Node};
use crate::load::{Load, PREFIX, Setting};
use crate::monitor::{Monitor, Watched};
use crate::schedule::{self, Fault, Machines, Planned};
use crate::verdict::{Daemon, Verdict};

const PAUSE: Duration = Duration::from_millis(50);
/// For the standing services to run, before the first fault.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// What is removed leaves nothing behind after this.
const CLEAN_WITHIN: Duration = Duration::from_secs(30);
const WATCHES_WITHIN: Duration = Duration::from_secs(10);

/// Carries the run out; `tell` gets the story line by line. When `stop` is set, no more faults
/// come, and the run is judged by what there is.
pub fn run(
    lab: &Lab,
    options: &Options,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&str),
) -> Result<Verdict> {
    let nodes = all_up(lab)?;
    let machines = machines(lab, &nodes)?;
    if !machines.disks && options.faults.contains(&Fault::Disks) {
        tell(
            "no disk is filled: this lab's disks have no bound (`lab up --disk 1G` gives them one)",
        );
    }
    let plan = schedule::plan(options.seed, options.lasts, &options.faults, &machines);
    if plan.is_empty() {
        let problem = "nothing to do: the faults asked for do not fit into the time".to_owned();
        return Err(Error::Impossible { problem });
    }
    let (conditions, began) = (Arc::new(Conditions::new()), Instant::now());
    let workers = nodes.iter().filter(|node| node.role == Role::Worker);
    let load = Load::start(Setting {
        lab,
        image: &options.image,
        seed: options.seed,
        conditions: conditions.clone(),
        began,
        workers: workers.map(|node| (node.name.clone(), node.address)).collect(),
    })?;
    let base = lab.folder().parent().unwrap_or(lab.folder());
    let again = Lab::open_in(base, lab.name())?;
    let monitor = Monitor::start(again, load.shared.clone(), conditions.clone());
    let known = nodes.iter().map(|node| Node { name: node.name.clone(), role: node.role });
    let mut run = Run {
        lab,
        options,
        began,
        load,
        nodes: known.collect(),
        conditions,
        tell,
        faults: 0,
        failovers: Vec::new(),
        objections: Vec::new(),
        converged: None,
    };
    run.say("", "clients start");
    let started = run.wait_started();
    if started.is_ok()
        && let Err(error) = run.act(&plan, stop)
    {
        // A cluster that cannot be asked any more is a finding, and what was seen before counts.
        run.objections.push(Objection::new("harness", inject::chain(&error)));
    }
    let watched = monitor.stop();
    started?;
    Ok(run.judge(watched))
}

fn all_up(lab: &Lab) -> Result<Vec<NodeStatus>> {
    let nodes = lab.status()?;
    match nodes.iter().find(|node| node.state != NodeState::Running) {
        Some(node) => Err(Error::NotUp { node: node.name.clone(), state: node.state.to_string() }),
        None => Ok(nodes),
    }
}

fn machines(lab: &Lab, nodes: &[NodeStatus]) -> Result<Machines> {
    let of = |role| {
        let all = nodes.iter().filter(move |node| node.role == role);
        all.map(|node| node.name.clone()).collect()
    };
    Ok(Machines {
        managers: of(Role::Manager),
        workers: of(Role::Worker),
        disks: lab.has_bounded_disks()?,
    })
}

struct Run<'a> {
    lab: &'a Lab,
    options: &'a Options,
    began: Instant,
    load: Load,
    nodes: Vec<Node>,
    conditions: Arc<Conditions>,
    tell: &'a mut dyn FnMut(&str),
    faults: usize,
    /// When leaders were killed.
    failovers: Vec<u64>,
    objections: Vec<Objection>,
    converged: Option<Duration>,
}

impl Run<'_> {
    /// Everything up to the judgement; what cannot be done ends it.
    fn act(&mut self, plan: &[Planned], stop: &AtomicBool) -> Result<()> {
        let found = self.faults(plan, stop);
        self.objections.extend(found);
        self.say("", "faults stop, writers end");
        let since = Instant::now();
        self.load.quiesce()?;
        let wanted = self.load.finals()?;
        self.converge(&wanted, since)?;
        self.objections.extend(self.load.watch_gaps(&wanted, WATCHES_WITHIN));
        self.load.remove_all()?;
        let left = self.clean();
        self.objections.extend(left);
        self.say("", "all services are removed again");
        Ok(())
    }

    fn say(&mut self, who: &str, what: &str) {
        let line = story_line(self.began.elapsed(), who, what);
        (self.tell)(&line);
    }

    /// The standing services run: else every fault would be blamed for it.
    fn wait_started(&mut self) -> Result<()> {
        let mut census = Census::default();
        let workers = self.workers();
        let begin = Instant::now();
        loop {
            let live = census.take(self.lab, &workers)?;
            let standing = |live: &&Live| {
                let role = live.role.as_ref();
                role.is_some_and(|role| role.service.starts_with(PREFIX))
            };
            if live.iter().filter(standing).count() >= workers.len() {
                return Ok(());
            }
            if begin.elapsed() > STARTS_WITHIN {
                let problem = format!(
                    "nothing runs after {STARTS_WITHIN:?}: is the image {} on every worker \
                     (`lab load-image`)?",
                    self.options.image
                );
                return Err(Error::Impossible { problem });
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn workers(&self) -> Vec<String> {
        let workers = self.nodes.iter().filter(|node| node.role == Role::Worker);
        workers.map(|node| node.name.clone()).collect()
    }

    /// Does what is planned; faults under way when it is stopped are undone too.
    fn faults(&mut self, plan: &[Planned], stop: &AtomicBool) -> Vec<Objection> {
        let mut injector = Injector {
            lab: self.lab,
            load: &self.load,
            conditions: self.conditions.clone(),
            nodes: self.nodes.clone(),
            objections: Vec::new(),
        };
        let start = Instant::now();
        let mut waiting = plan.iter().peekable();
        let mut under_way: Vec<(Duration, Begun)> = Vec::new();
        loop {
            let now = if stop.load(Ordering::Acquire) { Duration::MAX } else { start.elapsed() };
            if let Some(place) = under_way.iter().position(|(ends, _)| *ends <= now) {
                let (_, begun) = under_way.remove(place);
                let who = begun.who.clone();
                if let Some(told) = injector.end(begun) {
                    (self.tell)(&story_line(self.began.elapsed(), &who, &told));
                }
                continue;
            }
            if now == Duration::MAX {
                return injector.objections;
            }
            let Some(planned) = waiting.next_if(|planned| planned.at <= now) else {
                if waiting.peek().is_none() && under_way.is_empty() {
                    return injector.objections;
                }
                std::thread::sleep(PAUSE);
                continue;
            };
            let moment = self.load.shared.now();
            if let Some(begun) = injector.begin(planned) {
                self.faults += 1;
                if planned.fault == Fault::Leader {
                    self.failovers.push(moment);
                }
                let line = format!("{} ({})", begun.what, planned.fault.word());
                (self.tell)(&story_line(self.began.elapsed(), &begun.who, &line));
                under_way.push((start.elapsed().max(planned.ends()), begun));
            }
        }
    }

    /// Waits until what runs is what is asked for; objects to what is not so in time.
    fn converge(&mut self, wanted: &[Wanted], since: Instant) -> Result<()> {
        let mut census = Census::default();
        let workers = self.workers();
        loop {
            let live = census.take(self.lab, &workers)?;
            let differences = slots::differences(wanted, &workers, &live);
            if differences.is_empty() {
                let took = since.elapsed();
                let line = format!("desired equals running after {:.1} s", took.as_secs_f64());
                self.say("", &line);
                self.converged = Some(took);
                return Ok(());
            }
            if since.elapsed() > self.options.converges_within {
                let object = |problem| Objection::new("convergence", problem);
                self.objections.extend(differences.into_iter().map(object));
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// What the removed services leave behind, in the kernel and on the workers' disks.
    fn clean(&mut self) -> Vec<Objection> {
        let begin = Instant::now();
        let workers = self.workers();
        loop {
            let left = leftovers(self.lab, &workers);
            if left.is_empty() || begin.elapsed() > CLEAN_WITHIN {
                return left.into_iter().map(|left| Objection::new("leftover", left)).collect();
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn judge(self, watched: Watched) -> Verdict {
        let mut objections = self.objections;
        objections.extend(watched.objections);
        for node in &self.nodes {
            let log = std::fs::read(self.lab.log_path(&node.name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let panics = log.lines().filter(|line| line.contains("panicked at"));
            objections.extend(
                panics.map(|line| Objection::new("panic", format!("{}: {line}", node.name))),
            );
        }
        let daemons = self.nodes.iter().filter_map(|node| {
            let gauges = watched.gauges.nodes.get(&node.name)?;
            let growth = growth::growth(gauges);
            Some((growth::judge(&node.name, &growth), Daemon::new(&node.name, gauges, growth)))
        });
        let (grown, daemons): (Vec<_>, Vec<_>) = daemons.unzip();
        objections.extend(grown.into_iter().flatten());
        let (history, seen, visits) = self.load.finish();
        objections.extend(seen);
        objections.extend(writes::judge(&history));
        let failovers = self.failovers.iter().filter_map(|moment| history.next_ack(*moment));
        Verdict {
            seed: self.options.seed,
            lasted: self.began.elapsed(),
            faults: self.faults,
            counts: history.counts(),
            sightings: history.sightings.len(),
            visits,
            failovers: failovers.map(Duration::from_micros).collect(),
            converged: self.converged,
            samples: (watched.judged, watched.samples),
            daemons,
            objections,
        }
    }
}

fn story_line(at: Duration, who: &str, what: &str) -> String {
    let seconds = at.as_secs_f64();
    let minutes = at.as_secs() / 60;
    format!("{minutes:02}:{:04.1}  {who:<10} {what}", seconds - 60.0 * minutes as f64)
}

/// Containers, their cgroups and their folders.
fn leftovers(lab: &Lab, workers: &[String]) -> Vec<String> {
    let mut left = Vec::new();
    for worker in workers {
        let processes = lab.processes(worker).unwrap_or_default();
        for process in processes.iter().filter(|process| process.cgroup.starts_with("ctr/")) {
            let argv = process.argv.join(" ");
            left.push(format!("{worker}: process {} ({argv}) in {}", process.pid, process.cgroup));
        }
        let shims = processes.iter().filter(|process| process.name.starts_with("cluster-shim"));
        left.extend(shims.map(|shim| format!("{worker}: shim {}", shim.pid)));
    }
    left
}
