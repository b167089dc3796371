//! A manager's life: find out who it is, start consensus, serve, stop.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cluster_daemon::{Backoff, DataDirLock, OnError, Scope, shutdown, systemd};
use cluster_identity::{ChannelOptions, Identity, Role, TlsClient, TlsIdentity, connect_lazy};
use cluster_model::Command;
use cluster_pb::peer::v1::JoinGroupRequest;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cli::Cli;
use crate::clock::ClusterClock;
use crate::context::Context;
use crate::dispatch::{Dispatch, reports, router};
use crate::founding::{self, Founding};
use crate::host::Host;
use crate::keys::KeyStore;
use crate::managers::{handover, schedule, standing};
use crate::raft::{RaftConfig, RaftNode};
use crate::{begun, certificates, enrolled, join, leader, recover, server, unlock};

/// How long what is under way may take to end after a stop signal.
const DRAIN: Duration = Duration::from_secs(3);
/// Between refusing new connections and asking the present ones to end: whoever has just connected
/// gets its request through.
const LINGER: Duration = Duration::from_millis(300);
const RESTART_MIN: Duration = Duration::from_secs(1);
const RESTART_MAX: Duration = Duration::from_secs(60);
/// What is wrong with a folder whose log is gone.
const LOST: &str = "holds a manager's certificate but no log: the folder is damaged; restore it, or \
                    join again with an empty one (--join, --token)";

/// Runs a manager until it is told to stop or cannot go on.
pub async fn run(cli: Cli, host: Host) -> anyhow::Result<()> {
    cli.check().map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let mut signals = shutdown::Signals::listen()?;
    let data_dir = cli.data_dir.clone();
    systemd::status("starting");
    let core = Arc::new(OnceLock::new());
    // A manager that waits for its key counts as ready, so it must be watched already.
    let _watchdog = AbortOnDropHandle::new(tokio::spawn(watchdog(core.clone())));
    // A locked manager may wait for its key for long.
    let mut manager = tokio::select! {
        started = Box::pin(Manager::start(cli, &host)) => started?,
        signal = signals.recv() => {
            tracing::info!(?signal, "stopping before the start was complete");
            systemd::stopping("stopping");
            return Ok(());
        }
    };
    core.get_or_init(|| manager.context.raft.clone());
    systemd::status("becoming a member");
    let early = tokio::select! {
        taken = Box::pin(manager.take_part()) => match taken {
            Ok(()) => None,
            Err(error) => return ended(error, &data_dir),
        },
        signal = signals.recv() => Some(signal),
    };
    if early.is_none() {
        systemd::ready("serving");
    }
    manager
        .until(async {
            let signal = match early {
                Some(signal) => signal,
                None => signals.recv().await,
            };
            systemd::stopping("stopping");
            signal
        })
        .await
}

/// Alive is a manager whose own threads run and whose consensus, once there is one, answers.
async fn watchdog(core: Arc<OnceLock<RaftNode>>) {
    systemd::watchdog(|| async {
        match core.get() {
            Some(raft) => raft.answers().await,
            None => true,
        }
    })
    .await;
}

/// The end of a manager that did not become a member: in order, if it was removed before.
fn ended(error: anyhow::Error, data_dir: &Path) -> anyhow::Result<()> {
    if error.downcast_ref::<join::Removed>().is_none() {
        return Err(error);
    }
    standing::mark(data_dir, &error.to_string());
    tracing::warn!(reason = %error, "this manager ends: its data folder is of no more use");
    Ok(())
}

/// A manager that serves; whoever holds it decides when it ends.
pub struct Manager {
    cli: Cli,
    name: String,
    founding: Option<Founding>,
    context: Context,
    /// This is the first start after a recovery.
    recovered: bool,
    /// Refuses new connections.
    closing: CancellationToken,
    keys: Arc<KeyStore>,
    scope: Arc<Scope>,
    _lock: DataDirLock,
}

impl Manager {
    /// Finds out who it is, starts consensus and serves. It is no member of its group yet.
    pub async fn start(cli: Cli, host: &Host) -> anyhow::Result<Self> {
        let name = name(&cli)?;
        let lock = DataDirLock::acquire(&cli.data_dir)
            .with_context(|| format!("cannot use {} (--data-dir)", cli.data_dir.display()))?;
        if recover::finish_swap(&cli.data_dir)? {
            tracing::warn!("finished a recovery that was interrupted");
        }
        // After the swap, which sets the mark of an older life aside.
        standing::check(&cli.data_dir)?;
        let recovery = recover::pending(&cli.data_dir)?;
        let recovered = recovery.is_some();
        // After a swap, which brings keys of its own.
        let keys = Arc::new(unlock::open(&cli).await?);
        // Before anything is founded or joined, so that a taken port leaves nothing half-done.
        let listener = host.net.listen(cli.listen);
        let listener = listener
            .await
            .with_context(|| format!("cannot listen on {} (--listen)", cli.listen))?;
        let (identity, founding) = who_am_i(&cli, &name, host, &keys).await?;
        keys.keep()?;
        let tls = TlsIdentity::new(identity).context("cannot use the manager's certificate")?;
        let tls = tls.over(&host.net);
        let raft = consensus(&cli, &tls, host, &keys).await?;
        // Now the log is there, and nobody was answered yet.
        begun::mark(&cli.data_dir).context("cannot mark the data folder")?;
        let (dispatch, report_queue) = Dispatch::new();
        let context = Context {
            node_id: raft.id(),
            raft,
            clock: ClusterClock::start(),
            identity: tls.clone(),
            dispatch,
            background: host.background(),
        };
        if let Some(recovery) = recovery {
            // Nobody is served before: the state still names the managers of old.
            recover::complete(&context, &cli.data_dir, recovery).await?;
        }
        certificates::rescue(&context, &keys).await?;
        // Before anybody is served: what follows the state comes later.
        certificates::deny_removed(&context.identity, &context.raft.view().state);
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
        let closing = CancellationToken::new();
        // It ends in its own way: what is asked already is still answered.
        scope.spawn_cooperative("server", OnError::Shutdown, |stop| {
            server::run(context.clone(), listener, &tls, closing.clone(), stop, host.users.clone())
        });
        Ok(Self { cli, name, founding, context, recovered, closing, keys, scope, _lock: lock })
    }

    /// What its parts share.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Makes it a member, if it is none yet, and lets it lead or follow.
    pub async fn take_part(&mut self) -> anyhow::Result<()> {
        let founding = self.founding.take();
        let Self { cli, name, context, keys, scope, recovered, .. } = &*self;
        let recovered = *recovered;
        if become_member(cli, name, context, founding, scope).await? {
            enrolled::mark(&cli.data_dir).context("cannot mark the data folder")?;
        }
        scope.spawn("leadership", OnError::Shutdown, {
            let (context, child) = (context.clone(), scope.child("roles"));
            async move {
                leader::run(context, child, recovered).await;
            }
        });
        let beside = cli.snapshot_dir.is_none();
        let snapshots = cli.snapshot_dir.clone().unwrap_or(cli.data_dir.join(schedule::FOLDER));
        scope.spawn_restarting("schedule", Backoff::new(RESTART_MIN, RESTART_MAX), {
            let context = context.clone();
            move || schedule::run(context.clone(), snapshots.clone(), beside)
        });
        scope.spawn_restarting(
            "certificates",
            Backoff::new(Duration::from_millis(500), Duration::from_secs(5)),
            {
                let (context, keys) = (context.clone(), keys.clone());
                let data_dir = cli.data_dir.clone();
                move || certificates::run(context.clone(), keys.clone(), data_dir.clone())
            },
        );
        let (node_id, address) = (context.node_id, cli.advertised());
        tracing::info!(%node_id, name, %address, "manager ready");
        Ok(())
    }

    /// Runs until `stop` says so or it cannot go on, and ends in order.
    pub async fn until(self, stop: impl Future<Output: std::fmt::Debug>) -> anyhow::Result<()> {
        let raft = &self.context.raft;
        let result = tokio::select! {
            signal = stop => {
                tracing::info!(?signal, "stopping");
                handover::before_stopping(&self.context).await;
                self.closing.cancel();
                tokio::time::sleep(LINGER).await;
                Ok(())
            }
            reason = standing::lost(self.context.clone(), &self.cli.data_dir) => {
                tracing::warn!(reason, "this manager ends: its data folder is of no more use");
                Ok(())
            }
            failure = self.scope.failed() => Err(anyhow::anyhow!("{failure}")),
            reason = raft.failed() => Err(anyhow::anyhow!("{reason}")),
        };
        if let Err(stuck) = self.scope.drain(DRAIN).await {
            tracing::warn!(reason = %stuck, "some tasks were cut off");
        }
        raft.shutdown().await;
        result
    }
}

/// The machine's name.
pub(crate) fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host name; give --name")?;
    Ok(name.to_string_lossy().trim().to_owned())
}

fn name(cli: &Cli) -> anyhow::Result<String> {
    let name = match &cli.name {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    cluster_model::validate::name("name", &name)
        .map_err(|invalid| anyhow::anyhow!("--name: {invalid}"))?;
    Ok(name)
}

/// The identity in the data folder, or a new one: founded or given for a token.
async fn who_am_i(
    cli: &Cli,
    name: &str,
    host: &Host,
    keys: &KeyStore,
) -> anyhow::Result<(Identity, Option<Founding>)> {
    let has_state = || RaftNode::has_state(&*host.disk, &raft_dir(&cli.data_dir));
    // A member that lost its log must not vote again as if it had never voted.
    let was_begun = begun::is_marked(&cli.data_dir)
        .with_context(|| format!("cannot look into {}", cli.data_dir.display()))?;
    if was_begun && !has_state()? {
        bail!("{} {LOST}", cli.data_dir.display());
    }
    if let Some(founding) = founding::pending(&cli.data_dir)? {
        let identity = founding::credentials(&cli.data_dir, &founding)?;
        return Ok((identity, Some(founding)));
    }
    if Identity::path(&cli.data_dir).exists() {
        // One that expired is no end: see `certificates::rescue`.
        let identity = keys.load_identity().with_context(|| {
            format!(
                "cannot use {}; restore it, or join again with an empty data folder",
                Identity::path(&cli.data_dir).display()
            )
        })?;
        if identity.role != Role::Manager {
            bail!("{} belongs to a {}, not to a manager", cli.data_dir.display(), identity.role);
        }
        // A crash while joining leaves a certificate alone, and joining goes on from there.
        if cli.join.is_empty() && !has_state()? {
            bail!("{} {LOST}", cli.data_dir.display());
        }
        return Ok((identity, None));
    }
    if has_state()? {
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
    Ok((join::certificate(cli, name, &host.net).await?, None))
}

/// Log and snapshots, apart from the certificate.
fn raft_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("raft")
}

async fn consensus(
    cli: &Cli,
    tls: &TlsIdentity,
    host: &Host,
    keys: &KeyStore,
) -> anyhow::Result<RaftNode> {
    let identity = tls.identity();
    let node_id = identity.node_id.parse().context("the certificate names no node id")?;
    let cluster_id = identity.cluster_id.parse().context("the certificate names no cluster id")?;
    let mut config =
        RaftConfig::new(raft_dir(&cli.data_dir), cluster_id, node_id, cli.advertised().to_string());
    config.keys = Some(keys.ring());
    let client = TlsClient::manager(tls);
    // Consensus notices a dead peer by its own timers; the ping only frees the connection.
    let options = ChannelOptions { connect_timeout: Duration::from_secs(1), ..Default::default() };
    let connector = move |address: &str| Ok(connect_lazy(address, &client, &options)?);
    RaftNode::start(host.adapted(config), Arc::new(connector))
        .await
        .context("cannot start consensus")
}

/// Makes this manager a member of its group, if it is none yet. False: only the leader can tell.
async fn become_member(
    cli: &Cli,
    name: &str,
    context: &Context,
    founding: Option<Founding>,
    scope: &Scope,
) -> anyhow::Result<bool> {
    if let Some(founding) = founding {
        let first = Command::Bootstrap(Box::new(founding.cluster));
        match context.raft.bootstrap(first).await {
            Ok(_) => tracing::info!(context = founding::ADMIN_CONTEXT, "cluster founded"),
            // The crash came after the first entry.
            Err(error) if is_already_founded(&error) => {}
            Err(error) => return Err(error).context("cannot found the cluster"),
        }
        founding::finish(&cli.data_dir)?;
        return Ok(true);
    }
    if is_member(context) {
        return Ok(true);
    }
    if cli.join.is_empty() {
        // Perhaps its log is only behind: the leader will tell.
        tracing::info!("not a member as far as this manager knows; waiting for the leader");
        return Ok(false);
    }
    let (node_id, advertise) = (context.node_id.to_string(), cli.advertised().to_string());
    let newcomer =
        JoinGroupRequest { node_id, name: name.to_owned(), address: advertise, spare: cli.spare };
    // Whom it was told to ask, and whom it learns of meanwhile: the first may be gone by then.
    let addresses = || {
        let others = context.raft.members().into_iter().filter(|m| m.id != context.node_id);
        cli.join.iter().cloned().chain(others.map(|member| member.address)).collect()
    };
    let membership = join::membership(addresses, &context.identity, &newcomer);
    let mut feed = context.raft.feed();
    tokio::select! {
        result = membership => result.map(|()| true),
        // The leader died after it had made this manager a member, and before it could say so.
        Ok(_) = feed.wait_for(|_| is_member(context)) => Ok(true),
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
