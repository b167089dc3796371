//! What a daemon tells the service manager that started it: that it is ready, what it is doing, that
//! it ends, and that it still goes round.
//!
//! Without NOTIFY_SOCKET, which systemd sets for units of `Type=notify`, nothing here does anything.
//! The watchdog belongs on the runtime of the daemon's core: a thread of its own would go on saying
//! that all is well while nothing is.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

/// Variables by which the service manager is found. Not for children, which are not the service.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];
/// Signs of life within the time after which the daemon counts as dead: two may be late.
const SIGNS: u32 = 3;

/// The start is complete. May be said again; only the status counts then.
pub fn ready(status: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What it is doing, in words, for `systemctl status`. One line.
pub fn status(status: &str) {
    say(&[NotifyState::Status(status)]);
}

/// The end has begun.
pub fn stopping(status: &str) {
    say(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Gives a sign of life for as long as `alive` answers that it is. An answer that does not come is
/// none: `alive` should ask what would be stuck with the daemon. Returns at once when nobody wants
/// signs of life.
pub async fn watchdog<F>(mut alive: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return;
    };
    let mut signs = tokio::time::interval(limit / SIGNS);
    signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = false;
    loop {
        signs.tick().await;
        let is_alive = alive().await;
        if is_alive {
            say(&[NotifyState::Watchdog]);
        } else if !silent {
            tracing::warn!(?limit, "stuck: the service manager gets no sign of life");
        }
        silent = !is_alive;
    }
}

/// After how long without a sign of life the service manager ends the daemon.
pub fn watchdog_limit() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    /// Names the part that a copy of this test program plays.
    const PART: &str = "CLUSTER_TEST_PART";
    const NAME: &str = "systemd::tests::the_service_manager_hears_everything_in_order";

    /// Plays the daemon. Its core goes round four times and is stuck then.
    async fn daemon() {
        ready("serving");
        status("in session");
        let (rounds, is_stuck) = (AtomicU32::new(0), Notify::new());
        let watch = watchdog(|| async {
            if rounds.fetch_add(1, Ordering::SeqCst) >= 4 {
                stopping("stuck");
                is_stuck.notify_one();
                std::future::pending::<()>().await;
            }
            true
        });
        let stuck_for_long = async {
            is_stuck.notified().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        tokio::select! {
            () = watch => {}
            () = stuck_for_long => {}
        }
    }

    /// The environment of a process is fixed when it starts, so the daemon is one of its own.
    fn copy(socket: Option<&std::path::Path>) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME]).env(PART, "daemon");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        if let Some(socket) = socket {
            command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "30000");
        }
        command
    }

    #[tokio::test]
    async fn the_service_manager_hears_everything_in_order() {
        if std::env::var_os(PART).is_some() {
            return daemon().await;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let mut child = copy(Some(&path)).spawn().unwrap();
        let heard = || {
            let mut bytes = [0; 256];
            let count = socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..count].to_vec()).unwrap()
        };
        assert_eq!(heard(), "READY=1\nSTATUS=serving\n");
        assert_eq!(heard(), "STATUS=in session\n");
        for _ in 0..4 {
            assert_eq!(heard(), "WATCHDOG=1\n");
        }
        assert_eq!(heard(), "STOPPING=1\nSTATUS=stuck\n");
        assert!(child.wait().unwrap().success());
        // Whoever is stuck gives no sign.
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 256]).is_err());
    }

    #[tokio::test]
    async fn without_a_service_manager_nothing_happens() {
        let Ok(ended) = copy(None).status() else { panic!("the copy did not start") };
        assert!(ended.success());
    }
}
