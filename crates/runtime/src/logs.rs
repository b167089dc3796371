//! Output of containers: what callers ask and get, and the format of the files beside a container.
//!
//! One line is `<RFC 3339 with nanoseconds, UTC> stdout|stderr F|P <text>`, as in Kubernetes' CRI;
//! `P` marks a piece whose line goes on in the next one (or never ended).

use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Longest text of one record; longer lines are split into `P` records.
pub const MAX_TEXT: usize = 16 << 10;

/// Which lines to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// Only the last so many; all when `None`.
    pub tail: Option<usize>,
    /// Only lines at or after this moment, nanoseconds since the epoch.
    pub since_unix_nanos: Option<u64>,
    /// Go on with new lines until the container ended.
    pub follow: bool,
}

/// Where a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, or a piece of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When the shim read it, nanoseconds since the epoch.
    pub unix_nanos: u64,
    /// Where it was written.
    pub stream: OutputStream,
    /// The bytes, without the line end.
    pub text: Vec<u8>,
    /// The line goes on in the next record of the same stream, or had no end.
    pub partial: bool,
}

/// Lines of one container, oldest first.
pub type LogStream = BoxStream<'static, Result<LogLine>>;

impl LogLine {
    /// Appends the record, with its line end, to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_record(self.unix_nanos, self.stream, self.partial, &self.text, out);
    }

    /// Reads one record (without line end); `None` if it is not one, such as a torn last write.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let mut parts = record.splitn(4, |byte| *byte == b' ');
        let unix_nanos = parse_time(std::str::from_utf8(parts.next()?).ok()?)?;
        let stream = match parts.next()? {
            b"stdout" => OutputStream::Stdout,
            b"stderr" => OutputStream::Stderr,
            _ => return None,
        };
        let partial = match parts.next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Self { unix_nanos, stream, text: parts.next()?.to_vec(), partial })
    }
}

/// Appends one record to `out` without needing an owned text.
pub(crate) fn encode_record(
    unix_nanos: u64,
    stream: OutputStream,
    partial: bool,
    text: &[u8],
    out: &mut Vec<u8>,
) {
    push_time(unix_nanos, out);
    out.extend_from_slice(match stream {
        OutputStream::Stdout => b" stdout ",
        OutputStream::Stderr => b" stderr ",
    });
    out.extend_from_slice(if partial { b"P " } else { b"F " });
    out.extend_from_slice(text);
    out.push(b'\n');
}

const SECONDS_PER_DAY: u64 = 86_400;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

fn push_time(unix_nanos: u64, out: &mut Vec<u8>) {
    use std::io::Write;
    let (seconds, nanos) = (unix_nanos / NANOS_PER_SECOND, unix_nanos % NANOS_PER_SECOND);
    let (year, month, day) = date_of(seconds / SECONDS_PER_DAY);
    let rest = seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    // Writing to a Vec cannot fail.
    let _ =
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z");
}

fn parse_time(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    if text.len() != 30 || !text.ends_with('Z') {
        return None;
    }
    let days = days_to(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let seconds =
        days * SECONDS_PER_DAY + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(number(20, 29)?)
}

/// Gregorian date of a day since the epoch (the usual era arithmetic, March-based years).
fn date_of(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Inverse of [`date_of`], for dates from 1970 on.
fn days_to(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted_year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_round_trip() {
        // 0, a leap day, the end of a year, beyond 2038.
        for seconds in [0, 951_782_400, 1_735_689_599, 4_102_444_800] {
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                let line = LogLine {
                    unix_nanos: seconds * NANOS_PER_SECOND + 7,
                    stream,
                    text: b"a b  c ".to_vec(),
                    partial: seconds == 0,
                };
                let mut bytes = Vec::new();
                line.encode(&mut bytes);
                assert_eq!(bytes.pop(), Some(b'\n'));
                assert_eq!(LogLine::decode(&bytes), Some(line));
            }
        }
    }

    #[test]
    fn the_time_is_readable_and_right() {
        let mut out = Vec::new();
        push_time(951_782_400 * NANOS_PER_SECOND + 5, &mut out);
        assert_eq!(out, b"2000-02-29T00:00:00.000000005Z");
    }

    #[test]
    fn a_torn_record_is_refused() {
        let mut bytes = Vec::new();
        LogLine { unix_nanos: 1, stream: OutputStream::Stdout, text: Vec::new(), partial: false }
            .encode(&mut bytes);
        for length in 0..bytes.len() - 2 {
            assert_eq!(LogLine::decode(&bytes[..length]), None, "{length}");
        }
    }
}
