//! `service update [OPTIONS] SERVICE`: read, change what was asked, write back against the version
//! that was read. A version that moved on meanwhile is an error (E0105), never overwritten.

use cluster_pb::control::v1::UpdateServiceRequest;
use cluster_pb::types::v1 as pb;

use super::converge::{self, Goal, Patience};
use super::settings::Settings;
use crate::Invocation;
use crate::error::Error;
use crate::values::constraint::constraint;
use crate::values::environment;
use crate::values::label::{Label, label};
use crate::values::mount::mount;
use crate::values::port::{port, publish};
use crate::values::words::{Words, words};

#[derive(Debug, clap::Args)]
#[command(after_help = "Replaces tasks one at a time when what they run changes, and waits until \
                        that is done; Ctrl-C detaches. An empty value takes a setting back, such \
                        as --user ''; so does 0 for a limit.")]
pub struct Args {
    /// Name, id or beginning of the id
    service: String,

    /// Run another image
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// Arguments that replace the image's command, split as a shell would
    #[arg(long, value_name = "ARGS", value_parser = words, allow_hyphen_values = true)]
    args: Option<Words>,

    /// Replace all tasks although nothing else changed
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    settings: Settings,

    /// Publish a port, or another target under it
    #[arg(
        long,
        value_name = "[PUBLISHED:]TARGET[/tcp]",
        value_parser = publish,
        allow_negative_numbers = true
    )]
    publish_add: Vec<pb::PortSpec>,

    /// No longer publish what leads to this target port
    #[arg(long, value_name = "TARGET", value_parser = port)]
    publish_rm: Vec<u32>,

    /// Set an environment variable; a key alone takes the value from here
    #[arg(long, value_name = "KEY[=VALUE]")]
    env_add: Vec<String>,

    /// Remove an environment variable
    #[arg(long, value_name = "KEY")]
    env_rm: Vec<String>,

    /// Add a mount, or replace the one with its target
    #[arg(long, value_name = "MOUNT", value_parser = mount)]
    mount_add: Vec<pb::Mount>,

    /// Remove the mount with this target
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,

    /// Set a label of the service
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label_add: Vec<Label>,

    /// Remove a label of the service
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,

    /// Set a label of each container
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    container_label_add: Vec<Label>,

    /// Remove a label of each container
    #[arg(long, value_name = "KEY")]
    container_label_rm: Vec<String>,

    /// Add a constraint
    #[arg(long, value_name = "KEY==VALUE", value_parser = constraint)]
    constraint_add: Vec<String>,

    /// Remove a constraint
    #[arg(long, value_name = "KEY==VALUE", value_parser = constraint)]
    constraint_rm: Vec<String>,

    #[command(flatten)]
    patience: Patience,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let service = converge::read(&mut client, &args.service).await?;
    let mut spec = service.spec.unwrap_or_default();
    change(&mut spec, args)?;
    let name = spec.name.clone();
    let request = UpdateServiceRequest {
        id: service.id.clone(),
        version: service.version,
        spec: Some(spec),
        remove_tasks: Vec::new(),
    };
    let version = client.update_service(request).await?.version;
    invocation.printer.data(&service.id)?;
    let goal = Goal { id: service.id, name, version, revision_before: Some(service.revision) };
    converge::wait(invocation, &mut client, &goal, &args.patience).await
}

fn change(spec: &mut pb::ServiceSpec, args: &Args) -> Result<(), Error> {
    args.settings.apply(spec);
    relabel(&mut spec.labels, "--label-rm", &args.label_rm, &args.label_add)?;
    for target in &args.publish_rm {
        remove("--publish-rm", &mut spec.ports, target, |port| port.target == *target)?;
    }
    for added in &args.publish_add {
        let same = |port: &pb::PortSpec| port.published != 0 && port.published == added.published;
        spec.ports.retain(|port| !same(port) && port != added);
        spec.ports.push(*added);
    }
    let task = spec.task.get_or_insert_default();
    for removed in &args.constraint_rm {
        remove("--constraint-rm", &mut task.constraints, removed, |other| other == removed)?;
    }
    let new = args.constraint_add.iter().filter(|added| !task.constraints.contains(added));
    let new: Vec<String> = new.cloned().collect();
    task.constraints.extend(new);
    if args.force {
        task.force_update += 1;
    }
    change_container(task.container.get_or_insert_default(), args)
}

fn change_container(container: &mut pb::ContainerSpec, args: &Args) -> Result<(), Error> {
    if let Some(image) = &args.image {
        container.image.clone_from(image);
    }
    if let Some(words) = &args.args {
        container.args.clone_from(&words.0);
    }
    for key in &args.env_rm {
        remove("--env-rm", &mut container.env, key, |pair| environment::key_of(pair) == key)?;
    }
    let no_files: [&str; 0] = [];
    for pair in environment::collect(&no_files, &args.env_add, |key| std::env::var(key).ok())? {
        environment::put(&mut container.env, pair);
    }
    for target in &args.mount_rm {
        remove("--mount-rm", &mut container.mounts, target, |mount| mount.target == *target)?;
    }
    for added in &args.mount_add {
        container.mounts.retain(|mount| mount.target != added.target);
        container.mounts.push(added.clone());
    }
    let (gone, new) = (&args.container_label_rm, &args.container_label_add);
    relabel(&mut container.labels, "--container-label-rm", gone, new)
}

/// Removing what is not there is most likely a slip of the pen.
fn remove<T>(
    flag: &str,
    list: &mut Vec<T>,
    what: &impl std::fmt::Display,
    is_it: impl Fn(&T) -> bool,
) -> Result<(), Error> {
    let before = list.len();
    list.retain(|item| !is_it(item));
    if list.len() == before {
        let error = Error::refused(format!("{flag}: the service has no `{what}`"));
        return Err(error.hint("`clusterctl service inspect` shows what it has"));
    }
    Ok(())
}

fn relabel(
    labels: &mut std::collections::BTreeMap<String, String>,
    flag: &str,
    gone: &[String],
    new: &[Label],
) -> Result<(), Error> {
    for key in gone {
        if labels.remove(key).is_none() {
            return Err(Error::refused(format!("{flag}: the service has no `{key}`")));
        }
    }
    labels.extend(new.iter().cloned());
    Ok(())
}

#[cfg(test)]
mod tests;
