use std::sync::atomic::AtomicUsize;

use anyhow::{Context, bail};
use tokio::sync::oneshot;

use super::*;

const SOON: Duration = Duration::from_secs(10);

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, wait).await.expect("nothing happened in time")
}

/// Completes its receiver when the task that holds it is gone.
fn tripwire() -> (oneshot::Sender<()>, oneshot::Receiver<()>) {
    oneshot::channel()
}

fn quick_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(1), Duration::from_millis(2))
}

#[tokio::test]
async fn drain_waits_for_every_task_of_the_tree() {
    let root = Scope::root("test");
    let child = root.child("term 5");
    let (held, gone) = tripwire();
    root.spawn("forever", OnError::Shutdown, std::future::pending::<()>());
    child.spawn("forever-too", OnError::Shutdown, async move {
        let _held = held;
        std::future::pending::<()>().await;
    });
    assert_eq!(root.running(), ["forever", "forever-too"]);
    assert_eq!(child.running(), ["forever-too"]);
    soon(root.drain(SOON)).await.unwrap();
    assert!(root.running().is_empty() && child.running().is_empty());
    assert!(soon(gone).await.is_err());
    soon(child.cancelled()).await;
}

#[tokio::test]
async fn dropping_a_child_ends_its_tasks_and_leaves_the_others() {
    let root = Scope::root("test");
    let child = root.child("session");
    let (held, gone) = tripwire();
    child.spawn("in-child", OnError::Log, async move {
        let _held = held;
        std::future::pending::<()>().await;
    });
    root.spawn("in-root", OnError::Log, std::future::pending::<()>());
    drop(child);
    soon(gone).await.unwrap_err();
    assert!(!root.token().is_cancelled());
    assert!(root.running().contains(&"in-root"));
    soon(root.drain(SOON)).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_failure_reaches_the_root_with_its_causes() {
    let root = Scope::root("test");
    let child = root.child("raft");
    child.spawn("fine", OnError::Shutdown, async { anyhow::Ok(()) });
    child.spawn("log-only", OnError::Log, async { bail!("not important") });
    child.spawn("storage", OnError::Shutdown, async {
        Err::<(), _>(std::io::Error::other("disk full")).context("writing the log")
    });
    let failure = soon(root.failed()).await;
    assert_eq!(
        failure,
        Failure {
            scope: "test/raft".into(),
            kind: "storage",
            error: "writing the log: disk full".into()
        }
    );
    // Asking again, later and elsewhere, gives the same first failure.
    child.spawn("second", OnError::Shutdown, async { bail!("consequence") });
    soon(root.drain(SOON)).await.unwrap();
    assert_eq!(soon(child.failed()).await.kind, "storage");
}

#[tokio::test]
async fn a_panic_is_a_failure_and_spares_the_others() {
    let root = Scope::root("test");
    let (tell, told) = oneshot::channel();
    root.spawn("panics-quietly", OnError::Log, async { panic!("one") });
    root.spawn("panics", OnError::Shutdown, async {
        tokio::task::yield_now().await;
        panic!("two {}", 2);
    });
    root.spawn("goes-on", OnError::Log, async move {
        let _ = tell.send(());
    });
    let failure = soon(root.failed()).await;
    assert_eq!(failure.kind, "panics");
    assert!(failure.error.contains("panicked") && failure.error.contains("two 2"), "{failure}");
    soon(told).await.unwrap();
}

#[tokio::test]
async fn restarting_runs_until_success_through_errors_and_panics() {
    let root = Scope::root("test");
    let runs = Arc::new(AtomicUsize::new(0));
    let (done, seen) = oneshot::channel();
    let mut done = Some(done);
    let count = runs.clone();
    root.spawn_restarting("flaky", quick_backoff(), move || {
        let run = count.fetch_add(1, Ordering::SeqCst);
        assert!(run != 2, "the third run panics before it has a future");
        let done = if run == 4 { done.take() } else { None };
        async move {
            match run {
                0 => bail!("first"),
                1 => panic!("second"),
                _ => {}
            }
            match done {
                Some(done) => {
                    let _ = done.send(());
                    Ok(())
                }
                None => bail!("not yet"),
            }
        }
    });
    soon(seen).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 5);
    soon(root.drain(SOON)).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn cancelling_ends_a_restarting_task_while_it_waits() {
    let root = Scope::root("test");
    let (tell, told) = oneshot::channel();
    let mut tell = Some(tell);
    let slow = Backoff::new(Duration::from_secs(3600), Duration::from_secs(3600));
    root.spawn_restarting("slow", slow, move || {
        let tell = tell.take();
        async move {
            if let Some(tell) = tell {
                let _ = tell.send(());
            }
            bail!("always")
        }
    });
    soon(told).await.unwrap();
    soon(root.drain(SOON)).await.unwrap();
}

#[tokio::test]
async fn a_cooperative_task_finishes_its_work_after_the_cancel() {
    let root = Scope::root("test");
    let (tell, told) = oneshot::channel();
    root.spawn_cooperative("flusher", OnError::Shutdown, |token| async move {
        token.cancelled().await;
        tokio::task::yield_now().await;
        let _ = tell.send("flushed");
    });
    soon(root.drain(SOON)).await.unwrap();
    assert_eq!(soon(told).await.unwrap(), "flushed");
}

#[tokio::test]
async fn drain_names_and_aborts_what_does_not_end() {
    let root = Scope::root("test");
    let (held, gone) = tripwire();
    root.spawn_cooperative("deaf", OnError::Log, |_| async move {
        let _held = held;
        std::future::pending::<()>().await;
    });
    let stuck = root.drain(Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(stuck.kinds, ["deaf"]);
    soon(gone).await.unwrap_err();
}

#[tokio::test]
async fn an_ended_scope_starts_nothing() {
    let root = Scope::root("test");
    soon(root.drain(SOON)).await.unwrap();
    let (held, gone) = tripwire();
    root.spawn("late", OnError::Shutdown, async move {
        let _held = held;
        bail!("must not run")
    });
    soon(gone).await.unwrap_err();
    assert!(root.running().is_empty());
    assert!(root.inner.failed.borrow().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_short_tasks_leave_no_trace() {
    let root = Scope::root("test");
    let child = root.child("busy");
    let ended = Arc::new(AtomicUsize::new(0));
    for _ in 0..2000 {
        let ended = ended.clone();
        child.spawn("short", OnError::Log, async move {
            tokio::task::yield_now().await;
            ended.fetch_add(1, Ordering::SeqCst);
        });
    }
    soon(async {
        while ended.load(Ordering::SeqCst) < 2000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(root.drain(SOON)).await.unwrap();
    assert!(root.running().is_empty());
}
