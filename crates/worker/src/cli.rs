//! The command line: flags, first join, and putting the real machine behind the worker.

mod resources;
mod run;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cluster_daemon::telemetry::{self, LogFormat};
use cluster_daemon::{DataDirLock, LockError, build_info};
use cluster_image::ImageStore;
use cluster_model::node::Generic;
use cluster_model::spec::Resources;
use cluster_network::Subnet;

use crate::data_dir::DataDir;
use crate::{join, local};

/// Refused: trying again the same way cannot help.
const REFUSED: u8 = 1;
/// Nobody answered.
const UNREACHABLE: u8 = 3;

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
    /// Images of this node, also beside a running worker.
    #[command(subcommand)]
    Image(ImageCommand),
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Import an OCI or `docker save` archive; prints the names it has then.
    Load {
        #[arg(long)]
        data_dir: PathBuf,
        archive: PathBuf,
    },
    /// List names, digests and sizes.
    Ls {
        #[arg(long)]
        data_dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Where this node keeps everything; belongs to one worker.
    #[arg(long)]
    data_dir: PathBuf,
    /// Managers to join through, HOST:PORT[,HOST:PORT…]; needed at the first start only.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    join: Vec<String>,
    /// Join token for workers; needed at the first start only.
    #[arg(long, env = "CLUSTER_JOIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// How long a first join is tried while no manager answers, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    join_timeout: u64,
    /// Address at which other workers reach this one; by default that on the way to the managers.
    #[arg(long, value_name = "IP")]
    advertise: Option<IpAddr>,
    /// Name of this node; by default the host's.
    #[arg(long)]
    name: Option<String>,
    /// Label of this node, KEY=VALUE; may be repeated.
    #[arg(long, value_parser = label, value_name = "KEY=VALUE")]
    label: Vec<(String, String)>,
    /// What this node has of something only its owner knows: a number, or names of which each is
    /// held by one task. Tasks that reserve some find it in CLUSTER_RESOURCE_<KIND>. May be
    /// repeated, once for each kind.
    #[arg(long, value_parser = resources::generic, value_name = "KIND=COUNT|NAME,…")]
    generic_resource: Vec<(String, Generic)>,
    /// Kept for the machine itself, cpu=CORES,memory=BYTES: tasks are given what remains.
    #[arg(long, value_parser = resources::reserve, value_name = "cpu=0.5,memory=256M")]
    system_reserve: Option<Resources>,
    /// Sockets and network namespaces, gone after a reboot.
    #[arg(long, default_value = "/run/cluster-worker")]
    run_dir: PathBuf,
    /// Cgroup below which containers get theirs.
    #[arg(long, default_value = "/cluster")]
    cgroup_parent: PathBuf,
    /// Device that containers are plugged into.
    #[arg(long, default_value = "cluster0")]
    bridge: String,
    /// Addresses of containers.
    #[arg(long, default_value = "10.88.0.0/16", value_name = "CIDR")]
    subnet: Subnet,
    /// Port at which other workers reach this one.
    #[arg(long, default_value_t = 7101, value_parser = clap::value_parser!(u16).range(1..))]
    mesh_port: u16,
    /// What runs containers.
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Embedded)]
    runtime: RuntimeChoice,
    /// Registry that may be spoken to without TLS, HOST[:PORT]; may be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
    /// Folder that services may bind into containers; all folders when not given; may be repeated.
    #[arg(long, value_name = "PATH")]
    allow_bind: Vec<PathBuf>,
    /// text or json.
    #[arg(long, default_value = "text")]
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
    let cli = Cli::parse();
    let outcome = match (cli.command, cli.run) {
        (Some(Command::Image(command)), _) => image(command),
        (None, Some(args)) => run::worker(args),
        (None, None) => Err(anyhow::anyhow!("nothing to do: see --help")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let unreachable =
                error.downcast_ref::<join::Error>().is_some_and(join::Error::is_unreachable);
            say(&format!("error: {error:#}"));
            ExitCode::from(if unreachable { UNREACHABLE } else { REFUSED })
        }
    }
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
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = parse("w --data-dir /d --join a:1,b:2 --token t --label a=b --label c=").unwrap();
        let run = cli.run.unwrap();
        assert_eq!(run.join, ["a:1", "b:2"]);
        assert_eq!(run.labels().len(), 2);
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
