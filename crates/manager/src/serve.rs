//! A manager's life: find out who it is, start consensus, serve, stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cluster_daemon::{Backoff, DataDirLock, OnError, Scope, shutdown};
use cluster_identity::{
    Ca, ChannelOptions, DEFAULT_VALIDITY, Identity, KeyAndCsr, Role, SecretPem, TlsClient,
    TlsIdentity, TlsServer, connect_lazy, now_unix, renew_at, serve_tls,
};
use cluster_model::Command;
use cluster_pb::ca::v1::ca_server::CaServer;
use cluster_pb::control::v1::control_server::ControlServer;
use cluster_pb::dispatcher::v1::dispatcher_server::DispatcherServer;
use cluster_pb::peer::v1::peer_server::PeerServer;
use tokio::net::TcpListener;
use tonic::transport::Server;

use crate::access::AccessLayer;
use crate::api::REQUEST_BYTES_MAX;
use crate::api::ca::CaService;
use crate::api::control::ControlService;
use crate::api::peer::PeerService;
use crate::cli::Cli;
use crate::clock::ClusterClock;
use crate::context::Context;
use crate::dispatch::publish::DispatcherService;
use crate::dispatch::{Dispatch, reports, router};
use crate::founding::{self, Founding};
use crate::raft::{RaftConfig, RaftNode};
use crate::{join, leader};

/// How long what is under way may take to end after a stop signal.
const DRAIN: Duration = Duration::from_secs(3);
/// A connection whose peer does not answer a ping for this long is dead.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(4);
/// Bytes a client may send on one stream before they are read: idle sessions stay small.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Runs a manager until it is told to stop or cannot go on.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    cli.check().map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let mut signals = shutdown::Signals::listen()?;
    let name = name(&cli)?;
    let lock = DataDirLock::acquire(&cli.data_dir)
        .with_context(|| format!("cannot use {} (--data-dir)", cli.data_dir.display()))?;
    // Before anything is founded or joined, so that a taken port leaves nothing half-done.
    let listener = TcpListener::bind(cli.listen)
        .await
        .with_context(|| format!("cannot listen on {} (--listen)", cli.listen))?;
    let (identity, founding) = who_am_i(&cli, &name).await?;
    let tls = TlsIdentity::new(identity).context("cannot use the manager's certificate")?;
    let raft = consensus(&cli, &tls).await?;
    let (dispatch, report_queue) = Dispatch::new();
    let context = Context {
        node_id: raft.id(),
        raft: raft.clone(),
        clock: ClusterClock::start(),
        identity: tls.clone(),
        dispatch,
    };
    let scope = Arc::new(Scope::root("manager"));
    scope.spawn("reports", OnError::Shutdown, {
        let context = context.clone();
        async move {
            reports::run(context, report_queue).await;
        }
    });
    scope.spawn("router", OnError::Shutdown, {
        let context = context.clone();
        async move {
            router::run(context).await;
        }
    });
    scope.spawn("server", OnError::Shutdown, serve(context.clone(), listener, &tls, scope.token()));
    become_member(&cli, &name, &context, founding, &scope).await?;
    scope.spawn("leadership", OnError::Shutdown, {
        let (context, child) = (context.clone(), scope.child("roles"));
        async move {
            leader::run(context, child).await;
        }
    });
    scope.spawn_restarting(
        "renewal",
        Backoff::new(Duration::from_secs(5), Duration::from_secs(3600)),
        {
            let (context, data_dir) = (context.clone(), cli.data_dir.clone());
            move || renewal(context.clone(), data_dir.clone())
        },
    );
    tracing::info!(node_id = %context.node_id, name, address = %cli.advertised(), "manager ready");
    let result = tokio::select! {
        signal = signals.recv() => { tracing::info!(?signal, "stopping"); Ok(()) }
        failure = scope.failed() => Err(anyhow::anyhow!("{failure}")),
        reason = raft.failed() => Err(anyhow::anyhow!("{reason}")),
    };
    if let Err(stuck) = scope.drain(DRAIN).await {
        tracing::warn!(reason = %stuck, "some tasks were cut off");
    }
    raft.shutdown().await;
    drop(lock);
    result
}

fn name(cli: &Cli) -> anyhow::Result<String> {
    let name = match &cli.name {
        Some(name) => name.clone(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("cannot read the host name; give --name")?
            .trim()
            .to_owned(),
    };
    cluster_model::validate::name("name", &name)
        .map_err(|invalid| anyhow::anyhow!("--name: {invalid}"))?;
    Ok(name)
}

/// The identity in the data folder, or a new one: founded or given for a token.
async fn who_am_i(cli: &Cli, name: &str) -> anyhow::Result<(Identity, Option<Founding>)> {
    if let Some(founding) = founding::pending(&cli.data_dir)? {
        let identity = founding::credentials(&cli.data_dir, &founding)?;
        return Ok((identity, Some(founding)));
    }
    if Identity::path(&cli.data_dir).exists() {
        let identity = Identity::load(&cli.data_dir).with_context(|| {
            format!(
                "cannot use {}; restore it, or join again with an empty data folder",
                Identity::path(&cli.data_dir).display()
            )
        })?;
        if identity.role != Role::Manager {
            bail!("{} belongs to a {}, not to a manager", cli.data_dir.display(), identity.role);
        }
        // A crash while joining leaves a certificate alone, and joining goes on from there.
        if cli.join.is_empty() && !RaftNode::has_state(&raft_dir(&cli.data_dir))? {
            bail!(
                "{} holds a manager's certificate but no log: the folder is damaged; restore it, \
                 or join again with an empty one (--join, --token)",
                cli.data_dir.display()
            );
        }
        return Ok((identity, None));
    }
    if RaftNode::has_state(&raft_dir(&cli.data_dir))? {
        bail!(
            "{} holds a manager's log but no certificate: the folder is damaged; restore it, or \
             join again with an empty one",
            cli.data_dir.display()
        );
    }
    if cli.bootstrap {
        let founding = founding::begin(cli, name)?;
        let identity = founding::credentials(&cli.data_dir, &founding)?;
        return Ok((identity, Some(founding)));
    }
    if cli.join.is_empty() {
        bail!(
            "{} holds no cluster yet: give --bootstrap to start a new one, or --join IP:PORT and \
             --token to join one",
            cli.data_dir.display()
        );
    }
    Ok((join::certificate(cli, name).await?, None))
}

/// Log and snapshots, apart from the certificate.
fn raft_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("raft")
}

async fn consensus(cli: &Cli, tls: &TlsIdentity) -> anyhow::Result<RaftNode> {
    let identity = tls.identity();
    let node_id = identity.node_id.parse().context("the certificate names no node id")?;
    let cluster_id = identity.cluster_id.parse().context("the certificate names no cluster id")?;
    let config =
        RaftConfig::new(raft_dir(&cli.data_dir), cluster_id, node_id, cli.advertised().to_string());
    let client = TlsClient::manager(tls);
    // Consensus notices a dead peer by its own timers; the ping only frees the connection.
    let options = ChannelOptions { connect_timeout: Duration::from_secs(1), ..Default::default() };
    let connector = move |address: &str| Ok(connect_lazy(address, &client, &options)?);
    RaftNode::start(config, Arc::new(connector)).await.context("cannot start consensus")
}

fn serve(
    context: Context,
    listener: TcpListener,
    tls: &TlsIdentity,
    stop: tokio_util::sync::CancellationToken,
) -> impl Future<Output = anyhow::Result<()>> + use<> {
    let incoming = serve_tls(listener, TlsServer::new(tls, cluster_identity::Protocol::Grpc));
    let control = ControlServer::new(ControlService::new(context.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let dispatcher = DispatcherServer::new(DispatcherService { context: context.clone() })
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_PERIOD))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .layer(AccessLayer)
        .add_service(CaServer::new(CaService { context: context.clone() }))
        .add_service(control)
        .add_service(dispatcher)
        .add_service(PeerServer::new(PeerService { context: context.clone() }))
        .add_service(context.raft.service())
        .serve_with_incoming_shutdown(incoming, async move { stop.cancelled().await });
    async move { Ok(server.await?) }
}

/// Makes this manager a member of its group, if it is none yet.
async fn become_member(
    cli: &Cli,
    name: &str,
    context: &Context,
    founding: Option<Founding>,
    scope: &Scope,
) -> anyhow::Result<()> {
    if let Some(founding) = founding {
        let first = Command::Bootstrap(Box::new(founding.cluster));
        match context.raft.bootstrap(first).await {
            Ok(_) => tracing::info!(context = founding::ADMIN_CONTEXT, "cluster founded"),
            // The crash came after the first entry.
            Err(error) if is_already_founded(&error) => {}
            Err(error) => return Err(error).context("cannot found the cluster"),
        }
        return founding::finish(&cli.data_dir);
    }
    if is_member(context) {
        return Ok(());
    }
    if cli.join.is_empty() {
        // Perhaps its log is only behind: the leader will tell.
        tracing::info!("not a member as far as this manager knows; waiting for the leader");
        return Ok(());
    }
    let (node_id, advertise) = (context.node_id.to_string(), cli.advertised().to_string());
    let membership = join::membership(&cli.join, &context.identity, &node_id, name, &advertise);
    tokio::select! {
        result = membership => result,
        failure = scope.failed() => Err(anyhow::anyhow!("{failure}")),
        reason = context.raft.failed() => Err(anyhow::anyhow!("{reason}")),
    }
}

fn is_already_founded(error: &crate::raft::BootstrapError) -> bool {
    matches!(
        error,
        crate::raft::BootstrapError::FirstCommand(crate::raft::ProposeError::Refused(
            cluster_model::Refusal::AlreadyBootstrapped
        ))
    )
}

fn is_member(context: &Context) -> bool {
    let known = context.raft.view().state;
    known.cluster().is_some_and(|cluster| cluster.managers.contains_key(&context.node_id))
}

/// Renews this manager's certificate in time: any manager holds the CA.
async fn renewal(context: Context, data_dir: impl AsRef<Path>) -> anyhow::Result<()> {
    loop {
        let leaf = context.identity.leaf();
        let due = renew_at(leaf.not_before, leaf.not_after, rand::random::<f64>());
        // Slept in pieces, so that a suspended machine notices that time has passed.
        while now_unix() < due {
            let left = Duration::from_secs(due.saturating_sub(now_unix()).clamp(1, 3600));
            tokio::time::sleep(left).await;
        }
        let state = context.raft.view().state;
        let cluster = state.cluster().context("the cluster is not known yet")?;
        let ca = Ca::from_pem(&cluster.ca_certificate, &SecretPem::new(cluster.ca_key.expose()))?;
        let key = KeyAndCsr::generate()?;
        let subject = context.identity.identity().subject();
        let chain = ca.sign(key.csr_pem.as_bytes(), &subject, now_unix(), DEFAULT_VALIDITY)?;
        let identity = Identity::new(chain, key.key_pem, cluster.ca_certificate.clone())?;
        identity.store(data_dir.as_ref())?;
        context.identity.replace(identity)?;
        tracing::info!("renewed the manager's certificate");
    }
}
