//! Workers, containers and clients for the mesh tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use cluster_identity::{Ca, Role, Subject, TlsIdentity, now_unix};
use cluster_network::mesh::{IdentityTls, Limits};
use cluster_network::{Backend, Endpoints, Mesh, MeshConfig, PublishedPort};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An address nobody else uses: all of 127.0.0.0/8 is loopback, and tests run
/// in several threads or several processes.
pub fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(10);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | high, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

pub struct World {
    pub ca: Ca,
    pub port: u16,
    pub workers: Vec<Worker>,
    version: u64,
}

pub struct Worker {
    pub node_id: String,
    pub addr: Ipv4Addr,
    pub mesh: Mesh,
}

/// A server that says its name, echoes, and says `bye` after the client's end.
pub struct Container {
    pub task_id: String,
    pub worker: usize,
    pub addr: SocketAddr,
    pub accepted: Arc<AtomicUsize>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

pub fn quick() -> Limits {
    Limits {
        connect_timeout: Duration::from_millis(500),
        reply_timeout: Duration::from_millis(700),
        backoff: Duration::from_millis(50),
        ping_every: Duration::from_millis(100),
        peer_timeout: Duration::from_millis(1000),
        ..Limits::default()
    }
}

impl World {
    pub async fn new(workers: usize) -> Self {
        Self::with_limits(workers, quick()).await
    }

    pub async fn with_limits(workers: usize, limits: Limits) -> Self {
        let ca = Ca::create("testcluster", now_unix()).unwrap();
        let mut world = World { ca, port: free_port(), workers: Vec::new(), version: 0 };
        for _ in 0..workers {
            world.add_worker(limits.clone()).await;
        }
        world
    }

    pub async fn add_worker(&mut self, limits: Limits) {
        let node_id = format!("node{}", self.workers.len());
        let addr = loopback();
        let mut config = MeshConfig::new(&node_id, SocketAddr::from((addr, 0)));
        config.publish_addr = IpAddr::V4(addr);
        config.limits = limits;
        let tls = Arc::new(IdentityTls::new(&self.identity(Role::Worker, &node_id)));
        let mesh = Mesh::start(config, tls).await.unwrap();
        self.workers.push(Worker { node_id, addr, mesh });
    }

    pub fn identity(&self, role: Role, node_id: &str) -> TlsIdentity {
        let subject = Subject {
            role,
            node_id: node_id.to_owned(),
            cluster_id: self.ca.cluster_id().to_owned(),
        };
        let day = Duration::from_secs(86400);
        TlsIdentity::new(self.ca.issue(&subject, now_unix(), day).unwrap()).unwrap()
    }

    pub async fn container(&self, worker: usize, task_id: &str) -> Container {
        let listener = TcpListener::bind((loopback(), 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(serve(listener, task_id.to_owned(), accepted.clone()));
        let IpAddr::V4(ip) = addr.ip() else { unreachable!("bound to IPv4") };
        self.workers[worker].mesh.set_local(task_id, ip);
        Container {
            task_id: task_id.to_owned(),
            worker,
            addr,
            accepted,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }

    pub fn backend(&self, container: &Container) -> Backend {
        let worker = &self.workers[container.worker];
        Backend {
            task_id: container.task_id.clone(),
            node_id: worker.node_id.clone(),
            node_mesh_addr: worker.mesh.mesh_addr(),
            target_port: container.addr.port(),
        }
    }

    pub fn snapshot(&mut self, backends: Vec<Backend>) -> Arc<Endpoints> {
        self.version += 1;
        Arc::new(Endpoints {
            version: self.version,
            ports: vec![PublishedPort {
                published: self.port,
                service_id: "service".to_owned(),
                service_name: "web".to_owned(),
                backends,
            }],
        })
    }

    /// Publishes the containers on every worker.
    pub async fn publish(&mut self, containers: &[&Container]) {
        let backends = containers.iter().map(|c| self.backend(c)).collect();
        let snapshot = self.snapshot(backends);
        for worker in &self.workers {
            worker.mesh.apply(snapshot.clone()).await;
        }
    }

    pub async fn connect(&self, worker: usize) -> TcpStream {
        let addr = (self.workers[worker].addr, self.port);
        TcpStream::connect(addr).await.unwrap()
    }

    /// Connects and reads the name of who answers.
    pub async fn ask(&self, worker: usize) -> std::io::Result<String> {
        Ok(self.open(worker).await?.1)
    }

    pub async fn open(&self, worker: usize) -> std::io::Result<(TcpStream, String)> {
        let mut stream = self.connect(worker).await;
        let mut name = Vec::new();
        loop {
            match within(stream.read_u8()).await? {
                b'\n' => break,
                byte => name.push(byte),
            }
        }
        Ok((stream, String::from_utf8(name).unwrap()))
    }
}

async fn serve(listener: TcpListener, name: String, accepted: Arc<AtomicUsize>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            return;
        };
        accepted.fetch_add(1, Ordering::SeqCst);
        let hello = format!("{name}\n");
        tokio::spawn(async move {
            stream.write_all(hello.as_bytes()).await?;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await?;
            stream.write_all(b"bye").await?;
            stream.shutdown().await
        });
    }
}

/// Below those the kernel gives to whoever asks for any: nobody can take it before it is opened, or
/// answer on it once it is closed. Addresses tell processes and workers apart.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Nothing here may hang.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), work).await.expect("took too long")
}

/// Waits until `condition` holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: did not happen");
}
