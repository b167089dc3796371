//! The checks as a gate in front of what changes the machine.

use crate::{Finding, Level, Options, examine, names, text};

/// Why the gate stays shut; for people.
#[derive(Debug)]
pub enum Refused {
    /// `--ignore-preflight` names no check.
    Unknown(String),
    /// Checks that failed.
    Failed(Vec<&'static str>),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Unknown(name) => {
                let all: Vec<&str> = names().collect();
                write!(
                    f,
                    "--ignore-preflight: there is no check `{}`; there are: {}",
                    name.chars().take(40).flat_map(char::escape_debug).collect::<String>(),
                    all.join(", ")
                )
            }
            Refused::Failed(failed) => write!(
                f,
                "this machine is not ready, and nothing was changed: {} (above, with the fix). Set that \
                 right and give the command again; --ignore-preflight NAME lets one through",
                failed.join(", ")
            ),
        }
    }
}

impl std::error::Error for Refused {}

/// Examines the machine and tells what is not well. A FAIL refuses, unless it is to be ignored.
pub async fn gate(
    options: &Options,
    ignored: &[String],
    say: &mut dyn FnMut(&str),
) -> Result<(), Refused> {
    if let Some(unknown) = ignored.iter().find(|name| !names().any(|known| known == **name)) {
        return Err(Refused::Unknown(unknown.clone()));
    }
    let findings = examine(options).await;
    let told: Vec<Finding> = findings.into_iter().filter(|f| f.level != Level::Ok).collect();
    if !told.is_empty() {
        say(text(&told).trim_end());
    }
    let failed = told.iter().filter(|finding| finding.level == Level::Fail);
    let failed: Vec<&str> =
        failed.map(|f| f.name).filter(|name| !ignored.iter().any(|i| i == name)).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Refused::Failed(failed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    #[tokio::test]
    async fn a_failure_shuts_the_gate_unless_it_is_ignored() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            name: Some("m1".into()),
            port: listener.local_addr().unwrap().port(),
            data_dir: folder.path().to_owned(),
            ..Options::new(Role::Manager)
        };
        let mut said = String::new();
        let refused = gate(&options, &[], &mut |line| said.push_str(line)).await.unwrap_err();
        assert!(refused.to_string().contains("port"), "{refused}");
        assert!(said.contains("fix: "), "{said}");
        gate(&options, &["port".into()], &mut |_| {}).await.expect("let through");
        let unknown = gate(&options, &["sport".into()], &mut |_| {}).await.unwrap_err();
        assert!(unknown.to_string().contains("there are: kernel"), "{unknown}");
    }
}
