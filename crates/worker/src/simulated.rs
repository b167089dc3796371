//! A machine that only pretends, for tests and for thousands of workers in one process: every image
//! is here, networks are numbers, balancers follow at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cluster_image::{Image, ImageConfig, Progress, Reference};
use cluster_network::Endpoints;
use cluster_runtime::Runtime;
use tokio::sync::watch;

use crate::node::{Attached, Balancers, Images, Network, NetworkError, Parts};

/// Parts around a runtime, usually a simulated one.
pub fn parts(runtime: Arc<dyn Runtime>, balancers: Arc<SimulatedBalancers>) -> Parts {
    Parts {
        runtime,
        images: Arc::new(SimulatedImages),
        network: Arc::new(SimulatedNetwork::default()),
        balancers,
    }
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

/// Addresses in the order of asking.
#[derive(Default)]
pub struct SimulatedNetwork {
    attached: Mutex<HashMap<String, Attached>>,
}

#[async_trait]
impl Network for SimulatedNetwork {
    async fn attach(&self, id: &str) -> Result<Attached, NetworkError> {
        let mut attached = lock(&self.attached);
        let number = u32::try_from(attached.len()).unwrap_or(0) + 2;
        let fresh = || Attached {
            netns: None,
            ip: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 88, 0, 0)) + number),
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
}

impl SimulatedBalancers {
    pub fn followed(&self) -> Arc<Endpoints> {
        lock(&self.followed).clone()
    }

    pub fn local(&self) -> BTreeMap<String, Ipv4Addr> {
        lock(&self.local).clone()
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

    async fn drained(&self, _task: &str) {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
