//! What the environment asks for, read once at start.

use std::env;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// Everything that can be set from outside, and who the orchestrator says we are.
pub struct Settings {
    pub port: u16,
    pub version: String,
    pub service: String,
    pub task: String,
    pub slot: String,
    pub node: String,
    pub crash_after: Option<Duration>,
    pub exit_after: Option<Duration>,
    pub exit_code: i32,
    pub start_delay: Duration,
    pub unhealthy: bool,
    pub unready: bool,
    pub ignore_term: bool,
}

impl Settings {
    /// Reads the environment; the error names the variable and what it should hold.
    pub fn from_env() -> Result<Self, String> {
        Ok(Self {
            port: parsed("PORT")?.unwrap_or(80),
            version: text("WEB_VERSION", "dev"),
            service: text("CLUSTER_SERVICE_NAME", "-"),
            task: text("CLUSTER_TASK_ID", "-"),
            slot: text("CLUSTER_TASK_SLOT", "-"),
            node: env::var("CLUSTER_NODE_NAME").unwrap_or_else(|_| text("CLUSTER_NODE_ID", "-")),
            crash_after: millis("CRASH_AFTER_MS")?,
            exit_after: millis("EXIT_AFTER_MS")?,
            exit_code: parsed("EXIT_CODE")?.unwrap_or(0),
            start_delay: millis("START_DELAY_MS")?.unwrap_or_default(),
            unhealthy: flag("UNHEALTHY"),
            unready: flag("UNREADY"),
            ignore_term: flag("IGNORE_TERM"),
        })
    }
}

fn text(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn flag(name: &str) -> bool {
    env::var(name).is_ok_and(|value| value == "1")
}

fn millis(name: &str) -> Result<Option<Duration>, String> {
    Ok(parsed(name)?.map(Duration::from_millis))
}

fn parsed<T>(name: &str) -> Result<Option<T>, String>
where
    T: FromStr,
    T::Err: Display,
{
    match env::var(name) {
        Err(_) => Ok(None),
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => match value.parse() {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(format!("{name}={value}: {error}")),
        },
    }
}
