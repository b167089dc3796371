//! `kill -9` of the process that holds the runtime, at many moments of what it does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use cluster_runtime::contract::{Bench, EmbeddedBench};
use cluster_runtime::{
    Backend, ContainerId, ContainerSpec, EmbeddedConfig, EmbeddedRuntime, ImageRoot, Runtime,
    Signal,
};

use crate::SHIM;

const STATE: &str = "CLUSTER_RUNTIME_TEST_STATE";
const LAYER: &str = "CLUSTER_RUNTIME_TEST_LAYER";
const CGROUP: &str = "CLUSTER_RUNTIME_TEST_CGROUP";
const BACKEND: &str = "CLUSTER_RUNTIME_TEST_BACKEND";

/// Moments between the agent's first action and its death; one round of the agent takes about as
/// long as the last one.
const MOMENTS: [u64; 12] = [0, 3, 8, 14, 20, 26, 33, 40, 50, 60, 75, 95];

fn spec(id: &str, layer: PathBuf) -> ContainerSpec {
    let image = ImageRoot { name: "busybox".into(), layers: vec![layer], ..ImageRoot::default() };
    let mut spec = ContainerSpec::new(ContainerId::new(id).expect("id"), image);
    spec.args = Some(["sh", "-c", "sleep 600"].map(str::to_owned).to_vec());
    spec
}

/// Not a test: the agent that the tests below start and kill.
#[tokio::test]
#[ignore = "started by the tests that kill it"]
async fn agent_process() {
    let Ok(state) = std::env::var(STATE) else { return };
    let var = |name| std::env::var(name).expect("set by the test");
    let mut config = EmbeddedConfig::below(state.as_ref(), var(CGROUP));
    config.shim = Some(SHIM.into());
    config.backend = var(BACKEND).parse().expect("backend");
    let runtime = EmbeddedRuntime::open(config).expect("open");
    runtime.recover().await.expect("recover");
    eprintln!("agent ready");
    let old = spec("old", var(LAYER).into());
    let new = spec("new", var(LAYER).into());
    loop {
        let replace = async {
            runtime.create(&new).await?;
            runtime.start(&new.id).await?;
            runtime.remove(&new.id, true).await
        };
        let keep = async {
            runtime.create(&old).await?;
            runtime.start(&old.id).await
        };
        let (replaced, kept) = tokio::join!(replace, keep);
        replaced.expect("replace");
        kept.expect("keep");
    }
}

async fn survives_kills(backend: Backend) {
    let bench = EmbeddedBench::prepare(SHIM, backend);
    let layer = bench.image().layers[0].clone();
    let state = bench.config().state_dir.parent().expect("parent").to_owned();
    for moment in MOMENTS {
        let mut agent = Command::new(std::env::current_exe().expect("own path"))
            .args(["killed::agent_process", "--exact", "--ignored", "--nocapture"])
            .env(STATE, &state)
            .env(LAYER, &layer)
            .env(CGROUP, &bench.config().cgroup_parent)
            .env(BACKEND, backend.name())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the agent");
        let mut talk = BufReader::new(agent.stderr.take().expect("stderr")).lines();
        assert!(talk.any(|line| line.is_ok_and(|line| line == "agent ready")), "the agent started");
        // The length is the point here: what must hold does so whenever it is.
        tokio::time::sleep(Duration::from_millis(moment)).await;
        agent.kill().expect("kill the agent");
        agent.wait().expect("collect the agent");

        let runtime = bench.reopen();
        let began = std::time::Instant::now();
        let found = runtime.recover().await.expect("recover");
        // The runtime's patience with a stuck shim is longer: none may be stuck here.
        assert!(began.elapsed() < Duration::from_secs(9), "recovery took {:?}", began.elapsed());
        assert!(
            found.iter().all(|seen| seen.state.exit().is_none() || seen.id.as_str() == "new"),
            "{found:?}"
        );
        for name in ["old", "new"] {
            // As the worker does: what should run is created (or found) and started.
            let spec = spec(name, layer.clone());
            if found.iter().any(|seen| seen.id == spec.id && seen.state.exit().is_some()) {
                runtime.remove(&spec.id, false).await.expect("remove");
            }
            runtime.create(&spec).await.expect("create");
            runtime.start(&spec.id).await.expect("start");
        }
        assert_eq!(runtime.list(&BTreeMap::new()).await.expect("list").len(), 2);
        runtime
            .stop(&spec("new", layer.clone()).id, Signal::KILL, Duration::ZERO)
            .await
            .expect("stop");
        runtime.remove(&spec("new", layer.clone()).id, false).await.expect("remove");
        let left: Vec<_> = fs::read_dir(&bench.config().state_dir)
            .expect("read")
            .flatten()
            .map(|e| e.file_name())
            .collect();
        assert_eq!(left, ["old"], "after {moment} ms");
        bench.abandon();
    }
    bench.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_moment_libcontainer() {
    survives_kills(Backend::Libcontainer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_moment_runc() {
    survives_kills(Backend::Runc).await;
}
