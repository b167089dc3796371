//! Which tasks answer on which published ports: what sessions hear becomes whole pictures, and one
//! loop, which outlives sessions, makes the balancers follow them.
//!
//! The last picture is kept on disk, so that published ports answer after a restart before any
//! manager can be reached; it is news that may be lost, so its write is not synced.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use cluster_network::{Backend, Endpoints, PublishedPort};
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::types::v1::PortSpec;
use tokio::sync::watch;

use crate::durable;
use crate::node::Balancers;

/// What one session has told so far.
#[derive(Debug, Default)]
pub struct Told {
    services: BTreeMap<String, Known>,
    /// A full picture was begun in this session.
    based: bool,
    /// Its last part has not come yet.
    partial: bool,
}

/// A service as the last message about it left it.
#[derive(Debug, Default)]
struct Known {
    name: String,
    ports: Vec<PortSpec>,
    /// By task.
    backends: BTreeMap<String, pb::Backend>,
}

#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("changes to endpoints came before a full picture")]
    NotFull,
    #[error("the endpoints of service {service} cannot be understood: {problem}")]
    Malformed { service: String, problem: String },
}

impl Told {
    /// Takes one message; the whole picture when it is complete.
    pub fn accept(&mut self, message: pb::Endpoints) -> Result<Option<Endpoints>, Refused> {
        if message.full && !self.partial {
            self.services.clear();
            self.based = true;
        } else if !self.based {
            return Err(Refused::NotFull);
        }
        self.partial = message.more;
        for service in message.services {
            let known = self.services.entry(service.service_id).or_default();
            if !service.delta {
                known.backends.clear();
            }
            (known.name, known.ports) = (service.service_name, service.ports);
            let named = service.backends.into_iter().map(|one| (one.task_id.clone(), one));
            known.backends.extend(named);
            for task in &service.gone {
                known.backends.remove(task);
            }
        }
        for gone in &message.gone {
            self.services.remove(gone);
        }
        if message.more {
            return Ok(None);
        }
        let mut ports = Vec::new();
        for (id, service) in &self.services {
            for port in &service.ports {
                ports.push(published(id, service, port)?);
            }
        }
        Ok(Some(Endpoints { version: message.version, ports }))
    }
}

fn published(id: &str, service: &Known, port: &PortSpec) -> Result<PublishedPort, Refused> {
    let malformed = |problem: String| Refused::Malformed { service: service.name.clone(), problem };
    let number =
        |value: u32| u16::try_from(value).map_err(|_| malformed(format!("{value} is not a port")));
    let target_port = number(port.target)?;
    let mut backends = Vec::with_capacity(service.backends.len());
    for backend in service.backends.values() {
        let ip: IpAddr = backend
            .address
            .parse()
            .map_err(|_| malformed(format!("{:?} is not an address", backend.address)))?;
        backends.push(Backend {
            task_id: backend.task_id.clone(),
            node_id: backend.node_id.clone(),
            node_mesh_addr: SocketAddr::new(ip, number(backend.mesh_port)?),
            target_port,
        });
    }
    Ok(PublishedPort {
        published: number(port.published)?,
        service_id: id.to_owned(),
        service_name: service.name.clone(),
        backends,
    })
}

/// Between sessions, which tell, and the loop, which follows.
pub struct Following {
    wanted: watch::Sender<Arc<Endpoints>>,
    /// Version that the balancers follow.
    followed: watch::Sender<u64>,
}

impl Default for Following {
    fn default() -> Self {
        Self { wanted: watch::Sender::new(Arc::default()), followed: watch::Sender::new(0) }
    }
}

impl Following {
    /// Asks the balancers to follow; an older picture than the present one is ignored.
    pub fn want(&self, endpoints: Endpoints) {
        self.wanted.send_if_modified(|wanted| {
            let newer = endpoints.version >= wanted.version;
            if newer {
                *wanted = Arc::new(endpoints);
            }
            newer
        });
    }

    pub fn followed(&self) -> watch::Receiver<u64> {
        self.followed.subscribe()
    }

    /// Follows for ever; `path` keeps the last picture.
    pub async fn run(&self, balancers: Arc<dyn Balancers>, path: PathBuf) {
        let mut wanted = self.wanted.subscribe();
        if let Some(kept) = load(&path) {
            self.want(kept);
        }
        let mut written = wanted.borrow().ports.clone();
        loop {
            let endpoints = wanted.borrow_and_update().clone();
            if endpoints.version > 0 {
                let version = balancers.apply(endpoints.clone()).await;
                self.followed.send_if_modified(|followed| {
                    let newer = version > *followed;
                    *followed = version.max(*followed);
                    newer
                });
                // A bare step of the version is not worth a write: an older version of the same
                // picture is as good after a restart.
                if endpoints.ports != written {
                    written.clone_from(&endpoints.ports);
                    save(path.clone(), endpoints).await;
                }
            }
            if wanted.changed().await.is_err() {
                return;
            }
        }
    }
}

pub(crate) fn load(path: &std::path::Path) -> Option<Endpoints> {
    let bytes = durable::read(path).ok().flatten()?;
    match serde_json::from_slice(&bytes) {
        Ok(endpoints) => Some(endpoints),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the kept endpoints are damaged");
            None
        }
    }
}

/// As `load` reads it.
pub(crate) fn encode(endpoints: &Endpoints) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(endpoints)
}

async fn save(path: PathBuf, endpoints: Arc<Endpoints>) {
    let written = cluster_daemon::blocking(move || {
        let bytes = encode(&endpoints).map_err(|error| error.to_string())?;
        durable::replace_unsynced(&path, &bytes).map_err(|error| cluster_daemon::chain(&error))
    });
    if let Ok(Err(error)) = written.await {
        tracing::warn!(%error, "endpoints could not be kept for the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(id: &str, backends: usize) -> pb::ServiceEndpoints {
        let backend = |n: usize| pb::Backend {
            task_id: format!("t{n}"),
            node_id: "n".into(),
            address: "10.0.0.1".into(),
            mesh_port: 7101,
        };
        pb::ServiceEndpoints {
            service_id: id.into(),
            service_name: id.into(),
            ports: vec![PortSpec { published: 80, target: 8080, host: false }],
            backends: (0..backends).map(backend).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn parts_and_changes_make_whole_pictures() {
        let mut told = Told::default();
        let early = pb::Endpoints { version: 1, ..Default::default() };
        assert!(matches!(told.accept(early), Err(Refused::NotFull)));
        let first = pb::Endpoints {
            version: 2,
            full: true,
            more: true,
            services: vec![service("a", 1)],
            ..Default::default()
        };
        assert_eq!(told.accept(first).unwrap(), None);
        let last = pb::Endpoints {
            version: 2,
            full: true,
            services: vec![service("b", 2)],
            ..Default::default()
        };
        let whole = told.accept(last).unwrap().unwrap();
        assert_eq!((whole.version, whole.ports.len()), (2, 2));
        let change = pb::Endpoints { version: 3, gone: vec!["a".into()], ..Default::default() };
        let whole = told.accept(change).unwrap().unwrap();
        assert_eq!(whole.ports.len(), 1);
        assert_eq!(whole.ports[0].backends[1].node_mesh_addr.to_string(), "10.0.0.1:7101");
        assert_eq!(whole.ports[0].backends[0].target_port, 8080);
    }

    #[test]
    fn a_change_of_a_service_leaves_its_other_backends() {
        let mut told = Told::default();
        let message = |version, service| pb::Endpoints {
            version,
            full: version == 1,
            services: vec![service],
            ..Default::default()
        };
        let tasks = |told: &mut Told, message| -> Vec<String> {
            let whole = told.accept(message).unwrap().unwrap();
            whole.ports[0].backends.iter().map(|backend| backend.task_id.clone()).collect()
        };
        assert_eq!(tasks(&mut told, message(1, service("a", 2))), ["t0", "t1"]);
        let mut change = service("a", 0);
        change.delta = true;
        change.gone = vec!["t0".into()];
        change.backends =
            vec![pb::Backend { task_id: "t7".into(), ..service("a", 1).backends[0].clone() }];
        assert_eq!(tasks(&mut told, message(2, change.clone())), ["t1", "t7"]);
        // Again is as good as once.
        assert_eq!(tasks(&mut told, message(3, change)), ["t1", "t7"]);
        assert_eq!(tasks(&mut told, message(4, service("a", 1))), ["t0"]);
    }

    #[test]
    fn an_older_picture_is_not_followed() {
        let following = Following::default();
        let mut wanted = following.wanted.subscribe();
        following.want(Endpoints { version: 5, ports: vec![] });
        wanted.borrow_and_update();
        following.want(Endpoints { version: 4, ports: vec![] });
        assert!(!wanted.has_changed().unwrap());
        following.want(Endpoints { version: 5, ports: vec![] });
        assert_eq!(wanted.borrow_and_update().version, 5);
    }
}
