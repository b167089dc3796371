//! `--placement-pref`, `--affinity`, `--anti-affinity`, `--generic-resource`, `--on-disconnect`.

use cluster_model::constraint::Key;
use cluster_pb::types::v1::disconnect::Policy;
use cluster_pb::types::v1::{Affinity, Disconnect};

use super::constraint::constraint;
use super::duration::milliseconds;
use super::shown;

const WEIGHT: i32 = 50;

/// `spread=node.labels.rack`; the key.
pub fn preference(text: &str) -> Result<String, String> {
    let Some(key) = text.strip_prefix("spread=") else {
        return Err(format!(
            "`{}` is not a preference; write for example spread=node.labels.rack",
            shown(text)
        ));
    };
    let parsed = key.trim().parse::<Key>().map_err(|_| {
        format!("`{}` cannot be spread over; write for example spread=node.labels.rack", shown(key))
    })?;
    match parsed {
        Key::NodeLabel(_) | Key::EngineLabel(_) | Key::NodeHostname => Ok(parsed.to_string()),
        _ => Err(format!(
            "`{}` cannot be spread over; use a label such as spread=node.labels.rack, or \
             spread=node.hostname",
            shown(key)
        )),
    }
}

/// `service=db[,weight=50]` or `node.labels.ssd==true[,weight=50]`.
pub fn affinity(text: &str) -> Result<Affinity, String> {
    let (target, weight) = match text.rsplit_once(",weight=").filter(|(_, rest)| is_number(rest)) {
        Some((target, weight)) => (target, weight_of(weight)?),
        None => (text, WEIGHT),
    };
    match target.strip_prefix("service=").filter(|name| !name.starts_with('=')) {
        Some("") => Err("service= names no service; write for example service=db".to_owned()),
        Some(name) if name.contains(',') => Err(format!(
            "`{}` is not service=NAME[,weight=N]; write for example service=db,weight=50",
            shown(text)
        )),
        Some(name) => Ok(Affinity { service: name.to_owned(), node: String::new(), weight }),
        None => {
            let node = constraint(target).map_err(|error| {
                format!("{error}; or name a service, such as service=db,weight=50")
            })?;
            Ok(Affinity { service: String::new(), node, weight })
        }
    }
}

/// As [`affinity`], away from it.
pub fn anti_affinity(text: &str) -> Result<Affinity, String> {
    affinity(text).map(|affinity| Affinity { weight: -affinity.weight, ..affinity })
}

/// Digits and perhaps a sign: anything else belongs to the values of a constraint.
fn is_number(text: &str) -> bool {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn weight_of(text: &str) -> Result<i32, String> {
    match text.trim().parse() {
        Ok(weight @ 1..=100) => Ok(weight),
        _ => Err(format!("weight `{}` is not 1 to 100; write for example weight=50", shown(text))),
    }
}

/// `gpu=2`.
pub fn generic(text: &str) -> Result<(String, u64), String> {
    let wrong = |what: &str| format!("{what}; write KIND=N, such as gpu=1");
    let Some((kind, count)) = text.split_once('=') else {
        return Err(wrong(&format!("`{}` has no number", shown(text))));
    };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if kind.is_empty() || kind.len() > 63 || !kind.chars().all(good) {
        let what = format!("`{}` is not 1-63 letters, digits, `-` and `_`", shown(kind));
        return Err(wrong(&what));
    }
    match count.parse() {
        Ok(count @ 1..) => Ok((kind.to_owned(), count)),
        _ => Err(wrong(&format!("`{}` is not a number of 1 or more", shown(count)))),
    }
}

/// `replace`, `wait` or `stop-after=30s`.
pub fn disconnect(text: &str) -> Result<Disconnect, String> {
    let policy = |policy: Policy, after_ms| Disconnect { policy: policy.into(), after_ms };
    match text.split_once('=') {
        None if text.is_empty() || text == "replace" => Ok(policy(Policy::Replace, 0)),
        None if text == "wait" => Ok(policy(Policy::Wait, 0)),
        Some(("stop-after", after)) => {
            let after_ms =
                milliseconds(after).map_err(|error| format!("{error}, such as stop-after=30s"))?;
            Ok(policy(Policy::StopAfter, after_ms))
        }
        _ => Err(format!(
            "`{}` is unknown; use replace, wait, or stop-after=DURATION such as stop-after=30s",
            shown(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_over_labels() {
        assert_eq!(preference("spread=node.labels.rack"), Ok("node.labels.rack".into()));
        assert_eq!(preference("spread=node.hostname"), Ok("node.hostname".into()));
        for text in ["node.labels.rack", "spread=", "spread=rack", "spread=node.role", "binpack=x"]
        {
            assert!(preference(text).unwrap_err().contains("spread=node.labels.rack"), "{text}");
        }
    }

    #[test]
    fn affinities_name_a_service_or_a_condition() {
        let wanted = |service: &str, node: &str, weight| {
            Ok(Affinity { service: service.into(), node: node.into(), weight })
        };
        assert_eq!(affinity("service=db"), wanted("db", "", 50));
        assert_eq!(anti_affinity("service=db,weight=100"), wanted("db", "", -100));
        assert_eq!(
            affinity("node.labels.ssd==true,weight=7"),
            wanted("", "node.labels.ssd==true", 7)
        );
        for text in ["service=", "service=db,weight=0", "service=db,weight=-5", "db", "service=a,b"]
        {
            let said = affinity(text).unwrap_err();
            assert!(said.contains("service=db") || said.contains("weight=50"), "{text}: {said}");
        }
    }

    #[test]
    fn generic_resources_are_counted() {
        assert_eq!(generic("gpu=2"), Ok(("gpu".into(), 2)));
        for text in ["gpu", "gpu=0", "gpu=-1", "=1", "g p=1", "gpu=1.5"] {
            assert!(generic(text).unwrap_err().contains("gpu=1"), "{text}");
        }
    }

    #[test]
    fn disconnect_policies() {
        let said = |text: &str| disconnect(text).unwrap();
        assert_eq!(said("stop-after=30s").after_ms, 30_000);
        assert_eq!(said("wait").policy(), Policy::Wait);
        assert_eq!(said("").policy(), Policy::Replace);
        for text in ["stop-after", "stop-after=30", "ignore", "wait=5s"] {
            assert!(disconnect(text).unwrap_err().contains("stop-after=30s"), "{text}");
        }
    }
}
