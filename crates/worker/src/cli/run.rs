//! `cluster-worker` itself: checks, first join, the machine's parts, signals.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cluster_daemon::shutdown::Signals;
use cluster_daemon::{DataDirLock, Failure, OnError, Scope, build_info, systemd, telemetry};
use cluster_identity::net::Net;
use cluster_identity::{Identity, TlsIdentity};
use cluster_image::{ImageStore, RegistryOptions};
use cluster_model::validate;
use cluster_network::mesh::{IdentityTls, Mesh, MeshConfig};
use cluster_network::{Bridge, BridgeConfig};
use cluster_runtime::{Backend, EmbeddedConfig, EmbeddedRuntime};

use super::{RunArgs, resources};
use crate::data_dir::DataDir;
use crate::describe;
use crate::host::{Bridged, Meshed, StoredImages};
use crate::join;
use crate::local::Listening;
use crate::member::Member;
use crate::node::{Node, Parts};
use crate::session::Removed;
use crate::worker::{self, Setup};

/// Little is computed here; more threads would only cost memory.
const THREADS: usize = 2;
const BLOCKING_THREADS: usize = 16;
const STACK_BYTES: usize = 1 << 20;
/// How long open log streams and the like may take to end.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// How long open connections may take before the program stops; its session goes on meanwhile.
const LEAVE_MAX: Duration = Duration::from_secs(3);
/// A loop of sessions that did not go round for so long is stuck: each of its steps is bounded by less.
const STUCK_AFTER: Duration = Duration::from_secs(20);

pub(super) fn worker(args: RunArgs) -> anyhow::Result<()> {
    telemetry::init(args.log_format, "info")?;
    if !nix::unistd::geteuid().is_root() {
        bail!("cluster-worker runs containers and must be started as root");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK_BYTES)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    let outcome = runtime.block_on(serve(args));
    // Blocking work that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve(args: RunArgs) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let data = DataDir::new(std::path::absolute(&args.data_dir)?);
    let _lock = DataDirLock::acquire(data.root())?;
    tracing::info!(version = %build_info(), data_dir = %data.root().display(), "worker starting");
    let scope = Scope::root("worker");
    systemd::status("starting");
    let (node, newcomer) = tokio::select! {
        begun = begin(&args, data, &scope) => begun?,
        signal = signals.recv() => {
            tracing::info!(%signal, "stopping before the start was complete");
            systemd::stopping("stopping");
            return Ok(());
        }
    };
    scope.spawn("status", OnError::Log, tell(node.clone(), newcomer));
    scope.spawn("watchdog", OnError::Log, watchdog(node.clone()));
    let outcome = tokio::select! {
        signal = signals.recv() => {
            tracing::info!(%signal, "worker stopping; containers run on");
            systemd::stopping("stopping; containers run on");
            leave(&node).await;
            Ok(())
        }
        failure = scope.failed() => Err(why(failure)),
    };
    if let Err(stuck) = scope.drain(DRAIN_MAX).await {
        tracing::warn!(error = %stuck, "not everything ended in time");
    }
    outcome
}

fn why(failure: Failure) -> anyhow::Error {
    match failure.kind {
        worker::SESSION => anyhow::Error::new(Removed),
        _ => anyhow::Error::new(failure),
    }
}

/// Says that the worker is ready, and what it does from then on. A newcomer is ready once a manager has
/// told it what to run; one that was here before cares for its containers with or without managers.
async fn tell(node: Arc<Node>, newcomer: bool) {
    let mut hearing = node.hearing.subscribe();
    let (mut is_ready, mut told) = (false, None);
    loop {
        let present = hearing.borrow_and_update().present;
        let words = match present {
            true => "in session with a manager",
            false => "no manager answers, trying again; containers run on",
        };
        if !is_ready && (present || !newcomer) {
            systemd::ready(words);
            is_ready = true;
        } else if told != Some(present) {
            systemd::status(words);
        }
        told = Some(present);
        if hearing.changed().await.is_err() {
            return;
        }
    }
}

/// Alive is a worker whose loop of sessions goes round.
async fn watchdog(node: Arc<Node>) {
    systemd::watchdog(|| {
        let alive = node.pulse.age() < STUCK_AFTER;
        async move { alive }
    })
    .await;
}

/// Every connection to a container here passes this process: those that are open get some time to
/// end, and new ones go to other workers.
async fn leave(node: &Node) {
    if tokio::time::timeout(LEAVE_MAX, node.parts.balancers.leave()).await.is_err() {
        tracing::warn!(?LEAVE_MAX, "connections that are still open are cut");
    }
}

/// Also says whether it is the first start of this node.
async fn begin(args: &RunArgs, data: DataDir, scope: &Scope) -> anyhow::Result<(Arc<Node>, bool)> {
    // Before anything is joined.
    let reserve = args.system_reserve.unwrap_or_default();
    let refused = |problem: String| anyhow::anyhow!(problem);
    let capacity = resources::remaining(describe::capacity(), reserve).map_err(refused)?;
    let generic = resources::all_generic(&args.generic_resource).map_err(refused)?;
    systemd::status("joining the cluster, if it is no member yet");
    let (identity, member) = membership(args, &data).await?;
    systemd::status("taking over containers");
    let newcomer = member.boot == 1;
    let mut managers = args.join.clone();
    managers.extend(member.managers.iter().cloned());
    let advertise = match args.advertise {
        Some(address) => address,
        None => describe::address_towards(&managers).context(
            "field `--advertise`: no route to any manager tells this node's address; \
                      name the address at which other workers reach it",
        )?,
    };
    let tls = TlsIdentity::new(identity)?;
    let node_id = tls.identity().node_id.clone();
    let store = open_images(&data).await?;
    scope.spawn("local", OnError::Log, Listening::open(&data, store.clone())?.run());
    let bridge = bridge(args).await?;
    let notices = bridge.notices().iter().map(ToString::to_string).collect();
    let mut description = describe::description(
        advertise,
        args.mesh_port,
        member.boot,
        args.labels(),
        "embedded",
        notices,
    );
    description.capacity = capacity;
    description.generic = generic;
    let parts = Parts {
        runtime: Arc::new(embedded(args, &data)?),
        images: Arc::new(StoredImages { store, registries: registries(args) }),
        network: Arc::new(Bridged(bridge)),
        balancers: Arc::new(Meshed(mesh(args, advertise, &tls).await?)),
    };
    let allowed_binds = args.allow_bind.iter().map(|folder| {
        folder.canonicalize().with_context(|| format!("field `--allow-bind`: {}", folder.display()))
    });
    let setup = Setup {
        allowed_binds: allowed_binds.collect::<Result<_, _>>()?,
        join: args.join.clone(),
        data,
        tls,
        member,
        description,
        parts,
    };
    let name = setup.member.name.clone();
    let node = worker::start(setup, scope).await?;
    tracing::info!(node_id, name, address = %advertise, "ready");
    Ok((node, newcomer))
}

/// The kept identity, or a new one from a first join; counts this start.
async fn membership(args: &RunArgs, data: &DataDir) -> anyhow::Result<(Identity, Member)> {
    let token = args.token.as_deref().map(join::token).transpose()?;
    validate::labels("--label", args.labels().iter())
        .map_err(|invalid| anyhow::anyhow!("{invalid}"))?;
    let mut member = Member::load(data)?;
    let identity = match join::kept(data.root(), token.as_ref())? {
        Some(identity) => identity,
        None => {
            let (Some(token), false) = (token, args.join.is_empty()) else {
                return Err(
                    join::Error::NotAMember { dir: data.root().display().to_string() }.into()
                );
            };
            let name = name(args)?;
            let patience = Duration::from_secs(args.join_timeout);
            let (identity, managers) =
                join::join(&args.join, &token, &name, patience, &Net::default()).await?;
            let mut joined = Member { name, boot: 0, managers: Vec::new() };
            joined.learn(managers);
            // The name first: an identity without one would be a member nobody can name.
            joined.store(data)?;
            identity.store(data.root())?;
            tracing::info!(
                node_id = identity.node_id,
                cluster_id = identity.cluster_id,
                "joined the cluster"
            );
            member = Some(joined);
            identity
        }
    };
    let mut member = match member {
        Some(member) => member,
        None => Member { name: name(args)?, boot: 0, managers: Vec::new() },
    };
    if args.name.as_ref().is_some_and(|name| *name != member.name) {
        tracing::warn!(
            name = member.name,
            "--name is ignored: a node keeps the name it joined with"
        );
    }
    member.boot += 1;
    member.store(data)?;
    Ok((identity, member))
}

fn name(args: &RunArgs) -> anyhow::Result<String> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            let name = nix::unistd::gethostname().context("reading the host's name")?;
            name.to_string_lossy().into_owned()
        }
    };
    validate::name("--name", &name).map_err(|invalid| anyhow::anyhow!("{invalid}"))?;
    Ok(name)
}

async fn open_images(data: &DataDir) -> anyhow::Result<ImageStore> {
    let path = data.images();
    let opened = tokio::task::spawn_blocking(move || ImageStore::open(&path));
    Ok(opened.await.context("opening the image store")??)
}

fn registries(args: &RunArgs) -> RegistryOptions {
    RegistryOptions { insecure: args.insecure_registry.clone(), ..RegistryOptions::default() }
}

async fn bridge(args: &RunArgs) -> anyhow::Result<Bridge> {
    let mut config = BridgeConfig::new(args.run_dir.join("netns"));
    config.subnet = args.subnet;
    config.bridge_name.clone_from(&args.bridge);
    if args.bridge != BridgeConfig::new(PathBuf::new()).bridge_name {
        // Two workers on one machine have two bridges, and rules of their own.
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        config.nft_table =
            format!("cluster_{}", args.bridge.chars().map(plain).collect::<String>());
    }
    Ok(Bridge::ensure(config).await?)
}

async fn mesh(args: &RunArgs, advertise: IpAddr, tls: &TlsIdentity) -> anyhow::Result<Mesh> {
    let listen = args.listen_address(advertise);
    let node_id = tls.identity().node_id.clone();
    let mut config = MeshConfig::new(node_id, SocketAddr::new(listen, args.mesh_port));
    config.publish_addr = listen;
    Mesh::start(config, Arc::new(IdentityTls::new(tls)))
        .await
        .context("field `--mesh-port`: another process may be using it")
}

fn embedded(args: &RunArgs, data: &DataDir) -> anyhow::Result<EmbeddedRuntime> {
    let config = EmbeddedConfig {
        state_dir: data.containers(),
        run_dir: absolute(&args.run_dir)?.join("shim"),
        cgroup_parent: args.cgroup_parent.clone(),
        shim: None,
        backend: Backend::default(),
        concurrent_starts: 8,
    };
    Ok(EmbeddedRuntime::open(config)?)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}
