//! The real machine behind the seams of [`crate::node`]: image store, bridge, routing mesh.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use cluster_daemon::chain;
use cluster_image::{Image, ImageStore, Progress, PullPolicy, Reference, RegistryOptions};
use cluster_network::mesh::{HostPort, HostPortError, Mesh};
use cluster_network::{Attachment, Bridge, Endpoints};
use tokio::sync::watch;

use crate::node::{Attached, Balancers, Images, Network, NetworkError};

/// The image store and how registries are reached.
pub struct StoredImages {
    pub store: ImageStore,
    pub registries: RegistryOptions,
}

#[async_trait]
impl Images for StoredImages {
    async fn ensure(
        &self,
        reference: &Reference,
        progress: watch::Sender<Progress>,
    ) -> Result<Image, cluster_image::Error> {
        self.store
            .ensure(reference, PullPolicy::Missing, &self.registries, None, Some(progress))
            .await
    }
}

/// Containers on this machine's bridge.
pub struct Bridged(pub Bridge);

#[async_trait]
impl Network for Bridged {
    async fn attach(&self, id: &str) -> Result<Attached, NetworkError> {
        self.0.attach(id).await.map(attached).map_err(|error| NetworkError(chain(&error)))
    }

    async fn detach(&self, id: &str) -> Result<(), NetworkError> {
        self.0.detach(id).await.map_err(|error| NetworkError(chain(&error)))
    }

    async fn recover(
        &self,
        live: &HashSet<String>,
    ) -> Result<HashMap<String, Attached>, NetworkError> {
        let kept = self.0.recover(live).await.map_err(|error| NetworkError(chain(&error)))?;
        Ok(kept.into_iter().map(|(id, attachment)| (id, attached(attachment))).collect())
    }
}

fn attached(attachment: Attachment) -> Attached {
    Attached { netns: Some(attachment.netns), ip: attachment.ip }
}

/// The routing mesh.
pub struct Meshed(pub Mesh);

#[async_trait]
impl Balancers for Meshed {
    async fn apply(&self, endpoints: Arc<Endpoints>) -> u64 {
        self.0.apply(endpoints).await
    }

    fn set_local(&self, task: &str, ip: Ipv4Addr) {
        self.0.set_local(task, ip);
    }

    fn remove_local(&self, task: &str) {
        self.0.remove_local(task);
    }

    async fn open_host(
        &self,
        task: &str,
        ports: &[HostPort],
        insist: bool,
    ) -> Result<(), HostPortError> {
        self.0.open_host(task, ports, insist).await
    }

    async fn close_host(&self, task: &str) {
        self.0.close_host(task).await;
    }

    async fn leave(&self) {
        self.0.leave().await;
    }

    fn node_gone(&self, node: &str) {
        self.0.node_gone(node);
    }

    async fn drained(&self, task: &str) {
        self.0.drained(task).await;
    }
}
