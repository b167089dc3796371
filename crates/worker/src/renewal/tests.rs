use std::time::Duration;

use cluster_identity::{Ca, Role, Subject};

use super::*;

const HOUR: u64 = 3600;
const NOW: u64 = 1_790_000_000;

fn ca() -> Ca {
    Ca::create("0000000000001", NOW).unwrap()
}

fn issued(ca: &Ca, at: u64, hours: u64) -> Identity {
    let subject = Subject {
        role: Role::Worker,
        node_id: "0000000000002".into(),
        cluster_id: ca.cluster_id().into(),
    };
    ca.issue(&subject, at, Duration::from_secs(hours * HOUR)).unwrap()
}

/// Two years of certificates that live for hours, on a clock that moves by leaps: a machine that is
/// awake is never without a valid one, and renews a bounded number of times.
#[test]
fn certificates_of_hours_under_a_moved_clock() {
    let ca = ca();
    for hours in [1, 6, 24] {
        let (mut now, mut renewals) = (NOW, 0u64);
        let mut leaf = issued(&ca, now, hours).leaf().unwrap();
        let jitter = 0.7;
        while now < NOW + 60 * 24 * HOUR {
            match look(&leaf, now, jitter, true) {
                Next::Wait(seconds) => {
                    assert!(seconds > 0 && now + seconds <= leaf.not_after);
                    now += seconds.min(LOOK_PERIOD.as_secs());
                }
                Next::Renew => {
                    assert!(leaf.is_valid_at(now));
                    renewals += 1;
                    leaf = issued(&ca, now, hours).leaf().unwrap();
                    assert!(matches!(look(&leaf, now, jitter, true), Next::Wait(_)), "no loop");
                }
                Next::Recover => panic!("it expired while awake"),
            }
        }
        let expected = 60 * 24 / hours;
        assert!(renewals > expected && renewals < expected * 2 + 2, "{hours} h: {renewals}");
    }
}

#[test]
fn a_machine_that_slept_recovers_and_one_whose_clock_went_back_waits() {
    let leaf = issued(&ca(), NOW, 24).leaf().unwrap();
    assert_eq!(look(&leaf, NOW + 24 * HOUR, 0.0, true), Next::Renew, "the last second");
    assert_eq!(look(&leaf, NOW + 24 * HOUR + 1, 0.0, true), Next::Recover);
    assert_eq!(look(&leaf, NOW + 400 * 24 * HOUR, 0.0, true), Next::Recover);
    assert_eq!(look(&leaf, NOW - 10 * HOUR, 0.0, true), Next::Wait(22 * HOUR));
}

#[test]
fn what_the_managers_want_is_a_reason_to_renew() {
    let (old, new) = (ca(), ca());
    let identity = issued(&old, NOW, 24);
    let leaf = identity.leaf().unwrap();
    let wanted = |cas: String, hours: u64| {
        let wanted = Wanted { cas, cert_validity_s: hours * HOUR, confirm: false };
        is_wanted(&identity, &leaf, NOW, Some(&wanted))
    };
    assert!(is_wanted(&identity, &leaf, NOW, None), "nothing was heard yet");
    assert!(wanted(old.cert_pem().into(), 24));
    assert!(wanted(old.cert_pem().into(), 2400));
    assert!(!wanted(old.cert_pem().into(), 1), "it lives longer than certificates shall");
    assert!(!wanted(format!("{}{}", new.cert_pem(), old.cert_pem()), 24));
    assert!(!wanted(new.cert_pem().into(), 24));
    assert_eq!(look(&leaf, NOW, 0.5, false), Next::Renew);
}
