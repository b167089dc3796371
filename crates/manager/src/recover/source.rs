//! What a recovery starts from.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, bail};
use cluster_archive::{Member, state_hash};
use cluster_identity::{Identity, Role, UnlockKey};
use cluster_model::{ClusterId, Manager, NodeId, State};

use super::raft_dir;
use crate::cli::Recover;
use crate::clock::wall_ms;
use crate::context::mint;
use crate::raft::RaftNode;
use crate::raft::disk::OsDisk;
use crate::raft::offline::{self, Beginning};
use crate::unlock;

/// Terms and indexes of the new beginning are so far above the old ones: more than a group of old
/// managers could reach by itself before it hears that it is out.
const AHEAD: u64 = 1_000_000;

/// A state, who had it, and who goes on with it.
pub struct Source {
    pub state: State,
    pub hash: String,
    pub cluster_id: ClusterId,
    /// Position of the last entry in it.
    pub index: u64,
    pub term: u64,
    pub kind: Kind,
    pub dropped: Vec<Member>,
    pub node_id: NodeId,
    pub manager: Manager,
    pub begins: Beginning,
    /// What the folder was locked with; the new one is locked with it, too.
    pub lock: Option<UnlockKey>,
}

pub enum Kind {
    /// The manager whose folder it is, what it knew to be committed, and its snapshot.
    Data {
        was: Member,
        committed: u64,
        snapshot: u64,
    },
    Snapshot {
        created_at_ms: u64,
        program: String,
    },
}

/// The folder of a manager that survived.
pub fn from_data(cli: &Recover) -> anyhow::Result<Source> {
    let dir = &cli.data_dir;
    let keys = unlock::open_with(dir, cli.unlock_key_file.as_deref())?;
    let identity = keys
        .load_identity()
        .with_context(|| format!("cannot use {}", Identity::path(dir).display()))?;
    if identity.role != Role::Manager {
        bail!("{} belongs to a {}, not to a manager", dir.display(), identity.role);
    }
    let raft = raft_dir(dir);
    if !RaftNode::has_state(&OsDisk, &raft)? {
        bail!("{} holds no log: recover from another manager, or from a snapshot", dir.display());
    }
    let cluster_id: ClusterId =
        identity.cluster_id.parse().context("the certificate names no cluster id")?;
    let own: NodeId = identity.node_id.parse().context("the certificate names no node id")?;
    // Looking makes no keys: what would be written with them could not be read again.
    let ring = keys.is_kept().then(|| keys.ring());
    let contents = offline::read(&raft, cluster_id, own, ring)
        .with_context(|| format!("cannot read {}", raft.display()))?;
    let state = contents.state;
    let cluster = state.cluster().with_context(|| {
        format!("{} holds a log in which no cluster was founded", dir.display())
    })?;
    let known = cluster.managers.get(&own);
    let listed = contents.members.iter().find(|member| member.id == own);
    let was = Member {
        id: own.to_string(),
        name: known.map(|known| known.name.clone()).unwrap_or_default(),
        address: known
            .map(|known| known.address.clone())
            .or_else(|| listed.map(|listed| listed.address.clone()))
            .unwrap_or_default(),
    };
    let mut dropped = members(&state, Some(own));
    for member in contents.members.iter().filter(|member| member.id != own) {
        if !dropped.iter().any(|known| known.id == member.id.to_string()) {
            let (id, address) = (member.id.to_string(), member.address.clone());
            dropped.push(Member { name: id.clone(), id, address });
        }
    }
    let name = cli.name.clone().unwrap_or_else(|| was.name.clone());
    let address = match cli.advertise {
        Some(address) => address.to_string(),
        None => was.address.clone(),
    };
    let kind = Kind::Data { was, committed: contents.committed, snapshot: contents.snapshot };
    let position = (contents.newest_term, contents.term, contents.index);
    let mut source = finish(state, cluster_id, position, kind, dropped, name, address)?;
    source.lock = keys.lock();
    Ok(source)
}

/// A snapshot, for a folder that is empty yet.
pub fn from_snapshot(cli: &Recover, file: &Path) -> anyhow::Result<Source> {
    let dir = &cli.data_dir;
    if Identity::path(dir).exists() || RaftNode::has_state(&OsDisk, &raft_dir(dir))? {
        bail!(
            "{} (--data-dir) belongs to a manager already: give a new folder, or recover from this \
             one with --from-data",
            dir.display()
        );
    }
    let name = match &cli.name {
        Some(name) => name.clone(),
        None => crate::serve::host_name()?,
    };
    let Some(address) = cli.advertise else {
        bail!(
            "--advertise is needed with --from-snapshot: IP:PORT at which others will reach this manager"
        );
    };
    let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let (header, state) = cluster_archive::read(BufReader::new(opened))
        .with_context(|| format!("cannot use {} (--from-snapshot)", file.display()))?;
    let cluster = state.cluster().context("the snapshot holds no cluster")?;
    let cluster_id = cluster.id;
    let dropped = members(&state, None);
    let kind = Kind::Snapshot { created_at_ms: header.created_at_ms, program: header.program };
    let position = (header.term, header.term, header.index);
    finish(state, cluster_id, position, kind, dropped, name, address.to_string())
}

fn members(state: &State, without: Option<NodeId>) -> Vec<Member> {
    let managers = state.cluster().into_iter().flat_map(|cluster| &cluster.managers);
    let others = managers.filter(|(id, _)| Some(**id) != without);
    let member = |(id, manager): (&NodeId, &Manager)| Member {
        id: id.to_string(),
        name: manager.name.clone(),
        address: manager.address.clone(),
    };
    others.map(member).collect()
}

fn finish(
    state: State,
    cluster_id: ClusterId,
    (newest_term, term, index): (u64, u64, u64),
    kind: Kind,
    dropped: Vec<Member>,
    name: String,
    address: String,
) -> anyhow::Result<Source> {
    cluster_model::validate::name("name", &name)
        .map_err(|invalid| anyhow::anyhow!("--name: {invalid}"))?;
    if address.parse::<std::net::SocketAddr>().is_err() {
        bail!("--advertise is needed: IP:PORT at which others will reach this manager");
    }
    let hash = state_hash(&state)?;
    let begins =
        Beginning { index: index.saturating_add(AHEAD), term: newest_term.saturating_add(AHEAD) };
    let manager = Manager { name, address, joined_at_ms: wall_ms() };
    let node_id = NodeId(mint());
    let lock = None;
    Ok(Source {
        state,
        hash,
        cluster_id,
        index,
        term,
        kind,
        dropped,
        node_id,
        manager,
        begins,
        lock,
    })
}
