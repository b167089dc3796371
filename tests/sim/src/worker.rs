//! A simulated machine with a worker on it. Its containers live beside the program, as real ones
//! do: killing the worker leaves them alone, losing power ends them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cluster_daemon::Scope;
use cluster_identity::net::Net;
use cluster_identity::{Identity, TlsIdentity};
use cluster_image::{Image, ImageConfig, Progress, Reference};
use cluster_model::NodeDescription;
use cluster_model::spec::Resources;
use cluster_runtime::{ContainerId, Observed, Runtime, Script, SimulatedRuntime};
use cluster_worker::assignments::{Stamp, store};
use cluster_worker::data_dir::DataDir;
use cluster_worker::join;
use cluster_worker::member::Member;
use cluster_worker::node::{Images, Parts};
use cluster_worker::simulated::{self, SimulatedBalancers};
use cluster_worker::worker::{self, Setup};
use futures::FutureExt as _;
use tokio::sync::watch;

use crate::host::{Ended, Host};
use crate::net::{Wires, address};

/// What each worker has.
pub const CAPACITY: Resources = Resources { cpu_nanos: 4_000_000_000, memory_bytes: 1 << 30 };

/// How pulling an image goes at present.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registry {
    pub delay: Duration,
    pub fails: bool,
}

pub struct WorkerHost {
    pub number: usize,
    pub host: Host,
    pub runtime: Arc<SimulatedRuntime>,
    pub registry: Arc<Mutex<Registry>>,
    parts: Parts,
    dir: PathBuf,
    net: Net,
    managers: Vec<String>,
    token: String,
}

impl WorkerHost {
    pub fn new(number: usize, wires: &Wires, dir: PathBuf) -> Self {
        let runtime = Arc::new(SimulatedRuntime::new(Script::default()));
        let registry = Arc::<Mutex<Registry>>::default();
        let balancers = Arc::new(SimulatedBalancers::default());
        let parts = Parts {
            images: Arc::new(Pulled { registry: registry.clone() }),
            ..simulated::parts(runtime.clone(), balancers)
        };
        Self {
            number,
            host: Host::default(),
            runtime,
            registry,
            parts,
            dir,
            net: Net::over(wires.of(number)),
            managers: Vec::new(),
            token: String::new(),
        }
    }

    pub fn join_with(&mut self, managers: Vec<String>, token: String) {
        self.managers = managers;
        self.token = token;
    }

    pub fn name(&self) -> String {
        format!("worker-{}", self.number)
    }

    pub fn start(&mut self, now: u64) -> anyhow::Result<()> {
        let program = Program {
            dir: self.dir.clone(),
            net: self.net.clone(),
            managers: self.managers.clone(),
            token: self.token.clone(),
            name: self.name(),
            address: address(self.number).to_string(),
            parts: self.parts.clone(),
        };
        self.host.start(now, program.run())
    }

    /// When in history the assignments were computed that the worker has written down.
    pub fn stamp(&self) -> Option<Stamp> {
        let table = store::load(&DataDir::new(&self.dir).assignments()).ok()?;
        Some(table.stamp)
    }

    /// All containers there are, running or not.
    pub fn containers(&self) -> Vec<Observed> {
        let listing = self.runtime.list(&BTreeMap::new()).now_or_never();
        listing.and_then(Result::ok).unwrap_or_default()
    }

    pub fn script(&self, script: Script) {
        self.runtime.set_script(script);
    }

    /// Ends one container as if by itself.
    pub fn end(&self, id: &ContainerId, code: u8) -> bool {
        self.runtime.end(id, Some(code), None)
    }

    /// What a loss of power does to the containers.
    pub fn end_all(&self) {
        for container in self.containers() {
            self.runtime.end(&container.id, None, Some(9));
        }
    }
}

struct Program {
    dir: PathBuf,
    net: Net,
    managers: Vec<String>,
    token: String,
    name: String,
    address: String,
    parts: Parts,
}

impl Program {
    async fn run(self) -> Ended {
        let data = DataDir::new(&self.dir);
        let (identity, member) = self.membership(&data).await?;
        let scope = Scope::root("worker");
        let setup = Setup {
            data,
            tls: TlsIdentity::new(identity)?.over(&self.net),
            description: self.description(member.boot),
            member,
            join: self.managers,
            allowed_binds: Vec::new(),
            parts: self.parts,
        };
        worker::start(setup, &scope).await?;
        Err(scope.failed().await.into())
    }

    /// As `cluster-worker` does it: the kept identity, or a first join.
    async fn membership(&self, data: &DataDir) -> anyhow::Result<(Identity, Member)> {
        let token = join::token(&self.token)?;
        let mut member = Member::load(data)?;
        let identity = match join::kept(data.root(), Some(&token))? {
            Some(identity) => identity,
            None => {
                let patience = Duration::from_secs(60);
                let joined =
                    join::join(&self.managers, &token, &self.name, patience, &self.net).await?;
                let first = Member { name: self.name.clone(), boot: 0, managers: Vec::new() };
                first.store(data)?;
                joined.0.store(data.root())?;
                member = Some(first);
                joined.0
            }
        };
        let first = || Member { name: self.name.clone(), boot: 0, managers: Vec::new() };
        let mut member = member.unwrap_or_else(first);
        member.boot += 1;
        member.store(data)?;
        Ok((identity, member))
    }

    fn description(&self, boot: u64) -> NodeDescription {
        NodeDescription {
            address: self.address.clone(),
            mesh_port: 7101,
            os: "linux".into(),
            arch: "amd64".into(),
            boot,
            capacity: CAPACITY,
            labels: BTreeMap::new(),
            agent_version: "simulated".into(),
            runtime: "simulated".into(),
            notices: Vec::new(),
            healthy: true,
            generic: BTreeMap::new(),
        }
    }
}

/// Images that come from a registry with its own troubles.
struct Pulled {
    registry: Arc<Mutex<Registry>>,
}

#[async_trait]
impl Images for Pulled {
    async fn ensure(
        &self,
        reference: &Reference,
        _progress: watch::Sender<Progress>,
    ) -> Result<Image, cluster_image::Error> {
        let registry = *self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if !registry.delay.is_zero() {
            tokio::time::sleep(registry.delay).await;
        }
        if registry.fails {
            return Err(cluster_image::Error::RegistryUnreachable {
                reference: reference.to_string(),
                registry: reference.registry().to_owned(),
                reason: "the simulation says so".into(),
                source: None,
            });
        }
        let config = ImageConfig { cmd: vec!["serve".into()], ..ImageConfig::default() };
        let mut image = Image::detached(reference.clone(), config);
        image.layers = vec![PathBuf::from("/nothing")];
        Ok(image)
    }
}
