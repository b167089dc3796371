//! What does not decode is refused with its path and what to write; what decodes survives the way
//! there and back.

use cluster_model::spec::{Affinity, AffinityTarget, Amount, Check, Disconnect, Probe, Schedule};

use super::*;

fn spec() -> pb::ServiceSpec {
    let container = pb::ContainerSpec { image: "web:1".into(), ..Default::default() };
    pb::ServiceSpec {
        name: "web".into(),
        replicas: 2,
        task: Some(pb::TaskSpec { container: Some(container), ..Default::default() }),
        ..Default::default()
    }
}

type Edit = fn(&mut pb::ServiceSpec);

fn task(spec: &mut pb::ServiceSpec) -> &mut pb::TaskSpec {
    spec.task.as_mut().unwrap()
}

#[test]
fn refusals_name_the_field_and_the_mend() {
    use pb::service_spec::Mode;
    let bad: &[(&str, &str, Edit)] = &[
        ("task", "missing", |s| s.task = None),
        ("mode", "replicated-job", |s| s.mode = 99),
        ("replicas", "is 2", |s| s.mode = Mode::Global.into()),
        ("max_concurrent", "is 3", |s| s.max_concurrent = 3),
        ("update.parallelism", "2 or 25%", |s| {
            s.update = Some(pb::UpdatePolicy { parallelism: "-5%".into(), ..Default::default() });
        }),
        ("rollback.order", "start-first", |s| {
            s.rollback = Some(pb::UpdatePolicy { order: 9, ..Default::default() });
        }),
        ("max_unavailable", "2 or 25%", |s| s.max_unavailable = "half".into()),
        ("priority", "0 to 100", |s| s.priority = Some(101)),
        ("priority", "0 to 100", |s| s.priority = Some(u32::MAX)),
        ("disconnect", "stop-after=30s", |s| {
            s.disconnect = Some(pb::Disconnect { policy: 9, after_ms: 0 });
        }),
        ("strategy", "bin-pack", |s| task(s).strategy = "random".into()),
        ("constraints[0]", "node.labels", |s| task(s).constraints = vec!["rack==a".into()]),
        ("spread_over[0]", "node.labels", |s| task(s).spread_over = vec!["rack".into()]),
        ("affinities[0]", "db", |s| task(s).affinities = vec![pb::Affinity::default()]),
        ("affinities[0].weight", "50", |s| {
            let affinity = pb::Affinity { service: "db".into(), ..Default::default() };
            task(s).affinities = vec![affinity];
        }),
        ("affinities[0].weight", "50", |s| {
            let affinity = pb::Affinity { service: "db".into(), weight: 500, ..Default::default() };
            task(s).affinities = vec![affinity];
        }),
        ("health.startup", "8080/healthz", |s| {
            let health = pb::Health { startup: Some(pb::Probe::default()), ..Default::default() };
            task(s).health = Some(health);
        }),
        ("health.readiness.port", "1-65535", |s| {
            let tcp = pb::probe::Check::Tcp(pb::probe::Tcp { port: 70_000 });
            let probe = pb::Probe { check: Some(tcp), ..Default::default() };
            task(s).health = Some(pb::Health { readiness: Some(probe), ..Default::default() });
        }),
        ("ports[0].published", "1-65535", |s| {
            s.ports = vec![pb::PortSpec { published: 70_000, target: 80, host: false }];
        }),
        ("job.schedule.overlap", "forbid", |s| {
            let schedule = pb::Schedule { overlap: 9, ..Default::default() };
            s.job = Some(pb::JobPolicy { schedule: Some(schedule), ..Default::default() });
        }),
    ];
    for (field, mend, edit) in bad {
        let mut spec = spec();
        edit(&mut spec);
        let error = service_spec_from_pb(spec).expect_err(field);
        assert_eq!(error.field, *field);
        assert!(error.problem.contains(mend), "{error}");
    }
}

#[test]
fn specs_survive_the_way_there_and_back() {
    let mut model = service_spec_from_pb(spec()).unwrap();
    let same = |model: &ServiceSpec| {
        assert_eq!(service_spec_from_pb(service_spec_to_pb(model)).as_ref(), Ok(model));
    };
    same(&model);
    model.update.parallelism = Amount::Percent(25);
    model.update.progress_deadline_ms = None;
    model.rollback.canary = 3;
    model.disconnect = Disconnect::StopAfter { after_ms: 30_000 };
    model.max_unavailable = Amount::Count(0);
    model.job.ttl_after_finished_ms = Some(0);
    model.job.schedule = Some(Schedule {
        cron: "* * * * *".into(),
        time_zone: "Europe/Berlin".into(),
        overlap: Default::default(),
        starting_deadline_ms: Some(1),
        keep_succeeded: 0,
        keep_failed: 0,
    });
    model.task.health.startup = Some(Probe::new(Check::Exec(vec!["x".into()])));
    model.task.host_ports = vec![HostPort { published: 80, target: 8080 }];
    let node = AffinityTarget::Node("node.labels.a==b".parse().unwrap());
    model.task.placement.affinities = vec![Affinity { target: node, weight: -100 }];
    same(&model);
}
