//! Writes of users: as many as go through, and more than the managers can take.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cluster_pb::control::v1 as pb;
use cluster_wire::Code;
use cluster_wire::error::code_of;
use tokio::task::JoinSet;
use tonic::{Code as Grpc, Status};

use super::Bench;
use crate::api::{Api, service};
use crate::managers::Managers;

const PROBE: Duration = Duration::from_secs(10);
const FLOOD: Duration = Duration::from_secs(60);
const TIMES: f64 = 10.0;
/// Clients that write at the same time.
const WRITERS: usize = 64;
/// Requests that wait for an answer here; the flood goes on without those beyond.
const OUTSTANDING_MAX: usize = 20_000;
const TICK: Duration = Duration::from_millis(10);

/// What became of requests.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    pushed_back: AtomicU64,
    unclear: AtomicU64,
    /// The generator itself was full.
    withheld: AtomicU64,
    outstanding: AtomicUsize,
    slowest_us: AtomicU64,
}

impl Bench {
    /// What one client and then sixty-four get through, each with one write at a time.
    pub(super) async fn writes(&mut self) -> Result<()> {
        let alone = self.sustained(1).await?;
        self.report.put("one_client_ms", 1e3 / alone, "ms");
        let together = self.sustained(WRITERS).await?;
        self.report.put("writes_per_s", together, "1/s");
        Ok(())
    }

    /// Writes that so many clients get acknowledged in a second.
    async fn sustained(&mut self, clients: usize) -> Result<f64> {
        let calm = Arc::new(Tally::default());
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        for number in 0..clients {
            let (api, tally, stop) = (self.managers.api.clone(), calm.clone(), stop.clone());
            running.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    pair(&api, &format!("calm-{number}"), number, &tally).await;
                }
            });
        }
        tokio::time::sleep(PROBE).await;
        stop.store(true, Ordering::Relaxed);
        while running.join_next().await.is_some() {}
        let sustained = calm.acknowledged.load(Ordering::Relaxed) as f64 / PROBE.as_secs_f64();
        ensure!(sustained > 0.0, "no write was acknowledged");
        Ok(sustained)
    }

    /// Finds what sixteen clients get through, then asks for ten times as much for a minute.
    pub(super) async fn overload(&mut self) -> Result<()> {
        let sustained = self.sustained(super::CLIENTS).await?;
        self.report.put("sustained_writes_per_s", sustained, "1/s");
        let offered = sustained * TIMES * self.scale;
        let mark = self.mark()?;
        let mut flood = Flood::start(&self.managers, offered)?;
        let mut least_ready = usize::MAX;
        let mut looks = tokio::time::interval(Duration::from_secs(1));
        let told = loop {
            looks.tick().await;
            self.managers.check()?;
            // What a manager knows without waiting for its turn.
            let request = pb::GetClusterRequest { stale: true, state_hash: false };
            if let Ok(cluster) = self.managers.api.of(0).get_cluster(request).await {
                least_ready = least_ready.min(cluster.into_inner().workers_ready as usize);
            }
            if let Some(told) = flood.ended()? {
                break told;
            }
        };
        self.report.put("offered_per_s", offered, "1/s");
        for (name, figure) in FIGURES.iter().zip(told) {
            self.report.put(name, figure, "");
        }
        self.report.put("workers_ready_least", least_ready as f64, "");
        self.cost(&mark, 1)?;
        self.report.put("sessions_open", self.fleet.sessions() as f64, "");
        tokio::time::sleep(super::SETTLE).await;
        let rss = self.managers.usage()?.iter().map(|usage| usage.rss_bytes).max().unwrap_or(0);
        self.report.put("manager_rss_after_mib", rss as f64 / f64::from(1 << 20), "MiB");
        Ok(())
    }
}

/// What a flood tells, in this order.
const FIGURES: [&str; 6] = [
    "sent_per_s",
    "acknowledged_per_s",
    "pushed_back_per_s",
    "unclear",
    "withheld_by_generator",
    "slowest_acknowledged_s",
];

/// The generator is a process of its own that steps back for everybody else, as if it ran on other
/// machines: what it costs itself is not the question.
struct Flood(Child);

impl Flood {
    fn start(managers: &Managers, offered: f64) -> Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let child = Command::new("nice")
            .args(["-n", "19"])
            .arg(program)
            .args(["--bin-dir", "-", "--flood", &offered.to_string()])
            .arg("--flood-context")
            .arg(managers.context_file())
            .args(["--flood-managers", &managers.addresses().join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the flood")?;
        Ok(Self(child))
    }

    /// Its figures, once it has ended.
    fn ended(&mut self) -> Result<Option<Vec<f64>>> {
        let Some(status) = self.0.try_wait().context("looking at the flood")? else {
            return Ok(None);
        };
        ensure!(status.success(), "the flood failed: {status}");
        let mut text = String::new();
        let mut out = self.0.stdout.take().context("the flood has no output")?;
        out.read_to_string(&mut text).context("reading the flood's figures")?;
        let figures = text.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        Ok(Some(figures.context("the flood printed no figures")?))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The generator: asks at a rate for a minute and prints what became of it.
pub async fn flood(api: Api, offered: f64) {
    let tally = Arc::new(Tally::default());
    let mut tick = tokio::time::interval(TICK);
    let begun = Instant::now();
    let mut asked = 0u64;
    while begun.elapsed() < FLOOD {
        tick.tick().await;
        // Each asks twice.
        let due = (begun.elapsed().as_secs_f64() * offered / 2.0) as u64;
        while asked < due {
            asked += 1;
            ask(&api, asked, &tally);
        }
    }
    let took = begun.elapsed().as_secs_f64();
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed) as f64;
    let rate = |of: &AtomicU64| count(of) / took;
    println!(
        "{} {} {} {} {} {}",
        rate(&tally.sent),
        rate(&tally.acknowledged),
        rate(&tally.pushed_back),
        count(&tally.unclear),
        count(&tally.withheld),
        count(&tally.slowest_us) / 1e6
    );
}

fn ask(api: &Api, number: u64, tally: &Arc<Tally>) {
    if tally.outstanding.load(Ordering::Relaxed) >= OUTSTANDING_MAX {
        tally.withheld.fetch_add(1, Ordering::Relaxed);
        return;
    }
    tally.outstanding.fetch_add(1, Ordering::Relaxed);
    let (api, tally) = (api.clone(), tally.clone());
    tokio::spawn(async move {
        let name = format!("flood-{number}");
        pair(&api, &name, number as usize, &tally).await;
        tally.outstanding.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Creates a service without tasks and removes it.
async fn pair(api: &Api, name: &str, place: usize, tally: &Tally) {
    let mut control = api.of(place);
    let request = pb::CreateServiceRequest { spec: Some(service(name, 0)) };
    let begun = Instant::now();
    if !count(tally, begun, control.create_service(request).await.map(drop)) {
        return;
    }
    let request = pb::RemoveServiceRequest { service: name.to_owned(), version: None };
    let begun = Instant::now();
    count(tally, begun, control.remove_service(request).await.map(drop));
}

fn count(tally: &Tally, begun: Instant, answer: Result<(), Status>) -> bool {
    tally.sent.fetch_add(1, Ordering::Relaxed);
    let of = match &answer {
        Ok(()) => {
            let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            tally.slowest_us.fetch_max(took, Ordering::Relaxed);
            &tally.acknowledged
        }
        Err(status) if code_of(status) == Some(Code::Busy) => &tally.pushed_back,
        Err(status) if status.code() == Grpc::ResourceExhausted => &tally.pushed_back,
        Err(_) => &tally.unclear,
    };
    of.fetch_add(1, Ordering::Relaxed);
    answer.is_ok()
}
