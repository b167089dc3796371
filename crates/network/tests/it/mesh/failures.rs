//! What clients see when something is broken, and what strangers may not do.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_identity::Role;
use cluster_network::Backend;
use cluster_network::mesh::{BoxStream, IdentityTls, MeshTls};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::world::{World, loopback, until, within};

#[tokio::test]
async fn clients_do_not_notice_dead_backends() {
    let mut world = World::new(2).await;
    let alive = world.container(1, "c").await;
    // One local container that refuses, one worker that is not there.
    let refusing = Backend { task_id: "a".to_owned(), target_port: 1, ..world.backend(&alive) };
    let absent = Backend {
        task_id: "b".to_owned(),
        node_id: "gone".to_owned(),
        node_mesh_addr: (loopback(), 1).into(),
        target_port: 80,
    };
    let backends = vec![refusing, absent, world.backend(&alive)];
    let snapshot = world.snapshot(backends);
    for worker in &world.workers {
        worker.mesh.set_local("a", loopback());
        worker.mesh.apply(snapshot.clone()).await;
    }
    for n in 0..10 {
        assert_eq!(world.ask(n % 2).await.unwrap(), "c");
    }
    assert!(world.workers[0].mesh.counters().retries > 0);
    assert_eq!(world.workers[0].mesh.counters().failed, 0);
}

#[tokio::test]
async fn without_a_backend_a_client_is_refused_at_once_and_the_port_stays() {
    let mut world = World::new(1).await;
    world.publish(&[]).await;
    for _ in 0..3 {
        let mut stream = world.connect(0).await;
        let error = within(stream.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(world.workers[0].mesh.counters().failed, 3);
    let container = world.container(0, "a").await;
    world.publish(&[&container]).await;
    assert_eq!(world.ask(0).await.unwrap(), "a");
}

#[tokio::test]
async fn a_port_in_use_is_reported_and_opened_once_it_is_free() {
    let mut world = World::new(1).await;
    let other = TcpListener::bind((world.workers[0].addr, world.port)).await;
    let container = world.container(0, "a").await;
    world.publish(&[&container]).await;
    let mesh = world.workers[0].mesh.clone();
    let port = mesh.status().ports[0].clone();
    assert_eq!((port.published, port.backends), (world.port, 1));
    let reason = port.error.unwrap();
    assert!(reason.contains("in use"), "{reason}");
    assert!(reason.contains(&world.port.to_string()), "{reason}");
    drop(other.unwrap());
    until("port opened", || mesh.status().ports[0].error.is_none()).await;
    assert_eq!(world.ask(0).await.unwrap(), "a");
}

#[tokio::test]
async fn a_container_that_aborts_is_an_error_for_the_client_not_an_end() {
    let mut world = World::new(2).await;
    let listener = TcpListener::bind((loopback(), 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"half an ans").await;
            let _ = stream.read_u8().await;
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    });
    let std::net::IpAddr::V4(ip) = addr.ip() else { unreachable!("bound to IPv4") };
    world.workers[0].mesh.set_local("a", ip);
    let backend = Backend {
        task_id: "a".to_owned(),
        node_id: world.workers[0].node_id.clone(),
        node_mesh_addr: world.workers[0].mesh.mesh_addr(),
        target_port: addr.port(),
    };
    let snapshot = world.snapshot(vec![backend]);
    for worker in 0..2 {
        world.workers[worker].mesh.apply(snapshot.clone()).await;
        let mut stream = world.connect(worker).await;
        let mut start = [0; 11];
        within(stream.read_exact(&mut start)).await.unwrap();
        stream.write_all(b"request").await.unwrap();
        let error = within(stream.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "worker {worker}");
    }
}

#[tokio::test]
async fn connections_end_with_their_container_and_with_a_lost_node() {
    let mut world = World::new(2).await;
    let container = world.container(1, "a").await;
    world.publish(&[&container]).await;
    let (mut far, _) = world.open(0).await.unwrap();
    let (mut near, _) = world.open(1).await.unwrap();
    world.workers[0].mesh.node_gone("node1");
    assert!(within(far.read_u8()).await.is_err());
    assert_eq!(world.ask(0).await.unwrap(), "a", "a node that is back is used");
    world.workers[1].mesh.remove_local("a");
    assert!(within(near.read_u8()).await.is_err());
}

#[tokio::test]
async fn a_silent_worker_is_avoided_and_its_connections_are_cut() {
    let mut world = World::new(2).await;
    let near = world.container(0, "a").await;
    let far = world.container(1, "b").await;
    let (frozen, watch) = watch::channel(false);
    let through = freezable(world.workers[1].mesh.mesh_addr(), watch).await;
    let behind = Backend { node_mesh_addr: through, ..world.backend(&far) };
    let snapshot = world.snapshot(vec![world.backend(&near), behind]);
    for worker in &world.workers {
        worker.mesh.apply(snapshot.clone()).await;
    }
    assert_eq!(world.ask(0).await.unwrap(), "a");
    let (mut victim, name) = world.open(0).await.unwrap();
    assert_eq!(name, "b");
    frozen.send(true).unwrap();
    let since = Instant::now();
    for _ in 0..5 {
        assert_eq!(world.ask(0).await.unwrap(), "a");
    }
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    let error = within(victim.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    frozen.send(false).unwrap();
    for _ in 0..1000 {
        if world.ask(0).await.unwrap() == "b" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the worker is never used again");
}

/// Forwards to `target`; while frozen, connections are accepted and kept but
/// not a byte passes, as with a stopped process.
async fn freezable(
    target: std::net::SocketAddr,
    frozen: watch::Receiver<bool>,
) -> std::net::SocketAddr {
    let listener = TcpListener::bind((loopback(), 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let pump = |mut from: tokio::net::tcp::OwnedReadHalf,
                mut to: tokio::net::tcp::OwnedWriteHalf,
                mut frozen: watch::Receiver<bool>| async move {
        let mut buffer = [0; 4096];
        while let Ok(read) = from.read(&mut buffer).await {
            let _ = frozen.wait_for(|frozen| !frozen).await;
            if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    };
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(target).await else {
                continue;
            };
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            tokio::spawn(pump(client_read, server_write, frozen.clone()));
            tokio::spawn(pump(server_read, client_write, frozen.clone()));
        }
    });
    addr
}

#[tokio::test]
async fn garbage_on_the_mesh_port_harms_nobody() {
    let mut world = World::new(2).await;
    let container = world.container(1, "a").await;
    world.publish(&[&container]).await;
    let mesh = world.workers[1].mesh.clone();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0xff; 100], b""] {
        let mut stream = TcpStream::connect(mesh.mesh_addr()).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let _ = within(stream.read_to_end(&mut rest)).await;
    }
    until("all rejected", || mesh.counters().rejected == 4).await;
    assert_eq!(world.ask(0).await.unwrap(), "a");
}

#[tokio::test]
async fn another_worker_reaches_only_what_is_published_here() {
    let mut world = World::new(2).await;
    let here = world.container(0, "a").await;
    let elsewhere = world.container(1, "b").await;
    let unlisted = world.container(0, "c").await;
    world.publish(&[&here, &elsewhere]).await;
    let port = here.addr.port();
    for (task, target, expected) in [
        ("a", port, 0),
        ("a", port ^ 1, 1),
        ("b", elsewhere.addr.port(), 1),
        ("c", unlisted.addr.port(), 1),
        ("never-heard-of", port, 1),
    ] {
        let mut stream = dial(&world, Role::Worker, "node1").await.unwrap();
        stream.write_all(&request(task, target)).await.unwrap();
        stream.flush().await.unwrap();
        let status = within(stream.read_u8()).await.unwrap();
        assert_eq!(status, expected, "{task}:{target}");
    }
    assert_eq!(world.workers[0].mesh.counters().refused, 4);
}

#[tokio::test]
async fn a_malformed_request_of_a_worker_ends_the_connection() {
    let world = World::new(1).await;
    let mut too_long = request("a", 80);
    too_long[5] = 200;
    for bad in [[0xff; 80], too_long] {
        let mut stream = dial(&world, Role::Worker, "node1").await.unwrap();
        stream.write_all(&bad).await.unwrap();
        stream.flush().await.unwrap();
        assert!(within(stream.read_u8()).await.is_err());
    }
}

#[tokio::test]
async fn only_workers_of_this_cluster_are_let_in() {
    let world = World::new(1).await;
    let other = World::new(0).await;
    let strangers =
        [dial(&world, Role::Manager, "m").await, dial(&world, Role::Admin, "someone").await, {
            let tls = IdentityTls::new(&other.identity(Role::Worker, "node1"));
            let addr = world.workers[0].mesh.mesh_addr();
            tls.connect(addr, "node0", Duration::from_secs(5)).await
        }];
    for (n, stranger) in strangers.into_iter().enumerate() {
        // TLS 1.3 may tell only after the handshake that it was refused.
        let Ok(mut stream) = stranger else { continue };
        let _ = stream.write_all(&request("a", 80)).await;
        let _ = stream.flush().await;
        assert!(within(stream.read_u8()).await.is_err(), "stranger {n}");
    }
    let addr = world.workers[0].mesh.mesh_addr();
    let tls = IdentityTls::new(&world.identity(Role::Worker, "node1"));
    let impostor = tls.connect(addr, "node7", Duration::from_secs(5)).await;
    assert!(impostor.is_err(), "node0 is not node7");
}

async fn dial(world: &World, role: Role, node_id: &str) -> std::io::Result<BoxStream> {
    let tls = Arc::new(IdentityTls::new(&world.identity(role, node_id)));
    let addr = world.workers[0].mesh.mesh_addr();
    tls.connect(addr, "node0", Duration::from_secs(5)).await
}

/// The documented bytes, written out by hand on purpose.
fn request(task: &str, target: u16) -> [u8; 80] {
    let mut bytes = [0; 80];
    bytes[..4].copy_from_slice(b"CMSH");
    bytes[4] = 1;
    bytes[5] = task.len() as u8;
    bytes[6..8].copy_from_slice(&target.to_be_bytes());
    bytes[16..16 + task.len()].copy_from_slice(task.as_bytes());
    bytes
}
