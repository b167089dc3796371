//! `--limit-memory 64M`, `--limit-cpu 0.5`, `--replicas 3`.

use super::shown;

/// Bytes. K, M, G and T are binary, as Docker has them: `64M`, `64MB` and `64MiB` are the same.
pub fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let refuse = || {
        format!(
            "`{}` is not an amount of memory; write for example 64M, 64MiB or 1.5G",
            shown(text)
        )
    };
    let digits_end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits_end);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(refuse()),
    };
    let millionths = decimal(number, 6).ok_or_else(refuse)?;
    let bytes = u128::from(millionths) * (1u128 << shift) / 1_000_000;
    u64::try_from(bytes).map_err(|_| format!("`{}` is more than any machine has", shown(text)))
}

/// Billionths of a core.
pub fn cpus(text: &str) -> Result<u64, String> {
    decimal(text.trim(), 9).ok_or_else(|| {
        format!("`{}` is not a number of cores; write for example 0.5 or 2", shown(text))
    })
}

pub fn replicas(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| {
        format!("`{}` is not a number of replicas; write 0, 1, 2 and so on", shown(text))
    })
}

/// `2` or `25%`. Empty: the default, 1.
pub fn share(text: &str) -> Result<String, String> {
    let wrong = |what: &str| format!("`{}` {what}; write for example 2 or 25%", shown(text));
    let Some(percent) = text.strip_suffix('%') else {
        return match text.parse::<u32>() {
            Ok(count) => Ok(count.to_string()),
            Err(_) if text.is_empty() => Ok(String::new()),
            Err(_) => Err(wrong("is neither a number nor a percentage")),
        };
    };
    match percent.parse::<u32>() {
        Ok(percent @ 1..=100) => Ok(format!("{percent}%")),
        Ok(_) => Err(wrong("is not 1% to 100%")),
        Err(_) => Err(wrong("is neither a number nor a percentage")),
    }
}

/// A ratio of 0 to 1 in millionths.
pub fn ratio(text: &str) -> Result<u32, String> {
    let millionths = decimal(text.trim(), 6).filter(|ratio| *ratio <= 1_000_000);
    let millionths = millionths.and_then(|ratio| u32::try_from(ratio).ok());
    millionths.ok_or_else(|| {
        format!("`{}` is not a ratio of 0 to 1; write for example 0.25", shown(text))
    })
}

/// A count of something that the flag's name tells.
pub fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("`{}` is not a number; write 0, 1, 2 and so on", shown(text)))
}

/// 0 to 100.
pub fn priority(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(priority @ 0..=100) => Ok(priority),
        _ => Err(format!(
            "`{}` is not 0 to 100; write for example 70 (the default is 50)",
            shown(text)
        )),
    }
}

/// Restarts allowed in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempts {
    Unlimited,
    AtMost(u32),
}

pub fn attempts(text: &str) -> Result<Attempts, String> {
    if text == "unlimited" {
        return Ok(Attempts::Unlimited);
    }
    text.parse().map(Attempts::AtMost).map_err(|_| {
        format!(
            "`{}` is not a number of restarts; write 0, 1, 2 and so on, or unlimited",
            shown(text)
        )
    })
}

/// A decimal number in units of 10^-`places`; more places than that are refused.
fn decimal(text: &str, places: u32) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let fits = fraction.len() <= usize::try_from(places).ok()?;
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) || !fits {
        return None;
    }
    let number = |part: &str| if part.is_empty() { Some(0u64) } else { part.parse().ok() };
    let missing = places - u32::try_from(fraction.len()).ok()?;
    let fraction = number(fraction)?.checked_mul(10u64.checked_pow(missing)?)?;
    number(whole)?.checked_mul(10u64.checked_pow(places)?)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_binary_units() {
        for text in ["64M", "64m", "64MB", "64MiB", "65536k", "67108864", "0.0625g"] {
            assert!(bytes(text).is_ok(), "{text}");
        }
        assert_eq!(bytes("64M"), Ok(64 << 20));
        assert_eq!(bytes("1.5G"), Ok(3 << 29));
        assert_eq!(bytes("0"), Ok(0));
        for text in ["", "M", "64X", "-1", "1e3", "1.2.3", "64 M B", ".", "9999999999T"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_are_exact() {
        assert_eq!(cpus("0.5"), Ok(500_000_000));
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(cpus(".001"), Ok(1_000_000));
        for text in ["", "-0.5", "half", "0.0000000001", "NaN", "99999999999999"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_and_ratios_stay_within_the_whole() {
        assert_eq!(share("2").as_deref(), Ok("2"));
        assert_eq!(share("025%").as_deref(), Ok("25%"));
        assert_eq!(share("").as_deref(), Ok(""));
        for text in ["250%", "0%", "-1", "%", "half", "1.5%"] {
            assert!(share(text).unwrap_err().contains("2 or 25%"), "{text}");
        }
        assert_eq!(ratio("0.25"), Ok(250_000));
        assert_eq!(ratio("1"), Ok(1_000_000));
        for text in ["2", "-0.1", "1.000001", "10%", "", "NaN"] {
            assert!(ratio(text).unwrap_err().contains("0.25"), "{text}");
        }
        assert!(priority("101").is_err() && priority("-1").is_err() && priority("0").is_ok());
        assert!(count("-1").is_err());
    }

    #[test]
    fn counts_refuse_what_is_no_count() {
        assert_eq!(replicas("1000000000"), Ok(1_000_000_000));
        for text in ["-1", "1.5", "", "many", "99999999999"] {
            assert!(replicas(text).unwrap_err().contains("replicas"), "{text}");
        }
        assert_eq!(attempts("unlimited"), Ok(Attempts::Unlimited));
        assert_eq!(attempts("3"), Ok(Attempts::AtMost(3)));
        assert!(attempts("-1").is_err());
    }
}
