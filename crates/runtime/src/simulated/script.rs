//! What simulated containers do.

use std::time::Duration;

use crate::spec::ContainerSpec;

/// How simulated containers behave.
#[derive(Clone, Debug)]
pub struct Script {
    /// How long `create` takes.
    pub create_time: Duration,
    /// How long `start` takes.
    pub start_time: Duration,
    /// End after this long by themselves, with this code; otherwise run until stopped.
    pub exit_after: Option<(Duration, u8)>,
    /// SIGTERM and the like are ignored; only SIGKILL ends a container.
    pub ignore_stop: bool,
    /// Of 1000 creates, so many fail, evenly spread and always the same ones.
    pub failures_per_thousand: u32,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            create_time: Duration::ZERO,
            start_time: Duration::ZERO,
            exit_after: None,
            ignore_stop: false,
            failures_per_thousand: 0,
        }
    }
}

/// What one container does, from the script and from its command line.
pub struct Plan {
    /// End after this long with this code.
    pub exit_after: Option<(Duration, u8)>,
    /// Only SIGKILL ends it.
    pub ignore_stop: bool,
}

impl Plan {
    /// `["exit", CODE]` ends at once with that code, `["run"]` runs until it is stopped,
    /// `["ignore-stop"]` until it is killed; anything else follows the script.
    pub fn of(spec: &ContainerSpec, script: &Script) -> Self {
        let command = spec.command();
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["exit", code] => Self {
                exit_after: Some((Duration::ZERO, code.parse().unwrap_or(0))),
                ignore_stop: false,
            },
            ["run"] => Self { exit_after: None, ignore_stop: false },
            ["ignore-stop"] => Self { exit_after: None, ignore_stop: true },
            _ => Self { exit_after: script.exit_after, ignore_stop: script.ignore_stop },
        }
    }
}
