//! Panics as log lines, each once: a supervised task's panic is reported by its scope, with the
//! place that the hook noted; any other by the hook.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

thread_local! {
    static SUPERVISED: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Sends panics to the log instead of stderr's plain text, which would break a JSON log.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        if SUPERVISED.get() {
            PLACE.set(place);
            return;
        }
        tracing::error!(
            error = describe(info),
            place,
            thread = std::thread::current().name(),
            "panicked"
        );
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    message(info.payload()).to_owned()
}

/// Runs `poll` as part of a supervised task; a panic comes back as its message and place.
pub(crate) fn catch<T>(poll: impl FnOnce() -> T) -> Result<T, String> {
    let before = SUPERVISED.replace(true);
    // The future is dropped after a panic and never polled again, so nobody sees what it left
    // half-done except through its own shared state.
    let result = panic::catch_unwind(AssertUnwindSafe(poll));
    SUPERVISED.set(before);
    result.map_err(|payload| match PLACE.take() {
        Some(place) => format!("panicked at {place}: {}", message(&*payload)),
        None => format!("panicked: {}", message(&*payload)),
    })
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}
