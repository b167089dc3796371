//! What fuzz targets call of this program: every parser of a single flag, and the whole command
//! line. The module exists under the feature `fuzzing` alone.

use crate::cli::Cli;
use crate::values::{
    amount, constraint, duration, label, moment, mount, placement, port, probe, words,
};

/// Longest complaint about one value. Users' text in it is cut.
const COMPLAINT_MAX: usize = 600;

type Parser = fn(&str) -> Result<(), String>;

macro_rules! parsers {
    ($($path:path),* $(,)?) => { &[$((stringify!($path), |text| $path(text).map(drop))),*] };
}

/// By name.
pub const PARSERS: &[(&str, Parser)] = parsers![
    amount::attempts,
    amount::bytes,
    amount::count,
    amount::cpus,
    amount::priority,
    amount::ratio,
    amount::replicas,
    amount::share,
    constraint::constraint,
    duration::delay,
    duration::duration,
    duration::milliseconds,
    duration::span,
    duration::span_above_zero,
    duration::span_from_zero,
    label::label,
    moment::since,
    mount::mount,
    placement::affinity,
    placement::anti_affinity,
    placement::disconnect,
    placement::generic,
    placement::preference,
    port::port,
    port::publish,
    probe::command,
    probe::http,
    probe::retries,
    probe::tcp,
    words::words,
];

/// Gives `text` to every parser. What is wrong is told on one line of bounded length.
pub fn values(text: &str) {
    for (name, parser) in PARSERS {
        if let Err(complaint) = parser(text) {
            let length = complaint.chars().count();
            assert!((1..=COMPLAINT_MAX).contains(&length), "{name}: {length} characters");
            assert!(!complaint.contains(char::is_control), "{name}: {complaint:?}");
        }
    }
}

/// Parses a command line, without the program's name.
pub fn command_line(words: &[&str]) {
    let words = std::iter::once("clusterctl").chain(words.iter().copied());
    if let Err(error) = Cli::parse_words(words) {
        // Rendering is part of what a user meets.
        let _ = error.render().to_string();
    }
}
