//! A real machine under test: containers of the embedded runtime, a bridge, the mesh, in a network
//! and mount namespace of one thread. Needs root and the Debian package busybox-static.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cluster_daemon::Scope;
use cluster_identity::{DEFAULT_VALIDITY, TlsIdentity};
use cluster_image::{Healthcheck, Image, ImageConfig, Progress, Reference};
use cluster_network::mesh::{IdentityTls, Mesh, MeshConfig};
use cluster_network::{Bridge, BridgeConfig};
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::types::v1 as types;
use cluster_runtime::contract::{Bench, EmbeddedBench};
use cluster_runtime::{Backend, ExecSpec, Runtime};
use cluster_worker::host::{Bridged, Meshed};
use cluster_worker::node::{Images, Parts};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::watch;

use crate::manager::{Manager, SOON};
use crate::site::{self, container};

const SHIM: &str = env!("CARGO_BIN_EXE_cluster-worker-shim");

pub struct Machine {
    pub manager: Manager,
    pub runtime: Arc<dyn Runtime>,
    pub image: Arc<BusyboxImages>,
    bench: Arc<EmbeddedBench>,
    dir: tempfile::TempDir,
    parts: Parts,
    tls: TlsIdentity,
    boot: u64,
}

/// Every name is busybox.
pub struct BusyboxImages {
    layers: Vec<PathBuf>,
    pub healthcheck: Mutex<Option<Healthcheck>>,
}

#[async_trait]
impl Images for BusyboxImages {
    async fn ensure(
        &self,
        reference: &Reference,
        _progress: watch::Sender<Progress>,
    ) -> Result<Image, cluster_image::Error> {
        let healthcheck = self.healthcheck.lock().unwrap().clone();
        let mut image =
            Image::detached(reference.clone(), ImageConfig { healthcheck, ..Default::default() });
        image.layers.clone_from(&self.layers);
        Ok(image)
    }
}

/// Runs `test` on a fresh machine, which is gone afterwards.
pub fn on_a_machine<F>(test: impl FnOnce(Machine) -> F + Send + 'static)
where
    F: Future<Output = Machine>,
{
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let done = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let (none, flags) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, flags, none).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let machine = Machine::new().await;
            // Also when the test fails.
            let bench = machine.bench.clone();
            let outcome = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(
                tokio::time::timeout(Duration::from_secs(100), test(machine)),
            ));
            let outcome = outcome.await;
            bench.clear().await;
            match outcome {
                Ok(ended) => drop(ended.expect("the test takes too long")),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
    });
    if let Err(panic) = done.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Machine {
    async fn new() -> Self {
        let manager = Manager::start().await;
        let dir = tempfile::tempdir().unwrap();
        let bench = Arc::new(EmbeddedBench::prepare(SHIM, Backend::default()));
        let runtime = bench.reopen();
        let image =
            Arc::new(BusyboxImages { layers: bench.image().layers, healthcheck: Mutex::default() });
        let bridge = Bridge::ensure(BridgeConfig::new(dir.path().join("netns"))).await.unwrap();
        let id = "00000000000w1";
        let tls = TlsIdentity::new(manager.identity_signed(id, Duration::ZERO, DEFAULT_VALIDITY))
            .unwrap();
        let config = MeshConfig::new(id, "127.0.0.1:0".parse().unwrap());
        let mesh = Mesh::start(config, Arc::new(IdentityTls::new(&tls))).await.unwrap();
        let parts = Parts {
            runtime: runtime.clone(),
            images: image.clone(),
            network: Arc::new(Bridged(bridge)),
            balancers: Arc::new(Meshed(mesh)),
        };
        Self { manager, runtime, image, bench, dir, parts, tls, boot: 0 }
    }

    pub async fn start(&mut self) -> Scope {
        self.boot += 1;
        let managers = [self.manager.address()];
        site::start(self.dir.path(), &self.tls, self.boot, &managers, self.parts.clone()).await
    }

    /// With no manager to be found.
    pub async fn start_alone(&mut self) -> Scope {
        self.boot += 1;
        let managers = ["127.0.0.1:9".to_owned()];
        site::start(self.dir.path(), &self.tls, self.boot, &managers, self.parts.clone()).await
    }

    pub async fn stop(&self, scope: Scope) {
        scope.drain(SOON).await.unwrap();
    }

    /// Runs a line in a task's container; its output.
    pub async fn shell(&self, task: u64, line: &str) -> String {
        use tokio::io::AsyncReadExt;
        let exec = ExecSpec::new(["sh", "-c", line]);
        let mut session = self.runtime.exec(&container(task), exec).await.unwrap();
        let mut out = String::new();
        session.stdout.read_to_string(&mut out).await.unwrap();
        session.exit.await.unwrap();
        out
    }
}

/// A task that runs a shell script; SIGTERM ends it unless the script says otherwise.
pub fn script(number: u64, text: &str, edit: impl FnOnce(&mut types::TaskSpec)) -> pb::Assignment {
    let mut task = site::task(number, "running");
    task.revision = u32::try_from(number).unwrap();
    let spec = task.spec.as_mut().unwrap();
    let container = spec.container.as_mut().unwrap();
    let text = format!("trap 'exit 0' TERM; {text}\nwhile :; do sleep 0.05; done");
    container.entrypoint = ["sh", "-c", &text].map(str::to_owned).into();
    container.stop_grace_period_ms = Some(3000);
    edit(spec);
    task
}

/// A probe that looks every 200 ms and is patient for two failures.
pub fn probe(check: types::probe::Check) -> types::Probe {
    types::Probe {
        check: Some(check),
        interval_ms: Some(200),
        timeout_ms: Some(2000),
        retries: Some(2),
        start_period_ms: 0,
        start_interval_ms: Some(100),
    }
}

pub fn exec(line: &str) -> types::probe::Check {
    let command = ["sh", "-c", line].map(str::to_owned).into();
    types::probe::Check::Exec(types::probe::Exec { command })
}

pub fn http(port: u32, path: &str) -> types::probe::Check {
    types::probe::Check::Http(types::probe::Http { port, path: path.to_owned() })
}

pub fn tcp(port: u32) -> types::probe::Check {
    types::probe::Check::Tcp(types::probe::Tcp { port })
}

/// Processes of this machine whose command line begins so.
pub fn processes(beginning: &str) -> usize {
    let beginning = beginning.replace(' ', "\0").into_bytes();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with(&beginning)).count()
}
