//! Histories that are fine, and one bad history for each rule.

use super::*;

/// Builds histories: each request takes one unit of time unless said otherwise.
#[derive(Default)]
struct Story {
    history: History,
    now: Micros,
}

impl Story {
    fn op(&mut self, call: Call, outcome: Outcome) -> &mut Self {
        let invoked = self.now + 10;
        self.now = invoked + 10;
        self.history.ops.push(Op { client: 1, invoked, returned: self.now, call, outcome });
        self
    }

    fn create(&mut self, name: &str, mark: Mark, id: &str, version: u64) -> &mut Self {
        let outcome = Outcome::Created { id: id.to_owned(), version };
        self.op(Call::Create { name: name.to_owned(), mark }, outcome)
    }

    fn update(&mut self, id: &str, read: u64, mark: Mark, outcome: Outcome) -> &mut Self {
        self.op(Call::Update { kind: Kind::Service, id: id.to_owned(), read, mark }, outcome)
    }

    fn remove(&mut self, id: &str, read: u64, outcome: Outcome) -> &mut Self {
        self.op(Call::Remove { id: id.to_owned(), read }, outcome)
    }

    fn read(&mut self, name: &str, outcome: Outcome) -> &mut Self {
        self.op(Call::Read { kind: Kind::Service, name: name.to_owned() }, outcome)
    }

    /// The last request began before the one before it ended.
    fn overlapping(&mut self) -> &mut Self {
        let count = self.history.ops.len();
        self.history.ops[count - 1].invoked = self.history.ops[count - 2].invoked + 1;
        self
    }

    fn rules(&self) -> Vec<&'static str> {
        let mut rules: Vec<_> =
            judge(&self.history).into_iter().map(|objection| objection.rule).collect();
        rules.dedup();
        rules
    }
}

fn found(id: &str, version: u64, mark: Mark, index: u64) -> Outcome {
    Outcome::Found(Seen { id: id.to_owned(), version, mark, index })
}

fn updated(version: u64) -> Outcome {
    Outcome::Updated { version }
}

const MOVED: Outcome = Outcome::Refused(Refusal::VersionMoved);

#[test]
fn a_plain_life_is_fine() {
    let mut story = Story::default();
    story
        .read("web", Outcome::Missing)
        .create("web", 1, "a", 10)
        .read("web", found("a", 10, 1, 11))
        .update("a", 10, 2, updated(12))
        .update("a", 10, 3, MOVED)
        .read("web", found("a", 12, 2, 14))
        .remove("a", 12, Outcome::Removed)
        .read("web", Outcome::Missing)
        .update("a", 12, 4, Outcome::Refused(Refusal::NotFound))
        .create("web", 5, "b", 20)
        .read("web", found("b", 20, 5, 20));
    assert_eq!(judge(&story.history), []);
}

#[test]
fn a_write_of_unknown_fate_may_show_or_not() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).update("a", 10, 2, Outcome::Unknown);
    let mut shown = Story { history: story.history.clone(), now: story.now };
    shown.read("web", found("a", 13, 2, 13)).update("a", 13, 3, updated(15));
    assert_eq!(judge(&shown.history), []);
    // Not yet, then late.
    story.read("web", found("a", 10, 1, 12)).read("web", found("a", 14, 2, 15));
    assert_eq!(judge(&story.history), []);
    // It may be what an update met.
    let mut met = Story::default();
    met.create("web", 1, "a", 10).update("a", 10, 2, Outcome::Unknown).update("a", 10, 3, MOVED);
    assert_eq!(judge(&met.history), []);
}

#[test]
fn a_lost_write_is_found() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).update("a", 10, 2, updated(12));
    story.read("web", found("a", 10, 1, 11));
    assert!(story.rules().contains(&"lost"), "{:?}", story.rules());
    // While it is under way, the old value is right.
    let mut story = Story::default();
    story.create("web", 1, "a", 10).update("a", 10, 2, updated(12));
    story.read("web", found("a", 10, 1, 11)).overlapping();
    assert_eq!(judge(&story.history), []);
}

#[test]
fn two_reads_never_go_back() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).update("a", 10, 2, Outcome::Unknown);
    story.read("web", found("a", 12, 2, 12)).read("web", found("a", 10, 1, 12));
    assert!(story.rules().contains(&"lost"), "{:?}", story.rules());
}

#[test]
fn what_a_watch_showed_is_known_to_later_reads() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).update("a", 10, 2, Outcome::Unknown);
    let seen = Seen { id: "a".to_owned(), version: 12, mark: 2, index: 12 };
    story.history.sightings.push(Sighting { at: story.now + 1, seen });
    story.read("web", found("a", 10, 1, 11));
    assert!(story.rules().contains(&"lost"), "{:?}", story.rules());
}

#[test]
fn two_updates_of_one_version_cannot_both_succeed() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).update("a", 10, 2, updated(12));
    story.update("a", 10, 3, updated(14)).overlapping();
    assert_eq!(story.rules(), ["cas"]);
}

#[test]
fn versions_follow_the_clock() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).update("a", 10, 2, updated(15));
    story.update("a", 9, 3, updated(12));
    assert!(story.rules().contains(&"order"), "{:?}", story.rules());
}

#[test]
fn a_refused_write_has_no_effect() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10);
    story.update("a", 10, 2, Outcome::Refused(Refusal::Unavailable));
    story.read("web", found("a", 12, 2, 12));
    assert!(story.rules().contains(&"ghost"), "{:?}", story.rules());
}

#[test]
fn a_version_belongs_to_one_write() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).update("a", 10, 2, updated(12));
    story.read("web", found("a", 13, 2, 14));
    assert!(story.rules().contains(&"ghost"), "{:?}", story.rules());
}

#[test]
fn a_view_holds_all_up_to_its_index() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).update("a", 10, 2, updated(12));
    story.read("web", found("a", 10, 1, 12)).overlapping();
    assert_eq!(story.rules(), ["index"]);
}

#[test]
fn the_log_does_not_shrink() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).create("db", 2, "b", 20);
    story.read("web", found("a", 10, 1, 15));
    assert_eq!(story.rules(), ["index"]);
}

#[test]
fn what_is_removed_stays_removed() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).remove("a", 10, Outcome::Removed);
    story.read("web", found("a", 10, 1, 14));
    assert_eq!(story.rules(), ["undead"]);
    let mut story = Story::default();
    story.create("web", 1, "a", 10).remove("a", 10, Outcome::Removed);
    story.update("a", 10, 2, updated(14));
    assert_eq!(story.rules(), ["undead"]);
}

#[test]
fn what_is_there_is_found() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).read("web", Outcome::Missing);
    assert_eq!(story.rules(), ["missing"]);
    // A removal of unknown fate explains it.
    let mut story = Story::default();
    story.create("web", 1, "a", 10).remove("a", 10, Outcome::Unknown);
    story.read("web", Outcome::Missing);
    assert_eq!(judge(&story.history), []);
}

#[test]
fn a_name_is_given_once() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).create("web", 2, "b", 12);
    assert_eq!(story.rules(), ["twins"]);
}

#[test]
fn refusals_have_a_reason() {
    let mut story = Story::default();
    story.create("web", 1, "a", 10).update("a", 10, 2, MOVED);
    assert_eq!(story.rules(), ["refusal"]);
    let mut story = Story::default();
    story.create("web", 1, "a", 10);
    story.update("a", 10, 2, Outcome::Refused(Refusal::NotFound));
    assert_eq!(story.rules(), ["refusal"]);
}

#[test]
fn managers_may_move_a_node_but_not_lose_a_write() {
    let update =
        |id: &str, read, mark| Call::Update { kind: Kind::Node, id: id.to_owned(), read, mark };
    let read = || Call::Read { kind: Kind::Node, name: "n".to_owned() };
    let mut story = Story::default();
    story.op(read(), found("n", 5, 0, 9)).op(update("n", 5, 1), updated(10));
    story.op(read(), found("n", 14, 1, 15)).op(update("n", 10, 2), MOVED);
    story.op(update("n", 14, 3), updated(16)).op(read(), found("n", 16, 3, 16));
    assert_eq!(judge(&story.history), []);
    story.op(read(), found("n", 18, 1, 19));
    assert_eq!(story.rules(), ["lost"]);
}
