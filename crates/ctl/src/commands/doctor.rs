//! `doctor [--role manager|worker]`

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use cluster_identity::{CaDigest, JoinToken};
use cluster_preflight::{Finding, Level, Options, Role as Checked, Subnet, examine, text, worst};
use serde::Serialize;

use crate::Invocation;
use crate::error::Error;
use crate::output::Format;

/// Nothing fails, but not all of it will work.
const DEGRADED: i32 = 5;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the machine is to become; both when left out
    #[arg(long)]
    role: Option<Role>,

    /// A manager to join through, to see whether it can be reached; may be repeated
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    join: Vec<String>,

    /// File with the join token, to compare the managers' clocks with the one here
    #[arg(long, value_name = "FILE", requires = "join")]
    token_file: Option<PathBuf>,

    /// Name of the node; the host's when left out
    #[arg(long)]
    name: Option<String>,

    /// Data folder; that of the role's package when left out
    #[arg(long, value_name = "DIR", requires = "role")]
    data_dir: Option<PathBuf>,

    /// Port to listen at; 7100 for managers and 7101 for workers when left out
    #[arg(long, requires = "role", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Address to listen at
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    listen: IpAddr,

    /// Addresses of a worker's containers
    #[arg(long, value_name = "CIDR", default_value = "10.88.0.0/16")]
    subnet: Subnet,

    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Manager,
    Worker,
}

#[derive(Serialize)]
struct View {
    level: Level,
    findings: Vec<Finding>,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<i32, Error> {
    let roles = match args.role {
        Some(Role::Manager) => vec![Checked::Manager],
        Some(Role::Worker) => vec![Checked::Worker],
        None => vec![Checked::Manager, Checked::Worker],
    };
    let ca = args.token_file.as_deref().map(ca_of).transpose()?;
    let mut findings = Vec::new();
    for role in roles {
        let mut options = Options::new(role);
        options.name.clone_from(&args.name);
        options.managers.clone_from(&args.join);
        options.listen = args.listen;
        options.subnet = args.subnet;
        options.ca = ca;
        options.port = args.port.unwrap_or(options.port);
        if let Some(data_dir) = &args.data_dir {
            options.data_dir.clone_from(data_dir);
        }
        findings.extend(examine(&options).await);
    }
    let level = worst(&findings);
    match args.output {
        Format::Json => invocation.printer.json(&View { level, findings })?,
        Format::Table => invocation.printer.raw(text(&findings).as_bytes())?,
    }
    Ok(match level {
        Level::Ok | Level::Warn => 0,
        Level::Degraded => DEGRADED,
        Level::Fail => 1,
    })
}

fn ca_of(path: &Path) -> Result<CaDigest, Error> {
    let unusable = || format!("cannot use the join token in {}", path.display());
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::refused(unusable()).cause(error.to_string()))?;
    let token = text.parse::<JoinToken>();
    Ok(token.map_err(|error| Error::refused(unusable()).cause(error.to_string()))?.ca_digest)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use crate::testing::{ca, clusterctl, context};

    #[test]
    fn a_port_that_is_taken_fails_with_its_fix_and_exit_code() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().to_str().unwrap();
        let context = context(&ca("c1"), "a", vec!["127.0.0.1:1".into()]);
        let line = ["doctor", "--role", "manager", "--port", &port, "--data-dir", folder];
        let ran = clusterctl(&context, &line);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.out.contains("FAIL      port"), "{}", ran.out);
        assert!(ran.out.contains("fix: stop that program"), "{}", ran.out);

        let ran = clusterctl(&context, &[&line[..], &["--output", "json"]].concat());
        let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(json["level"], "FAIL");
        let findings = json["findings"].as_array().unwrap();
        let port = findings.iter().find(|finding| finding["name"] == "port").unwrap();
        assert_eq!((&port["role"], &port["level"]), (&"manager".into(), &"FAIL".into()));
        assert!(
            findings.iter().all(|finding| finding["why"].as_str().is_some_and(|w| !w.is_empty()))
        );

        drop(listener);
        let ran = clusterctl(&context, &line);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}
