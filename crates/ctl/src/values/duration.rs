//! `--restart-delay 5s`, `--timeout 30s`.

use std::time::Duration;

use super::shown;

pub fn duration(text: &str) -> Result<Duration, String> {
    let refuse =
        || format!("`{}` is not a duration; write for example 500ms, 5s or 1m30s", shown(text));
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|_| refuse())
}

pub fn milliseconds(text: &str) -> Result<u64, String> {
    let parsed = duration(text)?;
    let ms =
        u64::try_from(parsed.as_millis()).map_err(|_| format!("`{}` is too long", shown(text)))?;
    if ms == 0 && !parsed.is_zero() {
        return Err(format!("`{}` is shorter than 1ms", shown(text)));
    }
    Ok(ms)
}

/// Milliseconds, 0 for `off`.
pub fn or_off(text: &str) -> Result<u64, String> {
    match text {
        "off" => Ok(0),
        _ => milliseconds(text).map_err(|problem| format!("{problem}; or off")),
    }
}

/// A duration that can be taken back: empty or 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Option<u64>);

pub fn span(text: &str) -> Result<Span, String> {
    match text.is_empty() {
        true => Ok(Span(None)),
        false => milliseconds(text).map(|ms| Span((ms != 0).then_some(ms))),
    }
}

/// As [`span`], but 0 makes no sense.
pub fn span_above_zero(text: &str) -> Result<Span, String> {
    match span(text)? {
        Span(None) if !text.is_empty() => {
            Err("0 makes no sense here; write for example 5s, or '' for the default".to_owned())
        }
        span => Ok(span),
    }
}

/// As [`span`], but 0 is a duration.
pub fn span_from_zero(text: &str) -> Result<Span, String> {
    match text.is_empty() {
        true => Ok(Span(None)),
        false => milliseconds(text).map(|ms| Span(Some(ms))),
    }
}

/// `--restart-delay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// At once, then longer each time.
    BackOff,
    Fixed(u64),
}

pub fn delay(text: &str) -> Result<Delay, String> {
    if text == "backoff" {
        return Ok(Delay::BackOff);
    }
    milliseconds(text).map(Delay::Fixed).map_err(|error| format!("{error}, or backoff"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(milliseconds("1m30s"), Ok(90_000));
        assert_eq!(milliseconds("100ms"), Ok(100));
        assert_eq!(milliseconds("0"), Ok(0));
        for text in ["5", "", "-5s", "5 parsecs", "1ns", "999999999999999y"] {
            assert!(milliseconds(text).is_err(), "{text}");
        }
        assert_eq!(span(""), Ok(Span(None)));
        assert_eq!(span("0"), Ok(Span(None)));
        assert_eq!(span("5s"), Ok(Span(Some(5_000))));
        assert_eq!(span_above_zero(""), Ok(Span(None)));
        assert_eq!(span_above_zero("5s"), Ok(Span(Some(5_000))));
        assert!(span_above_zero("0s").unwrap_err().contains("for example 5s"));
        assert_eq!(span_from_zero("0"), Ok(Span(Some(0))));
        assert_eq!(delay("backoff"), Ok(Delay::BackOff));
        assert_eq!(delay("5s"), Ok(Delay::Fixed(5_000)));
        assert!(delay("soon").unwrap_err().contains("backoff"));
    }
}
