use proptest::prelude::*;

use super::*;

const FRESH: Facts = Facts {
    image: false,
    attached: false,
    container: Container::Absent,
    settled: false,
    withdrawn: true,
    drained: true,
    doomed: false,
    stopping: Stopping::NotAsked,
};

/// Does an action as a fault-free node would, at once.
fn perform(action: Action, facts: &mut Facts) {
    match action {
        Action::Wait | Action::Forget => {}
        Action::EnsureImage => facts.image = true,
        Action::Attach => facts.attached = true,
        Action::Create => facts.container = Container::Created,
        Action::Start => facts.container = Container::Running,
        Action::AwaitWithdrawal => facts.withdrawn = true,
        Action::Drain => facts.drained = true,
        Action::Stop => facts.stopping = Stopping::Asked,
        Action::Kill => {
            facts.stopping = Stopping::Killed;
            facts.container = Container::Exited;
        }
        Action::Settle => facts.settled = true,
        Action::Remove => facts.container = Container::Absent,
        Action::Detach => facts.attached = false,
    }
}

fn run(goal: Goal, facts: &mut Facts) -> Vec<Action> {
    let mut done = Vec::new();
    loop {
        let action = step(goal, facts);
        if matches!(action, Action::Wait | Action::Forget) {
            done.push(action);
            return done;
        }
        assert!(done.len() < 20, "no end: {done:?}");
        done.push(action);
        perform(action, facts);
    }
}

#[test]
fn a_task_is_prepared_waits_and_runs() {
    use Action::*;
    let mut facts = FRESH;
    assert_eq!(run(Goal::Ready, &mut facts), [EnsureImage, Attach, Create, Wait]);
    assert_eq!(run(Goal::Running, &mut facts), [Start, Wait]);
}

#[test]
fn a_running_task_leaves_the_balancers_before_its_stop_signal() {
    use Action::*;
    let mut facts = FRESH;
    run(Goal::Running, &mut facts);
    facts.withdrawn = false;
    facts.drained = false;
    assert_eq!(run(Goal::Stopped, &mut facts), [AwaitWithdrawal, Drain, Stop, Wait]);
    facts.stopping = Stopping::Overdue;
    assert_eq!(run(Goal::Stopped, &mut facts), [Kill, Settle, Detach, Wait]);
    assert_eq!(run(Goal::Gone, &mut facts), [Remove, Forget]);
}

#[test]
fn a_doomed_task_is_ended_at_once_whatever_is_wanted() {
    use Action::*;
    let mut facts = FRESH;
    run(Goal::Running, &mut facts);
    facts = Facts { doomed: true, withdrawn: false, drained: false, ..facts };
    assert_eq!(run(Goal::Running, &mut facts), [Stop, Wait]);
    facts.stopping = Stopping::Overdue;
    assert_eq!(run(Goal::Running, &mut facts), [Kill, Settle, Detach, Wait]);
}

#[test]
fn an_exit_is_settled_whatever_is_wanted_and_never_started_again() {
    for goal in [Goal::Ready, Goal::Running, Goal::Stopped, Goal::Gone] {
        let mut facts = Facts { container: Container::Exited, image: true, ..FRESH };
        let done = run(goal, &mut facts);
        assert_eq!(done[0], Action::Settle, "{goal:?}");
        assert!(!done.contains(&Action::Start) && !done.contains(&Action::Create), "{goal:?}");
    }
}

#[test]
fn a_task_that_never_began_needs_no_signal() {
    use Action::*;
    let mut facts = FRESH;
    run(Goal::Ready, &mut facts);
    assert_eq!(run(Goal::Stopped, &mut facts), [Remove, Settle, Detach, Wait]);
}

fn goals() -> impl Strategy<Value = Goal> {
    prop_oneof![Just(Goal::Ready), Just(Goal::Running), Just(Goal::Stopped), Just(Goal::Gone)]
}

fn facts() -> impl Strategy<Value = Facts> {
    let container = prop_oneof![
        Just(Container::Absent),
        Just(Container::Created),
        Just(Container::Running),
        Just(Container::Exited)
    ];
    let stopping = prop_oneof![
        Just(Stopping::NotAsked),
        Just(Stopping::Asked),
        Just(Stopping::Overdue),
        Just(Stopping::Killed)
    ];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (flags, container, any::<bool>(), stopping).prop_map(
        |((image, attached, settled, withdrawn, drained), container, doomed, stopping)| Facts {
            image,
            attached,
            container,
            settled,
            withdrawn,
            drained,
            doomed,
            stopping,
        },
    )
}

proptest! {
    /// From anywhere, acting reaches rest, and at rest the same question has the same answer.
    #[test]
    fn acting_comes_to_rest(goal in goals(), start in facts()) {
        let mut facts = start;
        let rest = *run(goal, &mut facts).last().unwrap();
        prop_assert_eq!(step(goal, &facts), rest);
    }

    /// Goals only move forward; a container is created and started at most once on the way.
    #[test]
    fn a_task_runs_at_most_once(mut wanted in prop::collection::vec(goals(), 1..6)) {
        wanted.sort();
        let mut facts = FRESH;
        let mut all = Vec::new();
        for goal in wanted {
            all.extend(run(goal, &mut facts));
            if facts.stopping == Stopping::Asked && facts.container == Container::Running {
                facts.container = Container::Exited;
            }
        }
        prop_assert!(all.iter().filter(|a| **a == Action::Create).count() <= 1);
        prop_assert!(all.iter().filter(|a| **a == Action::Start).count() <= 1);
        prop_assert!(all.iter().filter(|a| **a == Action::Settle).count() <= 1);
    }

    /// A task that was let go of leaves nothing.
    #[test]
    fn what_is_gone_leaves_nothing(start in facts()) {
        let mut facts = start;
        run(Goal::Gone, &mut facts);
        if facts.container == Container::Running {
            facts.container = Container::Exited;
            run(Goal::Gone, &mut facts);
        }
        prop_assert_eq!(step(Goal::Gone, &facts), Action::Forget);
        prop_assert_eq!(facts.container, Container::Absent);
        prop_assert!(!facts.attached);
    }

    /// Nothing is signalled while balancers may still send to it.
    #[test]
    fn no_signal_before_withdrawal(goal in goals(), facts in facts()) {
        if step(goal, &facts) == Action::Stop {
            prop_assert!(facts.doomed || (facts.withdrawn && facts.drained));
        }
        if step(goal, &facts) == Action::Drain {
            prop_assert!(facts.withdrawn);
        }
    }
}
