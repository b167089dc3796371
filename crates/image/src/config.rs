//! The part of an image's configuration a runtime needs, and its JSON form.
//!
//! Docker and OCI write the same document; both write `null` where nothing is
//! set, so every field is optional on the way in and plain on the way out.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::platform::Platform;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `KEY=value`, in the image's order.
    pub env: Vec<String>,
    /// Empty means `/`.
    pub working_dir: String,
    /// `user[:group]`, names or numbers; empty means root.
    pub user: String,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Paths declared as volumes.
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<String>,
    pub healthcheck: Option<Healthcheck>,
    pub os: String,
    pub architecture: String,
}

/// Docker's HEALTHCHECK; zero means the default, as do numbers that make no sense.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", line]`; empty says nothing.
    pub test: Vec<String>,
    pub interval_ns: u64,
    pub timeout_ns: u64,
    pub start_period_ns: u64,
    pub start_interval_ns: u64,
    pub retries: u32,
}

impl Healthcheck {
    /// What it runs, as program and arguments; none when it checks nothing.
    pub fn command(&self) -> Option<Vec<String>> {
        let (kind, words) = self.test.split_first()?;
        match (kind.as_str(), words) {
            ("CMD", [_, ..]) => Some(words.to_vec()),
            ("CMD-SHELL", [line, ..]) => {
                Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()])
            }
            // "NONE", and what nobody understands.
            _ => None,
        }
    }
}

/// As images have it: builders of all ages wrote it, so each field may be null or below zero.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HealthcheckSection {
    test: Option<Vec<String>>,
    interval: Option<i64>,
    timeout: Option<i64>,
    start_period: Option<i64>,
    start_interval: Option<i64>,
    retries: Option<i64>,
}

impl From<HealthcheckSection> for Healthcheck {
    fn from(section: HealthcheckSection) -> Self {
        let number = |value: Option<i64>| value.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        Self {
            test: section.test.unwrap_or_default(),
            interval_ns: number(section.interval),
            timeout_ns: number(section.timeout),
            start_period_ns: number(section.start_period),
            start_interval_ns: number(section.start_interval),
            retries: u32::try_from(number(section.retries)).unwrap_or(0),
        }
    }
}

/// The configuration blob, as far as we read it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigDocument {
    architecture: Option<String>,
    os: Option<String>,
    config: Option<ConfigSection>,
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ConfigSection {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    labels: Option<BTreeMap<String, Option<String>>>,
    stop_signal: Option<String>,
    healthcheck: Option<HealthcheckSection>,
}

impl ConfigDocument {
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| Error::MalformedArchive {
            entry: what.to_owned(),
            reason: "it is not an image configuration".to_owned(),
            source: Some(std::sync::Arc::new(e)),
        })
    }

    pub(crate) fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone().unwrap_or_default(),
            architecture: self.architecture.clone().unwrap_or_default(),
        }
    }

    pub(crate) fn diff_ids(&self) -> &[Digest] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }

    /// Refuses an image that this node cannot run, naming both platforms.
    pub(crate) fn require(&self, wanted: &Platform, image: &str) -> Result<()> {
        let found = self.platform();
        if found == *wanted {
            return Ok(());
        }
        Err(Error::WrongPlatform {
            image: image.to_owned(),
            wanted: wanted.clone(),
            found: found.to_string(),
        })
    }

    pub(crate) fn into_config(self) -> ImageConfig {
        let section = self.config.unwrap_or_default();
        let keys = |map: Option<BTreeMap<String, serde_json::Value>>| {
            map.unwrap_or_default().into_keys().collect()
        };
        let labels = section.labels.unwrap_or_default().into_iter();
        ImageConfig {
            entrypoint: section.entrypoint.unwrap_or_default(),
            cmd: section.cmd.unwrap_or_default(),
            env: section.env.unwrap_or_default(),
            working_dir: section.working_dir.unwrap_or_default(),
            user: section.user.unwrap_or_default(),
            exposed_ports: keys(section.exposed_ports),
            volumes: keys(section.volumes),
            labels: labels.map(|(k, v)| (k, v.unwrap_or_default())).collect(),
            stop_signal: section.stop_signal.filter(|s| !s.is_empty()),
            healthcheck: section.healthcheck.map(Healthcheck::from),
            os: self.os.unwrap_or_default(),
            architecture: self.architecture.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthcheck(json: serde_json::Value) -> Healthcheck {
        let document = serde_json::json!({"config": {"Healthcheck": json}});
        let document = ConfigDocument::parse(document.to_string().as_bytes(), "x").unwrap();
        document.into_config().healthcheck.unwrap()
    }

    #[test]
    fn health_checks_as_builders_write_them() {
        let check = healthcheck(serde_json::json!({
            "Test": ["CMD-SHELL", "wget -q -O- localhost || exit 1"], "Interval": 5_000_000_000u64,
            "Timeout": 3_000_000_000u64, "StartPeriod": 1_000_000u64, "Retries": 4,
        }));
        let line = "wget -q -O- localhost || exit 1";
        assert_eq!(check.command().unwrap(), ["/bin/sh", "-c", line]);
        assert_eq!((check.interval_ns, check.retries), (5_000_000_000, 4));
        let plain = healthcheck(serde_json::json!({"Test": ["CMD", "/check", "-q"]}));
        assert_eq!(plain.command().unwrap(), ["/check", "-q"]);
        for nothing in [
            serde_json::json!({"Test": ["NONE"]}),
            serde_json::json!({"Test": null, "Interval": -1, "Retries": null}),
            serde_json::json!({"Test": ["CMD"]}),
            serde_json::json!({"Test": []}),
        ] {
            assert_eq!(healthcheck(nothing.clone()).command(), None, "{nothing}");
        }
    }
}
