//! Probes: how a worker finds out whether a task is well.
//!
//! *Flow*: [`plan`] says which probes a task has, [`machine`] (pure) makes a [`Standing`] of what
//! the checks say and when, [`check`] makes one check, and [`Probing`] drives them for one task.
//! The task's supervisor alone acts on the standing.
//!
//! Never here: stopping anything, or telling anybody.

pub mod check;
pub mod machine;
pub mod plan;
pub mod track;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use cluster_runtime::ContainerId;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::node::Node;
use check::Fault;
pub use machine::{Kind, Machine, Standing};
pub use plan::Plan;

/// The probes of one running container; they end when this is dropped.
pub struct Probing {
    standing: watch::Receiver<Told>,
    _driver: AbortOnDropHandle<()>,
}

/// A standing, and why it is starting still.
type Told = (Standing, Option<String>);

/// Whose probes.
pub struct Patient {
    pub id: ContainerId,
    /// Where its ports are; none when it has no network any more.
    pub ip: Option<Ipv4Addr>,
    /// Since the container started.
    pub age_ms: u64,
}

impl Probing {
    /// Probes until dropped or until the task is found unhealthy.
    pub fn begin(node: Arc<Node>, patient: Patient, machine: Machine) -> Self {
        let (tell, standing) = watch::channel((machine.standing(), None));
        let driver = tokio::spawn(drive(node, patient, machine, tell));
        Self { standing, _driver: AbortOnDropHandle::new(driver) }
    }

    /// The next standing that differs from the last one asked for, and why it is starting still.
    pub async fn changed(&mut self) -> (Standing, Option<String>) {
        if self.standing.changed().await.is_err() {
            // It has said its last word.
            std::future::pending::<()>().await;
        }
        self.standing.borrow_and_update().clone()
    }
}

/// Each probe runs by itself; none runs twice at once.
async fn drive(node: Arc<Node>, patient: Patient, mut machine: Machine, tell: watch::Sender<Told>) {
    let begun = Instant::now();
    let now = || {
        let elapsed = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        patient.age_ms.saturating_add(elapsed)
    };
    let mut running: Vec<Kind> = Vec::new();
    let mut checks = FuturesUnordered::new();
    loop {
        for (kind, pause_ms) in machine.due(now()) {
            if running.contains(&kind) {
                continue;
            }
            let Some(probe) = machine.probe(kind).cloned() else { continue };
            running.push(kind);
            let (node, patient) = (&node, &patient);
            checks.push(async move {
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                let timeout = Duration::from_millis(probe.timeout_ms);
                let said = check::run(node, &patient.id, patient.ip, &probe.check, timeout).await;
                (kind, said)
            });
        }
        let Some((kind, said)) = checks.next().await else { return };
        running.retain(|other| *other != kind);
        let said = match said {
            Ok(()) => Some(Ok(())),
            Err(Fault::Container(why)) => {
                tracing::debug!(container = %patient.id, probe = %kind, reason = why, "probe failed");
                Some(Err(why))
            }
            Err(Fault::Node(why)) => {
                let container = &patient.id;
                tracing::warn!(%container, probe = %kind, reason = why, "a probe could not be made");
                machine.missed(kind, &why);
                None
            }
        };
        if let Some(said) = said {
            machine.took(kind, now(), said);
        }
        tell.send_if_modified(|told| {
            let next = (machine.standing(), machine.reason());
            let news = *told != next;
            *told = next;
            news
        });
        if matches!(machine.standing(), Standing::Unhealthy(_)) {
            return;
        }
    }
}
