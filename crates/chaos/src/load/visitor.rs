//! Visitors: one at each worker, asking the web service through the mesh.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Shared;

const PERIOD: Duration = Duration::from_millis(50);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// A worker that was left alone for so long has no excuse of its own.
const SETTLED: Duration = Duration::from_secs(15);
const REASONS_MAX: usize = 5;

/// How one worker's visits went.
#[derive(Clone, Debug, Default)]
pub struct Visits {
    pub answered: u64,
    pub failed: u64,
    /// Of the failed ones: on a worker that was left alone. The task behind it may have died.
    pub failed_though_settled: u64,
    pub longest_gap: Duration,
    /// Some of the reasons of those.
    pub reasons: Vec<String>,
}

pub(super) async fn run(shared: Arc<Shared>, node: String, target: SocketAddr) {
    let mut last = Instant::now();
    while !shared.is_over() {
        let settled = shared.conditions.quiet_for(&node) > SETTLED;
        let answer = tokio::time::timeout(ANSWER_WITHIN, visit(target)).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if shared.closed.load(Ordering::Acquire) {
            return;
        }
        {
            let mut inner = shared.lock();
            let visits = inner.visits.entry(node.clone()).or_default();
            match answer {
                Ok(()) => {
                    visits.answered += 1;
                    visits.longest_gap = visits.longest_gap.max(last.elapsed());
                    last = Instant::now();
                }
                Err(reason) => {
                    visits.failed += 1;
                    if settled && shared.conditions.quiet_for(&node) > SETTLED {
                        visits.failed_though_settled += 1;
                        if visits.reasons.len() < REASONS_MAX && !visits.reasons.contains(&reason) {
                            visits.reasons.push(reason);
                        }
                    }
                }
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// One GET; fine if a task of the service answered in full.
async fn visit(target: SocketAddr) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(target).await.map_err(text)?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        .await
        .map_err(text)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.map_err(text)?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") && body.contains(super::WEB) => {
            Ok(())
        }
        Some((head, _)) => Err(head.lines().next().unwrap_or_default().to_owned()),
        None => Err("the answer was cut off".to_owned()),
    }
}
