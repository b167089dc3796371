//! Which changes of the managers are safe, and who replaces whom.

use cluster_model::NodeId;
use cluster_planner::managers::{
    Change, HEARD_WITHIN_MS, LAG_MAX, Replacement, Seat, check, may_fail, replacement,
};
use proptest::prelude::*;

const AFTER_MS: u64 = 60_000;

/// `v`: a voter that is heard, `V`: one that is not; `s` and `S`: spares.
fn seats(letters: &str) -> Vec<Seat> {
    let seat = |(id, letter): (u64, char)| Seat {
        id: NodeId(id),
        name: format!("m{id}"),
        voter: letter.eq_ignore_ascii_case(&'v'),
        silent_ms: if letter.is_ascii_uppercase() { AFTER_MS + id } else { 0 },
        lag: 0,
    };
    (1..).zip(letters.chars()).map(seat).collect()
}

#[test]
fn changes_that_keep_a_heard_majority_are_fine() {
    for (letters, change) in [
        ("vs", Change::Promote(NodeId(2))),
        ("vvVs", Change::Promote(NodeId(4))),
        ("vvv", Change::Demote(NodeId(1))),
        ("vvV", Change::Demote(NodeId(3))),
        ("vvV", Change::Remove(NodeId(3))),
        ("vS", Change::Remove(NodeId(2))),
        // Made already.
        ("vv", Change::Promote(NodeId(2))),
        ("vs", Change::Demote(NodeId(2))),
        ("v", Change::Remove(NodeId(9))),
    ] {
        assert_eq!(check(&seats(letters), change), Ok(()), "{letters} {change:?}");
    }
}

#[test]
fn refusals_name_who_is_not_heard_and_what_to_do() {
    for (letters, change, says) in [
        ("v", Change::Demote(NodeId(1)), ["m1 is the only voter", "promote a spare"]),
        ("v", Change::Remove(NodeId(1)), ["m1 is the only voter", "join another"]),
        ("vS", Change::Promote(NodeId(2)), ["m2 is not heard (for 60 s)", "start it"]),
        ("vvV", Change::Demote(NodeId(2)), ["without m2 1 of 2 voters is heard", "m3 (for 60 s)"]),
        ("vvV", Change::Remove(NodeId(1)), ["2 are needed", "demote or remove those first"]),
        ("vVV", Change::Remove(NodeId(3)), ["now 1 of 3 voters is heard", "recover"]),
        ("vVVs", Change::Promote(NodeId(4)), ["m2 (for 60 s), m3 (for 60 s)", "recover"]),
        ("v", Change::Promote(NodeId(7)), ["not in the group", ""]),
    ] {
        let refused = check(&seats(letters), change).expect_err(letters);
        for text in says {
            assert!(refused.contains(text), "{letters} {change:?}: {refused}");
        }
    }
    let mut late = seats("vs");
    late[1].lag = LAG_MAX + 1;
    let refused = check(&late, Change::Promote(NodeId(2))).expect_err("too late");
    assert!(refused.contains("1001 entries"), "{refused}");
}

#[test]
fn a_dead_voter_is_replaced_by_the_best_spare() {
    let (promote, demote) = (NodeId(4), NodeId(3));
    assert_eq!(replacement(&seats("vvVs"), AFTER_MS), Replacement::Swap { promote, demote });
    assert_eq!(replacement(&seats("vvVs"), 0), Replacement::Nothing { look_in_ms: None });
    // Not long enough, yet.
    let wait = replacement(&seats("vvVs"), AFTER_MS + 10_003);
    assert_eq!(wait, Replacement::Nothing { look_in_ms: Some(10_000) });
    assert!(
        matches!(replacement(&seats("vvV"), AFTER_MS), Replacement::Held(why) if why.contains("--spare"))
    );
    assert!(matches!(replacement(&seats("vvVS"), AFTER_MS), Replacement::Held(_)));
    // Too few are heard to agree on anything.
    assert!(
        matches!(replacement(&seats("vVVs"), AFTER_MS), Replacement::Held(why) if why.contains("2 are needed"))
    );
    let mut two = seats("vvVss");
    two[3].lag = 7;
    assert_eq!(replacement(&two, AFTER_MS), Replacement::Swap { promote: NodeId(5), demote });
    // The longest silent one first.
    let swap = Replacement::Swap { promote: NodeId(6), demote: NodeId(5) };
    assert_eq!(replacement(&seats("vvvVVs"), AFTER_MS), swap);
}

#[test]
fn what_may_fail_counts_those_that_are_heard() {
    for (letters, left) in [("v", 0), ("vv", 0), ("vvv", 1), ("vvV", 0), ("vvvvv", 2), ("vVV", 0)] {
        assert_eq!(may_fail(&seats(letters)), left, "{letters}");
    }
}

fn any_seats() -> impl Strategy<Value = Vec<Seat>> {
    let seat = (any::<bool>(), 0..3 * HEARD_WITHIN_MS, 0..2 * LAG_MAX);
    prop::collection::vec(seat, 1..8).prop_map(|rows| {
        let seat = |(id, (voter, silent_ms, lag)): (u64, (bool, u64, u64))| Seat {
            id: NodeId(id),
            name: format!("m{id}"),
            voter,
            silent_ms: if id == 1 { 0 } else { silent_ms },
            lag,
        };
        (1..).zip(rows).map(seat).collect()
    })
}

fn heard_majority(seats: &[Seat]) -> bool {
    let voters = seats.iter().filter(|seat| seat.voter);
    let heard = voters.clone().filter(|seat| seat.is_heard()).count();
    2 * heard > voters.count()
}

fn after(seats: &[Seat], promote: Option<NodeId>, out: Option<NodeId>) -> Vec<Seat> {
    let mut seats = seats.to_vec();
    for seat in &mut seats {
        seat.voter = (seat.voter || Some(seat.id) == promote) && Some(seat.id) != out;
    }
    seats
}

proptest! {
    /// Whatever is allowed leaves a group that can agree.
    #[test]
    fn nothing_allowed_loses_the_majority(seats in any_seats(), id in 1u64..8) {
        let id = NodeId(id);
        for (change, promote, out) in [
            (Change::Promote(id), Some(id), None),
            (Change::Demote(id), None, Some(id)),
            (Change::Remove(id), None, Some(id)),
        ] {
            if check(&seats, change).is_ok() && seats.iter().any(|seat| seat.id == id) {
                prop_assert!(heard_majority(&after(&seats, promote, out)), "{change:?}");
            }
        }
    }

    /// Replacing makes progress and ends: each swap leaves one dead voter less, as many voters as
    /// before, and a group that can agree.
    #[test]
    fn replacing_is_safe_and_ends(seats in any_seats(), after_ms in 1u64..3 * HEARD_WITHIN_MS) {
        let mut now = seats;
        let voters = now.iter().filter(|seat| seat.voter).count();
        for round in 0.. {
            prop_assert!(round <= now.len(), "it does not end");
            let Replacement::Swap { promote, demote } = replacement(&now, after_ms) else { break };
            let next = after(&now, Some(promote), Some(demote));
            prop_assert!(heard_majority(&now) && heard_majority(&next));
            prop_assert_eq!(next.iter().filter(|seat| seat.voter).count(), voters);
            now = next;
        }
    }
}
