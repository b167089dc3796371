//! A machine under test: a data folder and simulated parts that outlive the worker on it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_daemon::Scope;
use cluster_identity::{DEFAULT_VALIDITY, TlsIdentity};
use cluster_model::TaskId;
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::types::v1 as types;
use cluster_runtime::{ContainerId, Runtime, Script, SimulatedRuntime};
use cluster_worker::data_dir::DataDir;
use cluster_worker::describe;
use cluster_worker::member::Member;
use cluster_worker::node::Parts;
use cluster_worker::simulated::{self, SimulatedBalancers, SimulatedNetwork};
use cluster_worker::worker::{self, Setup};

use crate::manager::{Manager, SOON};

pub struct Site {
    pub dir: tempfile::TempDir,
    pub runtime: Arc<SimulatedRuntime>,
    pub balancers: Arc<SimulatedBalancers>,
    parts: Parts,
    pub tls: TlsIdentity,
    boot: u64,
}

/// A worker process on some machine; dropping the scope is its end.
pub async fn start(
    dir: &Path,
    tls: &TlsIdentity,
    boot: u64,
    managers: &[String],
    parts: Parts,
) -> Scope {
    let scope = Scope::root("worker");
    let address = "127.0.0.1".parse().unwrap();
    let runtime = "simulated";
    let setup = Setup {
        data: DataDir::new(dir),
        tls: tls.clone(),
        member: Member { name: "w".into(), boot, managers: Vec::new() },
        join: managers.to_vec(),
        description: describe::description(
            address,
            7101,
            boot,
            Default::default(),
            runtime,
            Vec::new(),
        ),
        allowed_binds: Vec::new(),
        parts,
    };
    worker::start(setup, &scope).await.unwrap();
    scope
}

impl Site {
    pub fn new(manager: &Manager) -> Self {
        Self::with_certificate(manager, Duration::ZERO, DEFAULT_VALIDITY)
    }

    /// With a certificate that was signed a while ago, to live for `validity`.
    pub fn with_certificate(manager: &Manager, ago: Duration, validity: Duration) -> Self {
        let runtime = Arc::new(SimulatedRuntime::new(Script::default()));
        let balancers = Arc::new(SimulatedBalancers::default());
        Self {
            dir: tempfile::tempdir().unwrap(),
            // Tests answer for the containers' ports.
            parts: simulated::parts_with(
                runtime.clone(),
                balancers.clone(),
                SimulatedNetwork::at(Ipv4Addr::LOCALHOST),
            ),
            runtime,
            balancers,
            tls: TlsIdentity::new(manager.identity_signed("00000000000w1", ago, validity)).unwrap(),
            boot: 0,
        }
    }

    /// A worker process; dropping the scope is its end.
    pub async fn start(&mut self, managers: &[String]) -> Scope {
        self.boot += 1;
        start(self.dir.path(), &self.tls, self.boot, managers, self.parts.clone()).await
    }

    pub async fn stop(&self, scope: Scope) {
        scope.drain(SOON).await.unwrap();
    }

    pub async fn containers(&self) -> Vec<String> {
        let all = self.runtime.list(&Default::default()).await.unwrap();
        all.into_iter().map(|container| container.id.to_string()).collect()
    }

    /// Until exactly these containers exist.
    pub async fn has(&self, expected: &[&str]) {
        let there = async {
            while self.containers().await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(SOON, there).await;
        assert!(found.is_ok(), "{:?} instead of {expected:?}", self.containers().await);
    }
}

pub fn id(task: u64) -> String {
    TaskId(task).to_string()
}

pub fn container(task: u64) -> ContainerId {
    ContainerId::new(id(task)).unwrap()
}

pub fn task(number: u64, desired: &str) -> pb::Assignment {
    pb::Assignment {
        task_id: id(number),
        service_id: id(900),
        service_name: "web".into(),
        slot: 1,
        revision: 1,
        desired_state: desired.into(),
        withdrawn: 0,
        spec: Some(types::TaskSpec {
            container: Some(types::ContainerSpec { image: "web:1".into(), ..Default::default() }),
            ..Default::default()
        }),
        target_ports: vec![80],
        ..Default::default()
    }
}
