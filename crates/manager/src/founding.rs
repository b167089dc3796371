//! Founding a cluster: its CA, its tokens, the first manager's certificate, the first context file.
//!
//! All of it is written to one file before anything else happens, so that a crash at any point is
//! taken up again and never leaves a cluster without its key. The file goes away once the first
//! log entry, which carries the same, is committed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cluster_daemon::fsx;
use cluster_identity::{
    Ca, Context as ContextFile, DEFAULT_VALIDITY, Identity, JoinSecret, KeyAndCsr, Role, SecretPem,
    Subject, now_unix,
};
use cluster_model::cluster::Secret;
use cluster_model::{Cluster, ClusterId, Manager, NodeId};
use serde::{Deserialize, Serialize};

use crate::cli::Cli;
use crate::clock::wall_ms;
use crate::context::mint;

const PENDING: &str = "founding.json";
/// Context file for clusterctl, in the data folder.
pub const ADMIN_CONTEXT: &str = "admin.json";

/// Format of the file, which holds a founding that a crash interrupted.
const VERSION: u32 = 1;

/// What a cluster is founded with.
#[derive(Serialize, Deserialize)]
pub struct Founding {
    version: u32,
    pub cluster: Cluster,
    pub node_id: NodeId,
}

/// The unfinished founding of a data folder, or a new one.
pub fn begin(cli: &Cli, name: &str) -> anyhow::Result<Founding> {
    let path = cli.data_dir.join(PENDING);
    if let Some(founding) = pending(&cli.data_dir)? {
        return Ok(founding);
    }
    let (cluster_id, node_id) = (ClusterId(mint()), NodeId(mint()));
    let ca =
        Ca::create(&cluster_id.to_string(), now_unix()).context("cannot make the cluster's CA")?;
    let secret = || JoinSecret::generate().map(|secret| Secret::new(secret.expose()));
    let now_ms = wall_ms();
    let manager = Manager {
        name: name.to_owned(),
        address: cli.advertised().to_string(),
        joined_at_ms: now_ms,
    };
    let milliseconds = |duration: std::time::Duration| u64::try_from(duration.as_millis());
    let cluster = Cluster {
        id: cluster_id,
        name: cli.cluster_name.clone(),
        version: 0,
        created_at_ms: now_ms,
        ca_certificate: ca.cert_pem().to_owned(),
        ca_key: Secret::new(ca.key_pem().expose().to_owned()),
        worker_token: secret()?,
        manager_token: secret()?,
        heartbeat_period_ms: milliseconds(cli.heartbeat_period)?,
        lease_ms: milliseconds(cli.lease)?,
        managers: [(node_id, manager)].into(),
        strategy: Default::default(),
        upkeep: Default::default(),
    };
    let founding = Founding { version: VERSION, cluster, node_id };
    let bytes = serde_json::to_vec(&founding)?;
    fsx::write_atomic(&path, &bytes, 0o600)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(founding)
}

/// The founding that a crash interrupted, if any.
pub fn pending(data_dir: &Path) -> anyhow::Result<Option<Founding>> {
    let path = data_dir.join(PENDING);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let damaged =
                || format!("{} is damaged; remove the folder to start over", path.display());
            let value: serde_json::Value = serde_json::from_slice(&bytes).with_context(damaged)?;
            match value["version"].as_u64() {
                Some(found) if found > u64::from(VERSION) => anyhow::bail!(
                    "{} has version {found}, and this program knows version {VERSION}: start the \
                     newer cluster-manager that wrote it",
                    path.display()
                ),
                _ => Ok(Some(serde_json::from_value(value).with_context(damaged)?)),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Makes the first manager's identity and the context file, unless they exist.
pub fn credentials(data_dir: &Path, founding: &Founding) -> anyhow::Result<Identity> {
    let cluster = &founding.cluster;
    let key = SecretPem::new(cluster.ca_key.expose());
    let ca = Ca::from_pem(&cluster.ca_certificate, &key).context("cannot read the cluster's CA")?;
    let manager = issue(&ca, cluster, Role::Manager, &founding.node_id.to_string())?;
    let admin = issue(&ca, cluster, Role::Admin, &NodeId(mint()).to_string())?;
    let managers = cluster.managers.values().map(|manager| manager.address.clone()).collect();
    let path: PathBuf = data_dir.join(ADMIN_CONTEXT);
    ContextFile::new(&cluster.name, managers, &admin)
        .and_then(|context| context.save(&path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    manager.store(data_dir).context("cannot store the manager's certificate")?;
    Ok(manager)
}

fn issue(ca: &Ca, cluster: &Cluster, role: Role, node_id: &str) -> anyhow::Result<Identity> {
    let key = KeyAndCsr::generate()?;
    let subject = Subject { role, node_id: node_id.to_owned(), cluster_id: cluster.id.to_string() };
    let chain = ca.sign(key.csr_pem.as_bytes(), &subject, now_unix(), DEFAULT_VALIDITY)?;
    Ok(Identity::new(chain, key.key_pem, cluster.ca_certificate.clone())?)
}

/// The founding is committed: its file, which holds the CA's key, goes away.
pub fn finish(data_dir: &Path) -> anyhow::Result<()> {
    let path = data_dir.join(PENDING);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}
