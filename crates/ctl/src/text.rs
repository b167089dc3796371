//! How texts, ages and amounts are shown to people.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// One line that cannot move a terminal's cursor, whoever wrote it.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// At most `width` characters.
pub fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `5 seconds ago`, as Docker says it. A moment in the future reads as now: clocks differ.
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    if then_ms == 0 {
        return "never".to_owned();
    }
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    let (count, unit) = match seconds {
        0 => return "just now".to_owned(),
        1..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// `in 16s`, of a moment to come.
pub fn until(then_ms: u64, now_ms: u64) -> String {
    match then_ms.saturating_sub(now_ms).div_ceil(1000) {
        0 => "now".to_owned(),
        seconds => {
            format!("in {}", humantime::format_duration(std::time::Duration::from_secs(seconds)))
        }
    }
}

/// A duration as flags write it.
pub fn span(ms: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms)).to_string().replace(' ', "")
}

/// A moment in RFC 3339.
pub fn moment(ms: u64) -> String {
    let at = UNIX_EPOCH + std::time::Duration::from_millis(ms);
    // Refuses years after 9999.
    let mut text = String::new();
    match write!(text, "{}", humantime::format_rfc3339_millis(at)) {
        Ok(()) => text,
        Err(_) => "after the year 9999".to_owned(),
    }
}

/// A moment in RFC 3339 to the nanosecond.
pub fn moment_nanos(nanos: u64) -> String {
    let at = UNIX_EPOCH + std::time::Duration::from_nanos(nanos);
    humantime::format_rfc3339_nanos(at).to_string()
}

/// Bytes with a binary unit; exact when they are a whole number of it.
pub fn bytes(count: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in units {
        let one = 1u64 << shift;
        if count >= one {
            let (whole, tenth) = (count / one, count % one * 10 / one);
            return if tenth == 0 {
                format!("{whole}{unit}")
            } else {
                format!("{whole}.{tenth}{unit}")
            };
        }
    }
    format!("{count}B")
}

/// Billionths of a core as cores.
pub fn cores(nanos: u64) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(one_line("a\nb\x1b[2Jc\n"), "a b\\u{1b}[2Jc");
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("abcd", 4), "abcd");
    }

    #[test]
    fn moments_beyond_the_calendar_are_shown_too() {
        assert_eq!(moment(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(300_000_000_000_000), "after the year 9999");
    }

    #[test]
    fn ages_read_like_words() {
        assert_eq!(ago(1_000, 1_500), "just now");
        assert_eq!(ago(1_000, 2_000), "1 second ago");
        assert_eq!(ago(1_000, 121_000), "2 minutes ago");
        assert_eq!(ago(5_000, 1_000), "just now");
        assert_eq!(ago(0, 1_000), "never");
        assert_eq!(ago(1, 3 * 86_400_000), "2 days ago");
    }

    #[test]
    fn what_is_to_come_reads_like_words() {
        assert_eq!(until(17_000, 1_500), "in 16s");
        assert_eq!(until(1_000, 1_500), "now");
        assert_eq!(until(3_661_000, 0), "in 1h 1m 1s");
        assert_eq!(span(90_500), "1m30s500ms");
    }

    #[test]
    fn amounts_are_exact_or_rounded_down() {
        assert_eq!(bytes(64 << 20), "64MiB");
        assert_eq!(bytes((3 << 30) / 2), "1.5GiB");
        assert_eq!(bytes(100), "100B");
        assert_eq!(cores(500_000_000), "0.5");
        assert_eq!(cores(2_000_000_000), "2");
        assert_eq!(cores(1_000_000), "0.001");
    }
}
