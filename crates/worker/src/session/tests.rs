use cluster_wire::Failure;

use super::*;

#[test]
fn only_what_ends_for_want_of_a_word_counts_as_silence() {
    let broken = Ended::Status(Box::new(Status::unknown("the connection broke")));
    assert!(broken.is_silence(PING_PERIOD + PING_TIMEOUT));
    assert!(!broken.is_silence(HEARTBEAT_PERIOD), "it was killed or restarted");
    let told = Status::from(Failure::new(Code::Stopping, "this manager is stopping"));
    assert!(!Ended::Status(Box::new(told)).is_silence(Duration::from_secs(9)));
    assert!(Ended::Silent.is_silence(Duration::ZERO));
    assert!(!Ended::Closed.is_silence(Duration::from_secs(9)));
    let after = CONNECT_TIMEOUT;
    let late = ConnectError::Timeout { address: "10.0.0.1:7100".into(), after };
    assert!(Ended::Connect(late).is_silence(Duration::ZERO));
    let odd = ConnectError::BadAddress { address: "x".into() };
    assert!(!Ended::Connect(odd).is_silence(Duration::from_secs(9)));
}
