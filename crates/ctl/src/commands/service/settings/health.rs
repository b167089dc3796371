//! `--health-…`, `--readiness-…`, `--startup-…`: the three probes.

use cluster_pb::types::v1 as pb;

use super::put;
use crate::error::Error;
use crate::values::duration::{Span, milliseconds, span_above_zero};
use crate::values::probe::{Wanted, command, http, retries, tcp};

/// What was said of one probe.
struct Given<'a> {
    prefix: &'a str,
    check: Option<&'a Wanted>,
    interval: Option<Span>,
    timeout: Option<Span>,
    retries: Option<u32>,
    start_period: Option<u64>,
    start_interval: Option<Span>,
}

impl Given<'_> {
    fn apply(&self, probe: &mut Option<pb::Probe>) -> Result<(), Error> {
        match self.check {
            Some(Wanted(None)) => *probe = None,
            Some(Wanted(check)) => probe.get_or_insert_default().check.clone_from(check),
            None => {}
        }
        let Some(probe) = probe else { return self.refuse_orphans() };
        put(&mut probe.interval_ms, self.interval.map(|span| span.0));
        put(&mut probe.timeout_ms, self.timeout.map(|span| span.0));
        put(&mut probe.retries, self.retries.map(Some));
        put(&mut probe.start_period_ms, self.start_period);
        put(&mut probe.start_interval_ms, self.start_interval.map(|span| span.0));
        Ok(())
    }

    /// Times of a probe that there is not.
    fn refuse_orphans(&self) -> Result<(), Error> {
        let prefix = self.prefix;
        for (what, given) in [
            ("interval", self.interval.is_some()),
            ("timeout", self.timeout.is_some()),
            ("retries", self.retries.is_some()),
            ("start-period", self.start_period.is_some()),
            ("start-interval", self.start_interval.is_some()),
        ] {
            if given {
                return Err(Error::usage(format!(
                    "--{prefix}-{what}: there is nothing to check; add --{prefix}-cmd, \
                     --{prefix}-http or --{prefix}-tcp, such as --{prefix}-http 8080/healthz"
                )));
            }
        }
        Ok(())
    }
}

/// The flags of one probe, with the probe's name before each.
macro_rules! probe {
    ($name:ident, $prefix:literal, $heading:literal, $intro:literal) => {
        #[derive(Clone, Debug, clap::Args)]
        #[command(next_help_heading = $heading)]
        pub struct $name {
            #[arg(
                id = concat!($prefix, "-cmd"),
                long = concat!($prefix, "-cmd"),
                value_name = "COMMAND",
                value_parser = command,
                group = concat!($prefix, "-check"),
                help = concat!(
                    $intro, "run this in the container with its shell, or without one when it is a \
                     JSON array; exit code 0 is success"
                )
            )]
            command: Option<Wanted>,

            #[arg(
                id = concat!($prefix, "-http"),
                long = concat!($prefix, "-http"),
                value_name = "PORT[/PATH]",
                value_parser = http,
                allow_hyphen_values = true,
                group = concat!($prefix, "-check"),
                help = concat!($intro, "GET from the container; a status of 200 to 399 is success")
            )]
            http: Option<Wanted>,

            #[arg(
                id = concat!($prefix, "-tcp"),
                long = concat!($prefix, "-tcp"),
                value_name = "PORT",
                value_parser = tcp,
                allow_hyphen_values = true,
                group = concat!($prefix, "-check"),
                help = concat!($intro, "connect to this port of the container")
            )]
            tcp: Option<Wanted>,

            #[arg(
                id = concat!($prefix, "-interval"),
                long = concat!($prefix, "-interval"),
                value_name = "DURATION",
                value_parser = span_above_zero,
                allow_hyphen_values = true,
                help = "Time between checks; '' takes it back (default: 30s)"
            )]
            interval: Option<Span>,

            #[arg(
                id = concat!($prefix, "-timeout"),
                long = concat!($prefix, "-timeout"),
                value_name = "DURATION",
                value_parser = span_above_zero,
                allow_hyphen_values = true,
                help = "A check that takes longer has failed; '' takes it back (default: 30s)"
            )]
            timeout: Option<Span>,

            #[arg(
                id = concat!($prefix, "-retries"),
                long = concat!($prefix, "-retries"),
                value_name = "N",
                value_parser = retries,
                allow_hyphen_values = true,
                help = "Failures in a row that count (default: 3)"
            )]
            retries: Option<u32>,

            #[arg(
                id = concat!($prefix, "-start-period"),
                long = concat!($prefix, "-start-period"),
                value_name = "DURATION",
                value_parser = milliseconds,
                allow_hyphen_values = true,
                help = "Failures so soon after the start do not count (default: 0s)"
            )]
            start_period: Option<u64>,

            #[arg(
                id = concat!($prefix, "-start-interval"),
                long = concat!($prefix, "-start-interval"),
                value_name = "DURATION",
                value_parser = span_above_zero,
                allow_hyphen_values = true,
                help = "Time between checks during the start period; '' takes it back (default: 5s)"
            )]
            start_interval: Option<Span>,
        }

        impl $name {
            fn given(&self) -> Given<'_> {
                Given {
                    prefix: $prefix,
                    check: self.command.as_ref().or(self.http.as_ref()).or(self.tcp.as_ref()),
                    interval: self.interval,
                    timeout: self.timeout,
                    retries: self.retries,
                    start_period: self.start_period,
                    start_interval: self.start_interval,
                }
            }
        }
    };
}

probe!(Probe, "health", "Health: a task that fails is replaced", "Well when this succeeds: ");
probe!(
    Readiness,
    "readiness",
    "Readiness: a task that fails gets no connections (default: as health)",
    "Ready when this succeeds: "
);
probe!(
    Startup,
    "startup",
    "Startup: until it succeeds once, the other two do not run",
    "Started when this succeeds: "
);

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Health: a task that fails is replaced")]
pub struct Liveness {
    #[command(flatten)]
    probe: Probe,

    /// Do not honour the image's HEALTHCHECK; it is otherwise when no probe is given
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        conflicts_with = "health-check"
    )]
    no_healthcheck: Option<bool>,
}

impl Liveness {
    pub fn apply(&self, health: &mut pb::Health) -> Result<(), Error> {
        if self.no_healthcheck == Some(true) {
            health.liveness = None;
        }
        put(&mut health.ignore_image, self.no_healthcheck);
        self.probe.given().apply(&mut health.liveness)
    }
}

impl Readiness {
    pub fn apply(&self, health: &mut pb::Health) -> Result<(), Error> {
        self.given().apply(&mut health.readiness)
    }
}

impl Startup {
    pub fn apply(&self, health: &mut pb::Health) -> Result<(), Error> {
        self.given().apply(&mut health.startup)
    }
}
