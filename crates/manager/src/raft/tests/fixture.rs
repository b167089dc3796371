//! Managers on loopback, each with a server and a folder, that can be killed and started again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_model::{ClusterId, Command, NodeId, State};
use openraft::Membership;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tonic::transport::{Endpoint, Server};

use crate::raft::types::{CommittedLeaderId, LogId, Node, SnapshotMeta, StoredMembership};
use crate::raft::{Connector, RaftConfig, RaftNode, codec};

pub(crate) const CLUSTER: ClusterId = ClusterId(77);

/// A write that can be found again.
pub(crate) fn write(number: u64) -> Command {
    Command::RegisterNode { id: NodeId(number), name: format!("n{number}"), at_ms: number }
}

pub(crate) fn bootstrap() -> Command {
    Command::Bootstrap(Box::new(cluster_model::testing::cluster(CLUSTER.0)))
}

pub(crate) fn big_state(nodes: u64) -> State {
    let mut state = State::default();
    for number in 1..=nodes {
        cluster_model::apply(&mut state, number, &write(number)).reply.unwrap();
    }
    state
}

pub(crate) fn meta_at(term: u64, index: u64) -> SnapshotMeta {
    let id = LogId { leader_id: CommittedLeaderId::new(term), index };
    let members =
        Membership::new(vec![[1].into()], BTreeMap::from([(1, Node::new("a:1"))])).unwrap();
    SnapshotMeta {
        last_log_id: Some(id),
        last_membership: StoredMembership::new(Some(id), members),
    }
}

/// The state as bytes, for comparison.
pub(crate) fn fingerprint(state: &State) -> u32 {
    crc32fast::hash(&codec::encode(state).unwrap())
}

pub(crate) fn connector() -> Connector {
    Arc::new(|address| {
        Ok(Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(Duration::from_millis(500))
            .tcp_nodelay(true)
            .connect_lazy())
    })
}

/// A manager, running or not.
pub(crate) struct Manager {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) config: RaftConfig,
    running: Option<(RaftNode, Runtime)>,
}

impl Manager {
    pub(crate) fn node(&self) -> &RaftNode {
        &self.running.as_ref().unwrap().0
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) async fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (config, address) = (self.config.clone(), self.address);
        let starting = runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            let node = RaftNode::start(config, connector()).await.unwrap();
            let serving = Server::builder().add_service(node.service());
            tokio::spawn(
                serving.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)),
            );
            node
        });
        self.running = Some((starting.await.unwrap(), runtime));
    }

    /// Ends everything at once, without a word to anyone.
    pub(crate) async fn kill(&mut self) {
        let (node, runtime) = self.running.take().unwrap();
        let ending = move || runtime.shutdown_timeout(Duration::from_secs(5));
        tokio::task::spawn_blocking(ending).await.unwrap();
        node.stop().await;
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some((_, runtime)) = self.running.take() {
            runtime.shutdown_background();
        }
    }
}

/// Some managers and their folder.
pub(crate) struct Group {
    pub(crate) managers: Vec<Manager>,
    pub(crate) dir: TempDir,
}

impl Group {
    /// Managers that run and know nothing of each other.
    pub(crate) async fn strangers(count: u64, change: impl Fn(&mut RaftConfig)) -> Self {
        let dir = TempDir::new().unwrap();
        let mut managers = Vec::new();
        for id in 1..=count {
            // Kept free for the manager by asking for it again at once; nothing else here binds.
            let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            let home: PathBuf = dir.path().join(id.to_string());
            let mut config = RaftConfig::new(home, CLUSTER, NodeId(id), address.to_string());
            change(&mut config);
            let mut manager = Manager { id: NodeId(id), address, config, running: None };
            manager.start().await;
            managers.push(manager);
        }
        Self { managers, dir }
    }

    /// A group of voters.
    pub(crate) async fn start(count: u64, change: impl Fn(&mut RaftConfig)) -> Self {
        let group = Self::strangers(count, change).await;
        let first = group.managers[0].node();
        first.bootstrap(bootstrap()).await.unwrap();
        for manager in &group.managers[1..] {
            first.add_manager(manager.id, &manager.address.to_string(), false).await.unwrap();
        }
        group
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Manager> {
        self.managers.iter().filter(|manager| manager.is_running())
    }

    /// Index of the manager that leads and may plan.
    pub(crate) async fn leader(&self) -> usize {
        let found = within(Duration::from_secs(20), || {
            self.managers.iter().position(|manager| {
                manager.is_running()
                    && manager.node().leadership().borrow().this_node_leads_and_caught_up
            })
        });
        found.await.expect("no leader")
    }

    /// Waits until all running managers stand at `index`, and checks that they agree.
    pub(crate) async fn agree_at(&self, index: u64) {
        let agreed = within(Duration::from_secs(20), || {
            let views: Vec<_> = self.running().map(|manager| manager.node().view()).collect();
            let level = views.iter().all(|view| view.applied_index >= index)
                && views.iter().all(|view| view.applied_index == views[0].applied_index);
            level.then(|| views.iter().map(|view| fingerprint(&view.state)).collect::<Vec<_>>())
        });
        let prints = agreed.await.expect("the managers did not come level");
        assert!(
            prints.iter().all(|print| *print == prints[0]),
            "equal index, different states: {prints:?}"
        );
    }
}

/// Asks again and again until there is an answer or time is up.
pub(crate) async fn within<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
