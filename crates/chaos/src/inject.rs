//! Doing a planned fault to a lab, and undoing it.
//!
//! *Guarantees.* [`Injector::begin`] marks the nodes it meets as impaired before it touches them,
//! and [`Injector::end`] marks them as recovered after the last touch. What a daemon must do under
//! its fault (refuse a damaged log, say that its disk is full) is checked here.

mod disks;
mod files;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_lab::{Direction, Lab, Link, Process, Role};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::check::Objection;
use crate::condition::Conditions;
use crate::error::Result;
use crate::load::Load;
use crate::schedule::{Fault, Planned};

const LEADER_WITHIN: Duration = Duration::from_secs(3);

pub struct Injector<'a> {
    pub lab: &'a Lab,
    pub load: &'a Load,
    pub conditions: Arc<Conditions>,
    pub nodes: Vec<Node>,
    pub objections: Vec<Objection>,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub role: Role,
}

/// A fault under way.
#[derive(Debug)]
pub struct Begun {
    /// Whom it meets, for the story.
    pub who: String,
    pub what: String,
    nodes: Vec<String>,
    undo: Undo,
}

#[derive(Debug)]
enum Undo {
    Nothing,
    StartAgent,
    StartNodes,
    ResumeAgent,
    ResumeNode,
    ResumeProcess(i32),
    Heal,
    FreeDisk,
    /// Puts this copy back in the place of the data folder.
    Restore(PathBuf),
    /// Takes the manager out, empties its folder and lets it join anew.
    Replace,
}

impl Injector<'_> {
    /// Does it; `None` when there is nothing to do it to, such as a container where none runs. What
    /// cannot be done is objected to: the rest of the run still counts.
    pub fn begin(&mut self, planned: &Planned) -> Option<Begun> {
        self.try_begin(planned).unwrap_or_else(|error| {
            let at = planned.node.as_deref().unwrap_or("the lab");
            self.conditions.recover(at);
            self.object("harness", format!("{} at {at}: {}", planned.fault.word(), chain(&error)));
            None
        })
    }

    fn try_begin(&mut self, planned: &Planned) -> Result<Option<Begun>> {
        let pick = planned.pick;
        let node = match (&planned.node, planned.fault) {
            (Some(node), _) => node.clone(),
            (None, Fault::Blackout) => return self.blackout().map(Some),
            // Without a leader there is none to kill.
            (None, _) => match self.load.leader(LEADER_WITHIN) {
                Ok(leader) if !self.conditions.is_impaired(&leader) => leader,
                _ => return Ok(None),
            },
        };
        let one = |what: String, undo: Undo| {
            Some(Begun { who: node.clone(), what, nodes: vec![node.clone()], undo })
        };
        let light = matches!(planned.fault, Fault::Shims | Fault::Containers | Fault::Hangs);
        if !light {
            self.conditions.impair(&node);
        }
        let begun = match planned.fault {
            Fault::Workers | Fault::Managers => {
                self.lab.kill_agent(&node)?;
                one("kill -9 of its daemon".to_owned(), Undo::StartAgent)
            }
            Fault::Leader => {
                self.lab.kill_agent(&node)?;
                one("kill -9 of the leader".to_owned(), Undo::StartAgent)
            }
            Fault::Hosts | Fault::Blackout => {
                self.lab.kill(&node)?;
                one("power off".to_owned(), Undo::StartNodes)
            }
            Fault::Pauses if pick.is_multiple_of(2) => {
                self.lab.pause_agent(&node)?;
                one("SIGSTOP of its daemon".to_owned(), Undo::ResumeAgent)
            }
            Fault::Pauses => {
                self.lab.pause(&node)?;
                one("the whole host freezes".to_owned(), Undo::ResumeNode)
            }
            Fault::Cuts => {
                let what = match pick % 3 {
                    0 => self.lab.cut(&node).map(|()| "cut off")?,
                    1 => self.one_way(&node, Direction::In, "hears nothing")?,
                    _ => self.one_way(&node, Direction::Out, "is not heard")?,
                };
                one(what.to_owned(), Undo::Heal)
            }
            Fault::Links => {
                let (what, link) = link_of(pick);
                self.lab.shape(&node, link)?;
                one(what, Undo::Heal)
            }
            Fault::Shims | Fault::Containers | Fault::Hangs => {
                return self.process(&node, planned.fault, pick);
            }
            Fault::Disks => {
                self.lab.fill_disk(&node)?;
                one("its disk is full".to_owned(), Undo::FreeDisk)
            }
            Fault::Files => {
                let (what, undo) = self.damage(&node, pick)?;
                one(what, undo)
            }
        };
        Ok(begun)
    }

    fn one_way(&self, node: &str, way: Direction, what: &'static str) -> Result<&'static str> {
        self.lab.cut_one_way(node, way)?;
        Ok(what)
    }

    fn blackout(&mut self) -> Result<Begun> {
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        for name in &names {
            self.conditions.impair(name);
        }
        for name in &names {
            self.lab.kill(name)?;
        }
        let what = "power off, everywhere".to_owned();
        Ok(Begun { who: "all hosts".to_owned(), what, nodes: names, undo: Undo::StartNodes })
    }

    /// Meets one process of the node: a shim, or a container's program.
    fn process(&self, node: &str, fault: Fault, pick: u64) -> Result<Option<Begun>> {
        let wanted = |process: &Process| match fault {
            Fault::Containers => process.cgroup.starts_with("ctr/") && !process.argv.is_empty(),
            _ => process.name.starts_with("cluster-shim"),
        };
        let found: Vec<Process> = self.lab.processes(node)?.into_iter().filter(wanted).collect();
        let Some(place) = usize::try_from(pick).ok().and_then(|pick| pick.checked_rem(found.len()))
        else {
            return Ok(None);
        };
        let pid = found[place].pid;
        let (signal, what, undo) = match fault {
            Fault::Hangs => (Signal::SIGSTOP, "SIGSTOP of a shim", Undo::ResumeProcess(pid)),
            Fault::Shims => (Signal::SIGKILL, "kill -9 of a shim", Undo::Nothing),
            _ => (Signal::SIGKILL, "kill -9 of a container's program", Undo::Nothing),
        };
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), signal);
        let what = format!("{what} (process {pid})");
        Ok(Some(Begun { who: node.to_owned(), what, nodes: Vec::new(), undo }))
    }

    /// Undoes it; what there is to tell, if anything was to be undone.
    pub fn end(&mut self, begun: Begun) -> Option<String> {
        let told = self.try_end(&begun).unwrap_or_else(|error| {
            self.object("harness", format!("undoing at {}: {}", begun.who, chain(&error)));
            None
        });
        for name in &begun.nodes {
            self.conditions.recover(name);
        }
        told
    }

    fn try_end(&mut self, begun: &Begun) -> Result<Option<String>> {
        let node = begun.who.as_str();
        let told = match &begun.undo {
            Undo::Nothing => None,
            Undo::StartAgent => {
                self.lab.start_agent(node)?;
                Some("its daemon is started again".to_owned())
            }
            Undo::StartNodes => {
                for name in &begun.nodes {
                    self.lab.start(name)?;
                }
                Some("power is back".to_owned())
            }
            Undo::ResumeAgent => {
                self.lab.resume_agent(node)?;
                Some("its daemon goes on".to_owned())
            }
            Undo::ResumeNode => {
                self.lab.resume(node)?;
                Some("the host goes on".to_owned())
            }
            Undo::ResumeProcess(pid) => {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
                Some("the shim goes on".to_owned())
            }
            Undo::Heal => {
                self.lab.heal(node)?;
                Some("its links are whole again".to_owned())
            }
            Undo::FreeDisk => Some(self.free(node)?),
            Undo::Restore(copy) => Some(self.restore(node, copy)?),
            Undo::Replace => Some(self.replace(node)?),
        };
        Ok(told)
    }

    fn role(&self, node: &str) -> Role {
        let known = self.nodes.iter().find(|known| known.name == node);
        known.map_or(Role::Worker, |known| known.role)
    }

    fn object(&mut self, rule: &'static str, detail: String) {
        self.objections.push(Objection::new(rule, detail));
    }

    /// The last lines of a node's log.
    fn log_tail(&self, node: &str, lines: usize) -> String {
        let text = std::fs::read(self.lab.log_path(node)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// An error with what caused it, in one line.
pub fn chain(error: &crate::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn link_of(pick: u64) -> (String, Link) {
    let none = Link::default();
    match pick % 3 {
        0 => {
            let link = Link { delay_ms: 150, jitter_ms: 100, ..none };
            ("every frame is 150 to 250 ms late".to_owned(), link)
        }
        1 => ("one frame of ten is lost".to_owned(), Link { loss_ppm: 100_000, ..none }),
        _ => ("its link is down to 256 kbit/s".to_owned(), Link { rate_kbit: 256, ..none }),
    }
}
