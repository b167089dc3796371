//! Do memory, descriptors and disk of each daemon stay flat?
//!
//! A process that was restarted begins anew, so memory and descriptors are judged within one life;
//! the data folder outlives its processes and is judged over the whole run. The start of a life is
//! warm-up. What is compared is the middle value of the first and of the last third of what is left.

use std::time::Duration;

use super::Objection;

/// One look at one daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge {
    pub at: Duration,
    pub pid: i32,
    pub rss_bytes: u64,
    pub fds: u64,
    pub disk_bytes: u64,
}

/// What a quantity was and became, over the longest stretch that could be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trend {
    pub from: u64,
    pub to: u64,
    pub over: Duration,
    pub most: u64,
}

/// How one daemon did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// None: no process lived long enough.
    pub rss: Option<Trend>,
    pub fds: Option<Trend>,
    pub disk: Option<Trend>,
}

/// A life shorter than this says nothing.
const LIFE_MIN: Duration = Duration::from_secs(120);
/// Caches fill, connections are made.
const WARM_UP: Duration = Duration::from_secs(30);

pub fn growth(gauges: &[Gauge]) -> Growth {
    let lives = gauges.chunk_by(|a, b| a.pid == b.pid);
    let longest = lives.max_by_key(|life| span(life)).unwrap_or_default();
    Growth {
        rss: trend(longest, |gauge| gauge.rss_bytes),
        fds: trend(longest, |gauge| gauge.fds),
        disk: trend(gauges, |gauge| gauge.disk_bytes),
    }
}

fn span(gauges: &[Gauge]) -> Duration {
    match gauges {
        [first, .., last] => last.at - first.at,
        _ => Duration::ZERO,
    }
}

fn trend(gauges: &[Gauge], value: impl Fn(&Gauge) -> u64) -> Option<Trend> {
    let over = span(gauges);
    if over < LIFE_MIN {
        return None;
    }
    let begin = gauges.first()?.at + WARM_UP;
    let warm: Vec<u64> = gauges.iter().filter(|gauge| gauge.at >= begin).map(&value).collect();
    let third = warm.len() / 3;
    let (from, to) = (median(warm.get(..third)?)?, median(warm.get(warm.len() - third..)?)?);
    Some(Trend { from, to, over, most: gauges.iter().map(value).max()? })
}

fn median(values: &[u64]) -> Option<u64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// `slack` is what may come on top of a quarter more.
fn is_flat(trend: Trend, slack: u64) -> bool {
    trend.to <= trend.from + trend.from / 4 + slack
}

/// Objects to what grows; `name` is the node's.
pub fn judge(name: &str, growth: &Growth) -> Vec<Objection> {
    const MIB: u64 = 1 << 20;
    let quantities = [
        ("memory", growth.rss, 8 * MIB),
        ("descriptors", growth.fds, 32),
        ("data folder", growth.disk, 32 * MIB),
    ];
    let grown = quantities.into_iter().filter_map(|(what, trend, slack)| {
        let trend = trend.filter(|trend| !is_flat(*trend, slack))?;
        let detail = format!(
            "{name}: {what} went from {} to {} within {:.0} s",
            trend.from,
            trend.to,
            trend.over.as_secs_f64()
        );
        Some(Objection::new("growth", detail))
    });
    grown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauges(seconds: u64, pid: impl Fn(u64) -> i32, rss: impl Fn(u64) -> u64) -> Vec<Gauge> {
        let gauge = |at: u64| Gauge {
            at: Duration::from_secs(at),
            pid: pid(at),
            rss_bytes: rss(at) << 20,
            fds: 50,
            disk_bytes: 1 << 20,
        };
        (0..seconds).step_by(5).map(gauge).collect()
    }

    #[test]
    fn what_stays_flat_is_fine_and_what_grows_is_not() {
        let flat = growth(&gauges(600, |_| 1, |at| 20 + at % 3));
        assert_eq!(judge("n", &flat), []);
        let warm = growth(&gauges(600, |_| 1, |at| 20 + at.min(20)));
        assert_eq!(judge("n", &warm), [], "warm-up does not count");
        let leak = growth(&gauges(600, |_| 1, |at| 20 + at / 10));
        assert_eq!(judge("n", &leak).len(), 1);
    }

    #[test]
    fn a_restart_begins_anew_and_a_short_life_says_nothing() {
        // Each process grows for a minute: none lives long enough to say that it would go on.
        let short = growth(&gauges(600, |at| i32::try_from(at / 60).unwrap(), |at| 20 + at % 60));
        assert_eq!((short.rss, short.fds), (None, None));
        assert!(short.disk.is_some(), "the folder outlives them");
        let one = growth(&gauges(600, |at| i32::from(at > 100), |at| 20 + at / 10));
        assert_eq!(judge("n", &one).len(), 1);
    }
}
