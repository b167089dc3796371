//! `node update --availability … --label-add … NODE`

use clap::ValueEnum;
use cluster_pb::control::v1::{GetNodeRequest, UpdateNodeRequest};

use super::require_worker;
use crate::Invocation;
use crate::error::Error;
use crate::values::label::{Label, label};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct Args {
    /// Name, id or beginning of the id
    node: String,

    /// active: takes tasks; pause: keeps those it has; drain: hands them to others
    #[arg(long, group = "change")]
    availability: Option<Availability>,

    /// Add a label, or replace its value
    #[arg(long, group = "change", value_name = "KEY=VALUE", value_parser = label)]
    label_add: Vec<Label>,

    /// Remove a label
    #[arg(long, group = "change", value_name = "KEY")]
    label_rm: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Availability {
    Active,
    Pause,
    Drain,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let request = GetNodeRequest { node: args.node.clone(), stale: false };
    let node = client.get_node(request).await?.node.unwrap_or_default();
    require_worker(&node, "updated")?;
    let mut labels = node.labels;
    for key in &args.label_rm {
        if labels.remove(key).is_none() {
            return Err(Error::refused(format!("{} has no label `{key}`", node.name)));
        }
    }
    labels.extend(args.label_add.iter().cloned());
    let availability = match args.availability {
        Some(Availability::Active) => "active".to_owned(),
        Some(Availability::Pause) => "pause".to_owned(),
        Some(Availability::Drain) => "drain".to_owned(),
        None => node.availability,
    };
    client
        .update_node(UpdateNodeRequest {
            id: node.id.clone(),
            version: node.version,
            availability,
            labels,
            ..Default::default()
        })
        .await?;
    invocation.printer.data(&node.id)
}
