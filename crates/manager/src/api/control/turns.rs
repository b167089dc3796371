//! Long computations for users come in turns, so that hundreds of them at once cannot take the
//! processor from the planner, which shares their threads.

use std::sync::Arc;
use std::time::Duration;

use cluster_wire::{Code, Failure};
use tokio::sync::Semaphore;

/// How long a computation waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(5);

pub struct Turns {
    /// What is computed, for people.
    what: &'static str,
    turn: Arc<Semaphore>,
}

impl Turns {
    pub fn of(what: &'static str) -> Self {
        Self { what, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Computes beside other requests. The turn lasts as long as the computation, whoever still
    /// waits for it.
    pub async fn take<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let stopping = "this manager is stopping";
        let turn = match tokio::time::timeout(TURN_MAX, self.turn.clone().acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) => return Err(Failure::new(Code::Stopping, stopping)),
            Err(_) => {
                let what = self.what;
                let why = format!("other {what} are being computed here; try again shortly");
                return Err(Failure::new(Code::Busy, why));
            }
        };
        let computed = cluster_daemon::blocking(move || {
            let _turn = turn;
            work()
        });
        computed.await.map_err(|_| Failure::new(Code::Stopping, stopping))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn one_is_computed_at_a_time_and_its_turn_outlasts_who_asked() {
        let turns = Turns::of("sums");
        let (release, released) = mpsc::channel::<()>();
        let (begun, mut begins) = tokio::sync::mpsc::channel(1);
        let first = turns.take(move || {
            begun.blocking_send(()).unwrap();
            released.recv().unwrap();
        });
        tokio::select! {
            _ = first => panic!("it was not released"),
            Some(()) = begins.recv() => {}
        }
        // Who asked has left; the second waits all the same.
        let second = turns.take(|| 2);
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(turns.turn.available_permits(), 0);
        release.send(()).unwrap();
        assert_eq!(second.await.ok(), Some(2));
    }
}
