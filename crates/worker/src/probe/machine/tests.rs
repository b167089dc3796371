use cluster_model::spec::{Check, Probe};
use proptest::prelude::*;

use super::*;

fn probe(interval_ms: u64, retries: u32, start_period_ms: u64) -> Probe {
    Probe {
        interval_ms,
        retries,
        start_period_ms,
        start_interval_ms: 500,
        ..Probe::new(Check::Tcp { port: 80 })
    }
}

fn plan(startup: Option<Probe>, liveness: Option<Probe>, readiness: Option<Probe>) -> Plan {
    Plan { startup, liveness, readiness }
}

fn bad() -> Result<(), String> {
    Err("refused".to_owned())
}

/// Runs the machine with one answer for each probe, as the driver would, up to a moment.
fn run(machine: &mut Machine, now_ms: &mut u64, until_ms: u64, well: impl Fn(Kind, u64) -> bool) {
    let mut next: Vec<(Kind, u64)> = Vec::new();
    loop {
        for (kind, pause) in machine.due(*now_ms) {
            if !next.iter().any(|(other, _)| *other == kind) {
                next.push((kind, *now_ms + pause));
            }
        }
        next.sort_by_key(|(_, at)| *at);
        let Some((kind, at)) = next.first().copied().filter(|(_, at)| *at <= until_ms) else {
            *now_ms = until_ms;
            return;
        };
        next.remove(0);
        *now_ms = at;
        machine.took(kind, at, if well(kind, at) { Ok(()) } else { bad() });
        if matches!(machine.standing(), Standing::Unhealthy(_)) {
            return;
        }
    }
}

#[test]
fn liveness_alone_gates_the_start_decides_about_traffic_and_ends_the_task() {
    let mut machine = Machine::new(plan(None, Some(probe(1000, 3, 0)), None), 0);
    let mut now = 0;
    run(&mut machine, &mut now, 90, |_, _| true);
    assert_eq!(machine.standing(), Standing::Starting);
    run(&mut machine, &mut now, 200, |_, _| true);
    assert_eq!(machine.standing(), Standing::Ready, "a quick start is seen soon");
    // Two failures are none.
    run(&mut machine, &mut now, 2300, |_, _| false);
    assert_eq!(machine.standing(), Standing::Ready);
    run(&mut machine, &mut now, 4000, |_, _| false);
    assert_eq!(machine.standing(), Standing::Unhealthy("refused".into()));
}

#[test]
fn failures_of_the_start_period_do_not_count_and_its_checks_come_faster() {
    let mut machine = Machine::new(plan(None, Some(probe(60_000, 1, 8000)), None), 0);
    let mut now = 0;
    run(&mut machine, &mut now, 7900, |_, at| at > 7000);
    assert_eq!(machine.standing(), Standing::Ready);
    // After a success they do.
    let mut machine = Machine::new(plan(None, Some(probe(1000, 1, 8000)), None), 0);
    machine.took(Kind::Liveness, 100, Ok(()));
    machine.took(Kind::Liveness, 1100, bad());
    assert!(matches!(machine.standing(), Standing::Unhealthy(_)));
}

#[test]
fn a_startup_probe_holds_the_others_back() {
    let all = plan(Some(probe(1000, 5, 0)), Some(probe(1000, 1, 0)), Some(probe(1000, 2, 0)));
    let mut machine = Machine::new(all.clone(), 0);
    assert_eq!(machine.due(0).iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [Kind::Startup]);
    let mut now = 0;
    run(&mut machine, &mut now, 4000, |_, _| false);
    assert_eq!(machine.standing(), Standing::Starting);
    machine.took(Kind::Startup, 4100, Ok(()));
    assert!(matches!(machine.standing(), Standing::NotReady(_)), "readiness has not spoken");
    assert_eq!(machine.due(4100).len(), 2);
    machine.took(Kind::Readiness, 4200, Ok(()));
    assert_eq!(machine.standing(), Standing::Ready);

    let mut machine = Machine::new(all, 0);
    let mut now = 0;
    run(&mut machine, &mut now, 60_000, |_, _| false);
    assert!(matches!(machine.standing(), Standing::Unhealthy(_)));
    assert!((5000..7000).contains(&now), "after the first interval and five failures: {now}");
}

#[test]
fn readiness_comes_and_goes_and_ends_nothing() {
    let mut machine = Machine::new(plan(None, None, Some(probe(1000, 2, 0))), 0);
    let mut now = 0;
    run(&mut machine, &mut now, 60_000, |_, _| false);
    assert_eq!(machine.standing(), Standing::Starting);
    run(&mut machine, &mut now, 62_000, |_, _| true);
    assert_eq!(machine.standing(), Standing::Ready);
    run(&mut machine, &mut now, 63_100, |_, _| false);
    assert_eq!(machine.standing(), Standing::Ready);
    run(&mut machine, &mut now, 80_000, |_, _| false);
    assert_eq!(machine.standing(), Standing::NotReady("refused".into()));
    run(&mut machine, &mut now, 81_100, |_, _| true);
    assert_eq!(machine.standing(), Standing::Ready);
}

#[test]
fn a_check_that_cannot_be_made_says_nothing_and_a_start_in_vain_says_why() {
    let mut machine = Machine::new(plan(None, Some(probe(1000, 1, 0)), None), 0);
    machine.took(Kind::Liveness, 100, Ok(()));
    for _ in 0..100 {
        machine.missed(Kind::Liveness, "no shim");
    }
    assert_eq!(machine.standing(), Standing::Ready);
    assert_eq!(machine.reason(), None, "it runs");

    let mut machine = Machine::new(plan(None, None, Some(probe(1000, 5, 0))), 0);
    machine.took(Kind::Readiness, 100, bad());
    assert_eq!(machine.reason(), None, "the first checks mostly come too soon");
    for at in [300, 700] {
        machine.took(Kind::Readiness, at, bad());
    }
    assert_eq!(machine.reason().as_deref(), Some("readiness: refused"));
    machine.missed(Kind::Readiness, "no shim");
    assert_eq!(machine.reason().as_deref(), Some("readiness: not known: no shim"));
    machine.took(Kind::Readiness, 5000, Ok(()));
    assert_eq!(machine.reason(), None);
}

#[test]
fn liveness_does_not_wait_for_readiness() {
    let both = plan(None, Some(probe(1000, 2, 0)), Some(probe(1000, 2, 0)));
    let mut machine = Machine::new(both, 0);
    let mut now = 0;
    run(&mut machine, &mut now, 10_000, |kind, _| kind == Kind::Liveness);
    assert_eq!(machine.standing(), Standing::Starting, "not ready, but alive");
    run(&mut machine, &mut now, 20_000, |_, _| false);
    assert!(matches!(machine.standing(), Standing::Unhealthy(_)));
}

#[test]
fn an_adopted_task_does_not_start_again() {
    let all = plan(Some(probe(1000, 5, 0)), Some(probe(1000, 2, 60_000)), None);
    let mut machine = Machine::adopted(all, 5000, true);
    assert_eq!(machine.standing(), Standing::Ready);
    assert_eq!(machine.due(5000), [(Kind::Liveness, 1000)]);
    let mut now = 5000;
    run(&mut machine, &mut now, 8000, |_, _| false);
    assert!(matches!(machine.standing(), Standing::Unhealthy(_)), "no leniency a second time");
}

fn probes() -> impl Strategy<Value = Option<Probe>> {
    let times = (1u64..5000, 1u32..5, 0u64..10_000);
    proptest::option::of(
        times.prop_map(|(interval, retries, start)| probe(interval, retries, start)),
    )
}

proptest! {
    /// Whatever the probes: a task that is well becomes ready soon and stays so, one whose liveness
    /// or startup fails is found out, and only then.
    #[test]
    fn verdicts_follow_from_results(
        startup in probes(), liveness in probes(), readiness in probes(), dies_at in 0u64..40_000,
    ) {
        let plan = plan(startup, liveness, readiness);
        prop_assume!(!plan.is_empty());
        let mut machine = Machine::new(plan.clone(), 0);
        let mut now = 0;
        run(&mut machine, &mut now, 2000, |_, _| true);
        prop_assert_eq!(machine.standing(), Standing::Ready);
        run(&mut machine, &mut now, 100_000, |_, _| true);
        prop_assert_eq!(machine.standing(), Standing::Ready);

        let mut machine = Machine::new(plan.clone(), 0);
        let mut now = 0;
        run(&mut machine, &mut now, 200_000, |_, at| at < dies_at);
        let ends = matches!(machine.standing(), Standing::Unhealthy(_));
        let never_started = plan.startup.is_some() && !starts_before(&plan, dies_at);
        prop_assert_eq!(ends, plan.liveness.is_some() || never_started);
    }

    /// It never leaves the start to come back to it, and nothing follows the end.
    #[test]
    fn standings_move_forward(
        startup in probes(), liveness in probes(), readiness in probes(),
        results in prop::collection::vec((0usize..3, any::<bool>(), 1u64..3000), 0..60),
    ) {
        let mut machine = Machine::new(plan(startup, liveness, readiness), 0);
        let mut now = 0;
        let mut before = machine.standing();
        for (kind, well, passed) in results {
            now += passed;
            let kind = [Kind::Startup, Kind::Liveness, Kind::Readiness][kind];
            machine.took(kind, now, if well { Ok(()) } else { bad() });
            let after = machine.standing();
            if matches!(before, Standing::Unhealthy(_)) {
                prop_assert_eq!(&after, &before);
            }
            if before != Standing::Starting {
                prop_assert_ne!(&after, &Standing::Starting);
            }
            before = after;
        }
    }
}

/// Whether the startup probe had succeeded before the task went bad.
fn starts_before(plan: &Plan, dies_at: u64) -> bool {
    let only = Plan { startup: plan.startup.clone(), ..Plan::default() };
    let mut machine = Machine::new(only, 0);
    let mut now = 0;
    run(&mut machine, &mut now, dies_at.saturating_sub(1), |_, _| true);
    machine.standing() != Standing::Starting
}
