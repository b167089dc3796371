//! How our daemons are started on a lab's nodes: command lines, environment, context files.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use crate::error::{Error, Result};
use crate::node::container_cgroup;
use crate::options::LabOptions;
use crate::state::{Folder, Node, write_private};

const MANAGER_PORT: u16 = 7100;
/// Inside the node's own /run, hence the same for all.
const RUN_FOLDER: &str = "/run/cluster";

pub(crate) fn manager_address(node: &Node) -> SocketAddr {
    SocketAddr::from((node.address, MANAGER_PORT))
}

pub(crate) fn manager_argv(options: &LabOptions, folder: &Folder, node: &Node) -> Vec<String> {
    let address = manager_address(node).to_string();
    let program = options.bin_dir.join("cluster-manager");
    let mut argv = vec![
        program.display().to_string(),
        "--data-dir".to_owned(),
        folder.data(&node.name).display().to_string(),
    ];
    for (flag, value) in [("--listen", &address), ("--advertise", &address), ("--name", &node.name)]
    {
        argv.extend([flag.to_owned(), value.clone()]);
    }
    for (flag, value) in
        [("--heartbeat-period", options.heartbeat_period), ("--lease", options.lease)]
    {
        if let Some(value) = value {
            argv.extend([flag.to_owned(), format!("{}ms", value.as_millis())]);
        }
    }
    argv.extend(options.manager_args.iter().cloned());
    argv
}

pub(crate) fn worker_argv(options: &LabOptions, folder: &Folder, node: &Node) -> Vec<String> {
    let program = options.bin_dir.join("cluster-worker");
    let flags = [
        ("--data-dir", folder.data(&node.name).display().to_string()),
        ("--run-dir", RUN_FOLDER.to_owned()),
        ("--cgroup-parent", container_cgroup(&options.name, &node.name)),
        ("--advertise", node.address.to_string()),
        ("--name", node.name.clone()),
    ];
    let mut argv = vec![program.display().to_string()];
    argv.extend(flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
    argv.extend(options.worker_args.iter().cloned());
    argv
}

/// Daemons get a clean environment: what a service manager would give, and what was asked for.
pub(crate) fn daemon_env(options: &LabOptions) -> Vec<(String, String)> {
    let mut env = BTreeMap::from([
        (
            "PATH".to_owned(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        ),
        ("HOME".to_owned(), "/root".to_owned()),
    ]);
    for name in ["RUST_LOG", "RUST_BACKTRACE"] {
        if let Ok(value) = std::env::var(name) {
            env.insert(name.to_owned(), value);
        }
    }
    env.extend(options.env.iter().cloned());
    env.into_iter().collect()
}

/// The admin's context, with the managers' addresses as seen from where it will be used.
pub(crate) fn write_context(
    path: &Path,
    context: &serde_json::Value,
    managers: &[SocketAddr],
) -> Result<()> {
    let mut context = context.clone();
    context["managers"] = managers.iter().map(SocketAddr::to_string).collect();
    let text = serde_json::to_vec_pretty(&context)
        .map_err(|source| Error::BadState { path: path.to_owned(), source })?;
    write_private(path, &text)
}
