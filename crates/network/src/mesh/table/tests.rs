use super::super::endpoints::PublishedPort;
use super::*;

fn snapshot(version: u64, tasks: &[&str]) -> Endpoints {
    let backends = tasks.iter().map(|task| Backend {
        task_id: (*task).to_owned(),
        node_id: format!("node-of-{task}"),
        node_mesh_addr: ([127, 0, 0, 1], 1).into(),
        target_port: 8080,
    });
    Endpoints {
        version,
        ports: vec![PublishedPort {
            published: 80,
            service_id: "s".to_owned(),
            service_name: "web".to_owned(),
            backends: backends.collect(),
        }],
    }
}

fn table(tasks: &[&str]) -> Table {
    let mut table = Table::new(Duration::from_secs(1), CancellationToken::new());
    assert!(table.replace(&snapshot(1, tasks)));
    table
}

fn turns(table: &mut Table, count: usize, now: Instant) -> Vec<String> {
    (0..count)
        .map(|_| {
            let start = table.take_turn(80, now);
            let next = table.next(80, start, &HashSet::new(), now);
            next.unwrap().task_id.clone()
        })
        .collect()
}

#[test]
fn takes_turns_and_keeps_its_place_over_a_new_snapshot() {
    let mut table = table(&["b", "a"]);
    let now = Instant::now();
    assert_eq!(turns(&mut table, 3, now), ["a", "b", "a"]);
    table.replace(&snapshot(2, &["a", "b"]));
    assert_eq!(turns(&mut table, 2, now), ["b", "a"]);
}

#[test]
fn suspects_come_last_and_the_others_share_evenly() {
    let mut table = table(&["a", "b", "c"]);
    let now = Instant::now();
    table.suspect(Suspect::Task("b".into()), now);
    assert_eq!(turns(&mut table, 4, now), ["a", "c", "a", "c"]);
    let tried = HashSet::from(["a".to_owned(), "c".to_owned()]);
    let last = table.next(80, 0, &tried, now).unwrap();
    assert_eq!(last.task_id, "b");
    let later = now + Duration::from_millis(1001);
    assert!(turns(&mut table, 3, later).contains(&"b".to_owned()));
}

#[test]
fn holds_failures_against_a_suspect_for_longer_each_time_but_not_for_ever() {
    let mut table = table(&["a"]);
    let task = Suspect::Task("a".into());
    let mut now = Instant::now();
    let mut pauses = Vec::new();
    for _ in 0..40 {
        table.suspect(task.clone(), now);
        table.suspect(task.clone(), now);
        let pause = table.suspects[&task].until - now;
        pauses.push(pause.as_secs());
        now += pause;
    }
    assert_eq!(pauses[..4], [1, 2, 4, 8]);
    assert_eq!(pauses[39], 8);
    table.trust(&task);
    assert!(table.suspects.is_empty());
    assert_eq!(turns(&mut table, 1, now), ["a"]);
}

#[test]
fn refuses_to_go_back() {
    let mut table = table(&["a"]);
    table.replace(&snapshot(7, &["a", "b"]));
    assert!(!table.replace(&snapshot(6, &[])));
    assert_eq!(table.service_of(80), Some(("web", 2)));
    assert_eq!(table.version, 7);
}

#[test]
fn an_attempt_at_a_removed_task_is_stopped_and_never_becomes_a_connection() {
    let mut table = table(&["a", "b"]);
    let via = Via::Published(80);
    let tokens = table.begin(via, "a", Some("node-of-a")).unwrap();
    table.replace(&snapshot(2, &["b"]));
    assert!(tokens.stop_dialing.is_cancelled());
    assert!(!tokens.cut.is_cancelled());
    assert!(table.has_stale_dials());
    assert!(!table.promote(via, "a"));
    table.end_dial("a", Some("node-of-a"));
    assert!(!table.has_stale_dials() && table.is_idle("a"));
    assert!(table.begin(via, "a", Some("node-of-a")).is_none());
}

#[test]
fn established_connections_outlive_removal_but_not_their_node() {
    let mut table = table(&["a", "b"]);
    let via = Via::Published(80);
    let tokens = table.begin(via, "a", Some("node-of-a")).unwrap();
    assert!(table.promote(via, "a"));
    table.replace(&snapshot(2, &["b"]));
    assert_eq!(table.open("a"), 1);
    assert!(!tokens.cut.is_cancelled());
    table.lose_node("node-of-a");
    assert!(tokens.cut.is_cancelled());
    table.end_open("a", Some("node-of-a"));
    assert!(!table.is_node_used("node-of-a"));
    assert!(table.is_idle("a"));
}

#[test]
fn a_peer_reaches_only_local_tasks_on_their_published_target_port() {
    let mut table = table(&["a", "b"]);
    table.set_local("a", Ipv4Addr::LOCALHOST);
    assert!(table.begin(Via::Peer(8080), "a", None).is_some());
    assert!(table.begin(Via::Peer(22), "a", None).is_none());
    assert!(table.begin(Via::Peer(8080), "b", None).is_none());
    assert!(table.begin(Via::Peer(8080), "zzz", None).is_none());
}
