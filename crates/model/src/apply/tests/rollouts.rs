//! Rollouts: who may begin, steer and write them; two tasks beside each other.

use super::fixture::{Fixture, WEB, new_task};
use crate::command::{Change, Command, NewTask, Refusal, Reply, Steer, WRITTEN_BY_THIS_PLAN};
use crate::id::{NodeId, TaskId};
use crate::node::NodeSpec;
use crate::service::{Rollout, RolloutKind, RolloutState, Service};
use crate::task::{Desired, Observed, Reason};

fn service(fixture: &Fixture) -> &Service {
    fixture.state.service(WEB).expect("known")
}

fn rollout(fixture: &Fixture) -> Rollout {
    service(fixture).rollout.clone().expect("begun")
}

fn image(fixture: &mut Fixture, image: &str) {
    fixture.update(WEB, |spec| spec.task.container.image = image.into()).expect("updated");
}

fn steer(fixture: &mut Fixture, steer: Steer) -> Result<Reply, Refusal> {
    fixture.apply(Command::SteerRollout { id: WEB, steer, at_ms: 50 })
}

fn beside(slot: u32, desired: Desired, old: u64) -> NewTask {
    NewTask { beside: Some(TaskId(old)), ..new_task(slot, desired) }
}

#[test]
fn an_update_begins_a_rollout_of_the_slots_that_are_filled() {
    let mut fixture = Fixture::web();
    assert_eq!(service(&fixture).rollout, None);
    fixture.running(10, 1, 1);
    fixture.running(11, 2, 2);
    // It ended, but nobody has dealt with it: what follows it has to move.
    fixture.report(2, 11, Observed::Failed);
    image(&mut fixture, "web:2");
    let first = rollout(&fixture);
    assert_eq!((first.kind, first.state), (RolloutKind::Update, RolloutState::Running));
    assert_eq!((first.from, first.to, first.total), (1, 2, 2));
    // Given up for a newer one: where it came from stays where to go back to.
    image(&mut fixture, "web:3");
    assert_eq!((rollout(&fixture).from, rollout(&fixture).to), (1, 3));
    assert_eq!(service(&fixture).previous, Some(1));
}

#[test]
fn nothing_to_move_is_complete_at_once() {
    let mut fixture = Fixture::web();
    image(&mut fixture, "web:2");
    assert_eq!(rollout(&fixture).state, RolloutState::Completed);
    assert_eq!(&*rollout(&fixture).message, "no task had to move");
    assert!(steer(&mut fixture, Steer::Pause).is_err());
}

#[test]
fn placement_alone_moves_only_what_its_node_does_not_suit() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    fixture.running(11, 2, 2);
    let version = fixture.state.node(NodeId(1)).expect("known").version;
    let labels = [("rack".to_owned(), "a".to_owned())].into();
    let spec = NodeSpec { labels, ..NodeSpec::default() };
    fixture.apply(Command::UpdateNode { id: NodeId(1), version, spec, at_ms: 5 }).expect("set");
    let constraint = "node.labels.rack==a".parse().expect("parses");
    fixture.update(WEB, |spec| spec.task.placement.constraints = vec![constraint]).expect("set");
    assert_eq!(rollout(&fixture).total, 1);
    let outdated = |task| fixture.state.is_outdated(service(&fixture), fixture.task(task));
    assert!(!outdated(10) && outdated(11));
    // The old task's own rules still hold there: a drain is not what moves it.
    let node = fixture.state.node(NodeId(2)).expect("known");
    assert!(service(&fixture).may_stay(1, node) && !service(&fixture).may_stay(2, node));
}

#[test]
fn users_pause_resume_and_promote_when_there_is_something_to() {
    let mut fixture = Fixture::web();
    assert!(steer(&mut fixture, Steer::Pause).is_err(), "nothing is under way");
    fixture.running(10, 1, 1);
    image(&mut fixture, "web:2");
    assert!(steer(&mut fixture, Steer::Resume).is_err());
    assert!(steer(&mut fixture, Steer::Promote).is_err(), "no canaries were asked for");
    steer(&mut fixture, Steer::Pause).expect("paused");
    assert!(steer(&mut fixture, Steer::Pause).is_err());
    assert_eq!(rollout(&fixture).state, RolloutState::PausedByUser);
    steer(&mut fixture, Steer::Resume).expect("resumed");
    let resumed = rollout(&fixture);
    assert_eq!((resumed.state, resumed.started_at_ms), (RolloutState::Running, 50));
    fixture.update(WEB, |spec| spec.update.canary = 1).expect("updated");
    assert_eq!(service(&fixture).canaries(), 1);
    steer(&mut fixture, Steer::Promote).expect("promoted");
    assert!(rollout(&fixture).promoted);
    assert_eq!(service(&fixture).canaries(), 0);
    assert!(steer(&mut fixture, Steer::Promote).is_err());
}

#[test]
fn planners_write_what_they_read_or_wrote_in_the_same_plan() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    image(&mut fixture, "web:2");
    let read = rollout(&fixture);
    let set = |version, failures| Change::SetRollout {
        service: WEB,
        version,
        rollout: Box::new(Rollout { failures, ..read.clone() }),
    };
    assert!(!fixture.change(set(read.version + 1, 1)), "it was never that");
    assert!(!fixture.change(set(WRITTEN_BY_THIS_PLAN, 1)), "this plan wrote nothing before");
    let changes = vec![set(read.version, 1), set(WRITTEN_BY_THIS_PLAN, 2)];
    let reply = fixture.apply(Command::Plan { at_ms: 6, changes });
    assert_eq!(reply, Ok(Reply::Counted { taken: 2, refused: 0 }));
    assert_eq!(rollout(&fixture).failures, 2);
    assert!(!fixture.change(set(read.version, 3)), "it changed since");
    // A user's word in between makes all of a plan stale.
    steer(&mut fixture, Steer::Pause).expect("paused");
    let changes = vec![set(read.version, 4), set(WRITTEN_BY_THIS_PLAN, 5)];
    let reply = fixture.apply(Command::Plan { at_ms: 7, changes });
    assert_eq!(reply, Ok(Reply::Counted { taken: 0, refused: 2 }));
}

#[test]
fn only_updates_are_rolled_back_and_only_once() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    image(&mut fixture, "web:2");
    let (base, tasks) = (TaskId(11), vec![new_task(2, Desired::Running)]);
    assert!(fixture.change(Change::CreateTasks { service: WEB, revision: 2, base, tasks }));
    let back = |fixture: &Fixture| {
        let version = rollout(fixture).version;
        Change::RollBack { service: WEB, version, message: "too much failed".into() }
    };
    let change = back(&fixture);
    assert!(fixture.change(change));
    let now = rollout(&fixture);
    assert_eq!((now.kind, now.from, now.to), (RolloutKind::Rollback, 2, 1));
    assert_eq!((now.state, now.total), (RolloutState::Running, 1), "slot 1 never moved");
    assert_eq!(service(&fixture).spec.task.container.image, "web:1");
    assert_eq!(service(&fixture).previous, None, "nobody goes back to what failed unnamed");
    let again = back(&fixture);
    assert!(!fixture.change(again), "a rollback is not rolled back");
}

#[test]
fn of_two_tasks_in_a_slot_the_older_one_decides_unless_it_ended() {
    for ended in [false, true] {
        let mut fixture = Fixture::web();
        fixture.running(10, 1, 1);
        image(&mut fixture, "web:2");
        let (base, tasks) = (TaskId(11), vec![beside(1, Desired::Running, 10)]);
        assert!(fixture.change(Change::CreateTasks { service: WEB, revision: 2, base, tasks }));
        if ended {
            fixture.report(1, 10, Observed::Failed);
        }
        let version = service(&fixture).version;
        let back = Command::RollBackService { id: WEB, version, to: None, at_ms: 9 };
        fixture.apply(back).expect("rolled back");
        assert_eq!(rollout(&fixture).total, u32::from(ended));
    }
}

#[test]
fn two_tasks_fill_a_slot_only_beside_each_other() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    assert!(!fixture.add(11, beside(1, Desired::Running, 99)), "no such task");
    assert!(!fixture.add(11, beside(2, Desired::Running, 10)), "not of this slot");
    assert!(fixture.add(11, beside(1, Desired::Running, 10)));
    assert!(!fixture.add(12, beside(1, Desired::Running, 10)), "one beside it is enough");
    assert!(fixture.assign(11, 2));
    assert!(fixture.desire(10, Desired::Shutdown));
    assert!(!fixture.add(12, new_task(1, Desired::Ready)), "the other one fills the slot");
    // While the first still stops, a third is prepared and no more.
    assert!(!fixture.add(12, beside(1, Desired::Running, 11)));
    assert!(fixture.add(12, beside(1, Desired::Ready, 11)));
    assert!(!fixture.desire(12, Desired::Running));
    fixture.report(1, 10, Observed::Shutdown);
    assert!(fixture.desire(12, Desired::Running));
}

#[test]
fn the_older_task_may_be_told_to_run_while_one_beside_it_does() {
    let mut fixture = Fixture::web();
    assert!(fixture.add(10, new_task(1, Desired::Ready)));
    assert!(fixture.add(11, beside(1, Desired::Running, 10)));
    assert!(fixture.assign(11, 1) && fixture.report(1, 11, Observed::Running));
    let (task, reason) = (TaskId(10), Reason::Restart);
    assert!(fixture.change(Change::SetDesired { task, desired: Desired::Running, reason }));
}
