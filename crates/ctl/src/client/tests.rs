use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use cluster_identity::{Ca, Context, Role, Subject, now_unix};
use cluster_wire::{Code, Failure};

use crate::testing::fake::{FakeManager, Script};
use crate::testing::{Ran, ca, clusterctl, context};

const HOUR: u64 = 3600;

fn to(ca: &Ca, addresses: &[SocketAddr]) -> Context {
    context(ca, "test", addresses.iter().map(ToString::to_string).collect())
}

/// A port that refuses.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn failing(code: Code) -> Script {
    Script { fail: Some(Failure::new(code, "told so")), ..Default::default() }
}

fn info(context: &Context) -> Ran {
    clusterctl(context, &["cluster", "info", "--quiet"])
}

#[test]
fn the_next_manager_is_asked_when_one_is_away() {
    let ca = ca("c1");
    let manager = FakeManager::start(&ca, Script::default());
    let ran = info(&to(&ca, &[closed(), manager.address]));
    assert_eq!((ran.code, ran.out.as_str()), (0, "c1\n"), "{}", ran.err);
}

#[test]
fn a_silent_machine_costs_little() {
    let ca = ca("c1");
    // Accepts in the kernel and says nothing, as a frozen manager does.
    let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
    let manager = FakeManager::start(&ca, Script::default());
    let begin = Instant::now();
    let ran = info(&to(&ca, &[frozen.local_addr().unwrap(), manager.address]));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[test]
fn nobody_there_names_every_address() {
    let ca = ca("c1");
    let (first, second) = (closed(), closed());
    let ran = info(&to(&ca, &[first, second]));
    assert_eq!(ran.code, 3);
    for address in [first, second] {
        assert!(ran.err.contains(&address.to_string()), "{}", ran.err);
    }
    assert!(ran.err.contains("refused") && ran.err.contains("hint"), "{}", ran.err);
}

/// Busy means that nothing was done: the same manager is asked again, after a wait.
#[test]
fn a_manager_with_too_much_to_do_is_asked_again() {
    let ca = ca("c1");
    let manager = FakeManager::start(&ca, Script { busy: 2, ..Default::default() });
    let ran = info(&to(&ca, &[manager.address]));
    assert_eq!((ran.code, ran.out.as_str()), (0, "c1\n"), "{}", ran.err);
    assert_eq!(manager.script.lock().unwrap().asked, 3);

    // As long as the user waits, and then it says so.
    manager.script.lock().unwrap().busy = usize::MAX;
    let context = to(&ca, &[manager.address]);
    let ran = clusterctl(&context, &["--timeout", "500ms", "cluster", "info"]);
    assert_ne!(ran.code, 0);
    assert!(ran.err.contains("E0304"), "{}", ran.err);
}

#[test]
fn time_runs_out_in_silence() {
    let ca = ca("c1");
    let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
    let context = to(&ca, &[frozen.local_addr().unwrap()]);
    let begin = Instant::now();
    let ran = clusterctl(&context, &["--timeout", "300ms", "cluster", "info"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("did not answer"), "{}", ran.err);
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[test]
fn another_clusters_manager_is_not_believed() {
    let (ours, theirs) = (ca("c1"), ca("c2"));
    let manager = FakeManager::start(&theirs, Script::default());
    let ran = info(&to(&ours, &[manager.address]));
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("another cluster"), "{}", ran.err);
    assert_eq!(manager.script.lock().unwrap().asked, 0);
}

#[test]
fn a_port_that_is_no_managers_is_named() {
    let ca = ca("c1");
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = web.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = web.accept().unwrap();
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let ran = info(&to(&ca, &[address]));
    served.join().unwrap();
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("does not speak TLS") && ran.err.contains("addresses"), "{}", ran.err);
}

#[test]
fn an_expired_certificate_is_said_before_anything_is_dialled() {
    let ca = ca("c1");
    let subject = Subject { role: Role::Admin, node_id: "a1".into(), cluster_id: "c1".into() };
    let long_ago = now_unix() - 48 * HOUR;
    let identity = ca.issue(&subject, long_ago, Duration::from_secs(HOUR)).unwrap();
    let manager = FakeManager::start(&ca, Script::default());
    let context = Context::new("old", vec![manager.address.to_string()], &identity).unwrap();
    let ran = info(&context);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("expired") && ran.err.contains("admin.json"), "{}", ran.err);
}

#[test]
fn a_manager_without_a_leader_passes_the_question_on() {
    let ca = ca("c1");
    let lost = FakeManager::start(&ca, failing(Code::NoLeader));
    let good = FakeManager::start(&ca, Script::default());
    let context = to(&ca, &[lost.address, good.address]);
    let ran = clusterctl(&context, &["service", "create", "--detach", "web:1"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(good.script.lock().unwrap().created.len(), 1);

    let ran = info(&to(&ca, &[lost.address]));
    assert_eq!(ran.code, 3);
    assert!(ran.err.starts_with("error[E0301]: told so"), "{}", ran.err);
}

#[test]
fn a_write_of_unknown_fate_is_never_repeated() {
    let ca = ca("c1");
    let first = FakeManager::start(&ca, failing(Code::UnknownOutcome));
    let second = FakeManager::start(&ca, Script::default());
    let context = to(&ca, &[first.address, second.address]);
    let ran = clusterctl(&context, &["service", "create", "--detach", "web:1"]);
    assert_eq!(ran.code, 4);
    assert!(ran.err.contains("error[E0302]") && ran.err.contains("may or may not"), "{}", ran.err);
    assert_eq!(second.script.lock().unwrap().asked, 0);
}

#[test]
fn no_answer_in_time_is_code_4() {
    let ca = ca("c1");
    let manager = FakeManager::start(&ca, Script { silent: true, ..Default::default() });
    let context = to(&ca, &[manager.address]);
    let line = ["--timeout", "500ms", "service", "create", "--detach", "web:1"];
    let ran = clusterctl(&context, &line);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("may or may not"), "{}", ran.err);
}

#[test]
fn a_refusal_is_code_1_with_code_and_hint() {
    let ca = ca("c1");
    let manager = FakeManager::start(&ca, failing(Code::PortTaken));
    let ran = clusterctl(&to(&ca, &[manager.address]), &["service", "create", "web:1"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(
        ran.err.starts_with("error[E0104]: told so\nhint: publish another port"),
        "{}",
        ran.err
    );
}
