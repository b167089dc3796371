//! `service create [OPTIONS] IMAGE [ARG]…`

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;

use clap::ValueEnum;
use cluster_pb::control::v1::CreateServiceRequest;
use cluster_pb::control::v1::forecast_request::Change;
use cluster_pb::types::v1 as pb;
use cluster_pb::types::v1::service_spec::Mode as Wire;

use super::check;
use super::converge::{self, Goal, Patience};
use super::dry_run::{self, DryRun};
use super::settings::{self, Settings};
use crate::Invocation;
use crate::error::Error;
use crate::values::constraint::constraint;
use crate::values::environment;
use crate::values::label::{Label, label};
use crate::values::mount::mount;
use crate::values::placement::{affinity, anti_affinity, generic, preference};
use crate::values::port::publish;

#[derive(Debug, clap::Args)]
#[command(
    override_usage = "clusterctl service create [OPTIONS] IMAGE [ARG]...",
    after_help = "Waits until all replicas run (of a job: have completed) and shows each one's \
                  state meanwhile; of a scheduled service, says when the first launch is. Ctrl-C \
                  detaches: the service stays. Ends with code 1 and the reason when tasks keep \
                  failing or the job failed, with code 4 when a task cannot be placed or started \
                  in time."
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

    /// replicated: as many tasks as --replicas; global: one on each node, also on those that join
    /// later; replicated-job: tasks that end, --replicas times; global-job: one that ends on each
    /// node (default: replicated; with --schedule: replicated-job)
    #[arg(long, value_name = "MODE")]
    mode: Option<Mode>,

    /// Reach the service on this port of every worker; without PUBLISHED the managers choose.
    /// Long form: mode=ingress|host,published=8080,target=80[,protocol=tcp]; host: only on the
    /// task's own node
    #[arg(
        long,
        short,
        value_name = "[PUBLISHED:]TARGET[/tcp]",
        value_parser = publish,
        allow_hyphen_values = true
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

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    wishes: Wishes,

    #[command(flatten)]
    dry_run: DryRun,

    #[command(flatten)]
    patience: Patience,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Placement")]
struct Wishes {
    /// Run only on nodes where this holds, such as node.labels.zone==a; may come again, all hold
    #[arg(long, value_name = "CONSTRAINT", value_parser = constraint, allow_hyphen_values = true)]
    constraint: Vec<String>,

    /// Spread over the values of a label, such as spread=node.labels.rack; the first that is given
    /// matters most
    #[arg(long, value_name = "spread=KEY", value_parser = preference)]
    placement_pref: Vec<String>,

    /// Rather run beside a service (service=db) or where a constraint holds; weight 1 to 100
    #[arg(long, value_name = "TARGET[,weight=N]", value_parser = affinity)]
    affinity: Vec<pb::Affinity>,

    /// Rather not run beside a service or where a constraint holds; weight 1 to 100
    #[arg(long, value_name = "TARGET[,weight=N]", value_parser = anti_affinity)]
    anti_affinity: Vec<pb::Affinity>,

    /// Reserve something that nodes have a number of, such as gpu=1
    #[arg(long, value_name = "KIND=N", value_parser = generic)]
    generic_resource: Vec<(String, u64)>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Replicated,
    Global,
    ReplicatedJob,
    GlobalJob,
}

impl From<Mode> for Wire {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Replicated => Wire::Replicated,
            Mode::Global => Wire::Global,
            Mode::ReplicatedJob => Wire::ReplicatedJob,
            Mode::GlobalJob => Wire::GlobalJob,
        }
    }
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let spec = build(args)?;
    check::new(&spec)?;
    let mut client = invocation.client()?;
    let request = CreateServiceRequest { spec: Some(spec.clone()) };
    let explain = |error| check::explain(check::Verb::Create, &spec, error);
    if args.dry_run.dry_run {
        let change = Change::Create(request);
        return dry_run::show(invocation, &mut client, &args.dry_run, change)
            .await
            .map_err(explain);
    }
    let created = client.create_service(request).await.map_err(explain)?;
    invocation.printer.data(&created.id)?;
    let goal = Goal::created(created.id, &spec, created.version);
    converge::wait(invocation, &mut client, &goal, &args.patience).await
}

fn build(args: &Args) -> Result<pb::ServiceSpec, Error> {
    let (image, rest) = match args.image_and_args.as_slice() {
        [image, rest @ ..] => (image.clone(), rest.to_vec()),
        [] => return Err(Error::usage("IMAGE is missing")),
    };
    if args.settings.max_per_node() == Some(0) {
        return Err(Error::usage(
            "--replicas-max-per-node: 0 would let no node run a task; write 1 or more, or leave \
             the flag out for no limit",
        ));
    }
    let own = |key: &str| std::env::var(key).ok();
    let container = pb::ContainerSpec {
        args: rest,
        env: environment::collect(&args.env_file, &args.env, own)?,
        mounts: args.mount.clone(),
        labels: args.container_label.iter().cloned().collect(),
        image,
        ..Default::default()
    };
    let mode = args.mode.map(Wire::from).unwrap_or(match args.settings.has_schedule() {
        true => Wire::ReplicatedJob,
        false => Wire::Replicated,
    });
    let mut spec = pb::ServiceSpec {
        name: args.name.clone().unwrap_or_else(|| name_for(&container.image)),
        labels: args.label.iter().cloned().collect(),
        mode: mode.into(),
        task: Some(pb::TaskSpec { container: Some(container), ..Default::default() }),
        ports: args.publish.clone(),
        ..Default::default()
    };
    spec.replicas = u32::from(!settings::is_global(&spec));
    args.wishes.apply(spec.task.get_or_insert_default())?;
    args.settings.apply(&mut spec)?;
    Ok(spec)
}

impl Wishes {
    fn apply(&self, task: &mut pb::TaskSpec) -> Result<(), Error> {
        task.constraints.clone_from(&self.constraint);
        task.spread_over.clone_from(&self.placement_pref);
        task.affinities = self.affinity.iter().chain(&self.anti_affinity).cloned().collect();
        for (kind, count) in &self.generic_resource {
            if task.generic.insert(kind.clone(), *count).is_some() {
                let message = format!("--generic-resource: `{kind}` is given twice; add them up");
                return Err(Error::usage(message));
            }
        }
        Ok(())
    }
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
