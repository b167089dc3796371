//! SIGTERM: finish what is being answered, then exit 0.
//!
//! The standard library has no signal handling and this binary takes no dependency, so three C
//! functions are declared here. The handler only writes one byte to a socket pair, which is
//! async-signal-safe; a thread reads that byte and does the rest.
#![allow(unsafe_code)] // signal(2) and write(2) have no safe form in the standard library.

use std::io::{self, Read};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::routes::App;
use crate::say::say;

const SIGTERM: i32 = 15;
const SIG_ERR: usize = usize::MAX;
/// Requests that take longer than this are cut off; the orchestrator's grace period is 10 s.
const LONGEST_DRAIN: Duration = Duration::from_secs(8);

static WAKE_FD: AtomicI32 = AtomicI32::new(-1);

unsafe extern "C" {
    fn signal(signum: i32, handler: usize) -> usize;
    fn write(fd: i32, bytes: *const u8, count: usize) -> isize;
}

extern "C" fn wake(_signum: i32) {
    let byte = 1u8;
    // SAFETY: write(2) is async-signal-safe, the fd is never closed, `byte` outlives the call.
    unsafe { write(WAKE_FD.load(Ordering::Relaxed), &raw const byte, 1) };
}

/// Installs the handler. With `IGNORE_TERM=1` the signal is noticed, logged and ignored.
pub fn on_sigterm(app: Arc<App>) -> io::Result<()> {
    let (mut woken, waker) = UnixStream::pair()?;
    waker.set_nonblocking(true)?;
    WAKE_FD.store(waker.into_raw_fd(), Ordering::Relaxed);
    let handler: extern "C" fn(i32) = wake;
    // SAFETY: `wake` has the C signature that signal(2) wants and does only async-signal-safe work.
    if unsafe { signal(SIGTERM, handler as usize) } == SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    thread::Builder::new().name("terminate".to_owned()).spawn(move || {
        let mut byte = [0u8; 1];
        while woken.read_exact(&mut byte).is_ok() {
            if app.settings.ignore_term {
                say(format_args!("web: SIGTERM ignored as IGNORE_TERM asks"));
                continue;
            }
            drain(&app);
        }
    })?;
    Ok(())
}

fn drain(app: &App) {
    say(format_args!("web: SIGTERM, finishing {} requests", app.in_flight()));
    app.begin_stop();
    let deadline = Instant::now() + LONGEST_DRAIN;
    while app.in_flight() > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    std::process::exit(0);
}
