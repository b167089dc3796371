use clap::Parser;
use cluster_pb::types::v1::restart_policy::Condition;

use super::*;
use crate::Cli;
use crate::cli::Command;
use crate::commands::service::Verb;

fn spec(words: &[&str]) -> pb::ServiceSpec {
    let line = ["clusterctl", "service", "create"].iter().chain(words);
    let Command::Service(Verb::Create(args)) = Cli::try_parse_from(line).unwrap().command else {
        panic!("not a create")
    };
    build(&args).unwrap()
}

fn container(spec: &pb::ServiceSpec) -> &pb::ContainerSpec {
    spec.task.as_ref().unwrap().container.as_ref().unwrap()
}

#[test]
fn all_after_the_image_is_the_containers() {
    let spec = spec(&["--name", "a", "web:1", "--name", "b", "-p", "80", "--", "x"]);
    assert_eq!(spec.name, "a");
    assert_eq!(spec.replicas, 1);
    assert_eq!(container(&spec).image, "web:1");
    assert_eq!(container(&spec).args, ["--name", "b", "-p", "80", "--", "x"]);
}

#[test]
fn every_flag_reaches_its_field() {
    let spec = spec(&[
        "--replicas=3",
        "--publish",
        "8080:80/tcp",
        "-p",
        "90",
        "--env",
        "A=1",
        "-e",
        "B=x y",
        "--mount",
        "type=volume,source=v,target=/v",
        "--label",
        "l=1",
        "--container-label",
        "c=2",
        "--constraint",
        "node.labels.z==q",
        "--limit-cpu",
        "0.5",
        "--limit-memory",
        "64M",
        "--reserve-cpu",
        "0.25",
        "--reserve-memory",
        "32MiB",
        "--restart-condition",
        "on-failure",
        "--restart-delay",
        "5s",
        "--restart-max-attempts",
        "2",
        "--stop-grace-period",
        "1m",
        "--stop-signal",
        "SIGINT",
        "--user",
        "1:2",
        "--workdir",
        "/w",
        "--entrypoint",
        "sh -c 'a b'",
        "--hostname",
        "h",
        "--read-only",
        "--name",
        "web",
        "web:1",
    ]);
    let task = spec.task.as_ref().unwrap();
    let restart = task.restart.as_ref().unwrap();
    let container = container(&spec);
    assert_eq!((spec.name.as_str(), spec.replicas), ("web", 3));
    let port = |published, target| pb::PortSpec { published, target, host: false };
    assert_eq!(spec.ports, [port(8080, 80), port(0, 90)]);
    assert_eq!(container.env, ["A=1", "B=x y"]);
    assert_eq!(container.mounts[0].target, "/v");
    assert_eq!(spec.labels["l"], "1");
    assert_eq!(container.labels["c"], "2");
    assert_eq!(task.constraints, ["node.labels.z==q"]);
    let resources = |cpu_nanos, memory_bytes| Some(pb::Resources { cpu_nanos, memory_bytes });
    assert_eq!(task.limits, resources(500_000_000, 64 << 20));
    assert_eq!(task.reservations, resources(250_000_000, 32 << 20));
    assert_eq!(restart.condition(), Condition::OnFailure);
    assert_eq!((restart.delay_ms, restart.max_attempts), (Some(5_000), Some(2)));
    assert_eq!(container.stop_grace_period_ms, Some(60_000));
    assert_eq!(container.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(container.user.as_deref(), Some("1:2"));
    assert_eq!(container.workdir.as_deref(), Some("/w"));
    assert_eq!(container.hostname.as_deref(), Some("h"));
    assert_eq!(container.entrypoint, ["sh", "-c", "a b"]);
    assert!(container.read_only);
}

#[test]
fn what_is_built_is_what_managers_accept() {
    let spec = spec(&["--name", "web", "-p", "80:80", "web:1"]);
    let decoded = cluster_wire::spec::service_spec_from_pb(spec).unwrap();
    cluster_model::validate::service(&decoded).unwrap();
}

#[test]
fn a_name_is_made_from_the_image() {
    for (image, start) in
        [("web:1", "web-"), ("host:5000/a/b-c:1@sha256:ff", "b-c-"), ("///", "service-")]
    {
        let name = name_for(image);
        assert!(name.starts_with(start), "{image} became {name}");
        assert_eq!(name.len(), start.len() + 5);
        cluster_model::validate::name("name", &name).unwrap();
    }
}
