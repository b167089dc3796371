//! The demo app: a tiny web server that answers with who and where it is, and that can be told
//! to misbehave.
//!
//! It is built static and packed alone into an image by `cargo xtask image`, so it uses nothing
//! but the standard library. Run as `/web check [PATH]` it asks the server beside it, as a health
//! check would, and as `/web hang` it never ends, nor does its child. `settings` reads the environment, `http` speaks as much HTTP/1.1 as
//! curl and a load generator need, `routes` holds the pages, `terminate` turns SIGTERM into an
//! orderly end. Nothing here belongs in a product.

mod check;
mod http;
mod routes;
mod say;
mod settings;
mod terminate;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::routes::App;
use crate::say::say;
use crate::settings::Settings;

fn main() -> ExitCode {
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(reason) => {
            eprintln!("web: {reason}");
            return ExitCode::from(2);
        }
    };
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("check") => return check::ask(settings.port, arguments.next().as_deref()),
        Some("hang") => return check::hang(),
        _ => {}
    }
    let app = Arc::new(App::new(settings));

    // The handler goes in before anything slow: as process 1 of a container a missing handler
    // means that SIGTERM is ignored and only the grace period ends us.
    if let Err(error) = terminate::on_sigterm(Arc::clone(&app)) {
        eprintln!("web: cannot handle SIGTERM: {error}");
        return ExitCode::FAILURE;
    }
    schedule_end(&app);
    if !app.settings.start_delay.is_zero() {
        say(format_args!("web: starting in {:?}", app.settings.start_delay));
        thread::sleep(app.settings.start_delay);
    }

    let listener = match listen(app.settings.port) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("web: cannot listen on port {}: {error}", app.settings.port);
            return ExitCode::FAILURE;
        }
    };
    say(format_args!(
        "web: version {} listens on port {}",
        app.settings.version, app.settings.port
    ));
    http::serve(&listener, &app);
    ExitCode::SUCCESS
}

/// Dual-stack where the container has IPv6, IPv4 alone where it has not.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))
}

/// Arms `CRASH_AFTER_MS` and `EXIT_AFTER_MS`; both count from the start of the process.
fn schedule_end(app: &Arc<App>) {
    if let Some(delay) = app.settings.crash_after {
        after(delay, || {
            say(format_args!("web: crashing as CRASH_AFTER_MS asks"));
            std::process::abort();
        });
    }
    if let Some(delay) = app.settings.exit_after {
        let code = app.settings.exit_code;
        after(delay, move || {
            say(format_args!("web: exiting with code {code} as EXIT_AFTER_MS asks"));
            std::process::exit(code);
        });
    }
}

fn after(delay: Duration, act: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        thread::sleep(delay);
        act();
    });
}
