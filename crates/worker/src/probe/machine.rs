//! What a task's probes mean together, as a pure function of their results.
//!
//! The startup probe gates the other two. Without one the task is starting until its readiness
//! probe has succeeded once, or its liveness probe if it has no other; liveness then counts from
//! the container's start. Liveness failing ends the task, readiness failing only keeps traffic away.

use std::fmt;

use cluster_model::spec::Probe;

use super::plan::Plan;
use super::track::{Track, Verdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Startup => "startup",
            Kind::Liveness => "liveness",
            Kind::Readiness => "readiness",
        })
    }
}

/// How the task is, by its probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody may know it as running yet.
    Starting,
    Ready,
    /// It runs, but no connection should come, for this reason.
    NotReady(String),
    /// It is to be ended, for this reason. Nothing follows.
    Unhealthy(String),
}

#[derive(Clone, Debug)]
pub struct Machine {
    plan: Plan,
    startup: Option<Track>,
    liveness: Option<Track>,
    readiness: Option<Track>,
    standing: Standing,
    /// Why it is starting still, for people.
    reason: Option<String>,
}

impl Machine {
    /// Of a container that started `now_ms` ago.
    pub fn new(plan: Plan, now_ms: u64) -> Self {
        let mut machine = Self {
            startup: plan.startup.as_ref().map(|probe| Track::new(probe, now_ms)),
            liveness: None,
            readiness: None,
            standing: Standing::Starting,
            reason: None,
            plan,
        };
        if machine.startup.is_none() {
            machine.begin_others(now_ms, Track::new);
        }
        machine
    }

    /// Of a container that was up before this process began: it does not start again.
    pub fn adopted(plan: Plan, now_ms: u64, ready: bool) -> Self {
        let standing = match ready {
            true => Standing::Ready,
            false => Standing::NotReady("not ready since before the worker's restart".to_owned()),
        };
        let (startup, liveness, readiness) = (None, None, None);
        let mut machine = Self { startup, liveness, readiness, standing, reason: None, plan };
        machine.begin_others(now_ms, Track::passed_before);
        machine
    }

    fn begin_others(&mut self, now_ms: u64, track: impl Fn(&Probe, u64) -> Track) {
        self.liveness = self.plan.liveness.as_ref().map(|probe| track(probe, now_ms));
        self.readiness = self.plan.readiness.as_ref().map(|probe| track(probe, now_ms));
    }

    pub fn standing(&self) -> Standing {
        self.standing.clone()
    }

    /// Why it is starting still, once more than the first checks were in vain.
    pub fn reason(&self) -> Option<String> {
        self.reason.clone().filter(|_| self.standing == Standing::Starting)
    }

    fn track(&mut self, kind: Kind) -> Option<&mut Track> {
        match kind {
            Kind::Startup => self.startup.as_mut(),
            Kind::Liveness => self.liveness.as_mut(),
            Kind::Readiness => self.readiness.as_mut(),
        }
    }

    /// A check could not be made: it counts neither as a success nor as a failure.
    pub fn missed(&mut self, kind: Kind, why: &str) {
        let Some(track) = self.track(kind) else { return };
        track.missed();
        if track.is_telling() {
            self.reason = Some(format!("{kind}: not known: {why}"));
        }
    }

    /// The probes that run now, each with its pause before the next check.
    pub fn due(&self, now_ms: u64) -> Vec<(Kind, u64)> {
        let tracks = [
            (Kind::Startup, &self.startup),
            (Kind::Liveness, &self.liveness),
            (Kind::Readiness, &self.readiness),
        ];
        let due = |(kind, track): (Kind, &Option<Track>)| {
            track.as_ref().map(|track| (kind, track.pause_ms(now_ms)))
        };
        tracks.into_iter().filter_map(due).collect()
    }

    pub fn probe(&self, kind: Kind) -> Option<&Probe> {
        match kind {
            Kind::Startup => self.plan.startup.as_ref(),
            Kind::Liveness => self.plan.liveness.as_ref(),
            Kind::Readiness => self.plan.readiness.as_ref(),
        }
    }

    /// Takes the result of a check that ended at `now_ms`; an error says what it found.
    pub fn took(&mut self, kind: Kind, now_ms: u64, said: Result<(), String>) {
        if matches!(self.standing, Standing::Unhealthy(_)) {
            return;
        }
        // It does not run any more.
        let Some(track) = self.track(kind) else { return };
        track.took(now_ms, said.is_ok());
        let (verdict, telling) = (track.verdict(), track.is_telling());
        let Err(why) = said else { return self.succeeded(kind, now_ms) };
        if telling {
            self.reason = Some(format!("{kind}: {why}"));
        }
        match (kind, verdict) {
            (_, Verdict::Undecided | Verdict::Passing) => {}
            (Kind::Startup | Kind::Liveness, Verdict::Failing) => {
                self.standing = Standing::Unhealthy(why);
            }
            // What never was ready is starting still.
            (Kind::Readiness, Verdict::Failing) if self.standing == Standing::Starting => {}
            (Kind::Readiness, Verdict::Failing) => self.standing = Standing::NotReady(why),
        }
    }

    fn succeeded(&mut self, kind: Kind, now_ms: u64) {
        match kind {
            Kind::Startup => {
                self.startup = None;
                self.begin_others(now_ms, Track::new);
                self.standing = match &self.readiness {
                    Some(_) => Standing::NotReady("its readiness is not known yet".to_owned()),
                    None => Standing::Ready,
                };
            }
            // Alone it decides about traffic too.
            Kind::Liveness if self.readiness.is_none() => self.standing = Standing::Ready,
            Kind::Liveness => {}
            Kind::Readiness => self.standing = Standing::Ready,
        }
    }
}

#[cfg(test)]
mod tests;
