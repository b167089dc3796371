//! The way up: image, network, container, start.

use std::error::Error as StdError;
use std::time::Duration;

use cluster_daemon::chain;
use cluster_image::{Image, Phase, Progress, Reference};
use cluster_model::Observed;
use cluster_model::spec::HostPort as Wants;
use cluster_network::mesh::{HostPort, HostPortError};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Supervisor, Wanted, now_ms};
use crate::report::Urgency;
use crate::task::container;
use crate::task::ending::Ending;
use crate::task::machine::{Container, Goal};

/// Attempts to get an image before its task is rejected; managers may try elsewhere.
const FETCH_ATTEMPTS: u32 = 3;
const FETCH_PAUSE: Duration = Duration::from_millis(500);
/// How often people are told how far a pull is.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

impl Supervisor {
    pub(super) async fn ensure_image(&mut self) {
        let Some(assignment) = self.assignment.clone() else { return };
        self.tell(Observed::Preparing, Urgency::Passing);
        let reference = match assignment.spec.container.image.parse::<Reference>() {
            Ok(reference) => reference,
            Err(error) => return self.reject(&error).await,
        };
        for attempt in 1.. {
            match self.fetch(&reference).await {
                // It is no longer wanted.
                None => return,
                Some(Ok(image)) => {
                    self.image = Some(image);
                    self.facts.image = true;
                    return;
                }
                Some(Err(error)) if error.is_permanent() || attempt >= FETCH_ATTEMPTS => {
                    return self.reject(&error).await;
                }
                Some(Err(error)) => {
                    let message = format!("{}; trying again", chain(&error));
                    tracing::info!(image = %reference, error = %message, "image not fetched");
                    self.tell_with(Observed::Preparing, Urgency::Now, Some(message));
                    let pause = FETCH_PAUSE * attempt;
                    if tokio::time::timeout(pause, unwanted(&mut self.wanted)).await.is_ok() {
                        return;
                    }
                }
            }
        }
    }

    async fn fetch(
        &mut self,
        reference: &Reference,
    ) -> Option<Result<Image, cluster_image::Error>> {
        let node = self.node.clone();
        let mut wanted = self.wanted.clone();
        let (sender, progress) = watch::channel(Progress::default());
        let fetch = async {
            // Never closed.
            let _place = node.fetching.acquire().await;
            node.parts.images.ensure(reference, sender).await
        };
        tokio::pin!(fetch);
        let begun = Instant::now() + PROGRESS_PERIOD;
        let mut tick = tokio::time::interval_at(begun, PROGRESS_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                fetched = &mut fetch => return Some(fetched),
                () = unwanted(&mut wanted) => return None,
                _ = tick.tick() => {
                    let text = describe(reference, &progress.borrow());
                    self.tell_with(Observed::Preparing, Urgency::Now, Some(text));
                }
            }
        }
    }

    pub(super) async fn attach(&mut self) {
        let node = self.node.clone();
        let _place = node.starting.acquire().await;
        match node.parts.network.attach(self.id.as_str()).await {
            Ok(attached) => {
                self.attached = Some(attached);
                self.facts.attached = true;
            }
            Err(error) => self.reject(&error).await,
        }
    }

    pub(super) async fn create(&mut self) {
        let (Some(assignment), Some(image), Some(attached)) =
            (self.assignment.clone(), self.image.clone(), self.attached.clone())
        else {
            return;
        };
        let node = self.node.clone();
        let _place = node.starting.acquire().await;
        self.record.created = true;
        let (record, dir) = (self.record.clone(), node.data.task(self.task));
        let built = cluster_daemon::blocking({
            let node = node.clone();
            move || {
                record.store(&dir)?;
                container::build(&node, &assignment, &image, &attached)
            }
        });
        let spec = match built.await {
            Ok(Ok(spec)) => spec,
            Ok(Err(error)) => return self.reject(&error).await,
            Err(error) => return self.reject(&error).await,
        };
        self.stop_with = (spec.effective_stop_signal(), self.stop_with.1);
        if let Some(assignment) = &self.assignment {
            let grace = assignment.spec.container.stop_grace_period_ms;
            self.stop_with.1 = Duration::from_millis(grace);
        }
        let create = node.parts.runtime.create(&spec);
        match node.health.watch(format!("create of {}", self.id), create).await {
            Ok(_) => {
                self.facts.container = Container::Created;
                self.labels = spec.labels;
                // The container keeps its layers.
                self.image = None;
            }
            Err(error) => self.reject(&error).await,
        }
    }

    pub(super) async fn start(&mut self) {
        let node = self.node.clone();
        let _place = node.starting.acquire().await;
        // Waiting for the place may have taken long: the caller looks anew at what is wanted.
        if self.wanted.has_changed().unwrap_or(false) || !self.may_begin() {
            return;
        }
        self.tell(Observed::Starting, Urgency::Passing);
        if let Err(error) = self.open_host_ports(false).await {
            return self.cannot_start(&error).await;
        }
        let start = node.parts.runtime.start(&self.id);
        match node.health.watch(format!("start of {}", self.id), start).await {
            Ok(_) => {
                self.facts.container = Container::Running;
                self.started = true;
                // Before anybody hears of it: who hears sends connections.
                if let Some(attached) = &self.attached {
                    node.parts.balancers.set_local(self.id.as_str(), attached.ip);
                }
                self.watch_start();
            }
            Err(error) => self.cannot_start(&error).await,
        }
    }

    async fn cannot_start(&mut self, error: &(dyn StdError + Send + Sync + 'static)) {
        // A container that never ran has nothing to be kept for.
        match self.node.parts.runtime.remove(&self.id, true).await {
            Ok(()) => self.facts.container = Container::Absent,
            Err(error) => {
                let error = &error as &dyn StdError;
                tracing::warn!(error, "a container that did not start stays for now");
            }
        }
        self.reject(error).await;
    }

    /// They lead nowhere before the container runs, and stay open as long as it does.
    pub(super) async fn open_host_ports(&self, insist: bool) -> Result<(), HostPortError> {
        let ports = match &self.assignment {
            Some(assignment) => assignment.spec.host_ports.as_slice(),
            None => &[],
        };
        if ports.is_empty() {
            return Ok(());
        }
        let port = |port: &Wants| HostPort { published: port.published, target: port.target };
        let ports: Vec<HostPort> = ports.iter().map(port).collect();
        self.node.parts.balancers.open_host(self.id.as_str(), &ports, insist).await
    }

    /// It cannot be started here. Whether to try again, and where, the managers say.
    async fn reject(&mut self, error: &(dyn StdError + Send + Sync + 'static)) {
        let text = chain(error);
        tracing::info!(error = text, "task rejected");
        self.conclude(Ending::rejected(text), now_ms()).await;
    }
}

/// Resolves when the task is to end, or the worker ends.
async fn unwanted(wanted: &mut watch::Receiver<Wanted>) {
    let ends = |wanted: &Wanted| match wanted {
        Wanted::Assigned(assignment) => Goal::of(assignment.desired) >= Goal::Stopped,
        Wanted::Gone => true,
    };
    // An error says that the worker ends.
    let _ = wanted.wait_for(ends).await;
}

fn describe(reference: &Reference, progress: &Progress) -> String {
    let mib = |bytes: u64| bytes / (1 << 20);
    match progress.phase {
        Phase::Resolving => format!("looking for image {reference}"),
        Phase::Pulling | Phase::Done => format!(
            "pulling {reference}: {} of {} layers, {} of {} MiB",
            progress.layers_done,
            progress.layers_total,
            mib(progress.bytes_done),
            mib(progress.bytes_total)
        ),
    }
}
