//! The bridge against a real kernel.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster_network::bridge::Error;
use cluster_network::{Attachment, Bridge, BridgeConfig, Notice};

use super::netns::{inside, machine, sh};

async fn ensure(dir: &Path) -> Bridge {
    Bridge::ensure(BridgeConfig::new(dir.join("netns"))).await.unwrap()
}

/// Listens in the container and answers each client with the client's address.
async fn answer(attachment: &Attachment, port: u16) {
    let ip = attachment.ip;
    let listener = inside(&attachment.netns, move || TcpListener::bind((ip, port))).await;
    let listener = listener.unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let peer = client.peer_addr().unwrap().ip().to_string();
            let _ = client.write_all(peer.as_bytes());
        }
    });
}

fn ask(ip: Ipv4Addr, port: u16) -> std::io::Result<IpAddr> {
    let patience = Duration::from_millis(1500);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((ip, port)), patience)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.parse().unwrap())
}

#[test]
fn containers_reach_each_other_and_the_machine_reaches_them() {
    machine(|dir| async move {
        let bridge = ensure(&dir).await;
        assert_eq!(bridge.notices(), &[]);
        let a = bridge.attach("a").await.unwrap();
        let b = bridge.attach("b").await.unwrap();
        assert_eq!(a.ip, Ipv4Addr::new(10, 88, 0, 2));
        assert_eq!((a.gateway, a.prefix_len), (Ipv4Addr::new(10, 88, 0, 1), 16));
        answer(&a, 80).await;
        let (ip, netns) = (a.ip, b.netns.clone());
        let from_b = inside(&netns, move || ask(ip, 80)).await.unwrap();
        assert_eq!(from_b, IpAddr::V4(b.ip));
        assert_eq!(ask(a.ip, 80).unwrap(), IpAddr::V4(a.gateway));
    });
}

#[test]
fn a_container_has_what_programs_expect() {
    machine(|dir| async move {
        let bridge = ensure(&dir).await;
        let a = bridge.attach("a").await.unwrap();
        let seen = inside(&a.netns, || {
            let read = |key: &str| std::fs::read_to_string(format!("/proc/sys/net/{key}")).unwrap();
            let low_ports = read("ipv4/ip_unprivileged_port_start");
            assert_eq!(low_ports.trim(), "0");
            assert_eq!(read("ipv4/ping_group_range").trim(), "0\t2147483647");
            assert!(TcpListener::bind("127.0.0.1:0").is_ok(), "loopback is up");
            sh("ip -o addr; ip route; ip -o link show eth0")
        })
        .await;
        assert!(seen.contains("10.88.0.2/16"), "{seen}");
        assert!(seen.contains("default via 10.88.0.1 dev eth0"), "{seen}");
        assert!(seen.contains("02:42:0a:58:00:02"), "{seen}");
        assert!(!seen.contains("fe80"), "{seen}");
    });
}

#[test]
fn attaching_and_detaching_twice_is_like_once() {
    machine(|dir| async move {
        let bridge = ensure(&dir).await;
        let first = bridge.attach("a").await.unwrap();
        assert_eq!(bridge.attach("a").await.unwrap(), first);
        assert_eq!(bridge.attachment("a"), Some(first.clone()));
        bridge.detach("a").await.unwrap();
        bridge.detach("a").await.unwrap();
        bridge.detach("never-there").await.unwrap();
        assert!(!first.netns.exists());
        assert!(!sh("ip -o link").contains(&first.host_device));
        let second = bridge.attach("a").await.unwrap();
        assert_ne!(second.ip, first.ip, "an address rests after use");
        for id in ["", "../a", "a/b", "a b", &"x".repeat(65)] {
            assert!(matches!(bridge.attach(id).await, Err(Error::BadId(_))), "{id}");
        }
    });
}

#[test]
fn a_successor_adopts_what_is_wanted_and_removes_the_rest() {
    machine(|dir| async move {
        let bridge = ensure(&dir).await;
        let a = bridge.attach("a").await.unwrap();
        let b = bridge.attach("b").await.unwrap();
        let broken = bridge.attach("broken").await.unwrap();
        answer(&a, 80).await;
        drop(bridge);
        // What crashes and people leave: a file that pins nothing, a cable
        // without a container, a namespace without a cable.
        std::fs::write(dir.join("netns/leftover"), "").unwrap();
        sh(&format!("ip link del {}", broken.host_device));
        sh("ip link del cluster0");

        let bridge = ensure(&dir).await;
        sh("ip link add cvloose type veth peer name other && ip link set cvloose master cluster0");
        assert_eq!(bridge.attachment("a"), Some(a.clone()));
        let live = HashSet::from(["a".to_owned(), "broken".to_owned(), "unknown".to_owned()]);
        let kept = bridge.recover(&live).await.unwrap();
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), [("a".to_owned(), a.clone())]);
        assert_eq!(files(&dir), ["a"]);
        let links = sh("ip -o link");
        assert!(!links.contains("cvloose") && !links.contains(&b.host_device), "{links}");
        assert!(ask(a.ip, 80).is_ok(), "an adopted container keeps its connections");

        let again = bridge.attach("broken").await.unwrap();
        assert!(![a.ip, b.ip].contains(&again.ip));
        assert_eq!(bridge.attach("a").await.unwrap(), a);
    });
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("netns")).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_namespace_removed_by_hand_is_made_again() {
    machine(|dir| async move {
        let bridge = ensure(&dir).await;
        let a = bridge.attach("a").await.unwrap();
        sh(&format!("umount {0} && rm {0}", a.netns.display()));
        let again = bridge.attach("a").await.unwrap();
        answer(&again, 80).await;
        assert!(ask(again.ip, 80).is_ok());
    });
}

/// A second machine on a cable, with a route to the containers.
async fn outside(bridge: &Bridge, dir: &Path) -> PathBuf {
    let netns = dir.join("outside");
    let path = netns.display().to_string();
    sh(&format!("touch {path} && unshare --net={path} true"));
    sh("ip link add wire type veth peer name far && ip addr add 192.0.2.1/24 dev wire");
    sh(&format!("ip link set wire up && nsenter --net={path} ip link set lo up"));
    let far = std::fs::File::open(&netns).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&far);
    sh(&format!("ip link set far netns /proc/{}/fd/{number}", std::process::id()));
    let subnet = bridge.config().subnet;
    sh(&format!(
        "nsenter --net={path} sh -c 'ip addr add 192.0.2.2/24 dev far && ip link set far up && \
         ip route add {subnet} via 192.0.2.1'"
    ));
    netns
}

#[test]
fn containers_reach_the_world_as_the_machine_and_the_world_does_not_reach_them() {
    machine(|dir| async move {
        let bridge = ensure(&dir).await;
        let outside = outside(&bridge, &dir).await;
        let a = bridge.attach("a").await.unwrap();
        answer(&a, 80).await;
        let world =
            Attachment { netns: outside.clone(), ip: Ipv4Addr::new(192, 0, 2, 2), ..a.clone() };
        answer(&world, 8080).await;
        let (to, ip) = (world.ip, a.ip);
        let seen = inside(&a.netns, move || ask(to, 8080)).await.unwrap();
        assert_eq!(seen, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
        let refused = inside(&outside, move || ask(ip, 80)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TimedOut);
        // The same way works without our rules, so it was they that refused.
        sh("nft flush ruleset");
        assert!(inside(&outside, move || ask(ip, 80)).await.is_ok());
        assert_eq!(bridge.reload_rules().await, []);
        assert!(inside(&outside, move || ask(ip, 80)).await.is_err());
    });
}

#[test]
fn works_with_a_word_where_nft_is_missing_or_somebody_drops() {
    machine(|dir| async move {
        sh("nft 'add table ip other; add chain ip other f \
            { type filter hook forward priority 0; policy drop; }'");
        let bridge = ensure(&dir).await;
        let table = "ip other".to_owned();
        assert_eq!(bridge.notices(), [Notice::ForwardDropped { table }]);
        sh("mount --bind /dev/null /usr/sbin/nft");
        let bridge = ensure(&dir).await;
        assert!(matches!(bridge.notices(), [Notice::NoPacketFilter { .. }]));
        let a = bridge.attach("a").await.unwrap();
        answer(&a, 80).await;
        assert!(ask(a.ip, 80).is_ok());
    });
}

#[test]
fn says_which_name_or_subnet_is_taken() {
    machine(|dir| async move {
        let mut config = BridgeConfig::new(dir.join("netns"));
        sh("ip link add cluster0 type veth peer name peer0");
        let error = Bridge::ensure(config.clone()).await.unwrap_err();
        assert!(matches!(error, Error::NameTaken(name) if name == "cluster0"));
        config.bridge_name = "cluster1".to_owned();
        sh("ip addr add 10.88.3.1/24 dev peer0 && ip link set peer0 up");
        let error = Bridge::ensure(config.clone()).await.unwrap_err();
        assert!(
            matches!(&error, Error::SubnetTaken { device, .. } if device == "peer0"),
            "{error}"
        );
        config.subnet = "10.99.0.0/24".parse().unwrap();
        Bridge::ensure(config).await.unwrap();
    });
}

#[test]
fn many_at_once_get_addresses_of_their_own_and_destroy_leaves_nothing() {
    machine(|dir| async move {
        let bridge = ensure(&dir).await;
        let ids: Vec<String> = (0..60).map(|n| format!("container-{n}")).collect();
        let start = Instant::now();
        let attaching = ids.iter().map(|id| bridge.attach(id));
        let attached = futures::future::join_all(attaching).await;
        println!("60 attached in {:?}", start.elapsed());
        let ips: HashSet<_> = attached.into_iter().map(|a| a.unwrap().ip).collect();
        assert_eq!(ips.len(), 60);
        bridge.destroy().await.unwrap();
        assert_eq!(files(&dir), Vec::<String>::new());
        assert_eq!(sh("ip -o link").lines().count(), 1);
        assert_eq!(sh("nft list tables"), "");
    });
}
