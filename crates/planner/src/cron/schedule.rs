//! Moments of a schedule: five cron fields in a time zone.
//!
//! The time zone database is compiled in, so every manager of a version computes the same moments
//! whatever its machine has installed. When clocks go forward, moments in the hour that does not
//! exist are skipped. When they go back, a fixed time (`30 2 * * *`) is launched once, at the
//! first of its two moments; a repeating one (`*/5 * * * *`) is launched in both hours.

use cluster_model::spec::Schedule;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, Zoned};

/// Moments looked at before a search is given up.
const STEPS_MAX: usize = 1_000;
const TEXT_MAX: usize = 256;

/// The fields in order, and what they take.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of month", "1-31"),
    ("month", "1-12 or JAN-DEC"),
    ("day of week", "0-7 or SUN-SAT"),
];
const HOW: &str = "write five fields (minute, hour, day of month, month, day of week) such as \
                   `*/5 * * * *`";

/// Checks a schedule; the error names the field, the rule and an example.
pub fn validate(cron: &str, time_zone: &str) -> Result<(), String> {
    let calendar = Calendar::new(cron, time_zone)?;
    // A day that no month has would never be launched. Leap days are at most 8 years apart.
    match calendar.next_after(0) {
        Some(_) => Ok(()),
        None => Err(format!("schedule `{cron}` never comes: no month has that day; {HOW}")),
    }
}

/// The first moment after another; none when there is none or the schedule is not valid.
pub fn next_after(schedule: &Schedule, after_ms: u64) -> Option<u64> {
    Calendar::new(&schedule.cron, &schedule.time_zone).ok()?.next_after(after_ms)
}

/// A schedule that was understood.
pub(super) struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

impl Calendar {
    pub fn new(cron: &str, time_zone: &str) -> Result<Self, String> {
        Ok(Self { cron: parse(cron)?, zone: zone(time_zone)? })
    }

    pub fn next_after(&self, after_ms: u64) -> Option<u64> {
        let mut at = self.zoned(after_ms)?;
        for _ in 0..STEPS_MAX {
            at = self.cron.find_next_occurrence(&at, false).ok()?;
            if self.exists(&at) {
                return millis(&at).filter(|at_ms| *at_ms > after_ms);
            }
        }
        None
    }

    /// The last moment that is not after another one.
    pub fn last_until(&self, until_ms: u64) -> Option<u64> {
        let mut at = self.zoned(until_ms)?;
        let mut inclusive = true;
        for _ in 0..STEPS_MAX {
            at = self.cron.find_previous_occurrence(&at, inclusive).ok()?;
            if self.exists(&at) {
                return millis(&at);
            }
            inclusive = false;
        }
        None
    }

    /// A fixed time that falls into a gap of the clock is put after it by the library.
    fn exists(&self, at: &Zoned) -> bool {
        self.cron.is_time_matching(at).unwrap_or(false)
    }

    fn zoned(&self, at_ms: u64) -> Option<Zoned> {
        let at = Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
        Some(at.to_zoned(self.zone.clone()))
    }
}

fn millis(at: &Zoned) -> Option<u64> {
    u64::try_from(at.timestamp().as_millisecond()).ok()
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build()
}

fn parse(text: &str) -> Result<Cron, String> {
    if text.len() > TEXT_MAX {
        return Err(format!("schedule is {} bytes long, more than {TEXT_MAX}; {HOW}", text.len()));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "schedule `{}` has {} fields, not 5; {HOW}",
            text.escape_debug(),
            fields.len()
        ));
    }
    for (place, field) in fields.iter().enumerate() {
        let mut alone = ["*"; 5];
        alone[place] = field;
        if parser().parse(&alone.join(" ")).is_err() {
            let (name, range) = FIELDS[place];
            return Err(format!(
                "schedule `{}`: {name} `{}` is not understood; use {range}, lists, ranges and \
                 steps, for example `*/5 * * * *`",
                text.escape_debug(),
                field.escape_debug()
            ));
        }
    }
    parser().parse(&fields.join(" ")).map_err(|_| {
        format!("schedule `{}` is not understood as a whole; {HOW}", text.escape_debug())
    })
}

fn zone(name: &str) -> Result<TimeZone, String> {
    if name.is_empty() {
        return Ok(TimeZone::UTC);
    }
    TimeZoneDatabase::bundled().get(name).map_err(|_| {
        let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
        format!("time zone `{shown}` is not known; use a name such as Europe/Berlin, or UTC")
    })
}
