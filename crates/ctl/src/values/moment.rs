//! `--since`: how long ago, seconds since 1970, or a moment in RFC 3339.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::shown;

/// Milliseconds since 1970.
pub fn since(text: &str) -> Result<u64, String> {
    at(text, SystemTime::now()).ok_or_else(|| {
        format!(
            "`{}` is not a moment; write for example 5m (ago), 1700000000 or 2024-01-31T12:00:00Z",
            shown(text)
        )
    })
}

fn at(text: &str, now: SystemTime) -> Option<u64> {
    let moment = if let Some(moment) = unix(text) {
        moment
    } else if let Ok(ago) = humantime::parse_duration(text) {
        now.checked_sub(ago).unwrap_or(UNIX_EPOCH)
    } else {
        rfc3339(text)?
    };
    u64::try_from(moment.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn unix(text: &str) -> Option<SystemTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds.parse().ok()?, nanos))
}

/// With `Z`, with an offset, or without either (UTC); with or without the time of day.
fn rfc3339(text: &str) -> Option<SystemTime> {
    if let Ok(moment) = humantime::parse_rfc3339_weak(text) {
        return Some(moment);
    }
    let day_only = text.len() == 10 && !text.contains(':');
    if day_only {
        return humantime::parse_rfc3339_weak(&format!("{text}T00:00:00Z")).ok();
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let offset_of =
        Duration::from_secs(hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60);
    let moment = humantime::parse_rfc3339_weak(local).ok()?;
    match offset.as_bytes().first()? {
        b'+' => moment.checked_sub(offset_of),
        b'-' => moment.checked_add(offset_of),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_three_ways() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(at("5m", now), Some(999_700_000));
        assert_eq!(at("1700000000", now), Some(1_700_000_000_000));
        assert_eq!(at("1700000000.5", now), Some(1_700_000_000_500));
        assert_eq!(at("1970-01-02T00:00:00Z", now), Some(86_400_000));
        assert_eq!(at("1970-01-02T02:00:00+02:00", now), Some(86_400_000));
        assert_eq!(at("1970-01-01T23:00:00-01:00", now), Some(86_400_000));
        assert_eq!(at("1970-01-02", now), Some(86_400_000));
        for text in ["", "yesterday", "-5m", "1970-13-01T00:00:00Z", "ü+02:00"] {
            assert_eq!(at(text, now), None, "{text}");
        }
    }
}
