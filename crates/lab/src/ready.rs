//! Asking the cluster, through `clusterctl` as the client, what has joined.

use std::process::Output;

use serde_json::Value;

use crate::lab::{Lab, Role};
use crate::state::State;

/// Runs a command as the client; its output, or why it failed.
pub(crate) fn ask(lab: &Lab, argv: &[&str]) -> Result<String, String> {
    let Output { status, stdout, stderr } =
        lab.exec_output("client", argv).map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    Err(format!("{status}: {}", String::from_utf8_lossy(&stderr).trim()))
}

/// What is not ready yet, one line each; empty when the whole lab is.
pub(crate) fn missing(lab: &Lab, state: &State) -> Vec<String> {
    let program = state.helper.display().to_string();
    let workers = ask(lab, &[&program, "node", "ls", "--output", "json"]);
    let managers = ask(lab, &[&program, "cluster", "info", "--output", "json"]);
    let mut missing = not_ready(state, Role::Worker, &workers, worker_is_ready);
    missing.extend(not_ready(state, Role::Manager, &managers, manager_is_ready));
    missing
}

fn not_ready(
    state: &State,
    role: Role,
    answer: &Result<String, String>,
    is_ready: fn(&Value, &str) -> bool,
) -> Vec<String> {
    let wanted = state.nodes.iter().filter(|node| node.role == role);
    let parsed: Result<Value, String> = match answer {
        Ok(text) => serde_json::from_str(text)
            .map_err(|error| format!("clusterctl printed no JSON: {error}")),
        Err(reason) => Err(reason.clone()),
    };
    match parsed {
        Err(reason) => wanted.map(|node| format!("{} unknown: {reason}", node.name)).collect(),
        Ok(value) => wanted
            .filter(|node| !is_ready(&value, &node.name))
            .map(|node| format!("{} has not joined", node.name))
            .collect(),
    }
}

fn worker_is_ready(nodes: &Value, name: &str) -> bool {
    rows(nodes).any(|row| row["name"] == name && row["state"] == "ready")
}

/// Joined means a full vote; a manager still catching up does not count.
fn manager_is_ready(info: &Value, name: &str) -> bool {
    rows(&info["managers"]).any(|row| row["name"] == name && row["voter"] == true)
}

fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
