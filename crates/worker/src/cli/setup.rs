//! `cluster-worker join`: this machine becomes a worker for good.
//!
//! *Flow.* What the folder holds already is looked at first; then the machine is checked, the unit's
//! settings are written, the unit is enabled, started and waited for (`cluster_install`). The daemon
//! itself does the joining, as it does without a unit.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use cluster_identity::{CaDigest, Owner, Role};
use cluster_install::env_file::Settings;
use cluster_install::{Outcome, Plan, Standing, Systemd, TokenSource, enlist};
use cluster_model::validate;
use cluster_network::Subnet;
use cluster_preflight::Options;

use super::{label, print, say};
use crate::data_dir::DataDir;
use crate::join;
use crate::member::Member;

const UNIT: &str = "cluster-worker";
const COMMAND: &str = "cluster-worker join";
const DATA_DIR: &str = "/var/lib/cluster-worker";
const PREFIX: &str = "CLUSTER_WORKER_";
const TOKEN: &str = "CLUSTER_JOIN_TOKEN";
const MESH_PORT: u16 = 7101;

/// Make this machine a worker: check it, write the settings of cluster-worker.service, start it now
/// and at every boot.
///
/// Given again, it goes on where it was, or says that all is done. The token does not stay on a
/// machine that has joined. Further options of the worker are set in /etc/default/cluster-worker.
#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// Managers of the cluster.
    #[arg(required = true, value_name = "HOST:PORT", value_delimiter = ',')]
    managers: Vec<String>,
    /// Join token for workers, from `clusterctl cluster token --role worker`; `-` reads it from
    /// standard input.
    #[arg(long, env = TOKEN, hide_env_values = true)]
    token: Option<String>,
    /// File with the join token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Address at which other workers reach this one; by default that on the way to the managers.
    #[arg(long, value_name = "IP")]
    advertise: Option<IpAddr>,
    /// Name of this node; by default the host's.
    #[arg(long)]
    name: Option<String>,
    /// Label of this node, KEY=VALUE; may be repeated.
    #[arg(long, value_parser = label, value_name = "KEY=VALUE")]
    label: Vec<(String, String)>,
    /// Addresses of containers.
    #[arg(long, value_name = "CIDR")]
    subnet: Option<Subnet>,
    /// Port at which other workers reach this one.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    mesh_port: Option<u16>,
    /// Where this node keeps everything.
    #[arg(long, value_name = "DIR", env = "CLUSTER_WORKER_DATA_DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// How long to wait until the worker is ready, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
    /// Go on although this check of the machine fails; may be repeated.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    ignore_preflight: Vec<String>,
    /// File for the unit's settings.
    #[arg(long, value_name = "FILE", default_value = "/etc/cluster/worker.env", hide = true)]
    env_file: PathBuf,
    /// The user's settings of the unit.
    #[arg(long, value_name = "FILE", default_value = "/etc/default/cluster-worker", hide = true)]
    defaults_file: PathBuf,
}

pub(super) fn run(args: &JoinArgs) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("`{COMMAND}` changes the system: run it as root (`sudo {COMMAND} …`)");
    }
    let file = args.token_file.as_deref();
    let source = TokenSource { given: args.token.as_deref(), file, role: "worker" };
    let text = source.read()?;
    let ca = join::token(&text)?.ca_digest;
    check_folder(&args.data_dir, &ca)?;
    check_names(args)?;
    let once = vec![setting("JOIN", args.managers.join(",")), (TOKEN.to_owned(), text)];
    if standing(&args.data_dir) != Standing::Member {
        let options = options(args, ca);
        let runtime = runtime()?;
        let ignored = &args.ignore_preflight;
        let passed = runtime.block_on(cluster_preflight::gate(&options, ignored, &mut say));
        // Looking up a name may still be under way; nobody waits for it any more.
        runtime.shutdown_background();
        passed?;
    }
    let kept = kept(args);
    let plan = Plan {
        unit: UNIT,
        command: COMMAND,
        env_file: &args.env_file,
        defaults: &args.defaults_file,
        data_dir: &args.data_dir,
        // The folder's place is found otherwise when it is another.
        asked: kept.iter().filter(|(name, _)| !name.ends_with("_DATA_DIR")).cloned().collect(),
        kept,
        once,
        transient: &[],
        standing: &|| standing(&args.data_dir),
        wait: Duration::from_secs(args.wait),
    };
    let outcome = enlist(&plan, &Systemd::default(), &mut say)?;
    if outcome == Outcome::Already {
        say("this machine is a worker already; nothing was changed");
    }
    let member = Member::load(&DataDir::new(&args.data_dir))?;
    let name = member.map_or_else(String::new, |member| format!(" `{}`", member.name));
    print(&[
        format!("This machine is the worker{name} of the cluster."),
        "`clusterctl node ls` shows all of them, where a context of the cluster is known."
            .to_owned(),
    ])
}

/// A setting of the unit for an option of the daemon.
fn setting(option: &str, value: impl Into<String>) -> (String, String) {
    (format!("{PREFIX}{option}"), value.into())
}

/// Settings for every start.
fn kept(args: &JoinArgs) -> Settings {
    let mut kept = Settings::new();
    kept.extend(args.advertise.map(|advertise| setting("ADVERTISE", advertise.to_string())));
    kept.extend(args.name.as_ref().map(|name| setting("NAME", name)));
    let labels: Vec<String> =
        args.label.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if !labels.is_empty() {
        kept.push(setting("LABEL", labels.join(",")));
    }
    kept.extend(args.subnet.map(|subnet| setting("SUBNET", subnet.to_string())));
    kept.extend(args.mesh_port.map(|port| setting("MESH_PORT", port.to_string())));
    if args.data_dir != Path::new(DATA_DIR) {
        kept.push(setting("DATA_DIR", args.data_dir.display().to_string()));
    }
    kept
}

fn options(args: &JoinArgs, ca: CaDigest) -> Options {
    let defaults = Options::new(cluster_preflight::Role::Worker);
    let listen = match args.advertise {
        Some(advertise) if advertise.is_loopback() => advertise,
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    Options {
        name: args.name.clone(),
        data_dir: args.data_dir.clone(),
        listen,
        port: args.mesh_port.unwrap_or(MESH_PORT),
        managers: args.managers.clone(),
        ca: Some(ca),
        subnet: args.subnet.unwrap_or(defaults.subnet),
        ..defaults
    }
}

fn standing(data_dir: &Path) -> Standing {
    match (Owner::of(data_dir), Member::load(&DataDir::new(data_dir))) {
        (Ok(None), _) => Standing::Stranger,
        (Ok(Some(_)), Ok(Some(_))) => Standing::Member,
        _ => Standing::Begun,
    }
}

/// Refuses a folder of another cluster or role.
fn check_folder(data_dir: &Path, ca: &CaDigest) -> anyhow::Result<()> {
    let shown = data_dir.display();
    let Some(owner) = Owner::of(data_dir).with_context(|| format!("cannot use {shown}"))? else {
        return Ok(());
    };
    if owner.role != Role::Worker {
        let role = owner.role;
        bail!(
            "field `--data-dir`: {shown} belongs to a {role}; a worker needs a folder of its own"
        );
    }
    if !owner.knew_ca(ca) {
        bail!(
            "this machine is a worker of cluster {} already, and the token is of another cluster; to \
             move it, drain and remove it there (`clusterctl node rm`), `systemctl disable --now \
             {UNIT}`, and use an empty data folder (now {shown})",
            owner.cluster_id
        );
    }
    Ok(())
}

/// What the daemon would refuse.
fn check_names(args: &JoinArgs) -> anyhow::Result<()> {
    let labels = args.label.iter().cloned().collect::<std::collections::BTreeMap<_, _>>();
    let checked = validate::labels("--label", labels.iter()).and_then(|()| match &args.name {
        Some(name) => validate::name("--name", name),
        None => Ok(()),
    });
    checked.map_err(|invalid| anyhow::anyhow!("{invalid}"))?;
    if args.label.iter().any(|(key, value)| key.contains(',') || value.contains(',')) {
        bail!("field `--label`: no comma can be in one: they are kept in one setting");
    }
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the async runtime")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: JoinArgs,
    }

    fn args(words: &str) -> JoinArgs {
        Line::try_parse_from(words.split(' ')).expect("parses").args
    }

    #[test]
    fn settings_follow_the_options() {
        let args = args("x --token t --label a=b --label c=d --mesh-port 7201 m1:7100 m2:7100");
        assert_eq!(args.managers, ["m1:7100", "m2:7100"]);
        let expected = [setting("LABEL", "a=b,c=d"), setting("MESH_PORT", "7201")];
        assert_eq!(kept(&args), expected);
        assert!(check_names(&args).is_ok());
        let ca = CaDigest::of_der(b"");
        assert_eq!(options(&args, ca).port, 7201);
        assert!(Line::try_parse_from(["x", "--token", "t"]).is_err(), "whom to ask?");
    }

    #[test]
    fn names_are_checked_before_anything_happens() {
        let error = check_names(&args("x --name a/b m:1")).unwrap_err().to_string();
        assert!(error.contains("--name"), "{error}");
        assert!(check_names(&args("x --label a=b,c m:1")).is_err());
    }

    #[test]
    fn an_empty_folder_is_a_strangers() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(standing(folder.path()), Standing::Stranger);
        assert!(check_folder(folder.path(), &CaDigest::of_der(b"")).is_ok());
    }
}
