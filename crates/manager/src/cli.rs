//! The command line of `cluster-manager`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{
    ArgGroup, ArgMatches, Args, Command, CommandFactory as _, FromArgMatches as _, Parser,
    ValueEnum,
};
use cluster_daemon::settings;

use crate::setup::{Init, Join};

/// A manager: keeps the cluster's desired state and makes the workers run it.
///
/// The first manager of a cluster starts with --bootstrap; it writes DIR/admin.json, the context
/// file for clusterctl. Further managers start with --join and --token. On a data folder that
/// belongs to a cluster already, the manager simply continues, whatever else is given.
#[derive(Clone, Debug, Parser)]
#[command(name = "cluster-manager", version)]
#[command(group(ArgGroup::new("start").args(["bootstrap", "join"])))]
pub struct Cli {
    /// Folder for the log, snapshots and the manager's certificate
    #[arg(long, value_name = "DIR", env = "CLUSTER_MANAGER_DATA_DIR")]
    pub data_dir: PathBuf,

    /// Address and port to listen on
    #[arg(
        long,
        value_name = "IP:PORT",
        default_value = "0.0.0.0:7100",
        env = "CLUSTER_MANAGER_LISTEN"
    )]
    pub listen: SocketAddr,

    /// Address and port at which others reach this manager [default: the listen address]
    #[arg(long, value_name = "IP:PORT", env = "CLUSTER_MANAGER_ADVERTISE")]
    pub advertise: Option<SocketAddr>,

    /// Name of this manager [default: the host name]
    #[arg(long, env = "CLUSTER_MANAGER_NAME")]
    pub name: Option<String>,

    /// Start a new cluster
    #[arg(long, env = "CLUSTER_MANAGER_BOOTSTRAP")]
    pub bootstrap: bool,

    /// Name of the new cluster
    #[arg(
        long,
        value_name = "NAME",
        default_value = "cluster",
        env = "CLUSTER_MANAGER_CLUSTER_NAME"
    )]
    pub cluster_name: String,

    /// How often workers of the new cluster speak
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1s",
        value_parser = duration,
        env = "CLUSTER_MANAGER_HEARTBEAT_PERIOD",
    )]
    pub heartbeat_period: Duration,

    /// How long a silent worker of the new cluster is believed alive
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "3s",
        value_parser = duration,
        env = "CLUSTER_MANAGER_LEASE",
    )]
    pub lease: Duration,

    /// Managers of the cluster to join
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',', env = "CLUSTER_MANAGER_JOIN")]
    pub join: Vec<String>,

    /// Join token for managers, from `clusterctl cluster token --role manager`
    #[arg(long, env = "CLUSTER_JOIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Join as a spare: hold the log and serve, but do not vote until promoted
    #[arg(long, requires = "join", env = "CLUSTER_MANAGER_SPARE")]
    pub spare: bool,

    /// Folder for scheduled snapshots [default: snapshots-scheduled in the data folder]
    #[arg(long, value_name = "DIR", env = "CLUSTER_MANAGER_SNAPSHOT_DIR")]
    pub snapshot_dir: Option<PathBuf>,

    /// File with the unlock key of a locked data folder; without it a locked manager waits for
    /// `cluster-manager unlock`
    #[arg(long, value_name = "FILE", env = "CLUSTER_UNLOCK_KEY_FILE")]
    pub unlock_key_file: Option<PathBuf>,

    /// Form of the log: on stderr, or in the journal of systemd
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "CLUSTER_MANAGER_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// Begin anew with one manager, after most managers were lost for good.
///
/// Says what will be kept, lost and dropped; changes nothing without --yes. All other managers must
/// be off: they cannot come back with their old folders, but may join again with empty ones. Workers
/// come back by themselves and their containers run on.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("source").args(["from_data", "from_snapshot"]).required(true)))]
pub struct Recover {
    /// Data folder of the manager that survived, or a new folder with --from-snapshot
    #[arg(long, value_name = "DIR", env = "CLUSTER_MANAGER_DATA_DIR")]
    pub data_dir: PathBuf,

    /// From the log and state in the data folder
    #[arg(long)]
    pub from_data: bool,

    /// File with the unlock key, when the data folder is locked
    #[arg(long, value_name = "FILE", env = "CLUSTER_UNLOCK_KEY_FILE")]
    pub unlock_key_file: Option<PathBuf>,

    /// From a file that `clusterctl cluster snapshot save` or the schedule wrote
    #[arg(long, value_name = "FILE")]
    pub from_snapshot: Option<PathBuf>,

    /// Address and port at which others will reach this manager [default: as before]
    #[arg(long, value_name = "IP:PORT")]
    pub advertise: Option<SocketAddr>,

    /// Name of the manager [default: as before, or the host name]
    #[arg(long)]
    pub name: Option<String>,

    /// Do it
    #[arg(long)]
    pub yes: bool,
}

/// Unlock a manager on this machine that was started and says that it is locked.
///
/// Reads the unlock key from standard input, or from a file. A wrong key changes nothing.
#[derive(Clone, Debug, Args)]
pub struct Unlock {
    /// Data folder of the manager
    #[arg(long, value_name = "DIR", env = "CLUSTER_MANAGER_DATA_DIR")]
    pub data_dir: PathBuf,

    /// File with the unlock key
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Program {
    Run(Box<Cli>),
    Init(Box<Init>),
    Join(Box<Join>),
    Recover(Recover),
    Unlock(Unlock),
}

impl Program {
    /// All of the command line: a manager's own flags, or a subcommand in their place.
    pub fn command() -> Command {
        let recover = Recover::augment_args(Command::new("recover"));
        let unlock = Unlock::augment_args(Command::new("unlock"));
        let init = Init::augment_args(Command::new("init"));
        let join = Join::augment_args(Command::new("join"));
        Cli::command()
            .subcommand(init)
            .subcommand(join)
            .subcommand(recover)
            .subcommand(unlock)
            .subcommand_negates_reqs(true)
            .args_conflicts_with_subcommands(true)
            .disable_help_subcommand(true)
    }

    pub fn parse_from<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let matches = settings::from_environment(Self::command()).try_get_matches_from(words)?;
        match matches.subcommand() {
            Some(("init", matches)) => {
                Init::from_arg_matches(matches).map(Box::new).map(Self::Init)
            }
            Some(("join", matches)) => {
                Join::from_arg_matches(matches).map(Box::new).map(Self::Join)
            }
            Some(("recover", matches)) => Recover::from_arg_matches(matches).map(Self::Recover),
            Some(("unlock", matches)) => Unlock::from_arg_matches(matches).map(Self::Unlock),
            _ => {
                written_for_nothing(&matches)?;
                Cli::from_arg_matches(&matches).map(Box::new).map(Self::Run)
            }
        }
    }
}

/// Whoever writes an option of a new cluster, and starts none, is mistaken. Variables may stand in a
/// file for ever: that of a token is taken away once it was used.
fn written_for_nothing(matches: &ArgMatches) -> Result<(), clap::Error> {
    let written = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let missing = |option: &str, needed: &str| {
        let problem = format!("--{option} needs --{needed}");
        Program::command().error(ErrorKind::MissingRequiredArgument, problem)
    };
    if !matches.get_flag("bootstrap") {
        let options = [
            ("cluster_name", "cluster-name"),
            ("heartbeat_period", "heartbeat-period"),
            ("lease", "lease"),
        ];
        if let Some((_, option)) = options.iter().find(|(id, _)| written(id)) {
            return Err(missing(option, "bootstrap"));
        }
    }
    if written("join") && !matches.contains_id("token") {
        return Err(missing("join", "token"));
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
    /// To the journal of systemd
    Journal,
}

/// `3s`, `500ms`, `1m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 =
        number.parse().map_err(|_| "write a number and a unit, such as 3s or 500ms".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err("the unit is missing or unknown: use ms, s or m".to_owned()),
    }
}

impl Cli {
    /// What clap cannot check by itself; answers the flag and its problem.
    pub fn check(&self) -> Result<(), String> {
        if self.listen.port() == 0 || self.advertised().port() == 0 {
            return Err(
                "--listen and --advertise need a port: others must know where this manager \
                        is, such as 10.0.0.1:7100"
                    .to_owned(),
            );
        }
        cluster_model::validate::name("--cluster-name", &self.cluster_name)
            .map_err(|invalid| invalid.to_string())?;
        if let Some(advertise) = self.advertise.or(Some(self.listen))
            && advertise.ip().is_unspecified()
        {
            return Err(
                "--advertise is needed when --listen is an address of all interfaces: give the \
                        IP:PORT at which others reach this manager"
                    .to_owned(),
            );
        }
        if self.lease < self.heartbeat_period * 2 {
            return Err("--lease must be at least twice --heartbeat-period".to_owned());
        }
        if self.heartbeat_period < Duration::from_millis(100) {
            return Err("--heartbeat-period must be at least 100ms".to_owned());
        }
        Ok(())
    }

    pub fn advertised(&self) -> SocketAddr {
        self.advertise.unwrap_or(self.listen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("3s"), Ok(Duration::from_secs(3)));
        for wrong in ["", "3", "s", "3h", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn subcommands_stand_in_place_of_flags() {
        Program::command().debug_assert();
        let parse = |line: &str| Program::parse_from(line.split(' '));
        let run = parse("cluster-manager --data-dir d --join 10.0.0.1:7100 --token t --spare");
        assert!(matches!(run, Ok(Program::Run(cli)) if cli.spare));
        let recover = parse("cluster-manager recover --data-dir d --from-data");
        assert!(
            matches!(recover, Ok(Program::Recover(recover)) if recover.from_data && !recover.yes)
        );
        assert!(parse("cluster-manager recover --data-dir d").is_err(), "from what?");
        let both = "cluster-manager recover --data-dir d --from-data --from-snapshot f";
        assert!(parse(both).is_err());
        assert!(parse("cluster-manager --data-dir d recover --from-data").is_err());
        assert!(parse("cluster-manager").is_err());
        assert!(parse("cluster-manager --data-dir d --spare").is_err(), "a spare joins");
    }

    #[test]
    fn unlock_stands_in_place_of_flags() {
        Program::command().debug_assert();
        let parse = |line: &str| Program::parse_from(line.split(' '));
        assert!(matches!(parse("cluster-manager unlock --data-dir d"), Ok(Program::Unlock(_))));
        assert!(matches!(parse("cluster-manager --data-dir d"), Ok(Program::Run(_))));
        assert!(parse("cluster-manager unlock").is_err());
    }

    #[test]
    fn every_option_has_its_variable() {
        let others =
            [("token", "CLUSTER_JOIN_TOKEN"), ("unlock-key-file", "CLUSTER_UNLOCK_KEY_FILE")];
        let unnamed = settings::unnamed(&Program::command(), "CLUSTER_MANAGER", &others);
        assert_eq!(unnamed, Vec::<String>::new());
    }

    #[test]
    fn bootstrap_and_join_exclude_each_other() {
        let parse = |args: &[&str]| {
            Program::parse_from([&["cluster-manager", "--data-dir", "d"], args].concat())
        };
        assert!(parse(&["--bootstrap"]).is_ok());
        assert!(parse(&["--lease", "5s"]).is_err(), "of what cluster?");
        assert!(parse(&["--bootstrap", "--lease", "5s"]).is_ok());
        assert!(parse(&["--join", "10.0.0.1:7100"]).is_err(), "a token is needed");
        assert!(parse(&["--bootstrap", "--join", "10.0.0.1:7100", "--token", "t"]).is_err());
    }
}
