//! `--generic-resource` and `--system-reserve`: what this node has for tasks.

use std::collections::BTreeMap;

use cluster_model::node::Generic;
use cluster_model::spec::Resources;

const KIND_MAX: usize = 63;
const NAMES_MAX: usize = 1024;
/// Of all kinds together; a node's description is replicated.
const KINDS_MAX: usize = 64;

/// One `--generic-resource`.
pub(crate) fn generic(text: &str) -> Result<(String, Generic), String> {
    const USE: &str = "use KIND=COUNT as in gpu=2, or KIND=NAME[,NAME…] as in gpu=uuid-1,uuid-2";
    let (kind, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`; {USE}"))?;
    if !is_word(kind) {
        return Err(format!("kind `{kind}` is not 1-{KIND_MAX} letters, digits, `-`, `_`; {USE}"));
    }
    if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        return match value.parse::<u64>() {
            Ok(count @ 1..) => Ok((kind.to_owned(), Generic::Count(count))),
            Ok(0) => Err(format!("a count of 0 of `{kind}` is nothing; leave the flag out")),
            Err(_) => Err(format!("count `{value}` is too large; {USE}")),
        };
    }
    let names: Vec<String> = value.split(',').map(str::to_owned).collect();
    if let Some(wrong) = names.iter().find(|name| !is_name(name)) {
        return Err(format!(
            "`{wrong}` is no name of a `{kind}`: 1-{KIND_MAX} letters, digits, `-`, `_`, `.`, `:`, \
             `/`; {USE}"
        ));
    }
    if names.len() > NAMES_MAX {
        return Err(format!(
            "more than {NAMES_MAX} names of `{kind}`; use a count, as in {kind}=2000"
        ));
    }
    let mut sorted = names.clone();
    sorted.sort();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("`{}` of `{kind}` is named twice", pair[0]));
    }
    Ok((kind.to_owned(), Generic::Named(names)))
}

fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !text.is_empty() && text.len() <= KIND_MAX && text.chars().all(plain)
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/');
    !text.is_empty() && text.len() <= KIND_MAX && text.chars().all(plain)
}

/// All of them; each kind once.
pub(crate) fn all_generic(
    given: &[(String, Generic)],
) -> Result<BTreeMap<String, Generic>, String> {
    let mut all = BTreeMap::new();
    for (kind, generic) in given {
        if all.insert(kind.clone(), generic.clone()).is_some() {
            return Err(format!(
                "field `--generic-resource`: kind `{kind}` is given twice; name all of a kind in one \
                 flag, as in {kind}=a,b"
            ));
        }
    }
    // Tasks see each kind in an environment variable, so two may not have the same.
    let variable = |kind: &String| kind.to_ascii_uppercase().replace('-', "_");
    let kinds: Vec<&String> = all.keys().collect();
    for (index, kind) in kinds.iter().enumerate() {
        if let Some(other) = kinds[..index].iter().find(|other| variable(other) == variable(kind)) {
            return Err(format!(
                "field `--generic-resource`: `{other}` and `{kind}` would be the same environment \
                 variable in tasks; rename one"
            ));
        }
    }
    if all.len() > KINDS_MAX {
        return Err(format!("field `--generic-resource`: more than {KINDS_MAX} kinds"));
    }
    Ok(all)
}

/// The value of `--system-reserve`.
pub(crate) fn reserve(text: &str) -> Result<Resources, String> {
    const USE: &str = "use cpu=CORES,memory=BYTES, as in cpu=0.5,memory=256M";
    let (mut cpu, mut memory) = (None, None);
    for part in text.split(',') {
        let (key, value) =
            part.split_once('=').ok_or_else(|| format!("`{part}` has no `=`; {USE}"))?;
        let wrong = || format!("{key} `{value}` is not an amount; {USE}");
        let (place, amount) = match key {
            "cpu" => (&mut cpu, scaled(value, 1_000_000_000)),
            "memory" => (&mut memory, bytes(value)),
            _ => return Err(format!("`{key}` is unknown; {USE}")),
        };
        if place.replace(amount.ok_or_else(wrong)?).is_some() {
            return Err(format!("{key} is given twice; {USE}"));
        }
    }
    Ok(Resources { cpu_nanos: cpu.unwrap_or_default(), memory_bytes: memory.unwrap_or_default() })
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    scaled(digits, unit)
}

/// A decimal number of at most nine places, times `unit`.
fn scaled(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let places = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let number =
        whole.parse::<u128>().ok()?.checked_mul(places)? + fraction.parse::<u128>().ok()?;
    u64::try_from(number.checked_mul(unit.into())? / places).ok()
}

/// What is left of the machine for tasks.
pub(crate) fn remaining(machine: Resources, reserve: Resources) -> Result<Resources, String> {
    let left = |what: &str, has: u64, reserved: u64, shown: fn(u64) -> String| {
        has.checked_sub(reserved).filter(|left| *left > 0 || reserved == 0).ok_or_else(|| {
            format!(
                "field `--system-reserve`: {what}={} leaves nothing of this machine's {}; reserve \
                 less, as in cpu=0.5,memory=256M",
                shown(reserved),
                shown(has)
            )
        })
    };
    let cores = |nanos: u64| format!("{}.{:03}", nanos / 1_000_000_000, nanos / 1_000_000 % 1000);
    let mib = |bytes: u64| format!("{}M", bytes >> 20);
    Ok(Resources {
        cpu_nanos: left("cpu", machine.cpu_nanos, reserve.cpu_nanos, cores)?,
        memory_bytes: left("memory", machine.memory_bytes, reserve.memory_bytes, mib)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_resources_are_counts_or_names() {
        assert_eq!(generic("gpu=2"), Ok(("gpu".into(), Generic::Count(2))));
        let names = Generic::Named(vec!["GPU-1a".into(), "GPU-2b".into()]);
        assert_eq!(generic("nvidia_gpu=GPU-1a,GPU-2b"), Ok(("nvidia_gpu".into(), names)));
        for (wrong, said) in [
            ("gpu", "has no `=`"),
            ("=2", "kind ``"),
            ("g p=2", "kind `g p`"),
            ("gpu=", "no name"),
            ("gpu=a,,b", "no name"),
            ("gpu=a b", "`a b`"),
            ("gpu=a,b,a", "named twice"),
            ("gpu=0", "count of 0"),
            ("gpu=99999999999999999999", "too large"),
        ] {
            let error = generic(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
        let one = |text: &str| generic(text).unwrap();
        assert_eq!(all_generic(&[one("a=1"), one("b=x")]).unwrap().len(), 2);
        assert!(all_generic(&[one("a=1"), one("a=2")]).unwrap_err().contains("given twice"));
        assert!(all_generic(&[one("a-b=1"), one("A_b=2")]).unwrap_err().contains("rename"));
    }

    #[test]
    fn the_reserve_is_taken_off_the_machine() {
        let half = Resources { cpu_nanos: 500_000_000, memory_bytes: 256 << 20 };
        assert_eq!(reserve("cpu=0.5,memory=256M"), Ok(half));
        assert_eq!(reserve("memory=1.5GiB").unwrap().memory_bytes, 3 << 29);
        for wrong in
            ["", "cpu", "cpu=x", "cpu=-1", "cpu=1,cpu=2", "disk=1", "memory=1Q", "cpu=1e3", "cpu=."]
        {
            let error = reserve(wrong).unwrap_err();
            assert!(error.contains("cpu=0.5,memory=256M"), "{wrong}: {error}");
        }
        let machine = Resources { cpu_nanos: 2_000_000_000, memory_bytes: 1 << 30 };
        let left = remaining(machine, half).unwrap();
        assert_eq!((left.cpu_nanos, left.memory_bytes), (1_500_000_000, 768 << 20));
        assert_eq!(remaining(machine, Resources::default()), Ok(machine));
        let error = remaining(machine, reserve("cpu=2").unwrap()).unwrap_err();
        assert!(error.contains("cpu=2.000") && error.contains("--system-reserve"), "{error}");
    }
}
