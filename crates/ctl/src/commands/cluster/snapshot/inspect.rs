//! `cluster snapshot inspect FILE`

use std::path::PathBuf;

use cluster_archive::{Header, Member};
use cluster_identity::CaDigest;
use cluster_model::{Cluster, State};
use serde::Serialize;

use crate::Invocation;
use crate::error::Error;
use crate::output::{Format, Table, pairs};
use crate::text::{bytes, moment};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file that `cluster snapshot save` or a manager's schedule wrote
    file: PathBuf,

    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Promised to scripts, as the views of objects are.
#[derive(Serialize)]
pub struct SnapshotView {
    pub file: String,
    pub bytes: u64,
    pub cluster_id: String,
    pub cluster_name: String,
    pub created_at_ms: u64,
    pub index: u64,
    pub term: u64,
    pub program: String,
    pub state_hash: String,
    /// Digest of the CA, as in join tokens; empty when it cannot be read.
    pub ca_digest: String,
    pub services: usize,
    pub tasks: usize,
    pub workers: usize,
    pub managers: Vec<MemberView>,
}

#[derive(Serialize)]
pub struct MemberView {
    pub id: String,
    pub name: String,
    pub address: String,
}

impl SnapshotView {
    pub fn of(file: &std::path::Path, header: Header, state: &State) -> Self {
        let member = |Member { id, name, address }| MemberView { id, name, address };
        Self {
            file: file.display().to_string(),
            bytes: std::fs::metadata(file).map_or(0, |found| found.len()),
            cluster_id: header.cluster_id,
            cluster_name: header.cluster_name,
            created_at_ms: header.created_at_ms,
            index: header.index,
            term: header.term,
            program: header.program,
            state_hash: header.state_hash,
            ca_digest: state.cluster().map(ca_digest).unwrap_or_default(),
            services: state.services().filter(|service| !service.removed).count(),
            tasks: state.task_count(),
            workers: state.node_count(),
            managers: header.managers.into_iter().map(member).collect(),
        }
    }
}

/// Workers know the CA that was theirs last: a snapshot of another one does not bring them back.
fn ca_digest(cluster: &Cluster) -> String {
    CaDigest::of_pem(&cluster.ca_certificate).map_or_else(|_| String::new(), |ca| ca.to_string())
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let (header, state) = super::read(&args.file)?;
    let view = SnapshotView::of(&args.file, header, &state);
    if args.output == Format::Json {
        return invocation.printer.json(&view);
    }
    let text = pairs(&[
        ("file", format!("{}, {}, whole", view.file, bytes(view.bytes))),
        ("cluster", format!("{} (id {})", view.cluster_name, view.cluster_id)),
        ("created", moment(view.created_at_ms)),
        ("version", view.program),
        ("term, index", format!("{}, {}", view.term, view.index)),
        ("state hash", view.state_hash),
        ("CA", view.ca_digest),
        ("services", view.services.to_string()),
        ("tasks", view.tasks.to_string()),
        ("workers", view.workers.to_string()),
    ]);
    let mut table = Table::new(["MANAGER", "ID", "ADDRESS"]);
    for manager in view.managers {
        table.row([manager.name, manager.id, manager.address]);
    }
    invocation.printer.raw(format!("{text}\n{table}").as_bytes())
}
