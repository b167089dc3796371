//! Output: kept, selected, followed, rotated.

use std::fmt::Write;
use std::fs;
use std::sync::Arc;

use futures::StreamExt;

use crate::contract::bench::{Bench, id, shell};
use crate::contract::process::run;
use crate::contract::{case_list, within};
use crate::error::Error;
use crate::logs::{LogLine, LogQuery, MAX_TEXT, OutputStream};
use crate::signal::Signal;
use crate::spec::{ContainerId, ContainerSpec, LogRotation};

case_list! {
    |caps| caps.real => [
        both_streams_are_kept, tail_and_since, follow_ends_with_the_container, follow_sees_rotation,
        long_and_unfinished_lines,
    ],
    |_| true => [logs_of_unknown_ids_fail],
}

/// All that was written so far, both streams as they came.
pub async fn text(bench: &dyn Bench, id: &ContainerId) -> String {
    let mut text = String::new();
    for line in lines(bench, id, LogQuery::default()).await {
        let _ = write!(text, "{}", String::from_utf8_lossy(&line.text));
        if !line.partial {
            text.push('\n');
        }
    }
    text
}

async fn lines(bench: &dyn Bench, id: &ContainerId, query: LogQuery) -> Vec<LogLine> {
    let lines: Vec<_> = within("logs", bench.runtime().logs(id, query).collect()).await;
    lines.into_iter().map(|line| line.expect("log line")).collect()
}

fn texts(lines: &[LogLine]) -> Vec<String> {
    lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
}

async fn both_streams_are_kept(bench: Arc<dyn Bench>) {
    let spec = shell(&*bench, "streams", "echo out; echo err >&2; echo; printf 'a  b \\n'");
    run(&*bench, &spec).await;
    let lines = lines(&*bench, &spec.id, LogQuery::default()).await;
    let of = |stream| {
        texts(&lines.iter().filter(|line| line.stream == stream).cloned().collect::<Vec<_>>())
    };
    assert_eq!(of(OutputStream::Stdout), ["out", "", "a  b "]);
    assert_eq!(of(OutputStream::Stderr), ["err"]);
    assert!(lines.iter().all(|line| !line.partial && line.unix_nanos > 1_500_000_000_000_000_000));
}

async fn tail_and_since(bench: Arc<dyn Bench>) {
    let spec = shell(&*bench, "tail", "for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.01; done");
    run(&*bench, &spec).await;
    let all = lines(&*bench, &spec.id, LogQuery::default()).await;
    assert_eq!(texts(&all), ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let tail = |tail| LogQuery { tail: Some(tail), ..LogQuery::default() };
    assert_eq!(texts(&lines(&*bench, &spec.id, tail(2)).await), ["8", "9"]);
    assert_eq!(lines(&*bench, &spec.id, tail(0)).await.len(), 0);
    assert_eq!(lines(&*bench, &spec.id, tail(100)).await, all);
    let since = LogQuery { since_unix_nanos: Some(all[6].unix_nanos), ..LogQuery::default() };
    assert_eq!(lines(&*bench, &spec.id, since).await, all[6..]);
    assert_eq!(lines(&*bench, &spec.id, LogQuery { tail: Some(2), ..since }).await, all[7..]);
}

async fn follow_ends_with_the_container(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    let spec = shell(
        &*bench,
        "follow",
        "echo first; trap 'echo last; exit 0' TERM; while :; do sleep 0.02; done",
    );
    runtime.create(&spec).await.expect("create");
    let mut follower = runtime.logs(&spec.id, LogQuery { follow: true, ..LogQuery::default() });
    runtime.start(&spec.id).await.expect("start");
    let first = within("the first line", follower.next()).await.expect("line").expect("logs");
    assert_eq!(first.text, b"first");
    let from_now =
        runtime.logs(&spec.id, LogQuery { follow: true, tail: Some(0), since_unix_nanos: None });
    let from_now = tokio::spawn(from_now.collect::<Vec<_>>());
    // The trap is set after the first line; ask until it is.
    within("the end", async {
        while runtime
            .inspect(&spec.id)
            .await
            .expect("inspect")
            .is_some_and(|seen| seen.state.exit().is_none())
        {
            runtime.signal(&spec.id, Signal::TERM).await.expect("signal");
            tokio::task::yield_now().await;
        }
    })
    .await;
    let rest: Vec<_> = within("the end of the stream", follower.collect()).await;
    assert_eq!(rest.last().expect("a last line").as_ref().expect("logs").text, b"last");
    let late = within("the other stream's end", from_now).await.expect("join");
    assert_eq!(late.last().expect("a last line").as_ref().expect("logs").text, b"last");
}

async fn follow_sees_rotation(bench: Arc<dyn Bench>) {
    let runtime = bench.runtime();
    // Some 900 KB through files of 32 KB; slow enough for the follower to keep up.
    let script = "i=0; while [ $i -lt 9000 ]; do echo $i aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; i=$((i+1)); [ $((i%100)) = 0 ] && sleep 0.01; done";
    let log = LogRotation { max_bytes: 128 << 10, max_files: 4 };
    let spec = ContainerSpec { log, ..shell(&*bench, "rotate", script) };
    runtime.create(&spec).await.expect("create");
    let follower = runtime.logs(&spec.id, LogQuery { follow: true, ..LogQuery::default() });
    runtime.start(&spec.id).await.expect("start");
    let followed: Vec<_> = within("the end of the stream", follower.collect()).await;
    let number = |line: &LogLine| {
        String::from_utf8_lossy(&line.text)
            .split(' ')
            .next()
            .and_then(|word| word.parse::<u32>().ok())
    };
    let numbers: Vec<_> =
        followed.iter().map(|line| number(line.as_ref().expect("logs"))).collect();
    assert_eq!(numbers, (0..9000).map(Some).collect::<Vec<_>>());
    let kept: u64 = (0..10)
        .filter_map(|age| {
            fs::metadata(bench.folder(&spec.id).join(if age == 0 {
                "log".to_owned()
            } else {
                format!("log.{age}")
            }))
            .ok()
        })
        .map(|file| file.len())
        .sum();
    assert!(kept <= 4 * (128 << 10), "{kept}");
    let left = lines(&*bench, &spec.id, LogQuery::default()).await;
    assert_eq!(left.last().and_then(number), Some(8999));
    assert!(left.len() < 9000, "old files are dropped");
    let tail = lines(&*bench, &spec.id, LogQuery { tail: Some(3000), ..LogQuery::default() }).await;
    assert_eq!(tail.len(), 3000.min(left.len()), "a tail may span files");
}

async fn long_and_unfinished_lines(bench: Arc<dyn Bench>) {
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'no end'";
    let spec = shell(&*bench, "long", script);
    run(&*bench, &spec).await;
    let lines = lines(&*bench, &spec.id, LogQuery::default()).await;
    let seen: Vec<_> = lines.iter().map(|line| (line.text.len(), line.partial)).collect();
    assert_eq!(
        seen,
        [(MAX_TEXT, true), (MAX_TEXT, true), (40000 - 2 * MAX_TEXT, false), (6, true)]
    );
}

async fn logs_of_unknown_ids_fail(bench: Arc<dyn Bench>) {
    let mut lines =
        bench.runtime().logs(&id("nobody"), LogQuery { follow: true, ..LogQuery::default() });
    let first = within("the error", lines.next()).await.expect("one item");
    assert!(matches!(first, Err(Error::NotFound { .. })));
    assert!(within("the end", lines.next()).await.is_none());
}
