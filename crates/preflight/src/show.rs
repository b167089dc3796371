//! Findings as text for people.

use std::fmt::Write as _;

use crate::{Finding, Level};

/// One line for each finding; below those that are not well, why it matters and what to do. What
/// several roles say alike is told once.
pub fn text(findings: &[Finding]) -> String {
    let mut told: Vec<(&Finding, Vec<&str>)> = Vec::new();
    for finding in findings {
        let alike = told.iter_mut().find(|(other, _)| {
            (other.name, other.level, &other.seen, &other.fix)
                == (finding.name, finding.level, &finding.seen, &finding.fix)
        });
        match alike {
            Some((_, roles)) => roles.push(finding.role.as_str()),
            None => told.push((finding, vec![finding.role.as_str()])),
        }
    }
    let name = told.iter().map(|(finding, _)| finding.name.len()).max().unwrap_or(0);
    let role = told.iter().map(|(_, roles)| roles.join(",").len()).max().unwrap_or(0);
    let mut text = String::new();
    for (finding, roles) in told {
        let (level, roles) = (finding.level.as_str(), roles.join(","));
        let _ =
            writeln!(text, "{level:8}  {:name$}  {roles:role$}  {}", finding.name, finding.seen);
        if finding.level != Level::Ok {
            let _ = writeln!(text, "          why: {}", finding.why);
            let _ = writeln!(text, "          fix: {}", finding.fix);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    #[test]
    fn what_is_alike_is_told_once_and_what_is_wrong_with_its_fix() {
        let finding = |role, level, seen: &str, fix: &str| Finding {
            name: "port",
            role,
            level,
            seen: seen.into(),
            why: "ports matter",
            fix: fix.into(),
        };
        let both = [
            finding(Role::Manager, Level::Ok, "free", ""),
            finding(Role::Worker, Level::Ok, "free", ""),
            finding(Role::Worker, Level::Fail, "taken", "stop it"),
        ];
        assert_eq!(
            text(&both),
            "OK        port  manager,worker  free\n\
             FAIL      port  worker          taken\n\
             \x20         why: ports matter\n\
             \x20         fix: stop it\n"
        );
    }
}
