//! `--…-add` and `--…-rm`: what a service has several of.

use cluster_pb::types::v1 as pb;

use crate::error::Error;
use crate::values::constraint::constraint;
use crate::values::environment;
use crate::values::label::{Label, label};
use crate::values::mount::mount;
use crate::values::placement::{affinity, anti_affinity, generic, preference};
use crate::values::port::{port, publish};

#[derive(Clone, Debug, clap::Args)]
pub struct Lists {
    /// Publish a port, or another target under it; long form as with `service create --publish`
    #[arg(
        long,
        value_name = "[PUBLISHED:]TARGET[/tcp]",
        value_parser = publish,
        allow_hyphen_values = true
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
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Placement")]
pub struct WishLists {
    /// Add a constraint
    #[arg(long, value_name = "CONSTRAINT", value_parser = constraint, allow_hyphen_values = true)]
    constraint_add: Vec<String>,

    /// Remove a constraint
    #[arg(long, value_name = "CONSTRAINT", value_parser = constraint, allow_hyphen_values = true)]
    constraint_rm: Vec<String>,

    /// Spread over one more label, which matters least, such as spread=node.labels.rack
    #[arg(long, value_name = "spread=KEY", value_parser = preference)]
    placement_pref_add: Vec<String>,

    /// No longer spread over a label
    #[arg(long, value_name = "spread=KEY", value_parser = preference)]
    placement_pref_rm: Vec<String>,

    /// Add an affinity, or change its weight
    #[arg(long, value_name = "TARGET[,weight=N]", value_parser = affinity)]
    affinity_add: Vec<pb::Affinity>,

    /// Remove the affinity to this target
    #[arg(long, value_name = "TARGET", value_parser = affinity)]
    affinity_rm: Vec<pb::Affinity>,

    /// Add an anti-affinity, or change its weight
    #[arg(long, value_name = "TARGET[,weight=N]", value_parser = anti_affinity)]
    anti_affinity_add: Vec<pb::Affinity>,

    /// Remove the anti-affinity to this target
    #[arg(long, value_name = "TARGET", value_parser = anti_affinity)]
    anti_affinity_rm: Vec<pb::Affinity>,

    /// Reserve a generic resource, or another number of it, such as gpu=1
    #[arg(long, value_name = "KIND=N", value_parser = generic)]
    generic_resource_add: Vec<(String, u64)>,

    /// No longer reserve a generic resource
    #[arg(long, value_name = "KIND")]
    generic_resource_rm: Vec<String>,
}

impl Lists {
    pub fn apply(&self, spec: &mut pb::ServiceSpec) -> Result<(), Error> {
        relabel(&mut spec.labels, "--label-rm", &self.label_rm, &self.label_add)?;
        // Ports of the host mode are read back as the task's; one list is easier to change.
        spec.ports.append(&mut spec.task.get_or_insert_default().host_ports);
        for target in &self.publish_rm {
            remove("--publish-rm", &mut spec.ports, target, |port| port.target == *target)?;
        }
        for added in &self.publish_add {
            let same =
                |port: &pb::PortSpec| port.published != 0 && port.published == added.published;
            spec.ports.retain(|port| !same(port) && port != added);
            spec.ports.push(*added);
        }
        self.apply_container(spec.task.get_or_insert_default().container.get_or_insert_default())
    }

    fn apply_container(&self, container: &mut pb::ContainerSpec) -> Result<(), Error> {
        for key in &self.env_rm {
            remove("--env-rm", &mut container.env, key, |pair| environment::key_of(pair) == key)?;
        }
        let no_files: [&str; 0] = [];
        for pair in environment::collect(&no_files, &self.env_add, |key| std::env::var(key).ok())? {
            environment::put(&mut container.env, pair);
        }
        for target in &self.mount_rm {
            let same = |mount: &pb::Mount| mount.target == *target;
            remove("--mount-rm", &mut container.mounts, target, same)?;
        }
        for added in &self.mount_add {
            container.mounts.retain(|mount| mount.target != added.target);
            container.mounts.push(added.clone());
        }
        let (gone, new) = (&self.container_label_rm, &self.container_label_add);
        relabel(&mut container.labels, "--container-label-rm", gone, new)
    }
}

impl WishLists {
    pub fn apply(&self, task: &mut pb::TaskSpec) -> Result<(), Error> {
        let constraints = &mut task.constraints;
        replace("--constraint-rm", constraints, &self.constraint_rm, &self.constraint_add)?;
        let spread_over = &mut task.spread_over;
        let (gone, new) = (&self.placement_pref_rm, &self.placement_pref_add);
        replace("--placement-pref-rm", spread_over, gone, new)?;
        for (flag, gone) in
            [("--affinity-rm", &self.affinity_rm), ("--anti-affinity-rm", &self.anti_affinity_rm)]
        {
            for target in gone {
                let shown = format!("{}{}", target.service, target.node);
                remove(flag, &mut task.affinities, &shown, |other| same_target(other, target))?;
            }
        }
        for added in self.affinity_add.iter().chain(&self.anti_affinity_add) {
            task.affinities.retain(|other| !same_target(other, added));
            task.affinities.push(added.clone());
        }
        for kind in &self.generic_resource_rm {
            if task.generic.remove(kind).is_none() {
                return Err(missing("--generic-resource-rm", kind));
            }
        }
        task.generic.extend(self.generic_resource_add.iter().cloned());
        Ok(())
    }
}

/// The weight does not matter, its sign does.
fn same_target(one: &pb::Affinity, other: &pb::Affinity) -> bool {
    (&one.service, &one.node, one.weight < 0) == (&other.service, &other.node, other.weight < 0)
}

fn replace(
    flag: &str,
    list: &mut Vec<String>,
    gone: &[String],
    new: &[String],
) -> Result<(), Error> {
    for removed in gone {
        remove(flag, list, removed, |other| other == removed)?;
    }
    for added in new {
        if !list.contains(added) {
            list.push(added.clone());
        }
    }
    Ok(())
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
    if list.len() == before { Err(missing(flag, what)) } else { Ok(()) }
}

fn missing(flag: &str, what: &impl std::fmt::Display) -> Error {
    Error::refused(format!("{flag}: the service has no `{what}`"))
        .hint("`clusterctl service inspect` shows what it has")
}

fn relabel(
    labels: &mut std::collections::BTreeMap<String, String>,
    flag: &str,
    gone: &[String],
    new: &[Label],
) -> Result<(), Error> {
    for key in gone {
        if labels.remove(key).is_none() {
            return Err(missing(flag, key));
        }
    }
    labels.extend(new.iter().cloned());
    Ok(())
}
