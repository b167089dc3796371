//! Benches: the world a case runs in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::embedded::{EmbeddedConfig, EmbeddedRuntime};
use crate::runtime::Runtime;
use crate::shim::Backend;
use crate::simulated::{Script, SimulatedRuntime};
use crate::spec::{ContainerId, ContainerSpec, ImageRoot};

/// What a case may ask for.
#[async_trait]
pub trait Bench: Send + Sync {
    /// The runtime object of now.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// An image with busybox in `/bin`, users `root` and `web` (33:34) in its passwd file. For a
    /// runtime that is not real it may be anything.
    fn image(&self) -> ImageRoot;

    /// The runtime object dies, as by `kill -9`: nothing of it is told to end.
    fn abandon(&self);

    /// A new runtime object on the same state; `recover` is not called yet.
    fn reopen(&self) -> Arc<dyn Runtime>;

    /// A folder for the case's own files.
    fn scratch(&self) -> PathBuf;

    /// Folder of a container, if this runtime has such a thing.
    fn folder(&self, id: &ContainerId) -> PathBuf;

    /// Cgroup path of a container below each hierarchy's mount point.
    fn cgroup(&self, id: &ContainerId) -> PathBuf;

    /// Ends and removes everything.
    async fn clear(&self);
}

/// A spec that runs a shell script.
pub(super) fn shell(bench: &dyn Bench, id: &str, script: &str) -> ContainerSpec {
    words(bench, id, &["sh", "-c", script])
}

/// A spec that runs these words.
pub(super) fn words(bench: &dyn Bench, id: &str, words: &[&str]) -> ContainerSpec {
    let mut spec = ContainerSpec::new(self::id(id), bench.image());
    spec.args = Some(words.iter().map(|word| (*word).to_owned()).collect());
    spec
}

/// A spec every runtime can serve: runs until it is asked to stop.
pub(super) fn running(bench: &dyn Bench, id: &str) -> ContainerSpec {
    if bench.runtime().caps().real {
        shell(bench, id, "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done")
    } else {
        words(bench, id, &["run"])
    }
}

/// A spec every runtime can serve: ends at once with this code.
pub(super) fn exiting(bench: &dyn Bench, id: &str, code: u8) -> ContainerSpec {
    if bench.runtime().caps().real {
        shell(bench, id, &format!("exit {code}"))
    } else {
        words(bench, id, &["exit", &code.to_string()])
    }
}

/// A spec every runtime can serve: does not end when asked.
pub(super) fn stubborn(bench: &dyn Bench, id: &str) -> ContainerSpec {
    if bench.runtime().caps().real {
        shell(bench, id, "trap '' TERM; echo up; while :; do sleep 0.05; done")
    } else {
        words(bench, id, &["ignore-stop"])
    }
}

/// A valid id.
pub(super) fn id(text: &str) -> ContainerId {
    ContainerId::new(text).expect("a valid id")
}

static BENCHES: AtomicU32 = AtomicU32::new(0);

/// The embedded runtime on a temporary folder and a cgroup of its own. Needs root.
pub struct EmbeddedBench {
    folder: tempfile::TempDir,
    config: EmbeddedConfig,
    runtime: Mutex<Option<Arc<dyn Runtime>>>,
}

impl EmbeddedBench {
    /// A bench for the contract suite; the shim program usually is `env!("CARGO_BIN_EXE_cluster-shim")`.
    pub fn open(shim: &str, backend: Backend) -> Arc<dyn Bench> {
        let bench = Self::prepare(shim, backend);
        bench.reopen();
        Arc::new(bench)
    }

    /// How its runtime is configured, for tests that open one themselves.
    pub fn config(&self) -> &EmbeddedConfig {
        &self.config
    }

    /// The same without a runtime object yet.
    pub fn prepare(shim: &str, backend: Backend) -> Self {
        let folder = tempfile::Builder::new().prefix("rt").tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        make_layer(&folder.path().join("layer"));
        fs::create_dir(folder.path().join("scratch")).expect("mkdir");
        let number = BENCHES.fetch_add(1, Ordering::Relaxed);
        let parent = format!("/cluster-runtime-test/{}-{number}", std::process::id());
        let mut config = EmbeddedConfig::below(&folder.path().join("state"), parent);
        config.shim = Some(shim.into());
        config.backend = backend;
        Self { folder, config, runtime: Mutex::default() }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Arc<dyn Runtime>>> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Bench for EmbeddedBench {
    fn runtime(&self) -> Arc<dyn Runtime> {
        self.current().clone().expect("the runtime object was not abandoned")
    }

    fn image(&self) -> ImageRoot {
        ImageRoot {
            name: "busybox".to_owned(),
            layers: vec![self.folder.path().join("layer")],
            env: vec!["FROM_IMAGE=yes".to_owned(), "REPLACED=image".to_owned()],
            ..ImageRoot::default()
        }
    }

    fn abandon(&self) {
        self.current().take();
    }

    fn reopen(&self) -> Arc<dyn Runtime> {
        self.abandon();
        let runtime: Arc<dyn Runtime> =
            Arc::new(EmbeddedRuntime::open(self.config.clone()).expect("open the runtime"));
        self.current().replace(runtime.clone());
        runtime
    }

    fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    fn folder(&self, id: &ContainerId) -> PathBuf {
        self.config.state_dir.join(id.as_str())
    }

    fn cgroup(&self, id: &ContainerId) -> PathBuf {
        self.config.cgroup_parent.strip_prefix("/").expect("absolute").join(id.as_str())
    }

    async fn clear(&self) {
        let runtime = self.reopen();
        for container in runtime.recover().await.expect("recover") {
            runtime.remove(&container.id, true).await.expect("remove");
        }
        self.abandon();
        let parent = self.config.cgroup_parent.clone();
        let hierarchies = crate::cgroup::Hierarchies::detect().expect("cgroups");
        hierarchies.at(&parent).remove(super::PATIENCE).expect("remove the test's cgroup");
        // Shared with other tests; whoever is last removes it.
        hierarchies.at("/cluster-runtime-test").remove_empty();
    }
}

/// A root filesystem of one static program.
fn make_layer(layer: &Path) {
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(Path::new).find(|path| path.exists());
    let busybox = busybox
        .expect("the contract suite needs busybox: install the Debian package busybox-static");
    let program = fs::read(busybox).expect("read busybox");
    let dynamic = program.windows(9).any(|bytes| bytes == b"/ld-linux");
    assert!(
        !dynamic,
        "{} is not static: install the Debian package busybox-static",
        busybox.display()
    );
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        fs::create_dir_all(layer.join(name)).expect("mkdir");
    }
    fs::set_permissions(layer.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    fs::write(layer.join("bin/busybox"), program).expect("write busybox");
    fs::set_permissions(layer.join("bin/busybox"), fs::Permissions::from_mode(0o755))
        .expect("chmod");
    let list = Command::new(busybox).arg("--list").output().expect("list the commands of busybox");
    for name in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", layer.join("bin").join(name)).expect("symlink");
    }
    fs::write(
        layer.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/home/web:/bin/sh\n",
    )
    .expect("passwd");
    fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:34:\nlogs:x:44:web\n").expect("group");
}

/// The simulated runtime.
pub struct SimulatedBench {
    runtime: Arc<SimulatedRuntime>,
}

impl SimulatedBench {
    /// A fresh one with the default script.
    pub fn open() -> Arc<dyn Bench> {
        Arc::new(Self { runtime: Arc::new(SimulatedRuntime::new(Script::default())) })
    }
}

#[async_trait]
impl Bench for SimulatedBench {
    fn runtime(&self) -> Arc<dyn Runtime> {
        self.runtime.clone()
    }

    fn image(&self) -> ImageRoot {
        ImageRoot {
            name: "nothing".to_owned(),
            layers: vec!["/nowhere".into()],
            ..ImageRoot::default()
        }
    }

    fn abandon(&self) {}

    fn reopen(&self) -> Arc<dyn Runtime> {
        self.runtime()
    }

    fn scratch(&self) -> PathBuf {
        PathBuf::from("/nowhere")
    }

    fn folder(&self, _: &ContainerId) -> PathBuf {
        PathBuf::from("/nowhere")
    }

    fn cgroup(&self, _: &ContainerId) -> PathBuf {
        PathBuf::from("/nowhere")
    }

    async fn clear(&self) {}
}
