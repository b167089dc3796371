use clap::Parser;

use super::*;
use crate::Cli;
use crate::cli::Command;
use crate::commands::service::Verb;
use crate::values::mount::mount;

/// A service with one of each.
fn before() -> pb::ServiceSpec {
    let container = pb::ContainerSpec {
        image: "web:1".into(),
        args: vec!["old".into()],
        env: vec!["A=1".into(), "B=2".into()],
        user: Some("1".into()),
        mounts: vec![mount("type=tmpfs,target=/tmp").unwrap()],
        ..Default::default()
    };
    pb::ServiceSpec {
        name: "web".into(),
        replicas: 2,
        labels: [("l".to_owned(), "1".to_owned())].into(),
        task: Some(pb::TaskSpec {
            container: Some(container),
            constraints: vec!["node.labels.z==q".into()],
            limits: Some(pb::Resources { cpu_nanos: 5, memory_bytes: 64 << 20 }),
            restart: Some(pb::RestartPolicy { delay_ms: Some(7), ..Default::default() }),
            ..Default::default()
        }),
        ports: vec![pb::PortSpec { published: 80, target: 8080, host: false }],
        ..Default::default()
    }
}

fn update(words: &[&str]) -> Result<pb::ServiceSpec, Error> {
    let line = ["clusterctl", "service", "update", "web"].iter().chain(words);
    let Command::Service(Verb::Update(args)) = Cli::try_parse_from(line).unwrap().command else {
        panic!("not an update")
    };
    let mut spec = before();
    change(&mut spec, &args)?;
    Ok(spec)
}

fn container(spec: &pb::ServiceSpec) -> &pb::ContainerSpec {
    spec.task.as_ref().unwrap().container.as_ref().unwrap()
}

#[test]
fn what_is_not_named_stays() {
    let spec = update(&["--image", "web:2", "--args", "--new 'x y'"]).unwrap();
    assert_eq!(container(&spec).image, "web:2");
    assert_eq!(container(&spec).args, ["--new", "x y"]);
    let mut back = spec;
    let changed = back.task.as_mut().unwrap().container.as_mut().unwrap();
    changed.image = "web:1".into();
    changed.args = vec!["old".into()];
    let mut expected = before();
    // Messages that were absent may have become present and empty: the same to the managers.
    expected.task.as_mut().unwrap().reservations = Some(pb::Resources::default());
    expected.task.as_mut().unwrap().health = Some(pb::Health::default());
    expected.update = Some(pb::UpdatePolicy::default());
    expected.rollback = Some(pb::UpdatePolicy::default());
    expected.job = Some(pb::JobPolicy::default());
    assert_eq!(back, expected);
}

#[test]
fn lists_are_added_to_and_taken_from() {
    let spec = update(&[
        "--env-add",
        "B=3",
        "--env-add",
        "C=4",
        "--env-rm",
        "A",
        "--label-add",
        "m=2",
        "--label-rm",
        "l",
        "--constraint-rm",
        "node.labels.z==q",
        "--constraint-add",
        "node.role==worker",
        "--mount-add",
        "type=volume,source=v,target=/tmp",
        "--publish-rm",
        "8080",
        "--publish-add",
        "81:81",
    ])
    .unwrap();
    assert_eq!(container(&spec).env, ["B=3", "C=4"]);
    assert_eq!(spec.labels.into_iter().collect::<Vec<_>>(), [("m".to_owned(), "2".to_owned())]);
    assert_eq!(spec.task.as_ref().unwrap().constraints, ["node.role==worker"]);
    let container = spec.task.as_ref().unwrap().container.as_ref().unwrap();
    assert_eq!(container.mounts.len(), 1);
    assert_eq!(container.mounts[0].source, "v");
    assert_eq!(spec.ports, [pb::PortSpec { published: 81, target: 81, host: false }]);
}

#[test]
fn a_published_port_gets_another_target() {
    let spec = update(&["--publish-add", "80:9090"]).unwrap();
    assert_eq!(spec.ports, [pb::PortSpec { published: 80, target: 9090, host: false }]);
}

#[test]
fn empty_values_take_settings_back() {
    let spec =
        update(&["--user", "", "--limit-memory", "0", "--restart-delay", "backoff", "--force"])
            .unwrap();
    let task = spec.task.as_ref().unwrap();
    assert_eq!(container(&spec).user, None);
    assert_eq!(task.limits.as_ref().unwrap().memory_bytes, 0);
    assert_eq!(task.limits.as_ref().unwrap().cpu_nanos, 5);
    assert_eq!(task.restart.as_ref().unwrap().delay_ms, None);
    assert_eq!(task.force_update, 1);
}

#[test]
fn removing_what_is_not_there_is_refused() {
    for flags in [
        ["--env-rm", "X"],
        ["--label-rm", "x"],
        ["--publish-rm", "80"],
        ["--mount-rm", "/x"],
        ["--constraint-rm", "node.labels.z==r"],
        ["--container-label-rm", "x"],
        ["--placement-pref-rm", "spread=node.labels.x"],
        ["--affinity-rm", "service=x"],
        ["--anti-affinity-rm", "service=x"],
        ["--generic-resource-rm", "x"],
    ] {
        let error = update(&flags).unwrap_err();
        assert!(error.message.contains(flags[0]), "{error}");
        assert_eq!(error.exit.code(), 1);
    }
}

#[test]
fn wishes_are_added_to_and_taken_from() {
    let add = [
        "--placement-pref-add=spread=node.labels.rack",
        "--affinity-add=service=db,weight=70",
        "--affinity-add=service=db,weight=20",
        "--anti-affinity-add=service=db",
        "--generic-resource-add=gpu=1",
        "--publish-add=mode=host,published=9000,target=90",
    ];
    let spec = update(&add).unwrap();
    let task = spec.task.as_ref().unwrap();
    assert_eq!(task.spread_over, ["node.labels.rack"]);
    let weights: Vec<i32> = task.affinities.iter().map(|affinity| affinity.weight).collect();
    assert_eq!(weights, [20, -50]);
    assert_eq!(task.generic["gpu"], 1);
    assert!(spec.ports[1].host);

    let take = [
        "--placement-pref-rm=spread=node.labels.rack",
        "--affinity-rm=service=db",
        "--generic-resource-rm=gpu",
        "--publish-rm=90",
    ];
    let line = ["clusterctl", "service", "update", "web"].iter().chain(&take);
    let Command::Service(Verb::Update(args)) = Cli::try_parse_from(line).unwrap().command else {
        panic!("not an update")
    };
    // Managers show ports of the host mode as the task's.
    let mut spec = spec;
    let host = spec.ports.pop().unwrap();
    spec.task.as_mut().unwrap().host_ports.push(host);
    change(&mut spec, &args).unwrap();
    let task = spec.task.as_ref().unwrap();
    assert!(task.spread_over.is_empty() && task.generic.is_empty());
    assert_eq!(task.affinities.len(), 1, "the anti-affinity stays");
    assert!(task.host_ports.is_empty());
    assert_eq!(spec.ports, [pb::PortSpec { published: 80, target: 8080, host: false }]);
}

#[test]
fn policies_are_taken_back() {
    let given = [
        "--update-canary=1",
        "--update-parallelism=2",
        "--health-tcp=80",
        "--restart-window=5m",
        "--replicas-max-per-node=3",
        "--placement-strategy=bin-pack",
        "--max-unavailable=2",
        "--on-disconnect=wait",
    ];
    let spec = update(&given).unwrap();
    let health = spec.task.as_ref().unwrap().health.as_ref().unwrap();
    assert!(health.liveness.is_some());
    let back = [
        "--update-canary=0",
        "--update-parallelism=",
        "--health-tcp=",
        "--restart-window=0",
        "--replicas-max-per-node=0",
        "--placement-strategy=",
        "--max-unavailable=",
        "--on-disconnect=",
    ];
    let line = ["clusterctl", "service", "update", "web"].iter().chain(&back);
    let Command::Service(Verb::Update(args)) = Cli::try_parse_from(line).unwrap().command else {
        panic!("not an update")
    };
    let mut spec = spec;
    change(&mut spec, &args).unwrap();
    let decode = |spec| cluster_wire::spec::service_spec_from_pb(spec).unwrap();
    assert_eq!(decode(spec), decode(before()));
}

#[test]
fn times_of_a_probe_change_alone_when_there_is_one() {
    let error = update(&["--readiness-interval=5s"]).unwrap_err();
    assert!(error.message.starts_with("--readiness-interval: there is nothing to check"));
    let spec = update(&["--readiness-tcp=80", "--readiness-interval=5s"]).unwrap();
    let probe = spec.task.unwrap().health.unwrap().readiness.unwrap();
    assert_eq!((probe.interval_ms, probe.timeout_ms), (Some(5_000), None));
}
