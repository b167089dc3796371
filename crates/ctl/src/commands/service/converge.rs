//! Waiting until a service is as asked, and showing how far it is.
//!
//! *On failure* of the manager that is watched, another is asked and the wait goes on.

use std::time::{Duration, Instant};

use cluster_pb::control::v1::{GetServiceRequest, WatchServiceRequest, WatchServiceResponse};
use cluster_pb::types::v1 as pb;
use cluster_wire::Code;
use tonic::Streaming;

use crate::Invocation;
use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::Printer;
use crate::progress::{Before, Limits, Picture, Tracker, Verdict, draw};
use crate::text::{moment, now_ms, until};
use crate::values::duration::duration;

/// How long managers may be out of reach, in one go, before the wait is given up.
const BLIND_MAX: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Waiting")]
pub struct Patience {
    /// Do not wait until the service runs as asked
    #[arg(long, short)]
    detach: bool,

    /// Show no progress
    #[arg(long, short)]
    quiet: bool,

    /// How long a task may stand still, for example pending, before the wait is given up
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    wait_timeout: Duration,

    /// How long all replicas must have stayed running; ten times that once one has failed
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    settle: Duration,
}

impl Patience {
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }
}

/// What is waited for.
pub struct Goal {
    pub id: String,
    pub name: String,
    /// The wait begins with this version of the service or a later one.
    version: u64,
    /// And with a view of this log index or a later one.
    index: u64,
    before: Before,
    /// It launches jobs, and runs nothing itself.
    is_scheduled: bool,
    is_job: bool,
    is_global: bool,
}

impl Goal {
    pub fn created(id: String, spec: &pb::ServiceSpec, version: u64) -> Self {
        use pb::service_spec::Mode;
        Self {
            id,
            name: spec.name.clone(),
            version,
            index: 0,
            before: Before::default(),
            is_scheduled: spec.job.as_ref().is_some_and(|job| job.schedule.is_some()),
            is_global: matches!(spec.mode(), Mode::Global | Mode::GlobalJob),
            is_job: matches!(spec.mode(), Mode::ReplicatedJob | Mode::GlobalJob),
        }
    }

    /// `service` is as it was before.
    pub fn changed(service: &pb::Service, version: u64) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let before = Before {
            revision: Some(service.revision),
            rollout: service.rollout.clone(),
            going_back: false,
        };
        Self { before, ..Self::created(service.id.clone(), &spec, version) }
    }

    pub fn rolled_back(service: &pb::Service, version: u64) -> Self {
        let goal = Self::changed(service, version);
        Self { before: Before { going_back: true, ..goal.before }, ..goal }
    }

    /// A user's word on the rollout changes the service at `index`, but not its version.
    pub fn steered(service: &pb::Service, index: u64) -> Self {
        let goal = Self::changed(service, service.version);
        let going_back = service.rollout.as_ref().is_some_and(|r| r.kind == "rollback");
        Self { index, before: Before { rollout: None, going_back, ..goal.before }, ..goal }
    }
}

/// Returns when the service has converged or the user detached; else why it cannot.
pub async fn wait(
    invocation: &mut Invocation,
    client: &mut Client,
    goal: &Goal,
    patience: &Patience,
) -> Result<(), Error> {
    if patience.detach {
        return Ok(());
    }
    if goal.is_scheduled {
        return tell_next_launch(invocation, client, goal, patience).await;
    }
    let mut screen = Screen::new(patience.quiet);
    let printer = &mut invocation.printer;
    let outcome = tokio::select! {
        outcome = follow(printer, &mut screen, client, goal, patience) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(Outcome::Detached),
    };
    match outcome {
        Ok(Outcome::Converged) if goal.is_global && screen.last.wanted == 0 => {
            let line = format!(
                "service {} runs on no node yet: none is active and meets its constraints",
                goal.name
            );
            screen.say(printer, &line);
            Ok(())
        }
        Ok(Outcome::Converged) => {
            let what = if goal.is_job { "completed" } else { "converged" };
            screen.say(printer, &format!("service {} {what}", goal.name));
            Ok(())
        }
        Ok(Outcome::StillPaused(reason)) => {
            screen.say(printer, &format!("service {} is changed; {reason}", goal.name));
            Ok(())
        }
        Ok(Outcome::Awaiting) => {
            let line = format!(
                "the canaries of service {0} are healthy and wait for promotion: \
                 `clusterctl service promote {0}` moves the rest, \
                 `clusterctl service rollback {0}` goes back",
                goal.name
            );
            screen.say(printer, &line);
            Ok(())
        }
        Ok(Outcome::Detached) => {
            let line = format!("detached; look again with `clusterctl service ps {}`", goal.name);
            printer.say(&line);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// A scheduled service runs nothing itself: there is nothing to wait for.
async fn tell_next_launch(
    invocation: &mut Invocation,
    client: &mut Client,
    goal: &Goal,
    patience: &Patience,
) -> Result<(), Error> {
    if patience.quiet {
        return Ok(());
    }
    let line = match read(client, &goal.id).await?.next_launch_ms {
        0 => format!("service {} has no launch to come", goal.name),
        next => {
            let (at, wait) = (moment(next), until(next, now_ms()));
            format!("service {} is launched next {wait}, at {at}", goal.name)
        }
    };
    invocation.printer.say(&line);
    Ok(())
}

enum Outcome {
    Converged,
    Awaiting,
    StillPaused(String),
    Detached,
}

async fn follow(
    printer: &mut Printer,
    screen: &mut Screen,
    client: &mut Client,
    goal: &Goal,
    patience: &Patience,
) -> Result<Outcome, Error> {
    let limits = Limits { patience: patience.wait_timeout, settle: patience.settle };
    let mut tracker = Tracker::new(limits, goal.before.clone(), Instant::now());
    let mut blind_since: Option<Instant> = None;
    loop {
        let error = match watch(client, goal).await {
            Ok(mut stream) => {
                match look(printer, screen, goal, &mut tracker, &mut stream, &mut blind_since).await
                {
                    Ok(outcome) => return Ok(outcome),
                    Err(Break::Final(error)) => return Err(error),
                    Err(Break::Lost(error)) => error,
                }
            }
            Err(error) => error,
        };
        if error.code == Some(Code::NotFound) {
            return Err(Error::refused(format!("service {} was removed meanwhile", goal.name)));
        }
        let temporary = matches!(error.exit, Exit::Unreachable | Exit::TimedOut);
        let since = *blind_since.get_or_insert_with(Instant::now);
        if !temporary || since.elapsed() >= BLIND_MAX {
            let hint =
                format!("the service stays; look again with `clusterctl service ps {}`", goal.name);
            return Err(error.hint(hint));
        }
        screen
            .say(printer, &format!("lost sight of the service ({error}); asking another manager"));
        client.leave_manager();
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn watch(client: &mut Client, goal: &Goal) -> Result<Streaming<WatchServiceResponse>, Error> {
    client.watch_service(WatchServiceRequest { service: goal.id.clone() }).await
}

enum Break {
    Final(Error),
    /// The stream ended; another may tell more.
    Lost(Error),
}

/// Follows one stream.
async fn look(
    printer: &mut Printer,
    screen: &mut Screen,
    goal: &Goal,
    tracker: &mut Tracker,
    stream: &mut Streaming<WatchServiceResponse>,
    blind_since: &mut Option<Instant>,
) -> Result<Outcome, Break> {
    loop {
        let until = match tracker.verdict(Instant::now()) {
            Verdict::Converged => return Ok(Outcome::Converged),
            Verdict::Awaiting => return Ok(Outcome::Awaiting),
            Verdict::StillPaused { reason } => return Ok(Outcome::StillPaused(reason)),
            Verdict::Failing { reason } => return Err(Break::Final(failing(goal, &reason))),
            Verdict::Stuck { reason } => return Err(Break::Final(stuck(goal, &reason))),
            Verdict::Waiting { until } => until,
        };
        let message = match until {
            Some(until) => match tokio::time::timeout_at(until.into(), stream.message()).await {
                Ok(message) => message,
                Err(_) => continue,
            },
            None => stream.message().await,
        };
        let response = match message {
            Ok(Some(response)) => response,
            // Removed, or the manager stops: asking again tells which.
            Ok(None) => return Err(Break::Lost(Error::unreachable("the manager ended the watch"))),
            Err(status) => return Err(Break::Lost(lost(&status))),
        };
        *blind_since = None;
        let is_news =
            |service: &pb::Service| service.version >= goal.version && response.index >= goal.index;
        let Some(service) = response.service.filter(is_news) else {
            continue;
        };
        tracker.observe(&service, &response.tasks, Instant::now());
        screen.show(printer, tracker.picture());
    }
}

/// A watch that breaks did no harm, whatever the status says.
fn lost(status: &tonic::Status) -> Error {
    let error = Error::from_status(status);
    match error.code {
        Some(Code::NotFound) => error,
        _ => Error { exit: Exit::Unreachable, ..error },
    }
}

fn failing(goal: &Goal, reason: &str) -> Error {
    let what = if goal.is_job { "did not complete" } else { "does not converge" };
    Error::refused(format!("service {} {what}: {reason}", goal.name)).hint(format!(
        "the service stays as asked; look again with `clusterctl service ps {0}` and \
         `clusterctl service logs {0}`",
        goal.name
    ))
}

fn stuck(goal: &Goal, reason: &str) -> Error {
    Error::timed_out(format!("service {} did not converge in time: {reason}", goal.name)).hint(
        format!(
            "the service stays and the managers keep trying; look again with \
             `clusterctl service ps {}`",
            goal.name
        ),
    )
}

/// Shows pictures: drawn over each other for a person, a line per change for anything else.
struct Screen {
    quiet: bool,
    last: Picture,
}

impl Screen {
    fn new(quiet: bool) -> Self {
        Self { quiet, last: Picture::default() }
    }

    fn show(&mut self, printer: &mut Printer, picture: Picture) {
        if !self.quiet && picture != self.last {
            if printer.is_live() {
                printer.draw(&draw::whole(&picture));
            } else {
                for line in draw::changes(&self.last, &picture) {
                    printer.say(&line);
                }
            }
        }
        self.last = picture;
    }

    fn say(&self, printer: &mut Printer, line: &str) {
        if !self.quiet {
            printer.say(line);
        }
    }
}

/// The service as it is now, for read-modify-write.
pub async fn read(
    client: &mut Client,
    name: &str,
) -> Result<cluster_pb::types::v1::Service, Error> {
    let request = GetServiceRequest { service: name.to_owned(), stale: false };
    let answer = client.get_service(request).await?;
    answer.service.ok_or_else(|| Error::refused(format!("the manager sent no service `{name}`")))
}
