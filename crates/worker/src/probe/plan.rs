//! Which probes a task has: its spec's, else its image's HEALTHCHECK.

use std::collections::BTreeMap;

use cluster_image::Healthcheck;
use cluster_model::spec::{Check, Health, Probe};

/// Label with the image's probe, for later starts of the worker: by then the image may be gone.
pub const LABEL: &str = "cluster.healthcheck";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub startup: Option<Probe>,
    pub liveness: Option<Probe>,
    /// None: as liveness.
    pub readiness: Option<Probe>,
}

impl Plan {
    /// The spec's probes, or the one that the container's labels carry.
    pub fn of(health: &Health, labels: &BTreeMap<String, String>) -> Self {
        let Health { ignore_image, startup, liveness, readiness } = health;
        if *ignore_image || startup.is_some() || liveness.is_some() || readiness.is_some() {
            return Self {
                startup: startup.clone(),
                liveness: liveness.clone(),
                readiness: readiness.clone(),
            };
        }
        let read = |text: &String| match serde_json::from_str(text) {
            Ok(probe) => probe,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(text, error, "the image's health check is unreadable: not probed");
                None
            }
        };
        Self { liveness: labels.get(LABEL).and_then(read), ..Self::default() }
    }

    /// There is nothing to wait for: a task that started runs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The value of [`LABEL`] for a container of an image.
pub fn label(healthcheck: Option<&Healthcheck>) -> String {
    serde_json::to_string(&healthcheck.and_then(from_image)).unwrap_or_default()
}

fn from_image(healthcheck: &Healthcheck) -> Option<Probe> {
    let defaults = Probe::new(Check::Exec(healthcheck.command()?));
    let or = |ns: u64, default: u64| if ns == 0 { default } else { ns.div_ceil(1_000_000) };
    Some(Probe {
        interval_ms: or(healthcheck.interval_ns, defaults.interval_ms),
        timeout_ms: or(healthcheck.timeout_ns, defaults.timeout_ms),
        retries: if healthcheck.retries == 0 { defaults.retries } else { healthcheck.retries },
        start_period_ms: or(healthcheck.start_period_ns, defaults.start_period_ms),
        start_interval_ms: or(healthcheck.start_interval_ns, defaults.start_interval_ms),
        ..defaults
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(healthcheck: Option<&Healthcheck>) -> BTreeMap<String, String> {
        BTreeMap::from([(LABEL.to_owned(), label(healthcheck))])
    }

    #[test]
    fn the_image_is_honoured_unless_the_spec_says_something() {
        let image = Healthcheck {
            test: vec!["CMD".into(), "/check".into()],
            interval_ns: 2_000_000_000,
            ..Healthcheck::default()
        };
        let labels = labels(Some(&image));
        let plan = Plan::of(&Health::default(), &labels);
        let probe = plan.liveness.clone().unwrap();
        assert_eq!(probe.check, Check::Exec(vec!["/check".into()]));
        assert_eq!((probe.interval_ms, probe.timeout_ms, probe.retries), (2000, 30_000, 3));
        assert!(plan.startup.is_none() && plan.readiness.is_none());

        let ignored = Health { ignore_image: true, ..Health::default() };
        assert!(Plan::of(&ignored, &labels).is_empty());
        let own =
            Health { readiness: Some(Probe::new(Check::Tcp { port: 80 })), ..Health::default() };
        let plan = Plan::of(&own, &labels);
        assert!(plan.liveness.is_none() && plan.readiness.is_some());
    }

    #[test]
    fn images_without_a_check_have_none() {
        let none = Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() };
        assert!(Plan::of(&Health::default(), &labels(Some(&none))).is_empty());
        assert!(Plan::of(&Health::default(), &labels(None)).is_empty());
        assert!(Plan::of(&Health::default(), &BTreeMap::new()).is_empty());
    }
}
