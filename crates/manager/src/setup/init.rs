//! `cluster-manager init`: a new cluster, and this machine its first manager.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use cluster_identity::{ChannelOptions, Context as ContextFile, TlsClient, TlsIdentity, connect};
use cluster_install::{Outcome, address};
use cluster_pb::control::v1::GetTokenRequest;
use cluster_pb::control::v1::control_client::ControlClient;

use super::{Machine, print, require_root, runtime, say, setting};
use crate::cli;
use crate::founding::ADMIN_CONTEXT;

const COMMAND: &str = "cluster-manager init";
const ASK_MAX: Duration = Duration::from_secs(10);

/// Start a new cluster on this machine: check it, write the settings of cluster-manager.service,
/// start it now and at every boot.
///
/// Prints the commands that let other machines join. Given again, it goes on where it was, or says
/// that all is done.
#[derive(Clone, Debug, Args)]
pub struct Init {
    #[command(flatten)]
    pub machine: Machine,

    /// Name of the new cluster
    #[arg(long, value_name = "NAME", default_value = "cluster")]
    pub cluster_name: String,

    /// How often workers of the new cluster speak
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = cli::duration)]
    pub heartbeat_period: Duration,

    /// How long a silent worker of the new cluster is believed alive
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = cli::duration)]
    pub lease: Duration,

    /// Print the cluster's id only: no tokens
    #[arg(long, short)]
    pub quiet: bool,
}

pub fn run(init: &Init) -> anyhow::Result<()> {
    require_root(COMMAND)?;
    let machine = &init.machine;
    let owner = machine.owner()?;
    let admin = machine.data_dir.join(ADMIN_CONTEXT);
    if let Some(owner) = &owner {
        let Ok(context) = ContextFile::load(&admin) else {
            bail!(
                "this machine is a manager of cluster {} already, which it joined: a new cluster needs \
                 another machine, or an empty data folder (now {})",
                owner.cluster_id,
                machine.data_dir.display()
            );
        };
        let named = init.cluster_name != "cluster" && init.cluster_name != context.name;
        if named {
            bail!(
                "field `--cluster-name`: this machine is a manager of the cluster `{}` already, and not \
                 of `{}`",
                context.name,
                init.cluster_name
            );
        }
    }
    let advertise = machine.advertised(owner.is_some(), || Ok(address::only()?))?;
    let kept = machine.kept(advertise);
    let millis = |duration: Duration| format!("{}ms", duration.as_millis());
    let once = vec![
        setting("BOOTSTRAP", "true"),
        setting("CLUSTER_NAME", &init.cluster_name),
        setting("HEARTBEAT_PERIOD", millis(init.heartbeat_period)),
        setting("LEASE", millis(init.lease)),
    ];
    machine.check(&kept, &once, machine.options(&kept, advertise))?;
    let outcome = machine.enlist(COMMAND, kept, once)?;
    let context = ContextFile::load(&admin)
        .with_context(|| format!("the manager runs, but {} cannot be read", admin.display()))?;
    if outcome == Outcome::Already {
        say("this machine is a manager already; nothing was changed");
    }
    if init.quiet {
        return print(&context.cluster_id);
    }
    print(&next_steps(
        &context,
        &admin.display().to_string(),
        runtime()?.block_on(tokens(&context)),
    ))
}

/// The join tokens for workers and managers, from the manager that was just started.
async fn tokens(context: &ContextFile) -> anyhow::Result<[String; 2]> {
    let tls = TlsIdentity::new(context.identity()?)?;
    let options = ChannelOptions { request_timeout: Some(ASK_MAX), ..Default::default() };
    let address = context.managers.first().context("the context names no manager")?;
    let channel = connect(address, &TlsClient::manager(&tls), &options).await?;
    let mut client = ControlClient::new(channel);
    let mut token = async |role: &str| {
        let request = GetTokenRequest { role: role.to_owned(), rotate: false };
        let answer = client.get_token(request).await;
        answer
            .map(|answer| answer.into_inner().token)
            .map_err(|s| anyhow::anyhow!("{}", s.message()))
    };
    Ok([token("worker").await?, token("manager").await?])
}

fn next_steps(context: &ContextFile, admin: &str, tokens: anyhow::Result<[String; 2]>) -> String {
    let managers = context.managers.join(" ");
    let joining = match tokens {
        Ok([worker, manager]) => format!(
            "To add a worker, on its machine:\n  cluster-worker join --token {worker} {managers}\n\
             To add a manager, on its machine (three in all survive the loss of one):\n  \
             cluster-manager join --token {manager} {managers}"
        ),
        Err(error) => format!(
            "The tokens could not be read just now ({error:#}). These print the commands to join:\n  \
             clusterctl cluster token --role worker\n  clusterctl cluster token --role manager"
        ),
    };
    format!(
        "The cluster `{}` ({}) is up; its first manager is {managers}.\n\n\
         To use it from here, as root:\n  clusterctl context import {admin}\n  clusterctl cluster info\n\
         That file is the key to the cluster: copy it only to where it is used.\n\n{joining}",
        context.name, context.cluster_id
    )
}
