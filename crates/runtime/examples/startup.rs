//! Prints how long create, start and exit take, and what a shim costs in memory.
//!
//! `cargo build -p cluster-runtime --bins && cargo run -p cluster-runtime --features testing --example startup [libcontainer|runc]`
//! as root; the shim is looked for beside the folder of the example.

use std::fs;
use std::time::{Duration, Instant};

use cluster_runtime::contract::{Bench, EmbeddedBench};
use cluster_runtime::{Backend, ContainerId, ContainerSpec};

const ROUNDS: usize = 20;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

fn spec(bench: &dyn Bench, id: String, script: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::new(ContainerId::new(id).expect("id"), bench.image());
    spec.args = Some(["sh", "-c", script].map(str::to_owned).to_vec());
    spec
}

#[tokio::main]
async fn main() {
    let backend = std::env::args()
        .nth(1)
        .map_or(Ok(Backend::default()), |name| name.parse())
        .expect("backend");
    let own = std::env::current_exe().expect("own path");
    let shim =
        own.parent().and_then(|dir| dir.parent()).expect("target folder").join("cluster-shim");
    let bench = EmbeddedBench::open(shim.to_str().expect("utf-8"), backend);
    let runtime = bench.runtime();
    let (mut create, mut start, mut exit, mut remove) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let spec = spec(&*bench, format!("r{round}"), "exec sleep 1000");
        let began = Instant::now();
        runtime.create(&spec).await.expect("create");
        create.push(began.elapsed());
        let began = Instant::now();
        runtime.start(&spec.id).await.expect("start");
        start.push(began.elapsed());
        let began = Instant::now();
        runtime.signal(&spec.id, cluster_runtime::Signal::KILL).await.expect("kill");
        runtime.wait(&spec.id).await.expect("wait");
        exit.push(began.elapsed());
        let began = Instant::now();
        runtime.remove(&spec.id, false).await.expect("remove");
        remove.push(began.elapsed());
    }
    println!("median of {ROUNDS}, {}:", backend.name());
    for (name, times) in
        [("create", create), ("start", start), ("kill to exit told", exit), ("remove", remove)]
    {
        println!("  {name:<18} {:6.1} ms", median(times));
    }
    let specs: Vec<_> =
        (0..40).map(|number| spec(&*bench, format!("m{number}"), "exec sleep 1000")).collect();
    let began = Instant::now();
    futures::future::join_all(specs.iter().map(async |spec| {
        runtime.create(spec).await.expect("create");
        runtime.start(&spec.id).await.expect("start");
    }))
    .await;
    println!("  40 at once         {:6.0} ms", began.elapsed().as_secs_f64() * 1000.0);
    let shims = fs::read_dir("/proc").expect("proc").flatten().filter(|entry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with(b"cluster-shim\0"))
    });
    let pss: Vec<u64> = shims
        .filter_map(|entry| fs::read_to_string(entry.path().join("smaps_rollup")).ok())
        .filter_map(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("Pss:")?.trim().split(' ').next()?.parse().ok())
        })
        .collect();
    println!(
        "  shim PSS           {:6} KiB on average of {}",
        pss.iter().sum::<u64>() / pss.len().max(1) as u64,
        pss.len()
    );
    bench.clear().await;
}
