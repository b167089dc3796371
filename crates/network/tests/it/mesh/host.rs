//! Ports of one machine that lead to one task.

use std::time::Duration;

use cluster_network::mesh::HostPort;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::world::{World, free_port, within};

#[tokio::test]
async fn a_host_port_leads_to_its_task_and_counts_until_it_is_idle() {
    let mut world = World::new(1).await;
    let a = world.container(0, "a").await;
    let other = world.container(0, "b").await;
    let (mesh, addr) = (world.workers[0].mesh.clone(), world.workers[0].addr);
    let port = HostPort { published: free_port(), target: a.addr.port() };
    mesh.open_host("a", &[port], false).await.unwrap();

    let mut stream = TcpStream::connect((addr, port.published)).await.unwrap();
    let mut name = [0; 2];
    within(stream.read_exact(&mut name)).await.unwrap();
    assert_eq!(&name, b"a\n");
    assert_eq!(mesh.open_connections("a"), 1);
    // Snapshots do not speak of it, and do not end it.
    world.publish(&[&other]).await;

    mesh.close_host("a").await;
    assert!(TcpStream::connect((addr, port.published)).await.is_err(), "nothing new comes");
    let busy = tokio::time::timeout(Duration::from_millis(100), mesh.drained("a")).await;
    assert!(busy.is_err(), "a connection is open");
    stream.write_all(b"x").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    within(stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "xbye");
    within(mesh.drained("a")).await;
}

#[tokio::test]
async fn a_port_in_use_is_named_and_none_of_the_others_is_kept() {
    let world = World::new(1).await;
    let (mesh, addr) = (world.workers[0].mesh.clone(), world.workers[0].addr);
    let taken = TcpListener::bind((addr, 0)).await.unwrap();
    let number = taken.local_addr().unwrap().port();
    let free = free_port();
    let ports = [free, number].map(|published| HostPort { published, target: 80 });
    let error = mesh.open_host("a", &ports, false).await.unwrap_err();
    assert_eq!(error.port, number);
    assert!(error.to_string().contains("in use"), "{error}");
    assert!(TcpStream::connect((addr, free)).await.is_err());
    // Of a task that runs already the port is opened as soon as it can be.
    mesh.open_host("a", &ports, true).await.unwrap();
    drop(taken);
    within(async {
        while TcpStream::connect((addr, number)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
