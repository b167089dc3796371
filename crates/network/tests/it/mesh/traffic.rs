//! What clients see when all is well, and the order of removal.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster_network::Endpoints;
use cluster_network::mesh::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::world::{World, quick, until, within};

#[tokio::test]
async fn sequential_clients_reach_both_replicas_in_turn_on_every_worker() {
    let mut world = World::new(3).await;
    let a = world.container(0, "a").await;
    let b = world.container(1, "b").await;
    world.publish(&[&a, &b]).await;
    for worker in 0..3 {
        let mut answers = Vec::new();
        for _ in 0..6 {
            answers.push(world.ask(worker).await.unwrap());
        }
        assert_eq!(answers, ["a", "b", "a", "b", "a", "b"], "on worker {worker}");
    }
}

#[tokio::test]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let mut world = World::new(2).await;
    let container = world.container(0, "a").await;
    world.publish(&[&container]).await;
    for worker in 0..2 {
        let (mut stream, _) = world.open(worker).await.unwrap();
        stream.write_all(b"request").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = String::new();
        within(stream.read_to_string(&mut rest)).await.unwrap();
        assert_eq!(rest, "requestbye", "on worker {worker}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_connections_at_once_lose_no_byte() {
    // A hundred handshakes at once take their time on a busy machine.
    let limits = Limits {
        connect_timeout: Duration::from_secs(10),
        handshake_timeout: Duration::from_secs(10),
        reply_timeout: Duration::from_secs(10),
        ..Limits::default()
    };
    let mut world = World::with_limits(2, limits).await;
    let a = world.container(0, "a").await;
    let b = world.container(1, "b").await;
    world.publish(&[&a, &b]).await;
    let world = Arc::new(world);
    let clients = (0..200u32).map(|n| {
        let world = world.clone();
        tokio::spawn(async move {
            let (stream, _) = world.open((n % 2) as usize).await.unwrap();
            let sent: Vec<u8> = (0..100_000u32).map(|i| (i * 31 + n) as u8).collect();
            let mut expected = sent.clone();
            expected.extend(b"bye");
            let (mut read, mut write) = stream.into_split();
            let writer = tokio::spawn(async move {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut got = Vec::new();
            within(read.read_to_end(&mut got)).await.unwrap();
            assert!(got == expected, "client {n} got {} bytes", got.len());
            writer.await.unwrap();
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    for container in [&a, &b] {
        assert_eq!(container.accepted.load(Ordering::SeqCst), 100);
    }
    let counters = world.workers[0].mesh.counters();
    assert_eq!((counters.connected, counters.failed), (100, 0));
    assert_eq!(counters.bytes_in, 100 * 100_000);
}

#[tokio::test]
async fn a_ready_connection_is_used_when_there_is_one() {
    let mut world = World::new(2).await;
    let container = world.container(1, "a").await;
    world.publish(&[&container]).await;
    let mesh = &world.workers[0].mesh;
    // The pool fills in the background, so early clients may miss it.
    for _ in 0..100 {
        world.ask(0).await.unwrap();
        if mesh.counters().pool_hits >= 5 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never a ready connection: {:?}", mesh.counters());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_apply_no_new_connection_reaches_a_removed_backend() {
    for _ in 0..10 {
        let mut world = World::new(2).await;
        let a = world.container(0, "a").await;
        let b = world.container(1, "b").await;
        world.publish(&[&a, &b]).await;
        let without_b = world.snapshot(vec![world.backend(&a)]);
        let world = Arc::new(world);
        let go_on = Arc::new(AtomicBool::new(true));
        let hammers: Vec<_> = (0..8)
            .map(|n| {
                let (world, go_on) = (world.clone(), go_on.clone());
                tokio::spawn(async move {
                    while go_on.load(Ordering::SeqCst) {
                        world.ask(n % 2).await.expect("a client lost its connection");
                    }
                })
            })
            .collect();
        until("traffic", || b.accepted.load(Ordering::SeqCst) > 20).await;
        for worker in &world.workers {
            worker.mesh.apply(without_b.clone()).await;
        }
        let at_apply = b.accepted.load(Ordering::SeqCst);
        let more = a.accepted.load(Ordering::SeqCst) + 50;
        until("more traffic", || a.accepted.load(Ordering::SeqCst) > more).await;
        go_on.store(false, Ordering::SeqCst);
        for hammer in hammers {
            hammer.await.unwrap();
        }
        // A connection the kernel had completed may still have been waiting to
        // be accepted, which is why the container's own count is read twice.
        let after = b.accepted.load(Ordering::SeqCst);
        assert!(after - at_apply <= 8, "{at_apply} then {after}");
        let settled = b.accepted.load(Ordering::SeqCst);
        for _ in 0..10 {
            assert_eq!(world.ask(0).await.unwrap(), "a");
            assert_eq!(world.ask(1).await.unwrap(), "a");
        }
        assert_eq!(b.accepted.load(Ordering::SeqCst), settled);
    }
}

#[tokio::test]
async fn open_connections_of_a_removed_backend_drain() {
    let mut world = World::new(2).await;
    let container = world.container(0, "a").await;
    world.publish(&[&container]).await;
    let (mut near, _) = world.open(0).await.unwrap();
    let (mut far, _) = world.open(1).await.unwrap();
    let mesh = world.workers[0].mesh.clone();
    assert_eq!(mesh.open_connections("a"), 2);
    world.publish(&[]).await;
    for stream in [&mut near, &mut far] {
        stream.write_all(b"still here").await.unwrap();
        let mut answer = [0; 10];
        within(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"still here");
    }
    let drained = tokio::spawn({
        let mesh = mesh.clone();
        async move { mesh.drained("a").await }
    });
    drop(near);
    until("one left", || mesh.open_connections("a") == 1).await;
    assert!(!drained.is_finished());
    drop(far);
    within(drained).await.unwrap();
    assert_eq!(mesh.open_connections("a"), 0);
}

#[tokio::test]
async fn a_port_no_longer_published_is_closed_but_its_connections_run_on() {
    let mut world = World::new(1).await;
    let container = world.container(0, "a").await;
    world.publish(&[&container]).await;
    let (mut stream, _) = world.open(0).await.unwrap();
    let nothing = Endpoints { version: 9, ports: Vec::new() };
    let mesh = &world.workers[0].mesh;
    assert_eq!(mesh.apply(Arc::new(nothing)).await, 9);
    let refused = tokio::net::TcpStream::connect((world.workers[0].addr, world.port)).await;
    assert_eq!(refused.map_err(|error| error.kind()).err(), Some(ErrorKind::ConnectionRefused));
    assert!(mesh.status().ports.is_empty());
    stream.write_all(b"x").await.unwrap();
    assert_eq!(within(stream.read_u8()).await.unwrap(), b'x');
}

/// A worker that stops: requests under way are answered, new ones go elsewhere.
#[tokio::test]
async fn who_leaves_ends_what_is_open_and_takes_nothing_new() {
    let mut world = World::new(2).await;
    let (stays, leaves) = (world.container(0, "stays").await, world.container(1, "leaves").await);
    world.publish(&[&stays, &leaves]).await;
    let mut open = world.open(0).await.unwrap();
    while open.1 != "leaves" {
        open = world.open(0).await.unwrap();
    }
    let (mut stream, _) = open;
    let leaving = tokio::spawn({
        let mesh = world.workers[1].mesh.clone();
        async move { mesh.leave().await }
    });
    until("its port to close", || {
        std::net::TcpStream::connect((world.workers[1].addr, world.port)).is_err()
    })
    .await;
    for _ in 0..20 {
        assert_eq!(world.ask(0).await.unwrap(), "stays");
    }
    stream.write_all(b"still here").await.unwrap();
    let mut answer = [0; 10];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"still here");
    assert!(!leaving.is_finished());
    drop(stream);
    within(leaving).await.unwrap();
}

/// As above under steady requests, and the worker is gone as soon as it has left, as a process that
/// stops is: whatever it took in by then it has answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_a_worker_leaves_and_ends() {
    let mut world = World::new(1).await;
    let stays = world.container(0, "stays").await;
    let near = (world.workers[0].addr, world.port);
    for _ in 0..40 {
        world.add_worker(quick()).await;
        let leaves = world.container(1, "leaves").await;
        world.publish(&[&stays, &leaves]).await;
        let asked = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let clients: Vec<_> =
            (0..16).map(|_| tokio::spawn(ask_until(near, asked.clone(), stop.clone()))).collect();
        until("requests flow", || asked.load(Ordering::Relaxed) > 40).await;
        let leaver = world.workers.pop().unwrap();
        within(leaver.mesh.leave()).await;
        // A program has more to end after this; nothing is waited for here. The client's pause below
        // makes its requests long enough to be cut, so that the two together show a lost one.
        sleep(Duration::from_millis(5)).await;
        drop(leaver);
        let then = asked.load(Ordering::Relaxed);
        until("requests flow on", || asked.load(Ordering::Relaxed) > then + 20).await;
        stop.cancel();
        for client in clients {
            within(client).await.unwrap().expect("an answer to every request");
        }
    }
}

async fn ask_until(
    addr: (Ipv4Addr, u16),
    asked: Arc<AtomicUsize>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    while !stop.is_cancelled() {
        let mut stream = TcpStream::connect(addr).await?;
        sleep(Duration::from_millis(5)).await;
        stream.shutdown().await?;
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await?;
        assert!(answer.ends_with("\nbye"), "{answer:?}");
        asked.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[tokio::test]
async fn an_older_snapshot_changes_nothing() {
    let mut world = World::new(1).await;
    let container = world.container(0, "a").await;
    let old = world.snapshot(vec![]);
    world.publish(&[&container]).await;
    let mesh = &world.workers[0].mesh;
    assert_eq!(mesh.apply(old).await, 2);
    assert_eq!(world.ask(0).await.unwrap(), "a");
}
