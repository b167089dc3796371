//! `service create [OPTIONS] IMAGE [ARG]…`

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;

use cluster_pb::control::v1::CreateServiceRequest;
use cluster_pb::types::v1 as pb;

use super::converge::{self, Goal, Patience};
use super::settings::Settings;
use crate::Invocation;
use crate::error::Error;
use crate::values::constraint::constraint;
use crate::values::environment;
use crate::values::label::{Label, label};
use crate::values::mount::mount;
use crate::values::port::publish;

#[derive(Debug, clap::Args)]
#[command(
    override_usage = "clusterctl service create [OPTIONS] IMAGE [ARG]...",
    after_help = "Waits until all replicas run and shows each one's state meanwhile. Ctrl-C \
                  detaches: the service stays. Ends with code 1 and the reason when tasks keep \
                  failing, with code 4 when a task cannot be placed or started in time."
)]
pub struct Args {
    /// The image, then the arguments that replace the image's own command
    #[arg(
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        value_names = ["IMAGE", "ARG"]
    )]
    image_and_args: Vec<String>,

    /// The service's name, unique in the cluster (default: made from the image's)
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    settings: Settings,

    /// Reach the service on this port of every worker; without PUBLISHED the managers choose
    #[arg(
        long,
        short,
        value_name = "[PUBLISHED:]TARGET[/tcp]",
        value_parser = publish,
        allow_negative_numbers = true
    )]
    publish: Vec<pb::PortSpec>,

    /// Environment variable; a key alone takes the value from here
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    env: Vec<String>,

    /// File with environment variables, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// type=bind|volume|tmpfs,source=…,target=…[,readonly][,tmpfs-size=…]
    #[arg(long, value_name = "MOUNT", value_parser = mount)]
    mount: Vec<pb::Mount>,

    /// Label of the service
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<Label>,

    /// Label of each container
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    container_label: Vec<Label>,

    /// Run only on nodes where this holds, such as node.labels.zone==a
    #[arg(long, value_name = "KEY==VALUE", value_parser = constraint)]
    constraint: Vec<String>,

    #[command(flatten)]
    patience: Patience,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let spec = build(args)?;
    let name = spec.name.clone();
    let mut client = invocation.client()?;
    let created = client.create_service(CreateServiceRequest { spec: Some(spec) }).await?;
    invocation.printer.data(&created.id)?;
    let goal = Goal { id: created.id, name, version: created.version, revision_before: None };
    converge::wait(invocation, &mut client, &goal, &args.patience).await
}

fn build(args: &Args) -> Result<pb::ServiceSpec, Error> {
    let (image, rest) = match args.image_and_args.as_slice() {
        [image, rest @ ..] => (image.clone(), rest.to_vec()),
        [] => return Err(Error::usage("IMAGE is missing")),
    };
    let own = |key: &str| std::env::var(key).ok();
    let container = pb::ContainerSpec {
        args: rest,
        env: environment::collect(&args.env_file, &args.env, own)?,
        mounts: args.mount.clone(),
        labels: args.container_label.iter().cloned().collect(),
        image,
        ..Default::default()
    };
    let name = args.name.clone().unwrap_or_else(|| name_for(&container.image));
    let mut spec = pb::ServiceSpec {
        name,
        labels: args.label.iter().cloned().collect(),
        replicas: 1,
        task: Some(pb::TaskSpec {
            container: Some(container),
            constraints: args.constraint.clone(),
            ..Default::default()
        }),
        ports: args.publish.clone(),
        ..Default::default()
    };
    args.settings.apply(&mut spec);
    Ok(spec)
}

/// The last part of the image's name, and a few characters that make it unlikely to be taken.
fn name_for(image: &str) -> String {
    let path = image.split('@').next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let base: String = last
        .split(':')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_')
        .take(40)
        .collect();
    let base = base.trim_matches(['-', '_']);
    let base = if base.is_empty() { "service" } else { base };
    // Each `RandomState` has fresh random keys; what they hash nothing to serves as a number.
    let random = RandomState::new().build_hasher().finish() & 0xf_ffff;
    format!("{base}-{random:05x}")
}

#[cfg(test)]
mod tests;
