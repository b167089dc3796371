//! `cluster-manager init` and `join`: this machine becomes a manager for good.
//!
//! *Flow.* What the folder holds already is looked at first; then the machine is checked, the unit's
//! settings are written, the unit is enabled, started and waited for (`cluster_install`). The daemon
//! itself does the founding or joining, as it does without a unit.
//! *Guarantees.* Each may be given again: what is there already is found, what is half-done goes on.

mod init;
mod join;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser as _};
use cluster_identity::{Owner, Role};
use cluster_install::env_file::{self, Settings};
use cluster_install::{Outcome, Plan, Standing, Systemd, address, enlist};
use cluster_preflight::Options;

use crate::cli::{self, Cli};
use crate::enrolled;
use crate::founding;
use crate::managers::standing;

pub use init::{Init, run as init};
pub use join::{Join, run as join};

const UNIT: &str = "cluster-manager";
const DATA_DIR: &str = "/var/lib/cluster-manager";
const PORT: u16 = 7100;
const PREFIX: &str = "CLUSTER_MANAGER_";
/// Options that mean something only until this machine is a manager; some of them need each other.
const TRANSIENT: &[&str] = &[
    "CLUSTER_JOIN_TOKEN",
    "CLUSTER_MANAGER_BOOTSTRAP",
    "CLUSTER_MANAGER_CLUSTER_NAME",
    "CLUSTER_MANAGER_HEARTBEAT_PERIOD",
    "CLUSTER_MANAGER_JOIN",
    "CLUSTER_MANAGER_LEASE",
    "CLUSTER_MANAGER_SPARE",
];

/// What both take.
#[derive(Clone, Debug, Args)]
pub struct Machine {
    /// Address at which others reach this manager [default: the only one it has, or for a join the
    /// one on the way to the managers; port 7100]
    #[arg(long, value_name = "IP[:PORT]")]
    pub advertise: Option<String>,

    /// Address and port to listen on [default: all addresses, the advertised port]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,

    /// Name of this manager [default: the host name]
    #[arg(long)]
    pub name: Option<String>,

    /// Folder for the log, snapshots and the manager's certificate
    #[arg(long, value_name = "DIR", env = "CLUSTER_MANAGER_DATA_DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,

    /// How long to wait until the manager is ready
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = cli::duration)]
    pub wait: Duration,

    /// Go on although this check of the machine fails; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub ignore_preflight: Vec<String>,

    /// File for the unit's settings
    #[arg(long, value_name = "FILE", default_value = "/etc/cluster/manager.env", hide = true)]
    pub env_file: PathBuf,

    /// The user's settings of the unit
    #[arg(long, value_name = "FILE", default_value = "/etc/default/cluster-manager", hide = true)]
    pub defaults_file: PathBuf,
}

/// A setting of the unit for an option of the daemon.
fn setting(option: &str, value: impl Into<String>) -> (String, String) {
    (format!("{PREFIX}{option}"), value.into())
}

impl Machine {
    /// What the user gave, what a member has, or what is found here: in this order.
    fn advertised(
        &self,
        is_member: bool,
        found: impl FnOnce() -> anyhow::Result<IpAddr>,
    ) -> anyhow::Result<SocketAddr> {
        let written = if is_member { self.written_advertise()? } else { None };
        match (&self.advertise, written) {
            (Some(text), _) => address::parse(text, PORT)
                .map_err(|problem| anyhow::anyhow!("field `--advertise`: {problem}")),
            (None, Some(address)) => Ok(address),
            (None, None) => {
                Ok(SocketAddr::new(found()?, self.listen.map_or(PORT, |listen| listen.port())))
            }
        }
    }

    /// The machine's addresses may be others by now, or its managers unknown for a moment.
    fn written_advertise(&self) -> anyhow::Result<Option<SocketAddr>> {
        let text = env_file::read(&self.env_file)?.unwrap_or_default();
        let name = format!("{PREFIX}ADVERTISE");
        let written = env_file::parse(&text).into_iter().find(|(other, _)| *other == name);
        Ok(written.and_then(|(_, value)| value.parse().ok()))
    }

    /// Settings for every start.
    fn kept(&self, advertise: SocketAddr) -> Settings {
        let any = match advertise {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let listen = self.listen.unwrap_or_else(|| SocketAddr::new(any, advertise.port()));
        let mut kept = vec![
            setting("LISTEN", listen.to_string()),
            setting("ADVERTISE", advertise.to_string()),
        ];
        kept.extend(self.name.iter().map(|name| setting("NAME", name)));
        if self.data_dir != Path::new(DATA_DIR) {
            kept.push(setting("DATA_DIR", self.data_dir.display().to_string()));
        }
        kept
    }

    /// Those of them that the user gave.
    fn asked(&self, kept: &[(String, String)]) -> Settings {
        let given = [
            ("LISTEN", self.listen.is_some()),
            ("ADVERTISE", self.advertise.is_some()),
            ("NAME", self.name.is_some()),
        ];
        let is_given = |name: &str| {
            given.iter().any(|(option, given)| *given && name.strip_prefix(PREFIX) == Some(*option))
        };
        kept.iter().filter(|(name, _)| is_given(name)).cloned().collect()
    }

    /// Whose the folder is; refuses one that no manager can use.
    fn owner(&self) -> anyhow::Result<Option<Owner>> {
        let shown = self.data_dir.display();
        standing::check(&self.data_dir)?;
        let owner = Owner::of(&self.data_dir).with_context(|| format!("cannot use {shown}"))?;
        match owner {
            Some(owner) if owner.role != Role::Manager => bail!(
                "field `--data-dir`: {shown} belongs to a {}; a manager needs a folder of its own",
                owner.role
            ),
            owner => Ok(owner),
        }
    }

    fn standing(&self) -> Standing {
        let founded = !matches!(founding::pending(&self.data_dir), Ok(None));
        match Owner::of(&self.data_dir) {
            Ok(None) if !founded => Standing::Stranger,
            Ok(Some(_)) if !founded && enrolled::is_marked(&self.data_dir) => Standing::Member,
            _ => Standing::Begun,
        }
    }

    /// Checks what the daemon would refuse, then the machine; nothing is changed.
    fn check(
        &self,
        kept: &[(String, String)],
        once: &[(String, String)],
        options: Options,
    ) -> anyhow::Result<()> {
        as_daemon(&self.data_dir, kept, once)?;
        if self.standing() == Standing::Member {
            return Ok(());
        }
        let runtime = runtime()?;
        let ignored = &self.ignore_preflight;
        let passed = runtime.block_on(cluster_preflight::gate(&options, ignored, &mut say));
        // Looking up a name may still be under way; nobody waits for it any more.
        runtime.shutdown_background();
        Ok(passed?)
    }

    fn options(&self, kept: &[(String, String)], advertise: SocketAddr) -> Options {
        let listen = kept.iter().find(|(name, _)| name.ends_with("_LISTEN"));
        let listen = listen.and_then(|(_, listen)| listen.parse::<SocketAddr>().ok());
        let listen = listen.unwrap_or(advertise);
        Options {
            name: self.name.clone(),
            data_dir: self.data_dir.clone(),
            listen: listen.ip(),
            port: listen.port(),
            ..Options::new(cluster_preflight::Role::Manager)
        }
    }

    fn enlist(&self, command: &str, kept: Settings, once: Settings) -> anyhow::Result<Outcome> {
        let plan = Plan {
            unit: UNIT,
            command,
            env_file: &self.env_file,
            defaults: &self.defaults_file,
            data_dir: &self.data_dir,
            asked: self.asked(&kept),
            kept,
            once,
            transient: TRANSIENT,
            standing: &|| self.standing(),
            wait: self.wait,
        };
        Ok(enlist(&plan, &Systemd::default(), &mut say)?)
    }
}

/// The daemon's own reading of the settings, for its refusals.
fn as_daemon(
    data_dir: &Path,
    kept: &[(String, String)],
    once: &[(String, String)],
) -> anyhow::Result<()> {
    let mut words = vec![UNIT.to_owned(), "--data-dir".to_owned(), data_dir.display().to_string()];
    for (name, value) in kept.iter().chain(once) {
        let option = match name.strip_prefix(PREFIX) {
            Some("DATA_DIR") => continue,
            Some(option) => option.to_ascii_lowercase().replace('_', "-"),
            None => "token".to_owned(),
        };
        words.push(match value.as_str() {
            "true" => format!("--{option}"),
            value => format!("--{option}={value}"),
        });
    }
    let cli = Cli::try_parse_from(words)?;
    cli.check().map_err(|problem| anyhow::anyhow!("{problem}"))
}

fn require_root(command: &str) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("`{command}` changes the system: run it as root (`sudo {command} …`)")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the async runtime")
}

/// Talk goes to stderr; if that is closed there is nobody to tell.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{text}").context("writing to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        machine: Machine,
    }

    fn machine(words: &[&str]) -> Machine {
        Line::try_parse_from([&["x"], words].concat()).expect("parses").machine
    }

    #[test]
    fn settings_follow_the_options() {
        let machine = machine(&["--advertise", "10.0.0.1", "--name", "m1"]);
        let advertise = machine.advertised(false, || unreachable!("it was given")).unwrap();
        let kept = machine.kept(advertise);
        let expected = [("LISTEN", "0.0.0.0:7100"), ("ADVERTISE", "10.0.0.1:7100"), ("NAME", "m1")];
        let expected: Settings =
            expected.iter().map(|(name, value)| setting(name, *value)).collect();
        assert_eq!(kept, expected);
        let asked: Vec<_> = machine.asked(&kept).into_iter().map(|(name, _)| name).collect();
        assert_eq!(asked, ["CLUSTER_MANAGER_ADVERTISE", "CLUSTER_MANAGER_NAME"]);
        assert!(as_daemon(&machine.data_dir, &kept, &[setting("BOOTSTRAP", "true")]).is_ok());
        let short = [setting("BOOTSTRAP", "true"), setting("LEASE", "1s")];
        let error = as_daemon(&machine.data_dir, &kept, &short).unwrap_err().to_string();
        assert!(error.contains("--lease"), "{error}");
    }

    #[test]
    fn a_members_address_is_the_one_it_joined_with() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("manager.env");
        let machine = machine(&["--env-file", file.to_str().unwrap()]);
        let found = || Ok(IpAddr::from([10, 0, 0, 9]));
        let there: SocketAddr = "10.0.0.1:7200".parse().unwrap();
        env_file::write(&file, "x", &[setting("ADVERTISE", there.to_string())]).unwrap();
        assert_eq!(machine.advertised(true, found).unwrap(), there);
        // What a broken-off attempt wrote may be what was wrong with it.
        assert_eq!(machine.advertised(false, found).unwrap().to_string(), "10.0.0.9:7100");
    }

    #[test]
    fn a_folder_tells_how_far_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(&["--data-dir", folder.path().to_str().unwrap()]);
        assert_eq!(machine.standing(), Standing::Stranger);
        std::fs::write(folder.path().join("founding.json"), "{").unwrap();
        assert_eq!(machine.standing(), Standing::Begun);
    }
}
