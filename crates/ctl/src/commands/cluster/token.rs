//! `cluster token --role worker|manager [--rotate]`

use clap::ValueEnum;
use cluster_pb::control::v1::{GetClusterRequest, GetTokenRequest};
use serde::Serialize;

use crate::Invocation;
use crate::error::Error;
use crate::output::Format;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the machines that join with it become
    #[arg(long)]
    role: Role,

    /// Make a new token; the present one is worthless from then on
    #[arg(long)]
    rotate: bool,

    /// Print the token only
    #[arg(long, short)]
    quiet: bool,

    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Worker,
    Manager,
}

#[derive(Serialize)]
struct View {
    role: &'static str,
    token: String,
    managers: Vec<String>,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let role = match args.role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    };
    let mut client = invocation.client()?;
    let request = GetTokenRequest { role: role.to_owned(), rotate: args.rotate };
    let token = client.get_token(request).await?.token;
    if args.quiet {
        return invocation.printer.data(&token);
    }
    // Those who join must reach the managers' own addresses, which need not be those in the context.
    let cluster =
        client.get_cluster(GetClusterRequest { stale: true, ..Default::default() }).await?;
    let managers: Vec<String> =
        cluster.managers.into_iter().map(|manager| manager.address).collect();
    if args.output == Format::Json {
        return invocation.printer.json(&View { role, token, managers });
    }
    if args.rotate {
        invocation.printer.say(&format!("the {role} token from before no longer works"));
    }
    let command = format!("cluster-{role} join --token {token} {}", managers.join(" "));
    invocation.printer.say(&format!("To add a {role}, run this as root on its machine:\n"));
    invocation.printer.data(&command)
}
