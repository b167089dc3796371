//! The pages, and the little state behind them.

use std::env;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::http::{Request, Response};
use crate::say::say;
use crate::settings::Settings;

const MAX_SLOW_MS: u64 = 10 * 60 * 1000;
const MAX_EAT_MB: u64 = 64 * 1024;
const MEGABYTE: usize = 1024 * 1024;
const PAGE: usize = 4096;

pub struct App {
    pub settings: Settings,
    unhealthy: AtomicBool,
    unready: AtomicBool,
    stopping: AtomicBool,
    in_flight: AtomicUsize,
    eaten: Mutex<Vec<Vec<u8>>>,
}

/// Held while a request is being answered.
pub struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl App {
    pub fn new(settings: Settings) -> Self {
        Self {
            unhealthy: AtomicBool::new(settings.unhealthy),
            unready: AtomicBool::new(settings.unready),
            settings,
            stopping: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            eaten: Mutex::new(Vec::new()),
        }
    }

    pub fn enter(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(&self.in_flight)
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// One page per path; `/crash` and `/exit` do not come back.
    pub fn answer(&self, request: &Request) -> Response {
        match request.path.as_str() {
            "/" => Response::new(200, self.identity()),
            "/health" if self.unhealthy.load(Ordering::Acquire) => {
                Response::new(503, "unhealthy\n")
            }
            "/health" => Response::new(200, "healthy\n"),
            "/unhealthy" => {
                self.unhealthy.store(true, Ordering::Release);
                Response::new(200, "unhealthy from now on\n")
            }
            "/healthy" => {
                self.unhealthy.store(false, Ordering::Release);
                Response::new(200, "healthy from now on\n")
            }
            "/ready" if self.unready.load(Ordering::Acquire) => Response::new(503, "not ready\n"),
            "/ready" => Response::new(200, "ready\n"),
            "/unready" => {
                self.unready.store(true, Ordering::Release);
                Response::new(200, "not ready from now on\n")
            }
            "/readied" => {
                self.unready.store(false, Ordering::Release);
                Response::new(200, "ready from now on\n")
            }
            "/version" => Response::new(200, format!("{}\n", self.settings.version)),
            "/env" => Response::new(200, environment()),
            "/slow" => slow(request.number("ms").unwrap_or(1000)),
            "/eat" => self.eat(request.number("mb").unwrap_or(1)),
            "/exit" => exit(request.number("code").unwrap_or(0)),
            "/crash" => {
                say(format_args!("web: crashing as asked"));
                std::process::abort();
            }
            _ => Response::new(404, "no such page\n"),
        }
    }

    fn identity(&self) -> String {
        let s = &self.settings;
        format!(
            "version {}\nservice {}\ntask {}\nslot {}\nnode {}\n",
            s.version, s.service, s.task, s.slot, s.node
        )
    }

    /// Takes memory and touches every page of it, in steps, so that a limit is met gradually.
    fn eat(&self, megabytes: u64) -> Response {
        if megabytes > MAX_EAT_MB {
            return Response::new(400, format!("mb: at most {MAX_EAT_MB}\n"));
        }
        let Ok(mut eaten) = self.eaten.lock() else {
            return Response::new(503, "an earlier meal failed\n");
        };
        for _ in 0..megabytes {
            let mut block = vec![0u8; MEGABYTE];
            block.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
            eaten.push(block);
        }
        Response::new(200, format!("holding {} MB\n", eaten.len()))
    }
}

fn slow(ms: u64) -> Response {
    let ms = ms.min(MAX_SLOW_MS);
    thread::sleep(Duration::from_millis(ms));
    Response::new(200, format!("answered after {ms} ms\n"))
}

fn exit(code: u64) -> Response {
    let Ok(code) = u8::try_from(code) else {
        return Response::new(400, "code: 0 to 255\n");
    };
    say(format_args!("web: exiting with code {code} as asked"));
    std::process::exit(i32::from(code));
}

fn environment() -> String {
    let mut names: Vec<_> = env::vars_os().collect();
    names.sort();
    names.into_iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}={}", name.to_string_lossy(), value.to_string_lossy());
        text
    })
}
