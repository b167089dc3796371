//! What a recovery says before and after.

use std::fmt::Write as _;

use cluster_model::NodeState;

use super::source::{Kind, Source};
use crate::cli::Recover;
use crate::clock::wall_ms;

/// What is there, what will be kept, and what will be lost.
pub fn before(cli: &Recover, source: &Source) -> String {
    let Source { state, index, term, .. } = source;
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<10} {value}", format!("{label}:"));
    };
    let cluster = state.cluster().map_or("", |cluster| cluster.name.as_str());
    line("cluster", &format!("{cluster} (id {})", source.cluster_id));
    match &source.kind {
        Kind::Data { was, .. } => {
            line(
                "from",
                &format!(
                    "the data of manager {} (id {}) in {}",
                    was.name,
                    was.id,
                    cli.data_dir.display()
                ),
            );
        }
        Kind::Snapshot { created_at_ms, program } => {
            let age = wall_ms().saturating_sub(*created_at_ms);
            line("from", &format!("a snapshot that version {program} wrote {} ago", span(age)));
        }
    }
    let ready = state.nodes().filter(|node| node.state == NodeState::Ready).count();
    line("kept", &format!("the state as of log index {index}, term {term}"));
    line("", &format!("state hash {}", source.hash));
    let services = state.services().filter(|service| !service.removed).count();
    line(
        "",
        &format!(
            "{services} services, {} tasks, {} workers ({ready} ready)",
            state.task_count(),
            state.node_count()
        ),
    );
    match &source.kind {
        Kind::Data { committed, snapshot, .. } => {
            if *snapshot > 0 {
                line("", &format!("its own snapshot covers it up to index {snapshot}"));
            }
            if committed < index {
                let first = committed + 1;
                line(
                    "",
                    &format!(
                        "entries {first} to {index} were not known here to be committed; they are kept"
                    ),
                );
            }
            line(
                "lost",
                &format!(
                    "whatever the other managers acknowledged after index {index} and this one never received"
                ),
            );
        }
        Kind::Snapshot { .. } => {
            line(
                "lost",
                &format!("every change after index {index}, when the snapshot was written:"),
            );
            line(
                "",
                "services and tasks since then are unknown, and their containers are stopped;",
            );
            line("", "workers that joined since then must join again with empty folders");
        }
    }
    if matches!(source.kind, Kind::Data { .. }) && cli.data_dir.join("removed.json").exists() {
        line(
            "beware",
            "this manager was removed from the cluster: the others may hold a newer state",
        );
    }
    for (place, manager) in source.dropped.iter().enumerate() {
        let label = if place == 0 { "dropped" } else { "" };
        line(label, &format!("manager {} (id {}, {})", manager.name, manager.id, manager.address));
    }
    if !source.dropped.is_empty() {
        line("", "they must be off for good; each may join again with an empty data folder");
    }
    line(
        "then",
        &format!(
            "manager {} at {} has the new id {} and is the only voter;",
            source.manager.name, source.manager.address, source.node_id
        ),
    );
    line(
        "",
        &format!(
            "its log goes on after index {}, in terms above {}",
            source.begins.index, source.begins.term
        ),
    );
    text
}

/// What to do next.
pub fn after(cli: &Recover, source: &Source) -> String {
    let dir = cli.data_dir.display();
    let lock = match source.lock {
        Some(_) => {
            "\nThe folder is locked as before: the manager wants the unlock key when it starts."
        }
        None => "",
    };
    format!(
        "Recovered: state hash {} as of index {}.\n\
         Start the manager:       cluster-manager --data-dir {dir} --listen {address} --name {name}\n\
         Then join others anew:   clusterctl cluster token --role manager\n\
         Workers come back by themselves; their containers run on.\n\
         {dir}/admin.json is a key to everything: take it away once it is imported.{lock}",
        source.hash,
        source.index,
        address = source.manager.address,
        name = source.manager.name,
    )
}

fn span(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
