//! A machine that only pretends, for tests and for thousands of workers in one process: every image
//! is here, networks are numbers, balancers follow at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cluster_image::{Image, ImageConfig, Progress, Reference};
use cluster_network::Endpoints;
use cluster_network::mesh::{HostPort, HostPortError};
use cluster_runtime::Runtime;
use tokio::sync::watch;

use crate::node::{Attached, Balancers, Images, Network, NetworkError, Parts};

/// Parts around a runtime, usually a simulated one.
pub fn parts(runtime: Arc<dyn Runtime>, balancers: Arc<SimulatedBalancers>) -> Parts {
    parts_with(runtime, balancers, SimulatedNetwork::default())
}

/// The same with a network of one's own.
pub fn parts_with(
    runtime: Arc<dyn Runtime>,
    balancers: Arc<SimulatedBalancers>,
    network: SimulatedNetwork,
) -> Parts {
    Parts { runtime, images: Arc::new(SimulatedImages), network: Arc::new(network), balancers }
}

/// Has every image except those of the registry `missing.invalid`.
pub struct SimulatedImages;

#[async_trait]
impl Images for SimulatedImages {
    async fn ensure(
        &self,
        reference: &Reference,
        _progress: watch::Sender<Progress>,
    ) -> Result<Image, cluster_image::Error> {
        if reference.registry() == "missing.invalid" {
            return Err(cluster_image::Error::NotFound { reference: reference.to_string() });
        }
        let config = ImageConfig { cmd: vec!["run".into()], ..ImageConfig::default() };
        let mut image = Image::detached(reference.clone(), config);
        image.layers = vec![PathBuf::from("/nothing")];
        Ok(image)
    }
}

/// Addresses in the order of asking, or one address for all.
#[derive(Default)]
pub struct SimulatedNetwork {
    everywhere: Option<Ipv4Addr>,
    attached: Mutex<HashMap<String, Attached>>,
}

impl SimulatedNetwork {
    /// All containers at one address, where a test may answer for them.
    pub fn at(ip: Ipv4Addr) -> Self {
        Self { everywhere: Some(ip), ..Self::default() }
    }
}

#[async_trait]
impl Network for SimulatedNetwork {
    async fn attach(&self, id: &str) -> Result<Attached, NetworkError> {
        let mut attached = lock(&self.attached);
        let number = u32::try_from(attached.len()).unwrap_or(0) + 2;
        let fresh = || Attached {
            netns: None,
            ip: self
                .everywhere
                .unwrap_or(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 88, 0, 0)) + number)),
        };
        Ok(attached.entry(id.to_owned()).or_insert_with(fresh).clone())
    }

    async fn detach(&self, id: &str) -> Result<(), NetworkError> {
        lock(&self.attached).remove(id);
        Ok(())
    }

    async fn recover(
        &self,
        live: &HashSet<String>,
    ) -> Result<HashMap<String, Attached>, NetworkError> {
        let mut attached = lock(&self.attached);
        attached.retain(|id, _| live.contains(id));
        Ok(attached.clone())
    }
}

/// Remembers what it was told.
#[derive(Default)]
pub struct SimulatedBalancers {
    followed: Mutex<Arc<Endpoints>>,
    local: Mutex<BTreeMap<String, Ipv4Addr>>,
    host: Mutex<BTreeMap<String, Vec<HostPort>>>,
    /// Tasks to which connections are open.
    busy: watch::Sender<HashSet<String>>,
}

impl SimulatedBalancers {
    pub fn followed(&self) -> Arc<Endpoints> {
        lock(&self.followed).clone()
    }

    pub fn local(&self) -> BTreeMap<String, Ipv4Addr> {
        lock(&self.local).clone()
    }

    /// Ports of the machine that are open, by task.
    pub fn host(&self) -> BTreeMap<String, Vec<HostPort>> {
        lock(&self.host).clone()
    }

    /// Pretends that a connection to the task is open, or that all have ended.
    pub fn set_busy(&self, task: &str, busy: bool) {
        self.busy.send_modify(|tasks| {
            match busy {
                true => tasks.insert(task.to_owned()),
                false => tasks.remove(task),
            };
        });
    }
}

#[async_trait]
impl Balancers for SimulatedBalancers {
    async fn apply(&self, endpoints: Arc<Endpoints>) -> u64 {
        let mut followed = lock(&self.followed);
        if endpoints.version >= followed.version {
            *followed = endpoints;
        }
        followed.version
    }

    fn set_local(&self, task: &str, ip: Ipv4Addr) {
        lock(&self.local).insert(task.to_owned(), ip);
    }

    fn remove_local(&self, task: &str) {
        lock(&self.local).remove(task);
    }

    async fn open_host(
        &self,
        task: &str,
        ports: &[HostPort],
        insist: bool,
    ) -> Result<(), HostPortError> {
        let mut host = lock(&self.host);
        let mut open = host.iter().filter(|(other, _)| *other != task).flat_map(|(_, open)| open);
        let taken = open.find(|open| ports.iter().any(|port| port.published == open.published));
        match taken.filter(|_| !insist) {
            Some(taken) => {
                Err(HostPortError { port: taken.published, reason: "it is in use".to_owned() })
            }
            None => {
                host.insert(task.to_owned(), ports.to_vec());
                Ok(())
            }
        }
    }

    async fn close_host(&self, task: &str) {
        lock(&self.host).remove(task);
    }

    async fn drained(&self, task: &str) {
        // Never closed.
        let _ = self.busy.subscribe().wait_for(|busy| !busy.contains(task)).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
