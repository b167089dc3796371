//! `cluster-manager join`: this machine becomes a further manager of a cluster.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use cluster_identity::{JoinToken, Role};
use cluster_install::{Outcome, TokenSource, address};

use super::{Machine, print, require_root, say, setting};

const COMMAND: &str = "cluster-manager join";

/// Make this machine a further manager: check it, write the settings of cluster-manager.service,
/// start it now and at every boot.
///
/// Given again, it goes on where it was, or says that all is done. The token does not stay on a
/// machine that has joined.
#[derive(Clone, Debug, Args)]
pub struct Join {
    /// Managers of the cluster
    #[arg(required = true, value_name = "HOST:PORT", value_delimiter = ',')]
    pub managers: Vec<String>,

    /// Join token for managers, from `clusterctl cluster token --role manager`; `-` reads it from
    /// standard input
    #[arg(long, env = "CLUSTER_JOIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// File with the join token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Join as a spare: hold the log and serve, but do not vote until promoted
    #[arg(long)]
    pub spare: bool,

    #[command(flatten)]
    pub machine: Machine,
}

pub fn run(join: &Join) -> anyhow::Result<()> {
    require_root(COMMAND)?;
    let machine = &join.machine;
    let file = join.token_file.as_deref();
    let source = TokenSource { given: join.token.as_deref(), file, role: "manager" };
    let text = source.read()?;
    let token: JoinToken = text.parse().context("--token is not usable")?;
    if token.role != Role::Manager {
        bail!(
            "field `--token`: this token is for joining as a {}; `clusterctl cluster token --role \
             manager` prints the one for managers",
            token.role
        );
    }
    let owner = machine.owner()?;
    let is_member = owner.is_some();
    if let Some(owner) = owner.filter(|owner| !owner.knew_ca(&token.ca_digest)) {
        bail!(
            "this machine is a manager of cluster {} already, and the token is of another cluster; to \
             move it, remove it there (`clusterctl manager rm`) and use an empty data folder (now {})",
            owner.cluster_id,
            machine.data_dir.display()
        );
    }
    let advertise = machine.advertised(is_member, || {
        address::towards(&join.managers).with_context(|| {
            format!(
                "none of {} resolves and has a route, so this machine's address is not known; check the \
                 addresses of the managers, or give --advertise IP",
                join.managers.join(", ")
            )
        })
    })?;
    let kept = machine.kept(advertise);
    let mut once =
        vec![setting("JOIN", join.managers.join(",")), ("CLUSTER_JOIN_TOKEN".to_owned(), text)];
    if join.spare {
        once.push(setting("SPARE", "true"));
    }
    let mut options = machine.options(&kept, advertise);
    options.managers.clone_from(&join.managers);
    options.ca = Some(token.ca_digest);
    machine.check(&kept, &once, options)?;
    let outcome = machine.enlist(COMMAND, kept, once)?;
    if outcome == Outcome::Already {
        say("this machine is a manager already; nothing was changed");
    }
    print(&format!(
        "This machine is a manager of the cluster, at {advertise}.\n`clusterctl manager ls` shows all of \
         them, where a context of the cluster is known."
    ))
}
