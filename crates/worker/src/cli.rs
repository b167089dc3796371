//! The command line: flags, first join, and putting the real machine behind the worker.

mod resources;
mod run;
mod setup;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use cluster_daemon::telemetry::{self, LogFormat};
use cluster_daemon::{DataDirLock, LockError, build_info, settings};
use cluster_image::ImageStore;
use cluster_model::node::Generic;
use cluster_model::spec::Resources;
use cluster_network::Subnet;

use crate::data_dir::DataDir;
use crate::session::Removed;
use crate::{join, local};

/// Refused: trying again the same way cannot help.
const REFUSED: u8 = 1;
/// Nobody answered.
const UNREACHABLE: u8 = 3;
/// The cluster has removed this node: another start would hear the same.
const REMOVED: u8 = 4;

static VERSION: LazyLock<String> = LazyLock::new(|| build_info().to_string());

/// Runs containers for a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "cluster-worker",
    version = VERSION.as_str(),
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<RunArgs>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Join(Box<setup::JoinArgs>),
    /// Images of this node, also beside a running worker.
    #[command(subcommand)]
    Image(ImageCommand),
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Import an OCI or `docker save` archive; prints the names it has then.
    Load {
        #[arg(long, env = "CLUSTER_WORKER_DATA_DIR")]
        data_dir: PathBuf,
        archive: PathBuf,
    },
    /// List names, digests and sizes.
    Ls {
        #[arg(long, env = "CLUSTER_WORKER_DATA_DIR")]
        data_dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Where this node keeps everything; belongs to one worker.
    #[arg(long, env = "CLUSTER_WORKER_DATA_DIR")]
    data_dir: PathBuf,
    /// Managers to join through, HOST:PORT[,HOST:PORT…]; needed at the first start only.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT", env = "CLUSTER_WORKER_JOIN")]
    join: Vec<String>,
    /// Join token for workers; needed at the first start only.
    #[arg(long, env = "CLUSTER_JOIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// How long a first join is tried while no manager answers, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", env = "CLUSTER_WORKER_JOIN_TIMEOUT")]
    join_timeout: u64,
    /// Address at which other workers reach this one; by default that on the way to the managers.
    #[arg(long, value_name = "IP", env = "CLUSTER_WORKER_ADVERTISE")]
    advertise: Option<IpAddr>,
    /// Name of this node; by default the host's.
    #[arg(long, env = "CLUSTER_WORKER_NAME")]
    name: Option<String>,
    /// Labels of this node, KEY=VALUE[,KEY=VALUE…]; may be repeated.
    #[arg(
        long,
        value_parser = label,
        value_name = "KEY=VALUE",
        value_delimiter = ',',
        env = "CLUSTER_WORKER_LABEL",
    )]
    label: Vec<(String, String)>,
    /// What this node has of something only its owner knows: a number, or names of which each is
    /// held by one task. Tasks that reserve some find it in CLUSTER_RESOURCE_<KIND>. May be
    /// repeated, once for each kind; kinds in one value are separated by `;`.
    #[arg(
        long,
        value_parser = resources::generic,
        value_name = "KIND=COUNT|NAME,…",
        value_delimiter = ';',
        env = "CLUSTER_WORKER_GENERIC_RESOURCE",
    )]
    generic_resource: Vec<(String, Generic)>,
    /// Kept for the machine itself, cpu=CORES,memory=BYTES: tasks are given what remains.
    #[arg(
        long,
        value_parser = resources::reserve,
        value_name = "cpu=0.5,memory=256M",
        env = "CLUSTER_WORKER_SYSTEM_RESERVE",
    )]
    system_reserve: Option<Resources>,
    /// Sockets and network namespaces, gone after a reboot.
    #[arg(long, default_value = "/run/cluster-worker", env = "CLUSTER_WORKER_RUN_DIR")]
    run_dir: PathBuf,
    /// Cgroup below which containers get theirs.
    #[arg(long, default_value = "/cluster", env = "CLUSTER_WORKER_CGROUP_PARENT")]
    cgroup_parent: PathBuf,
    /// Device that containers are plugged into.
    #[arg(long, default_value = "cluster0", env = "CLUSTER_WORKER_BRIDGE")]
    bridge: String,
    /// Addresses of containers.
    #[arg(
        long,
        default_value = "10.88.0.0/16",
        value_name = "CIDR",
        env = "CLUSTER_WORKER_SUBNET"
    )]
    subnet: Subnet,
    /// Port at which other workers reach this one.
    #[arg(
        long,
        default_value_t = 7101,
        value_parser = clap::value_parser!(u16).range(1..),
        env = "CLUSTER_WORKER_MESH_PORT",
    )]
    mesh_port: u16,
    /// What runs containers.
    #[arg(
        long, value_enum,
        default_value_t = RuntimeChoice::Embedded,
        env = "CLUSTER_WORKER_RUNTIME",
    )]
    runtime: RuntimeChoice,
    /// Registries that may be spoken to without TLS, HOST[:PORT][,…]; may be repeated.
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        env = "CLUSTER_WORKER_INSECURE_REGISTRY"
    )]
    insecure_registry: Vec<String>,
    /// Folders that services may bind into containers, PATH[,PATH…]; all folders when not given; may
    /// be repeated.
    #[arg(long, value_name = "PATH", value_delimiter = ',', env = "CLUSTER_WORKER_ALLOW_BIND")]
    allow_bind: Vec<PathBuf>,
    /// Form of the log: text or json on stderr, or journal, which goes to the journal of systemd.
    #[arg(long, default_value = "text", env = "CLUSTER_WORKER_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RuntimeChoice {
    Embedded,
}

impl RunArgs {
    fn labels(&self) -> BTreeMap<String, String> {
        self.label.iter().cloned().collect()
    }

    /// Where to listen: everywhere, but several workers may share one machine's loopback.
    fn listen_address(&self, advertise: IpAddr) -> IpAddr {
        match advertise.is_loopback() {
            true => advertise,
            false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("use KEY=VALUE".to_owned()),
    }
}

/// Runs the program; says on stderr what went wrong and gives the exit code.
pub fn main() -> ExitCode {
    let matches = settings::from_environment(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let outcome = match (cli.command, cli.run) {
        (Some(Command::Join(args)), _) => setup::run(&args),
        (Some(Command::Image(command)), _) => image(command),
        (None, Some(args)) => run::worker(args),
        (None, None) => Err(anyhow::anyhow!("nothing to do: see --help")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::from(code_of(&error))
        }
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<Removed>() {
        return REMOVED;
    }
    let unreachable = error.downcast_ref::<join::Error>().is_some_and(join::Error::is_unreachable);
    if unreachable { UNREACHABLE } else { REFUSED }
}

/// Talk goes to stderr; if that is closed there is nobody to tell.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn print(lines: &[String]) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Does it here if no worker runs on the folder, else asks that one.
fn image(command: ImageCommand) -> anyhow::Result<()> {
    telemetry::init(LogFormat::Text, "warn")?;
    let (data_dir, request) = match command {
        ImageCommand::Load { data_dir, archive } => {
            let archive = archive
                .canonicalize()
                .map_err(|error| anyhow::anyhow!("opening {}: {error}", archive.display()))?;
            (data_dir, local::Request::Load(archive))
        }
        ImageCommand::Ls { data_dir } => (data_dir, local::Request::List),
    };
    let data = DataDir::new(std::path::absolute(&data_dir)?);
    let lines = match DataDirLock::acquire(data.root()) {
        Ok(_lock) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let store = ImageStore::open(&data.images())?;
            runtime.block_on(local::execute(&store, request))?
        }
        Err(LockError::InUse { .. }) => ask(&data, &request)?,
        Err(error) => return Err(error.into()),
    };
    print(&lines)
}

/// A worker that is just starting has the lock but does not listen yet.
fn ask(data: &DataDir, request: &local::Request) -> Result<Vec<String>, local::Error> {
    const ATTEMPTS: u32 = 50;
    for _ in 1..ATTEMPTS {
        match local::ask(data, request) {
            Err(local::Error::Ask { source, .. })
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
                ) => {}
            answered => return answered,
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    local::ask(data, request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_its_variable() {
        let others = [("token", "CLUSTER_JOIN_TOKEN")];
        let unnamed = settings::unnamed(&Cli::command(), "CLUSTER_WORKER", &others);
        assert_eq!(unnamed, Vec::<String>::new());
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = parse("w --data-dir /d --join a:1,b:2 --token t --label a=b --label c=").unwrap();
        let run = cli.run.unwrap();
        assert_eq!(run.join, ["a:1", "b:2"]);
        assert_eq!(run.labels().len(), 2);
        let lists =
            "w --data-dir /d --label a=b,c=d --generic-resource gpu=x,y;fpga=2 --allow-bind /a,/b";
        let lists = parse(lists).unwrap().run.unwrap();
        assert_eq!((lists.labels().len(), lists.generic_resource.len()), (2, 2));
        assert_eq!(lists.allow_bind.len(), 2);
        assert!(parse("w image load --data-dir /d /a.tar").unwrap().command.is_some());
        for wrong in [
            "w",
            "w --data-dir /d --label x",
            "w --data-dir /d --mesh-port 0",
            "w image",
            "w --data-dir /d --generic-resource gpu",
            "w --data-dir /d --system-reserve disk=1",
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
